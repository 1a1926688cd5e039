// What the server says, as far as the console reads it (gridsched/web/views.py, timeline.py, console_api.py). Moments are ISO 8601, powers W.

export type Role = "viewer" | "operator" | "admin";

export interface Me {
    readonly name: string;
    readonly role: Role | "node";
    readonly version: string;
    readonly now: string;
    readonly clock_speed: number;
    readonly dry_run: boolean;
    readonly zones: readonly { readonly zone: string; readonly policy: string; readonly timezone: string }[];
}

export interface ZoneRow {
    readonly zone: string;
    readonly policy: string;
    readonly paused: boolean;
    readonly paused_at: string | null;
    readonly paused_by: string;
    readonly target_w: number;
    readonly drawn_w: number;
    readonly leased_w: number;
    readonly reason: string;
    readonly tier: string;
    readonly detail: string;
    readonly decision_id: string;
    readonly signals: Readonly<Record<string, { readonly value: number; readonly unit: string; readonly fresh: boolean; readonly source: string }>>;
    readonly nodes: Readonly<Record<string, number>>;
}

export interface NodeRow {
    readonly node_id: string;
    readonly zone: string;
    readonly device: string;
    readonly runtime: string;
    readonly power_w: number;
    readonly drawn_w: number;
    readonly present: boolean;
    readonly connected: boolean;
    readonly seen_at: string | null;
    readonly speed: number;
    readonly reliability: number;
    readonly register_j: number;
    readonly lease_reason: string | null;
    readonly unit_id: string | null;
    readonly step: number | null;
    readonly steps: number | null;
    readonly earned_micro: number;
    readonly pending_micro: number;
    readonly reason: string;
    readonly revoked: boolean;
    readonly verified: number;
    readonly quarantined_at: string | null;
    readonly quarantine_reason: string;
}

export interface JobRow {
    readonly job_id: string;
    readonly state: "running" | "done" | "cancelled" | "failed";
    readonly reason: string;
    readonly epoch: number;
    readonly version: number;
    readonly accuracy: number | null;
    readonly submitted_at: string;
    readonly spec: { readonly name: string; readonly zone: string; readonly deadline: string | null; readonly method: { readonly epochs: number } };
}

/** How all stands: kept up to date by the live line. */
export interface House {
    now: string;
    clock_speed: number;
    dry_run: boolean;
    deeds: number;
    zones: Map<string, ZoneRow>;
    nodes: Map<string, NodeRow>;
    jobs: Map<string, JobRow>;
}

export interface Slot {
    readonly start: string;
    readonly end: string;
    readonly value: number;
    readonly expected: boolean;
}

export interface Decided {
    readonly decision_id: string;
    readonly decided_at: string;
    readonly target_w: number;
    readonly tier: string;
    readonly reason: string;
    readonly detail: string;
}

export interface Foretold {
    readonly start: string;
    readonly end: string;
    readonly target_w: number;
    readonly tier: string;
    readonly reason: string;
    readonly detail: string;
}

export interface Timeline {
    readonly zone: string;
    readonly timezone: string;
    readonly now: string;
    readonly start: string;
    readonly end: string;
    readonly objective: string;
    readonly signals: Readonly<Record<string, { readonly unit: string; readonly slots: readonly Slot[] }>>;
    readonly decisions: readonly Decided[];
    readonly drawn: readonly (readonly [string, number, number])[];
    readonly foretold: readonly Foretold[];
    readonly hours: readonly { readonly job_id: string; readonly start: string; readonly end: string }[];
}

export interface Epoch {
    readonly number: number;
    readonly ended_at: string | null;
    readonly useful_j: number;
    readonly wasted_j: number;
    readonly idle_j: number;
    readonly reward_micro: number;
    readonly cost_micro: number;
    readonly units: number;
    readonly loss: number | null;
    readonly accuracy: number | null;
}

export interface Version {
    readonly number: number;
    readonly epoch: number;
    readonly accuracy: number | null;
}

export interface Waiting {
    readonly unit_id: string;
    readonly waits: string;
}

export interface Books {
    readonly accounts: readonly { readonly account_id: string; readonly debits_pending: number; readonly debits_posted: number; readonly credits_pending: number; readonly credits_posted: number; readonly balance_micro: number }[];
    readonly balanced: boolean;
    readonly chain_ok: boolean;
    readonly broken_at: number | null;
    readonly transfers: number;
}

export interface Transfer {
    readonly sequence: number;
    readonly kind: string;
    readonly debit: string;
    readonly credit: string;
    readonly amount_micro: number;
    readonly at: string;
    readonly before: string;
    readonly digest: string;
}

export interface Rules {
    readonly name: string;
    readonly digest: string;
    readonly when: readonly { readonly signal: string; readonly comparison: "above" | "below"; readonly start: number; readonly unit: string }[];
    readonly watts: number | null;
    readonly share_of: string | null;
    readonly share: number;
    readonly max_w: number | null;
    readonly reward_micro_per_kwh: number;
    readonly reward_micro_per_unit: number;
}

export interface PolicyFile {
    readonly zone: string;
    readonly name: string;
    readonly text: string;
    readonly sha256: string;
    readonly rules: Rules;
}

export interface Checked {
    readonly ok: boolean;
    readonly problems: readonly { readonly line: number | null; readonly key: string; readonly says: string }[];
    readonly policy: Rules | null;
}

export interface Preview {
    readonly zone: string;
    readonly timezone: string;
    readonly start: string;
    readonly end: string;
    readonly signals: Readonly<Record<string, readonly Slot[]>>;
    readonly present: readonly Foretold[];
    readonly draft: readonly Foretold[];
    readonly reward_micro_per_kwh: { readonly present: number; readonly draft: number };
}

export interface Deed {
    readonly number: number;
    readonly at: string;
    readonly who: string;
    readonly role: string;
    readonly verb: string;
    readonly thing: string;
    readonly detail: string;
}

export interface TokenRow {
    readonly name: string;
    readonly role: Role;
    readonly made_at: string;
    readonly revoked_at: string | null;
}

export interface Invited {
    readonly zone: string;
    readonly made_at: string;
    readonly expires_at: string;
    readonly used_by: string | null;
}
