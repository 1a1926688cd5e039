// The daemon's node API as functions. Every failure is a `Failure`; a redirect is never followed: a token goes to the daemon alone.

import { Failure, asFailure, failureFrom } from "./errors.ts";
import {
    type ConsentChoice,
    type HandOver,
    type Hello,
    type Join,
    type Joined,
    type Offer,
    type Orders,
    type Statement,
    type Sync,
    type UpdateNotice,
    parse,
} from "./wire.ts";

/** What one request uploads at most: a cut costs no more than this. */
export const PIECE_BYTES = 4 << 20;
/** A file up to this size is sent at once: asking first what of it is there would take as long as sending it again. */
export const SMALL_BYTES = 1 << 20;
/** The largest body that a closing page may still send (Fetch standard, "keepalive": 64 KiB of all such bodies together). */
const LAST_WORDS_BYTES = 60_000;

const TALK_MS = 30_000;

export class Client {
    /** `url` is the daemon's root without a slash at its end; `token` is empty before joining. */
    constructor(
        readonly url: string,
        readonly token = "",
    ) {}

    join(message: Join): Promise<Joined> {
        return this.post("/v1/join", message);
    }

    hello(message: Hello): Promise<Orders> {
        return this.post("/v1/node/hello", message);
    }

    sync(message: Sync): Promise<Orders> {
        return this.post("/v1/node/sync", message);
    }

    choose(message: ConsentChoice): Promise<Orders> {
        return this.post("/v1/node/consent", message);
    }

    handOver(message: HandOver): Promise<Orders> {
        return this.post("/v1/node/hand-over", message);
    }

    update(message: UpdateNotice): Promise<Orders> {
        return this.post("/v1/node/update", message);
    }

    async statement(): Promise<Statement> {
        return parse(await (await this.ask("GET", "/v1/node/statement")).text());
    }

    async offer(): Promise<Offer> {
        return parse(await (await this.ask("GET", "/v1/node/offer")).text());
    }

    /** A hand-over from a page that is being closed; nobody hears the answer. */
    lastWords(message: HandOver): void {
        const body = JSON.stringify(message);
        if (body.length > LAST_WORDS_BYTES) return;
        const headers = { ...this.headers(), "Content-Type": "application/json" };
        void fetch(`${this.url}/v1/node/hand-over`, { method: "POST", body, headers, keepalive: true }).catch(() => undefined);
    }

    /** Send a file's bytes. A large file goes on where an earlier attempt was cut, and none of it is sent that is there already. */
    async upload(digest: string, data: Uint8Array<ArrayBuffer>): Promise<void> {
        const total = data.byteLength;
        let offset = total > SMALL_BYTES ? await this.received(digest, total) : 0;
        while (offset < total) {
            const before = offset;
            offset = await this.putPiece(digest, data.subarray(offset, offset + PIECE_BYTES), offset, total);
            if (offset <= before) throw new Failure("Unreachable", `${this.url} does not take blob ${digest.slice(0, 12)} beyond byte ${offset}`);
        }
    }

    /** A stored file, from byte `offset` on; `onPiece` gets its bytes as they come, and where in the file they begin. */
    async download(digest: string, offset: number, onPiece: (piece: Uint8Array, at: number, total: number) => void, signal?: AbortSignal): Promise<void> {
        const headers: Record<string, string> = offset > 0 ? { Range: `bytes=${offset}-` } : {};
        const answer = await this.ask("GET", `/v1/blobs/${digest}`, { headers, ...(signal ? { signal } : {}) });
        let at = answer.status === 206 ? offset : 0;
        const total = at + Number(answer.headers.get("Content-Length") ?? 0);
        try {
            const reader = answer.body!.getReader();
            for (let next = await reader.read(); !next.done; next = await reader.read()) {
                onPiece(next.value, at, total);
                at += next.value.byteLength;
            }
        } catch (error) {
            throw new Failure("Unreachable", `blob ${digest.slice(0, 12)} was cut off (${asFailure(error).message}); the download goes on from there`);
        }
        if (at < total) throw new Failure("Unreachable", `blob ${digest.slice(0, 12)} was cut off at byte ${at} of ${total}`);
    }

    /** The plan of a program for the kernels of that digest; refused as `OtherRelease` where the daemon serves others. */
    async plan(program: string, query: Record<string, string>, kernels: string): Promise<Uint8Array<ArrayBuffer>> {
        const headers = { "Gridsched-Kernels": kernels };
        const answer = await this.ask("GET", `/v1/node/plan/${program}?${new URLSearchParams(query).toString()}`, { headers });
        return new Uint8Array(await answer.arrayBuffer());
    }

    private async received(digest: string, total: number): Promise<number> {
        const answer = await this.ask("HEAD", `/v1/blobs/${digest}`, {}, [404]);
        return answer.status === 404 ? Math.min(offsetOf(answer, 0), total - 1) : total;
    }

    private async putPiece(digest: string, piece: Uint8Array<ArrayBuffer>, offset: number, total: number): Promise<number> {
        const headers = {
            "Content-Range": `bytes ${offset}-${offset + piece.byteLength - 1}/${total}`,
            "Content-Type": "application/octet-stream",
        };
        const answer = await this.ask("PUT", `/v1/blobs/${digest}`, { body: piece, headers });
        if (answer.status === 204) return total;
        const reached = answer.status === 202 ? offsetOf(answer, offset + piece.byteLength) : total;
        if (reached >= total) throw new Failure("Unreachable", `blob ${digest.slice(0, 12)} is not stored, though all of it was sent`);
        return reached;
    }

    private async post<T>(path: string, message: object): Promise<T> {
        const init = { body: JSON.stringify(message), headers: { "Content-Type": "application/json" }, signal: AbortSignal.timeout(TALK_MS) };
        const answer = await this.ask("POST", path, init);
        try {
            return parse(await answer.text());
        } catch (error) {
            throw new Failure("Unreachable", `${path} answered with something else than JSON: ${asFailure(error).message}`);
        }
    }

    private headers(): Record<string, string> {
        return this.token ? { Authorization: `Bearer ${this.token}` } : {};
    }

    private async ask(method: string, path: string, init: RequestInit = {}, accept: number[] = []): Promise<Response> {
        let answer: Response;
        try {
            const headers = { ...this.headers(), ...(init.headers as Record<string, string> | undefined) };
            answer = await fetch(this.url + path, { ...init, method, headers, redirect: "error", credentials: "omit" });
        } catch (error) {
            throw new Failure("Unreachable", `${this.url} does not answer (${asFailure(error).message})`);
        }
        if (answer.ok || accept.includes(answer.status)) return answer;
        throw failureFrom(answer.status, await answer.text().catch(() => ""), `${method} ${path}`);
    }
}

function offsetOf(answer: Response, otherwise: number): number {
    const text = answer.headers.get("Upload-Offset") ?? "";
    return /^\d+$/.test(text) ? Number(text) : otherwise;
}
