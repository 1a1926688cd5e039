// What this page is to remember, also where the browser stores nothing: what was not taken is written again with whatever comes next.

import { type Home, type Key, LIMITS, type Remembered } from "./home.ts";

export class Keeper {
    /** Why the browser stores nothing, where it does not. */
    stuck = "";

    private readonly newest = new Map<Key, Remembered[Key]>();
    private readonly lost = new Set<Key>();

    constructor(private readonly home: Home) {}

    /** Remember it. A failure is told by `stuck` alone: the page works on with what it knows. */
    async keep<K extends Key>(key: K, value: Remembered[K]): Promise<void> {
        this.newest.set(key, value);
        await Promise.all([...new Set<Key>([key, ...this.lost])].map((each) => this.write(each)));
        if (this.lost.size === 0) this.stuck = "";
    }

    /** Write again what is stored anyway: why nothing would be remembered now, or nothing. */
    async trial(): Promise<string> {
        await this.keep("limits", (await this.home.get("limits")) ?? LIMITS);
        return this.stuck;
    }

    private async write(key: Key): Promise<void> {
        const value = this.newest.get(key)!;
        try {
            await this.home.set(key, value);
            if (this.newest.get(key) === value) this.lost.delete(key);
        } catch (error) {
            this.lost.add(key);
            this.stuck = error instanceof Error ? error.message || error.name : String(error); // a browser's own may have no words
        }
    }
}
