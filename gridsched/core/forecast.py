"""What may come after the known prices: not one average week, but many plausible days that follow one another.

A mean hides the spread that makes waiting worth while. So a forecast here is a *chain of days*: every past day is a state, and
the day after next is drawn among those days that followed a similar one. Similar means: the same *outlook*, which is what a ridge
regression on a day's last prices says about the day after it. What is drawn is a day's deviation from the usual profile
of its kind (working day, Saturday, Sunday or holiday), so all days of the past can stand for any day to come. The first
unknown day is known best: its deviation is the regression's own, with the errors that the regression made on past days.
Where forecasts of wind, sun and load reach further than the prices, `drivers.tell` tells what those days will cost, and the chain begins
after them.

Nothing but the past enters: `learn` is given the days that were known, and no more. It needs no file: learning takes milliseconds.

Sources: autoregression of day-ahead prices on usual profiles (Weron, doi:10.1016/j.ijforecast.2014.08.008), scenarios from past
forecast errors (Pinson et al., doi:10.1002/we.284), and transitions by kernel weights (Lall and Sharma, doi:10.1029/95WR02966).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gridsched.core.drivers import Told
from gridsched.core.grid import KINDS

__all__ = ["LEAST_DAYS", "MOST_DAYS", "Chain", "Days", "learn"]

MOST_DAYS = 200
LEAST_DAYS = 7
_WARM_UP = 14
_PROFILE_HALF_LIFE = (30.0, 8.0, 8.0)
"""In days of the same kind: a working day weighs half as much after six weeks, a Sunday after eight."""
_RECENT_HALF_LIFE = 60.0
_RIDGE = 10.0
_BANDWIDTH = 0.5
_BLOCKS = 8
_MOST_UNKNOWN = 0.25

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Days:
    """Past days, oldest first and without gaps: ``values`` [n, m] by wall-clock slot (NaN unknown), ``kinds`` [n] (see `grid.KINDS`)."""

    values: Array
    kinds: NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """n plausible days. A coming day of kind k is ``profiles[k] + deviations[j]`` with a weight for each j.

    ``profiles`` [KINDS, m]; ``deviations`` [n, m]; ``moves`` [n, n], rows sum to 1: after a day like i comes one like j.
    The first coming day is ``profiles[k] + first_deviations[j]`` with weight ``first[j]`` [n]. Before it come the days that drivers tell:
    ``told`` [f, e, m] in as many versions as there were errors, with ``told_weights`` [e]; f is mostly 0.
    """

    profiles: Array
    deviations: Array
    first_deviations: Array
    first: Array
    moves: Array
    told: Array = field(default_factory=lambda: np.zeros((0, 1, 1)))
    told_weights: Array = field(default_factory=lambda: np.ones(1))

    def day(self, number: int, kind: int) -> Array:
        """The plausible versions of coming day ``number`` (0 is the next), [n, m] or, where drivers tell it, [e, m]."""
        if number < len(self.told):
            versions: Array = self.told[number]
            return versions
        profile: Array = self.profiles[kind]
        return profile + (self.first_deviations if number == len(self.told) else self.deviations)

    def into(self, number: int) -> Array:
        """How plausible each version of coming day ``number`` is: [n, n] given that of the day before, [n] where that tells nothing."""
        if number < len(self.told):
            return self.told_weights
        return self.first if number == len(self.told) else self.moves

    def weights(self, number: int) -> Array:
        """How plausible each version of coming day ``number`` is, all told, [n], sum 1."""
        weights = self.into(min(number, len(self.told)))
        for _ in range(number - len(self.told)):
            weights = weights @ self.moves
        return weights

    def mean(self, number: int, kind: int) -> Array:
        """What is expected of coming day ``number``, [m]."""
        expected: Array = self.weights(number) @ self.day(number, kind)
        return expected

    def quantile(self, number: int, kind: int, share: float) -> Array:
        """What coming day ``number`` stays below with probability ``share``, slot by slot, [m]."""
        day, weights = self.day(number, kind), self.weights(number)
        order = np.argsort(day, axis=0)
        rising = np.cumsum(weights[order], axis=0)
        place = np.minimum((rising < share).sum(axis=0), len(day) - 1)
        chosen: Array = np.take_along_axis(day, np.take_along_axis(order, place[None], axis=0), axis=0)[0]
        return chosen


def learn(days: Days, told: Told | None = None, told_kinds: Sequence[int] = ()) -> Chain | None:
    """The chain that follows the last of ``days``; None where fewer than ``LEAST_DAYS`` are known well enough.

    ``told`` is what drivers tell of the next days, of ``told_kinds``; the chain then follows the last of those.
    """
    if told is not None and (chain := learn(_with(days, told, told_kinds))) is not None:
        errors = told.errors[-MOST_DAYS:]
        weights = 0.5 ** (np.arange(len(errors))[::-1] / _RECENT_HALF_LIFE)
        return replace(chain, told=told.expected[:, None] + errors, told_weights=weights / weights.sum())
    values, kinds = _filled(days)
    if len(values) < LEAST_DAYS:
        return None
    before, profiles = _profiles(values, kinds)
    skip = min(_WARM_UP, len(values) - LEAST_DAYS)
    deviations = (values - before)[skip:]
    recent = 0.5 ** (np.arange(len(deviations))[::-1] / _RECENT_HALF_LIFE)
    expected = _expected(deviations, recent)
    alike = _alike(expected.mean(axis=1), recent)
    errors = deviations.copy()
    errors[1:] -= expected[:-1]
    moves = alike / alike.sum(axis=1, keepdims=True)
    return Chain(profiles=profiles, deviations=deviations, first_deviations=expected[-1] + errors, first=moves[-1], moves=moves)


def _with(days: Days, told: Told, kinds: Sequence[int]) -> Days:
    return Days(values=np.vstack([days.values, told.expected]), kinds=np.append(days.kinds, np.asarray(kinds, dtype=np.intp)))


def _filled(days: Days) -> tuple[Array, NDArray[np.intp]]:
    """The newest ``MOST_DAYS`` with few gaps; a gap takes the mean of its wall-clock slot, so that it says nothing."""
    known = np.isnan(days.values).mean(axis=1) <= _MOST_UNKNOWN
    values, kinds = days.values[known][-MOST_DAYS - _WARM_UP :], days.kinds[known][-MOST_DAYS - _WARM_UP :]
    if not len(values):
        return values, kinds
    gaps = np.isnan(values)
    if gaps.any():
        usual = np.where(gaps, 0.0, values).sum(axis=0) / np.maximum((~gaps).sum(axis=0), 1)
        values = np.where(gaps, usual, values)
    return values, kinds


def _profiles(values: Array, kinds: NDArray[np.intp]) -> tuple[Array, Array]:
    """Each day's usual profile as it stood before that day [n, m], and the profiles of all kinds after the last day [KINDS, m]."""
    current = np.repeat(values[:7].mean(axis=0)[None], KINDS, axis=0)
    seen = [0] * KINDS
    before = np.empty_like(values)
    for day, kind in enumerate(kinds):
        before[day] = current[kind]
        seen[kind] += 1
        share = max(1 - 0.5 ** (1 / _PROFILE_HALF_LIFE[kind]), 1 / (seen[kind] + 1))
        current[kind] += share * (values[day] - current[kind])
    return before, current


