// The live line: a WebSocket on which the server says how all stands and then what has changed. Where none can be opened (a proxy that
// knows no WebSockets), the same is asked for every few seconds.

import type { Api } from "./api.ts";
import type { House, JobRow, NodeRow, ZoneRow } from "./model.ts";

export type Line = "live" | "polling" | "offline";

type Rows<R> = Record<string, R | null>;

interface Said {
    readonly now: string;
    readonly clock_speed: number;
    readonly dry_run: boolean;
    readonly deeds?: number;
    readonly zones: Rows<ZoneRow>;
    readonly jobs: Rows<JobRow>;
    readonly nodes: Rows<NodeRow>;
}

const FIRST_MS = 500;
const LONGEST_MS = 15_000;
const POLL_MS = 3_000;
/** So many lines in a row that never opened, and we poll until one does. */
const TRIES = 2;
/** The close code of a line whose token has been revoked. */
const REVOKED = 4401;

export class Live {
    private readonly house: House = { now: "", clock_speed: 1, dry_run: false, deeds: 0, zones: new Map(), nodes: new Map(), jobs: new Map() };
    private socket: WebSocket | undefined;
    private timer = 0;
    private failed = 0;
    private ended = false;

    constructor(
        private readonly api: Api,
        private readonly told: (house: House) => void,
        private readonly line: (line: Line) => void,
    ) {
        this.open();
    }

    end(): void {
        this.ended = true;
        clearTimeout(this.timer);
        this.socket?.close();
    }

    /** Ask at once, for whoever has just ordered something and does not want to wait for the line. */
    async ask(): Promise<void> {
        const [status, nodes] = await Promise.all([this.api.get<{ now: string; clock_speed: number; dry_run: boolean; zones: ZoneRow[]; jobs: JobRow[] }>("/v1/status"), this.api.get<NodeRow[]>("/v1/nodes")]);
        for (const rows of [this.house.zones, this.house.jobs, this.house.nodes]) rows.clear();
        this.take({ ...status, zones: named(status.zones, (zone) => zone.zone), jobs: named(status.jobs, (job) => job.job_id), nodes: named(nodes, (node) => node.node_id) });
    }

    private open(): void {
        if (this.ended) return;
        const address = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/v1/console/channel`;
        const socket = new WebSocket(address, ["gridsched.v2", `token.${this.api.token}`]);
        this.socket = socket;
        let heard = false;
        socket.addEventListener("message", (event: MessageEvent<string>) => {
            if (!heard) for (const rows of [this.house.zones, this.house.jobs, this.house.nodes]) rows.clear();
            heard = true;
            this.failed = 0;
            this.line("live");
            this.take(JSON.parse(event.data) as Said);
        });
        socket.addEventListener("close", (event) => {
            if (this.ended) return;
            this.failed += 1;
            if (event.code === REVOKED) this.failed = TRIES + 1; // asking says at once what has become of the token
            if (this.failed > TRIES) void this.poll();
            else this.line("offline");
            this.timer = window.setTimeout(() => this.open(), this.failed > TRIES ? POLL_MS : Math.min(FIRST_MS * 2 ** this.failed, LONGEST_MS));
        });
    }

    private async poll(): Promise<void> {
        try {
            await this.ask();
            this.line("polling");
        } catch {
            this.line("offline");
        }
    }

    private take(said: Said): void {
        const house = this.house;
        house.now = said.now;
        house.clock_speed = said.clock_speed;
        house.dry_run = said.dry_run;
        house.deeds = said.deeds ?? house.deeds + 1;
        merge(house.zones, said.zones);
        merge(house.jobs, said.jobs);
        merge(house.nodes, said.nodes);
        this.told(house);
    }
}

function merge<R>(rows: Map<string, R>, said: Rows<R>): void {
    for (const [name, row] of Object.entries(said)) {
        if (row === null) rows.delete(name);
        else rows.set(name, row);
    }
}

function named<R>(rows: readonly R[], name: (row: R) => string): Record<string, R> {
    return Object.fromEntries(rows.map((row) => [name(row), row]));
}
