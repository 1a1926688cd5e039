/** Sums over a unit's steps, in double precision and in the order of the steps, so that they equal Python's bits. */

import { TrainerError } from "./errors.ts";

/** `samples` counts every visit; `correct` of `count` answers is 0 of 0 where nothing is classified. Names are those of the JSON. */
export interface Metrics {
    readonly loss_sum: number;
    readonly samples: number;
    readonly correct: number;
    readonly count: number;
}

export const NOTHING: Metrics = { loss_sum: 0, samples: 0, correct: 0, count: 0 };

/** One batch evaluated: mean `loss`. */
export interface Evaluation {
    readonly loss: number;
    readonly correct: number;
    readonly count: number;
}

/** With one more batch of `samples`. */
export function plus(sums: Metrics, samples: number, batch: Evaluation): Metrics {
    return {
        loss_sum: sums.loss_sum + batch.loss * samples,
        samples: sums.samples + samples,
        correct: sums.correct + batch.correct,
        count: sums.count + batch.count,
    };
}

/** Mean loss per sample; 0 before the first step. */
export function meanLoss(sums: Metrics): number {
    return sums.samples > 0 ? sums.loss_sum / sums.samples : 0;
}

/**
 * What a finished unit reports: `correct` of `count` only where the program classifies. A loss that is NaN or infinite is left out, for
 * JSON has no word for it.
 */
export function summary(sums: Metrics): Record<string, number> {
    const loss = meanLoss(sums);
    const found = Number.isFinite(loss) ? { loss, samples: sums.samples } : { samples: sums.samples };
    return sums.count > 0 ? { ...found, correct: sums.correct, count: sums.count } : found;
}

const HEX = /^(-?)0x([01])\.([0-9a-f]{1,13})p([+-]\d{1,4})$/;

/** Every bit of a double as text: Python's `float.hex`. */
export function floatHex(value: number): string {
    if (!Number.isFinite(value)) {
        return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
    }
    const view = new DataView(new ArrayBuffer(8));
    view.setFloat64(0, value);
    const bits = view.getBigUint64(0);
    const sign = bits >> 63n ? "-" : "";
    const exponent = Number((bits >> 52n) & 2047n);
    const fraction = bits & ((1n << 52n) - 1n);
    if (exponent === 0 && fraction === 0n) {
        return `${sign}0x0.0p+0`;
    }
    const power = Math.max(exponent, 1) - 1023;
    return `${sign}0x${exponent > 0 ? 1 : 0}.${fraction.toString(16).padStart(13, "0")}p${power < 0 ? "" : "+"}${power}`;
}

/** Reads what `floatHex` wrote. */
export function fromFloatHex(text: string): number {
    const special = { nan: NaN, inf: Infinity, "-inf": -Infinity }[text];
    const found = HEX.exec(text);
    if (special !== undefined || found === null) {
        if (special === undefined) {
            throw new TrainerError(`${text.slice(0, 40)} is not a number written by float.hex`);
        }
        return special;
    }
    const [, sign, lead, fraction = "", power] = found;
    const value = (Number(lead) + parseInt(fraction, 16) / 16 ** fraction.length) * 2 ** Number(power);
    return sign === "-" ? -value : value;
}
