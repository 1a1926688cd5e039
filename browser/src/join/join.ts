// The consumer's page: a browser that is a full node. This file wires: what is stored, the worker, the agent, the channel, the view.

import { Agent, type Past } from "../node/agent.ts";
import { Channel, REVOKED } from "../node/channel.ts";
import { Client } from "../node/client.ts";
import { Device, hindranceOf } from "../node/device.ts";
import { asFailure } from "../node/errors.ts";
import { BrowserHome, type Identity, type Limits } from "../node/home.ts";
import { Keeper } from "../node/keeper.ts";
import type { FromWorker, ToWorker } from "../node/pipe.ts";
import { single } from "../node/single.ts";
import type { Offer, Statement } from "../node/wire.ts";
import { find, show, write } from "./dom.ts";
import { enrol } from "./enrol.ts";
import { type Language, type Text, Tongue, languageOf } from "./strings.ts";
import { type Shown, render, renderStatement } from "./view.ts";

const TURN_MS = 250;
const OFFER_EVERY_S = 15;
/** Who waits for work wants to know sooner why none comes. */
const OFFER_WAITING_S = 5;
/** Between two turns of a page that runs; a longer gap means that the browser has stopped it. */
const ASLEEP_S = 10;
const TELL_OF_SLEEP_S = 20;
const LEAVE_MS = 8000;
const RELOADED = "gridsched.reloaded";

const now = (): number => performance.now() / 1000;

const home = new BrowserHome();
const keeper = new Keeper(home);
let tongue = new Tongue(languageOf(undefined));
let node: Node | null = null;
let waiting: { text: Text; values: Record<string, string>; action: Text | null } | null = null;

// The worker.

let heard: (message: FromWorker) => void = () => undefined;
let died: (words: string) => void = () => undefined;
let worker: Worker;
let runtime: Promise<string>;

function startWorker(): void {
    const mine = new Worker("/static/join/worker.js", { name: "gridsched" });
    worker = mine;
    let ready = false;
    runtime = new Promise((resolve, reject) => {
        mine.onmessage = (event: MessageEvent<FromWorker>) => {
            if (event.data.kind === "ready") {
                ready = true;
                resolve(event.data.runtime);
            }
            if (mine === worker) heard(event.data);
        };
        mine.onerror = (event) => {
            event.preventDefault();
            const words = event.message || "does not start";
            if (!ready) reject(new Error(words));
            else if (mine === worker) died(words);
        };
    });
    runtime.catch((error: unknown) => broken(error)); // one that never came up would not the next time either
}

/** This browser cannot be a node. */
function broken(error: unknown): void {
    const tell = (): void => wait("broken", "reload", { detail: asFailure(error).message });
    if (node === null) tell();
    else node.stop(tell);
}

// Views.

/** A page that only says one thing, and perhaps offers one button. */
function wait(text: Text, action: Text | null, values: Record<string, string> = {}): void {
    waiting = { text, values, action };
    write(find("wait-text"), tongue.say(text, values));
    find("wait-action").hidden = action === null;
    if (action !== null) write(find("wait-action"), tongue.say(action));
    show("wait");
}

function speak(language: Language): void {
    tongue = new Tongue(language);
    document.documentElement.lang = language;
    document.title = tongue.say("title");
    for (const element of document.querySelectorAll<HTMLElement>("[data-t]")) write(element, tongue.say(element.dataset["t"] as Text));
    for (const code of ["en", "de"]) find(`lang-${code}`).setAttribute("aria-pressed", String(code === language));
    if (waiting !== null) wait(waiting.text, waiting.action, waiting.values);
    node?.say();
}

/** This page does not fit the daemon: load it anew, once by itself. */
async function outdated(): Promise<void> {
    if (sessionStorage.getItem(RELOADED) !== null) return wait("outdated", "reload");
    sessionStorage.setItem(RELOADED, "1");
    await globalThis.caches?.delete("gridsched-pages").catch(() => false);
    location.reload();
}

async function startOver(): Promise<void> {
    await home.erase();
    location.reload();
}

// The node.

/** A page that has joined: its agent, its channel, and what is shown of them. */
class Node {
    private readonly agent: Agent;
    private readonly channel: Channel;
    private readonly client: Client;
    private readonly device: Device;
    private offer: Offer | null = null;
    private statement: Statement | null = null;
    private offerDueS = 0;
    private offerFor = "";
    private sleptS = 0;
    private wokeAtS = -Infinity;
    private turnedAtS = now();
    private heardAtS = now();
    private drawn = false;
    private ended = false;

