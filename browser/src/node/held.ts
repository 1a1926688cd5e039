// The lease this node holds, and what has been done under it.

import type { Phase } from "./decide.ts";
import type { Progress } from "./pipe.ts";
import { type LeaseReport, type Order, stepsOf } from "./wire.ts";

/** Changes as work goes on; `sinceS` is when `phase` began, by the node's monotonic clock. */
export class Held {
    phase: Phase = "starting";
    reason = "";
    mayGoOn = false;
    step = 0;
    savedStep = 0;
    /** Steps of the present run, less those that an earlier lease on the same unit was told of. */
    executed = 0;
    workedS = 0;
    busyS = 0;
    throttle = 1;
    loss: number | null = null;
    deaths = 0;
    notBeforeS = 0;
    /** The trainer rests, and its middle is stored. */
    saved = false;
    /** How much of what it needs has been downloaded, in bytes; null once it has begun. */
    fetching: { received: number; total: number } | null = null;
    /** The newest middle that the daemon has of this lease's work, for a page that is closed in haste. */
    mirrored: { digest: string; step: number } | null = null;

    constructor(
        public order: Order,
        public run: number,
        public sinceS: number,
        /** Steps of earlier runs under this lease. */
        public executedBefore = 0,
    ) {}

    get steps(): number {
        return stepsOf(this.order.unit);
    }

    /** Whether the unit can be handed over now. */
    get ready(): boolean {
        return this.phase === "handing_over" && this.saved;
    }

    /** Steps run under this lease, repeated ones too. */
    get stepsExecuted(): number {
        return this.executedBefore + this.executed;
    }

    isOf(leaseId: string, generation: number): boolean {
        return this.order.lease_id === leaseId && this.order.generation === generation;
    }

    turn(phase: Phase, nowS: number, reason = ""): void {
        if (phase !== this.phase) {
            this.phase = phase;
            this.sinceS = nowS;
        }
        this.reason = reason || this.reason;
    }

    progress(said: Progress, nowS: number): void {
        if (said.executed > this.executed) this.deaths = 0;
        this.step = said.step;
        this.executed = said.executed;
        this.workedS = said.workedS;
        this.busyS = said.busyS;
        this.throttle = said.throttle;
        this.loss = said.loss;
        this.savedStep = Math.max(this.savedStep, said.savedStep);
        this.saved = said.paused && !said.stuck;
        this.fetching = null;
        if (this.phase === "starting" || this.phase === "running" || this.phase === "paused") this.turn(said.paused ? "paused" : "running", nowS);
    }

    /** A run begins anew, after the memory was freed or the worker died. */
    newRun(run: number, nowS: number): void {
        this.executedBefore += this.executed;
        this.executed = 0;
        this.workedS = 0;
        this.busyS = 0;
        this.run = run;
        this.mayGoOn = true;
        this.saved = false;
        this.turn("starting", nowS);
    }

    /** The same unit under a newer lease, which starts to count from here. */
    adopt(order: Order): void {
        this.order = order;
        this.executedBefore = -this.executed;
        this.mirrored = null;
    }

    /** What the daemon is told; `clockSpeed` is its seconds per real second. */
    report(clockSpeed: number): LeaseReport {
        const resting = this.phase !== "finished" && !this.mayGoOn;
        const state = this.phase === "starting" ? "starting" : this.phase === "refused" ? "refused" : resting ? "paused" : "running";
        return {
            lease_id: this.order.lease_id,
            generation: this.order.generation,
            state,
            step: this.step,
            steps_executed: Math.max(this.stepsExecuted, 0),
            saved_step: this.savedStep,
            speed: this.workedS > 0 ? Math.max(this.executed, 0) / (this.workedS * clockSpeed) : 0,
            reason: this.reason.slice(0, 500),
        };
    }
}
