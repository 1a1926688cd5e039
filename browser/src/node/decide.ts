// What the node does next: a pure function of the daemon's order and of what is true here (gridsched/node/decide.py, move by move).
//
// Orders say what should be, never what to do, so the node compares and takes one step; asking again after that step is harmless,
// and so are orders that arrive twice, late or out of turn. What the owner and the device say comes before what the daemon says;
// silence of the daemon comes last: work that nobody counts on any more is paused, never lost.

import type { Order } from "./wire.ts";

export type Phase = "none" | "starting" | "running" | "paused" | "shelved" | "handing_over" | "finished" | "refused";
export type Move = "nothing" | "start" | "go_on" | "pause" | "shelve" | "adopt" | "hand_over" | "drop";

/** Why the device itself keeps from working, or nothing. `hidden` and `data_saver` are this page's own. */
export type Hindrance = "" | "device_busy" | "device_hot" | "on_battery" | "disk_full" | "hidden" | "data_saver";

export interface Action {
    move: Move;
    reason: string;
}

/** What is true here. `pausedS` is in the daemon's seconds; `mayGoOn` is what the trainer is told now; `saved`: it rests and what it has done is stored. */
export interface Local {
    phase: Phase;
    leaseId: string;
    generation: number;
    unitId: string;
    mayGoOn: boolean;
    saved: boolean;
    optedIn: boolean;
    consentEnded: boolean;
    hindrance: Hindrance;
    silent: boolean;
    waited: boolean;
    leaving: boolean;
    pausedS: number;
    shelveAfterS: number;
}

const BUSY: readonly Phase[] = ["starting", "running", "paused"];

/** The one step that brings the node nearer to `order` (null: no lease), and the reason for it. */
export function nextAction(order: Order | null, local: Local): Action {
    if (order === null) {
        // A finished unit's lease is over only when the daemon has answered the update itself.
        const idle = local.phase === "none" || local.phase === "finished";
        return { move: idle ? "nothing" : "drop", reason: "no_lease" };
    }
    if (local.phase !== "none" && (order.lease_id !== local.leaseId || order.generation !== local.generation)) return otherLease(order, local);
    if (local.phase === "handing_over" || local.phase === "finished" || local.phase === "refused") {
        return { move: order.desired === "stop" ? "drop" : "nothing", reason: order.reason };
    }
    if (order.desired === "stop") return { move: local.phase === "none" ? "nothing" : "drop", reason: order.reason };
    const back = giveBack(order, local);
    if (back) return { move: "hand_over", reason: back };
    const whyNot = hold(order, local);
    return whyNot ? atRest(local, whyNot) : atWork(order, local);
}

/** A newer lease on the very unit at hand takes over the work already done: a unit does not depend on who leases it. */
function otherLease(order: Order, local: Local): Action {
    const sameUnit = order.unit.unit_id === local.unitId && (BUSY.includes(local.phase) || local.phase === "shelved");
    return { move: sameUnit ? "adopt" : "drop", reason: "superseded" };
}

function giveBack(order: Order, local: Local): string {
    if (!local.optedIn) return "opted_out";
    if (local.leaving) return "node_left";
    return order.desired === "hand_over" ? order.reason : "";
}

function hold(order: Order, local: Local): string {
    if (local.consentEnded) return "consent_ended";
    if (local.hindrance) return local.hindrance;
    if (order.desired !== "run") return order.reason;
    return local.silent ? "daemon_silent" : "";
}

function atRest(local: Local, reason: string): Action {
    if (BUSY.includes(local.phase) && local.mayGoOn) return { move: "pause", reason };
    if (local.phase === "paused" && local.saved && local.pausedS >= local.shelveAfterS) return { move: "shelve", reason };
    return { move: "nothing", reason };
}

function atWork(order: Order, local: Local): Action {
    if (!local.waited) return { move: "nothing", reason: "start_delayed" };
    if (local.phase === "none" || local.phase === "shelved") return { move: "start", reason: order.reason };
    if (BUSY.includes(local.phase) && !local.mayGoOn) return { move: "go_on", reason: order.reason };
    return { move: "nothing", reason: order.reason };
}
