/** The trainer: what pages, workers and Node programs import. It touches no DOM and no network; whoever uses it hands in bytes. */

export { encodeUpdate } from "./codec.ts";
export { Continuation } from "./continuation.ts";
export { TrainerError } from "./errors.ts";
export { parseJson, type Json, type JsonObject } from "./json.ts";
export { Kernels, type Hasher } from "./kernels.ts";
export { meanLoss, summary, type Metrics } from "./metrics.ts";
export type { BlobSource, CodecName, InnerOptimizer, PlanKind, PlanRequest, PlanSource, UnitKind, UnitSpec, Whole } from "./spec.ts";
export { samplesOf, stepsOf } from "./spec.ts";
export type { Tensor, Tensors } from "./tensors.ts";
export { Trainer } from "./trainer.ts";
export type { UnitRun } from "./unit.ts";
