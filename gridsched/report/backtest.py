"""What a policy and the schedule would have done with a recorded signal, week by week, beside the usual rules and perfect foresight.

Each week a job must do so much useful work; it begins at local midnight of the week's first day, and that day's slots are
known then. From the *gate* on (13:00 local time) those of the next day are known too. Beyond them stands only what can be learned from
the slots known so far: at no moment does anything look further (tests scramble what comes after and find the same decisions).

Every way of choosing hours, ours too, is first made into a mask over the week's slots and then told by one account (`tally`), so
that all pay for waste, starts and unfinished work alike. The schedule and perfect foresight keep the policy: where it allows
nothing, or the signal is not known, they do not run. The usual rules know no policy.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from gridsched.calendars import calendar_of
from gridsched.core.errors import InvalidInput
from gridsched.core.forecast import MOST_DAYS, Chain, Days, learn
from gridsched.core.grid import DAY, Calendar, Grid, LocalDays
from gridsched.core.policy import PolicyState, Tier, evaluate
from gridsched.core.rule import Policy
from gridsched.core.schedule import FORBIDDEN, Coming, Effort, Standing, costs_to_go, end_of_time, foresee, runs, solve
from gridsched.core.signal import UNIT, Quality, SignalKind, SignalState, Snapshot
from gridsched.report.trace import Trace

__all__ = [
    "WEEK",
    "Ahead",
    "Outcome",
    "Record",
    "Task",
    "Week",
    "barred",
    "coming",
    "learned",
    "outlook",
    "planned",
    "record",
    "tally",
    "weeks",
    "with_foresight",
]

WEEK = 7
_MOST_UNKNOWN = 0.25
_HISTORY = MOST_DAYS + 14

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
Ahead = Callable[[int, int], Array]
"""Costs to go [states, work + 1] at the start of a day, for a deadline at the start of another; all days before it are known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What is to be done each week: ``useful`` work, with ``waste`` lost at each start. A day is known from ``gate`` of the day before."""

    useful: timedelta = timedelta(hours=42)
    waste: timedelta = timedelta(minutes=15)
    gate: time = time(13)
    warm_up: int = 28

    def __post_init__(self) -> None:
        if not timedelta(0) < self.useful < WEEK * DAY:
            raise InvalidInput(f"{self.useful / timedelta(hours=1):g} hours do not fit into a week; ask for more than 0 and less than 168")
        if self.waste < timedelta(0) or self.warm_up < 8:
            raise InvalidInput("the restart waste is 0 or more, and the warm-up 8 days or more: so much is learned from at the least")

    def effort(self, slot: timedelta, policy: Policy | None = None) -> Effort:
        """The week's work in grains of ``slot``, with the policy's least times on and off."""
        rule = policy.schedule if policy else None
        return Effort.of(
            self.useful,
            slot=slot,
            waste=self.waste,
            min_on=rule.min_on if rule else timedelta(0),
            min_off=rule.min_off if rule else timedelta(0),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A trace made ready, per slot [T]: ``costs`` (NaN unknown), where the policy ``allows`` work, and where it sees surplus (``inside``).

    ``table`` [days, width] holds the costs by local day and wall-clock slot; ``whole`` are the days that the trace holds from
    midnight to midnight. ``ceiling`` is the cost above which the policy allows nothing on days to come.
    """

    grid: Grid
    calendar: Calendar
    days: LocalDays
    costs: Array
    allows: Mask
    inside: Mask
    table: Array
    signal: SignalKind = SignalKind.PRICE
    ceiling: float | None = None
    policy: Policy | None = None
    whole: range = field(default=range(0))

    @property
    def first_day(self) -> date:
        """The local date of day 0."""
        return self.calendar.day_of(self.grid.start)

    def date(self, day: int) -> date:
        """The local date of ``day``."""
        return self.first_day + day * DAY


@dataclass(frozen=True, slots=True, kw_only=True)
class Week:
    """Days ``day`` to ``day + 7``: slots ``start`` to ``end``. At each of ``plans`` (slot, day) all days before that day are known."""

    day: int
    start: int
    end: int
    plans: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A week's account, in slots: energy ``drawn``, ``useful``, ``inside`` surplus; its ``cost`` and raw ``value``; work ``missing``."""

    cost: float = 0.0
    value: float = 0.0
    drawn: float = 0.0
    useful: float = 0.0
    inside: float = 0.0
    missing: float = 0.0
    starts: int = 0


