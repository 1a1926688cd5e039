"""A chain of plausible days: weights that are weights, a mean that is better than last month's, and nothing from the future."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gridsched.core.forecast import LEAST_DAYS, MOST_DAYS, Chain, Days, learn
from gridsched.core.grid import KINDS

WEEK = 7
Array = NDArray[np.float64]


def kinds(count: int) -> NDArray[np.intp]:
    """Weeks that begin on a Monday."""
    return np.array([{5: 1, 6: 2}.get(day % WEEK, 0) for day in range(count)], dtype=np.intp)


def made(count: int, *, width: int = 24, seed: int = 3) -> Days:
    """Days with a profile of their kind, a level that persists, and noise."""
    rng = np.random.default_rng(seed)
    level, values, which = 0.0, np.empty((count, width)), kinds(count)
    profile = np.array([[60.0], [45.0], [30.0]]) + 20 * np.sin(np.linspace(0, 2 * np.pi, width))
    for day in range(count):
        level = 0.8 * level + rng.normal(0, 10)
        values[day] = profile[which[day]] + level + rng.normal(0, 3, width)
    return Days(values=values, kinds=which)


def chain_of(days: Days) -> Chain:
    chain = learn(days)
    assert chain is not None
    return chain


@pytest.mark.parametrize(("count", "width"), [(LEAST_DAYS, 24), (15, 24), (21, 96), (60, 48), (MOST_DAYS + 60, 24)])
def test_weights_are_weights_and_every_figure_is_one(count: int, width: int) -> None:
    chain = chain_of(made(count, width=width))
    n = len(chain.first)
    assert n <= MOST_DAYS + 14
    assert chain.moves.shape == (n, n)
    assert chain.profiles.shape == (KINDS, width)
    assert chain.moves.sum(axis=1) == pytest.approx(np.ones(n))
    assert (chain.moves >= 0).all()
    for number in range(4):
        assert chain.weights(number).sum() == pytest.approx(1)
        assert np.isfinite(chain.mean(number, 0)).all()


@pytest.mark.parametrize("count", [0, 1, LEAST_DAYS - 1])
def test_from_a_few_days_nothing_is_learned(count: int) -> None:
    days = made(20)
    assert learn(Days(values=days.values[:count], kinds=days.kinds[:count])) is None


def test_quantiles_are_ordered_and_hold_the_days_between_them() -> None:
    chain = chain_of(made(120))
    for number, kind in ((0, 0), (1, 2), (3, 1)):
        lines = [chain.quantile(number, kind, share) for share in (0.05, 0.25, 0.5, 0.75, 0.95)]
        assert all((low <= high).all() for low, high in pairwise(lines))
        day, weights = chain.day(number, kind), chain.weights(number)
        below = ((day <= lines[3]) * weights[:, None]).sum(axis=0)
        assert (below >= 0.75 - 1e-9).all()
        assert (((day < lines[3]) * weights[:, None]).sum(axis=0) < 0.75).all()
        assert (chain.quantile(number, kind, 1.0) <= day.max(axis=0)).all()


def test_the_quantile_of_equal_days_is_that_day() -> None:
    flat = Days(values=np.tile(np.arange(24.0), (30, 1)), kinds=np.zeros(30, dtype=np.intp))
    chain = chain_of(flat)
    assert chain.mean(0, 0) == pytest.approx(np.arange(24.0))
    assert chain.quantile(2, 0, 0.1) == pytest.approx(np.arange(24.0))


def test_a_gap_says_nothing_and_spoils_nothing() -> None:
    whole = made(60)
    gaps = whole.values.copy()
    gaps[40, 3:6] = np.nan
    gaps[-1, 0] = np.nan
    chain, holed = chain_of(whole), chain_of(Days(values=gaps, kinds=whole.kinds))
    assert np.isfinite(holed.deviations).all()
    assert np.abs(holed.mean(1, 0) - chain.mean(1, 0)).max() < 5


def test_a_day_that_is_mostly_unknown_is_left_out() -> None:
    days = made(60)
    values = days.values.copy()
    values[30, :12] = np.nan
    without = Days(values=np.delete(days.values, 30, axis=0), kinds=np.delete(days.kinds, 30))
    np.testing.assert_array_equal(chain_of(Days(values=values, kinds=days.kinds)).moves, chain_of(without).moves)


def test_days_all_unknown_teach_nothing() -> None:
    assert learn(Days(values=np.full((30, 24), np.nan), kinds=kinds(30))) is None


def test_a_kind_that_never_came_is_taken_for_a_usual_day() -> None:
    days = made(40)
    only_working = Days(values=days.values, kinds=np.zeros(40, dtype=np.intp))
    chain = chain_of(only_working)
    assert np.isfinite(chain.mean(0, 2)).all()
    assert np.abs(chain.profiles[2] - days.values[:WEEK].mean(axis=0)).max() < 1e-9


def test_what_comes_later_cannot_be_asked_for() -> None:
    """Whatever the days after the last known one hold, the forecast is the same to the last bit."""
    days = made(80)
    scrambled = days.values.copy()
    scrambled[50:] = np.random.default_rng(0).permutation(scrambled[50:].ravel()).reshape(30, 24) * -7
    before = chain_of(Days(values=days.values[:50], kinds=days.kinds[:50]))
    after = chain_of(Days(values=scrambled[:50], kinds=days.kinds[:50]))
    for name in ("profiles", "deviations", "first_deviations", "first", "moves"):
        np.testing.assert_array_equal(getattr(before, name), getattr(after, name))
    moved = chain_of(Days(values=scrambled[:51], kinds=days.kinds[:51]))
    assert not np.array_equal(moved.profiles, before.profiles), "and the next day, once known, is learned from"


def test_learning_changes_nothing_it_was_given() -> None:
    days = made(40)
    values = days.values.copy()
    values[20, 3] = np.nan
    kept = values.copy()
    learn(Days(values=values, kinds=days.kinds))
    np.testing.assert_array_equal(values, kept)


def test_the_outlook_fades_with_the_days() -> None:
    """After dear days tomorrow is dear too, and next week is nearer to what is usual."""
    days = made(100)
    values = days.values.copy()
    values[-3:] += 60
    chain, usual = chain_of(Days(values=values, kinds=days.kinds)), chain_of(days)
    above = [float((chain.mean(number, 0) - usual.profiles[0]).mean()) for number in (0, 6)]
    assert above[0] > above[1]
    assert above[0] > 15


@pytest.fixture(scope="module")
def recorded(repository: Path) -> tuple[Array, NDArray[np.intp]]:
    """DE-LU prices by local day and hour, and each day's kind."""
    path = repository.parent / "shared" / "data" / "series" / "de_lu_price_and_dayahead_forecast_hourly_2023_2025.csv.gz"
    if not path.is_file():
        pytest.skip("no recorded prices at ../shared/data/series")
    from gridsched.calendars import calendar_of
    from gridsched.core.signal import SignalKind
    from gridsched.report.trace import read_trace

    grid = read_trace(path, SignalKind.PRICE).grid
    days = calendar_of("Europe/Berlin", range(2023, 2026)).days(grid)
    return days.table(grid.values, range(len(days))), days.kinds


@pytest.mark.parametrize("number", [0, 1, 4])
def test_the_mean_is_nearer_to_what_came_than_the_mean_of_the_last_four_weeks(
    recorded: tuple[Array, NDArray[np.intp]], number: int
) -> None:
    values, which = recorded
    errors: list[tuple[float, float]] = []
    for day in range(60, len(values) - WEEK, 23):
        chain = chain_of(Days(values=values[max(0, day - 214) : day], kinds=which[max(0, day - 214) : day]))
        target = day + number
        four = np.nanmean([values[target - WEEK * back] for back in range(1, 6) if target - WEEK * back < day][:4], axis=0)
        ours = chain.mean(number, int(which[target]))
        errors.append((float(np.nanmean(np.abs(ours - values[target]))), float(np.nanmean(np.abs(four - values[target])))))
    mine, theirs = np.mean(errors, axis=0)
    assert mine < {0: 0.8, 1: 0.97, 4: 1.0}[number] * theirs, f"{mine:.1f} against {theirs:.1f} EUR/MWh"
