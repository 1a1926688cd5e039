// What a node remembers of itself from one page to the next (gridsched/node/state.py), in IndexedDB.

import { database, done } from "./database.ts";
import { eraseFiles } from "./files.ts";

/** Who this node is to its daemon. */
export interface Identity {
    nodeId: string;
    token: string;
    zone: string;
    powerW: number;
    memoryBytes: number;
    clockSpeed: number;
}

/** The owner's choice as made here at `madeAtMs` of this device's wall clock. `leftS`: how many real seconds it holds from then on. */
export interface Choice {
    id: string;
    optedIn: boolean;
    leftS: number | null;
    /** Missing in what an older page has stored: nobody knows when that was, so its time is over. */
    madeAtMs?: number;
    minRewardMicroPerKwh: number;
    sent: boolean;
}

/** The owner's limits, which the daemon is not told. */
export interface Limits {
    /** How hard it may work: part of the time, above 0 up to 1. */
    share: number;
    onlyCharging: boolean;
    inBackground: boolean;
    /** Downloads were allowed though the data saver is on. */
    despiteSaver: boolean;
    /** For how many hours to opt in; 0: until switched off. */
    hours: number;
}

export const LIMITS: Limits = { share: 1, onlyCharging: true, inBackground: true, despiteSaver: false, hours: 0 };

/** A finished unit on its way to the daemon. */
export interface Finished {
    leaseId: string;
    generation: number;
    unitId: string;
    update: string | null;
    stepsExecuted: number;
    metrics: Record<string, number>;
    digests: [number, string][];
}

/** Steps run under a lease, repeated ones too. */
export interface Effort {
    leaseId: string;
    stepsExecuted: number;
}

/** All of it, by name. */
export interface Remembered {
    identity: Identity;
    choice: Choice;
    limits: Limits;
    outbox: Finished[];
    effort: Effort;
    registerJ: number;
    /** Units accepted from this browser, for its owner only. */
    accepted: number;
    language: string;
}

export type Key = keyof Remembered;

/** Reads and writes records; a write is durable when its promise is kept. */
export interface Home {
    get<K extends Key>(key: K): Promise<Remembered[K] | undefined>;
    set<K extends Key>(key: K, value: Remembered[K]): Promise<void>;
    erase(): Promise<void>;
}

/** The browser's own store. */
export class BrowserHome implements Home {
    async get<K extends Key>(key: K): Promise<Remembered[K] | undefined> {
        const task = (await database()).transaction("state", "readonly");
        return (await done(task.objectStore("state").get(key), task)) as Remembered[K] | undefined;
    }

    async set<K extends Key>(key: K, value: Remembered[K]): Promise<void> {
        const task = (await database()).transaction("state", "readwrite", { durability: "strict" });
        await done(task.objectStore("state").put(value, key), task);
    }

    async erase(): Promise<void> {
        await eraseFiles();
        const task = (await database()).transaction("state", "readwrite");
        await done(task.objectStore("state").clear(), task);
    }
}
