/** The saved middle of a unit (gridsched/train/unit.py `Continuation`): any host of the same kernels goes on from it to the same bits. */

import { TrainerError } from "./errors.ts";
import { byCodePoint, list, parseJson, record, text, whole, writeJson, type Writable } from "./json.ts";
import { floatHex, fromFloatHex, type Metrics } from "./metrics.ts";
import { readTensors, writeTensors, type Tensors } from "./tensors.ts";

const KEY = "gridsched.continuation";

/** What it holds; names are those of the JSON. */
export interface ContinuationFields {
    readonly unit_id: string;
    /** Steps done. */
    readonly step: number;
    readonly hardware_class: string;
    /** The model's under `model/`, without frozen parameters, and the optimizer's under `optimizer/`; none for an evaluation. */
    readonly tensors: Tensors;
    readonly metrics: Metrics;
    /** One parameter digest per `digest_every` steps so far. */
    readonly digests: readonly string[];
}

/** One file: equal continuations give equal bytes, here and in Python. */
export class Continuation implements ContinuationFields {
    declare readonly unit_id: string;
    declare readonly step: number;
    declare readonly hardware_class: string;
    declare readonly tensors: Tensors;
    declare readonly metrics: Metrics;
    declare readonly digests: readonly string[];

    constructor(fields: ContinuationFields) {
        Object.assign(this, fields);
    }

    /** The whole safetensors file. */
    toBytes(): Uint8Array {
        const { correct, count, loss_sum, samples } = this.metrics;
        const metrics = sorted({ correct, count, loss_sum: floatHex(loss_sum), samples });
        const { digests, hardware_class, step, unit_id } = this;
        const about = writeJson(sorted({ digests, hardware_class, metrics, step, unit_id }), { compact: false, ascii: true });
        return writeTensors(this.tensors, new Map([[KEY, about]]));
    }

    /** Read what `toBytes`, or Python, wrote; TrainerError for everything else. */
    static fromBytes(data: Uint8Array): Continuation {
        const { tensors, metadata } = readTensors(data);
        const json = metadata.get(KEY);
        if (json === undefined) {
            throw new TrainerError("this is not a continuation: its metadata must hold gridsched.continuation");
        }
        const about = record("a continuation", parseJson(json), ["unit_id", "step", "hardware_class", "metrics", "digests"]);
        const sums = record("a continuation's metrics", about.metrics, ["loss_sum", "samples", "correct", "count"]);
        return new Continuation({
            unit_id: text("a continuation's unit_id", about.unit_id),
            step: whole("a continuation's step", about.step),
            hardware_class: text("a continuation's hardware_class", about.hardware_class),
            tensors,
            metrics: {
                loss_sum: fromFloatHex(text("a continuation's loss_sum", sums.loss_sum)),
                samples: whole("a continuation's samples", sums.samples),
                correct: whole("a continuation's correct", sums.correct),
                count: whole("a continuation's count", sums.count),
            },
            digests: list("a continuation's digests", about.digests).map((digest) => text("a digest", digest)),
        });
    }
}

function sorted(fields: Readonly<Record<string, Writable>>): ReadonlyMap<string, Writable> {
    return new Map(Object.entries(fields).sort(([a], [b]) => byCodePoint(a, b)));
}
