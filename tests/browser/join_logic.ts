/** What of the page's node needs no browser, checked in Node; prints a line per check that fails and ends with their number. */

import { backoffS } from "../../browser/src/node/backoff.ts";
import { hindranceOf } from "../../browser/src/node/device.ts";
import { EnergyRegister, IDLE_SHARE } from "../../browser/src/node/energy.ts";
import type { Engine, Run, Sources } from "../../browser/src/node/engine.ts";
import { Client, PIECE_BYTES } from "../../browser/src/node/client.ts";
import { Failure, failureFrom, isFatal, isFinal, isOtherRelease } from "../../browser/src/node/errors.ts";
import type { Bytes, Files } from "../../browser/src/node/files.ts";
import { type Finished, LIMITS } from "../../browser/src/node/home.ts";
import { Middles } from "../../browser/src/node/middles.ts";
import { Pace } from "../../browser/src/node/pace.ts";
import type { FromWorker, Progress, Train } from "../../browser/src/node/pipe.ts";
import { Returns, type ReturnsParts } from "../../browser/src/node/returns.ts";
import { single } from "../../browser/src/node/single.ts";
import { Supply } from "../../browser/src/node/supply.ts";
import { type UnitSpec, type UpdateNotice, parse } from "../../browser/src/node/wire.ts";
import { Workshop } from "../../browser/src/node/workshop.ts";
import { check, end, equal } from "./checks.ts";

function holds(what: boolean, words: string): void {
    if (!what) throw new Error(words);
}

/** Files in memory; `full` makes every write fail. */
class Memory implements Files {
    full = false;
    readonly held = new Map<string, Bytes>();

    async write(folder: string, name: string, data: Bytes): Promise<void> {
        if (this.full) throw new Error("full");
        this.held.set(`${folder}|${name}`, data.slice());
    }

    async read(folder: string, name: string): Promise<Bytes | null> {
        return this.held.get(`${folder}|${name}`) ?? null;
    }

    async list(folder: string): Promise<string[]> {
        return [...this.held.keys()].filter((key) => key.startsWith(`${folder}|`)).map((key) => key.split("|")[1]!);
    }

    async folders(): Promise<string[]> {
        return [...new Set([...this.held.keys()].map((key) => key.split("|")[0]!))];
    }

    async remove(folder: string, name?: string): Promise<void> {
        for (const key of [...this.held.keys()]) if (key === `${folder}|${name}` || (name === undefined && key.startsWith(`${folder}|`))) this.held.delete(key);
    }
}

/** A digest of its own: enough to tell bytes apart. */
const digestOf = (data: Uint8Array): string => Array.from({ length: 8 }, (_, place) => data.reduce((sum, byte, at) => (Math.imul(sum, 31 + place) + byte + at) >>> 0, 7 + place).toString(16).padStart(8, "0")).join("");

const SPEC = { unit_id: "u", start: 0, stop: 80, batch_size: 8, passes: 10, kind: "train", base: "b" } as unknown as UnitSpec;

class CountingRun implements Run {
    position = 0;
    readonly steps = 100;
    readonly loss = 1;

    constructor(private readonly onStep: (position: number) => void) {}

    step(): void {
        this.position += 1;
        this.onStep(this.position);
    }

    save(): Bytes {
        return Uint8Array.of(this.position);
    }

    finish(): { update: Bytes; metrics: Record<string, number>; digests: [number, string][] } {
        return { update: Uint8Array.of(1, 2, 3), metrics: { loss: 1 }, digests: [] };
    }
}

/** A workshop whose clock goes on by one second a step. */
function workshop(files: Files, onStep: (position: number) => void = () => undefined): { shop: Workshop; said: FromWorker[]; until: (kind: string) => Promise<FromWorker> } {
    let nowS = 0;
    const said: FromWorker[] = [];
    const waits: [string, (message: FromWorker) => void][] = [];
    const engine: Engine = {
        runtime: "r",
        kernels: "k",
        sha256: digestOf,
        prepare: async (_unit: UnitSpec, _sources: Sources, middles: Bytes[]) => {
            const run = new CountingRun((position) => {
                nowS += 1;
                onStep(position);
            });
            if (middles[0] !== undefined) run.position = middles[0][0]!;
            return run;
        },
        release: async () => undefined,
    };
    const tell = (message: FromWorker): void => {
        said.push(message);
        const at = waits.findIndex(([kind]) => kind === message.kind || (kind === "paused" && message.kind === "progress" && message.paused));
        if (at >= 0) waits.splice(at, 1)[0]![1](message);
    };
    const shop = new Workshop(engine, files, { now: () => nowS, tell, breathe: () => new Promise((resolve) => setTimeout(resolve)) });
    return { shop, said, until: (kind) => new Promise((resolve) => waits.push([kind, resolve])) };
}

