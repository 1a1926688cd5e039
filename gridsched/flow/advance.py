"""A job moves on: rounds open, merge into versions, epochs end, the last version ends the job."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gridsched.core.cut import evaluation_unit, is_asked, open_round, rounds_per_epoch, units_of
from gridsched.core.errors import Conflict, InvalidInput
from gridsched.core.facts import (
    Fact,
    JobEnded,
    JobSubmitted,
    RoundCutShort,
    RoundMerged,
    RoundOpened,
    UnitSkipped,
    UpdateRejected,
    VersionEvaluated,
    WishesChanged,
)
from gridsched.core.job import Job, JobSpec, JobState
from gridsched.core.lease import Lease, LeaseReason
from gridsched.core.round import Epoch, Round, RoundState, Version, close
from gridsched.core.timing import JobSchedule
from gridsched.core.work import Refusal, UnitKind, UnitState, WorkUnit
from gridsched.flow import local, settle, stream
from gridsched.flow.abandon import abandon
from gridsched.ports import Tx

__all__ = [
    "cancel",
    "cut_short",
    "epoch_over",
    "evaluated",
    "fail",
    "hopeless",
    "merged",
    "ready_to_merge",
    "redo",
    "skip",
    "submit",
    "taken",
]

_WAITING = (UnitState.OPEN, UnitState.LEASED)


def submit(tx: Tx, now: datetime, spec: JobSpec, *, initial_bytes: int, wasm_lacks: str = "") -> list[Fact]:
    """Take a job in and open its first round. The same spec again changes nothing, unless its owner's wishes have changed.

    Another specification under its id raises `Conflict`.
    """
    known = tx.get(Job, spec.job_id)
    if known is not None:
        return _wish(tx, now, known, spec, wasm_lacks)
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
    tx.insert(Job(spec=spec, state=JobState.RUNNING, submitted_at=now, wasm_lacks=wasm_lacks), first)
    return [JobSubmitted(at=now, job_id=spec.job_id, name=spec.name), *_open(tx, now, spec, number=0, base=spec.initial, epoch=0)]


def _wish(tx: Tx, now: datetime, job: Job, spec: JobSpec, wasm_lacks: str) -> list[Fact]:
    """The job goes on with its owner's new wishes; a newer release may cover more of it."""
    if job.spec.without_wishes != spec.without_wishes:
        raise Conflict(f"job {job.job_id} exists with another specification; submit under a new id")
    if (job.spec, job.wasm_lacks) == (spec, wasm_lacks):
        return []
    _demand_time(now, spec)
    wished = replace(job, spec=spec, wasm_lacks=wasm_lacks)
    tx.put(wished)
    told = WishesChanged(at=now, job_id=job.job_id, priority=spec.priority, deadline=spec.deadline, top_up=spec.top_up)
    return [told, *(local.wishes_changed(tx, now, wished) if spec.local else [])]


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
    """Open rounds that wait for no more units: what the daemon should merge next, also after a restart."""
    return [rnd for rnd in tx.find(Round, state=RoundState.OPEN) if _is_ready(tx, rnd)]


def _is_ready(tx: Tx, rnd: Round) -> bool:
    """Whether none of its units is under way, or its quorum has come; one that has nobody waits for somebody, and any for its audits."""
    of_it = {"round_id": rnd.round_id, "audits": ""}
    waiting = tx.count(WorkUnit, **of_it, state=_WAITING)
    if tx.count(WorkUnit, round_id=rnd.round_id, state=_WAITING) > waiting:
        return False
    spec = tx.must(Job, rnd.job_id).spec
    if not waiting:
        return tx.count(WorkUnit, **of_it) > 0 and not (spec.local and local.has_nobody(tx, rnd))
    quorum = spec.method.quorum
    return 0 < quorum <= tx.count(WorkUnit, **of_it, state=UnitState.ACCEPTED)


def taken(tx: Tx, round_id: str) -> list[WorkUnit]:
    """The units that a round which is ready merges, in their canonical order; from then on no other joins them."""
    accepted = tx.find(WorkUnit, round_id=round_id, state=UnitState.ACCEPTED, audits="")
    return sorted(accepted, key=lambda unit: (unit.index, unit.unit_id))


