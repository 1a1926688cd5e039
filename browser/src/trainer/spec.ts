/**
 * What a unit is, in the words of the wire (gridsched/core/work.py): names and units are those of the JSON, so that a spec is used as it came.
 */

export type UnitKind = "train" | "evaluate";
export type CodecName = "raw" | "half" | "int8" | "int4";

/** A whole number from JSON; beyond 2**53 it is a bigint (`parseJson`), for a rounded seed would be another seed. */
export type Whole = number | bigint;

/** The optimizer inside one unit; always starts fresh. `sgd` uses `momentum`; `adamw` uses `beta1`, `beta2` and `eps`. */
export interface InnerOptimizer {
    readonly name: string;
    readonly lr: number;
    readonly momentum: number;
    readonly weight_decay: number;
    readonly beta1: number;
    readonly beta2: number;
    readonly eps: number;
    readonly prox: number;
}

/** Everything the trainer needs to know; equal specs give equal bits. All fields of `gridsched.core.work.UnitSpec`. */
export interface UnitSpec {
    readonly unit_id: string;
    readonly job_id: string;
    readonly kind: UnitKind;
    /** sha256 of the program, the dataset's manifest and the version the unit starts from. */
    readonly program: string;
    readonly dataset: string;
    readonly base: string;
    readonly version: number;
    readonly epoch: number;
    /** `[start, stop)` are positions in the epoch's order (`evaluate`: in the dataset itself). */
    readonly start: number;
    readonly stop: number;
    readonly batch_size: number;
    readonly passes: number;
    readonly seed: Whole;
    readonly inner: InnerOptimizer;
    readonly codec: CodecName;
    /** Steps between two parameter digests. */
    readonly digest_every: number;
    /** With `of` above 0, the order is that of the stretch `[first, first + of)`; with `bag` 0 or more, of draws with replacement. */
    readonly first: number;
    readonly of: number;
    readonly bag: number;
    readonly micro_batch: number;
    readonly precision: string;
    readonly memory_bytes: number;
    readonly local: string;
    /** Running statistics travel as they are, whatever the codec; a daemon of an earlier release does not say so. */
    readonly exact_buffers?: boolean;
}

/**
 * `train` is a whole step. Of a step in micro-batches, `accumulate` adds up one micro-batch's gradients and `apply` is what the optimizer
 * then does. `evaluate` is one batch, and changes nothing.
 */
export type PlanKind = "train" | "accumulate" | "apply" | "evaluate";

/** Which plan is wanted. The server's door is `GET /v1/node/plan/{program}?kind=&batch=&inner=`. */
export interface PlanRequest {
    /** Digest of the program. */
    readonly program: string;
    readonly kind: PlanKind;
    /** Samples in the batch. */
    readonly batch: number;
    readonly inner: InnerOptimizer;
}

/** Hands over the plan's bytes, from the server or from a store. */
export type PlanSource = (request: PlanRequest) => Promise<Uint8Array>;

/** Hands over the bytes that a digest names, from the server or from a store. They are checked against the digest here. */
export type BlobSource = (digest: string) => Promise<ArrayBuffer | Uint8Array>;

/** Distinct samples of the unit; its weight in the merge. */
export function samplesOf(spec: UnitSpec): number {
    return spec.stop - spec.start;
}

/** Batches in one pass over the unit's samples. */
export function batchesPerPass(spec: UnitSpec): number {
    return Math.ceil(samplesOf(spec) / spec.batch_size);
}

/** Optimizer steps, or evaluation batches, from start to end. */
export function stepsOf(spec: UnitSpec): number {
    return batchesPerPass(spec) * spec.passes;
}
