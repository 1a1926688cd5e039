// The jobs: how far each is, how good, what its epochs took, and what its round waits for.

import { Chart, color, onScheme } from "./chart.ts";
import { heading, type Desk, type View } from "./desk.ts";
import { fill, h, keep, write } from "./dom.ts";
import type { Epoch, House, JobRow, Version, Waiting } from "./model.ts";

const MOST_WAITS = 8;
const OLDEST_MS = 10_000;

export function jobsView(desk: Desk): View {
    const cards = new Map<string, JobCard>();
    const kept = new Map<string, HTMLElement>();
    const place = h("div", { class: "lanes" });
    const none = h("p", { class: "quiet", attrs: { hidden: true } }, desk.say("no_jobs"));
    return {
        element: h("div", {}, heading(desk.say("v_jobs")), place, none),
        update(house: House) {
            const rows = [...house.jobs.values()].sort((a, b) => Number(b.state === "running") - Number(a.state === "running") || b.submitted_at.localeCompare(a.submitted_at));
            none.hidden = rows.length > 0;
            keep(place, kept, rows, (row) => row.job_id, (row) => {
                const card = new JobCard(desk, row);
                cards.set(row.job_id, card);
                return card.element;
            }, (_, row) => cards.get(row.job_id)?.update(row));
        },
        close() {
            for (const card of cards.values()) card.end();
        },
    };
}

class JobCard {
    readonly element: HTMLElement;
    private readonly state = h("span", { class: "tag" });
    private readonly line = h("p");
    private readonly accuracy = h("strong", { class: "figure" });
    private readonly waits = h("div");
    private readonly epochs = h("div", { class: "scroll", attrs: { tabindex: "0" } });
    private readonly place = h("div", { class: "chart", attrs: { role: "img" } });
    private readonly chart = new Chart(this.place);
    private readonly cancel: HTMLButtonElement;
    private readonly forget: () => void;
    private versions: readonly Version[] = [];
    private asked = 0;
    private seen = "";
    private zone: string;

    constructor(
        private readonly desk: Desk,
        row: JobRow,
    ) {
        this.zone = row.spec.zone;
        this.cancel = desk.button(desk.say("cancel_job"), "operator", async () => {
            if ((await desk.ask(desk.say("cancel_ask", { job: row.job_id }), desk.say("cancel_text"), desk.say("cancel_job"), { danger: true })) === null) return;
            await desk.api.post(`/v1/jobs/${row.job_id}/cancel`);
            await desk.refresh();
        }, "small");
        this.forget = onScheme(() => this.draw());
        this.place.setAttribute("aria-label", desk.say("accuracy_chart"));
        const id = `job-${row.job_id}`;
        this.element = h(
            "section",
            { class: "card job", attrs: { "aria-labelledby": id } },
            h("div", { class: "head" }, h("div", {}, h("h2", { attrs: { id } }, row.spec.name), h("span", { class: "quiet" }, `${row.job_id} · ${row.spec.zone}`)), this.cancel),
            h("div", { class: "glance" }, h("p", {}, this.accuracy), h("p", {}, this.state), this.line),
            this.place,
            this.waits,
            this.epochs,
        );
    }

    update(row: JobRow): void {
        const { desk } = this;
        const format = desk.format(this.zone);
        write(this.state, desk.words.word("s_", row.state) + (row.reason === "" ? "" : `: ${row.reason}`));
        this.state.className = `tag ${row.state === "running" ? "on" : row.state === "failed" ? "stopped" : "off"}`;
        write(this.accuracy, row.accuracy === null ? desk.say("accuracy_none") : `${desk.say("accuracy")} ${format.percent(row.accuracy, 1)}`);
        const parts = [desk.say("epoch_of", { epoch: row.epoch, last: row.spec.method.epochs - 1 }), desk.say("version", { n: row.version }), desk.say("submitted", { when: format.time(row.submitted_at) })];
        if (row.spec.deadline !== null) parts.push(desk.say("deadline", { when: format.time(row.spec.deadline) }));
        write(this.line, parts.join(" · "));
        this.cancel.hidden = row.state !== "running";
        const now = `${row.state} ${row.version} ${row.accuracy}`;
        if (now !== this.seen || (row.state === "running" && Date.now() - this.asked > OLDEST_MS)) {
            this.seen = now;
            this.asked = Date.now();
            void desk.trying(() => this.fetch(row));
        }
    }

