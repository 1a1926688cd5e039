// The books: accounts, the chain of transfers and whether it holds, and a CSV of all of it.

import { heading, type Desk, type View } from "./desk.ts";
import { fill, h, table } from "./dom.ts";
import type { Books, Transfer } from "./model.ts";

const SHOWN = 200;
const EVERY_MS = 15_000;
const DIGITS = 10;

export function ledgerView(desk: Desk): View {
    const format = desk.format();
    const verdict = h("div", { attrs: { role: "status" } });
    const accounts = h("div", { class: "card flush scroll", attrs: { tabindex: "0" } });
    const transfers = h("div", { class: "card flush scroll", attrs: { tabindex: "0" } });
    const csv = desk.button(desk.say("csv"), "viewer", () => desk.api.download("/v1/ledger/transfers?format=csv", "gridsched-transfers.csv"));
    const fetch = (): void => void desk.trying(async () => {
        const [books, rows] = await Promise.all([desk.api.get<Books>("/v1/ledger"), desk.api.get<Transfer[]>(`/v1/ledger/transfers?limit=${SHOWN}`)]);
        const mark = (good: boolean, text: string): HTMLElement => h("p", { class: good ? "good" : "stop" }, h("span", { attrs: { "aria-hidden": "true" } }, good ? "✓ " : "✗ "), text);
        fill(
            verdict,
            mark(books.balanced, desk.say(books.balanced ? "balanced" : "unbalanced")),
            mark(books.chain_ok, books.chain_ok ? desk.say("chain_ok", { n: format.number(books.transfers) }) : desk.say("chain_broken", { n: books.broken_at ?? "?" })),
        );
        const money = (micro: number): string => format.money(micro);
        fill(accounts, table(desk.say("account"), [desk.say("account"), desk.say("earned"), desk.say("paid"), desk.say("pending"), desk.say("balance")], books.accounts.map((row) => [row.account_id, money(row.credits_posted), money(row.debits_posted), money(row.credits_pending - row.debits_pending), money(row.balance_micro)]), [1, 2, 3, 4]));
        fill(transfers, table(desk.say("transfers_shown", { n: rows.length }), [desk.say("nr"), desk.say("when"), desk.say("what"), desk.say("from"), desk.say("to"), desk.say("amount"), desk.say("digest")], rows.map((row, place) => [String(row.sequence), format.stamp(row.at), desk.words.word("t_", row.kind), row.debit, row.credit, money(row.amount_micro), link(desk, row, rows[place - 1], books)]).reverse(), [5]));
    });
    fetch();
    const timer = setInterval(fetch, EVERY_MS);
    return {
        element: h("div", {}, heading(desk.say("v_ledger"), csv), verdict, accounts, h("h2", {}, desk.say("transfers")), transfers),
        close: () => clearInterval(timer),
    };
}

/** A transfer's digest, and whether it follows the one before: this row names that one's digest, and the server found the whole chain sound. */
function link(desk: Desk, row: Transfer, before: Transfer | undefined, books: Books): HTMLElement {
    const good = (before === undefined || row.before === before.digest) && (books.broken_at === null || row.sequence < books.broken_at);
    const says = desk.say(good ? "link_ok" : "link_bad");
    return h("code", { class: good ? "good" : "stop", attrs: { title: `${row.digest}\n${says}` } }, good ? "✓ " : "✗ ", row.digest.slice(0, DIGITS), h("span", { class: "unseen" }, `, ${says}`));
}