const TRAIN: Train = { kind: "train", run: 1, unit: SPEC, continuation: null, continuationStep: 0, saveEveryS: 5, share: 1 };

await check("a long seed keeps every digit", () => {
    equal(String(parse<{ seed: bigint }>('{"seed":1152921504606846977}').seed), "1152921504606846977");
    equal(parse<{ seed: number }>('{"seed":7}').seed, 7);
});

await check("waiting doubles up to its longest, never as one", () => {
    equal([0, 1, 2, 20].map((failed) => backoffS(failed, 0.5, 30, () => 1)), [0.5, 1, 2, 30]);
    equal(backoffS(3, 0.5, 30, () => 0), 2);
});

await check("the daemon's own words for an error are kept", () => {
    const lost = failureFrom(409, '{"error":"LeaseLost","detail":"lease a is over"}', "POST");
    equal([lost.name, lost.message, isFinal(lost), isFatal(lost)], ["LeaseLost", "lease a is over", true, false]);
    equal([failureFrom(403, "<html>log in to this network", "x").name, failureFrom(502, "", "x").name], ["Unreachable", "Unreachable"]);
    holds(isFatal(failureFrom(401, '{"error":"Unauthorized","detail":""}', "x")), "a revoked token is not told");
    holds(isOtherRelease(failureFrom(400, '{"error":"OtherRelease","detail":""}', "x")), "another release is not told");
});

await check("too long a notice goes without its digests, and work whose notice is not taken at all is kept and told again", async () => {
    const sent: number[] = [];
    const over: boolean[] = [];
    let most = -1; // digests that the daemon takes
    const update = async (notice: UpdateNotice): Promise<void> => {
        sent.push(notice.digests.length);
        if (notice.digests.length > most) throw new Failure("TooLarge", "over the limit", 413);
    };
    const contact = { open: true, instance: "i", choosing: false, among: (ask: () => Promise<void>) => ask(), missed: () => undefined, hurry: () => undefined };
    const nothing = { worker: () => undefined, meter: async () => null, keep: async () => undefined, accepted: () => undefined };
    const parts = { ...nothing, client: { update }, contact, now: () => 0, over: (_lease: string, _generation: number, refused: boolean) => over.push(refused) };
    const done: Finished = { leaseId: "l", generation: 1, unitId: "u", update: null, stepsExecuted: 20, metrics: {}, digests: [[20, "d"]] };
    const returns = new Returns(parts as unknown as ReturnsParts, [done]);
    const turn = async (nowS: number): Promise<void> => {
        returns.turn(nowS, null);
        await new Promise((resolve) => setTimeout(resolve));
    };
    await turn(0);
    equal([sent, over, returns.waiting], [[1, 0], [], 1]);
    most = 0;
    await turn(100);
    equal([sent, over, returns.waiting], [[1, 0, 1, 0], [false], 0]);
});

await check("energy is counted for steps, a little for holding, and nothing for a gap or for idling", () => {
    const register = new EnergyRegister(100, 5, 0);
    register.count(10, 10, true);
    equal(register.energyJ, 1005);
    register.count(20, 0, false);
    equal(register.energyJ, 1005);
    register.count(3620, 0, true);
    equal(register.energyJ, 1005 + 100 * IDLE_SHARE * 5);
    register.count(3600, 0, true);
    holds(register.energyJ >= 1005, "the register ran backwards");
});

await check("a share of the time is kept to, whatever the steps", () => {
    const pace = new Pace();
    pace.share = 0.25;
    let rest = 0;
    for (let step = 0; step < 100; step++) rest += pace.after(0.004);
    holds(Math.abs(rest - 1.2) < 0.03, `rested ${rest} s for 0.4 s of work`);
});

await check("a device that slows down rests more, and less again when it has recovered", () => {
    const pace = new Pace();
    const work = (stepS: number, seconds: number): void => {
        for (let passed = 0; passed < seconds; passed += stepS) pace.after(stepS);
    };
    work(0.1, 10);
    equal(pace.throttle, 1);
    work(0.2, 10);
    holds(pace.throttle < 1 && pace.throttle >= 0.3, `throttle is ${pace.throttle}`);
    work(0.1, 30);
    equal(pace.throttle, 1);
});

