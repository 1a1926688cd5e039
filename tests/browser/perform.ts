/** What the tests ask of the trainer, in whatever host this is bundled for: one function from a command and files to an answer and files. */

import { encodeUpdate } from "../../browser/src/trainer/codec.ts";
import { Continuation } from "../../browser/src/trainer/continuation.ts";
import { Blobs } from "../../browser/src/trainer/blobs.ts";
import { Dataset, readManifest } from "../../browser/src/trainer/dataset.ts";
import { drawKey, passOrder, permutation, stepSeed, uniformFloats, uniformInts, unitSamples } from "../../browser/src/trainer/draws.ts";
import { parseJson, writeJson, type Json, type JsonObject } from "../../browser/src/trainer/json.ts";
import { Kernels } from "../../browser/src/trainer/kernels.ts";
import { floatHex, fromFloatHex, summary } from "../../browser/src/trainer/metrics.ts";
import { readPlan } from "../../browser/src/trainer/plan.ts";
import { readProgram, readVersion } from "../../browser/src/trainer/program.ts";
import type { UnitSpec } from "../../browser/src/trainer/spec.ts";
import { readTensors, utf8, writeTensors } from "../../browser/src/trainer/tensors.ts";
import { Trainer } from "../../browser/src/trainer/trainer.ts";

type Files = Readonly<Record<string, Uint8Array<ArrayBuffer>>>;
type Answer = readonly [answer: unknown, files?: Readonly<Record<string, Uint8Array>>];
type Command = (options: JsonObject, files: Files, kernels: Kernels) => Answer | Promise<Answer>;

let kernels: Kernels | undefined;

/** `request` and the answer are JSON; files travel as base64. */
export async function perform(request: string): Promise<string> {
    const { command, options, files } = parseJson(request) as { readonly command: string; readonly options: JsonObject; readonly files: JsonObject };
    const given = Object.fromEntries(Object.entries(files).map(([name, data]) => [name, bytes(data as string)]));
    try {
        if (command === "load") {
            kernels = await Kernels.load(given["kernels"] as Uint8Array<ArrayBuffer>);
            return JSON.stringify({ answer: [kernels.digest, kernels.hardwareClass], files: {} });
        }
        const [answer, made = {}] = await (COMMANDS[command] as Command)(options, given, kernels as Kernels);
        return JSON.stringify({ answer, files: Object.fromEntries(Object.entries(made).map(([name, data]) => [name, base64(data)])) });
    } catch (error) {
        return JSON.stringify({ error: String(error) });
    }
}

