// What goes back to the daemon: finished updates and handed-over middles. Tried until answered, whatever is reloaded
// (gridsched/node/returns.py). One parcel at a time: its blob first, by the worker, then its notice among the other reports.

import { backoffS } from "./backoff.ts";
import type { Client } from "./client.ts";
import type { Contact } from "./contact.ts";
import { Failure, asFailure, isFinal } from "./errors.ts";
import type { Held } from "./held.ts";
import type { Finished } from "./home.ts";
import type { Sent, ToWorker, Unsent } from "./pipe.ts";
import type { MeterReport, Orders } from "./wire.ts";

export interface ReturnsParts {
    client: Client;
    contact: Contact;
    now(): number;
    worker(message: ToWorker): void;
    meter(): Promise<MeterReport | null>;
    keep(outbox: Finished[]): Promise<void>;
    /** The daemon has closed this lease; `refused`: it did not take what was done. */
    over(leaseId: string, generation: number, refused: boolean): void;
    accepted(): void;
}

type Uploaded = { digest: string | null; step: number } | Failure;

export class Returns {
    private busy = false;
    private failures = 0;
    private dueS = 0;
    private uploads = 0;
    private readonly waitingFor = new Map<number, (found: Uploaded) => void>();

    constructor(
        private readonly parts: ReturnsParts,
        private readonly outbox: Finished[],
    ) {}

    /** Finished units that the daemon has not answered. */
    get waiting(): number {
        return this.outbox.length;
    }

    holds(leaseId: string): boolean {
        return this.outbox.some((item) => item.leaseId === leaseId);
    }

    async add(finished: Finished): Promise<void> {
        this.outbox.push(finished);
        await this.parts.keep(this.outbox);
    }

    /** Send the next parcel, when nothing is on its way. A hand-over waits until the owner's choice behind it is known. */
    turn(nowS: number, held: Held | null): void {
        if (this.busy || nowS < this.dueS || !this.parts.contact.open) return;
        const item = this.outbox[0];
        if (item !== undefined) void this.carry(() => this.sendUpdate(item));
        else if (held !== null && held.ready && !this.parts.contact.choosing) void this.carry(() => this.handOver(held));
    }

    /** The worker has answered an upload. */
    hear(message: Sent | Unsent): void {
        const heard = this.waitingFor.get(message.id);
        this.waitingFor.delete(message.id);
        heard?.(message.kind === "sent" ? message : new Failure(message.name, message.detail));
    }

    /** The worker has died: what it was uploading is tried again. */
    lost(): void {
        for (const heard of this.waitingFor.values()) heard(new Failure("Unreachable", "the worker was restarted"));
        this.waitingFor.clear();
    }

    /** Store the newest middle of `held` at the daemon, so that a page closed in haste can hand it over. */
    async mirror(held: Held): Promise<void> {
        const { lease_id: lease, generation } = held.order;
        const found = await this.upload((id) => ({ kind: "send_middle", id, unitId: held.order.unit.unit_id, beyondStep: held.order.continuation_step }));
        if (!(found instanceof Failure) && found.digest !== null && held.isOf(lease, generation)) held.mirrored = { digest: found.digest, step: found.step };
    }

    private async carry(parcel: () => Promise<void>): Promise<void> {
        this.busy = true;
        try {
            await parcel();
            this.failures = 0;
        } catch (error) {
            const failure = asFailure(error);
            this.dueS = this.parts.now() + backoffS(this.failures++, 0.25, 15);
            this.parts.contact.missed(failure);
        } finally {
            this.busy = false;
        }
    }

    private async sendUpdate(item: Finished): Promise<void> {
        const { update } = item;
        const sent = update === null ? null : await this.upload((id) => ({ kind: "send_update", id, digest: update }));
        const tooLarge = sent instanceof Failure && sent.name === "TooLarge";
        if (sent instanceof Failure && !tooLarge) {
            if (sent.name !== "BlobCorrupt") throw sent;
            return this.closeUpdate(item, sent);
        }
        return this.notify(
            () => this.tellOf(item, tooLarge ? null : update),
            (failure) => this.closeUpdate(item, failure),
        );
    }

    /** The notice of a finished unit; without the digests along its way where the daemon takes no message of that length. */
    private async tellOf(item: Finished, update: string | null): Promise<Orders> {
        const notice = {
            instance: this.parts.contact.instance,
            lease_id: item.leaseId,
            generation: item.generation,
            update,
            steps_executed: item.stepsExecuted,
            metrics: item.metrics,
            digests: item.digests,
            meter: await this.parts.meter(),
        };
        try {
            return await this.parts.client.update(notice);
        } catch (error) {
            if (asFailure(error).name !== "TooLarge" || item.digests.length === 0) throw error;
            return await this.parts.client.update({ ...notice, digests: [] });
        }
    }

    private async closeUpdate(item: Finished, failure: Failure | null): Promise<void> {
        this.outbox.splice(this.outbox.indexOf(item), 1);
        await this.parts.keep(this.outbox);
        this.parts.worker({ kind: "forget", unitId: item.unitId, ...(item.update === null ? {} : { update: item.update }) });
        if (failure === null) this.parts.accepted();
        this.parts.over(item.leaseId, item.generation, failure !== null);
    }

    private async handOver(held: Held): Promise<void> {
        const { order } = held;
        const found = await this.upload((id) => ({ kind: "send_middle", id, unitId: order.unit.unit_id, beyondStep: order.continuation_step }));
        if (found instanceof Failure && found.name !== "TooLarge") throw found;
        const mine = found instanceof Failure || found.digest === null ? null : { digest: found.digest, step: found.step };
        return this.notify(
            async () =>
                this.parts.client.handOver({
                    instance: this.parts.contact.instance,
                    lease_id: order.lease_id,
                    generation: order.generation,
                    continuation: mine === null ? order.continuation : mine.digest,
                    step: mine === null ? order.continuation_step : mine.step,
                    steps_executed: Math.max(held.stepsExecuted, 0),
                    reason: held.reason,
                    meter: await this.parts.meter(),
                }),
            async (failure) => {
                this.parts.worker({ kind: "forget", unitId: order.unit.unit_id });
                this.parts.over(order.lease_id, order.generation, failure !== null);
            },
        );
    }

    /** Say it among the other reports; `close` once the daemon has taken it, or never will. */
    private async notify(ask: () => Promise<Orders>, close: (failure: Failure | null) => Promise<void>): Promise<void> {
        try {
            await this.parts.contact.among(ask);
            return await close(null);
        } catch (error) {
            const failure = asFailure(error);
            if (!isFinal(failure) || failure.name === "DuplicateIdentity" || failure.name === "TooLarge") throw failure;
            await close(failure);
            this.parts.contact.hurry();
        }
    }

    private upload(message: (id: number) => ToWorker): Promise<Uploaded> {
        const id = ++this.uploads;
        return new Promise((resolve) => {
            this.waitingFor.set(id, resolve);
            this.parts.worker(message(id));
        });
    }
}
