/** Seconds before the next attempt: doubled each time, and anywhere between half and all of it, so that nodes do not return as one. */
export function backoffS(failures: number, firstS = 0.5, longestS = 30, draw: () => number = Math.random): number {
    return Math.min(longestS, firstS * 2 ** Math.min(Math.max(failures, 0), 16)) * (0.5 + 0.5 * draw());
}
