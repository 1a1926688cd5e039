// One zone over time: a signal above, target and drawn power below, and between them the decisions with their reasons, each of which can
// be pointed at, tapped, or reached by arrow keys. Behind the line of the present lies what is known and expected.

import { aligned, Chart, color, onScheme } from "./chart.ts";
import type { Desk } from "./desk.ts";
import { fill, h, table, write } from "./dom.ts";
import type { Format } from "./format.ts";
import type { House, Slot, Timeline, ZoneRow } from "./model.ts";

const OLDEST_MS = 60_000;
const REPLAY_MS = 5_000;
const SOONEST_MS = 2_000;
const BACK_H = 24;
const HOUR_MS = 3_600_000;

/** What held from `start` to `end`, foretold where it lies ahead: a target, or targets from `lowest_w` to `target_w`. */
interface Stretch {
    readonly start: number;
    readonly end: number;
    readonly reason: string;
    readonly tier: string;
    readonly target_w: number;
    readonly lowest_w: number;
    readonly detail: string;
    readonly foretold: boolean;
}

export class Lane {
    readonly element: HTMLElement;
    private readonly name = h("h2");
    private readonly policy = h("a", { class: "quiet", attrs: { href: "#/policy" } });
    private readonly drawn = h("strong", { class: "figure" });
    private readonly target = h("span", { class: "quiet" });
    private readonly reason = h("span", { class: "tag" });
    private readonly detail = h("p", { class: "quiet" });
    private readonly meter = h("div", { class: "meter", attrs: { role: "meter", "aria-valuemin": 0 } }, h("i"));
    private readonly facts = h("p", { class: "facts" });
    private readonly signals = h("select");
    private readonly span = h("select");
    private readonly signalPlace = h("div", { class: "chart", attrs: { role: "img" } });
    private readonly powerPlace = h("div", { class: "chart", attrs: { role: "img" } });
    private readonly strip: HTMLElement;
    private readonly told = h("p", { class: "decision", attrs: { "aria-live": "polite" } });
    private readonly rows = h("div", { class: "scroll", attrs: { tabindex: "0" } });
    private readonly charts: readonly [Chart, Chart];
    private readonly format: Format;
    private readonly forget: () => void;
    private timeline: Timeline | undefined;
    private asked = 0;
    private asking = false;
    private decision = "";
    private chosen = -1;
    private parts: Stretch[] = [];
    private stretches: Stretch[] = [];

    constructor(
        private readonly desk: Desk,
        private readonly zone: string,
    ) {
        const id = `lane-${zone}`;
        this.format = desk.format(zone);
        this.name.id = id;
        write(this.name, zone);
        for (const [hours, text] of [["24", "range_24"], ["48", "range_48"]] as const) this.span.append(h("option", { attrs: { value: hours } }, desk.say(text)));
        this.signals.addEventListener("change", () => this.draw());
        this.span.addEventListener("change", () => void this.fetch());
        this.strip = h("div", { class: "strip", attrs: { role: "listbox", tabindex: "0", "aria-label": desk.say("strip"), "aria-orientation": "horizontal" }, on: { keydown: (event) => this.key(event as KeyboardEvent), focus: () => this.choose(this.chosen < 0 ? this.present() : this.chosen) } });
        this.charts = [new Chart(this.signalPlace), new Chart(this.powerPlace)];
        this.forget = onScheme(() => this.draw());
        const details = h("details", {}, h("summary", {}, desk.say("as_table")), this.rows);
        details.addEventListener("toggle", () => this.tabulate(details.open));
        this.element = h(
            "section",
            { class: "card lane", attrs: { "aria-labelledby": id } },
            h("div", { class: "head" }, h("div", {}, this.name, this.policy), h("div", { class: "row tools" }, h("label", {}, h("span", { class: "quiet" }, desk.say("signal")), this.signals), h("label", {}, h("span", { class: "quiet" }, desk.say("range")), this.span))),
            h("div", { class: "glance" }, h("p", {}, this.drawn, " ", this.target), this.meter, h("p", {}, this.reason), this.detail, this.facts),
            this.signalPlace,
            this.strip,
            this.told,
            this.powerPlace,
            details,
        );
        this.meter.setAttribute("aria-label", desk.say("drawn"));
        write(this.told, desk.say("loading"));
    }

