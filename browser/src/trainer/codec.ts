/** How a finished unit's update travels (gridsched/train/codec.py `encode_update`): equal changes give equal bytes, here and in Python. */

import { drawKey } from "./draws.ts";
import { TrainerError } from "./errors.ts";
import { byCodePoint, writeJson, type Writable } from "./json.ts";
import type { Kernels } from "./kernels.ts";
import type { CodecName, UnitSpec } from "./spec.ts";
import { allocate, elementCount, type Tensor, type Tensors, type TensorSpec } from "./tensors.ts";

const BLOCK = 256;
const PIECE = 128 * BLOCK;
const SCALE = "#scale";
const TRAVELLING = { half: "float16", int8: "int8", int4: "uint8" } as const;
const JSON_STYLE = { compact: false, ascii: true };

type Coded = keyof typeof TRAVELLING;

/**
 * The update as one safetensors file. Where there are few levels it is rounded at random, by draws of its own. The version's `buffers`
 * are not rounded: beside one of another scale a variance would become negative.
 */
export function encodeUpdate(delta: Tensors, spec: UnitSpec, kernels: Kernels, buffers: ReadonlySet<string>): Uint8Array {
    const { codec } = spec;
    const exact = (name: string): boolean => codec === "raw" || (spec.exact_buffers === true && buffers.has(name));
    const seed = codec === "int4" ? drawKey(kernels, "update", spec.seed, spec.epoch, spec.first + spec.start) : null;
    const coded = new Map([...delta].filter(([name, { dtype }]) => dtype.startsWith("float") && !exact(name)));
    const { data, parts } = allocate(layout(delta, coded, codec), about(coded, codec));
    for (const [name, tensor] of delta) {
        const part = parts.get(name) as Uint8Array;
        if (codec === "raw" || !coded.has(name)) {
            part.set(tensor.bytes);
        } else if (tensor.dtype !== "float32") {
            throw new TrainerError(`tensor ${name} is ${tensor.dtype}; only float32 can travel as ${codec} from here`);
        } else if (codec === "half") {
            encodeHalf(kernels, tensor, part);
        } else {
            const key = seed === null ? null : drawKey(kernels, "codec", seed, name);
            encodeLevels(kernels, tensor, codec, key, part, parts.get(name + SCALE) as Uint8Array);
        }
    }
    return data;
}

function layout(delta: Tensors, coded: Tensors, codec: CodecName): Map<string, TensorSpec> {
    const found = new Map<string, TensorSpec>();
    for (const [name, { dtype, shape }] of delta) {
        if (codec === "raw" || !coded.has(name)) {
            found.set(name, { dtype, shape });
            continue;
        }
        const count = elementCount(shape);
        found.set(name, { dtype: TRAVELLING[codec], shape: codec === "int4" ? [Math.ceil(count / 2)] : shape });
        if (codec !== "half") {
            found.set(name + SCALE, { dtype: "float32", shape: [Math.ceil(count / BLOCK)] });
        }
    }
    return found;
}

function about(coded: Tensors, codec: CodecName): Map<string, string> {
    const names = [...coded].sort(([a], [b]) => byCodePoint(a, b));
    const json = (of: (tensor: Tensor) => Writable): string => writeJson(new Map(names.map(([name, tensor]) => [name, of(tensor)])), JSON_STYLE);
    const found = new Map([["gridsched.codec", codec as string], ["gridsched.dtypes", json((tensor) => tensor.dtype)]]);
    return codec === "int4" ? found.set("gridsched.shapes", json((tensor) => tensor.shape)) : found;
}

function encodeHalf(kernels: Kernels, tensor: Tensor, out: Uint8Array): void {
    for (let start = 0; start < out.length / 2; start += PIECE) {
        const piece = tensor.bytes.subarray(4 * start, 4 * (start + PIECE));
        const [values = 0, halves = 0] = kernels.lend(piece, piece.length / 2);
        kernels.exports.encode_half(values, piece.length / 4, halves);
        out.set(kernels.bytes.subarray(halves, halves + piece.length / 2), 2 * start);
    }
}

/** Levels to `out`, two to a byte for int4, and the blocks' scales to `scale`; at random by the draws of `key` if there is one. */
function encodeLevels(kernels: Kernels, tensor: Tensor, codec: Coded, key: bigint | null, out: Uint8Array, scale: Uint8Array): void {
    const top = codec === "int8" ? 127 : 7;
    for (let start = 0; start < tensor.bytes.length / 4; start += PIECE) {
        const piece = tensor.bytes.subarray(4 * start, 4 * (start + PIECE));
        const count = piece.length / 4;
        const blocks = Math.ceil(count / BLOCK);
        const [values = 0, levels = 0, scales = 0, packed = 0] = kernels.lend(piece, count, 4 * blocks, count);
        kernels.exports.encode_levels(values, count, top, levels, scales, key === null ? 0 : 1, key ?? 0n, start);
        scale.set(kernels.bytes.subarray(scales, scales + 4 * blocks), (4 * start) / BLOCK);
        if (codec === "int8") {
            out.set(kernels.bytes.subarray(levels, levels + count), start);
        } else {
            kernels.exports.pack_levels(levels, count, packed);
            out.set(kernels.bytes.subarray(packed, packed + Math.ceil(count / 2)), start / 2);
        }
    }
}
