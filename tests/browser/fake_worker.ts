// The page's worker with a trainer by its interface (browser/src/node/engine.ts) that trains nothing: steps take as long as they are told, and count themselves
// in the model's place. Its middles are a JSON of the position, its update is a tensor `w` full of the number of steps.

import { encodeUpdate } from "../../browser/src/trainer/codec.ts";
import { Kernels } from "../../browser/src/trainer/kernels.ts";
import type { Engine, Outcome, Run, Sources } from "../../browser/src/node/engine.ts";
import type { Bytes } from "../../browser/src/node/files.ts";
import { serve } from "../../browser/src/node/serve.ts";
import { type UnitSpec, stepsOf } from "../../browser/src/node/wire.ts";

const STEP_MS = 10;
const SHAPE = [4, 3];

async function makeEngine(module: Bytes): Promise<Engine> {
    const kernels = await Kernels.load(module);
    return {
        runtime: "torch-fake",
        kernels: kernels.digest,
        sha256: (data) => kernels.sha256(data),
        prepare: async (unit: UnitSpec, sources: Sources, middles: Bytes[]): Promise<Run> => {
            await sources.blob(unit.base);
            return new FakeRun(unit, kernels, middles);
        },
        release: async () => undefined,
    };
}

class FakeRun implements Run {
    readonly steps: number;
    position = 0;

    constructor(
        private readonly unit: UnitSpec,
        private readonly kernels: Kernels,
        middles: Bytes[],
    ) {
        this.steps = stepsOf(unit);
        const [first] = middles;
        if (first !== undefined) this.position = (JSON.parse(new TextDecoder().decode(first)) as { position: number }).position;
    }

    get loss(): number {
        return 1 / (1 + this.position);
    }

    step(): void {
        const until = performance.now() + STEP_MS;
        while (performance.now() < until);
        this.position += 1;
    }

    save(): Bytes {
        return new TextEncoder().encode(JSON.stringify({ unit: this.unit.unit_id, position: this.position })) as Bytes;
    }

    finish(): Outcome {
        const bytes = new Uint8Array(new Float32Array(SHAPE[0]! * SHAPE[1]!).fill(this.position * 1e-3).buffer);
        const delta = new Map([["w", { dtype: "float32" as const, shape: SHAPE, bytes }]]);
        return { update: encodeUpdate(delta, this.unit, this.kernels, new Set()) as Bytes, metrics: { loss: this.loss, samples: this.unit.stop - this.unit.start }, digests: [] };
    }
}

serve(makeEngine);
