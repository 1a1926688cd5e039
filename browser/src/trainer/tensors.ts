/**
 * Named arrays as safetensors bytes, written canonically and read strictly: the same bytes, and the same refusals, as
 * gridsched/train/tensors.py. A tensor is its little-endian bytes, so that nothing is copied or aligned before it is used.
 */

import { TrainerError } from "./errors.ts";
import { byCodePoint, list, mapping, parseJson, record, text, whole, writeJson, type Json, type Writable } from "./json.ts";

const CODES = {
    float64: "F64",
    float32: "F32",
    float16: "F16",
    int64: "I64",
    int32: "I32",
    int16: "I16",
    int8: "I8",
    uint64: "U64",
    uint32: "U32",
    uint16: "U16",
    uint8: "U8",
    bool: "BOOL",
} as const;

export type DType = keyof typeof CODES;

/** What a tensor looks like. */
export interface TensorSpec {
    readonly dtype: DType;
    readonly shape: readonly number[];
}

/** `bytes` are its elements, little-endian, row-major, without gaps. */
export interface Tensor extends TensorSpec {
    readonly bytes: Uint8Array;
}

export type Tensors = ReadonlyMap<string, Tensor>;

const BY_CODE = new Map(Object.entries(CODES).map(([dtype, code]) => [code as string, dtype as DType]));
const MAX_HEADER_BYTES = 32 << 20;
const MAX_RANK = 16;
const MAX_NAME = 512;

/** Bytes of one element. */
export function itemBytes(dtype: DType): number {
    return dtype === "bool" ? 1 : Number(/\d+/.exec(dtype)?.[0]) / 8;
}

/** Number of elements. */
export function elementCount(shape: readonly number[]): number {
    return shape.reduce((product, size) => product * size, 1);
}

/** Bytes of all elements. */
export function byteCount(spec: TensorSpec): number {
    return elementCount(spec.shape) * itemBytes(spec.dtype);
}

/** `value` as a dtype; TrainerError names `what`. */
export function dtypeOf(what: string, value: Json | undefined): DType {
    const found = text(`the dtype of ${what}`, value);
    if (!Object.hasOwn(CODES, found)) {
        throw new TrainerError(`${what} has dtype ${JSON.stringify(found)}; use one of ${Object.keys(CODES).join(", ")}`);
    }
    return found as DType;
}

/** `value` as a shape; TrainerError names `what`. */
export function shapeOf(what: string, value: Json | undefined): number[] {
    const shape = list(`the shape of ${what}`, value).map((size) => whole(`the shape of ${what}`, size));
    if (shape.length > MAX_RANK || !Number.isSafeInteger(elementCount(shape))) {
        throw new TrainerError(`${what} has an impossible shape of ${shape.length} axes`);
    }
    return shape;
}

/** Whether two tensors have the same dtype and shape. */
export function alike(a: TensorSpec, b: TensorSpec): boolean {
    return a.dtype === b.dtype && a.shape.length === b.shape.length && a.shape.every((size, axis) => size === b.shape[axis]);
}

/** For messages: `float32 [32, 3]`. */
export function described(spec: TensorSpec): string {
    return `${spec.dtype} [${spec.shape.join(", ")}]`;
}

/** Canonical bytes in the making: the file, and by name the bytes in it that are still to be filled in. */
export interface Draft {
    readonly data: Uint8Array;
    readonly parts: ReadonlyMap<string, Uint8Array>;
}

/** A canonical file for tensors that look like `layout`, with `metadata`. */
export function allocate(layout: ReadonlyMap<string, TensorSpec>, metadata: ReadonlyMap<string, string>): Draft {
    const header = new Map<string, Writable>();
    if (metadata.size > 0) {
        header.set("__metadata__", new Map([...metadata].sort(([a], [b]) => byCodePoint(a, b))));
    }
    const spans = new Map<string, readonly [number, number]>();
    let end = 0;
    for (const [name, spec] of ordered(layout)) {
        const begin = end;
        end += byteCount(spec);
        spans.set(name, [begin, end]);
        const entry: [string, Writable][] = [["dtype", CODES[spec.dtype]], ["shape", spec.shape], ["data_offsets", [begin, end]]];
        header.set(name, new Map(entry));
    }
    const written = new TextEncoder().encode(writeJson(header, { compact: true, ascii: false }));
    const length = Math.ceil(written.length / 8) * 8;
    const data = new Uint8Array(8 + length + end);
    new DataView(data.buffer).setBigUint64(0, BigInt(length), true);
    data.fill(0x20, 8, 8 + length);
    data.set(written, 8);
    const body = data.subarray(8 + length);
    return { data, parts: new Map([...spans].map(([name, [begin, stop]]) => [name, body.subarray(begin, stop)])) };
}

