// A zone's policy: its text, checked by the server as one types, set beside the present one for tomorrow, and saved.

import { aligned, Chart, color, onScheme } from "./chart.ts";
import { heading, status, type Desk, type View } from "./desk.ts";
import { fill, h, table, write } from "./dom.ts";
import type { Checked, Foretold, PolicyFile, Preview, Rules } from "./model.ts";

const PAUSE_MS = 300;
const HOUR_MS = 3_600_000;
const J_PER_KWH = 3_600_000;

export function policyView(desk: Desk): View {
    const editor = new Editor(desk);
    return { element: editor.element, mayClose: () => editor.lose(), close: () => editor.end() };
}

class Editor {
    readonly element: HTMLElement;
    private readonly zone: HTMLSelectElement;
    private readonly text = h("textarea", { attrs: { id: "policy-text", spellcheck: "false", autocapitalize: "off", autocomplete: "off", wrap: "off", "aria-describedby": "policy-problems" } });
    private readonly gutter = h("div", { class: "gutter", attrs: { "aria-hidden": "true" } });
    private readonly verdict = status();
    private readonly problems = h("ul", { class: "problems", attrs: { id: "policy-problems" } });
    private readonly rules = h("p", { class: "quiet" });
    private readonly seen = h("div");
    private readonly place = h("div", { class: "chart", attrs: { role: "img" } });
    private readonly chart = new Chart(this.place);
    private readonly preview: HTMLButtonElement;
    private readonly save: HTMLButtonElement;
    private readonly forget: () => void;
    private file: PolicyFile | undefined;
    private shown: Preview | undefined;
    private timer = 0;
    private turn = 0;

    constructor(private readonly desk: Desk) {
        this.zone = h("select", { attrs: { "aria-label": desk.say("zone") } }, desk.me.zones.map((each) => h("option", { attrs: { value: each.zone } }, each.zone)));
        this.zone.addEventListener("change", () => void this.change());
        this.text.addEventListener("input", () => this.typed());
        this.text.addEventListener("scroll", () => { this.gutter.scrollTop = this.text.scrollTop; });
        this.preview = desk.button(desk.say("preview"), "viewer", () => this.look());
        this.save = desk.button(desk.say("save"), "admin", () => this.keep(), "primary");
        const again = desk.button(desk.say("reload"), "viewer", async () => { if (await this.lose()) await this.load(); }, "quietly");
        this.forget = onScheme(() => this.draw());
        addEventListener("beforeunload", this.warn);
        this.element = h(
            "div",
            {},
            heading(desk.say("v_policy"), desk.me.zones.length > 1 && this.zone),
            h("div", { class: "card" }, this.rules, h("label", { class: "unseen", attrs: { for: "policy-text" } }, desk.say("policy_text")), h("div", { class: "editor" }, this.gutter, this.text), this.verdict.element, this.problems, h("div", { class: "row" }, this.preview, this.save, again)),
            this.seen,
        );
        void desk.trying(() => this.load());
    }

    end(): void {
        clearTimeout(this.timer);
        removeEventListener("beforeunload", this.warn);
        this.forget();
        this.chart.end();
    }

    private get changed(): boolean {
        return this.file !== undefined && this.text.value !== this.file.text;
    }

    /** The whole page is being closed or loaded anew: browsers ask in words of their own. */
    private readonly warn = (event: Event): void => {
        if (this.changed) event.preventDefault();
    };

    /** Whether what is unsaved may go; asks where there is any. */
    async lose(): Promise<boolean> {
        return !this.changed || (await this.desk.ask(this.desk.say("discard_ask"), "", this.desk.say("discard"), { danger: true })) !== null;
    }

    private async change(): Promise<void> {
        if (await this.lose()) await this.desk.trying(() => this.load());
        else this.zone.value = this.file?.zone ?? this.zone.value;
    }

    private get door(): string {
        return `/v1/zones/${this.zone.value}/policy`;
    }

    private async load(): Promise<void> {
        this.file = await this.desk.api.get<PolicyFile>(this.door);
        this.text.value = this.file.text;
        this.shown = undefined;
        fill(this.seen);
        this.number([]);
        this.tellRules(this.file.rules);
        fill(this.problems);
        this.verdict.say(this.desk.say("policy_same"));
    }

