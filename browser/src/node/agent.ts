// The agent: keeps what runs in this page in step with what its owner, its device and the daemon say (gridsched/node/agent.py).
//
// Everything is decided on the page's own thread. `tick` is one turn: look, decide (decide.ts), carry out one move, speak when it is
// time. The worker's heartbeat turns it too, because a page in the background has no timers worth the name. Stopping the trainer
// never waits for the network, and nothing is lost while the daemon is away.

import type { Client } from "./client.ts";
import { Contact } from "./contact.ts";
import { type Hindrance, type Local, nextAction } from "./decide.ts";
import { EnergyRegister } from "./energy.ts";
import { backoffS } from "./backoff.ts";
import { Held } from "./held.ts";
import type { Choice, Finished, Identity, Limits, Remembered } from "./home.ts";
import { LIMITS } from "./home.ts";
import type { Keeper } from "./keeper.ts";
import type { FromWorker, Progress, ToWorker } from "./pipe.ts";
import { Returns } from "./returns.ts";
import type { DeviceState, HandOver, MeterReport, Order, Orders, Sync } from "./wire.ts";

const DEATHS = 5;
const OBSTINATE_S = 30;
const SHELVE_AFTER_S = 600;
const SAVE_EVERY_S = 5;
const MIRROR_EVERY_S = 30;
const REMEMBERED_LEASES = 16;
const SOON_S = 0.25;

/** The worker, as the agent sees it. `restart` ends it and brings up another. */
export interface Trainer {
    post(message: ToWorker): void;
    restart(): void;
}

export interface AgentParts {
    keeper: Keeper;
    identity: Identity;
    client: Client;
    trainer: Trainer;
    now(): number;
    wallMs(): number;
    hindrance(): Hindrance;
    changed(): void;
    /** This page does not fit the daemon any more. */
    outdated(): void;
}

/** What earlier pages left behind. */
export type Past = Partial<Pick<Remembered, "choice" | "limits" | "outbox" | "effort" | "registerJ" | "accepted">>;

const DEVICE: Record<Hindrance, DeviceState> = {
    "": "free",
    device_busy: "user_active",
    device_hot: "hot",
    on_battery: "on_battery",
    disk_full: "disk_full",
    hidden: "user_active",
    data_saver: "user_active",
};

export class Agent {
    readonly contact: Contact;
    held: Held | null = null;
    reason = "starting";
    limits: Limits;
    accepted: number;

    private readonly returns: Returns;
    private readonly register: EnergyRegister;
    private over: { leaseId: string; generation: number }[] = [];
    private parting: Held | null = null;
    private runs = 0;
    /** Why the browser does not store the worker's files, where it does not. */
    private workerStuck = "";
    private lastDevice: DeviceState = "free";
    private effort: { leaseId: string; stepsExecuted: number };
    private countedBusyS = 0;
    private mirrorDueS = 0;
    private storedJ: number;
    private storedAtS: number;

    constructor(
        private readonly parts: AgentParts,
        past: Past,
    ) {
        const nowS = parts.now();
        this.limits = past.limits ?? LIMITS;
        this.accepted = past.accepted ?? 0;
        this.effort = past.effort ?? { leaseId: "", stepsExecuted: 0 };
        this.register = new EnergyRegister(parts.identity.powerW, past.registerJ ?? 0, nowS);
        this.storedJ = past.registerJ ?? 0;
        this.storedAtS = nowS;
        this.contact = new Contact({
            client: parts.client,
            clockSpeed: parts.identity.clockSpeed,
            memoryBytes: parts.identity.memoryBytes,
            now: parts.now,
            wallMs: parts.wallMs,
            compose: () => this.compose(),
            chosen: (choice) => void this.parts.keeper.keep("choice", { ...choice, sent: true }),
            changed: parts.changed,
        });
        this.returns = new Returns(
            {
                client: parts.client,
                contact: this.contact,
                now: parts.now,
                worker: (message) => parts.trainer.post(message),
                meter: () => this.meter(),
                keep: (outbox) => this.parts.keeper.keep("outbox", [...outbox]),
                over: (leaseId, generation, refused) => this.onOver(leaseId, generation, refused),
                accepted: () => void this.parts.keeper.keep("accepted", ++this.accepted),
            },
            [...(past.outbox ?? [])],
        );
        if (past.choice !== undefined && !past.choice.sent) this.contact.choose(past.choice);
    }

