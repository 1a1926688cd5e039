"""Choosing hours: looked up in one view of the store, computed outside any transaction, handed to the writer.

A plan follows from prices as known now, the work that is left and the slot we are in; where none of these has changed
there is nothing to plan. Whatever goes wrong here, the control tick goes on: the job takes surplus as it comes, and says why.
"""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from gridsched.core.grid import Grid, grid_of
from gridsched.core.outlook import DRIVERS, Outlook, slot_of
from gridsched.core.policy import Policy
from gridsched.core.signal import Reading, Series, SignalKind
from gridsched.core.timing import Array, Hours, JobSchedule, Timing, choose, effort_of, open_slots, standing_of, told
from gridsched.flow import timing
from gridsched.flow.timing import Case
from gridsched.ports import Clock, Store, Tx, Writer

__all__ = ["Planner"]

_log = logging.getLogger(__name__)
_GUARD_SHARE = 0.5
"""A job that was never measured has this share of its time to be: twice the work that is left then would be too late anyway."""

Near = Mapping[SignalKind, Sequence[Reading]]


@dataclass(slots=True)
class Planner:
    """`plan` is due every control tick and mostly finds nothing to do. What was learned is kept until the known slots change.

    Jobs are to be done ``margin`` before their deadlines.
    """

    store: Store
    writer: Writer
    clock: Clock
    margin: timedelta
    _learned: dict[str, tuple[str, Outlook | None]] = field(default_factory=dict, init=False)

    def plan(self, policy: Policy) -> None:
        """Choose hours for the zone's jobs with a deadline where their inputs have changed, and have them stored."""
        now = self.clock.now()
        with self.store.read() as tx:
            cases = timing.cases(tx, now, policy, margin=self.margin)
            if not cases:
                return
            near = timing.near(tx, now, policy)
            named = _Named.of(near, policy, now)
            digests = {case.job.job_id: _digest(case, named, now) for case in cases}
            if all(case.schedule is not None and case.schedule.digest == digests[case.job.job_id] for case in cases):
                return
            outlook = self._outlook(tx, policy, now, named)
        made = plan_all(cases, outlook, near, digests, now)
        self.writer.submit(lambda tx, at: timing.keep(tx, at, made)).result()

    def _outlook(self, tx: Tx, policy: Policy, now: datetime, named: "_Named") -> Outlook | None:
        """What is known and may come; learned again when something new is known of today or later, or nothing is any more."""
        name, learned = self._learned.get(policy.zone, ("", None))
        outlook = learned.since(now) if learned is not None and name == named.today else None
        if outlook is None:
            try:
                outlook = timing.outlook_of(tx, policy, policy.schedule.objective, now)
            except Exception:  # noqa: BLE001 - bad data must not stop the tick
                _log.exception("no outlook on %s in %s", policy.schedule.objective, policy.zone, extra={"action": "outlook_failed"})
            self._learned[policy.zone] = (named.today, outlook)
        return outlook


@dataclass(frozen=True, slots=True)
class _Named:
    """What was known when: ``all`` names what counts from the present slot on, ``today`` what an outlook is learned from.

    That is the objective's readings since midnight, and those of its drivers that reach beyond them.
    """

    slot: timedelta
    today: str
    all: str

    @classmethod
    def of(cls, near: Near, policy: Policy, now: datetime) -> "_Named":
        objective = policy.schedule.objective
        slot = slot_of(near[objective], now)
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        present = midnight + (now - midnight) // slot * slot
        rest = (objective, policy.timezone, policy.stale_limits[objective])
        known_until = max((reading.end for reading in near[objective]), default=midnight)
        beyond = {kind: [reading for reading in near[kind] if reading.end > known_until] for kind in DRIVERS}
        return cls(slot, _said(beyond | {objective: near[objective]}, midnight, *rest), _said(near, present, policy.digest, present))


def _said(near: Near, since: datetime, *more: object) -> str:
    """A name for all readings that reach beyond ``since``."""
    rows = [(kind.value, r.start, r.end, r.value, r.quality.value) for kind, readings in near.items() for r in readings if r.end > since]
    return hashlib.sha256(repr((rows, more)).encode()).hexdigest()


def _digest(case: Case, named: _Named, now: datetime) -> str:
    """What a case's schedule follows from; the work in grains, so that each step does not ask for a plan of its own."""
    work, over = case.load.time, now >= case.deadline
    try:
        grains = None if work is None else effort_of(work, case.policy.schedule, named.slot).work
    except ValueError:
        grains = -1
    return case.digest(named.all, grains, over)


def plan_all(cases: Sequence[Case], outlook: Outlook | None, near: Near, digests: Mapping[str, str], now: datetime) -> list[JobSchedule]:
    """A schedule for each case. One that is served later plans around those before it that leave no node for it."""
    made: list[JobSchedule] = []
    for number, case in enumerate(cases):
        before = [schedule for earlier, schedule in zip(cases[:number], made, strict=True) if earlier.load.hands >= earlier.load.room]
        try:
            made.append(_plan_one(case, outlook, near, before, digests[case.job.job_id], now))
        except Exception as error:  # noqa: BLE001 - a bug in one plan must stop neither the others nor the tick
            _log.exception("no plan for job %s", case.job.job_id, extra={"action": "planning_failed", "job_id": case.job.job_id})
            why = f"its hours could not be chosen ({type(error).__name__}: {error}), so it takes surplus only, until it is nearly too late"
            made.append(_blank(case, Timing.FAILED, why, digests[case.job.job_id], now))
    return made