    private typed(): void {
        this.number([]);
        clearTimeout(this.timer);
        this.timer = window.setTimeout(() => void this.desk.trying(async () => void (await this.check(this.text.value))), PAUSE_MS);
    }

    /** Ask the server what it thinks of `text`; an answer to an older one is passed over. */
    private async check(text: string): Promise<boolean> {
        clearTimeout(this.timer);
        const turn = ++this.turn;
        const found = await this.desk.api.post<Checked>(`${this.door}/check`, { text });
        if (turn !== this.turn) return false;
        const count = found.problems.length;
        this.text.setAttribute("aria-invalid", String(!found.ok));
        this.verdict.say(found.ok ? this.desk.say(this.changed ? "policy_sound" : "policy_same") : count === 1 ? this.desk.say("problems_one") : this.desk.say("problems", { n: count }), found.ok ? "good" : "stop");
        fill(this.problems, found.problems.map((problem) => {
            const line = problem.line;
            return h("li", {}, line !== null && h("button", { class: "plain", attrs: { type: "button" }, on: { click: () => this.go(line) } }, this.desk.say("line", { n: line })), " ", problem.says);
        }));
        this.number(found.problems.map((problem) => problem.line ?? 0));
        if (found.policy !== null) this.tellRules(found.policy);
        return found.ok;
    }

    /** Put the caret at the beginning of a line. */
    private go(line: number): void {
        const start = this.text.value.split("\n").slice(0, line - 1).reduce((sum, text) => sum + text.length + 1, 0);
        this.text.focus();
        this.text.setSelectionRange(start, start + (this.text.value.split("\n")[line - 1]?.length ?? 0));
    }

    private number(wrong: readonly number[]): void {
        const lines = this.text.value.split("\n").length;
        fill(this.gutter, Array.from({ length: lines }, (_, place) => h("span", { class: wrong.includes(place + 1) ? "stop" : "" }, String(place + 1))));
        this.text.rows = Math.min(Math.max(lines, 12), 32);
        this.gutter.scrollTop = this.text.scrollTop;
    }

    private tellRules(rules: Rules): void {
        const { desk } = this;
        const format = desk.format(this.zone.value);
        const kind = (signal: string): string => desk.words.word("k_", signal);
        const conditions = rules.when.map((leaf) => desk.say(leaf.comparison, { signal: kind(leaf.signal), value: format.value(leaf.start, leaf.unit) })).join(desk.say("or"));
        const much = rules.share_of === null ? desk.say("rule_watts", { watts: format.watts(rules.watts ?? 0) }) : desk.say("rule_share", { share: format.percent(rules.share), signal: kind(rules.share_of) });
        const parts = [`${rules.name}: ${much}`, desk.say("rule_when", { conditions }), rules.max_w === null ? "" : desk.say("rule_max", { watts: format.watts(rules.max_w) }), desk.say("rule_pays", { kwh: format.money(rules.reward_micro_per_kwh), unit: format.money(rules.reward_micro_per_unit) })];
        write(this.rules, `${parts.filter(Boolean).join(", ")}.`);
    }

    // -- tomorrow

    private async look(): Promise<void> {
        const text = this.text.value;
        if (!(await this.check(text))) return;
        this.shown = await this.desk.api.post<Preview>(`${this.door}/preview`, { text });
        this.tellPreview(this.shown);
        this.draw();
        this.seen.querySelector("h2")?.scrollIntoView({ block: "nearest", behavior: "smooth" });
    }

