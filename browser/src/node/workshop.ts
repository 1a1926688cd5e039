// The worker's inside: runs units one after another, and stops when told at the next step. It knows no page and no global name, so
// that tests run it where they like. The loop of `train` reads as gridsched/node/worker.py does.

import { Client } from "./client.ts";
import type { Engine, Run } from "./engine.ts";
import { Failure, asFailure, isOtherRelease } from "./errors.ts";
import type { Bytes, Files } from "./files.ts";
import { Middles } from "./middles.ts";
import { Pace } from "./pace.ts";
import type { FromWorker, Progress, SendMiddle, SendUpdate, ToWorker, Train } from "./pipe.ts";
import { Dropped, Supply } from "./supply.ts";

const OUTBOX = "outbox";
const TELL_EVERY_S = 0.1;
const RETRY_S = 1;
/** Work between two looks at what has come in: a pause takes effect within this, or within a step where steps are longer. */
const LISTEN_EVERY_S = 0.008;
/** Saving may take this part of the time. */
const MOST_OF_THE_TIME = 0.05;
/** What a file is answered with that can never be had here. */
const NEVER: ReadonlySet<string> = new Set(["BlobCorrupt", "Forbidden", "NotFound", "TooLarge"]);

export interface Surroundings {
    now(): number;
    tell(message: FromWorker): void;
    /** Let what has come in be heard, without waiting for anything else. */
    breathe(): Promise<void>;
}

export class Workshop {
    private client = new Client("");
    private readonly middles: Middles;
    private readonly pace = new Pace();
    private wanted: Train | null = null;
    private aborter = new AbortController();
    private open = false;
    private dropped = 0;
    private working = false;
    private wake: () => void = () => undefined;
    private shelve = false;

    constructor(
        private readonly engine: Engine,
        private readonly files: Files,
        private readonly around: Surroundings,
    ) {
        this.middles = new Middles(files, (data) => engine.sha256(data), engine.runtime);
    }

    hear(message: ToWorker): void {
        if (message.kind === "begin") this.client = new Client(message.url, message.token);
        else if (message.kind === "train") this.begin(message);
        else if (message.kind === "gate") {
            this.open = message.open;
            this.pace.share = message.share;
        } else if (message.kind === "drop") this.drop(message.run);
        else if (message.kind === "release") this.release();
        else if (message.kind === "send_update") void this.sendUpdate(message);
        else if (message.kind === "send_middle") void this.sendMiddle(message);
        else if (message.kind === "forget") void this.forget(message.unitId, message.update);
        else void this.middles.prune(message.keep);
        this.wake();
    }

    // Training.

    private begin(train: Train): void {
        this.aborter.abort();
        this.aborter = new AbortController();
        this.wanted = train;
        this.open = true;
        this.shelve = false;
        this.pace.share = train.share;
        if (!this.working) void this.work();
    }

    private async work(): Promise<void> {
        this.working = true;
        while (this.wanted !== null) {
            const train = this.wanted;
            this.wanted = null;
            try {
                await this.train(train);
            } catch (error) {
                this.failed(train, error);
            }
        }
        this.working = false;
    }

    private failed(train: Train, error: unknown): void {
        if (error instanceof Dropped || this.ended(train.run)) return;
        const detail = asFailure(error);
        this.around.tell({ kind: "failed", run: train.run, detail: `${detail.name}: ${detail.message}`, stale: isOtherRelease(detail) });
    }

    private async train(train: Train): Promise<void> {
        const unit = await this.prepare(train);
        const telling = new Telling(train.run, unit, this.pace, this.around);
        const saver = new Saver(train, unit, this.middles, () => this.around.now());
        saver.step = unit.position;
        this.pace.reset();
        telling.tell(saver, !this.open);
        while (unit.position < unit.steps) {
            if (this.ended(train.run)) throw new Dropped();
            if (!this.open) {
                await this.rest(train.run, telling, saver);
                continue;
            }
            const tookS = telling.step();
            if (unit.position < unit.steps) saver.offer();
            telling.tellSometimes(saver);
            await this.pauseAfter(tookS, telling);
        }
        await saver.settle();
        await this.finish(train, unit, telling, saver);
    }

