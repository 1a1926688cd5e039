"""A job moves on: rounds open, merge into versions, epochs end, the last version ends the job."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from gridsched.core.cut import evaluation_unit, open_round, rounds_per_epoch, total_rounds, units_of
from gridsched.core.errors import Conflict, InvalidInput
from gridsched.core.facts import Fact, JobEnded, JobSubmitted, RoundMerged, RoundOpened, UpdateRejected, VersionEvaluated, WishesChanged
from gridsched.core.job import Job, JobSpec, JobState
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end
from gridsched.core.round import Epoch, Round, RoundState, Version, close
from gridsched.core.timing import JobSchedule
from gridsched.core.work import Refusal, UnitState, WorkUnit
from gridsched.flow import local, settle
from gridsched.flow.tell import lease_ended
from gridsched.ports import Tx

__all__ = ["cancel", "evaluated", "fail", "merged", "ready_to_merge", "redo", "submit"]


def submit(tx: Tx, now: datetime, spec: JobSpec, *, initial_bytes: int) -> list[Fact]:
    """Take a job in and open its first round. The same spec again changes nothing, unless its owner's wishes have changed.

    Another specification under its id raises `Conflict`.
    """
    known = tx.get(Job, spec.job_id)
    if known is not None:
        return _wish(tx, now, known, spec)
    _demand_time(now, spec)
    first = Version(
        job_id=spec.job_id,
        number=0,
        digest=spec.initial,
        parent=None,
        round_id=None,
        epoch=0,
        updates=(),
        size_bytes=initial_bytes,
        made_at=now,
    )
    tx.insert(Job(spec=spec, state=JobState.RUNNING, submitted_at=now), first)
    return [JobSubmitted(at=now, job_id=spec.job_id, name=spec.name), *_open(tx, now, spec, number=0, base=spec.initial)]


def _wish(tx: Tx, now: datetime, job: Job, spec: JobSpec) -> list[Fact]:
    """The job goes on with its owner's new wishes."""
    if job.spec.without_wishes != spec.without_wishes:
        raise Conflict(f"job {job.job_id} exists with another specification; submit under a new id")
    if job.spec == spec:
        return []
    _demand_time(now, spec)
    tx.put(replace(job, spec=spec))
    return [WishesChanged(at=now, job_id=job.job_id, priority=spec.priority, deadline=spec.deadline, top_up=spec.top_up)]


def _demand_time(now: datetime, spec: JobSpec) -> None:
    if spec.deadline is not None and spec.deadline <= now:
        raise InvalidInput(f"job {spec.job_id}: the deadline {spec.deadline:%Y-%m-%d %H:%M} UTC is over at {now:%H:%M}; give a later one")


def cancel(tx: Tx, now: datetime, job_id: str, *, reason: str = "cancelled by its owner") -> list[Fact]:
    """End a job; its live leases are revoked, and energy drawn in good faith is paid."""
    job = tx.must(Job, job_id)
    return _end(tx, now, job, JobState.CANCELLED, reason) if job.state is JobState.RUNNING else []


def fail(tx: Tx, now: datetime, job_id: str, reason: str) -> list[Fact]:
    """End a job that cannot come to its end; what was drawn for it is paid."""
    job = tx.must(Job, job_id)
    return _end(tx, now, job, JobState.FAILED, reason) if job.state is JobState.RUNNING else []


def ready_to_merge(tx: Tx) -> list[Round]:
    """Open rounds whose units have all been accepted: what the daemon should merge next, also after a restart."""
    rounds = [rnd for rnd in tx.find(Round, state=RoundState.OPEN) if tx.count(WorkUnit, round_id=rnd.round_id)]
    return [rnd for rnd in rounds if not tx.count(WorkUnit, round_id=rnd.round_id, state=(UnitState.OPEN, UnitState.LEASED))]


def redo(tx: Tx, now: datetime, round_id: str, *, lost: Mapping[str, str]) -> list[Fact]:
    """Open units again whose accepted updates can no longer be read; ``lost`` says why, by unit id. What was paid stays paid."""
    facts: list[Fact] = []
    if tx.must(Round, round_id).state is not RoundState.OPEN:
        return facts
    for unit in tx.find(WorkUnit, round_id=round_id, state=UnitState.ACCEPTED):
        if unit.unit_id not in lost:
            continue
        lease = tx.must(Lease, unit.accepted_lease)
        tx.put(replace(unit, state=UnitState.OPEN, update=None, update_norm=None, accepted_lease=None, accepted_at=None))
        facts.append(
            UpdateRejected(
                at=now,
                job_id=lease.job_id,
                unit_id=unit.unit_id,
                node_id=lease.node_id,
                lease_id=lease.lease_id,
                reason=Refusal.UNREADABLE.value,
                detail=lost[unit.unit_id],
            )
        )
    return facts


