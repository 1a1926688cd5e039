// What the worker asks of whatever trains: bytes in, bytes out. `engine_wasm.ts` is the real one; tests put another in its place.

import type { Bytes } from "./files.ts";
import type { UnitSpec } from "./wire.ts";

/** How a finished unit ends: `update` is null for an evaluation. */
export interface Outcome {
    update: Bytes | null;
    metrics: Record<string, number>;
    digests: [number, string][];
}

/** A unit in the making. `save` copies, so that training may go on at once. */
export interface Run {
    readonly position: number;
    readonly steps: number;
    /** Mean loss per sample so far; null before the first step. */
    readonly loss: number | null;
    step(): void;
    save(): Bytes;
    finish(): Outcome;
}

/** Where a run gets what it lacks. */
export interface Sources {
    blob(digest: string): Promise<Bytes>;
    plan(program: string, query: Record<string, string>): Promise<Bytes>;
}

export interface Engine {
    /** The hardware class: `wasm-` and the first letters of the kernels' digest. */
    readonly runtime: string;
    /** sha256 of the kernels that run here. */
    readonly kernels: string;
    sha256(data: Uint8Array): string;
    /** A run of `unit` from its start, or from the furthest of `middles` that fits it. */
    prepare(unit: UnitSpec, sources: Sources, middles: Bytes[]): Promise<Run>;
    /** Free what the last run holds. */
    release(): Promise<void>;
}

export type MakeEngine = (kernels: Bytes) => Promise<Engine>;