    /** Save, then wait for the gate. */
    private async rest(run: number, telling: Telling, saver: Saver): Promise<void> {
        await saver.now();
        telling.tell(saver, true);
        while (!this.open && !this.ended(run)) {
            if (this.shelve && !saver.stuck) {
                this.shelve = false;
                this.dropped = Math.max(this.dropped, run); // its middle is stored: it begins again from there
                await this.engine.release();
                throw new Dropped();
            }
            await this.news(saver.stuck ? RETRY_S : Infinity);
            if (saver.stuck) {
                await saver.now();
                telling.tell(saver, true);
            }
        }
    }

    private async pauseAfter(tookS: number, telling: Telling): Promise<void> {
        const restS = this.pace.after(tookS);
        telling.unheardS += tookS;
        if (restS > 0) {
            const before = this.around.now();
            const open = this.open;
            const until = before + restS;
            while (this.around.now() < until && this.open === open) await this.news(until - this.around.now());
            telling.workedS += this.around.now() - before;
            telling.unheardS = 0;
        } else if (telling.unheardS >= LISTEN_EVERY_S) {
            await this.around.breathe();
            telling.unheardS = 0;
        }
    }

    /** Something was said, or so many seconds have passed. */
    private news(seconds: number): Promise<void> {
        return new Promise((resolve) => {
            const timer = seconds < Infinity ? setTimeout(resolve, seconds * 1000) : undefined;
            this.wake = () => {
                clearTimeout(timer);
                resolve();
            };
        });
    }

    private async prepare(train: Train): Promise<Run> {
        const signal = this.aborter.signal;
        const supply = new Supply(this.client, this.engine, signal, (received, total) => {
            this.around.tell({ kind: "fetching", run: train.run, received, total });
        });
        const mine = await this.middles.newest(train.unit.unit_id);
        const middles = mine === null ? [] : [mine.data];
        if (train.continuation !== null && (mine === null || mine.step < train.continuationStep)) middles.unshift(...(await theirs(supply, train.continuation)));
        const run = await this.engine.prepare(train.unit, supply, middles);
        if (this.ended(train.run)) throw new Dropped();
        return run;
    }

    private async finish(train: Train, unit: Run, telling: Telling, saver: Saver): Promise<void> {
        const found = unit.finish();
        const update = found.update === null ? null : this.engine.sha256(found.update);
        while (update !== null) {
            try {
                await this.files.write(OUTBOX, update, found.update!);
                break;
            } catch (error) {
                saver.stuck = asFailure(error).message; // it cost too much to be thrown away: wait for room
                telling.tell(saver, true);
                await this.news(RETRY_S);
                if (this.ended(train.run)) throw new Dropped();
            }
        }
        const { metrics, digests } = found;
        this.around.tell({ kind: "done", run: train.run, update, executed: telling.executed, metrics, digests });
    }

    private drop(run: number): void {
        this.dropped = Math.max(this.dropped, run);
        this.aborter.abort();
    }

    private ended(run: number): boolean {
        return run <= this.dropped || this.wanted !== null;
    }

    private release(): void {
        if (this.working) this.shelve = true;
        else void this.engine.release();
    }

    // Moving files.

    private async sendUpdate(message: SendUpdate): Promise<void> {
        await this.send(message.id, async () => {
            const data = await this.files.read(OUTBOX, message.digest);
            if (data === null || this.engine.sha256(data) !== message.digest) {
                throw new Failure("BlobCorrupt", `update ${message.digest.slice(0, 12)} is gone; the unit is left to another node`);
            }
            await this.client.upload(message.digest, data);
            return { digest: message.digest, step: 0 };
        });
    }