    update(row: ZoneRow, house: House): void {
        const { desk, format } = this;
        write(this.policy, desk.say("ruled_by", { policy: row.policy }));
        write(this.drawn, format.watts(row.drawn_w));
        write(this.target, desk.say("of_target", { target: format.watts(row.target_w) }));
        write(this.reason, desk.words.word("r_", row.reason));
        this.reason.className = `tag ${lookOf(row)}`;
        write(this.detail, row.detail);
        const most = Math.max(row.target_w, row.drawn_w, 1);
        this.meter.setAttribute("aria-valuemax", String(Math.round(most)));
        this.meter.setAttribute("aria-valuenow", String(Math.round(row.drawn_w)));
        this.meter.setAttribute("aria-valuetext", `${format.watts(row.drawn_w)} / ${format.watts(row.target_w)}`);
        this.meter.classList.toggle("over", row.drawn_w > row.target_w + 1);
        this.meter.style.setProperty("--part", `${(100 * row.drawn_w) / most}%`);
        const said = Object.entries(row.signals).map(([kind, seen]) => `${desk.words.word("k_", kind)} ${format.value(seen.value, seen.unit)}${seen.fresh ? "" : " (!)"}`);
        const nodes = Object.entries(row.nodes).map(([reason, count]) => `${count} × ${desk.words.word("r_", reason)}`);
        write(this.facts, [...said, nodes.length > 0 ? nodes.join(", ") : desk.say("no_nodes_in")].join("  ·  "));
        const age = Date.now() - this.asked;
        const stale = age > (house.clock_speed === 1 ? OLDEST_MS : REPLAY_MS);
        if (stale || (row.decision_id !== this.decision && this.outdated(row) && age > SOONEST_MS)) {
            this.decision = row.decision_id;
            void this.fetch();
        }
    }

    end(): void {
        this.forget();
        for (const chart of this.charts) chart.end();
    }

    /** Whether the lane's last decision says something else than the zone now. */
    private outdated(row: ZoneRow): boolean {
        const last = this.timeline?.decisions.at(-1);
        return last === undefined || last.reason !== row.reason || last.target_w !== row.target_w;
    }

    private async fetch(): Promise<void> {
        if (this.asking) return;
        this.asking = true;
        this.asked = Date.now();
        await this.desk.trying(async () => {
            this.timeline = await this.desk.api.get<Timeline>(`/v1/zones/${this.zone}/timeline?back_h=${BACK_H}&ahead_h=${this.span.value}`);
            this.offer(this.timeline);
            this.draw();
        });
        this.asking = false;
    }

    /** The signals one may choose from: those of which anything is known. */
    private offer(timeline: Timeline): void {
        const known = Object.keys(timeline.signals).filter((kind) => (timeline.signals[kind]?.slots.length ?? 0) > 0);
        if ([...this.signals.options].map((option) => option.value).join() === known.join()) return;
        const before = this.signals.value || timeline.objective;
        fill(this.signals, known.map((kind) => h("option", { attrs: { value: kind } }, this.desk.words.word("k_", kind))));
        this.signals.value = known.includes(before) ? before : (known[0] ?? "");
    }

    private draw(): void {
        const timeline = this.timeline;
        if (timeline === undefined || !this.element.isConnected) return;
        const now = Date.parse(timeline.now) / 1000;
        const range = [Date.parse(timeline.start) / 1000, Date.parse(timeline.end) / 1000] as const;
        this.drawSignal(timeline, now, range);
        this.drawPower(timeline, now, range);
        this.parts = partsOf(timeline);
        this.stretches = merged(this.parts);
        this.drawStrip(range, timeline.hours);
        this.tabulate((this.element.querySelector("details") as HTMLDetailsElement).open);
    }

    private drawSignal(timeline: Timeline, now: number, range: readonly [number, number]): void {
        const kind = this.signals.value;
        const signal = timeline.signals[kind];
        const slots = signal?.slots ?? [];
        const unit = signal?.unit ?? "";
        const label = this.desk.words.word("k_", kind);
        this.signalPlace.setAttribute("aria-label", this.desk.say("lane_chart", { signal: label, zone: this.zone }));
        const value = (found: number): string => this.format.value(found, unit);
        this.charts[0].draw({
            lines: [
                { label, color: color("blue"), fill: color("blue-soft"), value },
                { label: `${label}, ${this.desk.say("expected")}`, color: color("blue"), dash: [5, 4], width: 1.5, value },
            ],
            data: aligned([line(slots, false), line(slots, true)]),
            height: 128, range, now, format: this.format, hideTimes: true, sync: this.zone, span: [0, 0],
            axis: (found) => (unit === "W" ? this.format.watts(found) : unit === "share" ? this.format.percent(found) : this.format.number(found)),
        });
    }