def merged(tx: Tx, now: datetime, round_id: str, *, digest: str, size_bytes: int) -> list[Fact]:
    """The round has become the next version. Journal it and go on; saying it twice changes nothing."""
    rnd = tx.must(Round, round_id)
    job = tx.must(Job, rnd.job_id)
    if rnd.state is not RoundState.OPEN or job.state is not JobState.RUNNING:
        return []
    units = sorted(tx.find(WorkUnit, round_id=round_id), key=lambda unit: unit.index)
    assert all(unit.state is UnitState.ACCEPTED and unit.update for unit in units), f"round {round_id} is not complete"
    version = Version(
        job_id=job.job_id,
        number=rnd.number + 1,
        digest=digest,
        parent=rnd.base,
        round_id=round_id,
        epoch=rnd.epoch,
        updates=tuple((unit.unit_id, unit.update or "", unit.spec.samples) for unit in units),
        size_bytes=size_bytes,
        made_at=now,
    )
    tx.insert(version)
    tx.put(close(rnd, RoundState.MERGED, now), replace(job, version=version.number))
    samples = sum(unit.spec.samples for unit in units)
    facts: list[Fact] = [
        RoundMerged(at=now, job_id=job.job_id, round_id=round_id, epoch=rnd.epoch, version=version.number, digest=digest, samples=samples)
    ]
    return facts + _after_version(tx, now, job, version)


def _after_version(tx: Tx, now: datetime, job: Job, version: Version) -> list[Fact]:
    facts: list[Fact] = []
    test = None
    if version.number % rounds_per_epoch(job.spec) == 0:
        test = evaluation_unit(job.spec, version=version)
        if test is None:
            facts += settle.finish_epoch(tx, now, job.job_id, version.epoch)
        else:
            tx.insert(test)
    if version.number < total_rounds(job.spec):
        return facts + _open(tx, now, job.spec, number=version.number, base=version.digest)
    return facts if test is not None else facts + _end(tx, now, tx.must(Job, job.job_id), JobState.DONE, "all epochs merged")


def evaluated(tx: Tx, now: datetime, unit: WorkUnit, metrics: dict[str, float]) -> list[Fact]:
    """An evaluate unit was accepted: its version has a quality, its epoch is over, and the last one ends the job."""
    spec = unit.spec
    version = tx.must(Version, spec.job_id, spec.version)
    samples = int(metrics.get("samples", spec.samples))
    correct, answers = metrics.get("correct"), metrics.get("count", samples)  # a text model answers many times per sample
    accuracy = correct / answers if correct is not None and answers > 0 else None
    loss = float(metrics["loss"])
    tx.put(replace(version, loss=loss, accuracy=accuracy, test_samples=samples))
    tx.put(replace(tx.must(Epoch, spec.job_id, spec.epoch), loss=loss, accuracy=accuracy))
    facts: list[Fact] = [
        VersionEvaluated(at=now, job_id=spec.job_id, version=spec.version, epoch=spec.epoch, loss=loss, accuracy=accuracy, samples=samples)
    ]
    facts += settle.finish_epoch(tx, now, spec.job_id, spec.epoch)
    job = tx.must(Job, spec.job_id)
    waiting = tx.count(WorkUnit, job_id=spec.job_id, state=(UnitState.OPEN, UnitState.LEASED))
    if job.state is JobState.RUNNING and job.version == total_rounds(job.spec) and not waiting:
        facts += _end(tx, now, job, JobState.DONE, "all epochs merged and evaluated")
    return facts


def _open(tx: Tx, now: datetime, spec: JobSpec, *, number: int, base: str) -> list[Fact]:
    rnd = open_round(spec, number=number, base=base, now=now)
    units = local.units_for(tx, now, spec, rnd) if spec.local else units_of(spec, rnd)
    tx.insert(rnd, *units)
    if tx.get(Epoch, spec.job_id, rnd.epoch) is None:
        tx.insert(Epoch(job_id=spec.job_id, number=rnd.epoch, started_at=now))
    return [RoundOpened(at=now, job_id=spec.job_id, round_id=rnd.round_id, epoch=rnd.epoch, units=len(units))]


def _end(tx: Tx, now: datetime, job: Job, state: JobState, reason: str) -> list[Fact]:
    facts: list[Fact] = []
    for lease in tx.find(Lease, job_id=job.job_id, state=LIVE):
        ended = end(lease, LeaseState.REVOKED, LeaseReason.JOB_ENDED, now)
        tx.put(ended)
        facts.append(lease_ended(ended, now))
    for unit in tx.find(WorkUnit, job_id=job.job_id, state=(UnitState.OPEN, UnitState.LEASED)):
        abandoned = replace(unit, state=UnitState.ABANDONED)
        tx.put(abandoned)
        facts += settle.settle_unit(tx, now, abandoned)
    for rnd in tx.find(Round, job_id=job.job_id, state=RoundState.OPEN):
        tx.put(close(rnd, RoundState.ABANDONED, now))
    tx.put(replace(job, state=state, reason=reason))
    if tx.get(JobSchedule, job.job_id) is not None:
        tx.delete(JobSchedule, job_id=job.job_id)
    return [*facts, JobEnded(at=now, job_id=job.job_id, state=state.value, reason=reason)]