    // The owner's hand.

    /** Opt in or out; with `hours` above 0 in the limits, for so long. */
    choose(optedIn: boolean): void {
        const id = crypto.getRandomValues(new Uint32Array(2)).join("-");
        const leftS = optedIn && this.limits.hours > 0 ? this.limits.hours * 3600 : null;
        const choice: Choice = { id, optedIn, leftS, madeAtMs: this.parts.wallMs(), minRewardMicroPerKwh: 0, sent: false };
        this.contact.choose(choice);
        void this.parts.keeper.keep("choice", choice);
        this.tick();
    }

    /** New limits, from now on. */
    limit(limits: Limits): void {
        const again = limits.hours !== this.limits.hours && this.contact.optedIn;
        this.limits = limits;
        void this.parts.keeper.keep("limits", limits);
        const held = this.held;
        if (held !== null && held.mayGoOn) this.parts.trainer.post({ kind: "gate", open: true, share: this.share(held.order) });
        if (again) this.choose(true);
        this.tick();
    }

    /** Orders from the channel. */
    push(orders: Orders): void {
        this.contact.hear(orders, this.parts.now());
        this.tick();
    }

    // The loop.

    /** One turn. */
    tick(): void {
        const nowS = this.parts.now();
        this.count(nowS);
        const device = DEVICE[this.hindrance()];
        if (device !== this.lastDevice) this.contact.hurry();
        this.lastDevice = device;
        const order = this.order();
        const action = nextAction(order, this.local(order, nowS));
        this.reason = action.reason;
        if (action.move !== "nothing") this.move(action.move, action.reason, order, nowS);
        this.watch(nowS);
        this.contact.turn(nowS);
        this.returns.turn(nowS, this.held);
        this.mirror(nowS);
        if (this.contact.outdated) this.parts.outdated();
        this.parts.changed();
    }

    /** The order, unless its lease is known to be over. */
    private order(): Order | null {
        const order = this.contact.order;
        if (order === null || this.over.some((gone) => gone.leaseId === order.lease_id && gone.generation === order.generation)) return null;
        if (this.held === null && this.returns.holds(order.lease_id)) {
            // Finished by a page before this one; the lease is kept alive until the daemon has answered.
            this.held = new Held(order, 0, this.parts.now());
            this.held.turn("finished", this.parts.now());
            this.held.executedBefore = this.held.step = this.held.steps;
        }
        if (this.held?.isOf(order.lease_id, order.generation)) this.held.order = order;
        return order;
    }

    private hindrance(): Hindrance {
        return this.stuck ? "disk_full" : this.parts.hindrance();
    }

    private local(order: Order | null, nowS: number): Local {
        const held = this.held;
        const named = held?.order ?? order;
        return {
            phase: held?.phase ?? (order !== null && this.returns.holds(order.lease_id) ? "finished" : "none"),
            leaseId: named?.lease_id ?? "",
            generation: named?.generation ?? 0,
            unitId: named?.unit.unit_id ?? "",
            mayGoOn: held?.mayGoOn ?? false,
            saved: held?.saved ?? false,
            optedIn: this.contact.optedIn,
            consentEnded: this.contact.consentEnded(nowS),
            hindrance: this.hindrance(),
            silent: this.contact.silent(nowS),
            waited: this.contact.waited(nowS) && nowS >= (held?.notBeforeS ?? 0),
            leaving: false,
            pausedS: held === null ? 0 : (nowS - held.sinceS) * this.contact.speed,
            shelveAfterS: SHELVE_AFTER_S,
        };
    }

    // Moving.

    private move(move: string, reason: string, order: Order | null, nowS: number): void {
        const held = this.held;
        if (move === "drop") this.drop(true);
        else if (move === "start") this.start(order!, nowS);
        else if (move === "hand_over") this.handOver(order!, reason, nowS);
        else if (move === "adopt") held!.adopt(order!);
        else if (move === "shelve") {
            this.parts.trainer.post({ kind: "release" });
            held!.turn("shelved", nowS);
        } else {
            held!.mayGoOn = move === "go_on";
            held!.saved = held!.saved && !held!.mayGoOn;
            held!.reason = reason;
            this.parts.trainer.post({ kind: "gate", open: held!.mayGoOn, share: order === null ? 1 : this.share(order) });
        }
        this.contact.hurry(move === "start" ? SOON_S : 0);
    }

