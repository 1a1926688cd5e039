// The zones as lanes over time.

import { heading, type Desk, type View } from "./desk.ts";
import { h, keep } from "./dom.ts";
import { Lane } from "./lane.ts";
import type { House } from "./model.ts";

export function zonesView(desk: Desk): View {
    const lanes = new Map<string, Lane>();
    const kept = new Map<string, HTMLElement>();
    const place = h("div", { class: "lanes" });
    return {
        element: h("div", {}, heading(desk.say("v_zones")), place),
        update(house: House) {
            const rows = [...house.zones.values()];
            const laneOf = (zone: string): Lane => {
                const lane = lanes.get(zone) ?? new Lane(desk, zone);
                lanes.set(zone, lane);
                return lane;
            };
            keep(place, kept, rows, (row) => row.zone, (row) => laneOf(row.zone).element, (_, row) => laneOf(row.zone).update(row, house));
        },
        close() {
            for (const lane of lanes.values()) lane.end();
        },
    };
}