/** Widest elements first keeps every array aligned to its own element size; names make the order total. */
function ordered(layout: ReadonlyMap<string, TensorSpec>): [string, TensorSpec][] {
    return [...layout].sort(([a, left], [b, right]) => itemBytes(right.dtype) - itemBytes(left.dtype) || byCodePoint(a, b));
}

/** `tensors` and `metadata` as one canonical file: equal input, equal bytes. */
export function writeTensors(tensors: Tensors, metadata: ReadonlyMap<string, string>): Uint8Array {
    const { data, parts } = allocate(tensors, metadata);
    for (const [name, tensor] of tensors) {
        parts.get(name)?.set(tensor.bytes);
    }
    return data;
}

/** What is in a file; the tensors are views into it. */
export interface TensorFile {
    readonly tensors: Tensors;
    readonly metadata: ReadonlyMap<string, string>;
}

/** Read one well-formed file; TrainerError says what is wrong with any other. */
export function readTensors(data: Uint8Array): TensorFile {
    const [header, base] = headerOf(data);
    const { __metadata__: about = Object.create(null) as Json, ...entries } = header;
    const room = data.length - base;
    const spans: (readonly [number, number])[] = [];
    const tensors = new Map<string, Tensor>();
    for (const [name, entry] of Object.entries(entries)) {
        const [spec, begin, end] = entryOf(name, entry, room);
        spans.push([begin, end]);
        tensors.set(name, { ...spec, bytes: data.subarray(base + begin, base + end) });
    }
    checkCover(spans, room);
    const metadata = Object.entries(mapping("the safetensors metadata", about));
    return { tensors, metadata: new Map(metadata.map(([key, value]) => [key, text("the safetensors metadata", value)])) };
}

function headerOf(data: Uint8Array): [{ readonly [name: string]: Json }, number] {
    if (data.length < 8) {
        throw new TrainerError(`a safetensors file needs at least 8 bytes, got ${data.length}; it was cut short`);
    }
    const length = Number(new DataView(data.buffer, data.byteOffset).getBigUint64(0, true));
    if (length > MAX_HEADER_BYTES) {
        throw new TrainerError(`header length ${length} is over ${MAX_HEADER_BYTES} bytes; this is not a safetensors file`);
    }
    if (length + 8 > data.length) {
        throw new TrainerError(`header length ${length} is longer than the file of ${data.length} bytes; it was cut short`);
    }
    return [mapping("the safetensors header", parseJson(utf8(data.subarray(8, 8 + length)))), 8 + length];
}

/** Bytes as text; TrainerError where they are not UTF-8. */
export function utf8(data: Uint8Array): string {
    try {
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(data);
    } catch {
        throw new TrainerError("not valid JSON: the bytes are not UTF-8");
    }
}

function entryOf(name: string, value: Json, room: number): [TensorSpec, number, number] {
    const what = `tensor ${JSON.stringify(name.slice(0, 80))}`;
    if (name.length > MAX_NAME) {
        throw new TrainerError(`${what} has a name of ${name.length} characters; at most ${MAX_NAME} are allowed`);
    }
    const entry = record(what, value, ["dtype", "shape", "data_offsets"]);
    const code = text(`the dtype of ${what}`, entry.dtype);
    const dtype = BY_CODE.get(code);
    if (dtype === undefined) {
        throw new TrainerError(`${what} has unknown dtype ${code.slice(0, 40)}; known are ${[...BY_CODE.keys()].join(", ")}`);
    }
    const spec = { dtype, shape: shapeOf(what, entry.shape) };
    const offsets = list(`the offsets of ${what}`, entry.data_offsets).map((offset) => whole(`the offsets of ${what}`, offset));
    const [begin, end] = offsets;
    if (begin === undefined || end === undefined || offsets.length !== 2 || end < begin) {
        throw new TrainerError(`${what} has impossible offsets`);
    }
    if (end > room) {
        throw new TrainerError(`${what} ends at byte ${end} but only ${room} bytes of data are there; the file was cut short`);
    }
    if (byteCount(spec) !== end - begin) {
        throw new TrainerError(`${what}, ${described(spec)}, does not fit its ${end - begin} bytes`);
    }
    return [spec, begin, end];
}

function checkCover(spans: (readonly [number, number])[], room: number): void {
    let position = 0;
    for (const [begin, end] of spans.sort(([a, b], [c, d]) => a - c || b - d)) {
        if (begin !== position) {
            throw new TrainerError(`the data has a gap or an overlap at byte ${Math.min(begin, position)}`);
        }
        position = end;
    }
    if (position !== room) {
        throw new TrainerError(`the file has ${room - position} bytes after its last tensor`);
    }
}
