// The audit log: who did what, when. New rows appear as they are made.

import { heading, type Desk, type View } from "./desk.ts";
import { fill, h, table } from "./dom.ts";
import type { Deed } from "./model.ts";

const SHOWN = 500;

export function logView(desk: Desk): View {
    const format = desk.format();
    const rows = h("div", { class: "card flush scroll", attrs: { tabindex: "0" } });
    const csv = desk.button(desk.say("csv"), "viewer", () => desk.api.download("/v1/deeds?format=csv&limit=100000", "gridsched-audit-log.csv"));
    let seen = -1;
    return {
        element: h("div", {}, heading(desk.say("v_log"), csv), rows),
        update(house) {
            if (house.deeds === seen) return;
            seen = house.deeds;
            void desk.trying(async () => {
                const deeds = await desk.api.get<Deed[]>(`/v1/deeds?limit=${SHOWN}`);
                const told = deeds.map((deed) => [String(deed.number), format.stamp(deed.at), h("span", {}, deed.who, h("small", { class: "quiet" }, desk.words.word("role_", deed.role))), desk.words.word("d_", deed.verb), deed.thing, deed.detail]);
                fill(rows, deeds.length === 0 ? h("p", { class: "quiet pad" }, desk.say("log_none")) : table(desk.say("log_title"), [desk.say("nr"), desk.say("when"), desk.say("who"), desk.say("did"), desk.say("to_what"), desk.say("details")], told));
            });
        },
    };
}
