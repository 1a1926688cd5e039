/** What a page remembers, and what it does where nothing can be stored, checked in Node; prints a line per check that fails. */

import { Unstored, admit } from "../../browser/src/join/admission.ts";
import { Agent } from "../../browser/src/node/agent.ts";
import type { Client } from "../../browser/src/node/client.ts";
import { type Home, type Identity, type Key, LIMITS, type Remembered } from "../../browser/src/node/home.ts";
import { Keeper } from "../../browser/src/node/keeper.ts";
import type { ToWorker } from "../../browser/src/node/pipe.ts";
import type { ConsentChoice, Order, Orders, Sync } from "../../browser/src/node/wire.ts";
import { check, end, equal } from "./checks.ts";

const IDENTITY: Identity = { nodeId: "n", token: "t", zone: "z", powerW: 5, memoryBytes: 1e9, clockSpeed: 1 };
const HOUR_S = 3600;
const UNIT = { unit_id: "u", job_id: "j", kind: "train", start: 0, stop: 200, batch_size: 2, passes: 1, memory_bytes: 0 };

/** Until all that is under way has been carried out: nothing here waits for anything outside. */
async function settled(): Promise<void> {
    for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

/** A daemon, a store and a clock, and the pages that are opened with them one after another. */
class Place {
    online = true;
    /** Whether nothing can be stored, or what cannot. */
    full: boolean | Key = false;
    /** The daemon's answer to a choice comes when this is over. */
    slow: Promise<void> = Promise.resolve();
    order: Order | null = null;
    nowS = 0;
    wallMs = 1_800_000_000_000;
    readonly told: ConsentChoice[] = [];
    readonly devices: string[] = [];
    readonly posted: ToWorker[] = [];
    readonly stored: Partial<Remembered> = {};
    readonly home: Home = {
        get: async () => undefined, // what earlier pages left is handed in
        set: async (key, value) => {
            if (this.full === true || this.full === key) throw new Error("no room");
            Object.assign(this.stored, { [key]: structuredClone(value) });
        },
        erase: async () => undefined,
    };

    /** A page that is opened now; its own clock begins anew. */
    open(keeper = new Keeper(this.home)): Agent {
        this.nowS = 0;
        const agent = new Agent(
            {
                keeper,
                identity: IDENTITY,
                client: this.client as unknown as Client,
                trainer: { post: (message) => this.posted.push(message), restart: () => undefined },
                now: () => this.nowS,
                wallMs: () => this.wallMs,
                hindrance: () => "",
                changed: () => undefined,
                outdated: () => undefined,
            },
            { limits: { ...LIMITS, hours: 1 }, ...this.stored },
        );
        agent.hear({ kind: "ready", runtime: "wasm-1" });
        return agent;
    }

    /** Seconds pass while `agent` runs. */
    async pass(agent: Agent, seconds: number): Promise<void> {
        for (let second = 0; second < seconds; second++) {
            this.nowS += 1;
            this.wallMs += 1000;
            agent.tick();
            await settled();
        }
    }

    private readonly client = {
        hello: async () => this.answer(),
        sync: async (said: Sync) => {
            this.devices.push(said.device);
            return this.answer();
        },
        choose: async (choice: ConsentChoice) => {
            this.told.push(choice);
            await this.slow;
            return this.answer();
        },
    };

    private answer(): Orders {
        if (!this.online) throw new Error("no network");
        const last = this.told.at(-1);
        const consent = { opted_in: last?.opted_in ?? true, left_s: last?.for_s ?? null, max_w: null, min_reward_micro_per_kwh: 0 };
        return {
            node_id: "n", clock_speed: 1, sync_every_s: 1, node_reason: "available", consent, reward_micro_per_kwh: 0,
            reward_micro_per_unit: 0, earned_micro: 0, order: this.order, notice: "",
        } as Orders; // prettier-ignore
    }
}

const lease = (id: string): Order =>
    ({ lease_id: id, generation: 1, desired: "run", reason: "planned", power_w: 5, ttl_s: 60, wait_s: 0, unit: { ...UNIT, unit_id: id }, continuation: null, continuation_step: 0 }) as unknown as Order;

/** Opted in for an hour while the daemon was away, and the page opened again so much later. */
async function opened(afterS: number): Promise<ConsentChoice[]> {
    const place = new Place();
    place.online = false;
    const first = place.open();
    first.choose(true);
    await settled();
    place.told.length = 0;
    place.wallMs += afterS * 1000;
    place.online = true;
    await place.pass(place.open(), 6);
    return place.told;
}

await check("a choice for an hour ends with that hour, however often the page is opened", async () => {
    const [late, ...more] = await opened(20 * HOUR_S);
    equal([late?.opted_in, late?.for_s, more.length], [false, null, 0]);
});

await check("what is left of a choice for an hour is told, and no more", async () => {
    const [told] = await opened(HOUR_S / 2);
    equal([told?.opted_in, Math.round((told?.for_s ?? 0) / 60)], [true, 30]);
});

await check("a wall clock that was set back makes no hour longer", async () => {
    const [told] = await opened(-HOUR_S);
    equal([told?.opted_in, (told?.for_s ?? 0) <= HOUR_S], [true, true]);
});

await check("a choice of an older page, of which nobody knows when it was made, is over", async () => {
    const place = new Place();
    place.stored.choice = { id: "old", optedIn: true, leftS: HOUR_S, minRewardMicroPerKwh: 0, sent: false };
    await place.pass(place.open(), 3);
    equal(place.told.map((choice) => choice.opted_in), [false]);
});

await check("a choice made while the one before is being answered is not taken for told, and holds when the page is opened again", async () => {
    const place = new Place();
    const page = place.open();
    await place.pass(page, 2);
    let answer = (): void => undefined;
    place.slow = new Promise((resolve) => (answer = resolve));
    page.choose(true);
    await settled();
    page.choose(false);
    answer();
    await settled();
    equal([place.told.length, place.stored.choice?.optedIn, place.stored.choice?.sent], [1, false, false]);
    place.told.length = 0;
    const again = place.open();
    equal(again.contact.optedIn, false);
    await place.pass(again, 3);
    equal([place.told.map((choice) => choice.opted_in), place.stored.choice?.sent], [[false], true]);
});

await check("a code is not used where the browser stores nothing", async () => {
    const place = new Place();
    const keeper = new Keeper(place.home);
    let used = 0;
    const join = async (): Promise<Identity> => ((used += 1), IDENTITY);
    place.full = true;
    const told = await admit(keeper, join).then(
        () => "joined",
        (error: unknown) => (error instanceof Unstored ? error.message : String(error)),
    );
    equal([told, used], ["no room", 0]);
    place.full = false;
    equal([await admit(keeper, join), used, place.stored.identity], [IDENTITY, 1, IDENTITY]);
});

await check("who has joined and could not be stored is told so, works on once there is room, and is stored then", async () => {
    const place = new Place();
    const keeper = new Keeper(place.home);
    place.full = "identity";
    equal(await admit(keeper, async () => IDENTITY), IDENTITY);
    const page = place.open(keeper);
    await place.pass(page, 3);
    equal([page.stuck, place.devices.at(-1), place.stored.identity], ["no room", "disk_full", undefined]);
    place.full = false;
    await place.pass(page, 3);
    equal([page.stuck, place.devices.at(-1), place.stored.identity], ["", "free", IDENTITY]);
});

await check("an opt-out that could not be stored is stored with whatever comes next, though the daemon is away", async () => {
    const place = new Place();
    const page = place.open();
    await place.pass(page, 2);
    place.online = false;
    place.full = true;
    page.choose(false);
    await place.pass(page, 2);
    place.full = false;
    page.limit({ ...LIMITS, share: 0.5 });
    await settled();
    equal([page.stuck, place.stored.choice?.optedIn, place.stored.choice?.sent, place.stored.limits?.share], ["", false, false, 0.5]);
});

await check("one write that failed keeps an idle page from nothing once the next one succeeds", async () => {
    const place = new Place();
    const page = place.open();
    await place.pass(page, 3);
    place.full = true;
    await place.pass(page, 3);
    equal([page.stuck, place.devices.at(-1)], ["no room", "disk_full"]);
    place.full = false;
    await place.pass(page, 4);
    equal([page.stuck, place.devices.at(-1)], ["", "free"]);
});

/** A page whose worker has said, in the middle of a unit, that it cannot store what it has done. */
async function stuck(place: Place): Promise<Agent> {
    place.order = lease("one");
    const page = place.open();
    await place.pass(page, 4);
    const progress = { kind: "progress", run: page.held!.run, step: 3, executed: 3, savedStep: 0, workedS: 1, busyS: 1, throttle: 1, loss: 1 } as const;
    page.hear({ ...progress, paused: false, stuck: "" });
    page.hear({ ...progress, paused: true, stuck: "no room" });
    await place.pass(page, 2);
    equal([page.stuck, place.devices.at(-1)], ["no room", "disk_full"]);
    return page;
}

await check("a worker that cannot store keeps its unit, and says itself when there is room: what the page stores is no sign of that", async () => {
    const place = new Place();
    const page = await stuck(place);
    await place.pass(page, 700);
    equal([page.stuck, page.held?.order.lease_id, place.posted.filter((message) => message.kind === "train").length], ["no room", "one", 1]);
});

await check("when the unit that could not be stored is gone, the next one begins", async () => {
    const place = new Place();
    const page = await stuck(place);
    place.order = null;
    await place.pass(page, 3);
    equal([page.stuck, place.devices.at(-1)], ["", "free"]);
    place.order = lease("two");
    place.posted.length = 0;
    await place.pass(page, 3);
    equal([page.held?.phase, place.posted.map((message) => message.kind).includes("train")], ["starting", true]);
});

await check("a unit that was stored in the end leaves nothing stuck", async () => {
    const place = new Place();
    const page = await stuck(place);
    page.hear({ kind: "done", run: page.held!.run, update: null, executed: 200, metrics: {}, digests: [] });
    equal([page.stuck, page.held?.phase], ["", "finished"]);
});

end();