def _blank(case: Case, kind: Timing, why: str, digest: str, now: datetime) -> JobSchedule:
    """A schedule without hours. The job still must run once there is only as much time as work."""
    work = case.load.time
    ahead = work if work is not None else (case.deadline - case.job.submitted_at) * _GUARD_SHARE
    return JobSchedule(
        job_id=case.job.job_id,
        zone=case.policy.zone,
        timing=kind,
        why=why,
        objective=case.policy.schedule.objective,
        deadline=case.deadline,
        computed_at=now,
        digest=digest,
        work_s=None if work is None else work.total_seconds(),
        latest_start=case.due - ahead if case.policy.top_up.allowed else None,
    )


def _plan_one(case: Case, outlook: Outlook | None, near: Near, before: Sequence[JobSchedule], digest: str, now: datetime) -> JobSchedule:
    policy, load = case.policy, case.load
    if now >= case.deadline:
        return _blank(case, Timing.OVER, "its deadline has passed, so it takes surplus only; submit it again with a later one", digest, now)
    if load.time is None:
        return _blank(case, Timing.UNMEASURED, _unmeasured(case), digest, now)
    if outlook is None:
        why = f"{policy.schedule.objective} is not known now, so it takes surplus only, until it is nearly too late"
        return _blank(case, Timing.UNFORESEEN, why, digest, now)
    if not policy.top_up.allowed and policy.ceiling is None:
        why = (
            f"only surplus is allowed, and {policy.schedule.objective} does not tell when there will be some; the deadline is not promised"
        )
        return _blank(case, Timing.AS_IT_COMES, why, digest, now)
    shut = ~open_slots(policy, outlook.known, _ahead(near, outlook.known)) | _taken(outlook.known, before)
    rule, known, promised = policy.schedule, outlook.known, _promised(before, case.due, outlook)
    stood = case.schedule or _blank(case, Timing.PLANNED, "", digest, now)
    standing = standing_of(stood.working, stood.since, known.start, rule, known.slot)
    if stood.timing is not Timing.PLANNED and not rule.min_on:
        standing = replace(standing, slots=max(1, standing.slots))  # it began without a plan, so this slot was not chosen
    hours = choose(outlook, policy, work=load.time + promised, deadline=case.due, shut=shut, standing=standing, now=now)
    hours = replace(hours, later=max(hours.later - promised, timedelta(0)), available=max(hours.available - promised, timedelta(0)))
    return replace(
        _blank(case, Timing.PLANNED, _why(case, hours, outlook, before), digest, now),
        hours=hours.runs,
        later_s=hours.later.total_seconds(),
        available_s=hours.available.total_seconds(),
        expected=hours.expected,
        known_until=known.end,
        newest=outlook.newest,
    )


def _ahead(near: Near, known: Grid) -> dict[SignalKind, Array]:
    """Each signal on the known slots of the objective; NaN where it is not known."""
    rows: dict[SignalKind, Array] = {}
    for kind, readings in near.items():
        rows[kind] = grid_of(Series(readings).best_last(), start=known.start, end=known.end, slot=known.slot).values
    return rows


def _taken(known: Grid, before: Sequence[JobSchedule]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """In which slots a job that goes first works."""
    return np.array([any(s.runs_at(known.time(slot)) for s in before) for slot in range(len(known))], dtype=np.bool_)


def _promised(before: Sequence[JobSchedule], deadline: datetime, outlook: Outlook) -> timedelta:
    """What jobs that go first will take of the time after the known slots and before ``deadline``."""
    total = 0.0
    for schedule in before:
        ahead = (schedule.deadline - outlook.known.end).total_seconds()
        ours = (deadline - outlook.known.end).total_seconds()
        if ahead > 0 and ours > 0:
            total += schedule.later_s * min(1.0, ours / ahead)
    return timedelta(seconds=total)


def _unmeasured(case: Case) -> str:
    if not case.load.hands:
        return "no node that may do it is there, so how long it takes is not known; it takes surplus only, until half of its time is over"
    return "how fast it goes is not known before its first steps are done; it takes surplus only, until half of its time is over"


def _why(case: Case, hours: Hours, outlook: Outlook, before: Sequence[JobSchedule]) -> str:
    """The story of a plan in a few clauses."""
    load, kind = case.load, outlook.signal
    assert load.time is not None
    measured = f"{load.steps} steps at {load.speed:.3g} steps/s on {load.hands} nodes, with a margin"
    parts = [f"{_hours(load.time)} of work left ({measured}) by {case.deadline:%Y-%m-%d %H:%M} UTC"]
    if hours.runs:
        chosen = sum((end - start for start, end in hours.runs), timedelta(0))
        mean = "" if hours.known is None else f" at {told(hours.known, kind)} on average"
        parts.append(f"{_hours(chosen)} of it in the known slots, in {len(hours.runs)} runs{mean}")
    if hours.later:
        parts.append(f"{_hours(hours.later)} after {outlook.known.end:%Y-%m-%d %H:%M} UTC, where better or equal hours are expected")
    if outlook.known.end < case.deadline:
        source = (
            f"drawn from {outlook.learned} known days"
            if outlook.learned
            else "taken as the mean of the known slots, for want of earlier days"
        )
        driven = f", the first {outlook.told} by what is forecast of residual load and renewables" if outlook.told else ""
        parts.append(f"days not known yet are {source}{driven}")
    if before:
        parts.append(f"{', '.join(schedule.job_id for schedule in before)} goes first")
    if load.time > hours.available:
        parts.append(f"only {_hours(hours.available)} are open to it before the deadline, which is at risk")
    return "; ".join(parts)


def _hours(time: timedelta) -> str:
    return f"{time.total_seconds() / 3600:.3g} h"