    private start(order: Order, nowS: number): void {
        if (this.held === null) {
            const before = this.effort.leaseId === order.lease_id ? this.effort.stepsExecuted : 0;
            this.held = new Held(order, 0, nowS, before);
            this.parts.trainer.post({ kind: "prune", keep: [order.unit.unit_id] });
            this.mirrorDueS = nowS + MIRROR_EVERY_S;
        }
        const held = this.held;
        if (order.unit.memory_bytes > this.parts.identity.memoryBytes) return this.refuse(held, "memory: the unit needs more than this page offers", nowS);
        held.newRun(++this.runs, nowS);
        this.countedBusyS = 0;
        this.parts.trainer.post({
            kind: "train",
            run: held.run,
            unit: order.unit,
            continuation: order.continuation,
            continuationStep: order.continuation_step,
            saveEveryS: SAVE_EVERY_S,
            share: this.share(order),
        });
    }

    /** The part of the time that keeps the mean draw within the leased power, and to how hard the owner lets it work. */
    private share(order: Order): number {
        return Math.min(Math.max(order.power_w / this.parts.identity.powerW, 0.01), 1) * this.limits.share;
    }

    private handOver(order: Order, reason: string, nowS: number): void {
        const held = (this.held ??= new Held(order, 0, nowS));
        if (held.run === 0 || held.phase === "shelved") held.saved = true;
        else if (held.phase === "starting") {
            this.parts.trainer.post({ kind: "drop", run: held.run });
            held.saved = true;
        } else if (!(held.phase === "paused" && held.saved)) {
            held.saved = false;
            this.parts.trainer.post({ kind: "gate", open: false, share: 1 });
        }
        held.mayGoOn = false;
        held.turn("handing_over", nowS, reason);
    }

    /** `lost`: the daemon has taken the lease back, and may not know of all that was done under it. */
    private drop(lost: boolean): void {
        const held = this.held;
        this.held = null;
        this.workerStuck = ""; // it says no more of a unit that is gone
        this.parting = lost ? held : null;
        if (held !== null && held.run > 0) this.parts.trainer.post({ kind: "drop", run: held.run });
    }

    private onOver(leaseId: string, generation: number, refused: boolean): void {
        this.over = [...this.over.slice(-REMEMBERED_LEASES), { leaseId, generation }];
        if (this.held?.isOf(leaseId, generation)) this.drop(refused);
        this.parts.changed();
    }

    private refuse(held: Held, why: string, nowS: number): void {
        held.mayGoOn = false;
        held.turn("refused", nowS, why);
        this.contact.hurry();
    }

    /** A trainer that does not stop is ended; what it had stored goes back. */
    private watch(nowS: number): void {
        const held = this.held;
        if (held?.phase === "handing_over" && !held.saved && nowS - held.sinceS >= OBSTINATE_S) {
            this.parts.trainer.restart();
            this.died("does not stop");
        }
    }

    // The worker's voice.

    hear(said: FromWorker): void {
        const held = this.held;
        if (said.kind === "ready") this.contact.trainsWith(said.runtime);
        else if (said.kind === "sent" || said.kind === "unsent") this.returns.hear(said);
        else if (said.kind !== "beat" && held !== null && said.run === held.run) this.hearOf(held, said);
        this.tick();
    }

    private hearOf(held: Held, said: Exclude<FromWorker, { kind: "ready" | "beat" | "sent" | "unsent" }>): void {
        const nowS = this.parts.now();
        if (said.kind === "fetching") held.fetching = { received: said.received, total: said.total };
        else if (said.kind === "progress") this.onProgress(held, said, nowS);
        else if (said.kind === "failed") {
            this.refuse(held, said.detail, nowS);
            if (said.stale) this.parts.outdated();
        } else {
            held.step = held.steps;
            held.executed = said.executed;
            this.workerStuck = "";
            held.turn("finished", nowS);
            const { lease_id: leaseId, generation, unit } = held.order;
            const { update, metrics, digests } = said;
            const finished: Finished = { leaseId, generation, unitId: unit.unit_id, update, stepsExecuted: held.stepsExecuted, metrics, digests };
            void this.returns.add(finished).then(() => this.tick());
        }
    }