def record(trace: Trace, policy: Policy, calendar: Calendar | None = None) -> Record:
    """``trace`` as ``policy`` sees it. Where more of the signal is better, a slot costs what it falls short of the first weeks' best."""
    grid = trace.grid
    calendar = calendar or calendar_of(policy.timezone, range(grid.start.year, grid.end.year + 1))
    days = calendar.days(grid)
    whole = _whole(grid, calendar, days)
    sign = policy.schedule.sign
    early = grid.values[: days.bounds[min(whole.start + 28, len(days))]]
    shift, scale = _measure(sign * early, sign)
    costs = scale * (sign * grid.values + shift)
    inside, allows = _seen(trace, policy)
    return Record(
        grid=grid,
        calendar=calendar,
        days=days,
        costs=costs,
        allows=allows & ~np.isnan(costs),
        inside=inside,
        table=days.table(costs, range(len(days))),
        signal=trace.signal,
        ceiling=None if policy.ceiling is None else scale * (policy.ceiling + shift),
        policy=policy,
        whole=whole,
    )


def _whole(grid: Grid, calendar: Calendar, days: LocalDays) -> range:
    """The days that the grid holds from midnight to midnight."""
    first = calendar.day_of(grid.start)
    begins = int(calendar.midnight(first) < grid.start)
    ends = len(days) - int(calendar.midnight(first + len(days) * DAY) > grid.end)
    return range(begins, ends)


def _measure(early: Array, sign: float) -> tuple[float, float]:
    """Shift and scale of costs: none for prices and carbon; powers come to the size of prices, against which missed work is weighed."""
    known = early[~np.isnan(early)]
    if not len(known):
        return 0.0, 1.0
    shift = -float(known.min()) if sign < 0 else 0.0
    largest = float(np.abs(known + shift).max())
    return shift, 1.0 if largest <= 1e4 and sign > 0 else 100.0 / max(largest, 1e-9)


def _seen(trace: Trace, policy: Policy) -> tuple[Mask, Mask]:
    """Where the policy sees surplus, and where it allows work with a deadline at risk: evaluated slot by slot, with its delays."""
    grid, kind = trace.grid, trace.signal
    inside, allows = np.zeros(len(grid), dtype=np.bool_), np.zeros(len(grid), dtype=np.bool_)
    state = PolicyState()
    for slot, value in enumerate(grid.values):
        now = grid.time(slot)
        states = {} if np.isnan(value) else {kind: _state(kind, float(value), trace, slot)}
        snapshot = Snapshot(zone=policy.zone, now=now, states=states)
        decision, after = evaluate(policy, state, snapshot, now)
        inside[slot] = decision.tier is Tier.SURPLUS and decision.target_w > 0
        tops_up = policy.top_up.allowed and not inside[slot]
        allows[slot] = inside[slot] or (tops_up and evaluate(policy, state, snapshot, now, wants_top_up=True)[0].target_w > 0)
        state = after
    return inside, allows


def _state(kind: SignalKind, value: float, trace: Trace, slot: int) -> SignalState:
    start = trace.grid.time(slot)
    return SignalState(
        kind=kind,
        value=value,
        start=start,
        end=start + trace.grid.slot,
        quality=Quality.MEASURED,
        source=trace.name,
        known_at=start,
        age_s=0.0,
        fresh=True,
    )


def weeks(rec: Record, task: Task, *, begin: date | None = None, end: date | None = None, mondays: bool = False) -> list[Week]:
    """The weeks that begin on a day of ``[begin, end)`` (default: any), end within the trace and have ``warm_up`` days before them.

    A week of which more than a quarter is not known is left out.
    """
    found = []
    for day in range(rec.whole.start + task.warm_up, rec.whole.stop - WEEK + 1):
        on = rec.date(day)
        if (begin and on < begin) or (end and on >= end) or (mondays and on.weekday() != 0):
            continue
        start, stop = int(rec.days.bounds[day]), int(rec.days.bounds[day + WEEK])
        if np.isnan(rec.costs[start:stop]).mean() <= _MOST_UNKNOWN:
            found.append(Week(day=day, start=start, end=stop, plans=tuple(_plans(rec, task, day))))
    if not found:
        first, last = rec.date(rec.whole.start), rec.date(rec.whole.stop)
        raise InvalidInput(
            f"no week can be replayed: the trace knows {first} to {last}, of which the first {task.warm_up} days are learned from; "
            "give a longer trace, another --from and --to, or a shorter --warm-up"
        )
    return found


