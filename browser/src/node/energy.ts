// The node's energy register: cumulative joules that never run backwards, estimated from a power model of the device.
//
// A browser cannot read a meter. While a step runs, the device draws what its owner says it draws at most; while the trainer rests
// between steps or holds a unit, a share of that. Nothing is counted while nothing is held: then it would draw the same without us.

/** Part of its full power that a device draws more than when idle, only because a page with a loaded model is open. */
export const IDLE_SHARE = 0.02;

/** Longest time of rest that is believed: after a suspended or frozen page nothing is charged for the gap. */
const LONGEST_GAP_S = 5;
const WINDOW_S = 1;

export class EnergyRegister {
    /** The mean draw of the last second or so. */
    powerW = 0;

    private windowJ = 0;
    private windowS = 0;

    /** `fullW` is what the device draws at full work; the register goes on from `energyJ`, read at `atS` of a monotonic clock. */
    constructor(
        private readonly fullW: number,
        public energyJ: number,
        public atS: number,
    ) {}

    /** Count the time since the last call: `busyS` of it was spent on steps; `holding`: a unit was loaded. */
    count(nowS: number, busyS: number, holding: boolean): void {
        const passedS = Math.max(nowS - this.atS, 0);
        this.atS = Math.max(nowS, this.atS);
        const restedS = holding ? Math.max(Math.min(passedS, LONGEST_GAP_S) - busyS, 0) : 0;
        const drawnJ = this.fullW * (Math.max(busyS, 0) + IDLE_SHARE * restedS);
        this.energyJ += drawnJ;
        this.windowJ += drawnJ;
        this.windowS += passedS;
        if (this.windowS < WINDOW_S) return;
        this.powerW = Math.min(this.windowJ / this.windowS, this.fullW);
        this.windowJ = this.windowS = 0;
    }
}
