"""Records as the operator sees them: pure functions from stored rows to JSON-ready dictionaries."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from gridsched.core.consent import Consent
from gridsched.core.errors import NotFound
from gridsched.core.facts import Fact, LeasePaused, LeaseResumed, SignalDegraded, UnitAccepted, kind_of
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LIVE, Lease
from gridsched.core.ledger import Account, Transfer, node_account, verify
from gridsched.core.policy import Decision, Input, Policy
from gridsched.core.round import Version
from gridsched.core.signal import UNIT, snapshot
from gridsched.core.work import WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.flow.decide import see
from gridsched.flow.observe import reason_of
from gridsched.ports import Tx

__all__ = ["decision_story", "fact", "job", "lease_story", "ledger", "nodes", "plain", "status"]

Json = dict[str, Any]

_INSTANT = timedelta(microseconds=1)
_OWN_KIND: Mapping[type[Fact], str] = {UnitAccepted: "unit_kind", SignalDegraded: "error_kind"}


def plain(record: object) -> Any:
    """Any record as JSON-ready values; moments as ISO 8601 in UTC."""
    return msgspec.to_builtins(record)


def fact(sequence: int, said: Fact) -> Json:
    """A fact with its place in the journal and its name. A field of its own called ``kind`` goes by a name that does not hide that."""
    fields: Json = plain(said)
    own = _OWN_KIND.get(type(said))
    if own is not None:
        fields[own] = fields.pop("kind")
    return {"seq": sequence, "kind": kind_of(said), **fields}


def job(tx: Tx, found: Job) -> Json:
    """A job with its newest version's quality."""
    version = tx.get(Version, found.job_id, found.version)
    evaluated = [v for v in tx.find(Version, job_id=found.job_id, order="-number", limit=50) if v.accuracy is not None]
    return {
        **plain(found),
        "job_id": found.job_id,
        "epoch": version.epoch if version else 0,
        "accuracy": evaluated[0].accuracy if evaluated else None,
        "digest": version.digest if version else None,
    }


def status(
    tx: Tx, policies: Iterable[Policy], *, now: datetime, speed: float, dry_run: bool = False, rows: Sequence[Json] | None = None
) -> Json:
    """Everything at a glance: each zone's target and draw with the reason, and each job's progress; ``rows`` is what `nodes` gives."""
    rows = nodes(tx, now=now, connected=set()) if rows is None else rows
    return {
        "now": now.isoformat(),
        "clock_speed": speed,
        "dry_run": dry_run,
        "zones": [
            _zone(tx, policy, now, [row for row in rows if row["zone"] == policy.zone and not row["revoked"]]) for policy in policies
        ],
        "jobs": [job(tx, found) for found in tx.find(Job)],
    }


def _zone(tx: Tx, policy: Policy, now: datetime, rows: Sequence[Json]) -> Json:
    zone = policy.zone
    state = tx.get(ZoneState, zone) or ZoneState(zone=zone)
    decision = tx.get(Decision, state.decision_id) if state.decision_id else None
    return {
        "zone": zone,
        "policy": policy.name,
        "paused": state.paused,
        "paused_at": plain(state.paused_at),
        "paused_by": state.paused_by,
        "target_w": decision.target_w if decision else 0.0,
        "reason": decision.reason.value if decision else "no_policy",
        "tier": decision.tier.value if decision else "none",
        "detail": decision.detail if decision else "nothing has been decided yet",
        "decision_id": state.decision_id,
        "leased_w": sum(lease.draws_w() for lease in tx.find(Lease, zone=zone, state=LIVE)),
        "drawn_w": sum(row["drawn_w"] for row in rows if row["present"]),
        "signals": {
            kind.value: {"value": seen.value, "unit": UNIT[kind], "age_s": seen.age_s, "fresh": seen.fresh, "source": seen.source}
            for kind, seen in see(tx, now, policy).states.items()
        },
        "nodes": dict(sorted(Counter(row["reason"] for row in rows).items())),
        "reward_micro_per_kwh": state.reward_micro_per_kwh,
        "reward_micro_per_unit": state.reward_micro_per_unit,
    }


def nodes(tx: Tx, *, now: datetime, connected: set[str]) -> list[Json]:
    """Every node: what it does, why, how well, and what it has earned."""
    presences = {p.node_id: p for p in tx.find(Presence)}
    consents = {c.node_id: c for c in tx.find(Consent)}
    leases = {lease.node_id: lease for lease in tx.find(Lease, state=LIVE)}
    units = {unit.unit_id: unit for unit in tx.find(WorkUnit, unit_id=tuple(lease.unit_id for lease in leases.values()))} if leases else {}
    zones = {zone.zone: zone for zone in tx.find(ZoneState)}
    targets = _targets(tx, zones)
    accounts = {account.account_id: account for account in tx.find(Account)}
    running = tx.find(Job, state=JobState.RUNNING)
    rows = []
    for node in tx.find(Node):
        presence, lease = presences.get(node.node_id), leases.get(node.node_id)
        zone = zones.get(node.zone) or ZoneState(zone=node.zone)
        reason = reason_of(
            node,
            presence,
            consents.get(node.node_id),
            lease,
            target_w=targets.get(node.zone),
            reward=zone.reward_micro_per_kwh,
            now=now,
            jobs=[job for job in running if job.spec.zone == node.zone],
        )
        rows.append(_node(node, presence, lease, units, accounts) | {"reason": reason.value, "connected": node.node_id in connected})
    return rows