    constructor(
        private readonly identity: Identity,
        past: Past,
    ) {
        this.client = new Client(location.origin, identity.token);
        this.device = new Device(() => this.turn());
        this.agent = new Agent(
            {
                keeper,
                identity,
                client: this.client,
                now,
                wallMs: () => Date.now(),
                trainer: { post: (message) => worker.postMessage(message), restart: () => this.restart() },
                hindrance: () => hindranceOf(this.device.sample, this.agent.limits),
                changed: () => this.draw(),
                outdated: () => this.stop(() => void outdated()),
            },
            past,
        );
        this.channel = new Channel(location.origin, identity.token, {
            orders: (orders) => this.agent.push(orders),
            closed: (code) => {
                if (code === REVOKED) this.agent.contact.retry();
            },
        });
    }

    start(): void {
        this.listen();
        this.say();
        show("node");
        this.channel.start();
        void runtime.then((found) => this.agent.hear({ kind: "ready", runtime: found }));
        setInterval(() => this.turn(), TURN_MS);
    }

    /** Say everything again, in the language that is spoken now. */
    say(): void {
        const { limits } = this.agent;
        find<HTMLSelectElement>("hours").value = String(limits.hours);
        find<HTMLInputElement>("share").value = String(Math.round(100 * limits.share));
        write(find("share-value"), tongue.percent(limits.share));
        find<HTMLInputElement>("charging").checked = limits.onlyCharging;
        find<HTMLInputElement>("background").checked = limits.inBackground;
        find<HTMLInputElement>("saver").checked = limits.despiteSaver;
        find("saver-row").hidden = !this.device.sample.saveData;
        this.paint();
        renderStatement(this.statement, tongue);
    }

    private listen(): void {
        worker.postMessage({ kind: "begin", url: location.origin, token: this.identity.token } satisfies ToWorker);
        heard = (message) => this.turn(() => this.agent.hear(message));
        died = (words) => this.restart(words);
        find("switch").addEventListener("click", () => void this.flip());
        for (const id of ["hours", "share", "charging", "background", "saver"]) find(id).addEventListener("change", () => this.limit());
        find("share").addEventListener("input", () => write(find("share-value"), tongue.percent(Number(find<HTMLInputElement>("share").value) / 100)));
        find("statement").addEventListener("toggle", () => void this.account());
        find("statement-save").addEventListener("click", () => this.save());
        find("leave-button").addEventListener("click", () => void this.leave());
        addEventListener("online", () => {
            this.agent.contact.retry();
            this.channel.hurry();
        });
        addEventListener("pagehide", () => this.agent.lastWords());
        document.addEventListener("visibilitychange", () => {
            if (document.hidden) this.agent.mirrorSoon();
            this.turn();
        });
    }

    private turn(first: () => void = () => this.agent.tick()): void {
        if (this.ended) return;
        const nowS = now();
        if (nowS - this.turnedAtS > ASLEEP_S) {
            this.sleptS = nowS - this.turnedAtS;
            this.wokeAtS = nowS;
            this.agent.contact.retry();
            this.channel.hurry();
        }
        this.turnedAtS = nowS;
        first();
        const { contact } = this.agent;
        if (contact.connected) this.heardAtS = nowS;
        if (contact.open && contact.connected) sessionStorage.removeItem(RELOADED);
        const fatal = contact.fatal;
        if (fatal !== null) this.stop(() => wait(fatal.name === "DuplicateIdentity" ? "duplicate" : "revoked", fatal.name === "DuplicateIdentity" ? "reload" : "start_over"));
        else this.lookAround(nowS);
    }

    /** What is on offer changes with the grid: ask now and then, and when the daemon's word for this node has changed. */
    private lookAround(nowS: number): void {
        const { contact } = this.agent;
        const word = `${contact.orders?.node_reason} ${contact.order?.unit.job_id}`;
        if (!contact.open || !contact.connected || document.hidden || (nowS < this.offerDueS && word === this.offerFor)) return;
        this.offerDueS = nowS + (contact.order === null ? OFFER_WAITING_S : OFFER_EVERY_S);
        this.offerFor = word;
        void this.client.offer().then(
            (offer) => {
                this.offer = offer;
                this.draw();
            },
            () => undefined, // contact tells of a daemon that is away
        );
        void this.account();
    }

    private async account(): Promise<void> {
        try {
            this.statement = await this.client.statement();
            renderStatement(this.statement, tongue);
        } catch {
            // with the next look
        }
    }