    end(): void {
        this.forget();
        this.chart.end();
    }

    private async fetch(row: JobRow): Promise<void> {
        const base = `/v1/jobs/${row.job_id}`;
        const [epochs, versions, waiting] = await Promise.all([
            this.desk.api.get<Epoch[]>(`${base}/epochs`),
            this.desk.api.get<Version[]>(`${base}/versions`),
            row.state === "running" ? this.desk.api.get<Waiting[]>(`${base}/units?limit=${MOST_WAITS + 1}`) : [],
        ]);
        this.versions = versions.filter((version) => version.accuracy !== null);
        this.draw();
        this.tellWaits(row, waiting);
        this.tellEpochs(epochs);
    }

    private draw(): void {
        this.place.hidden = this.versions.length === 0;
        if (this.place.hidden || !this.element.isConnected) return;
        const format = this.desk.format(this.zone);
        this.chart.draw({
            lines: [{ label: this.desk.say("accuracy"), color: color("green"), stepped: false, value: (share) => format.percent(share, 1) }],
            data: [this.versions.map((version) => version.number), this.versions.map((version) => version.accuracy)],
            height: 170, axis: (share) => format.percent(share, 1), whole: true,
        });
    }

    private tellWaits(row: JobRow, waiting: readonly Waiting[]): void {
        if (row.state !== "running") {
            fill(this.waits);
            return;
        }
        const shown = waiting.slice(0, MOST_WAITS).map((unit) => h("li", {}, unit.waits.replace(/(paused|offered): ([a-z_]+)/g, (_, state: string, why: string) => `${state}: ${this.desk.words.word("r_", why)}`)));
        if (waiting.length > MOST_WAITS) shown.push(h("li", { class: "quiet" }, this.desk.say("and_more", { n: "…" })));
        fill(this.waits, h("h3", {}, this.desk.say("waits_for")), shown.length > 0 ? h("ul", { class: "waits" }, shown) : h("p", { class: "quiet" }, this.desk.say("waits_nothing")));
    }

    private tellEpochs(epochs: readonly Epoch[]): void {
        const { desk } = this;
        const format = desk.format(this.zone);
        const most = Math.max(...epochs.map((epoch) => epoch.useful_j + epoch.wasted_j + epoch.idle_j), 1);
        const heads = ["epoch", "energy", "useful", "wasted", "idle", "reward", "cost", "units", "loss", "accuracy"] as const;
        const bar = (epoch: Epoch): HTMLElement => {
            const parts = ([["on", epoch.useful_j], ["stopped", epoch.wasted_j], ["off", epoch.idle_j]] as const).map(([look, joules]) => {
                const part = h("i", { class: look });
                part.style.width = `${(100 * joules) / most}%`;
                return part;
            });
            return h("span", { class: "bar", attrs: { "aria-hidden": "true" } }, parts);
        };
        const rows = epochs.map((epoch) => [
            `${epoch.number}${epoch.ended_at === null ? ` (${desk.say("under_way")})` : ""}`, bar(epoch), format.energy(epoch.useful_j), format.energy(epoch.wasted_j), format.energy(epoch.idle_j),
            format.money(epoch.reward_micro), format.money(epoch.cost_micro), format.number(epoch.units), epoch.loss === null ? "–" : format.number(epoch.loss, 3), epoch.accuracy === null ? "–" : format.percent(epoch.accuracy, 1),
        ]);
        fill(
            this.epochs,
            h(
                "table",
                { class: "cards" },
                h("caption", { class: "quiet" }, `${desk.say("energy")}: `, ([["on", "useful"], ["stopped", "wasted"], ["off", "idle"]] as const).map(([look, text]) => h("span", { class: "key" }, h("i", { class: look }), desk.say(text)))),
                h("thead", {}, h("tr", {}, heads.map((head, column) => h("th", { class: column > 1 ? "number" : "", attrs: { scope: "col" } }, desk.say(head))))),
                h("tbody", {}, rows.map((row) => h("tr", {}, row.map((child, column) => (column === 0 ? h("th", { attrs: { scope: "row" } }, child) : h("td", { class: column > 1 ? "number" : "", attrs: { "data-head": desk.say(heads[column] ?? "epoch") } }, child)))))),
            ),
        );
    }
}