def redo(tx: Tx, now: datetime, round_id: str, *, lost: Mapping[str, str]) -> list[Fact]:
    """Open units again whose accepted updates can no longer be read; ``lost`` says why, by unit id. What was paid stays paid."""
    facts: list[Fact] = []
    if tx.must(Round, round_id).state is not RoundState.OPEN:
        return facts
    for unit in tx.find(WorkUnit, round_id=round_id, state=UnitState.ACCEPTED):
        if unit.unit_id not in lost:
            continue
        lease = tx.must(Lease, unit.accepted_lease)
        settle.unbook(tx, unit, lease, units=1)
        anew = replace(unit, continuation=None, continuation_step=0, answer="")  # stored middles are kept only until their unit is done
        tx.put(replace(anew, state=UnitState.OPEN, update=None, update_norm=None, accepted_lease=None, accepted_at=None))
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


def merged(
    tx: Tx,
    now: datetime,
    round_id: str,
    *,
    digest: str,
    size_bytes: int,
    outer: str | None = None,
    step: str | None = None,
    step_bytes: int = 0,
    made_of: Sequence[tuple[str, str | None]] | None = None,
) -> list[Fact]:
    """The round has become the next version. Journal it and go on; saying it twice changes nothing.

    ``made_of`` are the (unit id, update digest) that were read for it (None: those that are there). Where the round takes others by
    now, because a node was found to lie meanwhile, nothing is journaled and it is merged again.
    """
    rnd = tx.must(Round, round_id)
    job = tx.must(Job, rnd.job_id)
    if rnd.state is not RoundState.OPEN or job.state is not JobState.RUNNING:
        return []
    units = taken(tx, round_id)
    if made_of is not None and list(made_of) != [(unit.unit_id, unit.update) for unit in units]:
        return []
    assert _is_ready(tx, rnd), f"round {round_id} still waits for units"
    behind = tuple(rnd.number - unit.spec.version for unit in units)
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
        staleness=behind if any(behind) else (),
        outer=outer,
        step=step,
        step_bytes=step_bytes,
    )
    tx.insert(version)
    tx.put(close(rnd, RoundState.MERGED, now), replace(job, version=version.number))
    facts: list[Fact] = [
        RoundMerged(
            at=now,
            job_id=job.job_id,
            round_id=round_id,
            epoch=rnd.epoch,
            version=version.number,
            digest=digest,
            samples=sum(unit.spec.samples for unit in units),
            staleness=sum(behind) / max(len(behind), 1),
        )
    ]
    return facts + _after_version(tx, now, job, version, rnd)


def _after_version(tx: Tx, now: datetime, job: Job, version: Version, rnd: Round) -> list[Fact]:
    spec = job.spec
    over = stream.is_over(tx, spec, rnd) if spec.method.quorum else version.number % rounds_per_epoch(spec) == 0
    if not over:
        return _open(tx, now, spec, number=version.number, base=version.digest, epoch=rnd.epoch, before=rnd)
    facts: list[Fact] = []
    test = evaluation_unit(spec, version=version)
    if test is None:
        facts += settle.finish_epoch(tx, now, job.job_id, version.epoch)
    else:
        tx.insert(test)
    if rnd.epoch + 1 < spec.method.epochs:
        return facts + _open(tx, now, spec, number=version.number, base=version.digest, epoch=rnd.epoch + 1)
    return facts if test is not None else facts + _end(tx, now, tx.must(Job, job.job_id), JobState.DONE, "all epochs merged")


def cut_short(tx: Tx, now: datetime) -> list[Fact]:
    """Give up the units that open rounds have waited for longer than their methods' ``grace_s``, where at least one has come."""
    facts: list[Fact] = []
    for rnd in tx.find(Round, state=RoundState.OPEN):
        grace_s = tx.must(Job, rnd.job_id).spec.method.grace_s
        if not grace_s or now - rnd.opened_at < timedelta(seconds=grace_s) or not taken(tx, rnd.round_id):
            continue
        late = tx.find(WorkUnit, round_id=rnd.round_id, state=_WAITING, audits="")
        for unit in late:
            facts += abandon(tx, now, unit, LeaseReason.ROUND_CLOSED)
        if late:
            samples = sum(unit.spec.samples for unit in late)
            facts.append(RoundCutShort(at=now, job_id=rnd.job_id, round_id=rnd.round_id, epoch=rnd.epoch, units=len(late), samples=samples))
    return facts