    private async flip(): Promise<void> {
        const on = !this.agent.contact.optedIn;
        if (on && this.device.sample.saveData && !this.agent.limits.despiteSaver) {
            if (!(await this.ask())) return;
            this.agent.limit({ ...this.agent.limits, despiteSaver: true });
        }
        this.agent.choose(on);
        this.say();
    }

    private ask(): Promise<boolean> {
        const dialog = find<HTMLDialogElement>("saver-dialog");
        dialog.returnValue = "no";
        dialog.showModal();
        return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true }));
    }

    private limit(): void {
        const limits: Limits = {
            hours: Number(find<HTMLSelectElement>("hours").value),
            share: Number(find<HTMLInputElement>("share").value) / 100,
            onlyCharging: find<HTMLInputElement>("charging").checked,
            inBackground: find<HTMLInputElement>("background").checked,
            despiteSaver: find<HTMLInputElement>("saver").checked,
        };
        this.agent.limit(limits);
        this.say();
    }

    private save(): void {
        const link = document.createElement("a");
        link.href = URL.createObjectURL(new Blob([JSON.stringify(this.statement, null, 2)], { type: "application/json" }));
        link.download = `gridsched-${this.identity.nodeId}.json`;
        link.click();
        setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    }

    /** Switch off, give the unit back, erase everything. What cannot be given back in time is left to the lease's end. */
    private async leave(): Promise<void> {
        const button = find<HTMLButtonElement>("leave-button");
        button.disabled = true;
        write(button, tongue.say("leaving"));
        this.agent.choose(false);
        const until = now() + LEAVE_MS / 1000;
        while (now() < until && (this.agent.contact.choosing || this.agent.held !== null || this.agent.waiting > 0)) {
            await new Promise((resolve) => setTimeout(resolve, 50));
        }
        this.stop(() => void startOver());
    }

    /** End the worker and bring up another. */
    private restart(words?: string): void {
        worker.terminate();
        startWorker();
        worker.postMessage({ kind: "begin", url: location.origin, token: this.identity.token } satisfies ToWorker);
        if (words !== undefined) this.agent.died(words);
    }

    /** End everything, once, and then do something else. */
    stop(then: () => void): void {
        if (this.ended) return;
        this.ended = true;
        this.channel.stop();
        worker.terminate();
        then();
    }

    private draw(): void {
        if (this.drawn) return;
        this.drawn = true;
        requestAnimationFrame(() => {
            this.drawn = false;
            this.paint();
        });
    }

    private paint(): void {
        const nowS = now();
        const shown: Shown = {
            agent: this.agent,
            identity: this.identity,
            offer: this.offer,
            statement: this.statement,
            sleptS: nowS - this.wokeAtS < TELL_OF_SLEEP_S ? this.sleptS : 0,
            awayS: nowS - this.heardAtS,
            nowS,
        };
        render(shown, tongue);
    }
}

async function remembered(): Promise<Past> {
    const [choice, limits, outbox, effort, registerJ, accepted] = await Promise.all([
        home.get("choice"),
        home.get("limits"),
        home.get("outbox"),
        home.get("effort"),
        home.get("registerJ"),
        home.get("accepted"),
    ]);
    const found = { choice, limits, outbox, effort, registerJ, accepted };
    return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) as Past;
}

async function run(identity: Identity): Promise<void> {
    waiting = null;
    node = new Node(identity, await remembered());
    node.start();
}

async function begin(): Promise<void> {
    startWorker();
    const identity = await home.get("identity");
    if (identity !== undefined) return run(identity);
    show("join");
    enrol({
        tongue: () => tongue,
        runtime,
        keeper,
        outdated: () => void outdated(),
        joined: (joined) => {
            void navigator.storage?.persist?.();
            void run(joined).catch(broken);
        },
    });
}

async function open(): Promise<void> {
    speak(languageOf(undefined));
    const chosen = await home.get("language");
    if (chosen !== undefined) speak(languageOf(chosen));
    for (const code of ["en", "de"] as const) {
        find(`lang-${code}`).addEventListener("click", () => {
            speak(code);
            void keeper.keep("language", code);
        });
    }
    find("wait-action").addEventListener("click", () => void (waiting?.action === "start_over" ? startOver() : location.reload()));
    if (isSecureContext) void navigator.serviceWorker?.register("/join/sw.js", { scope: "/join" }).catch(() => undefined);
    await single(
        () => void begin().catch(broken),
        () => wait("elsewhere", null),
    );
}

void open().catch(broken);
