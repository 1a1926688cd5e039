/** The trainer in Node: a line of JSON in, a line of JSON out (see perform.ts). `node node.mjs PERFORM.js`. */

import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const { perform } = await import(pathToFileURL(process.argv[2]).href);
for await (const line of createInterface({ input: process.stdin })) {
    process.stdout.write(`${await perform(line)}\n`);
}
