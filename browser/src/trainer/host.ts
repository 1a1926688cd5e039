/**
 * A program in the module's memory: plans laid out once, then one call per step (gridsched/train/wasm_runtime.py is the same for Python).
 *
 * Between steps nothing is allocated but a few words; what is read out is copied.
 */

import { TrainerError } from "./errors.ts";
import type { Kernels } from "./kernels.ts";
import type { Evaluation } from "./metrics.ts";
import type { Place, Places, Plan } from "./plan.ts";
import type { Program, Role } from "./program.ts";
import { byCodePoint } from "./json.ts";
import { alike, byteCount, described, type Tensor, type Tensors } from "./tensors.ts";

const MODEL: readonly Role[] = ["parameter", "frozen", "buffer"];
const CHANGING: readonly Role[] = ["parameter", "buffer"];
const encoder = new TextEncoder();

/** Holds one unit's model and optimizer. The next one that is made for the same kernels takes its memory over. */
export class Host {
    readonly #kernels: Kernels;
    readonly #program: Program;
    readonly #first: Plan;
    readonly #tenancy: number;
    #placed: Plan | undefined;
    #view: DataView;

    /** Room for `plans`, zero everywhere but for the program's constants. All plans are of one program and inner optimizer. */
    constructor(kernels: Kernels, program: Program, plans: readonly [Plan, ...Plan[]]) {
        this.#kernels = kernels;
        this.#program = program;
        this.#first = plans[0];
        checkTogether(program, plans);
        this.#tenancy = kernels.reserve(Math.max(...plans.map((plan) => plan.memoryBytes)));
        this.#view = new DataView(kernels.bytes.buffer);
        this.#copyIn(program.constants, [...program.constants.keys()], this.#first.tensors);
    }

    /** Put a version's tensors in place; with `frozen` false, frozen parameters stay as they are. */
    load(tensors: Tensors, frozen: boolean): void {
        this.#copyIn(tensors, this.#names(frozen), this.#first.tensors);
    }

    /** Begin with a fresh optimizer, which pulls back to what is loaded now where `inner.prox` says so. */
    start(): void {
        const memory = this.#memory();
        for (const [name, place] of this.#first.slots) {
            // The one start of a momentum that adds nothing to any bit of the first gradient.
            this.#floats(place).fill(name.startsWith("momentum/") ? -0 : 0);
        }
        for (const [name, place] of this.#first.anchors) {
            const { address } = this.#first.tensors.get(name) as Place;
            memory.copyWithin(place.address, address, address + byteCount(place));
        }
    }

