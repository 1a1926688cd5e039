// The operator's console: log in, then one of seven views, with the live line and the switch for everything above all of them.

import "uplot/dist/uPlot.min.css";
import "./console.css";
import { choose, preferred, type Language } from "../shared/i18n.ts";
import { Api, forgetToken, keepToken, keptToken, Refused } from "./api.ts";
import { Desk, type View } from "./desk.ts";
import { fill, h, write } from "./dom.ts";
import { invitesView } from "./invites.ts";
import { jobsView } from "./jobs.ts";
import { ledgerView } from "./ledger.ts";
import { Live, type Line } from "./live.ts";
import { logView } from "./log.ts";
import type { House, Me } from "./model.ts";
import { nodesView } from "./nodes.ts";
import { Switch } from "./pause.ts";
import { policyView } from "./policy.ts";
import { Words, type Text } from "./strings.ts";
import { zonesView } from "./zones.ts";

const VIEWS: Readonly<Record<string, { text: Text; make: (desk: Desk) => View }>> = {
    zones: { text: "v_zones", make: zonesView },
    nodes: { text: "v_nodes", make: nodesView },
    jobs: { text: "v_jobs", make: jobsView },
    ledger: { text: "v_ledger", make: ledgerView },
    policy: { text: "v_policy", make: policyView },
    invites: { text: "v_invites", make: invitesView },
    log: { text: "v_log", make: logView },
};

const page = document.body;
let words = new Words(preferred());
let leave = (): void => undefined;
let mayLeave = (): Promise<boolean> => Promise.resolve(true);

function begin(): void {
    leave();
    document.documentElement.lang = words.language;
    document.title = words.say("title");
    const token = keptToken();
    if (token === null) login("");
    else void enter(token);
}

/** Buttons for the languages; `again` shows the page anew in the one that was chosen. */
function languages(): HTMLElement {
    const button = (language: Language, name: string): HTMLElement =>
        h("button", { class: "plain", attrs: { type: "button", lang: language, "aria-pressed": String(words.language === language) }, on: { click: () => void speak(language) } }, name);
    return h("div", { class: "languages", attrs: { role: "group", "aria-label": words.say("language") } }, button("en", "English"), button("de", "Deutsch"));
}

async function speak(language: Language): Promise<void> {
    if (!(await mayLeave())) return;
    choose(language);
    words = new Words(language);
    begin();
}

// -- logging in

function login(problem: string): void {
    leave();
    leave = () => undefined;
    const token = h("input", { attrs: { id: "token", type: "password", autocomplete: "current-password", required: true, spellcheck: "false" } });
    const longer = h("input", { attrs: { id: "remember", type: "checkbox" } });
    const trouble = h("p", { class: "stop", attrs: { role: "alert" } }, problem);
    const form = h(
        "form",
        { class: "login card", on: { submit: (event) => { event.preventDefault(); void enter(token.value.trim(), longer.checked); } } },
        brand("h1"),
        h("label", { attrs: { for: "token" } }, words.say("token")),
        token,
        h("p", { class: "quiet" }, words.say("token_hint")),
        h("label", { class: "check" }, longer, h("span", {}, words.say("remember"), h("small", { class: "quiet" }, words.say("remember_hint")))),
        trouble,
        h("button", { class: "primary" }, words.say("log_in")),
    );
    fill(page, h("main", { class: "door" }, form, languages()));
    token.focus();
}

async function logOut(): Promise<void> {
    if (!(await mayLeave())) return;
    forgetToken();
    login("");
}

function brand(tag: "h1" | "p"): HTMLElement {
    const mark = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    mark.setAttribute("viewBox", "0 0 24 24");
    mark.setAttribute("aria-hidden", "true");
    for (const [d, name] of [["M3 17.5c3 0 3.4-11 6-11s3 9 5.4 9 2.6-6 6.6-6", "wave"], ["M3 21h18", "base"]] as const) {
        const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
        path.setAttribute("d", d);
        path.setAttribute("class", name);
        mark.append(path);
    }
    return h(tag, { class: "brand" }, mark, h("span", {}, "gridsched"), h("span", { class: "quiet" }, words.say("console")));
}

