"""When one job works: its hours among the known slots, why those, and what the control tick makes of them.

A job without a deadline takes surplus as it comes. One with a deadline has a plan: outside surplus it works in the hours that its plan
has chosen and the policy's top-up allows. Inside surplus it works too, unless the surplus *is* the objective (cheap, or low-carbon,
hours) and its plan waits for better ones: then both are told by the same signal, and the better hour serves operator and owner alike.
Surplus told by any other signal is there now and gone later, so it is taken as it comes.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from gridsched.core.condition import AnyOf, Condition, Leaf, leaves
from gridsched.core.errors import InvalidInput
from gridsched.core.forecast import Chain
from gridsched.core.grid import DAY, Grid
from gridsched.core.job import JobSpec
from gridsched.core.outlook import Outlook
from gridsched.core.rule import Policy, SchedulingRule
from gridsched.core.schedule import FORBIDDEN, Coming, Effort, Standing, end_of_time, foresee, solve
from gridsched.core.signal import UNIT, SignalKind

__all__ = ["HORIZON", "Hours", "JobSchedule", "Timing", "choose", "effort_of", "open_slots", "own_policy", "standing_of", "told"]

HORIZON = 14 * DAY
"""As far ahead as hours are chosen; of longer jobs the share that falls into it."""
_ENOUGH_GRAINS = 1000
_LEAST_PARTS = 4

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


class Timing(StrEnum):
    """What a job's hours rest on.

    ``planned``: chosen. ``unmeasured``: how fast the job goes is not known yet. ``unforeseen``: the objective is not known.
    ``as_it_comes``: nothing but surplus is allowed, and no signal tells when there will be some. ``failed``: planning broke.
    ``over``: the deadline has passed. All but the first take surplus as it comes.
    """

    PLANNED = "planned"
    UNMEASURED = "unmeasured"
    UNFORESEEN = "unforeseen"
    AS_IT_COMES = "as_it_comes"
    FAILED = "failed"
    OVER = "over"


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSchedule:
    """A job's hours and how they came about. ``work_s`` of work are left (None: not known), ``later_s`` of them after ``known_until``.

    ``hours`` are [start, end) in which to work; ``expected`` is the objective's mean over all the work, in its unit.
    ``available_s`` is the time that can be expected to be open to it before the deadline. From ``latest_start`` on it must run if it is to
    be done. ``digest`` names the inputs: equal ones need no new plan. ``working`` and ``since``: how the job stands, by the control tick.
    """

    job_id: str
    zone: str
    timing: Timing
    why: str
    objective: SignalKind
    deadline: datetime
    computed_at: datetime
    digest: str
    hours: tuple[tuple[datetime, datetime], ...] = ()
    work_s: float | None = None
    later_s: float = 0.0
    available_s: float | None = None
    expected: float | None = None
    known_until: datetime | None = None
    newest: datetime | None = None
    latest_start: datetime | None = None
    working: bool = False
    since: datetime | None = None

    @property
    def at_risk(self) -> bool:
        """Whether less time can be expected than the work needs."""
        return self.work_s is not None and self.available_s is not None and self.work_s > self.available_s

    def runs_at(self, moment: datetime) -> bool:
        """Whether ``moment`` lies in one of its hours."""
        return any(start <= moment < end for start, end in self.hours)

    def presses(self, moment: datetime) -> bool:
        """Whether the job must work outside surplus: in its hours, and, plan or no plan, once it is nearly too late."""
        if moment >= self.deadline:
            return False
        planned = self.timing is Timing.PLANNED and self.runs_at(moment)
        return planned or (self.latest_start is not None and moment >= self.latest_start)

    def waits(self, moment: datetime) -> bool:
        """Whether its plan leaves ``moment`` out for better hours."""
        planned = self.timing is Timing.PLANNED and self.known_until is not None and moment < min(self.known_until, self.deadline)
        return planned and not self.presses(moment)

    def stand(self, working: bool, now: datetime) -> "JobSchedule":
        """The same, ``working`` or resting since ``now``, or since earlier where that has not changed."""
        return self if working == self.working and self.since is not None else replace(self, working=working, since=now)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hours:
    """What `choose` found: ``runs`` of known slots, work that is left for ``later``, time ``available``, ``starts``."""

    runs: tuple[tuple[datetime, datetime], ...]
    later: timedelta
    available: timedelta
    expected: float | None
    known: float | None
    starts: int


def own_policy(policy: Policy, spec: JobSpec) -> Policy:
    """``policy`` as it is for one job: its top-up within the limits of both."""
    rule = policy.top_up
    if not (rule.allowed and spec.top_up and spec.deadline is not None):
        return replace(policy, top_up=replace(rule, allowed=False))
    limits = [limit for limit in (rule.max_price_eur_mwh, spec.top_up_below_eur_mwh) if limit is not None]
    return replace(policy, top_up=replace(rule, max_price_eur_mwh=min(limits, default=None)))


def open_slots(policy: Policy, grid: Grid, known: Mapping[SignalKind, Array]) -> Mask:
    """In which slots of ``grid`` the policy may allow something, by the signals ``known`` ahead ([T] each, NaN unknown).

    A condition on what is not known ahead is left out: it neither opens nor shuts a slot. Delays are shorter than slots.
    """
    rule = list(leaves(policy.when))
    found = np.zeros(len(grid), dtype=np.bool_)
    for slot in range(len(grid)):
        values = {kind: float(row[slot]) for kind, row in known.items() if not np.isnan(row[slot])}
        truth = {leaf.key: leaf.passes(values[leaf.signal], leaf.start) if leaf.signal in values else None for leaf in rule}
        surplus = _as_known(policy.when, truth)
        if surplus is None:
            surplus = not policy.top_up.allowed
        found[slot] = policy.is_valid_at(grid.time(slot)) and (surplus or _tops_up(policy, values.get(SignalKind.PRICE)))
    return found


def _tops_up(policy: Policy, price: float | None) -> bool:
    highest = policy.top_up.max_price_eur_mwh
    return policy.top_up.allowed and (highest is None or (price is not None and price <= highest))


def _as_known(condition: Condition, truth: Mapping[str, bool | None]) -> bool | None:
    if isinstance(condition, Leaf):
        return truth[condition.key]
    values = [value for child in condition.conditions if (value := _as_known(child, truth)) is not None]
    if not values:
        return None
    return any(values) if isinstance(condition, AnyOf) else all(values)


def effort_of(work: timedelta, rule: SchedulingRule, slot: timedelta) -> Effort:
    """``work`` in grains: as fine as the waste of a start and a part of the present slot need, or, for much work, as is planned quickly."""
    lasting = {"slot": slot, "min_on": rule.min_on, "min_off": rule.min_off}
    rough = slot / 4 * round(4 * (rule.restart_waste / slot))
    for waste in (rule.restart_waste, rough, timedelta(0)):
        try:
            effort = Effort.of(work, waste=waste, **lasting)
        except InvalidInput:
            continue
        if effort.work <= _ENOUGH_GRAINS or waste == timedelta(0):
            return _finer(effort, work, slot)
    raise InvalidInput(f"{work} of work cannot be planned in slots of {slot}")


def _finer(effort: Effort, work: timedelta, slot: timedelta) -> Effort:
    """The same in at least four grains a slot, where that are not too many."""
    times = -(-_LEAST_PARTS // effort.per_slot)
    if times == 1 or effort.work * times > _ENOUGH_GRAINS:
        return effort
    part = effort.per_slot * times
    return replace(effort, work=math.ceil(work * part / slot - 1e-9), per_slot=part, waste=effort.waste * times)


def standing_of(on: bool, since: datetime | None, present: datetime, rule: SchedulingRule, slot: timedelta) -> Standing:
    """How a job stands at the start ``present`` of the slot it is in.

    One that went on within this slot has been on for none yet and stays on through it; one that
    went off may come back within the slot, unless it has to rest for longer than nothing.
    """
    if since is None:
        return Standing()
    slots = max(0, (present - since) // slot)
    return Standing(on=on, slots=slots if on or rule.min_off else max(1, slots))


def choose(
    outlook: Outlook, policy: Policy, *, work: timedelta, deadline: datetime, shut: Mask, standing: Standing, now: datetime
) -> Hours:
    """The hours for ``work`` before ``deadline``, under ``policy`` (the job's own); none in the known slots that are ``shut`` [T]."""
    rule, slot, known = policy.schedule, outlook.known.slot, outlook.known
    until = min(deadline, known.end + HORIZON)
    if until < deadline:
        work *= (until - known.start) / (deadline - known.start)
    count = max(0, min(len(known), (until - known.start) // slot))
    scale = rule.sign / _size(known.values)
    costs = np.where(shut[:count] | np.isnan(known.values[:count]), FORBIDDEN, known.values[:count] * scale)
    chain, coming = _scaled(outlook.chain, scale), _coming(outlook, until, policy, abs(scale))
    effort = effort_of(work, rule, slot)
    end = foresee(chain, coming, effort) if coming else end_of_time(effort)
    part = min(1.0, (known.start + slot - now) / slot)
    found = solve(costs, effort, end=end, standing=standing, part=part)
    run = found.run & (costs < FORBIDDEN)
    runs = _runs(run, known)
    if (found.left and not coming) or count == 0:
        runs += _rest(known, shut, count, until)
    slots = max(effort.work / effort.per_slot, 1e-9)
    plausible = 2 * float(np.abs(np.concatenate([costs[costs < FORBIDDEN], chain.day(1, 0).ravel()])).max()) * (slots + found.starts + 1)
    return Hours(
        runs=runs,
        later=slot * found.left / effort.per_slot,
        available=_available(costs, coming, chain, known, count, until)
        - (now - known.start if count and costs[0] < FORBIDDEN else timedelta(0)),
        expected=found.expected / slots / scale if abs(found.expected) <= plausible else None,
        known=float(known.values[:count][run].mean()) if run.any() else None,
        starts=found.starts,
    )


def _size(values: Array) -> float:
    """What to divide by, so that signals in watts are no larger than prices, and missing a deadline stays dearer than any slot."""
    return max(1.0, float(np.nanmax(np.abs(values))) / 1000)


def _scaled(chain: Chain, scale: float) -> Chain:
    return replace(
        chain,
        profiles=chain.profiles * scale,
        deviations=chain.deviations * scale,
        first_deviations=chain.first_deviations * scale,
        told=chain.told * scale,
    )


def _coming(outlook: Outlook, until: datetime, policy: Policy, scale: float) -> list[Coming]:
    _, days = outlook.ahead(until)
    ceiling = None if policy.ceiling is None else policy.ceiling * scale
    spans = zip(days.kinds, days.bounds, days.bounds[1:], strict=False)
    return [Coming(kind=int(kind), columns=days.columns[low:high], ceiling=ceiling) for kind, low, high in spans]


def _available(costs: Array, coming: list[Coming], chain: Chain, known: Grid, count: int, until: datetime) -> timedelta:
    """The time in open slots, that of days not known yet as it may be expected; the part of a slot before the deadline too."""
    slots = float((costs < FORBIDDEN).sum())
    for number, day in enumerate(coming):
        if day.ceiling is None:
            slots += len(day.columns)
        else:
            slots += float(chain.weights(number) @ (chain.day(number, day.kind)[:, day.columns] <= day.ceiling).sum(axis=1))
    last = known.end if count == len(known) else known.time(count)
    part = (until - last) % known.slot if until > last else timedelta(0)
    return known.slot * slots + part


def _runs(run: Mask, grid: Grid) -> tuple[tuple[datetime, datetime], ...]:
    """The slots of ``run`` [T], put together where one follows another."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], run, [False]]).astype(np.int8)))
    return tuple((grid.time(int(low)), grid.time(int(high))) for low, high in edges.reshape(-1, 2))


def _rest(known: Grid, shut: Mask, count: int, until: datetime) -> tuple[tuple[datetime, datetime], ...]:
    """The part of a slot that is left before the deadline, when every minute counts."""
    start = known.time(count)
    return ((start, until),) if count < len(known) and start < until and not shut[count] else ()


def told(value: float, kind: SignalKind) -> str:
    """A value with its unit, for a sentence."""
    return f"{value:.4g} {UNIT[kind]}"