    private onProgress(held: Held, said: Progress, nowS: number): void {
        const { phase, saved } = held;
        held.progress(said, nowS);
        this.workerStuck = said.stuck;
        this.count(nowS);
        if (held.phase !== phase || held.saved !== saved) this.contact.hurry(held.phase === "running" ? SOON_S : 0);
        if (this.effort.leaseId !== held.order.lease_id || nowS - this.storedAtS > 1) {
            this.storedAtS = nowS;
            this.effort = { leaseId: held.order.lease_id, stepsExecuted: held.stepsExecuted };
            void this.parts.keeper.keep("effort", this.effort);
        }
    }

    /** The worker has died: begin again from what is stored, later each time, and give up in the end. */
    died(words: string): void {
        const held = this.held;
        const nowS = this.parts.now();
        this.returns.lost();
        this.workerStuck = "";
        if (held === null || held.phase === "finished" || held.phase === "refused") return;
        if (held.phase === "handing_over") {
            held.saved = true;
            return;
        }
        held.deaths += 1;
        held.mayGoOn = false;
        held.notBeforeS = nowS + (held.deaths > 1 ? backoffS(held.deaths - 2) : 0);
        held.turn(held.deaths >= DEATHS ? "refused" : "shelved", nowS, `the training worker ${words}`);
        this.contact.hurry();
    }

    // Telling.

    private async compose(): Promise<Sync> {
        const held = this.parting ?? this.held;
        this.parting = null;
        const lease = held?.report(this.contact.speed) ?? null;
        return { instance: this.contact.instance, device: this.lastDevice, lease, meter: await this.meter() };
    }

    /** What was drawn since the last count; the worker tells how many seconds of it were spent on steps. */
    private count(nowS: number): void {
        const busyS = this.held === null ? 0 : this.held.busyS - this.countedBusyS;
        this.countedBusyS = this.held?.busyS ?? 0;
        this.register.count(nowS, busyS, this.held !== null);
    }

    /** The register is stored before it is told, so that after a reload it never runs backwards. */
    private async meter(): Promise<MeterReport | null> {
        this.count(this.parts.now());
        const { energyJ, powerW, atS } = this.register;
        await this.parts.keeper.keep("registerJ", energyJ);
        this.storedJ = energyJ;
        return { register_j: energyJ, age_s: (this.parts.now() - atS) * this.contact.speed, power_w: powerW, method: "estimated" };
    }

    /** Why the browser stores nothing, where it does not. */
    get stuck(): string {
        return this.workerStuck || this.parts.keeper.stuck;
    }

    get energyJ(): number {
        return this.register.energyJ;
    }

    get powerW(): number {
        return this.register.powerW;
    }

    get waiting(): number {
        return this.returns.waiting;
    }

    /** The page goes into the background, where many a browser ends it without a word. */
    mirrorSoon(): void {
        this.mirrorDueS = 0;
    }

    /** Now and then the daemon gets the newest middle, so that little is lost when this page is closed. */
    private mirror(nowS: number): void {
        const held = this.held;
        if (held === null || nowS < this.mirrorDueS || held.phase !== "running" || !this.contact.connected) return;
        if (held.savedStep <= Math.max(held.mirrored?.step ?? 0, held.order.continuation_step)) return;
        this.mirrorDueS = nowS + MIRROR_EVERY_S;
        void this.returns.mirror(held);
    }

    /** The page is being closed: the unit goes back with the newest middle the daemon has, where it has one of this lease. */
    lastWords(): void {
        const held = this.held;
        if (held === null || held.mirrored === null || held.phase === "finished" || !this.contact.open) return;
        const message: HandOver = {
            instance: this.contact.instance,
            lease_id: held.order.lease_id,
            generation: held.order.generation,
            continuation: held.mirrored.digest,
            step: held.mirrored.step,
            steps_executed: Math.max(held.stepsExecuted, 0),
            reason: "node_left",
            meter: { register_j: this.storedJ, age_s: 0, power_w: 0, method: "estimated" },
        };
        this.parts.client.lastWords(message);
    }
}
