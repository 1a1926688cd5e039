// How hard the trainer works: for a share of the time, and less where the device slows down under it.
//
// A phone that gets hot lowers its clock, so steps of the same work take longer. Resting more lets it cool, and gives its owner a
// cooler phone at nearly the same speed. Step times are compared in windows, by their medians, so that one slow step says nothing.

const WINDOW_S = 2;
const LEAST_STEPS = 5;
/** Slower than this, against the best window so far, is a device that throttles; nearly as fast as this has recovered. */
const SLOW = 1.35;
const RECOVERED = 1.12;
const WINDOWS = 3;
const LESS = 0.8;
const LEAST = 0.3;
const MORE = 1.1;
/** Rests shorter than this are saved up: timers are no finer. */
const SHORTEST_REST_S = 0.02;

export class Pace {
    /** The owner's share, above 0 up to 1. */
    share = 1;
    /** What is left of it where the device slows down, 1 where it does not. */
    throttle = 1;

    private steps: number[] = [];
    private windowS = 0;
    private bestS = Infinity;
    private slowWindows = 0;
    private owedS = 0;

    /** Another unit has other steps: what was learnt of the old ones is forgotten, but not how warm the device is. */
    reset(): void {
        this.steps = [];
        this.windowS = 0;
        this.bestS = Infinity;
        this.slowWindows = 0;
        this.owedS = 0;
    }

    /** Take note of a step that took `stepS`; returns how long to rest now, in seconds. */
    after(stepS: number): number {
        this.steps.push(stepS);
        this.windowS += stepS;
        if (this.windowS >= WINDOW_S && this.steps.length >= LEAST_STEPS) this.judge();
        const part = Math.max(this.share * this.throttle, 0.01);
        this.owedS += stepS * (1 / part - 1);
        if (this.owedS < SHORTEST_REST_S) return 0;
        const rest = this.owedS;
        this.owedS = 0;
        return rest;
    }

    private judge(): void {
        const typicalS = this.steps.sort((a, b) => a - b)[this.steps.length >> 1]!;
        this.steps = [];
        this.windowS = 0;
        this.bestS = Math.min(this.bestS, typicalS);
        const ratio = typicalS / this.bestS;
        this.slowWindows = ratio > SLOW ? this.slowWindows + 1 : 0;
        if (this.slowWindows >= WINDOWS) {
            this.throttle = Math.max(this.throttle * LESS, LEAST);
            this.slowWindows = 0;
        } else if (ratio < RECOVERED) {
            this.throttle = Math.min(this.throttle * MORE, 1);
        }
    }
}
