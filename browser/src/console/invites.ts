// Who is let in. Invitations: made for a zone, so many, for so long; shown once as codes and pictures to scan or print; taken back.

import { heading, type Desk, type View } from "./desk.ts";
import { fill, h, table } from "./dom.ts";
import type { Invited } from "./model.ts";
import { tokensSection } from "./tokens.ts";

const HOURS = [1, 24, 168, 720] as const;
const MOST = 60;

interface Made {
    readonly codes: readonly string[];
    readonly zone: string;
    readonly expires_at: string;
}

export function invitesView(desk: Desk): View {
    const format = desk.format();
    const zone = h("select", { attrs: { id: "invite-zone" } }, desk.me.zones.map((each) => h("option", { attrs: { value: each.zone } }, each.zone)));
    const count = h("input", { attrs: { id: "invite-count", type: "number", min: 1, max: MOST, value: 1, inputmode: "numeric" } });
    const hours = h("select", { attrs: { id: "invite-hours" } }, HOURS.map((each) => h("option", { attrs: { value: each, selected: each === 24 } }, desk.say(`h_${each}`))));
    const shown = h("div", { class: "codes" });
    const list = h("div", { class: "card flush scroll", attrs: { tabindex: "0" } });
    const make = desk.button(desk.say("make_codes"), "operator", async () => {
        if (!count.reportValidity()) return;
        const made = await desk.api.post<Made>("/v1/invites", { zone: zone.value, count: count.valueAsNumber, for_s: Number(hours.value) * 3600 });
        const cards = await Promise.all(made.codes.map((code) => card(desk, code, made)));
        const print = h("button", { attrs: { type: "button" }, on: { click: () => window.print() } }, desk.say("print"));
        fill(shown, h("div", { class: "head" }, h("p", {}, desk.say("code_once")), print), cards);
        shown.querySelector("code")?.scrollIntoView({ block: "center" });
        await refresh();
    }, "primary");
    const refresh = async (): Promise<void> => {
        const rows = await desk.api.get<Invited[]>("/v1/invites");
        const now = desk.house()?.now ?? desk.me.now;
        const used = (row: Invited): string => row.used_by ?? desk.say(Date.parse(row.expires_at) > Date.parse(now) ? "unused" : "ended");
        fill(list, rows.length === 0 ? h("p", { class: "quiet pad" }, desk.say("no_invites")) : table(desk.say("invited"), [desk.say("made"), desk.say("zone"), desk.say("until"), desk.say("used")], rows.map((row) => [format.stamp(row.made_at), row.zone, format.stamp(row.expires_at), used(row)])));
    };
    const withdraw = desk.button(desk.say("withdraw_open"), "operator", async () => {
        if ((await desk.ask(desk.say("withdraw_ask", { zone: zone.value }), desk.say("withdraw_text"), desk.say("withdraw"), { danger: true })) === null) return;
        const { withdrawn } = await desk.api.post<{ withdrawn: number }>("/v1/invites/withdraw", { zone: zone.value });
        fill(shown);
        desk.tell(desk.say("withdrew", { count: withdrawn }));
        await refresh();
    }, "small");
    void desk.trying(refresh);
    const field = (label: string, input: HTMLElement): HTMLElement => h("div", { class: "field" }, h("label", { attrs: { for: input.id } }, label), input);
    return {
        element: h(
            "div",
            {},
            heading(desk.say("v_invites")),
            h("section", { class: "card", attrs: { "aria-label": desk.say("invite_title") } }, h("div", { class: "row fields" }, field(desk.say("zone"), zone), field(desk.say("how_many"), count), field(desk.say("valid_for"), hours), make)),
            shown,
            h("div", { class: "head" }, h("h2", {}, desk.say("invited")), withdraw),
            list,
            tokensSection(desk),
        ),
    };
}

async function card(desk: Desk, code: string, made: Made): Promise<HTMLElement> {
    const drawn = await desk.api.post<{ url: string; svg: string }>("/v1/invites/picture", { base: location.origin, code });
    const picture = h("img", { attrs: { src: `data:image/svg+xml,${encodeURIComponent(drawn.svg)}`, alt: desk.say("qr_alt", { url: drawn.url }), width: 180, height: 180 } });
    const copy = h("button", { class: "small", attrs: { type: "button" }, on: { click: () => void copied(desk, drawn.url) } }, desk.say("copy"));
    return h(
        "article",
        { class: "card code" },
        picture,
        h("div", {}, h("code", { class: "figure" }, code), h("p", { class: "quiet" }, `${made.zone} · ${desk.say("until")} ${desk.format(made.zone).time(made.expires_at)}`), h("p", {}, desk.say("scan", { url: drawn.url.split("#")[0] ?? drawn.url })), copy),
    );
}

/** To the clipboard; where a page may not (plain http in a LAN), the link is shown marked, to be copied by hand. */
async function copied(desk: Desk, url: string): Promise<void> {
    try {
        await navigator.clipboard.writeText(url);
        desk.tell(desk.say("copied"));
    } catch {
        window.prompt(desk.say("copy"), url);
    }
}
