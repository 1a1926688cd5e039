// What is said to the daemon and what it said last: hello, sync, the owner's choice (gridsched/node/contact.py). One call at a time,
// so that what is said later arrives later.

import { backoffS } from "./backoff.ts";
import type { Client } from "./client.ts";
import { type Failure, asFailure, isFatal, isOtherRelease } from "./errors.ts";
import type { Choice } from "./home.ts";
import { type Order, type Orders, type Sync, VERSION } from "./wire.ts";

const SHORTEST_SYNC_S = 0.05;
const LONGEST_WAIT_S = 15;

export interface ContactParts {
    client: Client;
    clockSpeed: number;
    memoryBytes: number;
    now(): number;
    /** Milliseconds of the wall clock, which goes on where no page is open. */
    wallMs(): number;
    /** The sync as things stand, made at the moment it is sent. */
    compose(): Promise<Sync>;
    /** The daemon has acknowledged the owner's last choice. */
    chosen(choice: Choice): void;
    /** Something worth showing has changed. */
    changed(): void;
}

export class Contact {
    readonly instance: string;
    orders: Orders | null = null;
    speed: number;
    connected = false;
    fatal: Failure | null = null;
    /** The daemon does not understand this page: it is of another release. */
    outdated = false;
    /** Why the daemon is not reached, where it is not. */
    trouble = "";

    private runtime = "";
    private greeted = false;
    private busy = false;
    private under: Promise<void> = Promise.resolve();
    private failures = 0;
    private dueS = 0;
    private newsS = Infinity;
    private unsent: Choice | null = null;
    private silentAtS = 0;
    private startAtS = 0;
    private consentEndsS: number | null = null;

    constructor(private readonly parts: ContactParts) {
        this.speed = parts.clockSpeed;
        const random = crypto.getRandomValues(new Uint8Array(8));
        this.instance = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
    }

    // What is known.

    /** Whether the daemon knows this page and takes its reports. */
    get open(): boolean {
        return this.greeted && this.fatal === null && !this.outdated;
    }

    /** Whether the owner's choice waits to be told; it rules here all the same. */
    get choosing(): boolean {
        return this.unsent !== null;
    }

    get order(): Order | null {
        return this.orders?.order ?? null;
    }

    silent(nowS: number): boolean {
        return nowS >= this.silentAtS;
    }

    waited(nowS: number): boolean {
        return nowS >= this.startAtS;
    }

    consentEnded(nowS: number): boolean {
        return this.consentEndsS !== null && nowS >= this.consentEndsS;
    }

    /** Real seconds until the time opted in for is over; null: no end. */
    consentLeftS(nowS: number): number | null {
        return this.consentEndsS === null ? null : Math.max(this.consentEndsS - nowS, 0);
    }

    /** The owner's word where it is newer than the daemon's. */
    get optedIn(): boolean {
        return this.unsent !== null ? this.unsent.optedIn : (this.orders?.consent.opted_in ?? false);
    }

    // Speaking.

    /** The owner has chosen: that holds from the moment it was made, daemon or no daemon, page or no page. */
    choose(choice: Choice): void {
        this.unsent = choice;
        const goneS = Math.max(this.parts.wallMs() - (choice.madeAtMs ?? 0), 0) / 1000;
        this.consentEndsS = choice.optedIn && choice.leftS !== null ? this.parts.now() + Math.max(choice.leftS - goneS, 0) : null;
    }

    /** The trainer's hardware class; nothing is said before it is known. */
    trainsWith(runtime: string): void {
        if (runtime === this.runtime) return;
        this.runtime = runtime;
        this.greeted = false;
        this.hurry();
    }

    /** Something has changed: report it with the next turn, or some time within so many seconds; unless the daemon is away. */
    hurry(withinS = 0): void {
        if (this.failures === 0) this.newsS = Math.min(this.newsS, this.parts.now() + withinS);
    }

    /** The network is back: do not wait out the back-off. */
    retry(): void {
        this.dueS = this.parts.now();
        this.newsS = this.dueS;
    }