    private drawPower(timeline: Timeline, now: number, range: readonly [number, number]): void {
        const { desk, format } = this;
        const target: [number, number | null][] = timeline.decisions.map((row) => [Math.max(Date.parse(row.decided_at) / 1000, range[0]), row.target_w]);
        end(target, now);
        const drawn: [number, number | null][] = timeline.drawn.map(([at, watts]) => [Date.parse(at) / 1000, watts]);
        end(drawn, now);
        const coming: [number, number | null][] = timeline.foretold.filter((row) => Date.parse(row.end) / 1000 > now).map((row) => [Math.max(Date.parse(row.start) / 1000, now), row.target_w]);
        const value = (watts: number): string => format.watts(watts);
        this.powerPlace.setAttribute("aria-label", desk.say("lane_chart", { signal: desk.say("power"), zone: this.zone }));
        this.charts[1].draw({
            lines: [
                { label: desk.say("target"), color: color("green"), width: 2, value },
                { label: desk.say("drawn"), color: color("amber"), fill: color("amber-soft"), width: 1.5, value },
                { label: desk.say("foretold"), color: color("green"), dash: [5, 4], width: 1.5, value },
            ],
            data: aligned([target, drawn, coming]),
            height: 168, range, now, format, sync: this.zone, span: [0, 10], axis: value,
        });
    }

    // -- the strip of decisions

    private drawStrip([start, end]: readonly [number, number], hours: Timeline["hours"]): void {
        const share = (moment: number): number => Math.min(Math.max((100 * (moment / 1000 - start)) / (end - start), 0), 100);
        const planned = hours.map((hour) => {
            const line = h("i", { class: "planned", attrs: { "aria-hidden": "true", title: this.planned(hour) } });
            line.style.left = `${share(Date.parse(hour.start))}%`;
            line.style.width = `${share(Date.parse(hour.end)) - share(Date.parse(hour.start))}%`;
            return line;
        });
        const marks = this.stretches.map((stretch, place) => {
            const mark = h("span", { class: `mark ${lookOf(stretch)}${stretch.foretold ? " foretold" : ""}`, attrs: { role: "option", id: `${this.zone}-mark-${place}`, "aria-label": this.sentence(stretch), "aria-selected": "false" } });
            mark.style.left = `${share(stretch.start)}%`;
            mark.style.width = `${share(stretch.end) - share(stretch.start)}%`;
            mark.addEventListener("pointerenter", () => this.choose(place));
            mark.addEventListener("click", () => this.choose(place));
            return mark;
        });
        fill(this.strip, marks, planned);
        this.choose(this.present());
    }

    private planned(hour: Timeline["hours"][number]): string {
        return `${this.desk.say("job_hours")}: ${hour.job_id}, ${this.format.time(hour.start)} – ${this.format.time(hour.end, hour.start)}`;
    }

    private present(): number {
        return this.stretches.filter((stretch) => !stretch.foretold).length - 1;
    }

    private choose(place: number): void {
        const stretch = this.stretches[place];
        if (stretch === undefined) return;
        this.strip.children[this.chosen]?.setAttribute("aria-selected", "false");
        this.chosen = place;
        this.strip.children[place]?.setAttribute("aria-selected", "true");
        this.strip.setAttribute("aria-activedescendant", `${this.zone}-mark-${place}`);
        fill(this.told, h("span", { class: `tag ${lookOf(stretch)}` }, this.desk.words.word("r_", stretch.reason)), " ", this.sentence(stretch));
    }

    private key(event: KeyboardEvent): void {
        const last = this.stretches.length - 1;
        const place = { ArrowLeft: this.chosen - 1, ArrowRight: this.chosen + 1, Home: 0, End: last }[event.key];
        if (place === undefined) return;
        event.preventDefault();
        this.choose(Math.min(Math.max(place, 0), last));
    }

    private sentence(stretch: Stretch): string {
        const times = `${this.format.time(stretch.start)} – ${this.format.time(stretch.end, stretch.start)}`;
        const watts = stretch.lowest_w === stretch.target_w ? "" : `${this.format.watts(stretch.lowest_w)} – `;
        return `${times}: ${watts}${this.format.watts(stretch.target_w)}. ${stretch.foretold ? this.desk.say("would", { what: stretch.detail }) : stretch.detail}`;
    }

    // -- the same in a table

