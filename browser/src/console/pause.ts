// The switch for everything: always in sight, asks once, and says who has thrown it and since when.

import type { Desk } from "./desk.ts";
import { fill, h, write } from "./dom.ts";
import type { House, ZoneRow } from "./model.ts";

export class Switch {
    readonly button: HTMLButtonElement;
    readonly banner = h("div", { attrs: { id: "paused", role: "status" } });
    private paused = false;
    private zones: readonly string[] = [];
    private shown = "";

    constructor(private readonly desk: Desk) {
        this.button = desk.button(desk.say("pause_all"), "operator", () => this.press(), "switch");
    }

    update(house: House): void {
        const zones = [...house.zones.values()];
        this.zones = zones.map((zone) => zone.zone);
        const paused = zones.filter((zone) => zone.paused);
        this.paused = zones.length > 0 && paused.length === zones.length;
        write(this.button, this.desk.say(this.paused ? "resume_all" : "pause_all"));
        this.button.classList.toggle("resume", this.paused);
        const told = paused.map((zone) => `${zone.zone} ${zone.paused_by} ${zone.paused_at}`).join("\n");
        if (told !== this.shown) {
            this.shown = told;
            this.tell(paused, zones.length);
        }
    }

    private tell(paused: readonly ZoneRow[], all: number): void {
        const groups = new Map<string, ZoneRow[]>();
        for (const zone of paused) {
            const key = `${zone.paused_by} ${zone.paused_at}`;
            groups.set(key, [...(groups.get(key) ?? []), zone]);
        }
        fill(this.banner, [...groups.values()].map((rows) => this.sentence(rows, all)));
    }

    private sentence(rows: readonly ZoneRow[], all: number): HTMLElement {
        const [first] = rows;
        const values = { who: first?.paused_by || "?", when: first?.paused_at == null ? "?" : this.desk.format(first.zone).time(first.paused_at), zones: rows.map((zone) => zone.zone).join(", ") };
        return h("p", {}, h("span", { attrs: { "aria-hidden": "true" } }, "❚❚ "), this.desk.say(rows.length === all ? "paused_by" : "paused_zones", values));
    }

    private async press(): Promise<void> {
        const { desk, paused } = this;
        const zones = this.zones.join(", ");
        const sure = paused
            ? await desk.ask(desk.say("resume_ask"), desk.say("resume_text", { zones }), desk.say("resume_all"))
            : await desk.ask(desk.say("pause_ask"), desk.say("pause_text", { zones }), desk.say("pause_all"), { danger: true });
        if (sure === null) return;
        await desk.api.post(paused ? "/v1/resume" : "/v1/pause");
        await desk.refresh();
    }
}
