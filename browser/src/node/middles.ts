// Saved middles of units: the newest two of each, named by step and digest, so that a crash at any moment leaves at least the one before.
// Those of other kernels are never gone on from: the unit would have the bits of neither.

import type { Bytes, Files } from "./files.ts";

const KEPT = 2;
const NAME = /^(\d{12})-([0-9a-f]{64})$/;

export interface Middle {
    step: number;
    digest: string;
    data: Bytes;
}

export class Middles {
    constructor(
        private readonly files: Files,
        private readonly sha256: (data: Uint8Array) => string,
        private readonly runtime: string,
    ) {}

    private folderOf(unitId: string): string {
        return `work/${this.runtime}/${unitId}`;
    }

    async save(unitId: string, step: number, data: Bytes): Promise<void> {
        const folder = this.folderOf(unitId);
        const name = `${String(step).padStart(12, "0")}-${this.sha256(data)}`;
        await this.files.write(folder, name, data);
        for (const old of (await this.newestFirst(unitId)).slice(KEPT)) await this.files.remove(folder, old);
    }

    /** The furthest middle whose bytes match its name. */
    async newest(unitId: string): Promise<Middle | null> {
        for (const name of await this.newestFirst(unitId)) {
            const [, step, digest] = NAME.exec(name)!;
            const data = await this.files.read(this.folderOf(unitId), name);
            if (data !== null && this.sha256(data) === digest) return { step: Number(step), digest: digest!, data };
        }
        return null;
    }

    async forget(unitId: string): Promise<void> {
        await this.files.remove(this.folderOf(unitId));
    }

    /** Forget all units but these and the few that were worked on last. */
    async prune(keep: string[]): Promise<void> {
        const kept = new Set(keep.map((unitId) => this.folderOf(unitId)));
        for (const folder of await this.files.folders()) {
            if (folder.startsWith("work/") && !kept.has(folder)) await this.files.remove(folder);
        }
    }

    private async newestFirst(unitId: string): Promise<string[]> {
        return (await this.files.list(this.folderOf(unitId))).filter((name) => NAME.test(name)).sort().reverse();
    }
}