    private tabulate(open: boolean): void {
        const timeline = this.timeline;
        if (!open || timeline === undefined) return;
        const { desk, format } = this;
        const kind = this.signals.value;
        const signal = timeline.signals[kind];
        const first = Math.floor(Date.parse(timeline.start) / HOUR_MS) * HOUR_MS;
        const rows = [];
        for (let hour = first; hour < Date.parse(timeline.end); hour += HOUR_MS) {
            const inside = this.parts.filter((part) => part.start < hour + HOUR_MS && part.end > hour);
            const most = inside.reduce<Stretch | undefined>((best, one) => (best === undefined || within(one, hour) > within(best, hour) ? one : best), undefined);
            if (most === undefined) continue;
            const slots = (signal?.slots ?? []).filter((slot) => Date.parse(slot.start) < hour + HOUR_MS && Date.parse(slot.end) > hour);
            const seen = mean(slots.map((slot) => slot.value));
            const drawn = mean(timeline.drawn.filter(([at]) => Date.parse(at) >= hour && Date.parse(at) < hour + HOUR_MS).map(([, watts]) => watts));
            const jobs = timeline.hours.filter((one) => Date.parse(one.start) < hour + HOUR_MS && Date.parse(one.end) > hour).map((one) => one.job_id);
            const reason = this.desk.words.word("r_", most.reason);
            const expected = slots.some((slot) => slot.expected) ? ` (${desk.say("expected")})` : "";
            rows.push([
                format.time(hour),
                seen === null ? "–" : `${format.value(seen, signal?.unit ?? "")}${expected}`,
                format.watts(inside.reduce((sum, part) => sum + part.target_w * within(part, hour), 0) / inside.reduce((sum, part) => sum + within(part, hour), 0)),
                drawn === null ? "–" : format.watts(drawn),
                [most.foretold ? desk.say("would", { what: reason }) : reason, jobs.length > 0 && h("small", { class: "quiet" }, `${desk.say("job_hours")}: ${[...new Set(jobs)].join(", ")}`)],
            ]);
        }
        fill(this.rows, table(this.zone, [desk.say("hour"), desk.words.word("k_", kind), desk.say("target"), desk.say("drawn"), desk.say("reason")], rows, [1, 2, 3]));
    }
}

/** Known or expected values as a line that ends where they do. */
function line(slots: readonly Slot[], expected: boolean): [number, number | null][] {
    const points: [number, number | null][] = [];
    let over = Number.NaN;
    for (const slot of slots.filter((one) => one.expected === expected)) {
        const start = Date.parse(slot.start);
        if (over < start) end(points, over / 1000);
        points.push([start / 1000, slot.value]);
        over = Date.parse(slot.end);
    }
    if (!Number.isNaN(over)) end(points, over / 1000);
    return points;
}

/** Let the last value hold until just before `moment`, and nothing from there on. */
function end(points: [number, number | null][], moment: number): void {
    const last = points.at(-1);
    if (last !== undefined && last[0] < moment - 1) points.push([moment - 1, last[1]]);
    points.push([moment, null]);
}

function partsOf(timeline: Timeline): Stretch[] {
    const now = Date.parse(timeline.now);
    const start = Date.parse(timeline.start);
    const past = timeline.decisions.map((row, place) => {
        const next = timeline.decisions[place + 1];
        const began = Math.max(Date.parse(row.decided_at), start);
        return { ...row, lowest_w: row.target_w, start: began, end: next === undefined ? Math.max(now, began + 1000) : Date.parse(next.decided_at), foretold: false };
    });
    const coming = timeline.foretold.filter((row) => Date.parse(row.end) > now).map((row) => ({ ...row, lowest_w: row.target_w, start: Math.max(Date.parse(row.start), now), end: Date.parse(row.end), foretold: true }));
    return [...past.filter((part) => part.end > part.start), ...coming];
}

/** Neighbours of one reason as one; it keeps the words of its last part in the past, of its first part ahead. */
function merged(parts: readonly Stretch[]): Stretch[] {
    const found: Stretch[] = [];
    for (const part of parts) {
        const last = found.at(-1);
        if (last === undefined || last.reason !== part.reason || last.tier !== part.tier || last.foretold !== part.foretold) found.push(part);
        else found[found.length - 1] = { ...(part.foretold ? last : part), start: last.start, end: part.end, lowest_w: Math.min(last.lowest_w, part.lowest_w), target_w: Math.max(last.target_w, part.target_w) };
    }
    return found;
}

const within = (stretch: Stretch, hour: number): number => Math.min(stretch.end, hour + HOUR_MS) - Math.max(stretch.start, hour);
const mean = (values: readonly number[]): number | null => (values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length);

const STOPS = new Set(["alarm", "stale_signal", "unknown_signal", "disputed_signal"]);
const HELD = new Set(["paused_by_operator", "budget_spent_energy", "budget_spent_money", "cap_zero", "limited_to_zero", "outside_validity", "waiting_start_delay"]);

/** Green draws surplus, amber tops up or is held back by somebody, red lacks a signal or has an alarm, grey has no surplus. */
export function lookOf(row: { readonly tier: string; readonly reason: string }): string {
    if (row.tier === "surplus") return "on";
    if (row.tier === "top_up") return "top-up";
    if (STOPS.has(row.reason)) return "stopped";
    return HELD.has(row.reason) ? "held" : "off";
}
