/** The trainer: what pages, workers and Node programs import. It touches no DOM and no network; whoever uses it hands in bytes. */

export { TrainerError } from "./errors.ts";
export type { BlobSource, CodecName, InnerOptimizer, PlanRequest, PlanSource, UnitKind, UnitSpec, Whole } from "./spec.ts";
export { samplesOf, stepsOf } from "./spec.ts";