def skip(tx: Tx, now: datetime, unit: WorkUnit) -> list[Fact]:
    """Go on without a unit that no node can bring to a finite end: its round merges the others, or its version has no quality."""
    spec = unit.spec
    facts = abandon(tx, now, unit, LeaseReason.NOT_FINITE)
    facts.append(
        UnitSkipped(at=now, job_id=spec.job_id, unit_id=unit.unit_id, round_id=unit.round_id, epoch=spec.epoch, samples=spec.samples)
    )
    if spec.kind is UnitKind.EVALUATE:
        return facts + epoch_over(tx, now, unit)
    stream.refill(tx, unit)
    return facts


def hopeless(tx: Tx, now: datetime, unit: WorkUnit, reason: str) -> list[Fact]:
    """No node can bring ``unit`` to an end: nor can its job come to one, unless somebody has only asked for the unit."""
    return skip(tx, now, unit) if is_asked(unit) else fail(tx, now, unit.spec.job_id, reason)


def evaluated(tx: Tx, now: datetime, unit: WorkUnit, metrics: dict[str, float]) -> list[Fact]:
    """An evaluate unit was accepted: its version has a quality; unless somebody only asked, its epoch is over."""
    spec = unit.spec
    version = tx.must(Version, spec.job_id, spec.version)
    samples = int(metrics.get("samples", spec.samples))
    correct, answers = metrics.get("correct"), metrics.get("count", samples)  # a text model answers many times per sample
    accuracy = correct / answers if correct is not None and answers > 0 else None
    loss = float(metrics["loss"])
    tx.put(replace(version, loss=loss, accuracy=accuracy, test_samples=samples))
    if not is_asked(unit):
        tx.put(replace(tx.must(Epoch, spec.job_id, spec.epoch), loss=loss, accuracy=accuracy))
    facts: list[Fact] = [
        VersionEvaluated(at=now, job_id=spec.job_id, version=spec.version, epoch=spec.epoch, loss=loss, accuracy=accuracy, samples=samples)
    ]
    return facts + epoch_over(tx, now, unit)


def epoch_over(tx: Tx, now: datetime, unit: WorkUnit) -> list[Fact]:
    """The books of the epoch that this evaluation ended are closed; where nothing of the job is left to train or evaluate, it is done."""
    job_id = unit.spec.job_id
    facts = [] if is_asked(unit) else settle.finish_epoch(tx, now, job_id, unit.spec.epoch)
    job = tx.must(Job, job_id)
    left = tx.count(Round, job_id=job_id, state=RoundState.OPEN) + tx.count(WorkUnit, job_id=job_id, state=_WAITING)
    return (
        facts if left or job.state is not JobState.RUNNING else facts + _end(tx, now, job, JobState.DONE, "all epochs merged and evaluated")
    )


def _open(tx: Tx, now: datetime, spec: JobSpec, *, number: int, base: str, epoch: int, before: Round | None = None) -> list[Fact]:
    """Open round ``number``; ``before`` is the round it follows in its epoch, whose units under way go on in it."""
    rnd = open_round(spec, number=number, base=base, now=now, epoch=epoch)
    tx.insert(rnd)
    if tx.get(Epoch, spec.job_id, epoch) is None:
        tx.insert(Epoch(job_id=spec.job_id, number=epoch, started_at=now))
    facts: list[Fact] = []
    if spec.method.quorum:
        facts += stream.move_on(tx, now, spec, rnd, before) if before is not None else []
        stream.fill(tx, spec, rnd)
    else:
        tx.insert(*(local.units_for(tx, now, spec, rnd) if spec.local else units_of(spec, rnd)))
    waiting = tx.count(WorkUnit, round_id=rnd.round_id, state=_WAITING)
    return [*facts, RoundOpened(at=now, job_id=spec.job_id, round_id=rnd.round_id, epoch=epoch, units=waiting)]


def _end(tx: Tx, now: datetime, job: Job, state: JobState, reason: str) -> list[Fact]:
    facts: list[Fact] = []
    for unit in tx.find(WorkUnit, job_id=job.job_id, state=_WAITING):
        facts += abandon(tx, now, unit, LeaseReason.JOB_ENDED)
    for rnd in tx.find(Round, job_id=job.job_id, state=RoundState.OPEN):
        tx.put(close(rnd, RoundState.ABANDONED, now))
    tx.put(replace(job, state=state, reason=reason))
    if tx.get(JobSchedule, job.job_id) is not None:
        tx.delete(JobSchedule, job_id=job.job_id)
    return [*facts, JobEnded(at=now, job_id=job.job_id, state=state.value, reason=reason)]