def _targets(tx: Tx, zones: Mapping[str, ZoneState]) -> dict[str, float]:
    found = {name: tx.get(Decision, zone.decision_id) for name, zone in zones.items() if zone.decision_id}
    return {name: decision.target_w for name, decision in found.items() if decision is not None}


def _node(
    node: Node, presence: Presence | None, lease: Lease | None, units: Mapping[str, WorkUnit], accounts: Mapping[str, Account]
) -> Json:
    account = accounts.get(node_account(node.node_id))
    seen = presence or Presence(node_id=node.node_id)
    return {
        "node_id": node.node_id,
        "zone": node.zone,
        "device": node.device,
        "runtime": node.runtime,
        "power_w": node.power_w,
        "drawn_w": seen.drawn_w,
        "present": seen.present,
        "device_state": seen.device.value,
        "seen_at": plain(seen.seen_at),
        "speed": seen.speed,
        "reliability": seen.reliability,
        "register_j": seen.register_j,
        "lease_id": lease.lease_id if lease else None,
        "lease_state": lease.state.value if lease else None,
        "lease_reason": lease.reason.value if lease else None,
        "unit_id": lease.unit_id if lease else None,
        "step": lease.step if lease else None,
        "steps": units[lease.unit_id].spec.steps if lease and lease.unit_id in units else None,
        "earned_micro": account.balance_micro if account else 0,
        "pending_micro": account.credits_pending if account else 0,
        "revoked": node.revoked_at is not None,
        "verified": seen.verified,
        "quarantined_at": plain(node.quarantined_at),
        "quarantine_reason": node.quarantine_reason,
    }


def ledger(tx: Tx) -> Json:
    """All accounts, whether debits equal credits, and whether the chain of transfers is whole."""
    accounts = tx.find(Account)
    chain = tx.find(Transfer, order="sequence")
    broken = verify(chain)
    sums = {
        name: sum(getattr(a, name) for a in accounts) for name in ("debits_pending", "debits_posted", "credits_pending", "credits_posted")
    }
    return {
        "accounts": [plain(account) | {"balance_micro": account.balance_micro} for account in accounts],
        "balanced": sums["debits_pending"] == sums["credits_pending"] and sums["debits_posted"] == sums["credits_posted"],
        "chain_ok": broken is None,
        "broken_at": broken,
        "transfers": len(chain),
        **sums,
    }


def lease_story(tx: Tx, lease_id: str) -> Json:
    """The chain from a lease's transfers to the readings behind the decision by which it last started or went on. Raises `NotFound`.

    A pause that a control tick made carries that tick's ``decision_id``: the answer to "why was my node paused at 14:03?".
    """
    lease = tx.get(Lease, lease_id)
    if lease is None:
        raise NotFound(f"there is no lease {lease_id}; lease ids read JOB.r3.u2.l1, see gridsched nodes")
    decision = tx.get(Decision, lease.decision_id)
    unit = tx.get(WorkUnit, lease.unit_id)
    return {
        "lease": plain(lease),
        "unit": plain(unit.spec) | {"state": unit.state.value} if unit else None,
        "facts": [_at_tick(tx, lease.zone, number, said) for number, said in tx.facts(subject=lease_id)],
        "transfers": [plain(t) for t in tx.find(Transfer, lease_id=lease_id, order="sequence")],
        "decision": _decision(tx, decision) if decision else None,
    }


def decision_story(tx: Tx, decision_id: str) -> Json:
    """A decision, its policy's digest, and the reading behind each value it saw. Raises `NotFound`."""
    decision = tx.get(Decision, decision_id)
    if decision is None:
        raise NotFound(f"there is no decision {decision_id}; decision ids read ZONE.20180128T120000000, see gridsched policy explain")
    return {"decision": _decision(tx, decision)}


def _at_tick(tx: Tx, zone: str, number: int, said: Fact) -> Json:
    """A fact; a pause or a return to work with the decision of the control tick that made it, where one did."""
    ticks = tx.find(Decision, zone=zone, decided_at=said.at, limit=1) if isinstance(said, (LeasePaused, LeaseResumed)) else []
    return fact(number, said) | ({"decision_id": ticks[0].decision_id} if ticks else {})


def _decision(tx: Tx, decision: Decision) -> Json:
    body: Json = plain(decision) | {"decision_id": decision.decision_id}
    for told, seen in zip(body["inputs"], decision.inputs, strict=True):
        told |= {"unit": UNIT[seen.signal], "reading": _reading(tx, decision, seen)}
    return body


def _reading(tx: Tx, decision: Decision, seen: Input) -> Json | None:
    """The stored reading behind ``seen``, chosen by the rule that chose it then; None where it is not kept any more."""
    then = decision.decided_at
    back = timedelta(seconds=seen.age_s) + _INSTANT
    known = tx.readings(decision.zone, seen.signal, then - back, then + _INSTANT, known_at=then)
    state = snapshot(decision.zone, then, known).get(seen.signal)
    if state is None or (state.value, state.source) != (seen.value, seen.source):
        return None
    names = ("start", "end", "value", "quality", "source", "known_at")
    return {"zone": decision.zone, "signal": seen.signal.value} | {name: plain(getattr(state, name)) for name in names}
