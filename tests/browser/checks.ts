// Checks made in Node: each that fails prints a line, and `end` tells how many did.

/** Node's own, which the DOM's types do not know. */
declare const process: { exit(code: number): never };

let failures = 0;

export async function check(name: string, body: () => Promise<void> | void): Promise<void> {
    try {
        await body();
    } catch (error) {
        failures += 1;
        console.log(`${name}: ${String(error)}`);
    }
}

/** Throws where two values are not the same as JSON. */
export function equal(found: unknown, wanted: unknown): void {
    const [a, b] = [JSON.stringify(found), JSON.stringify(wanted)];
    if (a !== b) throw new Error(`${a} is not ${b}`);
}

/** Leave with the number of failures. */
export function end(): never {
    return process.exit(failures);
}
