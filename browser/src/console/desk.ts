// What every view works with: who is logged in, the server, sentences and figures, and ways to ask and to tell.

import { Refused, Unreachable, type Api } from "./api.ts";
import { h, write } from "./dom.ts";
import { Format } from "./format.ts";
import type { House, Me, Role } from "./model.ts";
import type { Text, Words } from "./strings.ts";

/**
 * One view of the console. `update` is called with every message of the live line; `close` when another view takes its place.
 * `mayClose` comes before that: a view with something unsaved asks, and false keeps the visitor there.
 */
export interface View {
    readonly element: HTMLElement;
    update?(house: House): void;
    mayClose?(): Promise<boolean>;
    close?(): void;
}

const ORDER: readonly Role[] = ["viewer", "operator", "admin"];
const TELL_MS = 8_000;

export class Desk {
    constructor(
        readonly me: Me,
        readonly api: Api,
        readonly words: Words,
        readonly house: () => House | undefined,
        readonly refresh: () => Promise<void>,
    ) {}

    say(text: Text, values: Readonly<Record<string, string | number>> = {}): string {
        return this.words.say(text, values);
    }

    /** Figures in the time of a zone; without one, of the first. */
    format(zone?: string): Format {
        const found = this.me.zones.find((row) => row.zone === zone) ?? this.me.zones[0];
        return new Format(this.words.language, found?.timezone ?? "UTC");
    }

    may(needed: Role): boolean {
        return this.me.role !== "node" && ORDER.indexOf(this.me.role) >= ORDER.indexOf(needed);
    }

    /** A button for what takes a role: without it, it stays there, does nothing and says why. */
    button(label: string, needed: Role, pressed: () => void | Promise<void>, look = ""): HTMLButtonElement {
        const button = h("button", { class: look, attrs: { type: "button" } }, label);
        if (this.may(needed)) {
            button.addEventListener("click", () => void this.trying(async () => pressed(), button));
            return button;
        }
        const why = this.say(needed === "admin" ? "needs_admin" : "needs_operator", { role: this.roleName() });
        button.setAttribute("aria-disabled", "true");
        button.title = why;
        button.addEventListener("click", () => this.tell(why, "stop"));
        return button;
    }

    roleName(): string {
        return this.words.word("role_", this.me.role);
    }

    /** Do something that may fail, and tell where it does; `busy` cannot be pressed meanwhile. */
    async trying(what: () => Promise<void>, busy?: HTMLButtonElement): Promise<void> {
        if (busy?.getAttribute("aria-busy") === "true") return;
        busy?.setAttribute("aria-busy", "true");
        try {
            await what();
        } catch (error) {
            if (error instanceof Unreachable) this.tell(this.say("unreachable"), "stop");
            else if (error instanceof Refused) this.tell(this.say("failed", { why: error.message }), "stop");
            else throw error;
        } finally {
            busy?.removeAttribute("aria-busy");
        }
    }

    /** A sentence at the foot of the page for a while, read out by screen readers. */
    tell(text: string, look: "good" | "stop" = "good"): void {
        const place = document.getElementById("told");
        if (place === null) return;
        const line = h("p", { class: look }, text);
        place.replaceChildren(line);
        setTimeout(() => line.remove(), TELL_MS);
    }

    /** Ask once. Resolves to what was written (empty where nothing is asked for), or null where the visitor would rather not. */
    ask(title: string, text: string, action: string, options: { danger?: boolean; field?: string } = {}): Promise<string | null> {
        return new Promise((resolve) => {
            const input = options.field === undefined ? undefined : h("input", { attrs: { id: "ask-field", type: "text", required: true, maxlength: 200, autocomplete: "off" } });
            const dialog = h(
                "dialog",
                { attrs: { "aria-labelledby": "ask-title" } },
                h(
                    "form",
                    { attrs: { method: "dialog" } },
                    h("h2", { attrs: { id: "ask-title" } }, title),
                    h("p", {}, text),
                    input !== undefined && [h("label", { attrs: { for: "ask-field" } }, options.field ?? ""), input],
                    h("div", { class: "row end" }, h("button", { attrs: { type: "button", value: "" }, on: { click: () => dialog.close("") } }, this.say("cancel")), h("button", { class: options.danger === true ? "danger" : "primary", attrs: { value: "yes" } }, action)),
                ),
            );
            dialog.addEventListener("close", () => {
                dialog.remove();
                resolve(dialog.returnValue === "yes" ? (input?.value.trim() ?? "") : null);
            });
            document.body.append(dialog);
            dialog.showModal();
        });
    }
}

/** A heading for a view, with what stands beside it. */
export function heading(text: string, ...beside: (Node | string | false)[]): HTMLElement {
    return h("div", { class: "head" }, h("h1", { attrs: { tabindex: "-1" } }, text), beside);
}

/** A sentence of how things are that is read out when it changes. */
export function status(): { element: HTMLElement; say: (text: string, look?: string) => void } {
    const element = h("p", { class: "quiet", attrs: { role: "status" } });
    return {
        element,
        say: (text, look = "quiet") => {
            element.className = look;
            write(element, text);
        },
    };
}
