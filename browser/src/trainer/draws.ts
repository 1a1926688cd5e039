/**
 * Random draws as functions of what they are for (gridsched/train/draws.py), and the one order in which a unit visits its samples
 * (gridsched/train/dataset.py, unit.py). Keys are 64 bits wide, hence bigint.
 */

import type { Kernels } from "./kernels.ts";
import { samplesOf, type UnitSpec, type Whole } from "./spec.ts";

const encoder = new TextEncoder();

/** A key in [0, 2**63) for the draw that `words` name. */
export function drawKey(kernels: Kernels, ...words: readonly (string | Whole)[]): bigint {
    const digest = kernels.sha256(encoder.encode(words.join("/")));
    const bytes = digest.slice(0, 16).match(/../g) ?? [];
    return BigInt(`0x${bytes.reverse().join("")}`) >> 1n;
}

/** A permutation of the whole numbers below `count`. */
export function permutation(kernels: Kernels, key: bigint, count: number): Uint32Array {
    const [drawn = 0, out = 0, spare = 0] = kernels.scratch(8 * count, 4 * count, 4 * count);
    kernels.exports.permutation(key, count, out, spare, drawn);
    return new Uint32Array(kernels.copy(out, 4 * count).buffer);
}

/** `count` draws with replacement from the whole numbers below `count`. */
export function uniformInts(kernels: Kernels, key: bigint, count: number): Uint32Array {
    const [out = 0] = kernels.scratch(4 * count);
    kernels.exports.uniform_ints(key, count, out);
    return new Uint32Array(kernels.copy(out, 4 * count).buffer);
}

/** Draws `start` to `stop` of the key's sequence of multiples of 2**-24 in [0, 1). */
export function uniformFloats(kernels: Kernels, key: bigint, start: number, stop: number): Float32Array {
    const [out = 0] = kernels.scratch(4 * (stop - start));
    kernels.exports.uniform_floats(key, start, stop - start, out);
    return new Float32Array(kernels.copy(out, 4 * (stop - start)).buffer);
}

/** The positions in the dataset that the unit visits, in its first pass's order. `all` is the number of samples in the dataset. */
export function unitSamples(kernels: Kernels, spec: UnitSpec, all: number): Uint32Array {
    if (spec.kind === "evaluate") {
        return Uint32Array.from({ length: samplesOf(spec) }, (_, index) => spec.start + index);
    }
    const whole = spec.of > 0 || spec.bag >= 0 ? stretchOrder(kernels, spec, spec.of || all) : epochOrder(kernels, spec, all);
    return whole.slice(spec.start, spec.stop);
}

/** The order in which pass `which` visits the unit's own samples; pass 0 keeps the epoch's. */
export function passOrder(kernels: Kernels, spec: UnitSpec, which: number): Uint32Array {
    if (which === 0) {
        return Uint32Array.from({ length: samplesOf(spec) }, (_, index) => index);
    }
    return permutation(kernels, drawKey(kernels, "pass", spec.seed, spec.epoch, spec.first + spec.start, which), samplesOf(spec));
}

/** The key of all random draws of the step after `position` steps. */
export function stepSeed(kernels: Kernels, spec: UnitSpec, position: number): bigint {
    return drawKey(kernels, "step", spec.seed, spec.epoch, spec.first + spec.start, position);
}

function epochOrder(kernels: Kernels, spec: UnitSpec, all: number): Uint32Array {
    return permutation(kernels, drawKey(kernels, "order", spec.seed, spec.epoch), all);
}

function stretchOrder(kernels: Kernels, spec: UnitSpec, of: number): Uint32Array {
    const { seed, epoch, first, bag } = spec;
    if (bag < 0) {
        return permutation(kernels, drawKey(kernels, "order", seed, epoch, "of", first, of), of).map((place) => first + place);
    }
    const draws = uniformInts(kernels, drawKey(kernels, "bag", seed, bag, first, of), of);
    const order = permutation(kernels, drawKey(kernels, "order", seed, epoch, "bag", bag, first, of), of);
    return order.map((place) => first + (draws[place] ?? 0));
}
