"""When: the cheapest hours in which a job's remaining work can still be done before its deadline.

Receding horizon, solved exactly by dynamic programming over (work left) x (on or off, and since when), backwards from the
deadline: first through the days that can only be guessed, where every plausible day of a `Chain` has its own costs to go and tomorrow is
drawn given today, then through the slots whose price is known. So a known cheap hour is weighed against what waiting may bring,
not against one average week. Nothing is decided before it must be: what the solution gives is whether to run in the present slot, and
what the rest would look like if nothing changed.

A start wastes work: the slot's energy is drawn, and part of it does nothing. That part is paid at the slot's real price, but earns nothing
where the price is negative: else a plan would start and stop to be paid for waste. Work is counted in *grains*, whole parts of a slot.

Source: Bertsekas, Dynamic Programming and Optimal Control, vol. 1 (finite horizon, Markov disturbance); the order in which days
become known makes each day's own problem one of perfect information.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from gridsched.core.errors import InvalidInput
from gridsched.core.forecast import Chain

__all__ = [
    "FORBIDDEN",
    "SHORT",
    "Coming",
    "Effort",
    "Schedule",
    "Standing",
    "costs_to_go",
    "end_of_time",
    "follow",
    "foresee",
    "runs",
    "solve",
]

SHORT = 1e5
"""What a grain of work missing at the deadline counts as: more than it could cost in any market."""
FORBIDDEN = 1e10
"""What a slot costs in which the policy allows nothing: more than missing every grain."""
_PARTS = (1, 2, 3, 4, 6, 12)
_MOST_GRAINS = 4000

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """What is left to do. Work is in grains; a whole slot does ``per_slot`` of them, and a start loses ``waste``.

    Once on it stays on for ``min_on`` slots, once off it stays off for ``min_off``.
    """

    work: int
    per_slot: int = 1
    waste: int = 0
    min_on: int = 1
    min_off: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.work <= _MOST_GRAINS:
            raise InvalidInput(f"{self.work} grains of work are more than {_MOST_GRAINS}; plan a shorter horizon")
        if min(self.per_slot, self.min_on, self.min_off) < 1 or self.waste < 0:
            raise InvalidInput("a slot does at least one grain, on and off last at least one slot, and waste is 0 or more")

    @classmethod
    def of(
        cls, useful: timedelta, *, slot: timedelta, waste: timedelta, min_on: timedelta = timedelta(0), min_off: timedelta = timedelta(0)
    ) -> "Effort":
        """``useful`` work and ``waste`` per start as whole grains of ``slot``, the work rounded up."""
        part = next((n for n in _PARTS if math.isclose(waste * n / slot, round(waste * n / slot), abs_tol=1e-9)), _PARTS[-1])
        return cls(
            work=math.ceil(useful * part / slot - 1e-9),
            per_slot=part,
            waste=round(waste * part / slot),
            min_on=max(1, math.ceil(min_on / slot)),
            min_off=max(1, math.ceil(min_off / slot)),
        )

    @property
    def ages(self) -> int:
        """How many slots of being on make a difference: until the start is paid off and ``min_on`` is over."""
        return max(self.min_on, -(-self.waste // self.per_slot), 1)

    @property
    def states(self) -> int:
        """Off for 1 to ``min_off`` slots, then on for 1 to ``ages``."""
        return self.min_off + self.ages

    def done(self, age: int, part: float = 1.0) -> int:
        """Grains done in ``part`` of a slot after ``age`` slots of being on."""
        return round(min(max((age + part) * self.per_slot - self.waste, 0), part * self.per_slot))

    def spent(self, age: int, left: int) -> float:
        """The share of that slot's energy that is drawn when ``left`` grains are left at its start: work ends with the work."""
        return (self.per_slot - self.done(age) + min(self.done(age), left)) / self.per_slot

    def cost(self, price: float, age: int, left: int, part: float = 1.0) -> float:
        """What that slot, or the ``part`` of it that is left, costs at ``price``: useful energy at it, waste at no less than nothing."""
        useful = min(self.done(age, part), left) / self.per_slot
        return price * useful + max(price, 0.0) * (min(self.spent(age, left), part) - useful)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How things stand: ``on`` or off, for how many ``slots`` already."""

    on: bool = False
    slots: int = 1_000_000

    def state(self, effort: Effort) -> int:
        """Its place among the effort's states."""
        if self.on:
            return effort.min_off + min(max(self.slots, 1), effort.ages) - 1
        return min(max(self.slots, 1), effort.min_off) - 1

    def after(self, run: bool) -> "Standing":
        """One slot later."""
        return replace(self, slots=self.slots + 1) if run == self.on else Standing(on=run, slots=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Coming:
    """A day not known yet: its ``kind``, the wall-clock ``columns`` [t] of the slots that count, and above which cost nothing may run."""

    kind: int
    columns: NDArray[np.intp]
    ceiling: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """``run`` [T] says in which of the known slots to work; that costs ``cost`` (in cost x slots) and takes ``starts``.

    ``left`` grains remain after them; ``expected`` is the cost of all the work, what is done later included.
    """

    run: NDArray[np.bool_]
    cost: float
    expected: float
    starts: int
    left: int


def end_of_time(effort: Effort) -> Array:
    """Costs to go at the deadline, [states, work + 1]: nothing where the work is done, and every missing grain dear."""
    return np.broadcast_to(SHORT * np.arange(effort.work + 1.0), (effort.states, effort.work + 1)).copy()


def costs_to_go(costs: Array, effort: Effort, end: Array) -> list[Array]:
    """Costs to go before each slot and at the end, T + 1 arrays of [..., states, work + 1].

    ``costs`` [T, ...] is the cost of each slot, in as many versions as ``end`` [..., states, work + 1] has.
    """
    found = [end]
    for cost in costs[::-1]:
        found.append(_one_slot(np.asarray(cost)[..., None], effort, found[-1]))
    return found[::-1]


def _one_slot(cost: Array, effort: Effort, later: Array) -> Array:
    """Costs to go before a slot, given those after it."""
    rest, ages = effort.min_off, effort.ages
    now = np.empty_like(later)
    for state in range(rest):
        now[..., state, :] = later[..., min(state + 1, rest - 1), :]
    started = _run(cost, effort, 0, later[..., rest, :])
    np.minimum(now[..., rest - 1, :], started, out=now[..., rest - 1, :])
    for age in range(1, ages + 1):
        goes_on = _run(cost, effort, age, later[..., rest + min(age + 1, ages) - 1, :])
        if age >= effort.min_on:
            np.minimum(goes_on, later[..., 0, :], out=goes_on)
        now[..., rest + age - 1, :] = goes_on
    now[..., 0] = 0.0
    return now


def _run(cost: Array, effort: Effort, age: int, later: Array) -> Array:
    """Costs to go of running in this slot after ``age`` slots on, by work left."""
    done = effort.done(age)
    last = min(done, effort.work + 1)  # with less than a slot's work left, a part of the slot is drawn
    found = np.empty_like(later)
    waste = np.maximum(cost, 0.0) * (1 - done / effort.per_slot)
    np.add(later[..., : effort.work + 1 - last], cost * (done / effort.per_slot) + waste, out=found[..., last:])
    if last:
        found[..., :last] = cost * (np.arange(last) / effort.per_slot) + waste
    return found


def foresee(chain: Chain, coming: Sequence[Coming], effort: Effort) -> Array:
    """Expected costs to go before the first of the ``coming`` days, [states, work + 1], when each is known by the time it begins."""
    end = end_of_time(effort)
    if not coming:
        return end
    later = end
    for number in range(len(coming) - 1, -1, -1):
        day = coming[number]
        costs = _allowed(chain.day(number, day.kind)[:, day.columns].T, day.ceiling)
        versions = np.broadcast_to(later, (costs.shape[1], *end.shape))
        before = costs_to_go(costs, effort, np.ascontiguousarray(versions))[0]
        later = np.tensordot(chain.into(number), before, axes=1)
    return later


def _allowed(costs: Array, ceiling: float | None) -> Array:
    return costs if ceiling is None else np.where(costs > ceiling, FORBIDDEN, costs)


def solve(costs: Array, effort: Effort, *, end: Array | None = None, standing: Standing | None = None, part: float = 1.0) -> Schedule:
    """The best slots among those whose ``costs`` [T] are known, given the costs to go after them (default: the deadline).

    Of the first slot only ``part`` is still to come.
    """
    table = costs_to_go(np.asarray(costs, dtype=np.float64), effort, end_of_time(effort) if end is None else end)
    return follow(table, costs, effort, standing or Standing(), part=part)


def follow(table: Sequence[Array], costs: Array, effort: Effort, standing: Standing, *, part: float = 1.0) -> Schedule:
    """What ``table``, which `costs_to_go` made of ``costs`` [T], says to do from ``standing`` on; of two equal choices the earlier work."""
    left, cost, starts = effort.work, 0.0, 0
    run = np.zeros(len(costs), dtype=np.bool_)
    expected = float(table[0][standing.state(effort), left])
    for slot, price in enumerate(costs):
        if left == 0:
            break
        share = 1.0 if slot else part
        run[slot] = runs(table[slot + 1], float(price), effort, standing, left, part=share)
        if run[slot]:
            age = standing.slots if standing.on else 0
            cost += effort.cost(float(price), age, left, share)
            left -= min(effort.done(age, share), left)
            starts += not standing.on
        standing = standing.after(bool(run[slot]))
    return Schedule(run=run, cost=cost, expected=expected, starts=starts, left=left)


def runs(later: Array, cost: float, effort: Effort, standing: Standing, left: int, *, part: float = 1.0) -> bool:
    """Whether to run in what is left (``part``) of a slot of ``cost``, given the costs to go after it [states, work + 1]."""
    if standing.on and standing.slots < effort.min_on:
        return True
    if not standing.on and standing.slots < effort.min_off:
        return False
    age = standing.slots if standing.on else 0
    done = min(effort.done(age, part), left)
    go = effort.cost(cost, age, left, part) + later[standing.after(True).state(effort), left - done]
    rest = later[standing.after(False).state(effort), left]
    return bool(go <= rest + 1e-9 * abs(rest))