def _expected(deviations: Array, recent: Array) -> Array:
    """The deviation to be expected of the day after each day [n, m]: a ridge regression on its eighths and the mean of the one before."""
    mean = deviations.mean(axis=1)
    eighths = [block.mean(axis=1) for block in np.array_split(deviations, _BLOCKS, axis=1)]
    features = np.column_stack([*eighths, np.concatenate([[0.0], mean[:-1]])])
    features /= features.std(axis=0) + 1e-9
    past, weights = features[:-1], recent[1:, None]
    gram = (past * weights).T @ past + _RIDGE * np.eye(past.shape[1])
    fitted: Array = features @ np.linalg.solve(gram, (past * weights).T @ deviations[1:])
    return fitted


def _alike(outlook: Array, recent: Array) -> Array:
    """How well day j would follow day i [n, n]: a kernel on the outlook of i and of the day before j, older days weighing less."""
    spread = np.sqrt(np.average(outlook**2, weights=recent)) + 1e-9
    distance = (outlook[:, None] - outlook[None, :-1]) / (_BANDWIDTH * spread)
    alike = np.zeros((len(outlook), len(outlook)))
    alike[:, 1:] = (np.exp(-0.5 * np.minimum(distance**2, 1400)) + 1e-12) * recent[1:]
    return alike
