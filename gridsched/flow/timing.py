"""When jobs work: what a plan is made from, keeping it, and what a control tick makes of it."""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from gridsched.calendars import calendar_of
from gridsched.core.condition import leaves
from gridsched.core.consent import Consent
from gridsched.core.cut import rounds_per_epoch
from gridsched.core.facts import DeadlineAtRisk, Fact, PlanningFailed
from gridsched.core.fleet import Node, Presence
from gridsched.core.grid import DAY
from gridsched.core.job import Job, JobSpec, JobState
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.outlook import DRIVERS, LOOK_AHEAD, LOOK_BACK, Outlook, look_ahead
from gridsched.core.policy import WHY_ON, Decision, Policy, Tier
from gridsched.core.round import Round, RoundState
from gridsched.core.signal import Reading, SignalKind
from gridsched.core.timing import JobSchedule, Timing, own_policy
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.core.workload import Hand, Workload, total_steps, weigh
from gridsched.core.zone import ZoneState
from gridsched.ports import Tx

__all__ = ["Case", "can_run", "cases", "edges", "keep", "may_work", "near", "outlook_of", "pressing", "running", "stand", "waiting"]

_LATELY = 2 * DAY
_MEASURED = 200
"""The job's newest leases, from which its speed on each node is told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A job with a deadline, what is left of it, its ``policy`` within both their limits, and its schedule so far."""

    job: Job
    load: Workload
    policy: Policy
    schedule: JobSchedule | None
    margin: timedelta

    @property
    def spec(self) -> JobSpec:
        """The job's."""
        return self.job.spec

    @property
    def deadline(self) -> datetime:
        """The job's."""
        assert self.spec.deadline is not None
        return self.spec.deadline

    @property
    def due(self) -> datetime:
        """When the work should be done: a little before the deadline, since orders and results take their time."""
        return self.deadline - self.margin

    def digest(self, *parts: object) -> str:
        """Names all that its schedule follows from: its policy, its wishes, and ``parts``."""
        text = "\0".join(map(str, (self.policy.digest, self.spec.priority, self.deadline, *parts)))
        return hashlib.sha256(text.encode()).hexdigest()


def running(tx: Tx, zone: str) -> list[Job]:
    """The zone's running jobs in the order in which they are served: by priority, then deadline, then submission."""
    return sorted((job for job in tx.find(Job, state=JobState.RUNNING) if job.spec.zone == zone), key=lambda job: job.rank)


def can_run(node: Node, job: Job) -> bool:
    """Whether a node has what a job needs: the memory, and a runtime that covers its program."""
    return job.spec.memory_bytes <= node.memory_bytes and job.runs_on(node.runtime)


# -- what a plan is made from


def cases(tx: Tx, now: datetime, policy: Policy, *, margin: timedelta) -> list[Case]:
    """The zone's running jobs with a deadline, in the order in which they are served; each is to be done ``margin`` before it."""
    found = [job for job in running(tx, policy.zone) if job.spec.deadline is not None]
    hands = _willing(tx, now, policy) if found else []
    return [_case(tx, now, job, policy, hands, margin) for job in found]


