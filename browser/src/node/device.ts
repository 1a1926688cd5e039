// What the device itself allows: its battery, whether the page is seen, the data saver. What a browser does not tell never stops work.

import type { Hindrance } from "./decide.ts";
import type { Limits } from "./home.ts";

interface Battery extends EventTarget {
    readonly charging: boolean;
    readonly level: number;
}

interface Connection extends EventTarget {
    readonly saveData?: boolean;
}

/** Interfaces that not every browser has, or that the DOM's types do not know. */
interface Told {
    getBattery?: () => Promise<Battery>;
    connection?: Connection;
}

/** The device at one moment; null where the browser cannot tell. */
export interface Sample {
    onBattery: boolean | null;
    hidden: boolean;
    saveData: boolean;
}

/** What keeps the device from working, the gravest first, or nothing. */
export function hindranceOf(sample: Sample, limits: Limits): Hindrance {
    if (limits.onlyCharging && sample.onBattery === true) return "on_battery";
    if (sample.saveData && !limits.despiteSaver) return "data_saver";
    return sample.hidden && !limits.inBackground ? "hidden" : "";
}

/** Keeps a sample up to date, and says when it has changed. */
export class Device {
    readonly sample: Sample = { onBattery: null, hidden: document.hidden, saveData: false };

    constructor(changed: () => void) {
        const told = navigator as unknown as Told;
        document.addEventListener("visibilitychange", () => {
            this.sample.hidden = document.hidden;
            changed();
        });
        const look = (): void => {
            this.sample.saveData = told.connection?.saveData === true;
            changed();
        };
        told.connection?.addEventListener?.("change", look);
        this.sample.saveData = told.connection?.saveData === true;
        void told.getBattery?.().then(
            (battery) => {
                const see = (): void => {
                    this.sample.onBattery = !battery.charging;
                    changed();
                };
                battery.addEventListener("chargingchange", see);
                see();
            },
            () => undefined, // the browser has it and does not tell
        );
    }
}
