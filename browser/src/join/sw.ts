// The service worker: keeps the page's own static files, so that it opens without a network. The network comes first, so that a new
// release is there with the next load and old and new files are never mixed for longer than a lost connection.

export {}; // a module: its names are its own

const CACHE = "gridsched-pages";
const NEEDED = ["/join", "/static/join/join.css", "/static/join/join.js", "/static/join/worker.js", "/static/kernels.wasm"];
const MINE = /^\/(join(\/manifest\.webmanifest)?|static\/(join\/[^?]*|kernels\.wasm))$/;

interface Waits extends Event {
    waitUntil(task: Promise<unknown>): void;
}

interface Fetched extends Waits {
    readonly request: Request;
    respondWith(answer: Promise<Response>): void;
}

/** A service worker's own globals, which the DOM's types do not know. */
interface Scope {
    skipWaiting(): Promise<void>;
    clients: { claim(): Promise<void> };
    addEventListener(name: "install" | "activate", heard: (event: Waits) => void): void;
    addEventListener(name: "fetch", heard: (event: Fetched) => void): void;
}

const scope = self as unknown as Scope;

scope.addEventListener("install", (event) => {
    const kept = caches.open(CACHE).then((cache) => cache.addAll(NEEDED));
    event.waitUntil(kept.then(() => scope.skipWaiting()));
});
scope.addEventListener("activate", (event) => event.waitUntil(scope.clients.claim()));
scope.addEventListener("fetch", (event) => {
    const { request } = event;
    const url = new URL(request.url);
    if (request.method === "GET" && url.origin === location.origin && MINE.test(url.pathname)) event.respondWith(answered(event, url.pathname));
});

async function answered(event: Fetched, path: string): Promise<Response> {
    const cache = await caches.open(CACHE);
    try {
        const fresh = await fetch(event.request);
        // Where there is no room to keep it, the page has it all the same.
        if (fresh.ok) event.waitUntil(cache.put(path, fresh.clone()).catch(() => undefined));
        return fresh;
    } catch (error) {
        const kept = await cache.match(path);
        if (kept === undefined) throw error;
        return kept;
    }
}
