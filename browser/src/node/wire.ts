// What crosses the network, as gridsched/wire.py has it: JSON with these very names. Durations are seconds of the daemon's clock;
// clock_speed says how many of them pass in a real second.

import type { UnitSpec } from "../trainer/spec.ts";

export type { UnitSpec } from "../trainer/spec.ts";
export { stepsOf } from "../trainer/spec.ts";

export const VERSION = 2;

export interface Join {
    code: string;
    node_id: string;
    device: string;
    power_w: number;
    memory_bytes: number;
    runtime: string;
    meter: string;
    version: number;
}

export interface Joined {
    node_id: string;
    token: string;
    zone: string;
    clock_speed: number;
    reward_micro_per_kwh: number;
    reward_micro_per_unit: number;
}

export interface Hello {
    instance: string;
    runtime: string;
    memory_bytes: number | null;
    version: number;
}

export interface LeaseReport {
    lease_id: string;
    generation: number;
    state: "starting" | "running" | "paused" | "refused";
    step: number;
    steps_executed: number;
    saved_step: number;
    speed: number;
    reason: string;
}

export interface MeterReport {
    register_j: number;
    age_s: number;
    power_w: number;
    method: "estimated" | "measured";
}

export type DeviceState = "free" | "user_active" | "hot" | "on_battery" | "disk_full";

export interface Sync {
    instance: string;
    device: DeviceState;
    lease: LeaseReport | null;
    meter: MeterReport | null;
}

export interface ConsentChoice {
    opted_in: boolean;
    for_s: number | null;
    max_w: number | null;
    min_reward_micro_per_kwh: number;
}

export interface HandOver {
    instance: string;
    lease_id: string;
    generation: number;
    continuation: string | null;
    step: number;
    steps_executed: number;
    reason: string;
    meter: MeterReport | null;
}

export interface UpdateNotice {
    instance: string;
    lease_id: string;
    generation: number;
    update: string | null;
    steps_executed: number;
    metrics: Record<string, number>;
    digests: [number, string][];
    meter: MeterReport | null;
}

export interface Order {
    lease_id: string;
    generation: number;
    desired: "run" | "pause" | "hand_over" | "stop";
    reason: string;
    power_w: number;
    ttl_s: number;
    wait_s: number;
    unit: UnitSpec;
    continuation: string | null;
    continuation_step: number;
}

export interface ConsentView {
    opted_in: boolean;
    left_s: number | null;
    max_w: number | null;
    min_reward_micro_per_kwh: number;
}

export interface Orders {
    node_id: string;
    clock_speed: number;
    sync_every_s: number;
    node_reason: string;
    consent: ConsentView;
    reward_micro_per_kwh: number;
    reward_micro_per_unit: number;
    earned_micro: number;
    order: Order | null;
    notice: string;
}

export interface StatementLine {
    transfer_id: string;
    kind: string;
    at: string;
    lease_id: string | null;
    amount_micro: number;
    energy_j: number | null;
    digest: string;
}

export interface Statement {
    node_id: string;
    balance_micro: number;
    pending_micro: number;
    energy_j: number;
    lines: StatementLine[];
}

/** A job that this node may be asked to train; `accuracy` is that of its newest evaluated version. */
export interface OfferedJob {
    job_id: string;
    name: string;
    dataset: string;
    attribution: string;
    epoch: number;
    epochs: number;
    accuracy: number | null;
}

/** What the zone offers now: `target_w` may be drawn because of `reason`, the policy's own word. */
export interface Offer {
    zone: string;
    target_w: number;
    reason: string;
    reward_micro_per_kwh: number;
    reward_micro_per_unit: number;
    jobs: OfferedJob[];
}

const LONG_SEED = /"seed":\s*(-?\d{16,})/g;

/** JSON as the daemon writes it. A seed too long for a number becomes a bigint: a rounded seed would be another seed. */
export function parse<T>(text: string): T {
    return JSON.parse(text.replace(LONG_SEED, '"seed":"$1"'), (key, value: unknown) =>
        key === "seed" && typeof value === "string" ? BigInt(value) : value,
    ) as T;
}
