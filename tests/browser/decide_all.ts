/** Answers a JSON list of [order, local] on standard input with the list of what the page would do. */

import { type Local, nextAction } from "../../browser/src/node/decide.ts";
import type { Order } from "../../browser/src/node/wire.ts";

/** Node's own, which the DOM's types do not know. */
declare const process: { stdin: AsyncIterable<string> & { setEncoding(name: string): void } };

process.stdin.setEncoding("utf8");
let text = "";
for await (const piece of process.stdin) text += piece;
const cases = JSON.parse(text) as [Order | null, Local][];
console.log(JSON.stringify(cases.map(([order, local]) => nextAction(order, local))));
