/**
 * One work unit, step by step (gridsched/train/unit.py): a pure function of its spec, with a middle.
 *
 * Everything it needs is in memory once it has begun, so `step` waits for nothing.
 */

import { Continuation } from "./continuation.ts";
import { drawKey, passOrder, stepSeed } from "./draws.ts";
import { TrainerError } from "./errors.ts";
import type { Host } from "./host.ts";
import type { Kernels } from "./kernels.ts";
import { NOTHING, plus, type Evaluation, type Metrics } from "./metrics.ts";
import type { Plan } from "./plan.ts";
import { batchesPerPass, samplesOf, stepsOf, type UnitSpec } from "./spec.ts";
import type { Tensor, Tensors } from "./tensors.ts";

const MODEL = "model/";
const OPTIMIZER = "optimizer/";

/** The plan for a batch, or a micro-batch, of `size` samples. */
export type PlanFor = (kind: Plan["kind"], size: number) => Plan;

/**
 * What a unit runs on. `samples` are the unit's own, in the order of its first pass; `base` is the version it starts from, with its
 * running statistics by name.
 */
export interface UnitParts {
    readonly kernels: Kernels;
    readonly host: Host;
    readonly plan: PlanFor;
    readonly samples: Tensors;
    readonly base: Tensors;
    readonly buffers: ReadonlySet<string>;
}

/** A unit in the making: `step()` until `done`; `save()` and `load()` between any two steps. */
export class UnitRun {
    readonly spec: UnitSpec;
    /** Steps, or evaluation batches, from start to end. */
    readonly steps: number;
    readonly #parts: UnitParts;
    #position = 0;
    #metrics = NOTHING;
    #digests: readonly string[] = [];
    #order: { readonly pass: number; readonly rows: Uint32Array } = { pass: -1, rows: new Uint32Array() };

    constructor(spec: UnitSpec, parts: UnitParts) {
        this.spec = spec;
        this.steps = stepsOf(spec);
        this.#parts = parts;
        this.#restart();
    }

    /** Steps done. */
    get position(): number {
        return this.#position;
    }

    /** Whether the last step has been made. */
    get done(): boolean {
        return this.#position >= this.steps;
    }

    /** Sums over the steps so far. */
    get metrics(): Metrics {
        return this.#metrics;
    }

    /** The running statistics among the tensors of its version. */
    get buffers(): ReadonlySet<string> {
        return this.#parts.buffers;
    }

    /** The parameter digests so far, one per `digest_every` steps. */
    get digests(): readonly string[] {
        return this.#digests;
    }

    /** Train on, or evaluate, the next batch. */
    step(): void {
        if (this.done) {
            throw new TrainerError(`unit ${this.spec.unit_id} is done; there is no step after step ${this.#position}`);
        }
        const rows = this.#nextRows();
        const train = this.spec.kind === "train";
        this.#metrics = plus(this.#metrics, rows.length, train ? this.#train(rows) : this.#evaluate(rows));
        this.#position += 1;
        if (train && this.#position % this.spec.digest_every === 0) {
            this.#digests = [...this.#digests, this.#parts.host.digest()];
        }
    }

    /** Everything needed to go on from here; copies, so training may go on at once. */
    save(): Continuation {
        const { host, kernels } = this.#parts;
        const tensors = new Map<string, Tensor>();
        if (this.spec.kind === "train") {
            host.state(false).forEach((tensor, name) => tensors.set(MODEL + name, tensor));
            if (this.#position > 0) {
                host.optimizerState().forEach((tensor, name) => tensors.set(OPTIMIZER + name, tensor));
            }
        }
        return new Continuation({
            unit_id: this.spec.unit_id,
            step: this.#position,
            hardware_class: kernels.hardwareClass,
            tensors,
            metrics: this.#metrics,
            digests: this.#digests,
        });
    }

    /** Go on where `saved` was made. TrainerError if it belongs to another unit or does not fit; the unit is then at its start. */
    load(saved: Continuation): void {
        const { unit_id } = this.spec;
        this.#restart();
        if (saved.unit_id !== unit_id || saved.step > this.steps) {
            throw new TrainerError(`a continuation of unit ${saved.unit_id} at step ${saved.step} does not fit unit ${unit_id}`);
        }
        if (this.spec.kind === "train") {
            this.#put(saved);
        }
        this.#position = saved.step;
        this.#metrics = saved.metrics;
        this.#digests = saved.digests;
    }

