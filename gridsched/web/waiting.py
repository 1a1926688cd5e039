"""What a job's round waits for: each unit under way or waiting, who has it, how far it is, and why it does not go on."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from gridsched.core.copies import Held, Pace, doubt
from gridsched.core.facts import LeaseEnded, UpdateRejected, kind_of
from gridsched.core.fleet import Presence
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow.open_work import COULD_NOT, asked_again
from gridsched.ports import Tx
from gridsched.web.views import plain

__all__ = ["units"]

Json = dict[str, Any]

_REFUSED = (kind_of(LeaseEnded), kind_of(UpdateRejected))
_MOST_TOLD = 50
"""Waiting units of which is told who could not do them."""


def units(tx: Tx, job: Job, now: datetime, *, pace: Pace, limit: int) -> list[Json]:
    """The job's units that are not done, at most ``limit``: those in doubt first, then those at work, then those that wait for a node."""
    waiting = tx.find(WorkUnit, job_id=job.job_id, state=(UnitState.OPEN, UnitState.LEASED))
    leases: dict[str, list[Lease]] = {}
    for lease in tx.find(Lease, job_id=job.job_id, state=LIVE):
        leases.setdefault(lease.unit_id, []).append(lease)
    ids = tuple(sorted({lease.node_id for held in leases.values() for lease in held}))
    seen = {presence.node_id: presence for presence in tx.find(Presence, node_id=ids)}
    rows = [_unit(unit, sorted(leases.get(unit.unit_id, ()), key=lambda each: each.generation), seen, now, pace) for unit in waiting]
    rows.sort(key=lambda row: (row["state"] == UnitState.OPEN, not any(lease["doubt"] for lease in row["leases"])))
    _tell_who_could_not(tx, now, rows[:limit])
    return rows[:limit]


def _tell_who_could_not(tx: Tx, now: datetime, rows: Sequence[Json]) -> None:
    """Add to what waits for a node which ones have had it, why they could not do it, and when they are asked again."""
    waiting = {row["unit_id"]: row for row in rows if row["state"] == UnitState.OPEN}
    tried: dict[str, dict[str, list[Lease]]] = {}
    for lease in tx.find(Lease, unit_id=tuple(waiting), reason=COULD_NOT) if waiting else ():
        tried.setdefault(lease.unit_id, {}).setdefault(lease.node_id, []).append(lease)
    for unit_id, nodes in list(tried.items())[:_MOST_TOLD]:
        waiting[unit_id]["waits"] += "".join(f"; {_could_not(tx, now, tries)}" for tries in nodes.values())


def _could_not(tx: Tx, now: datetime, tries: Sequence[Lease]) -> str:
    last = max(tries, key=lambda lease: lease.generation)
    words = [fact.detail for _, fact in tx.facts(kinds=_REFUSED, subject=last.lease_id) if isinstance(fact, LeaseEnded | UpdateRejected)]
    why = next(filter(None, words), str(last.reason))
    often = f" {len(tries)} times" if len(tries) > 1 else ""
    again = asked_again(tries)
    later = f", and is asked again at {again:%H:%M} UTC" if again is not None and again > now else ""
    return f"{last.node_id} could not do it{often}: {why}{later}"


def _unit(unit: WorkUnit, leases: Sequence[Lease], seen: Mapping[str, Presence], now: datetime, pace: Pace) -> Json:
    held = [Held(unit=unit, lease=each, holder=seen.get(each.node_id) or Presence(node_id=each.node_id)) for each in leases]
    return {
        "unit_id": unit.unit_id,
        "kind": unit.spec.kind.value,
        "version": unit.spec.version,
        "state": unit.state.value,
        "steps": unit.spec.steps,
        "continuation_step": unit.continuation_step,
        "leases": [_lease(each, now, pace) for each in held],
        "waits": _sentence(unit, held, now, pace),
    }


def _lease(held: Held, now: datetime, pace: Pace) -> Json:
    lease, why = held.lease, doubt(held, now, pace=pace)
    return {
        "lease_id": lease.lease_id,
        "node_id": lease.node_id,
        "state": lease.state.value,
        "reason": lease.reason.value,
        "since": plain(lease.changed_at),
        "step": lease.step,
        "doubt": why.value if why is not None else None,
    }


def _sentence(unit: WorkUnit, held: Sequence[Held], now: datetime, pace: Pace) -> str:
    name = unit.unit_id.removeprefix(f"{unit.spec.job_id}.")
    if not held:
        return f"{name} waits for a node" + (f", from step {unit.continuation_step}" if unit.continuation_step else "")
    first, *copies = held
    told = f"{name} on {first.lease.node_id} since {first.lease.offered_at:%H:%M} UTC, {_standing(first, now, pace)}"
    return "; ".join([told, *(f"a copy on {copy.lease.node_id}, {_standing(copy, now, pace)}" for copy in copies)])


def _standing(held: Held, now: datetime, pace: Pace) -> str:
    lease, holder, why = held.lease, held.holder, doubt(held, now, pace=pace)
    if why is LeaseReason.HOLDER_CUT and holder.cut_at is not None:
        return f"out of reach since {holder.cut_at:%H:%M:%S}"
    if why is LeaseReason.HOLDER_SILENT:
        return f"not heard of since {holder.seen_at:%H:%M:%S}" if holder.seen_at else "never heard of"
    if lease.state is LeaseState.PAUSED:
        return f"paused: {lease.reason}" + (", giving it back" if lease.wants_hand_over else "")
    if lease.state is LeaseState.OFFERED:
        return f"offered: {lease.reason}"
    return f"at step {lease.step} of {held.unit.spec.steps}"