await check("the device's own limits come in order", () => {
    const sample = { onBattery: true, hidden: true, saveData: true };
    const background = { ...LIMITS, inBackground: false };
    equal(hindranceOf(sample, background), "on_battery");
    equal(hindranceOf({ ...sample, onBattery: false }, background), "data_saver");
    equal(hindranceOf({ ...sample, onBattery: null }, { ...background, despiteSaver: true }), "hidden");
    equal(hindranceOf({ onBattery: null, hidden: true, saveData: false }, LIMITS), "");
});

await check("the newest middle that is whole is found, and older ones go", async () => {
    const files = new Memory();
    const middles = new Middles(files, digestOf, "r");
    for (const step of [3, 12, 7]) await middles.save("u", step, Uint8Array.of(step));
    equal((await files.list("work/r/u")).length, 2);
    equal((await middles.newest("u"))?.step, 12);
    const newest = (await files.list("work/r/u")).sort().at(-1)!;
    await files.write("work/r/u", newest, Uint8Array.of(99));
    equal((await middles.newest("u"))?.step, 7);
});

await check("a middle that other kernels have made is not gone on from, and goes with the next unit", async () => {
    const files = new Memory();
    await new Middles(files, digestOf, "r").save("u", 5, Uint8Array.of(5));
    const mine = new Middles(files, digestOf, "other");
    equal(await mine.newest("u"), null);
    await mine.prune(["u"]);
    equal(await files.folders(), []);
});

await check("a unit runs to its end and its update waits in the outbox", async () => {
    const files = new Memory();
    const { shop, until } = workshop(files);
    const done = until("done");
    shop.hear(TRAIN);
    const found = (await done) as Extract<FromWorker, { kind: "done" }>;
    equal([found.executed, await files.list("outbox")], [100, [found.update]]);
});

await check("held at a step it saves there, and another workshop goes on from that step", async () => {
    const files = new Memory();
    const { shop, until } = workshop(files, (position) => {
        if (position === 37) shop.hear({ kind: "gate", open: false, share: 1 });
    });
    const paused = until("paused");
    shop.hear(TRAIN);
    const told = (await paused) as Progress;
    holds(told.step >= 37 && told.step < 100 && told.savedStep === told.step, JSON.stringify(told));
    const again = workshop(files);
    const done = again.until("done");
    again.shop.hear(TRAIN);
    equal(((await done) as Extract<FromWorker, { kind: "done" }>).executed, 100 - told.step);
});

await check("a continuation that nobody has any more costs steps but not the unit", async () => {
    globalThis.fetch = async () => new Response('{"error":"NotFound","detail":"there is no such blob"}', { status: 404 });
    const { shop, said, until } = workshop(new Memory());
    const done = until("done");
    void until("failed").then(() => shop.hear({ ...TRAIN, run: 2 }));
    shop.hear({ ...TRAIN, continuation: "d".repeat(64), continuationStep: 50 });
    const found = (await done) as Extract<FromWorker, { kind: "done" }>;
    equal([found.run, found.executed, said.filter((message) => message.kind === "failed")], [1, 100, []]);
});

await check("a full disk holds the work and says so", async () => {
    const files = new Memory();
    const { shop, until } = workshop(files, (position) => {
        if (position === 20) {
            files.full = true;
            shop.hear({ kind: "gate", open: false, share: 1 });
        }
    });
    const paused = until("paused");
    shop.hear(TRAIN);
    const told = (await paused) as Progress;
    holds(told.stuck.includes("full"), JSON.stringify(told));
    files.full = false;
    shop.hear({ kind: "gate", open: true, share: 1 });
    await until("done");
});

await check("a run that was dropped says no more, and the next one begins", async () => {
    const files = new Memory();
    const { shop, said, until } = workshop(files, (position) => {
        if (position === 10) shop.hear({ kind: "drop", run: 1 });
    });
    shop.hear(TRAIN);
    await new Promise((resolve) => setTimeout(resolve, 20));
    holds(!said.some((message) => message.kind === "done" || message.kind === "failed"), "the dropped run ended with words");
    const done = until("done");
    shop.hear({ ...TRAIN, run: 2 });
    equal(((await done) as Extract<FromWorker, { kind: "done" }>).run, 2);
});

