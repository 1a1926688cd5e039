/** From a unit's spec to a unit that runs: fetches what it names, checks that it fits together, and keeps warm what the next unit may use. */

import { Blobs } from "./blobs.ts";
import { Dataset, readManifest } from "./dataset.ts";
import { unitSamples } from "./draws.ts";
import { TrainerError } from "./errors.ts";
import { Host } from "./host.ts";
import type { Kernels } from "./kernels.ts";
import { readPlan, type Plan } from "./plan.ts";
import { readProgram, readVersion, type Program } from "./program.ts";
import type { BlobSource, PlanSource, UnitSpec } from "./spec.ts";
import { alike, described, type Tensors } from "./tensors.ts";
import { plansOf, UnitRun } from "./unit.ts";

/** Shards that stay in memory between units; a phone's page is closed for taking much more. */
const KEEP_BYTES = 64 << 20;

/** Makes units out of specs, one at a time: beginning one ends the one before. */
export class Trainer {
    readonly #kernels: Kernels;
    readonly #blobs: Blobs;
    readonly #source: PlanSource;
    #program: { readonly digest: string; readonly value: Program; readonly plans: Map<string, Plan> } | undefined;
    #dataset: { readonly digest: string; readonly value: Dataset } | undefined;

    constructor(kernels: Kernels, blobs: BlobSource, plans: PlanSource) {
        this.#kernels = kernels;
        this.#blobs = new Blobs(blobs, kernels);
        this.#source = plans;
    }

    /** The unit at its start. Blobs and plans are asked for only where they are not warm. */
    async begin(spec: UnitSpec): Promise<UnitRun> {
        checkKnown(spec);
        const { value: program, plans } = await this.#programOf(spec);
        const chosen = new Map<string, Plan>();
        for (const [kind, size] of plansOf(spec)) {
            const key = JSON.stringify([kind, size, spec.inner]);
            const plan = plans.get(key) ?? readPlan(await this.#source({ program: spec.program, kind, batch: size, inner: spec.inner }));
            if (plan.kind !== kind || plan.batch !== size) {
                throw new TrainerError(`asked for a plan to ${kind} ${size} samples, got one to ${plan.kind} ${plan.batch}`);
            }
            plans.set(key, plan);
            chosen.set(`${kind} ${size}`, plan);
        }
        const dataset = await this.#datasetOf(spec);
        checkRange(spec, dataset);
        const samples = await dataset.gather(unitSamples(this.#kernels, spec, dataset.samples));
        const { tensors: base, buffers } = readVersion(await this.#blobs.get(spec.base, "the model version"));
        const [first, ...more] = chosen.values();
        const parts = [first as Plan, ...more] as const;
        parts.forEach((plan) => checkFields(plan, samples));
        const host = new Host(this.#kernels, program, [...parts]);
        const plan = (kind: Plan["kind"], size: number): Plan => chosen.get(`${kind} ${size}`) as Plan;
        return new UnitRun(spec, { kernels: this.#kernels, host, plan, samples, base, buffers });
    }

    async #programOf(spec: UnitSpec): Promise<{ readonly value: Program; readonly plans: Map<string, Plan> }> {
        if (this.#program?.digest !== spec.program) {
            const value = readProgram(await this.#blobs.get(spec.program, "the program"));
            this.#program = { digest: spec.program, value, plans: new Map() };
        }
        return this.#program;
    }

    async #datasetOf(spec: UnitSpec): Promise<Dataset> {
        if (this.#dataset?.digest !== spec.dataset) {
            const manifest = readManifest(await this.#blobs.get(spec.dataset, "the dataset's manifest"));
            this.#dataset = { digest: spec.dataset, value: new Dataset(manifest, this.#blobs, KEEP_BYTES) };
        }
        return this.#dataset.value;
    }
}

function checkKnown(spec: UnitSpec): void {
    if (spec.precision !== "float32") {
        throw new TrainerError(`unit ${spec.unit_id} is to be computed in ${spec.precision} precision; the kernels know float32 only`);
    }
    if (spec.local !== "") {
        throw new TrainerError(`unit ${spec.unit_id} is over a node's own data ${spec.local}; a page has none`);
    }
}

function checkRange(spec: UnitSpec, dataset: Dataset): void {
    const { unit_id, start, stop, first } = spec;
    const of = spec.of > 0 ? spec.of : dataset.samples;
    if (!(start >= 0 && start < stop && stop <= of && first >= 0 && first <= dataset.samples - of)) {
        const where = spec.of > 0 ? `of the ${of} samples from ${first}` : "of its samples";
        const has = `dataset ${dataset.manifest.name} has ${dataset.samples} samples`;
        throw new TrainerError(`unit ${unit_id} asks for positions ${start} to ${stop} ${where}; ${has}`);
    }
}

function checkFields(plan: Plan, samples: Tensors): void {
    for (const [name, place] of plan.fields) {
        const held = samples.get(name);
        const batch = held === undefined ? undefined : { dtype: held.dtype, shape: [plan.batch, ...held.shape.slice(1)] };
        if (batch === undefined || !alike(batch, place)) {
            const got = batch === undefined ? "nothing" : described(batch);
            throw new TrainerError(`the program needs field ${name} as ${described(place)} per batch; the dataset has ${got}`);
        }
    }
}