    /** A copy of the model tensors; with `frozen` false, without the parameters that are not trained. */
    state(frozen: boolean): Map<string, Tensor> {
        return new Map(this.#names(frozen).map((name) => [name, this.#copyOut(this.#first.tensors.get(name) as Place)]));
    }

    /** A copy of the optimizer's tensors. */
    optimizerState(): Map<string, Tensor> {
        return new Map(Array.from(this.#first.slots, ([name, place]) => [name, this.#copyOut(place)]));
    }

    /** Go on from an `optimizerState()`. */
    loadOptimizer(tensors: Tensors): void {
        this.#copyIn(tensors, [...this.#first.slots.keys()], this.#first.slots);
    }

    /** A sha256 over names and values of all model tensors, hashed where they lie: Python's `state_digest`. */
    digest(): string {
        this.#memory();
        const hasher = this.#kernels.hasher();
        for (const name of this.#names(true).sort(byCodePoint)) {
            const place = this.#first.tensors.get(name) as Place;
            hasher.add(encoder.encode(`${name}\0`));
            hasher.addAt(place.address, byteCount(place));
        }
        return hasher.hex();
    }

    /** Bytes of the batch field `name`, to be filled in; valid until the next call of anything else. */
    field(plan: Plan, name: string): Uint8Array {
        const place = plan.fields.get(name) as Place;
        return this.#memory().subarray(place.address, place.address + byteCount(place));
    }

    /** One training step on the batch that is in `plan.fields`, number `step` from 1. The loss before it. */
    train(plan: Plan, step: number, seed: bigint): number {
        this.#words().setInt32(plan.step, step, true);
        return this.accumulate(plan, seed, 1);
    }

    /** The gradients of one micro-batch, times its share of the batch, added to the plan's sums. Its loss. */
    accumulate(plan: Plan, seed: bigint, share: number): number {
        const words = this.#words();
        words.setBigInt64(plan.seed, seed, true);
        words.setFloat32(plan.share, share, true);
        this.#run(plan);
        return this.#words().getFloat32(plan.loss, true);
    }

    /** Clear the sums, before the first micro-batch. */
    clearSums(plan: Plan): void {
        this.#memory();
        for (const place of plan.sums.values()) {
            this.#floats(place).fill(0);
        }
    }

    /** What the optimizer does with the sums, in step number `step` from 1. */
    apply(plan: Plan, step: number): void {
        this.#words().setInt32(plan.step, step, true);
        this.#run(plan);
    }

    /** Evaluate the batch that is in `plan.fields`, changing nothing. */
    evaluate(plan: Plan): Evaluation {
        this.#run(plan);
        const words = this.#words();
        const loss = words.getFloat32(plan.loss, true);
        return plan.correct === null ? { loss, correct: 0, count: 0 } : { loss, correct: words.getInt32(plan.correct, true), count: plan.count };
    }

    #run(plan: Plan): void {
        if (this.#placed !== plan) {
            this.#memory().set(plan.code, plan.codeAt); // plans of other batch sizes may have theirs in the same place
            this.#placed = plan;
        }
        const failed = this.#call(plan);
        if (failed !== 0) {
            throw new TrainerError(`word ${failed - 1} of the plan is no kernel of this module; reload the page, it is of another release`);
        }
    }

    #call(plan: Plan): number {
        try {
            return this.#kernels.exports.run(plan.codeAt, plan.code.length / 4);
        } catch (error) {
            const what = `a step on ${plan.batch} samples failed in the kernels (${String(error)})`;
            throw new TrainerError(`${what}; does an index of the data fit its axis?`);
        }
    }

    #memory(): Uint8Array {
        if (this.#kernels.tenancy !== this.#tenancy) {
            throw new TrainerError("another unit has begun with these kernels, and this one has lost its memory; begin it again");
        }
        return this.#kernels.bytes;
    }

    #words(): DataView {
        const { buffer } = this.#memory();
        if (this.#view.buffer !== buffer) {
            this.#view = new DataView(buffer);
        }
        return this.#view;
    }

    #floats(place: Place): Float32Array {
        return new Float32Array(this.#kernels.bytes.buffer, place.address, byteCount(place) / 4);
    }

    #names(frozen: boolean): string[] {
        const roles = frozen ? MODEL : CHANGING;
        return [...this.#program.tensors].filter(([, { role }]) => roles.includes(role)).map(([name]) => name);
    }

    #copyIn(tensors: Tensors, names: readonly string[], places: Places): void {
        const memory = this.#memory();
        for (const name of names) {
            const tensor = tensors.get(name);
            const place = places.get(name) as Place;
            if (tensor === undefined || !alike(tensor, place)) {
                const got = tensor === undefined ? "nothing" : described(tensor);
                throw new TrainerError(`tensor ${name} should be ${described(place)}, got ${got}; it is of another program`);
            }
            memory.set(tensor.bytes, place.address);
        }
    }

    #copyOut(place: Place): Tensor {
        return { dtype: place.dtype, shape: place.shape, bytes: this.#kernels.copy(place.address, byteCount(place)) };
    }
}

/** Every tensor of the program has one place, the same in all plans. */
function checkTogether(program: Program, plans: readonly [Plan, ...Plan[]]): void {
    const shared = (plan: Plan): string => JSON.stringify([plan.tensors, plan.slots, plan.anchors].map((places) => [...places]));
    if (plans.some((plan) => shared(plan) !== shared(plans[0]))) {
        throw new TrainerError("the unit's plans do not agree on where its tensors lie; fetch them again");
    }
    for (const [name, spec] of program.tensors) {
        const place = plans[0].tensors.get(name);
        if (place === undefined || !alike(place, spec)) {
            throw new TrainerError(`the plan has no place for tensor ${name}, ${described(spec)}; it is of another program`);
        }
    }
    for (const [name, place] of plans[0].anchors) {
        const tensor = plans[0].tensors.get(name);
        if (tensor === undefined || !alike(tensor, place)) {
            throw new TrainerError(`the plan has an anchor for ${name}, which is no tensor of the program`);
        }
    }
}
