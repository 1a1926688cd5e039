/**
 * JSON as strictly as Python's side reads it, and written to the same bytes.
 *
 * `JSON.parse` keeps the last of doubled keys and rounds whole numbers beyond 2**53; here the one is refused and the other a bigint.
 */

import { TrainerError } from "./errors.ts";

export type Json = null | boolean | number | bigint | string | readonly Json[] | JsonObject;

/** Without a prototype: every key is data. */
export interface JsonObject {
    readonly [key: string]: Json;
}

/** What is written; a Map is an object whose keys are written in the Map's order. */
export type Writable = null | boolean | number | string | readonly Writable[] | ReadonlyMap<string, Writable>;

const MAX_DEPTH = 100;
const NUMBER = /-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/y;
const WORDS: readonly (readonly [string, boolean | null])[] = [
    ["true", true],
    ["false", false],
    ["null", null],
];

/** The one value that `text` is. TrainerError says where it is not JSON. */
export function parseJson(text: string): Json {
    const reader = new Reader(text);
    const value = reader.value(0);
    reader.end();
    return value;
}

class Reader {
    readonly #text: string;
    #at = 0;

    constructor(text: string) {
        this.#text = text;
    }

    value(depth: number): Json {
        if (depth > MAX_DEPTH) {
            throw this.#bad("it nests too deeply");
        }
        switch (this.#peek()) {
            case "{":
                return this.#object(depth);
            case "[":
                return this.#array(depth);
            case '"':
                return this.#string();
            default:
                return this.#plain();
        }
    }

    end(): void {
        if (this.#peek() !== "") {
            throw this.#bad("something follows the value");
        }
    }

    #object(depth: number): JsonObject {
        const found = Object.create(null) as Record<string, Json>;
        for (let more = this.#open("}"); more; more = this.#next("}")) {
            if (this.#peek() !== '"') {
                throw this.#bad("a key is missing");
            }
            const key = this.#string();
            if (key in found) {
                throw this.#bad(`key ${JSON.stringify(key)} appears twice in one object`);
            }
            if (this.#peek() !== ":") {
                throw this.#bad("a colon is missing");
            }
            this.#at += 1;
            found[key] = this.value(depth + 1);
        }
        return found;
    }

    #array(depth: number): Json[] {
        const found: Json[] = [];
        for (let more = this.#open("]"); more; more = this.#next("]")) {
            found.push(this.value(depth + 1));
        }
        return found;
    }

    /** Past the opening bracket; whether there is anything before `close`. */
    #open(close: string): boolean {
        this.#at += 1;
        if (this.#peek() !== close) {
            return true;
        }
        this.#at += 1;
        return false;
    }

    /** Past a comma, and true; or past `close`, and false. */
    #next(close: string): boolean {
        const mark = this.#peek();
        if (mark !== "," && mark !== close) {
            throw this.#bad(`a comma or ${close} is missing`);
        }
        this.#at += 1;
        return mark === ",";
    }

    #string(): string {
        const start = this.#at;
        let end = this.#text.indexOf('"', start + 1);
        while (end >= 0 && this.#escaped(end, start)) {
            end = this.#text.indexOf('"', end + 1);
        }
        try {
            if (end >= 0) {
                this.#at = end + 1;
                return JSON.parse(this.#text.slice(start, end + 1)) as string;
            }
        } catch {
            this.#at = start;
        }
        throw this.#bad("a string is broken");
    }

    /** Whether the quote at `end` stands behind an odd number of backslashes. */
    #escaped(end: number, start: number): boolean {
        let slashes = 0;
        while (end - slashes - 1 > start && this.#text[end - slashes - 1] === "\\") {
            slashes += 1;
        }
        return slashes % 2 === 1;
    }

    #plain(): Json {
        for (const [word, value] of WORDS) {
            if (this.#text.startsWith(word, this.#at)) {
                this.#at += word.length;
                return value;
            }
        }
        NUMBER.lastIndex = this.#at;
        const found = NUMBER.exec(this.#text);
        if (found === null) {
            throw this.#bad("a value is missing");
        }
        this.#at = NUMBER.lastIndex;
        const number = Number(found[0]);
        const whole = found[1] === undefined && found[2] === undefined;
        return whole && !Number.isSafeInteger(number) ? BigInt(found[0]) : number;
    }

    /** The next character that is not white space; "" at the end. */
    #peek(): string {
        while (" \t\n\r".includes(this.#text[this.#at] ?? "end")) {
            this.#at += 1;
        }
        return this.#text[this.#at] ?? "";
    }

    #bad(what: string): TrainerError {
        return new TrainerError(`not valid JSON at character ${this.#at}: ${what}`);
    }
}

/** As Python's `json.dumps` writes: `compact` without spaces, `ascii` with everything else escaped. */
export function writeJson(value: Writable, style: { readonly compact: boolean; readonly ascii: boolean }): string {
    const [comma, colon] = style.compact ? [",", ":"] : [", ", ": "];
    const write = (item: Writable): string => {
        if (item instanceof Map) {
            return `{${Array.from(item as ReadonlyMap<string, Writable>, ([key, held]) => quoted(key) + colon + write(held)).join(comma)}}`;
        }
        return Array.isArray(item) ? `[${item.map(write).join(comma)}]` : typeof item === "string" ? quoted(item) : JSON.stringify(item);
    };
    const quoted = (text: string): string => (style.ascii ? escaped(JSON.stringify(text)) : JSON.stringify(text));
    return write(value);
}

function escaped(text: string): string {
    return text.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Before 0: `a` first, in the order of Python's `sorted`, by code points. */
export function byCodePoint(a: string, b: string): number {
    const left = Array.from(a);
    const right = Array.from(b);
    for (let i = 0; i < Math.min(left.length, right.length); i += 1) {
        const difference = (left[i]?.codePointAt(0) ?? 0) - (right[i]?.codePointAt(0) ?? 0);
        if (difference !== 0) {
            return difference;
        }
    }
    return left.length - right.length;
}

/** An object with exactly these keys; TrainerError names `what` where it is something else. */
export function record<Key extends string>(what: string, value: Json | undefined, keys: readonly Key[]): Record<Key, Json> {
    const object = mapping(what, value);
    const unknown = Object.keys(object).find((key) => !(keys as readonly string[]).includes(key));
    const missing = keys.find((key) => !(key in object));
    if (unknown !== undefined || missing !== undefined) {
        throw new TrainerError(`${what} has ${missing === undefined ? `an unknown key ${JSON.stringify(unknown)}` : `no ${missing}`}`);
    }
    return object as Record<Key, Json>;
}

/** An object of any keys. */
export function mapping(what: string, value: Json | undefined): JsonObject {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
        throw new TrainerError(`${what} must be a JSON object`);
    }
    return value as JsonObject;
}

/** A list. */
export function list(what: string, value: Json | undefined): readonly Json[] {
    if (!Array.isArray(value)) {
        throw new TrainerError(`${what} must be a list`);
    }
    return value as readonly Json[];
}

/** Text. */
export function text(what: string, value: Json | undefined): string {
    if (typeof value !== "string") {
        throw new TrainerError(`${what} must be text`);
    }
    return value;
}

/** A whole number from 0 to 2**53. */
export function whole(what: string, value: Json | undefined): number {
    if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) {
        throw new TrainerError(`${what} must be a whole number from 0`);
    }
    return value;
}