    /** Say what is due, if nothing is being said. */
    turn(nowS: number): void {
        if (this.busy || this.fatal !== null || this.outdated || this.runtime === "") return;
        if (nowS < Math.min(this.dueS, this.newsS) && (this.failures > 0 || this.unsent === null)) return;
        if (!this.greeted) void this.greet();
        else if (this.unsent !== null) void this.tell(this.unsent);
        else {
            this.newsS = Infinity;
            void this.call(async () => this.parts.client.sync(await this.parts.compose()));
        }
    }

    /** One more call among the others, when its turn comes. Its failure is the caller's. */
    async among(ask: () => Promise<Orders>): Promise<void> {
        while (this.busy) await this.under;
        const saidS = this.parts.now();
        await this.alone(async () => this.answered(saidS, await ask()));
    }

    /** Take orders that answer what was said at `saidS`, or that were pushed then. */
    hear(orders: Orders, saidS: number): void {
        this.orders = orders;
        this.speed = orders.clock_speed;
        const left = orders.consent.left_s;
        if (this.unsent === null) this.consentEndsS = left === null || !orders.consent.opted_in ? null : saidS + left / this.speed;
        if (orders.order !== null) {
            this.silentAtS = saidS + orders.order.ttl_s / this.speed;
            this.startAtS = saidS + orders.order.wait_s / this.speed;
        }
        this.parts.changed();
    }

    /** A call failed; the daemon is left alone for a while, or for good. */
    missed(error: Failure): void {
        if (isFatal(error)) this.fatal = error;
        this.connected = false;
        this.trouble = error.message;
        this.newsS = Infinity;
        this.dueS = this.parts.now() + backoffS(this.failures, 0.25, LONGEST_WAIT_S);
        this.failures += 1;
        this.parts.changed();
    }

    private async greet(): Promise<void> {
        const { memoryBytes } = this.parts;
        const runtime = this.runtime;
        await this.call(
            () => this.parts.client.hello({ instance: this.instance, runtime, memory_bytes: memoryBytes, version: VERSION }),
            () => (this.greeted = runtime === this.runtime),
            (error) => (this.outdated = isOtherRelease(error)),
        );
    }

    private async tell(choice: Choice): Promise<void> {
        const settle = (): void => {
            if (this.unsent !== choice) return; // another was made meanwhile, which nobody has been told
            this.unsent = null;
            this.parts.chosen(choice);
        };
        const nowS = this.parts.now();
        const leftS = choice.leftS === null || this.consentEndsS === null ? null : this.consentEndsS - nowS;
        const message = {
            opted_in: choice.optedIn && (leftS === null || leftS > 0),
            for_s: choice.optedIn && leftS !== null && leftS > 0 ? leftS * this.speed : null,
            max_w: null,
            min_reward_micro_per_kwh: choice.minRewardMicroPerKwh,
        };
        await this.call(
            () => this.parts.client.choose(message),
            settle,
            (error) => {
                if (error.name === "InvalidInput") settle();
            },
        );
    }

    private call(ask: () => Promise<Orders>, then: () => unknown = () => undefined, otherwise: (error: Failure) => unknown = () => undefined): Promise<void> {
        const saidS = this.parts.now();
        return this.alone(async () => {
            try {
                const orders = await ask();
                then();
                this.answered(saidS, orders);
            } catch (error) {
                const failure = asFailure(error);
                otherwise(failure);
                this.missed(failure);
            }
        });
    }

    private alone(say: () => Promise<void>): Promise<void> {
        this.busy = true;
        const saying = say().finally(() => (this.busy = false));
        this.under = saying.catch(() => undefined);
        return saying;
    }

    private answered(saidS: number, orders: Orders): void {
        this.failures = 0;
        this.connected = true;
        this.trouble = "";
        this.dueS = saidS + Math.max(orders.sync_every_s / orders.clock_speed, SHORTEST_SYNC_S);
        this.hear(orders, saidS);
    }
}