/** A server of one blob that breaks off the second upload and half of the first download. */
function badLine(blob: Bytes): { asked: string[]; stored: () => number } {
    const asked: string[] = [];
    let stored = 0;
    let puts = 0;
    let gets = 0;
    globalThis.fetch = async (_input, init) => {
        const headers = new Headers(init?.headers);
        const range = headers.get("Content-Range") ?? headers.get("Range") ?? "";
        asked.push(`${init?.method} ${range}`.trim());
        if (init?.method === "HEAD") return new Response(null, { status: 404, headers: { "Upload-Offset": String(stored) } });
        if (init?.method === "PUT") {
            if (++puts === 2) throw new TypeError("network error");
            stored = Number(/-(\d+)\//.exec(range)![1]) + 1;
            return new Response(null, stored === blob.length ? { status: 204 } : { status: 202, headers: { "Upload-Offset": String(stored) } });
        }
        const from = Number(/=(\d+)-/.exec(range)?.[1] ?? 0);
        const stop = ++gets === 1 ? blob.length / 2 : blob.length;
        return new Response(blob.slice(from, stop), { status: from > 0 ? 206 : 200, headers: { "Content-Length": String(blob.length - from) } });
    };
    return { asked, stored: () => stored };
}

await check("a cut upload goes on from the byte the daemon has", async () => {
    const blob = new Uint8Array(2.5 * PIECE_BYTES) as Bytes;
    const { asked, stored } = badLine(blob);
    const client = new Client("http://here", "t");
    const cut = await client.upload("d", blob).then(
        () => "",
        (error: Error) => error.name,
    );
    equal([cut, stored()], ["Unreachable", PIECE_BYTES]);
    await client.upload("d", blob);
    const total = blob.length;
    const second = `PUT bytes ${PIECE_BYTES}-${2 * PIECE_BYTES - 1}/${total}`;
    equal(asked, ["HEAD", `PUT bytes 0-${PIECE_BYTES - 1}/${total}`, second, "HEAD", second, `PUT bytes ${2 * PIECE_BYTES}-${total - 1}/${total}`]);
});

await check("a cut download goes on from the byte that came last, and is checked", async () => {
    const blob = Uint8Array.from({ length: 1000 }, (_, place) => place) as Bytes;
    const { asked } = badLine(blob);
    const engine = { sha256: digestOf } as unknown as Engine;
    const supply = new Supply(new Client("http://here", "t"), engine, new AbortController().signal, () => undefined);
    equal(digestOf(await supply.blob(digestOf(blob))), digestOf(blob));
    equal(asked, ["GET", "GET bytes=500-"]);
    const wrong = await supply.blob("another").then(
        () => "",
        (error: Error) => error.name,
    );
    equal(wrong, "BlobCorrupt");
});

await check("a token goes with every call, and a redirect is never followed", async () => {
    let seen: RequestInit | undefined;
    globalThis.fetch = async (_input, init) => ((seen = init), new Response("{}"));
    await new Client("http://here", "secret").statement();
    equal([new Headers(seen?.headers).get("Authorization"), seen?.redirect, seen?.credentials], ["Bearer secret", "error", "omit"]);
});

await check("without locks one page works, of two that open at once too, and another takes over when it has gone without a word", async () => {
    const left: (() => void)[] = [];
    const said: string[] = [];
    const lines: BroadcastChannel[] = [];
    class Line extends BroadcastChannel {
        constructor(name: string) {
            super(name);
            lines.push(this);
        }
    }
    const wait = (seconds: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
    Object.defineProperty(globalThis, "navigator", { value: {}, configurable: true });
    Object.assign(globalThis, { BroadcastChannel: Line, addEventListener: (_: string, heard: () => void) => left.push(heard) });
    for (const name of ["a", "b", "c"]) void single(() => said.push(`${name} works`), () => said.push(`${name} waits`), 0.1, 0.3);
    await wait(0.25);
    const worker = said.find((words) => words.endsWith("works"))![0]!;
    equal(said.length, 3);
    equal(said.filter((words) => words.endsWith("works")).length, 1);
    lines["abc".indexOf(worker)]!.close();
    await wait(0.8);
    equal(said.filter((words) => words.endsWith("works")).length, 2);
    lines.forEach((line) => line.close());
});

end();
