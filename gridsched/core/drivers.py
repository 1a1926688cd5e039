"""What a coming day costs when more is known of it than its date: forecasts of residual load, renewable and solar share.

Day-ahead prices follow the merit order: the more wind and sun for a given load, the cheaper the last plant that runs, and below
zero the slope changes. So a day's values are regressed, slot by slot, on hinges of its *drivers*, on the drivers' extremes that day and
on the values of the days before. Values above the middle of the last year count as the middle: what is sought is the cheap end, and
one dear week would bend the line there. Nothing but the past and what was forecast for the day itself enters.

Source: the LEAR model (Lago et al., doi:10.1016/j.apenergy.2021.116983), here one pooled ridge regression with hinges instead of
one lasso for each hour.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gridsched.core.grid import KINDS

__all__ = ["LEAST_DAYS", "Driven", "Told", "tell"]

LEAST_DAYS = 28
_MOST_DAYS = 365
_KNOTS = (0.05, 0.15, 0.3, 0.5, 0.7, 0.85, 0.95)
_RIDGE = 3.0
_LAGS = 7
_BLOCKS = 8

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Driven:
    """n past days and f coming ones, without gaps: ``values`` [n, m] as they were, ``kinds`` [n + f], and each of ``drivers`` [n + f, m].

    A driver of a past day is what had been forecast for it.
    """

    values: Array
    kinds: NDArray[np.intp]
    drivers: Sequence[Array]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """``expected`` [f, m] of the coming days, and the ``errors`` [n, m] of the same regression on the past days (0 for the first week)."""

    expected: Array
    errors: Array


def tell(days: Driven) -> Told | None:
    """What the drivers tell of the coming days; None where fewer than ``LEAST_DAYS`` are known, or something is unknown."""
    past = len(days.values)
    coming = len(days.kinds) - past
    if past < LEAST_DAYS or any(np.isnan(table).any() for table in (days.values, *days.drivers)):
        return None
    first = max(_LAGS, past - _MOST_DAYS)
    scaled = [_scaled(driver, past) for driver in days.drivers]
    middle = float(np.median(days.values[first:]))
    spread = float(np.std(days.values[first:])) + 1e-9
    values = (np.minimum(days.values, middle) - middle) / spread
    samples = np.stack([_features(values, days.kinds, scaled, day) for day in range(first, past)])
    flat = samples.reshape(-1, samples.shape[-1])
    centre, scale = flat.mean(axis=0), flat.std(axis=0) + 1e-9
    flat = np.column_stack([(flat - centre) / scale, np.ones(len(flat))])
    gram = flat.T @ flat + _RIDGE * np.diag([*np.ones(flat.shape[1] - 1), 0.0])
    weights = np.linalg.solve(gram, flat.T @ values[first:].reshape(-1))
    errors = np.zeros_like(days.values)
    errors[first:] = days.values[first:] - (spread * (flat @ weights).reshape(past - first, -1) + middle)
    for day in range(past, past + coming):  # the second coming day builds on what was expected of the first
        features = (_features(values, days.kinds, scaled, day) - centre) / scale
        values = np.vstack([values, features @ weights[:-1] + weights[-1]])
    return Told(expected=spread * values[past:] + middle, errors=errors)


def _scaled(driver: Array, past: int) -> Array:
    """From 0 to 1 over the past, coming days on the same scale."""
    low, high = float(driver[:past].min()), float(driver[:past].max())
    scaled: Array = (driver - low) / max(high - low, 1e-9)
    return scaled


def _features(values: Array, kinds: NDArray[np.intp], drivers: Sequence[Array], day: int) -> Array:
    """One row for each slot of ``day`` [m, features]."""
    width = values.shape[1]
    last = values[day - 1]
    columns: list[Array] = [last, values[day - 2], values[day - _LAGS]]
    whole_day = [last[-(width // 6) :].mean(), last.mean(), last.min(), values[day - _LAGS : day].mean(), values[day - _LAGS : day].min()]
    for driver in drivers:
        now = driver[day]
        columns += [now, *(np.maximum(now - knot, 0.0) for knot in _KNOTS), driver[day - 1] - now]
        columns += [np.append(now[1:], now[-1]) - now, np.insert(now[:-1], 0, now[0]) - now]
        whole_day += [now.max(), now.min(), now.mean(), np.sort(now)[: width // 4].mean()]
    whole_day += [float(kinds[day] == kind) for kind in range(1, KINDS)]
    block = np.arange(width) * _BLOCKS // width
    columns += [(block == number).astype(np.float64) for number in range(_BLOCKS)]
    return np.column_stack([*columns, np.broadcast_to(whole_day, (width, len(whole_day)))])
