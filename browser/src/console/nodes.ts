// The nodes: who is there, what each does and why, how well, and what the operator may order.

import { heading, status, type Desk, type View } from "./desk.ts";
import { fill, h, keep, write } from "./dom.ts";
import type { House, NodeRow } from "./model.ts";

interface Row {
    readonly element: HTMLTableRowElement;
    readonly update: (row: NodeRow, house: House) => void;
}

const GOOD = new Set(["working", "starting"]);
const WAITING = new Set(["available", "paused", "no_surplus", "no_work", "opted_out", "consent_ended", "held_out", "reward_too_low"]);

export function nodesView(desk: Desk): View {
    const made = new Map<string, Row>();
    const kept = new Map<string, HTMLTableRowElement>();
    const count = status();
    const search = h("input", { attrs: { type: "search", id: "find-node", placeholder: desk.say("find_node"), "aria-label": desk.say("find_node") } });
    const zone = h("select", { attrs: { "aria-label": desk.say("zone") } }, h("option", { attrs: { value: "" } }, desk.say("all_zones")), desk.me.zones.map((each) => h("option", { attrs: { value: each.zone } }, each.zone)));
    const heads = ["node", "presence", "state", "kind", "draws", "speed", "reliability", "energy", "earned", "actions"] as const;
    const body = h("tbody");
    const grid = h("table", { class: "cards nodes" }, h("caption", { class: "unseen" }, desk.say("v_nodes")), h("thead", {}, h("tr", {}, heads.map((head, column) => h("th", { class: column >= 4 && column <= 8 ? "number" : "", attrs: { scope: "col" } }, desk.say(head))))), body);
    const none = h("p", { class: "quiet" });
    let last: House | undefined;
    const show = (): void => {
        if (last === undefined) return;
        const house = last;
        const all = [...house.nodes.values()];
        const wanted = search.value.trim().toLowerCase();
        const rows = all.filter((row) => (zone.value === "" || row.zone === zone.value) && `${row.node_id} ${row.device} ${row.runtime} ${desk.words.word("r_", row.reason)}`.toLowerCase().includes(wanted)).sort((a, b) => a.node_id.localeCompare(b.node_id));
        count.say(all.length === 1 ? desk.say("one_node") : desk.say("n_nodes", { count: all.length, working: all.filter((row) => GOOD.has(row.reason)).length, present: all.filter((row) => row.present).length }));
        grid.hidden = rows.length === 0;
        none.hidden = rows.length > 0;
        fill(none, desk.say(all.length === 0 ? "no_nodes" : "no_match"), all.length === 0 && [" ", h("a", { attrs: { href: "#/invites" } }, desk.say("make_invite"))]);
        keep(body, kept, rows, (row) => row.node_id, (row) => {
            const one = nodeRow(desk, row);
            made.set(row.node_id, one);
            return one.element;
        }, (_, row) => made.get(row.node_id)?.update(row, house));
    };
    search.addEventListener("input", show);
    zone.addEventListener("change", show);
    return {
        element: h("div", {}, heading(desk.say("v_nodes"), h("div", { class: "row tools" }, search, desk.me.zones.length > 1 && zone)), count.element, h("div", { class: "card flush scroll" }, grid), none),
        update(house) {
            last = house;
            show();
        },
    };
}

