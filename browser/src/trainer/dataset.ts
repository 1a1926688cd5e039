/**
 * Datasets as content-addressed shards (gridsched/train/dataset.py).
 *
 * A unit's samples are gathered once, when it begins, shard by shard: a phone holds those and a shard, never the dataset.
 */

import type { Blobs } from "./blobs.ts";
import { TrainerError } from "./errors.ts";
import { list, parseJson, record, text, whole, type Json } from "./json.ts";
import { alike, byteCount, described, dtypeOf, readTensors, shapeOf, utf8, type Tensor, type Tensors, type TensorSpec } from "./tensors.ts";

const FORMAT = 1;
const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;
const DIGEST = /^[0-9a-f]{64}$/;
const MAX_COUNT = 2 ** 40;

/** A file of `samples` consecutive samples. */
interface Shard {
    readonly digest: string;
    readonly samples: number;
}

/** What a dataset holds and where; `fields` are those of one sample. */
export interface Manifest {
    readonly name: string;
    readonly attribution: string;
    readonly fields: ReadonlyMap<string, TensorSpec>;
    readonly shards: readonly Shard[];
}

/** Read a manifest strictly; TrainerError says what is wrong with it. */
export function readManifest(data: Uint8Array): Manifest {
    const found = record("a dataset manifest", parseJson(utf8(data)), ["format", "name", "attribution", "fields", "shards"]);
    if (found.format !== FORMAT) {
        throw new TrainerError(`dataset format ${String(found.format)} is not known here (this is ${FORMAT}); reload the page`);
    }
    const name = text("the name of a dataset", found.name);
    if (!NAME.test(name)) {
        throw new TrainerError(`dataset name ${JSON.stringify(name.slice(0, 80))} must be lower-case letters, digits, - and _, at most 63`);
    }
    const fields = list(`the fields of dataset ${name}`, found.fields).map(readField);
    const shards = list(`the shards of dataset ${name}`, found.shards).map(readShard);
    if (fields.length === 0 || new Map(fields).size !== fields.length || shards.length === 0) {
        throw new TrainerError(`dataset ${name} needs samples and at least one field, each with a name of its own`);
    }
    return { name, attribution: text("the attribution of a dataset", found.attribution), fields: new Map(fields), shards };
}

function readField(value: Json): [string, TensorSpec] {
    const item = record("a field", value, ["name", "dtype", "shape"]);
    const what = `field ${text("the name of a field", item.name)}`;
    const shape = shapeOf(what, item.shape);
    if (shape.length > 8) {
        throw new TrainerError(`${what} has ${shape.length} axes; at most 8 are known`);
    }
    return [what.slice("field ".length), { dtype: dtypeOf(what, item.dtype), shape }];
}

function readShard(value: Json): Shard {
    const [digest, samples, ...more] = list("a shard", value);
    const shard = { digest: text("the digest of a shard", digest), samples: whole("the samples of a shard", samples) };
    if (more.length > 0 || !DIGEST.test(shard.digest) || shard.samples < 1 || shard.samples >= MAX_COUNT) {
        throw new TrainerError(`a shard needs a sha256 digest and at least one sample, got ${shard.digest.slice(0, 80)} and ${shard.samples}`);
    }
    return shard;
}

/** Samples by position. Shards are kept for later units while there are at most `keepBytes` of them. */
export class Dataset {
    readonly manifest: Manifest;
    readonly samples: number;
    readonly #blobs: Blobs;
    readonly #keepBytes: number;
    readonly #kept = new Map<number, Tensors>();
    #keptBytes = 0;

    constructor(manifest: Manifest, blobs: Blobs, keepBytes: number) {
        this.manifest = manifest;
        this.samples = manifest.shards.reduce((sum, shard) => sum + shard.samples, 0);
        this.#blobs = blobs;
        this.#keepBytes = keepBytes;
    }

    /** New arrays `[positions.length, ...]` per field, in the order of `positions`. */
    async gather(positions: Uint32Array): Promise<Tensors> {
        const made = new Map<string, Tensor>();
        for (const [name, { dtype, shape }] of this.manifest.fields) {
            const spec = { dtype, shape: [positions.length, ...shape] };
            made.set(name, { ...spec, bytes: room(byteCount(spec)) });
        }
        let first = 0;
        for (const [index, shard] of this.manifest.shards.entries()) {
            const end = first + shard.samples;
            if (positions.some((position) => position >= first && position < end)) {
                copyRows(await this.#shard(index), positions, first, end, made);
            }
            first = end;
        }
        return made;
    }

    async #shard(index: number): Promise<Tensors> {
        const kept = this.#kept.get(index);
        if (kept !== undefined) {
            return kept;
        }
        const [opened, bytes] = await this.#open(index);
        if (this.#keptBytes + bytes <= this.#keepBytes) {
            this.#kept.set(index, opened);
            this.#keptBytes += bytes;
        }
        return opened;
    }

    async #open(index: number): Promise<[Tensors, number]> {
        const shard = this.manifest.shards[index] as Shard;
        const what = `shard ${index} of dataset ${this.manifest.name}`;
        const data = await this.#blobs.get(shard.digest, what);
        const { tensors } = readTensors(data);
        for (const [name, { dtype, shape }] of this.manifest.fields) {
            const held = tensors.get(name);
            const wanted = { dtype, shape: [shard.samples, ...shape] };
            if (held === undefined || !alike(held, wanted) || tensors.size !== this.manifest.fields.size) {
                throw new TrainerError(`${what} does not hold the fields its manifest says: ${name} should be ${described(wanted)}`);
            }
        }
        return [tensors, data.length];
    }
}

function room(bytes: number): Uint8Array {
    try {
        return new Uint8Array(bytes);
    } catch {
        const size = Math.ceil(bytes / 2 ** 20);
        throw new TrainerError(`the unit's samples take ${size} MiB of memory, which the browser does not give; leave it to a larger node`);
    }
}

/** The rows of those `positions` that lie in `[first, end)`, to their places in `made`. */
function copyRows(shard: Tensors, positions: Uint32Array, first: number, end: number, made: Tensors): void {
    for (const [name, { bytes }] of made) {
        const row = bytes.length / positions.length;
        const source = (shard.get(name) as Tensor).bytes;
        positions.forEach((position, place) => {
            if (position >= first && position < end) {
                bytes.set(source.subarray((position - first) * row, (position - first + 1) * row), place * row);
            }
        });
    }
}
