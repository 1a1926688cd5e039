// Tokens of people and programs: made once, shown once, revoked at once. Only an admin sees them.

import type { Desk } from "./desk.ts";
import { fill, h, table } from "./dom.ts";
import type { Role, TokenRow } from "./model.ts";

const ROLES: readonly Role[] = ["viewer", "operator", "admin"];
/** The token in the site's own file: it changes with that file, not here. */
const SITES_OWN = "operator";
const NAME = "[a-z0-9][a-z0-9_\\-]{0,62}";

export function tokensSection(desk: Desk): HTMLElement {
    const title = h("h2", {}, desk.say("tokens"));
    if (!desk.may("admin")) return h("section", { class: "tokens" }, title, h("p", { class: "quiet" }, desk.say("needs_admin", { role: desk.roleName() })));
    const format = desk.format();
    const name = h("input", { attrs: { id: "token-name", type: "text", required: true, pattern: NAME, maxlength: 63, autocomplete: "off", spellcheck: "false", title: desk.say("token_name_rule") } });
    const role = h("select", { attrs: { id: "token-role" } }, ROLES.map((each) => h("option", { attrs: { value: each } }, desk.words.word("role_", each))));
    const shown = h("div", {});
    const list = h("div", { class: "card flush scroll", attrs: { tabindex: "0" } });
    const make = desk.button(desk.say("make_token"), "admin", async () => {
        if (!name.reportValidity()) return;
        const made = await desk.api.post<{ name: string; token: string }>("/v1/tokens", { name: name.value, role: role.value });
        fill(shown, h("article", { class: "card token" }, h("p", {}, desk.say("token_once", { name: made.name })), h("code", {}, made.token)));
        name.value = "";
        await refresh();
    }, "primary");
    const refresh = async (): Promise<void> => {
        const rows = await desk.api.get<TokenRow[]>("/v1/tokens");
        const heads = [desk.say("name"), desk.say("role"), desk.say("made"), desk.say("actions")];
        fill(list, table(desk.say("tokens"), heads, rows.map((row) => [row.name, desk.words.word("role_", row.role), format.stamp(row.made_at), standing(row)])));
    };
    const standing = (row: TokenRow): HTMLElement | string => {
        if (row.revoked_at !== null) return desk.say("withdrawn", { when: format.stamp(row.revoked_at) });
        if (row.name === SITES_OWN) return desk.say("sites_own");
        const button = desk.button(desk.say("withdraw"), "admin", async () => {
            if ((await desk.ask(desk.say("token_ask", { name: row.name }), desk.say("token_text"), desk.say("withdraw"), { danger: true })) === null) return;
            await desk.api.post(`/v1/tokens/${encodeURIComponent(row.name)}/revoke`);
            await refresh();
        }, "small");
        button.setAttribute("aria-label", `${desk.say("withdraw")}: ${row.name}`);
        return button;
    };
    void desk.trying(refresh);
    const field = (label: string, input: HTMLElement): HTMLElement => h("div", { class: "field" }, h("label", { attrs: { for: input.id } }, label), input);
    return h(
        "section",
        { class: "tokens", attrs: { "aria-label": desk.say("tokens") } },
        title,
        h("p", { class: "quiet" }, desk.say("tokens_hint")),
        h("div", { class: "card" }, h("div", { class: "row fields" }, field(desk.say("name"), name), field(desk.say("role"), role), make)),
        shown,
        list,
    );
}