    private tellPreview(seen: Preview): void {
        const { desk } = this;
        const format = desk.format(seen.zone);
        const total = (rows: readonly Foretold[], reward: number): string => {
            const joules = rows.reduce((sum, row) => sum + (row.target_w * (Date.parse(row.end) - Date.parse(row.start))) / 1000, 0);
            const on = rows.filter((row) => row.target_w > 0).reduce((sum, row) => sum + (Date.parse(row.end) - Date.parse(row.start)) / HOUR_MS, 0);
            return desk.say("offers", { kwh: format.energy(joules), hours: format.number(on, on % 1 === 0 ? 0 : 1), reward: format.money((joules / J_PER_KWH) * reward) });
        };
        const alike = seen.draft.every((row, place) => row.target_w === seen.present[place]?.target_w && row.reason === seen.present[place]?.reason);
        this.place.setAttribute("aria-label", desk.say("preview_chart"));
        fill(
            this.seen,
            h(
                "section",
                { class: "card", attrs: { "aria-labelledby": "preview-title" } },
                h("h2", { attrs: { id: "preview-title" } }, desk.say("preview_title", { day: format.day(seen.start, true) })),
                h("p", {}, h("strong", {}, `${desk.say("draft")}: `), total(seen.draft, seen.reward_micro_per_kwh.draft)),
                h("p", {}, h("strong", {}, `${desk.say("present")}: `), total(seen.present, seen.reward_micro_per_kwh.present)),
                alike && h("p", { class: "good" }, desk.say("same_all_day")),
                this.place,
                h("p", { class: "quiet" }, desk.say("preview_note")),
                h("div", { class: "scroll", attrs: { tabindex: "0" } }, this.hours(seen)),
            ),
        );
    }

    private hours(seen: Preview): HTMLElement {
        const { desk } = this;
        const format = desk.format(seen.zone);
        const rows = [];
        for (let hour = Date.parse(seen.start); hour < Date.parse(seen.end); hour += HOUR_MS) {
            const part = (all: readonly Foretold[]): readonly Foretold[] => all.filter((row) => Date.parse(row.start) >= hour && Date.parse(row.start) < hour + HOUR_MS);
            const told = (all: readonly Foretold[]): [string, string] => {
                const slots = part(all);
                const watts = slots.reduce((sum, row) => sum + row.target_w, 0) / Math.max(slots.length, 1);
                const most = slots.find((row) => row.target_w > 0) ?? slots[0];
                return [format.watts(watts), most === undefined ? "–" : desk.words.word("r_", most.reason)];
            };
            const [present, draft] = [told(seen.present), told(seen.draft)];
            const differs = present.join() !== draft.join();
            rows.push([format.time(hour, hour), h("span", {}, draft[0], h("small", { class: "quiet" }, draft[1])), h("span", {}, present[0], h("small", { class: "quiet" }, present[1])), differs && h("span", { class: "tag held" }, desk.say("differs"))]);
        }
        return table(desk.say("preview"), [desk.say("hour"), desk.say("draft"), desk.say("present"), ""], rows, [1, 2]);
    }

    private draw(): void {
        const seen = this.shown;
        if (seen === undefined || !this.place.isConnected) return;
        const format = this.desk.format(seen.zone);
        const points = (rows: readonly Foretold[]): [number, number | null][] => [...rows.map((row): [number, number] => [Date.parse(row.start) / 1000, row.target_w]), [Date.parse(seen.end) / 1000, null]];
        const value = (watts: number): string => format.watts(watts);
        this.chart.draw({
            lines: [
                { label: this.desk.say("draft"), color: color("green"), fill: color("green-soft"), value },
                { label: this.desk.say("present"), color: color("blue"), dash: [5, 4], value },
            ],
            data: aligned([points(seen.draft), points(seen.present)]),
            height: 190, range: [Date.parse(seen.start) / 1000, Date.parse(seen.end) / 1000], format, span: [0, 10], axis: value,
        });
    }

    // -- saving

    private async keep(): Promise<void> {
        const { desk, file } = this;
        const text = this.text.value; // what is typed from here on is not saved
        if (file === undefined || !(await this.check(text))) return;
        if ((await desk.ask(desk.say("save_ask"), desk.say("save_text", { zone: file.zone }), desk.say("save"))) === null) return;
        const saved = await desk.api.put<{ sha256: string; kept: string }>(this.door, { text, replaces: file.sha256 });
        this.file = { ...file, text, sha256: saved.sha256 };
        desk.tell(saved.kept === "" ? desk.say("saved_same") : desk.say("saved", { kept: saved.kept }));
        if (!this.changed) this.verdict.say(desk.say("policy_same"));
        this.shown = undefined; // it set a draft beside what this has replaced
        fill(this.seen);
    }
}