function nodeRow(desk: Desk, first: NodeRow): Row {
    const format = desk.format(first.zone);
    const name = first.node_id;
    const dot = h("i", { attrs: { "aria-hidden": "true" } });
    const presence = h("span");
    const reason = h("span", { class: "tag" });
    const more = h("small", { class: "quiet" });
    const kind = h("span");
    const figures = { draws: h("span"), speed: h("span"), reliability: h("span"), energy: h("span"), earned: h("span") };
    const quarantine = desk.button(desk.say("quarantine"), "operator", async () => {
        const why = await desk.ask(desk.say("quarantine_ask", { node: name }), desk.say("quarantine_text"), desk.say("quarantine"), { danger: true, field: desk.say("why") });
        if (why !== null) await order("quarantine", { why });
    }, "small");
    const pardon = desk.button(desk.say("pardon"), "operator", async () => {
        if ((await desk.ask(desk.say("pardon_ask", { node: name }), desk.say("pardon_text"), desk.say("pardon"))) !== null) await order("pardon");
    }, "small");
    const revoke = desk.button(desk.say("revoke"), "operator", async () => {
        if ((await desk.ask(desk.say("revoke_ask", { node: name }), desk.say("revoke_text"), desk.say("revoke"), { danger: true })) !== null) await order("revoke");
    }, "small quietly");
    const order = async (verb: string, body: unknown = {}): Promise<void> => {
        await desk.api.post(`/v1/nodes/${encodeURIComponent(name)}/${verb}`, body);
        await desk.refresh();
    };
    for (const [button, verb] of [[quarantine, "quarantine"], [pardon, "pardon"], [revoke, "revoke"]] as const) button.setAttribute("aria-label", `${desk.say(verb)}: ${name}`);
    const cell = (head: Parameters<Desk["say"]>[0], child: Node | Node[], look = ""): HTMLElement => h("td", { class: look, attrs: { "data-head": desk.say(head) } }, child);
    const element = h(
        "tr",
        {},
        h("th", { attrs: { scope: "row" } }, name, h("small", { class: "quiet" }, `${first.device} · ${first.zone}`)),
        cell("presence", h("span", { class: "presence" }, dot, presence)),
        cell("state", [reason, more], "state"),
        cell("kind", kind),
        cell("draws", figures.draws, "number"),
        cell("speed", figures.speed, "number"),
        cell("reliability", figures.reliability, "number"),
        cell("energy", figures.energy, "number"),
        cell("earned", figures.earned, "number"),
        cell("actions", h("span", { class: "row" }, quarantine, pardon, revoke)),
    );
    return {
        element,
        update(row, house) {
            const ago = row.seen_at === null ? "" : format.ago(row.seen_at, house.now, desk.say("ago_now"));
            dot.className = row.revoked ? "gone" : row.connected ? "here" : row.present ? "heard" : "gone";
            write(presence, row.revoked ? desk.say("revoked") : row.connected ? desk.say("line_open") : row.seen_at === null ? desk.say("never_heard") : desk.say(row.present ? "heard" : "absent_since", { ago }));
            write(reason, desk.words.word("r_", row.reason));
            reason.className = `tag ${GOOD.has(row.reason) ? "on" : WAITING.has(row.reason) ? "off" : row.reason === "doubtful" ? "held" : "stopped"}`;
            write(more, storyOf(desk, row));
            write(kind, row.runtime === "" ? "–" : row.runtime.split("-")[0] ?? row.runtime);
            kind.title = row.runtime;
            write(figures.draws, `${format.number(row.drawn_w)} / ${format.watts(row.power_w)}`);
            write(figures.speed, row.speed > 0 ? desk.say("steps_s", { n: format.number(row.speed, row.speed < 10 ? 2 : 0) }) : "–");
            write(figures.reliability, format.percent(row.reliability));
            figures.reliability.title = desk.say("verified", { n: row.verified });
            write(figures.energy, format.energy(row.register_j));
            write(figures.earned, format.money(row.earned_micro));
            quarantine.hidden = row.revoked || row.quarantined_at !== null;
            pardon.hidden = row.quarantined_at === null;
            revoke.hidden = row.revoked;
            element.classList.toggle("dim", row.revoked);
        },
    };
}

/** The second line of a node's state: how far it is, why it pauses, or why it is shut out. */
function storyOf(desk: Desk, row: NodeRow): string {
    if (row.quarantined_at !== null) return row.quarantine_reason;
    if (row.reason === "paused" && row.lease_reason !== null) return desk.words.word("r_", row.lease_reason);
    if (row.unit_id !== null && row.steps !== null) return `${row.unit_id}, ${desk.say("step_of", { step: row.step ?? 0, steps: row.steps })}`;
    return "";
}
