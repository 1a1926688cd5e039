/**
 * kernels.wasm in this host: its memory, and what it does outside of plans (sha256, draws, rounding).
 *
 * Memory from `HEAP` on belongs to the unit that runs (`reserve`); behind it lies scratch, which nothing outlives one call.
 */

import { TrainerError } from "./errors.ts";

/** The first byte of memory that a plan may use; the module's own data and stack lie below. */
export const HEAP = 1 << 21;

const PAGE = 1 << 16;
const SHA_BYTES = 104;
const CHUNK = 1 << 20;

interface Exports {
    readonly memory: WebAssembly.Memory;
    run(code: number, words: number): number;
    sha256_start(state: number): void;
    sha256_add(state: number, data: number, bytes: number): void;
    sha256_end(state: number, out: number): void;
    permutation(key: bigint, count: number, out: number, spare: number, drawn: number): void;
    uniform_ints(key: bigint, count: number, out: number): void;
    uniform_floats(key: bigint, start: number, count: number, out: number): void;
    encode_levels(...words: [number, number, number, number, number, number, bigint, number]): void;
    pack_levels(levels: number, count: number, out: number): void;
    encode_half(values: number, count: number, out: number): void;
}

const NEEDED = "run sha256_start sha256_add sha256_end permutation uniform_ints uniform_floats encode_levels pack_levels encode_half";

/** One instance of the module; it serves one unit at a time. */
export class Kernels {
    /** sha256 of the module; the server's header `Gridsched-Kernels` says which one its plans are for. */
    readonly digest: string;
    readonly exports: Exports;
    #bytes = new Uint8Array();
    #top = HEAP;
    #tenancy = 0;

    private constructor(exports: Exports, module: Uint8Array) {
        this.exports = exports;
        this.digest = this.sha256(module);
    }

    /** Compile and start the module whose bytes are `module`. */
    static async load(module: Uint8Array<ArrayBuffer>): Promise<Kernels> {
        let exports: WebAssembly.Exports;
        try {
            ({ exports } = (await WebAssembly.instantiate(module)).instance);
        } catch (error) {
            throw new TrainerError(`kernels.wasm does not start here (${String(error)}); use a browser with WebAssembly SIMD`);
        }
        const missing = NEEDED.split(" ").find((name) => typeof exports[name] !== "function");
        if (missing !== undefined || !(exports["memory"] instanceof WebAssembly.Memory)) {
            throw new TrainerError(`kernels.wasm has no ${missing ?? "memory"}; reload the page, it is of another release`);
        }
        return new Kernels(exports as unknown as Exports, module);
    }

    /** The name under which equal work gives equal bits, whatever the host. */
    get hardwareClass(): string {
        return `wasm-${this.digest.slice(0, 8)}`;
    }

    /** All of the memory. A view that `reserve` or a call with scratch makes stale: ask again afterwards. */
    get bytes(): Uint8Array {
        if (this.#bytes.buffer !== this.exports.memory.buffer) {
            this.#bytes = new Uint8Array(this.exports.memory.buffer);
        }
        return this.#bytes;
    }

    /** Which unit the memory is, by the number that `reserve` gave it. */
    get tenancy(): number {
        return this.#tenancy;
    }

    /** Memory up to `end` is now one unit's, and zero from `HEAP` on. Returns the number of its tenancy. */
    reserve(end: number): number {
        this.#grow(aligned(end));
        this.#top = aligned(end);
        this.bytes.fill(0, HEAP, this.#top);
        this.#tenancy += 1;
        return this.#tenancy;
    }

    /** Addresses of parts of these sizes behind what is reserved, for one call. */
    scratch(...sizes: number[]): number[] {
        let at = this.#top;
        const found = sizes.map((size) => {
            const address = at;
            at = aligned(at + size);
            return address;
        });
        this.#grow(at);
        return found;
    }

    #grow(end: number): void {
        const missing = end - this.exports.memory.buffer.byteLength;
        if (missing <= 0) {
            return;
        }
        try {
            this.exports.memory.grow(Math.ceil(missing / PAGE));
        } catch {
            throw new TrainerError(`this work needs ${Math.ceil(end / 2 ** 20)} MiB of memory, which the browser does not give; leave it to a larger node`);
        }
    }

    /** The sha256 of all chunks, one after another, in hexadecimal. */
    sha256(...chunks: readonly Uint8Array[]): string {
        const hasher = this.hasher();
        chunks.forEach((chunk) => hasher.add(chunk));
        return hasher.hex();
    }

    /** A sha256 that is fed piece by piece. */
    hasher(): Hasher {
        return new Hasher(this);
    }

    /** Scratch that begins with a copy of `data`; the addresses. */
    lend(data: Uint8Array, ...more: number[]): number[] {
        const found = this.scratch(data.length, ...more);
        this.bytes.set(data, found[0]);
        return found;
    }

    /** A copy of `count` bytes at `address`. */
    copy(address: number, count: number): Uint8Array<ArrayBuffer> {
        return new Uint8Array(this.bytes.subarray(address, address + count));
    }
}

/** A sha256 in the making. Its state is kept here, so that others may use the module in between. */
export class Hasher {
    readonly #kernels: Kernels;
    readonly #state: Uint8Array;

    constructor(kernels: Kernels) {
        this.#kernels = kernels;
        const [state = 0] = kernels.scratch(SHA_BYTES);
        kernels.exports.sha256_start(state);
        this.#state = kernels.copy(state, SHA_BYTES);
    }

    /** Add the bytes of `chunk`. */
    add(chunk: Uint8Array): void {
        const [state = 0, data = 0] = this.#kernels.lend(this.#state, Math.min(chunk.length, CHUNK));
        for (let start = 0; start < chunk.length; start += CHUNK) {
            const piece = chunk.subarray(start, start + CHUNK);
            this.#kernels.bytes.set(piece, data);
            this.#kernels.exports.sha256_add(state, data, piece.length);
        }
        this.#keep(state);
    }

    /** Add `count` bytes that lie in the module's memory. */
    addAt(address: number, count: number): void {
        const [state = 0] = this.#kernels.lend(this.#state);
        this.#kernels.exports.sha256_add(state, address, count);
        this.#keep(state);
    }

    /** The digest of all that was added, in hexadecimal; it ends here. */
    hex(): string {
        const [state = 0, out = 0] = this.#kernels.lend(this.#state, 32);
        this.#kernels.exports.sha256_end(state, out);
        return Array.from(this.#kernels.copy(out, 32), (byte) => byte.toString(16).padStart(2, "0")).join("");
    }

    #keep(state: number): void {
        this.#state.set(this.#kernels.bytes.subarray(state, state + SHA_BYTES));
    }
}

function aligned(address: number): number {
    return Math.ceil(address / 64) * 64;
}