def _case(tx: Tx, now: datetime, job: Job, policy: Policy, willing: Sequence[tuple[Node, float]], margin: timedelta) -> Case:
    own = own_policy(policy, job.spec)
    speeds = _speeds(tx, now, job.job_id)
    hands = [Hand(node_id=n.node_id, power_w=watts, speed=speeds.get(n.node_id, 0.0)) for n, watts in willing if can_run(n, job)]
    if not any(hand.speed > 0 for hand in hands) and speeds:
        usual = sorted(speeds.values())[len(speeds) // 2]  # those that were measured are away: take the others to be like them
        hands = [replace(hand, speed=usual) for hand in hands]
    load = weigh(job.spec, steps=_steps_left(tx, job), hands=hands, watts=_watts(own))
    return Case(job=job, load=load, policy=own, schedule=tx.get(JobSchedule, job.job_id), margin=margin)


def _willing(tx: Tx, now: datetime, policy: Policy) -> list[tuple[Node, float]]:
    """The zone's nodes that are there and may work, with the power their owners allow."""
    nodes = {node.node_id: node for node in tx.find(Node, zone=policy.zone, revoked_at=None, quarantined_at=None)}
    there = {p.node_id for p in tx.find(Presence, node_id=tuple(nodes)) if p.present}
    found = []
    for consent in tx.find(Consent, node_id=tuple(sorted(there))):
        node = nodes[consent.node_id]
        watts = consent.power_w(node.power_w)
        if watts > 0 and consent.refuses(reward_micro_per_kwh=policy.reward.micro_per_kwh, now=now) is None:
            found.append((node, watts))
    return found


def _watts(policy: Policy) -> float:
    """What may be drawn at a time: of surplus and top-up the less, since a plan may need either."""
    draw, rule = policy.draw, policy.top_up
    cap = min((w for w in (draw.watts, draw.max_w) if w is not None), default=float("inf"))
    return min(cap, rule.watts) if rule.allowed else cap


def _speeds(tx: Tx, now: datetime, job_id: str) -> dict[str, float]:
    """Steps per second of work that each node has done of this very job; before a first unit is done, as far as one has come."""
    newest = tx.find(Lease, job_id=job_id, order="-changed_at", limit=_MEASURED)
    ended = [lease for lease in newest if lease.state in (LeaseState.RELEASED, LeaseState.HANDED_OVER)]
    done: dict[str, tuple[float, float]] = {}
    for lease in ended or newest:
        lasting = (now - lease.changed_at).total_seconds() if lease.state is LeaseState.ACTIVE else 0.0
        steps, seconds = done.get(lease.node_id, (0.0, 0.0))
        done[lease.node_id] = (steps + lease.steps_executed, seconds + lease.active_s + max(lasting, 0.0))
    return {node_id: steps / seconds for node_id, (steps, seconds) in done.items() if steps > 0 and seconds > 0}


def _steps_left(tx: Tx, job: Job) -> int:
    """All steps to come, without those that units in work have behind them."""
    units = tx.find(WorkUnit, job_id=job.job_id, state=(UnitState.OPEN, UnitState.LEASED), audits="")
    live = tx.find(Lease, job_id=job.job_id, state=LIVE)
    leased = {lease.unit_id: lease.step for lease in sorted(live, key=lambda lease: lease.step)}  # of two on a unit, the further one
    done = sum(max(unit.continuation_step, leased.get(unit.unit_id, 0)) for unit in units)
    since, of = _since(tx, job)
    accepted = tx.find(WorkUnit, job_id=job.job_id, kind=UnitKind.TRAIN, state=UnitState.ACCEPTED, audits="", **of)
    tests = sum(unit.spec.steps for unit in units if unit.spec.kind is UnitKind.EVALUATE)  # of versions that are made already
    return total_steps(job.spec, after_round=since) + tests - done - sum(unit.spec.steps for unit in accepted)


def _since(tx: Tx, job: Job) -> tuple[int, dict[str, Any]]:
    """A round after which all steps can be counted, and where the units accepted since are found.

    With a quorum that is the last round of an epoch: how many there are to an epoch depends on who does what.
    """
    if not job.spec.method.quorum:
        return job.version, {"version": job.version}
    newest = tx.find(Round, job_id=job.job_id, order="-number", limit=1)[0]
    epoch = newest.epoch + (newest.state is RoundState.MERGED)
    return epoch * rounds_per_epoch(job.spec), {"epoch": epoch}


def near(tx: Tx, now: datetime, policy: Policy) -> dict[SignalKind, list[Reading]]:
    """What is known at ``now``, of late and ahead, of the signals that the policy decides by and of those that drive its objective."""
    kinds = {policy.schedule.objective, SignalKind.PRICE, *DRIVERS, *(leaf.signal for leaf in leaves(policy.when))}
    return {kind: tx.readings(policy.zone, kind, now - _LATELY, now + LOOK_AHEAD, known_at=now) for kind in sorted(kinds)}


def outlook_of(tx: Tx, policy: Policy, signal: SignalKind, now: datetime) -> Outlook | None:
    """The outlook on one signal of the policy's zone, from what the store knows at ``now``."""
    readings = tx.readings(policy.zone, signal, now - LOOK_BACK, now + LOOK_AHEAD, known_at=now)
    drivers = [tx.readings(policy.zone, kind, now - LOOK_BACK, now + LOOK_AHEAD, known_at=now) for kind in DRIVERS if kind is not signal]
    years = range((now - LOOK_BACK).year, (now + 2 * LOOK_AHEAD).year + 1)
    calendar = calendar_of(policy.timezone, years)
    return look_ahead(readings, now=now, calendar=calendar, stale_after=policy.stale_limits[signal], drivers=drivers)


# -- keeping it


def keep(tx: Tx, now: datetime, schedules: Sequence[JobSchedule]) -> list[Fact]:
    """Store what was planned. How a job stands is the control tick's to say; what gets worse is told once."""
    facts: list[Fact] = []
    for new in schedules:
        job = tx.get(Job, new.job_id)
        if job is None or job.state is not JobState.RUNNING or job.spec.deadline != new.deadline:
            continue  # it has moved on while we were planning
        before = tx.get(JobSchedule, new.job_id)
        tx.put(new if before is None else replace(new, working=before.working, since=before.since))
        facts += _worse(before, new, now)
    return facts


def _worse(before: JobSchedule | None, new: JobSchedule, now: datetime) -> list[Fact]:
    facts: list[Fact] = []
    if new.timing is Timing.FAILED and (before is None or before.timing is not Timing.FAILED):
        facts.append(PlanningFailed(at=now, job_id=new.job_id, zone=new.zone, detail=new.why))
    if new.at_risk and not (before is not None and before.at_risk and before.deadline == new.deadline):
        assert new.work_s is not None
        assert new.available_s is not None
        facts.append(
            DeadlineAtRisk(
                at=now, job_id=new.job_id, zone=new.zone, deadline=new.deadline, needed_s=new.work_s, available_s=new.available_s
            )
        )
    return facts


# -- what a control tick makes of it


def pressing(tx: Tx, now: datetime, zone: str, *, price_eur_mwh: float | None) -> list[Job]:
    """The jobs that must work at ``now`` even outside surplus, where the policy allows it and the price is within their own limit."""
    return [job for job in running(tx, zone) if _presses(job, _schedule(tx, job), now, price_eur_mwh)]


def _schedule(tx: Tx, job: Job) -> JobSchedule | None:
    """A job's schedule; without a deadline it has none, and none is looked for."""
    return tx.get(JobSchedule, job.job_id) if job.spec.deadline is not None else None


def _presses(job: Job, schedule: JobSchedule | None, now: datetime, price_eur_mwh: float | None) -> bool:
    spec = job.spec
    if spec.deadline is None or schedule is None or not spec.top_up or schedule.deadline != spec.deadline:
        return False
    limit = spec.top_up_below_eur_mwh
    return (limit is None or (price_eur_mwh is not None and price_eur_mwh <= limit)) and schedule.presses(now)


def may_work(tx: Tx, now: datetime, decision: Decision) -> list[Job]:
    """The jobs that may be granted units under ``decision``, in the order in which they are served (see `core.timing`)."""
    jobs = running(tx, decision.zone)
    if decision.tier is Tier.TOP_UP:
        state = tx.get(ZoneState, decision.zone)
        price = state.price_eur_mwh if state is not None else None
        return [job for job in jobs if _presses(job, _schedule(tx, job), now, price)]
    if decision.tier is Tier.SURPLUS:
        return [job for job in jobs if not _waits(_schedule(tx, job), now, decision)]
    return jobs


def waiting(tx: Tx, now: datetime, decision: Decision) -> list[str]:
    """The jobs that leave this surplus to others, because their plans have better hours."""
    if decision.tier is not Tier.SURPLUS:
        return []
    return [job.job_id for job in running(tx, decision.zone) if _waits(_schedule(tx, job), now, decision)]


def _waits(schedule: JobSchedule | None, now: datetime, decision: Decision) -> bool:
    return schedule is not None and WHY_ON.get(schedule.objective) is decision.reason and schedule.waits(now)


def stand(tx: Tx, now: datetime, decision: Decision, allowed: Collection[str]) -> None:
    """Note which jobs work from now on and which rest, so that least times on and off outlast plans and restarts."""
    for schedule in tx.find(JobSchedule, zone=decision.zone):
        stands = schedule.stand(decision.target_w > 0 and schedule.job_id in allowed, now)
        if stands is not schedule:
            tx.put(stands)


def edges(tx: Tx, zone: str) -> Iterable[datetime]:
    """When hours of the zone's schedules end."""
    return [end for schedule in tx.find(JobSchedule, zone=zone) for _, end in schedule.hours]
