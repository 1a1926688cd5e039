/** The service worker without a browser, checked in Node; prints a line per check that fails. */

export {};

/** Node's own, which the DOM's types do not know. */
declare const process: { exit(code: number): never };

const kept = new Map<string, Response>();
let full = false;
let network: (() => Response) | null = null;
let heard: (event: unknown) => void = () => undefined;
let failures = 0;

const cache = {
    addAll: async () => undefined,
    match: async (path: string) => kept.get(path)?.clone(),
    put: async (path: string, answer: Response) => {
        if (full) throw new DOMException("no room", "QuotaExceededError");
        kept.set(path, answer);
    },
};
Object.assign(globalThis, {
    self: { addEventListener: (name: string, listener: typeof heard) => name === "fetch" && (heard = listener), skipWaiting: async () => undefined },
    caches: { open: async () => cache },
    location: { origin: "http://here" },
    fetch: async () => {
        if (network === null) throw new TypeError("no network");
        return network();
    },
});
await import("../../browser/src/join/sw.ts");

/** What a page is answered that asks for `path`, and whatever the worker does after that is over. */
async function asked(path: string): Promise<string> {
    let answer: Promise<Response> | undefined;
    const after: Promise<unknown>[] = [];
    heard({ request: new Request(`http://here${path}`), respondWith: (said: Promise<Response>) => (answer = said), waitUntil: (task: Promise<unknown>) => after.push(task) });
    const said = await answer!.then((found) => found.text(), (error: Error) => error.name);
    await Promise.all(after);
    return said;
}

function equal(name: string, found: unknown, wanted: unknown): void {
    if (found === wanted) return;
    failures += 1;
    console.log(`${name}: ${String(found)} is not ${String(wanted)}`);
}

network = () => new Response("old");
equal("the network's answer is given", await asked("/join"), "old");
network = null;
equal("without a network it is what was kept", await asked("/join"), "old");
equal("what was never kept is missing", await asked("/static/join/other.js"), "TypeError");
network = () => new Response("new");
full = true;
equal("where there is no room a fresh page is given all the same, not the old one", await asked("/join"), "new");
equal("nor is it missing where none was kept", await asked("/static/join/other.js"), "new");
process.exit(failures);
