// A Web Worker as a node's workshop: loads the kernels, and trains, stores and moves files as it is told (workshop.ts).

import { backoffS } from "./backoff.ts";
import type { MakeEngine } from "./engine.ts";
import { type Bytes, openFiles } from "./files.ts";
import type { FromWorker, ToWorker } from "./pipe.ts";
import { Workshop } from "./workshop.ts";

const BEAT_MS = 250;

/** A worker's own globals, which the DOM's types do not know. */
interface Scope {
    postMessage(message: FromWorker): void;
    onmessage: ((event: MessageEvent<ToWorker>) => void) | null;
}

const scope = self as unknown as Scope;
const waiting: ToWorker[] = [];
scope.onmessage = (event) => void waiting.push(event.data);

/** A turn of the event loop without the four milliseconds that timers take. */
const turn = new MessageChannel();
let turned: () => void = () => undefined;
turn.port1.onmessage = () => turned();
const breathe = (): Promise<void> =>
    new Promise((resolve) => {
        turned = resolve;
        turn.port2.postMessage(null);
    });

/** Be that worker, with an engine made from the kernels that this server serves. */
export function serve(makeEngine: MakeEngine): void {
    void open(makeEngine).catch((error: unknown) => {
        // Thrown where the page hears it: in `onerror`.
        setTimeout(() => {
            throw error;
        });
    });
}

async function open(makeEngine: MakeEngine): Promise<void> {
    const engine = await makeEngine(await kernels());
    const around = { now: () => performance.now() / 1000, tell: (message: FromWorker) => scope.postMessage(message), breathe };
    const workshop = new Workshop(engine, await openFiles(), around);
    scope.postMessage({ kind: "ready", runtime: engine.runtime });
    setInterval(() => scope.postMessage({ kind: "beat" }), BEAT_MS);
    scope.onmessage = (event) => workshop.hear(event.data);
    waiting.forEach((message) => workshop.hear(message));
}

/** The module's bytes, asked for until the server answers. */
async function kernels(): Promise<Bytes> {
    for (let failures = 0; ; failures++) {
        const answer = await fetch("/static/kernels.wasm", { redirect: "error" }).catch(() => null);
        if (answer?.ok === true) return new Uint8Array(await answer.arrayBuffer());
        if (answer?.status === 404) throw new Error("this server has no kernels.wasm");
        await new Promise((resolve) => setTimeout(resolve, backoffS(failures) * 1000));
    }
}
