/** Bytes by digest, as they are handed in, and checked. */

import { TrainerError } from "./errors.ts";
import type { Kernels } from "./kernels.ts";
import type { BlobSource } from "./spec.ts";

/** Asks `source`; nothing that does not match its digest gets past. */
export class Blobs {
    readonly #source: BlobSource;
    readonly #kernels: Kernels;

    constructor(source: BlobSource, kernels: Kernels) {
        this.#source = source;
        this.#kernels = kernels;
    }

    /** The bytes that `digest` names; `what` is what they are, for the message where they are others. */
    async get(digest: string, what: string): Promise<Uint8Array> {
        const found = await this.#source(digest);
        const bytes = found instanceof Uint8Array ? found : new Uint8Array(found);
        if (this.#kernels.sha256(bytes) !== digest) {
            throw new TrainerError(`${what} (${digest.slice(0, 12)}) does not match its digest; fetch it again`);
        }
        return bytes;
    }
}
