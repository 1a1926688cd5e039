// Blobs and plans for a run: fetched again and again where the line is bad, checked against their digests, and kept by the browser's
// own cache (the daemon serves them as immutable).

import { backoffS } from "./backoff.ts";
import type { Client } from "./client.ts";
import type { Engine, Sources } from "./engine.ts";
import { Failure, asFailure, isFatal, isFinal } from "./errors.ts";
import type { Bytes } from "./files.ts";

/** The run that waited for it was dropped. */
export class Dropped extends Error {}

const ATTEMPTS_AT_A_ROTTEN_FILE = 3;

export class Supply implements Sources {
    private received = 0;
    private expected = 0;

    constructor(
        private readonly client: Client,
        private readonly engine: Engine,
        private readonly signal: AbortSignal,
        private readonly onBytes: (received: number, total: number) => void,
    ) {}

    async blob(digest: string): Promise<Bytes> {
        for (let attempt = 0; attempt < ATTEMPTS_AT_A_ROTTEN_FILE; attempt++) {
            const data = await this.whole(digest);
            if (this.engine.sha256(data) === digest) return data;
        }
        throw new Failure("BlobCorrupt", `blob ${digest.slice(0, 12)} does not match its digest each time it is fetched`);
    }

    plan(program: string, query: Record<string, string>): Promise<Bytes> {
        return this.again(() => this.client.plan(program, query, this.engine.kernels));
    }

    /** All of a file; a download that was cut goes on from where it was. */
    private async whole(digest: string): Promise<Bytes> {
        let data = new Uint8Array(0);
        let have = 0;
        await this.again(() =>
            this.client.download(
                digest,
                have,
                (piece, at, total) => {
                    if (data.byteLength !== total) {
                        this.expected += total - data.byteLength;
                        const larger = new Uint8Array(total);
                        larger.set(data.subarray(0, Math.min(at, total)));
                        data = larger;
                    }
                    data.set(piece, at);
                    this.received += Math.max(at + piece.byteLength - have, 0);
                    have = at + piece.byteLength;
                    this.onBytes(this.received, this.expected);
                },
                this.signal,
            ),
        );
        return data;
    }

    /** Ask until there is an answer; what the daemon refuses for good is thrown. */
    private async again<T>(ask: () => Promise<T>): Promise<T> {
        for (let failures = 0; ; failures++) {
            try {
                return await ask();
            } catch (error) {
                if (this.signal.aborted) throw new Dropped();
                const failure = asFailure(error);
                if (isFatal(failure) || isFinal(failure) || failure.name === "NotFound") throw failure;
                await this.sleep(backoffS(failures, 0.25, 15));
            }
        }
    }

    private sleep(seconds: number): Promise<void> {
        return new Promise((resolve, reject) => {
            const timer = setTimeout(resolve, seconds * 1000);
            this.signal.addEventListener("abort", () => (clearTimeout(timer), reject(new Dropped())), { once: true });
        });
    }
}
