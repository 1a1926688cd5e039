// Joining: one code, and what this device is. What is suggested can be changed, and is told to nobody before the button is pressed.

import { Client } from "../node/client.ts";
import { type Failure, asFailure, isOtherRelease } from "../node/errors.ts";
import type { Identity } from "../node/home.ts";
import type { Keeper } from "../node/keeper.ts";
import { VERSION } from "../node/wire.ts";
import { Unstored, admit } from "./admission.ts";
import { find, write } from "./dom.ts";
import type { Tongue } from "./strings.ts";

/** What a kind of device draws while it trains in a browser, as its owner may correct it. In watts. */
const POWER_W: Record<string, number> = { phone: 4, tablet: 7, laptop: 20, desktop: 65, console: 90 };
const NAME = /^[a-z0-9][a-z0-9_-]{0,62}$/;

/** The form's elements. */
const form = (): HTMLFormElement => find<HTMLFormElement>("join-form");
const input = (id: string): HTMLInputElement => find<HTMLInputElement>(id);

export interface Enrolment {
    tongue(): Tongue;
    /** The trainer's hardware class, once it is known. */
    runtime: Promise<string>;
    keeper: Keeper;
    joined(identity: Identity): void;
    outdated(): void;
}

/** Fill in what can be guessed, and join when asked to. */
export function enrol(parts: Enrolment): void {
    takeCode();
    addEventListener("hashchange", takeCode); // scanned while the page was open
    const device = find<HTMLSelectElement>("device");
    device.value = guess();
    const typed = new Set<string>();
    const propose = (field: string, value: string): void => {
        if (!typed.has(field)) input(field).value = value; // what its owner has written stays
    };
    const suggest = (): void => {
        propose("power", String(POWER_W[device.value]));
        propose("name", `${device.value}-${suffix()}`);
    };
    ["power", "name"].forEach((field) => input(field).addEventListener("input", () => typed.add(field)));
    suggest();
    device.addEventListener("change", suggest);
    const memory = (navigator as { deviceMemory?: number }).deviceMemory ?? 2;
    find<HTMLSelectElement>("memory").value = String(memory >= 4 ? 2 ** 29 : 2 ** 28);
    form().addEventListener("submit", (event) => {
        event.preventDefault();
        void submit(parts);
    });
}

/** A code in the address goes into the form, and out of the address: there it would end in histories and screenshots. */
function takeCode(): void {
    const code = new URLSearchParams(location.hash.slice(1)).get("code");
    if (code === null) return;
    input("code").value = code;
    history.replaceState(null, "", location.pathname);
}

async function submit(parts: Enrolment): Promise<void> {
    const tongue = parts.tongue();
    const [code, name] = [tidied(input("code").value), input("name").value.trim()];
    const powerW = Number(input("power").value);
    const wrong: [string, boolean, string][] = [
        ["code", code === "", tongue.say("no_code")],
        ["power", !(powerW >= 0.5 && powerW <= 2000), tongue.say("bad_power")],
        ["name", !NAME.test(name), tongue.say("bad_name")],
    ];
    wrong.forEach(([id, bad]) => input(id).setAttribute("aria-invalid", String(bad)));
    const first = wrong.find(([, bad]) => bad);
    write(find("join-problem"), first?.[2] ?? "");
    if (first !== undefined) return input(first[0]).focus();
    const button = find<HTMLButtonElement>("join-button");
    button.disabled = true;
    write(button, tongue.say("joining"));
    try {
        const runtime = await parts.runtime;
        parts.joined(await admit(parts.keeper, () => join(runtime, code, name, powerW)));
    } catch (error) {
        refused(parts, asFailure(error));
    } finally {
        button.disabled = false;
        write(button, parts.tongue().say("join_button"));
    }
}

/** A code as it is stored, however it was typed off paper: small letters, spaces or no dashes do no harm. */
function tidied(code: string): string {
    const signs = code.toUpperCase().replace(/[^A-Z0-9]/g, "");
    return signs.match(/.{1,4}/g)?.join("-") ?? "";
}

async function join(runtime: string, code: string, name: string, powerW: number): Promise<Identity> {
    const memoryBytes = Number(find<HTMLSelectElement>("memory").value);
    const told = await new Client(location.origin).join({
        code,
        node_id: name,
        device: find<HTMLSelectElement>("device").value,
        power_w: powerW,
        memory_bytes: memoryBytes,
        runtime,
        meter: "estimated",
        version: VERSION,
    });
    return { nodeId: told.node_id, token: told.token, zone: told.zone, powerW, memoryBytes, clockSpeed: told.clock_speed };
}

function refused(parts: Enrolment, failure: Failure): void {
    if (isOtherRelease(failure)) return parts.outdated();
    const tongue = parts.tongue();
    if (failure instanceof Unstored) return write(find("join-problem"), tongue.say("no_room", { detail: failure.message }));
    const said = failure.name === "Conflict" ? tongue.say("name_taken") : failure.name === "Forbidden" ? tongue.say("bad_code") : failure.message;
    write(find("join-problem"), said);
    const field = failure.name === "Conflict" ? "name" : "code";
    input(field).setAttribute("aria-invalid", "true");
    input(field).focus();
}

/** The kind of device, from what a browser says of itself. */
function guess(): string {
    const agent = navigator.userAgent;
    if (/PlayStation|Xbox|Nintendo|SmartTV|Tizen|Web0S/i.test(agent)) return "console";
    if (/iPad|Tablet/i.test(agent) || (/Android/i.test(agent) && !/Mobile/i.test(agent))) return "tablet";
    if (/Mobi|iPhone|Android/i.test(agent)) return "phone";
    return "getBattery" in navigator ? "laptop" : "desktop";
}

function suffix(): string {
    const letters = "abcdefghjkmnpqrstuvwxyz23456789";
    return Array.from(crypto.getRandomValues(new Uint8Array(5)), (byte) => letters[byte % letters.length]).join("");
}