const COMMANDS: Readonly<Record<string, Command>> = {
    sha256: ({ sizes }, files, kernels) => {
        const hasher = kernels.hasher();
        let rest = files["data"] as Uint8Array;
        for (const size of sizes as number[]) {
            hasher.add(rest.subarray(0, size));
            rest = rest.subarray(size);
            drawKey(kernels, "another use of the module in between");
        }
        return [hasher.hex()];
    },
    key: ({ words }, _, kernels) => [String(drawKey(kernels, ...(words as string[])))],
    permutation: ({ key, count }, _, kernels) => [[...permutation(kernels, BigInt(key as number), count as number)]],
    ints: ({ key, count }, _, kernels) => [[...uniformInts(kernels, BigInt(key as number), count as number)]],
    floats: ({ key, start, stop }, _, kernels) => [[...uniformFloats(kernels, BigInt(key as number), start as number, stop as number)]],
    order: ({ spec, all, which, position }, _, kernels) => {
        const unit = spec as unknown as UnitSpec;
        const seed = String(stepSeed(kernels, unit, position as number));
        return [[[...unitSamples(kernels, unit, all as number)], [...passOrder(kernels, unit, which as number)], seed]];
    },
    json: (_, files) => [plain(parseJson(utf8(files["text"] as Uint8Array)))],
    dumps: ({ value, compact, ascii }) => [writeJson(value as never, { compact: compact === true, ascii: ascii === true })],
    hex: (_, files) => {
        const numbers = new Float64Array((files["doubles"] as Uint8Array<ArrayBuffer>).slice().buffer);
        const texts = Array.from(numbers, floatHex);
        return [texts, { back: new Uint8Array(Float64Array.from(texts, fromFloatHex).buffer) }];
    },
    tensors: (_, files) => {
        const { tensors, metadata } = readTensors(files["file"] as Uint8Array);
        return [[...tensors.keys()].sort(), { file: writeTensors(tensors, metadata) }];
    },
    continuation: (_, files) => {
        const saved = Continuation.fromBytes(files["file"] as Uint8Array);
        return [[saved.unit_id, saved.step, saved.metrics.samples, saved.digests], { file: saved.toBytes() }];
    },
    version: (_, files) => [[...readVersion(files["file"] as Uint8Array).tensors.keys()].sort()],
    program: (_, files) => [Array.from(readProgram(files["file"] as Uint8Array).tensors, ([name, { role }]) => [name, role])],
    plan: (_, files) => [readPlan(files["file"] as Uint8Array).kind],
    gather: async ({ positions, keepBytes }, files, kernels) => {
        const asked: string[] = [];
        const blobs = new Blobs((digest) => Promise.resolve((asked.push(digest), files[digest] as Uint8Array)), kernels);
        const dataset = new Dataset(readManifest(files["manifest"] as Uint8Array), blobs, keepBytes as number);
        await dataset.gather(Uint32Array.from(positions as number[]));
        const found = await dataset.gather(Uint32Array.from(positions as number[]));
        return [asked, { fields: writeTensors(found, new Map()) }];
    },
    encode: ({ spec, buffers = [] }, files, kernels) => {
        const { tensors } = readTensors(files["delta"] as Uint8Array);
        return ["", { update: encodeUpdate(tensors, spec as unknown as UnitSpec, kernels, new Set(buffers as string[])) }];
    },
    unit,
    units: async ({ specs }, files, kernels) => {
        const asked: string[] = [];
        const trainer = trainerOf(files, kernels, asked);
        const updates: Record<string, Uint8Array> = {};
        for (const [index, spec] of (specs as unknown as UnitSpec[]).entries()) {
            asked.push(`unit ${index}`);
            const run = await trainer.begin(spec);
            while (!run.done) {
                run.step();
            }
            updates[index] = encodeUpdate(run.delta(), spec, kernels, run.buffers);
        }
        return [asked, updates];
    },
    another: async ({ spec }, files, kernels) => {
        const trainer = trainerOf(files, kernels);
        const first = await trainer.begin(spec as unknown as UnitSpec);
        const second = await trainer.begin(spec as unknown as UnitSpec);
        second.step();
        first.step();
        return [first.position];
    },
};

/** Blobs are files by digest, plans files by what is asked for. What is asked is added to `asked`. */
function trainerOf(files: Files, kernels: Kernels, asked: string[] = []): Trainer {
    const file = async (name: string): Promise<Uint8Array> => {
        asked.push(name);
        return files[name] ?? fail(`no ${name}`);
    };
    return new Trainer(kernels, file, ({ program, kind, batch, inner }) => file(`${kind} ${batch} ${program} ${inner.name}`));
}

function refused(what: () => void): void {
    try {
        what();
    } catch {
        return;
    }
    fail("it was taken");
}

function fail(what: string): never {
    throw new Error(what);
}

/** Runs a unit from its start, or from the file `continuation`, to step `stop`; it saves there, or ends with an update. */
async function unit({ spec, stop }: JsonObject, files: Files, kernels: Kernels): Promise<Answer> {
    const trainer = trainerOf(files, kernels);
    const run = await trainer.begin(spec as unknown as UnitSpec);
    if (files["continuation"] !== undefined) {
        run.load(Continuation.fromBytes(files["continuation"]));
    }
    if (files["unfit"] !== undefined) {
        refused(() => run.load(Continuation.fromBytes(files["unfit"] as Uint8Array)));
    }
    const began = performance.now();
    const first = run.position;
    while (run.position < (stop as number)) {
        run.step();
    }
    const step_ms = (performance.now() - began) / Math.max(run.position - first, 1);
    const answer = { metrics: summary(run.metrics), loss_sum: floatHex(run.metrics.loss_sum), digests: run.digests, step_ms };
    return run.done ? [answer, { update: encodeUpdate(run.delta(), run.spec, kernels, run.buffers) }] : [answer, { continuation: run.save().toBytes() }];
}

/** Big whole numbers as text, for JSON has no other way to tell them. */
function plain(value: Json): unknown {
    if (typeof value === "bigint") {
        return `${value}n`;
    }
    if (typeof value !== "object" || value === null) {
        return value;
    }
    return Array.isArray(value) ? value.map(plain) : Object.fromEntries(Object.entries(value).map(([key, item]) => [key, plain(item)]));
}

function bytes(text: string): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(atob(text), (unit) => unit.charCodeAt(0));
}

function base64(data: Uint8Array): string {
    let text = "";
    for (let start = 0; start < data.length; start += 4096) {
        text += String.fromCharCode(...data.subarray(start, start + 4096));
    }
    return btoa(text);
}
