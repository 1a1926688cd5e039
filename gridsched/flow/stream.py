"""Jobs with a quorum: units come and go, and every round takes the next ``quorum`` of them (see `core.stream`).

All of it is in the rows, so a daemon that dies goes on where it was: a unit's round is the one it is, or will be, merged in,
and the epoch's row counts how much of its order has been cut.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gridsched.core.cut import units_per_epoch
from gridsched.core.facts import Fact, UnitStale
from gridsched.core.job import Job, JobSpec
from gridsched.core.lease import LeaseReason
from gridsched.core.round import Epoch, Round, RoundState
from gridsched.core.stream import again, cut, rebased, split
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.flow.abandon import abandon
from gridsched.ports import Tx

__all__ = ["fill", "fit", "is_over", "move_on", "refill", "take_in"]

_UNDER_WAY = (UnitState.OPEN, UnitState.LEASED)


def take_in(tx: Tx, now: datetime, unit: WorkUnit) -> tuple[WorkUnit, list[Fact]]:
    """A finished unit, about to be accepted, in the first round that is not full; abandoned where it is too stale for that.

    Then its range is trained again. A unit of a job without a quorum is in its round already.
    """
    job = tx.must(Job, unit.spec.job_id)
    method = job.spec.method
    if not method.quorum or unit.spec.kind is not UnitKind.TRAIN or unit.audits:
        return unit, []
    rnd = _open_round(tx, job)
    if unit.round_id != rnd.round_id:  # it was accepted before, for a round to come, and opened again: no round is left empty
        return unit, []
    number = rnd.number
    while tx.count(WorkUnit, round_id=_round_id(job.spec, number), state=UnitState.ACCEPTED, audits="") >= method.quorum:
        number += 1
    staleness = number - unit.spec.version
    if staleness <= method.max_staleness:
        return replace(unit, round_id=_round_id(job.spec, number)), []
    return replace(unit, state=UnitState.ABANDONED, update=None, update_norm=None), _redo(tx, now, unit, rnd, staleness)


def _redo(tx: Tx, now: datetime, unit: WorkUnit, rnd: Round, staleness: int) -> list[Fact]:
    tx.insert(again(unit, rnd))
    return [UnitStale(at=now, job_id=unit.spec.job_id, unit_id=unit.unit_id, staleness=staleness)]


def refill(tx: Tx, unit: WorkUnit) -> None:
    """A unit is done with: cut the next ones, so that as many as before are under way."""
    job = tx.must(Job, unit.spec.job_id)
    if job.spec.method.quorum and unit.spec.kind is UnitKind.TRAIN:
        fill(tx, job.spec, _open_round(tx, job))


def fill(tx: Tx, spec: JobSpec, rnd: Round) -> None:
    """Cut units from the epoch's order until ``units_at_once`` are under way, or nothing is left of it."""
    epoch = tx.must(Epoch, spec.job_id, rnd.epoch)
    lacking = max(spec.units_at_once - tx.count(WorkUnit, round_id=rnd.round_id, state=_UNDER_WAY, audits=""), 0)
    until = min(epoch.cut + lacking, units_per_epoch(spec))
    if until > epoch.cut:
        tx.insert(*(cut(spec, rnd, place) for place in range(epoch.cut, until)))
        tx.put(replace(epoch, cut=until))


def move_on(tx: Tx, now: datetime, spec: JobSpec, rnd: Round, before: Round) -> list[Fact]:
    """Take what is under way into the round that follows ``before``.

    What no node has seen begins from the new version; what could no longer be merged stops now, before it costs more.
    """
    facts: list[Fact] = []
    for unit in tx.find(WorkUnit, round_id=before.round_id, state=_UNDER_WAY, audits=""):
        if unit.leases == 0:
            tx.put(rebased(unit, rnd))
        elif (staleness := rnd.number - unit.spec.version) > spec.method.max_staleness:
            facts += abandon(tx, now, unit, LeaseReason.TOO_STALE) + _redo(tx, now, unit, rnd, staleness)
        else:
            tx.put(replace(unit, round_id=rnd.round_id))
    return facts


def is_over(tx: Tx, spec: JobSpec, rnd: Round) -> bool:
    """Whether nothing of the epoch is left to be merged after ``rnd``."""
    following = (rnd.round_id, _round_id(spec, rnd.number + 1))
    left = tx.count(WorkUnit, round_id=following[0], state=_UNDER_WAY, audits="") + tx.count(WorkUnit, round_id=following[1])
    return not left and tx.must(Epoch, spec.job_id, rnd.epoch).cut == units_per_epoch(spec)


def fit(tx: Tx, unit: WorkUnit, *, speed: float) -> Sequence[WorkUnit]:
    """``unit``, about to be offered, cut for a node of that ``speed`` (steps per second): the piece for it first, then what is left.

    Only units of a stream that no node has seen yet are cut; any other is returned as it is.
    """
    method = tx.must(Job, unit.spec.job_id).spec.method
    if not (method.quorum and method.unit_seconds) or unit.spec.kind is not UnitKind.TRAIN or unit.audits or unit.leases:
        return (unit,)
    pieces = split(unit, speed=speed, seconds=method.unit_seconds)
    if pieces is None:
        return (unit,)
    tx.put(replace(unit, state=UnitState.ABANDONED))
    tx.insert(*pieces)
    return pieces


def _open_round(tx: Tx, job: Job) -> Round:
    (rnd,) = tx.find(Round, job_id=job.job_id, state=RoundState.OPEN)
    return rnd


def _round_id(spec: JobSpec, number: int) -> str:
    return f"{spec.job_id}.r{number}"