    #restart(): void {
        this.#parts.host.load(this.#parts.base, true);
        this.#parts.host.start();
        this.#position = 0;
        this.#metrics = NOTHING;
        this.#digests = [];
    }

    #put(saved: Continuation): void {
        const { host } = this.#parts;
        try {
            host.load(under(MODEL, saved.tensors), false);
            if (saved.step > 0) {
                host.loadOptimizer(under(OPTIMIZER, saved.tensors));
            }
        } catch (error) {
            this.#restart();
            throw error;
        }
    }

    /** What the unit changed, by name: end minus start. Boolean buffers cannot change and are left out. */
    delta(): Map<string, Tensor> {
        const found = new Map<string, Tensor>();
        if (this.spec.kind === "evaluate") {
            return found;
        }
        for (const [name, end] of this.#parts.host.state(true)) {
            if (end.dtype !== "bool") {
                found.set(name, minus(name, end, this.#parts.base.get(name) as Tensor));
            }
        }
        return found;
    }

    /** The places, in the unit's own samples, of those in the next batch. */
    #nextRows(): Uint32Array {
        const perPass = batchesPerPass(this.spec);
        const pass = Math.floor(this.#position / perPass);
        if (this.#order.pass !== pass) {
            this.#order = { pass, rows: passOrder(this.#parts.kernels, this.spec, pass) };
        }
        const first = (this.#position % perPass) * this.spec.batch_size;
        return this.#order.rows.subarray(first, first + this.spec.batch_size);
    }

    #train(rows: Uint32Array): Evaluation {
        const { host, kernels, plan } = this.#parts;
        const step = this.#position + 1;
        const seed = stepSeed(kernels, this.spec, this.#position);
        const micro = microBatches(this.spec, rows);
        if (micro.length === 1) {
            const whole = plan("train", rows.length);
            this.#fill(whole, rows);
            return { loss: host.train(whole, step, seed), correct: 0, count: 0 };
        }
        let loss = 0;
        micro.forEach((part, index) => {
            const accumulate = plan("accumulate", part.length);
            if (index === 0) {
                host.clearSums(accumulate);
            }
            this.#fill(accumulate, part);
            const share = Math.fround(part.length / rows.length);
            loss = Math.fround(loss + Math.fround(share * host.accumulate(accumulate, drawKey(kernels, "micro", seed, index), share)));
        });
        host.apply(plan("apply", 1), step);
        return { loss, correct: 0, count: 0 };
    }

    #evaluate(rows: Uint32Array): Evaluation {
        let sums = { loss: 0, correct: 0, count: 0 };
        for (const part of microBatches(this.spec, rows)) {
            const evaluate = this.#parts.plan("evaluate", part.length);
            this.#fill(evaluate, part);
            const found = this.#parts.host.evaluate(evaluate);
            const loss = sums.loss + found.loss * (part.length / rows.length);
            sums = { loss, correct: sums.correct + found.correct, count: sums.count + found.count };
        }
        return sums;
    }

    /** Put the samples at `rows` in the plan's batch. */
    #fill(plan: Plan, rows: Uint32Array): void {
        for (const name of plan.fields.keys()) {
            const into = this.#parts.host.field(plan, name);
            const from = (this.#parts.samples.get(name) as Tensor).bytes;
            const row = into.length / rows.length;
            for (let place = 0; place < rows.length; place += 1) {
                const first = (rows[place] as number) * row;
                into.set(from.subarray(first, first + row), place * row);
            }
        }
    }
}

/** The sizes of batch, or micro-batch, that the unit meets, and the kinds of plan it runs them by. */
export function plansOf(spec: UnitSpec): (readonly [Plan["kind"], number])[] {
    const last = samplesOf(spec) % spec.batch_size;
    const batches = new Set([Math.min(spec.batch_size, samplesOf(spec)), last].filter((size) => size > 0));
    const found = new Map<string, readonly [Plan["kind"], number]>();
    const need = (kind: Plan["kind"], size: number): unknown => found.set(`${kind} ${size}`, [kind, size]);
    for (const size of batches) {
        const parts = microBatches(spec, new Uint32Array(size));
        const split = spec.kind === "train" && parts.length > 1;
        parts.forEach((part) => need(split ? "accumulate" : spec.kind, part.length));
        if (split) {
            need("apply", 1);
        }
    }
    return [...found.values()];
}

/** The batch cut into micro-batches; whole where the unit knows none. */
function microBatches(spec: UnitSpec, rows: Uint32Array): Uint32Array[] {
    const size = spec.micro_batch > 0 ? spec.micro_batch : rows.length;
    return Array.from({ length: Math.ceil(rows.length / size) }, (_, index) => rows.subarray(index * size, (index + 1) * size));
}

/**
 * End minus start. A double holds the difference of two float32 well enough for the rounding that follows to be the only one that counts
 * (Figueroa 1995, doi 10.1145/221332.221334); whole numbers wrap.
 */
function minus(name: string, end: Tensor, start: Tensor): Tensor {
    const found = { dtype: end.dtype, shape: end.shape, bytes: end.bytes.slice() };
    const [to, from] = [found.bytes.buffer, start.bytes.slice().buffer];
    switch (end.dtype) {
        case "float32":
            subtract(new Float32Array(to), new Float32Array(from));
            return found;
        case "int32":
            subtract(new Int32Array(to), new Int32Array(from));
            return found;
        case "uint8":
            subtract(new Uint8Array(to), new Uint8Array(from));
            return found;
        case "int64": {
            const less = new BigInt64Array(from);
            new BigInt64Array(to).forEach((value, place, all) => (all[place] = value - (less[place] as bigint)));
            return found;
        }
        default:
            throw new TrainerError(`tensor ${name} is ${end.dtype}, which the kernels do not know; leave the unit to a torch node`);
    }
}

function subtract(to: Float32Array | Int32Array | Uint8Array, from: Float32Array | Int32Array | Uint8Array): void {
    for (let place = 0; place < to.length; place += 1) {
        to[place] = (to[place] as number) - (from[place] as number);
    }
}

function under(prefix: string, tensors: Tensors): Tensors {
    return new Map([...tensors].filter(([name]) => name.startsWith(prefix)).map(([name, tensor]) => [name.slice(prefix.length), tensor]));
}
