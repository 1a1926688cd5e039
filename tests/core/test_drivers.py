"""What forecasts of wind, sun and load tell of a day's prices."""

import numpy as np
import pytest

from gridsched.core.drivers import LEAST_DAYS, Driven, Told, tell
from gridsched.core.forecast import Days, learn
from gridsched.core.schedule import Coming, Effort, foresee

SLOTS = 24


def made(days: int, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Days whose price follows the residual load and nothing else: ``(prices, residual_w, kinds)``; below 20 GW it is negative."""
    draw = np.random.default_rng(seed)
    sun = np.maximum(np.sin((np.arange(SLOTS) - 6) / 12 * np.pi), 0) * draw.uniform(0, 30e9, (days, 1))
    residual_w = 45e9 - sun - draw.uniform(0, 20e9, (days, 1))
    return (residual_w - 20e9) / 1e9 * 2.5, residual_w, np.arange(days) % 7 // 5


def told_of(days: int, coming: int, *, seed: int = 0) -> tuple[Told | None, np.ndarray]:
    prices, residual_w, kinds = made(days + coming, seed=seed)
    return tell(Driven(values=prices[:days], kinds=kinds, drivers=[residual_w])), prices[days:]


def test_a_price_that_follows_its_driver_is_told() -> None:
    told, came = told_of(90, 2)
    assert told is not None
    cheap = came < np.median(came)
    assert np.abs(told.expected - came)[cheap].mean() < 5
    assert np.corrcoef(told.expected[cheap], came[cheap])[0, 1] > 0.95
    assert told.errors.shape == (90, SLOTS)


def test_the_cheap_end_is_told_in_its_order() -> None:
    told, came = told_of(120, 1, seed=3)
    assert told is not None
    assert set(np.argsort(told.expected[0])[:4]) == set(np.argsort(came[0])[:4])


@pytest.mark.parametrize("days", [0, 3, LEAST_DAYS - 1])
def test_a_short_past_tells_nothing(days: int) -> None:
    assert told_of(days, 1)[0] is None


def test_what_is_not_known_tells_nothing() -> None:
    prices, residual_w, kinds = made(60)
    residual_w[-1, 5] = np.nan
    assert tell(Driven(values=prices[:59], kinds=kinds, drivers=[residual_w])) is None


def test_only_the_past_and_the_drivers_of_the_day_itself_count() -> None:
    prices, residual_w, kinds = made(62)
    one = tell(Driven(values=prices[:60], kinds=kinds, drivers=[residual_w]))
    residual_w[61] = 0.0
    other = tell(Driven(values=prices[:60], kinds=kinds, drivers=[residual_w]))
    assert one is not None
    assert other is not None
    assert np.array_equal(one.expected[0], other.expected[0])
    assert not np.array_equal(one.expected[1], other.expected[1])


def test_a_driver_that_never_changes_does_no_harm() -> None:
    prices, residual_w, kinds = made(61)
    told = tell(Driven(values=prices[:60], kinds=kinds, drivers=[residual_w, np.zeros_like(residual_w)]))
    assert told is not None
    assert np.isfinite(told.expected).all()


def test_told_days_come_before_the_chain_and_make_waiting_worth_what_it_is() -> None:
    prices, residual_w, kinds = made(62, seed=1)
    prices[60] = prices[60] - 200  # a storm, and its forecast
    residual_w[60] = residual_w[60] - 80e9
    told = tell(Driven(values=prices[:60], kinds=kinds[:61], drivers=[residual_w[:61]]))
    past = Days(values=prices[:60], kinds=kinds[:60])
    blind, seeing = learn(past), learn(past, told, [int(kinds[60])])
    assert blind is not None
    assert seeing is not None
    assert seeing.day(0, 0).shape[0] == len(seeing.told_weights)
    assert seeing.weights(0).sum() == pytest.approx(1)
    assert seeing.weights(3).sum() == pytest.approx(1)
    assert seeing.mean(0, 0).mean() < blind.mean(0, 0).mean() - 20
    days = [Coming(kind=0, columns=np.arange(SLOTS))] * 3
    effort = Effort(work=6)
    assert foresee(seeing, days, effort)[0, 6] < foresee(blind, days, effort)[0, 6] - 100
