/** A plan: the kernel calls of one training step or one evaluation batch, and where everything lies (gridsched/train/plan/format.py). */

import { TrainerError } from "./errors.ts";
import { HEAP } from "./kernels.ts";
import { list, mapping, parseJson, record, whole, type Json } from "./json.ts";
import type { PlanKind } from "./spec.ts";
import { byteCount, dtypeOf, readTensors, shapeOf, type TensorSpec } from "./tensors.ts";

/** A tensor at its address in the module's memory. */
export interface Place extends TensorSpec {
    readonly address: number;
}

export type Places = ReadonlyMap<string, Place>;

/** Addresses are absolute. `tensors`, `slots` and `anchors` lie at the same ones in all plans of one program and inner optimizer. */
export interface Plan {
    readonly kind: PlanKind;
    /** Samples in the batch. */
    readonly batch: number;
    readonly memoryBytes: number;
    /** Little-endian 32-bit words for the module's `run`, to lie at `codeAt` when they are run. */
    readonly code: Uint8Array;
    readonly codeAt: number;
    readonly tensors: Places;
    /** The optimizer's, by `slot/parameter`. */
    readonly slots: Places;
    /** Where parameters' starts are kept that `inner.prox` pulls back to. */
    readonly anchors: Places;
    /** The batch. */
    readonly fields: Places;
    /** Where the gradients of micro-batches add up. */
    readonly sums: Places;
    /** int64: the key of the step's random draws. */
    readonly seed: number;
    /** int32: the number of the step, from 1. */
    readonly step: number;
    /** float32: the micro-batch's share of the batch. */
    readonly share: number;
    /** float32: the mean loss, to be read after the run. */
    readonly loss: number;
    /** int32: the correct answers, to be read after the run; null where nothing is classified. */
    readonly correct: number | null;
    /** Answers in one batch. */
    readonly count: number;
}

const FORMAT = 1;
const KINDS: readonly PlanKind[] = ["train", "accumulate", "apply", "evaluate"];
const KEYS = [
    ...(["format", "kernels", "kind", "batch", "memory_bytes", "code_at", "tensors", "slots", "anchors", "fields", "sums"] as const),
    ...(["seed", "step", "share", "loss", "outputs", "correct", "count"] as const),
] as const;

/** Read a plan; TrainerError for everything that is not one, or that lies outside of its own memory. */
export function readPlan(data: Uint8Array): Plan {
    const { tensors, metadata } = readTensors(data);
    const code = tensors.get("code");
    const about = record("a plan", parseJson(metadata.get("gridsched.plan") ?? "null"), KEYS);
    const kind = KINDS.find((known) => known === about.kind);
    if (about.format !== FORMAT || kind === undefined || code?.dtype !== "int32" || code.shape.length !== 1) {
        throw new TrainerError(`plan format ${String(about.format)} for ${String(about.kind)} is not known here; reload the page`);
    }
    const memoryBytes = whole("a plan's memory_bytes", about.memory_bytes);
    const at = (what: string, value: Json, bytes: number): number => within(`the plan's ${what}`, value, bytes, memoryBytes);
    const places = (what: string, value: Json): Places =>
        new Map(Object.entries(mapping(`the plan's ${what}s`, value)).map(([name, item]) => [name, readPlace(`${what} ${name}`, item, at)]));
    return {
        kind,
        batch: whole("a plan's batch", about.batch),
        memoryBytes,
        code: code.bytes,
        codeAt: at("code", about.code_at, code.bytes.length),
        tensors: places("tensor", about.tensors),
        slots: places("slot", about.slots),
        anchors: places("anchor", about.anchors),
        fields: places("field", about.fields),
        sums: places("sum", about.sums),
        seed: at("seed", about.seed, 8),
        step: at("step", about.step, 4),
        share: at("share", about.share, 4),
        loss: at("loss", about.loss, 4),
        correct: about.correct === null ? null : at("correct answers", about.correct, 4),
        count: whole("a plan's count", about.count),
    };
}

function readPlace(what: string, value: Json, at: (what: string, value: Json, bytes: number) => number): Place {
    const [address = null, dtype, shape] = list(what, value);
    const spec = { dtype: dtypeOf(what, dtype), shape: shapeOf(what, shape) };
    return { ...spec, address: at(what, address, byteCount(spec)) };
}

function within(what: string, value: Json, bytes: number, end: number): number {
    const address = whole(what, value);
    if (address < HEAP || address + bytes > end) {
        throw new TrainerError(`${what} lies outside of the plan's memory; fetch the plan again`);
    }
    return address;
}
