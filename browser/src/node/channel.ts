// The daemon's pushes: a WebSocket that carries Orders as they change. Losing it costs only promptness.

import { backoffS } from "./backoff.ts";
import { type Orders, VERSION, parse } from "./wire.ts";

/** The closing code of a daemon that has revoked this node. */
export const REVOKED = 4401;
/** That of a connection which another one of the same node has replaced. */
export const REPLACED = 4409;

export interface ChannelSays {
    orders(orders: Orders): void;
    closed(code: number): void;
}

/** Keeps one connection up, and hands on every Orders that arrives. */
export class Channel {
    private socket: WebSocket | null = null;
    private failures = 0;
    private timer: ReturnType<typeof setTimeout> | undefined;
    private stopped = false;

    constructor(
        private readonly url: string,
        private readonly token: string,
        private readonly says: ChannelSays,
    ) {}

    /** Whether pushes arrive now. */
    get connected(): boolean {
        return this.socket?.readyState === WebSocket.OPEN;
    }

    start(): void {
        this.stopped = false;
        this.open();
    }

    stop(): void {
        this.stopped = true;
        clearTimeout(this.timer);
        this.socket?.close(1000);
        this.socket = null;
    }

    /** Connect now where it would have waited: the network is back. */
    hurry(): void {
        if (this.stopped || this.socket !== null) return;
        this.failures = 0;
        clearTimeout(this.timer);
        this.open();
    }

    private open(): void {
        // Browsers cannot set a header on a WebSocket, so the token travels as a second subprotocol.
        const socket = new WebSocket(`${this.url.replace(/^http/, "ws")}/v1/node/channel`, [`gridsched.v${VERSION}`, `token.${this.token}`]);
        this.socket = socket;
        socket.onopen = () => (this.failures = 0);
        socket.onmessage = (event: MessageEvent<string>) => this.hear(event.data);
        socket.onclose = (event) => {
            if (this.socket !== socket) return;
            this.socket = null;
            this.says.closed(event.code);
            if (!this.stopped) this.timer = setTimeout(() => this.open(), backoffS(this.failures++) * 1000);
        };
    }

    private hear(text: string): void {
        try {
            this.says.orders(parse<Orders>(text));
        } catch {
            // a push that is no order is passed over: the next sync brings what it would have said
        }
    }
}
