// The real engine: the project's own trainer over its one kernel module.

import { Continuation, Kernels, Trainer, type UnitRun, encodeUpdate, meanLoss, summary } from "../trainer/index.ts";
import type { Engine, Outcome, Run, Sources } from "./engine.ts";
import type { Bytes } from "./files.ts";
import type { UnitSpec } from "./wire.ts";

/** An engine over the module whose bytes are `module`. */
export async function makeEngine(module: Bytes): Promise<Engine> {
    return new WasmEngine(module, await Kernels.load(module));
}

class WasmEngine implements Engine {
    readonly runtime: string;
    readonly kernels: string;
    private trainer: Trainer | null = null;
    /** Where the trainer asks now: what stays warm in it outlives the run that fetched it. */
    private sources: Sources | null = null;
    private grown = false;

    constructor(
        private readonly module: Bytes,
        private instance: Kernels,
    ) {
        this.runtime = instance.hardwareClass;
        this.kernels = instance.digest;
    }

    sha256(data: Uint8Array): string {
        return this.instance.sha256(data);
    }

    async prepare(unit: UnitSpec, sources: Sources, middles: Bytes[]): Promise<Run> {
        this.sources = sources;
        this.trainer ??= new Trainer(
            this.instance,
            (digest) => this.sources!.blob(digest),
            ({ program, kind, batch, inner }) => this.sources!.plan(program, { kind, batch: String(batch), inner: JSON.stringify(inner) }),
        );
        this.grown = true;
        const run = await this.trainer.begin(unit);
        for (const middle of middles) {
            try {
                run.load(Continuation.fromBytes(middle));
                break;
            } catch {
                // a damaged middle is passed over: steps can be run again
            }
        }
        return new WasmRun(run, this.instance);
    }

    /** A module's memory only ever grows, so another instance takes its place. */
    async release(): Promise<void> {
        if (!this.grown) return;
        this.grown = false;
        this.trainer = this.sources = null;
        this.instance = await Kernels.load(this.module);
    }
}

class WasmRun implements Run {
    readonly steps: number;

    constructor(
        private readonly run: UnitRun,
        private readonly kernels: Kernels,
    ) {
        this.steps = run.steps;
    }

    get position(): number {
        return this.run.position;
    }

    get loss(): number | null {
        return this.run.metrics.samples > 0 ? meanLoss(this.run.metrics) : null;
    }

    step(): void {
        this.run.step();
    }

    save(): Bytes {
        return this.run.save().toBytes() as Bytes;
    }

    finish(): Outcome {
        const { spec, metrics, digests } = this.run;
        const points = digests.map((digest, index): [number, string] => [(index + 1) * spec.digest_every, digest]);
        const update = spec.kind === "train" ? (encodeUpdate(this.run.delta(), spec, this.kernels, this.run.buffers) as Bytes) : null;
        return { update, metrics: summary(metrics), digests: points };
    }
}
