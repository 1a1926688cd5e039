// What the node's owner sees: the state in one sentence, progress, what was earned, what is on offer.

import type { Agent } from "../node/agent.ts";
import type { Identity } from "../node/home.ts";
import type { Offer, Statement } from "../node/wire.ts";
import { find, write } from "./dom.ts";
import type { Tongue } from "./strings.ts";

/** Everything that is shown, as it stands. */
export interface Shown {
    agent: Agent;
    identity: Identity;
    offer: Offer | null;
    statement: Statement | null;
    /** How long the browser had put this page to sleep, in seconds; 0: not lately. */
    sleptS: number;
    /** How long the daemon has not answered, in seconds. */
    awayS: number;
    nowS: number;
}

const AWAY_S = 3;
const OFFERING = new Set(["working", "starting"]);

/** Put `shown` on the page. */
export function render(shown: Shown, tongue: Tongue): void {
    renderSwitch(shown, tongue);
    renderWeather(shown, tongue);
    renderFigures(shown, tongue);
    renderOffer(shown, tongue);
    const banner = bannerOf(shown, tongue);
    find("banner").hidden = banner === "";
    write(find("banner"), banner);
}

function renderSwitch({ agent, nowS }: Shown, tongue: Tongue): void {
    const on = agent.contact.optedIn;
    const button = find("switch");
    button.setAttribute("aria-checked", String(on));
    write(find("switch-state"), tongue.say(on ? "on" : "off"));
    const held = agent.held;
    const part = held === null || held.steps === 0 ? 0 : held.step / held.steps;
    const working = held?.phase === "running" && held.mayGoOn;
    button.dataset["busy"] = String(working);
    find("arc").setAttribute("stroke-dasharray", `${(100 * part).toFixed(2)} 100`);
    find<HTMLProgressElement>("progress").value = Math.floor(100 * part);
    write(find("state"), stateOf(agent, tongue));
    write(find("detail"), detailOf(agent, nowS, tongue));
}

/** The node's state in one sentence. */
export function stateOf(agent: Agent, tongue: Tongue, offer: Offer | null = lastOffer): string {
    const { held, contact } = agent;
    if (held?.phase === "handing_over") return tongue.say("handing");
    if (held?.phase === "finished" || agent.waiting > 0) return tongue.say("sending");
    if (!contact.optedIn) return tongue.reason("off");
    if (held?.phase === "refused") return tongue.reason("refused");
    if (held?.phase === "running" && held.mayGoOn) return tongue.reason("working");
    if (held?.phase === "starting" && held.mayGoOn) return tongue.reason("starting");
    if (held !== null || contact.order !== null) return tongue.reason(agent.reason);
    return tongue.reason(idleReason(contact.orders?.node_reason ?? "starting", offer));
}

let lastOffer: Offer | null = null;

/** Why a node without a lease has none: the daemon says it is available, the offer says what it waits for. */
function idleReason(word: string, offer: Offer | null): string {
    if (OFFERING.has(word) || word === "doubtful" || word === "absent") return "starting";
    if (word !== "available" || offer === null) return word;
    if (offer.target_w <= 0) return offer.reason === "alarm" || offer.reason === "paused_by_operator" ? offer.reason : "no_surplus";
    return offer.jobs.length === 0 ? "no_work" : "available";
}

function detailOf(agent: Agent, nowS: number, tongue: Tongue): string {
    const held = agent.held;
    const parts: string[] = [];
    if (held !== null && held.phase === "starting" && held.fetching !== null && held.fetching.total > 0) {
        parts.push(tongue.say("fetching", { done: tongue.bytes(held.fetching.received), total: tongue.bytes(held.fetching.total) }));
    } else if (held !== null && held.step > 0) {
        parts.push(tongue.say("step", { step: tongue.number(held.step), steps: tongue.number(held.steps) }));
        const perS = held.workedS > 1 && held.phase === "running" ? held.executed / held.workedS : 0;
        if (perS > 0 && held.mayGoOn) parts.push(tongue.say("left", { time: tongue.time((held.steps - held.step) / perS) }));
    }
    const leftS = agent.contact.consentLeftS(nowS);
    if (leftS !== null && leftS > 0 && agent.contact.optedIn) parts.push(tongue.say("consent_left", { time: tongue.time(leftS) }));
    return parts.join(" · ");
}

