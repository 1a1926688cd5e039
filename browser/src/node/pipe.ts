// What the page and its worker say to each other. The worker trains, keeps files and moves blobs; the page decides and reports.
// `run` numbers what is asked of the worker, so that words about an earlier run are not taken for the present one.

import type { UnitSpec } from "./wire.ts";

/** Where the daemon is, and as whom to ask it for blobs. */
export interface Begin {
    kind: "begin";
    url: string;
    token: string;
}

/** Run `unit`, from the furthest of its start, the daemon's `continuation` and what lies here. `share`: part of the time to work. */
export interface Train {
    kind: "train";
    run: number;
    unit: UnitSpec;
    continuation: string | null;
    continuationStep: number;
    saveEveryS: number;
    share: number;
}

/** Go on for `share` of the time, or hold at the next step with the middle saved. */
export interface Gate {
    kind: "gate";
    open: boolean;
    share: number;
}

/** End run `run` at the next step, without saving. */
export interface Drop {
    kind: "drop";
    run: number;
}

/** Save, and free the memory that training takes. */
export interface Release {
    kind: "release";
}

/** Upload a file of the outbox by its digest. */
export interface SendUpdate {
    kind: "send_update";
    id: number;
    digest: string;
}

/** Upload the newest continuation of a unit, where it is further than `beyondStep`. */
export interface SendMiddle {
    kind: "send_middle";
    id: number;
    unitId: string;
    beyondStep: number;
}

/** Forget a finished or handed-over unit's files, or a sent update. */
export interface Forget {
    kind: "forget";
    unitId?: string;
    update?: string;
}

/** Keep only the middles of these units. */
export interface Prune {
    kind: "prune";
    keep: string[];
}

export type ToWorker = Begin | Train | Gate | Drop | Release | SendUpdate | SendMiddle | Forget | Prune;

/** The trainer can train; `runtime` is its hardware class. */
export interface Ready {
    kind: "ready";
    runtime: string;
}

/** A heartbeat: a page in the background has no timers worth the name, its worker has. */
export interface Beat {
    kind: "beat";
}

/** How a run goes. `workedS`: real seconds on its steps, rests included; `throttle` below 1: it rests more because the device slows down. */
export interface Progress {
    kind: "progress";
    run: number;
    paused: boolean;
    step: number;
    executed: number;
    savedStep: number;
    workedS: number;
    busyS: number;
    throttle: number;
    loss: number | null;
    stuck: string;
}

/** What is being downloaded before a unit can begin; `total` 0: not known. */
export interface Fetching {
    kind: "fetching";
    run: number;
    received: number;
    total: number;
}

/** The unit is finished; `update` is the digest of a file in the outbox, null for an evaluation. */
export interface Done {
    kind: "done";
    run: number;
    update: string | null;
    executed: number;
    metrics: Record<string, number>;
    digests: [number, string][];
}

/** This unit cannot be run here. `stale`: because this page is older or newer than the daemon. */
export interface Failed {
    kind: "failed";
    run: number;
    detail: string;
    stale: boolean;
}

/** What was asked with that `id` is stored at the daemon: `digest` at `step`; null where nothing was worth sending. */
export interface Sent {
    kind: "sent";
    id: number;
    digest: string | null;
    step: number;
}

export interface Unsent {
    kind: "unsent";
    id: number;
    name: string;
    detail: string;
}

export type FromWorker = Ready | Beat | Progress | Fetching | Done | Failed | Sent | Unsent;