async function enter(token: string, longer?: boolean): Promise<void> {
    const api = new Api(token, () => {
        forgetToken();
        login(words.say("wrong_token"));
    });
    let me: Me;
    try {
        me = await api.get<Me>("/v1/me");
    } catch (error) {
        if (error instanceof Refused && error.status !== 401) login(error.status === 403 ? words.say("node_token") : error.message);
        else if (!(error instanceof Refused)) {
            login(words.say("unreachable"));
        }
        return;
    }
    if (longer !== undefined) keepToken(token, longer);
    open(me, api);
}

// -- the house

function open(me: Me, api: Api): void {
    leave();
    let house: House | undefined;
    let view: View | undefined;
    let at = location.hash;
    const desk = new Desk(me, api, words, () => house, () => live.ask());
    const bar = topBar(desk);
    const main = h("main", { attrs: { id: "main" } });
    const links = new Map(Object.entries(VIEWS).map(([name, { text }]) => [name, h("a", { attrs: { href: `#/${name}` } }, words.say(text))]));
    fill(
        page,
        h("a", { class: "skip", attrs: { href: "#main" }, on: { click: (event) => { event.preventDefault(); main.querySelector("h1")?.focus(); } } }, words.say("skip")),
        bar.element,
        bar.pause.banner,
        h("nav", { attrs: { "aria-label": words.say("views") } }, [...links.values()]),
        main,
        h("div", { attrs: { id: "told", role: "status" } }),
    );

    const show = (move: boolean): void => {
        const name = location.hash.slice(2).split("/")[0] ?? "";
        const chosen = VIEWS[name] ?? VIEWS["zones"];
        if (chosen === undefined) return;
        view?.close?.();
        at = location.hash;
        view = chosen.make(desk);
        for (const [each, link] of links) {
            if (VIEWS[each] === chosen) link.setAttribute("aria-current", "page");
            else link.removeAttribute("aria-current");
        }
        document.title = `${words.say(chosen.text)} · ${words.say("title")}`;
        fill(main, view.element);
        if (house !== undefined) view.update?.(house);
        if (move) main.querySelector("h1")?.focus();
        links.get(name)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    };
    /** The address names another view; it goes back meanwhile, and stays so where the visitor does. */
    const moved = async (): Promise<void> => {
        const wanted = location.hash;
        if (wanted === at) return;
        history.replaceState(null, "", at || location.pathname);
        if (!(await mayLeave())) return;
        history.replaceState(null, "", wanted || location.pathname);
        show(true);
    };
    const hashed = (): void => void moved();
    const live = new Live(api, (told) => {
        house = told;
        bar.update(told);
        view?.update?.(told);
    }, bar.line);
    addEventListener("hashchange", hashed);
    let asked: Promise<boolean> | undefined; // one question, however many ask
    mayLeave = () => (asked ??= Promise.resolve(view?.mayClose?.() ?? true).finally(() => { asked = undefined; }));
    leave = () => {
        removeEventListener("hashchange", hashed);
        live.end();
        view?.close?.();
        leave = () => undefined;
        mayLeave = () => Promise.resolve(true);
    };
    show(false);
}

function topBar(desk: Desk): { element: HTMLElement; pause: Switch; update: (house: House) => void; line: (line: Line) => void } {
    const clock = h("span", { class: "clock" });
    const special = h("span", { class: "special" });
    const dot = h("span", { class: "line", attrs: { role: "status" } }, words.say("loading"));
    const pause = new Switch(desk);
    const out = h("button", { class: "plain", attrs: { type: "button" }, on: { click: () => void logOut() } }, words.say("log_out"));
    const element = h(
        "header",
        {},
        brand("p"),
        h("div", { class: "standing" }, dot, clock, special),
        h("details", { class: "me" }, h("summary", {}, h("span", {}, desk.me.name), h("small", { class: "quiet" }, desk.roleName())), h("div", { class: "card" }, languages(), out, h("small", { class: "quiet" }, `gridsched ${desk.me.version}`))),
        pause.button,
    );
    return {
        element,
        pause,
        update: (house) => {
            write(clock, desk.format().time(house.now));
            const speed = house.clock_speed === 1 ? "" : words.say("replay", { speed: desk.format().number(house.clock_speed) });
            write(special, [speed, house.dry_run ? words.say("dry_run") : ""].filter(Boolean).join(" · "));
            pause.update(house);
        },
        line: (line) => {
            dot.className = `line ${line}`;
            write(dot, words.say(line));
        },
    };
}

begin();