function renderWeather({ agent, offer }: Shown, tongue: Tongue): void {
    lastOffer = offer;
    const running = agent.held !== null && OFFERING.has(agent.contact.orders?.node_reason ?? "");
    const weather =
        offer === null
            ? "unknown"
            : offer.reason === "alarm"
              ? "alarm"
              : offer.reason === "paused_by_operator"
                ? "paused"
                : offer.target_w > 0 || running
                  ? "surplus"
                  : "none";
    find("weather").dataset["weather"] = weather;
    write(find("weather-text"), tongue.say(`w_${weather}`));
}

function renderFigures({ agent, identity }: Shown, tongue: Tongue): void {
    write(find("earned"), tongue.money(agent.contact.orders?.earned_micro ?? 0));
    write(find("energy"), tongue.energy(agent.energyJ));
    write(find("units"), tongue.number(agent.accepted));
    write(find("draw"), `${tongue.number(agent.powerW, agent.powerW > 0 && agent.powerW < 10 ? 1 : 0)} W`);
    write(find("whoami"), tongue.say("whoami", { node: identity.nodeId, zone: identity.zone }));
}

function renderOffer({ agent, offer, identity }: Shown, tongue: Tongue): void {
    const kwh = offer?.reward_micro_per_kwh ?? agent.contact.orders?.reward_micro_per_kwh ?? 0;
    const unit = offer?.reward_micro_per_unit ?? agent.contact.orders?.reward_micro_per_unit ?? 0;
    write(find("pays"), tongue.say("pays_value", { kwh: tongue.money(kwh), unit: tongue.money(unit) }));
    write(find("zone"), identity.zone);
    const mine = agent.contact.order?.unit.job_id;
    const job = offer?.jobs.find((one) => one.job_id === mine) ?? offer?.jobs[0];
    if (job === undefined) return write(find("trains"), offer === null ? "…" : tongue.say("trains_none"));
    const told = [tongue.say("trains_value", { name: job.name, epoch: tongue.number(Math.min(job.epoch + 1, job.epochs)), epochs: tongue.number(job.epochs) })];
    if (job.accuracy !== null) told.push(tongue.say("trains_accuracy", { percent: tongue.percent(job.accuracy) }));
    if (job.dataset) told.push(tongue.say("trains_data", { dataset: job.attribution ? `${job.dataset} (${job.attribution})` : job.dataset }));
    write(find("trains"), told.join("; "));
}

function bannerOf({ agent, sleptS, awayS }: Shown, tongue: Tongue): string {
    if (agent.stuck) return tongue.say("storage", { detail: agent.stuck });
    if (awayS > AWAY_S) return tongue.say("offline");
    if (agent.contact.orders?.notice) return agent.contact.orders.notice;
    if (sleptS > 0) return tongue.say("stopped", { time: tongue.time(sleptS) });
    if (agent.held !== null && agent.held.throttle < 1) return tongue.say("throttled");
    return agent.held?.phase === "refused" ? agent.held.reason : "";
}

/** The statement's sum and its entries, the newest first. */
export function renderStatement(statement: Statement | null, tongue: Tongue): void {
    const rows = find("statement-rows");
    if (statement === null) return write(find("statement-sum"), "…");
    const sum = { balance: tongue.money(statement.balance_micro), pending: tongue.money(statement.pending_micro), energy: tongue.energy(statement.energy_j) };
    write(find("statement-sum"), tongue.say("statement_sum", sum));
    const date = new Intl.DateTimeFormat(tongue.language, { dateStyle: "short", timeStyle: "short" });
    rows.replaceChildren(
        ...statement.lines
            .slice(-200)
            .reverse()
            .map((line) => row([date.format(new Date(line.at)), tongue.kind(line.kind), tongue.money(line.amount_micro)])),
    );
    if (statement.lines.length === 0) rows.replaceChildren(row([tongue.say("statement_none"), "", ""]));
}

function row(cells: string[]): HTMLTableRowElement {
    const made = document.createElement("tr");
    cells.forEach((text, index) => {
        const cell = made.insertCell();
        cell.textContent = text;
        if (index === 2) cell.className = "number";
    });
    return made;
}