    private async sendMiddle(message: SendMiddle): Promise<void> {
        await this.send(message.id, async () => {
            const mine = await this.middles.newest(message.unitId);
            if (mine === null || mine.step <= message.beyondStep) return { digest: null, step: 0 };
            await this.client.upload(mine.digest, mine.data);
            return { digest: mine.digest, step: mine.step };
        });
    }

    private async send(id: number, upload: () => Promise<{ digest: string | null; step: number }>): Promise<void> {
        try {
            this.around.tell({ kind: "sent", id, ...(await upload()) });
        } catch (error) {
            const failure = asFailure(error);
            this.around.tell({ kind: "unsent", id, name: failure.name, detail: failure.message });
        }
    }

    private async forget(unitId: string | undefined, update: string | undefined): Promise<void> {
        if (unitId !== undefined) await this.middles.forget(unitId);
        if (update !== undefined) await this.files.remove(OUTBOX, update);
    }
}

/** Where this run began, how long it has worked, and what the page was told of it. */
class Telling {
    workedS = 0;
    busyS = 0;
    unheardS = 0;
    private readonly first: number;
    private toldAtS: number;

    constructor(
        private readonly run: number,
        private readonly unit: Run,
        private readonly pace: Pace,
        private readonly around: Surroundings,
    ) {
        this.first = unit.position;
        this.toldAtS = around.now();
    }

    get executed(): number {
        return this.unit.position - this.first;
    }

    /** One step; the seconds it took. */
    step(): number {
        const before = this.around.now();
        this.unit.step();
        const tookS = this.around.now() - before;
        this.workedS += tookS;
        this.busyS += tookS;
        return tookS;
    }

    tellSometimes(saver: Saver): void {
        if (this.around.now() - this.toldAtS >= TELL_EVERY_S) this.tell(saver, false);
    }

    tell(saver: Saver, paused: boolean): void {
        this.toldAtS = this.around.now();
        const message: Progress = {
            kind: "progress",
            run: this.run,
            paused,
            step: this.unit.position,
            executed: this.executed,
            savedStep: saver.step,
            workedS: this.workedS,
            busyS: this.busyS,
            throttle: this.pace.throttle,
            loss: this.unit.loss,
            stuck: saver.stuck,
        };
        this.around.tell(message);
    }
}

/** Stores a run's middle now and then, beside the training, and at once where the run rests. */
class Saver {
    step = 0;
    stuck = "";
    private dueS: number;
    private writing: Promise<void> | null = null;

    constructor(
        private readonly train: Train,
        private readonly unit: Run,
        private readonly middles: Middles,
        private readonly clock: () => number,
    ) {
        this.dueS = clock() + train.saveEveryS;
    }

    /** Where it is time and nothing is being written, begin to. */
    offer(): void {
        const beganS = this.clock();
        if (beganS < this.dueS || this.writing !== null) return;
        const step = this.unit.position;
        const data = this.unit.save();
        this.dueS = beganS + Math.max(this.train.saveEveryS, (this.clock() - beganS) / MOST_OF_THE_TIME);
        this.writing = this.write(step, data).finally(() => (this.writing = null));
    }

    /** Stored when this is over; `stuck` says if that failed. */
    async now(): Promise<void> {
        await this.settle();
        if (this.step !== this.unit.position || this.stuck) await this.write(this.unit.position, this.unit.save());
        this.dueS = this.clock() + this.train.saveEveryS;
    }

    async settle(): Promise<void> {
        if (this.writing !== null) await this.writing;
    }

    private async write(step: number, data: ReturnType<Run["save"]>): Promise<void> {
        try {
            await this.middles.save(this.train.unit.unit_id, step, data);
            this.step = step;
            this.stuck = "";
        } catch (error) {
            this.stuck = asFailure(error).message;
        }
    }
}

/** The daemon's continuation, or none where it can never be had: steps can be run again. */
async function theirs(supply: Supply, digest: string): Promise<Bytes[]> {
    try {
        return [await supply.blob(digest)];
    } catch (error) {
        if (NEVER.has(asFailure(error).name)) return [];
        throw error;
    }
}