def _plans(rec: Record, task: Task, day: int) -> Iterator[tuple[int, int]]:
    """At the start the first day is known, and from each day's gate on the next."""
    yield int(rec.days.bounds[day]), day + 1
    for today in range(day, day + WEEK - 1):
        low, high = int(rec.days.bounds[today]), int(rec.days.bounds[today + 1])
        opened = next(
            (s for s in range(low, high) if rec.calendar.known_until(rec.grid.time(s), task.gate) >= _midnight(rec, today + 2)), high
        )
        yield opened, today + 2


def _midnight(rec: Record, day: int) -> datetime:
    return rec.calendar.midnight(rec.date(day))


def learned(rec: Record, day: int) -> Chain | None:
    """The chain of days learned from all days before ``day``."""
    past = range(max(rec.whole.start, day - _HISTORY), day)
    return learn(Days(values=rec.table[past.start : past.stop], kinds=rec.days.kinds[past.start : past.stop]))


def outlook(rec: Record, effort: Effort) -> Ahead:
    """What `core.forecast` foresees, by `core.schedule`. Chains are kept for the weeks that are under way at the same time."""
    chain_before = lru_cache(maxsize=WEEK + 1)(lambda day: learned(rec, day))

    def ahead(day: int, deadline: int) -> Array:
        if day >= deadline:
            return end_of_time(effort)
        chain = chain_before(day)
        if chain is None:
            raise InvalidInput(f"too little is known before {rec.date(day)} to learn from; begin later with --from")
        return foresee(chain, list(coming(rec, day, deadline)), effort)

    return ahead


def coming(rec: Record, day: int, deadline: int) -> Iterator[Coming]:
    """The days from ``day`` to ``deadline``, as far as a calendar tells them."""
    for number in range(day, deadline):
        low, high = rec.days.bounds[number], rec.days.bounds[number + 1]
        yield Coming(kind=int(rec.days.kinds[number]), columns=rec.days.columns[low:high], ceiling=rec.ceiling)


def planned(rec: Record, week: Week, effort: Effort, ahead: Ahead, allows: Mask | None = None) -> Mask:
    """The slots of ``week`` in which the schedule works, planning again each time a day becomes known."""
    costs = barred(rec, week, rec.allows if allows is None else allows)
    ran = np.zeros(week.end - week.start, dtype=np.bool_)
    standing, left = Standing(), effort.work
    ends = [slot for slot, _ in week.plans[1:]] + [week.end]
    for (begin, day), end in zip(week.plans, ends, strict=True):
        if left == 0 or begin == end:
            continue
        known = costs[begin - week.start : int(rec.days.bounds[day]) - week.start]
        table = costs_to_go(known, effort, ahead(day, week.day + WEEK))
        for slot in range(end - begin):
            cost = float(known[slot])
            go = left > 0 and cost < FORBIDDEN and runs(table[slot + 1], cost, effort, standing, left)
            left -= min(effort.done(standing.slots if standing.on else 0), left) if go else 0
            standing = standing.after(go)
            ran[begin - week.start + slot] = go
    return ran


def with_foresight(rec: Record, week: Week, effort: Effort) -> Mask:
    """The best slots of ``week`` for whoever knows all of it."""
    costs = barred(rec, week, rec.allows)
    return solve(costs, effort).run & (costs < FORBIDDEN)


def barred(rec: Record, week: Week, allows: Mask) -> Array:
    """The week's costs, with what is not allowed or not known beyond all price."""
    return np.where(allows[week.start : week.end], rec.costs[week.start : week.end], FORBIDDEN)


def tally(rec: Record, week: Week, effort: Effort, ran: Mask) -> Outcome:
    """The account of working in the slots ``ran`` of ``week`` until the work is done."""
    costs, values = rec.costs[week.start : week.end], rec.grid.values[week.start : week.end]
    per_use = UNIT[rec.signal] not in ("W", "share")  # of a power or a share the mean over what was drawn is told, waste included
    spent, left, age, starts, cost, value = np.zeros(len(ran)), effort.work, 0, 0, 0.0, 0.0
    for slot in np.flatnonzero(ran):
        if left == 0:
            break
        age = age + 1 if slot and spent[slot - 1] else 0
        starts += age == 0
        spent[slot] = effort.spent(age, left)
        cost += effort.cost(float(costs[slot]), age, left)
        value += effort.cost(float(values[slot]), age, left) if per_use else float(values[slot] * spent[slot])
        left -= min(effort.done(age), left)
    return Outcome(
        cost=cost,
        value=value,
        drawn=float(spent.sum()),
        useful=(effort.work - left) / effort.per_slot,
        inside=float(spent[rec.inside[week.start : week.end]].sum()),
        missing=left / effort.per_slot,
        starts=starts,
    )
