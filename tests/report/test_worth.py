"""What energy cost, what waiting saved, and when a battery would have done better."""

from dataclasses import replace
from datetime import timedelta

import pytest

from gridsched.core.facts import ZoneObserved
from gridsched.report.worth import drawn, worth
from tests.story import DAY, ZONE, tell


def ticks(*rows: tuple[float, float | None], target_w: float = 1000.0) -> list[ZoneObserved]:
    """One tick every half hour with (drawn watts, price); leased is 1 kW throughout."""
    return [
        ZoneObserved(
            at=DAY + number * timedelta(minutes=30),
            zone=ZONE,
            decision_id="d",
            target_w=target_w,
            leased_w=1000.0,
            drawn_w=watts,
            reason="surplus",
            signals={} if price is None else {"price": price},
            nodes={},
        )
        for number, (watts, price) in enumerate(rows)
    ]


def test_energy_and_cost_are_sums_over_the_ticks() -> None:
    power = drawn(ticks((1000, 50), (1000, -20), (0, 0)))
    assert power.energy_j == pytest.approx(3.6e6)
    assert power.cost_eur == pytest.approx(0.0005 * 50 - 0.0005 * 20)


def test_waiting_for_low_prices_avoids_the_cost_of_running_at_once() -> None:
    found = worth(ticks((0, 80), (0, 80), (1000, -20), (1000, -20), (0, 0)), [])
    assert found.drawn_kwh == pytest.approx(1)
    assert found.cost_eur == pytest.approx(-0.02)
    assert found.at_once_eur == pytest.approx(0.08)
    assert found.avoided_eur == pytest.approx(0.10)


def test_storage_gives_back_less_than_was_put_in() -> None:
    stored = worth(ticks((1000, 10), (1000, 10), (0, 10)), []).stored_kwh
    assert stored["battery"] == pytest.approx((0.82, 0.90))
    assert stored["power to gas to power"] == pytest.approx((0.25, 0.45))


def test_the_answer_is_no_where_a_battery_earns_more_than_it_costs() -> None:
    assert worth(ticks((1000, -20), (1000, -20), (0, 300)), []).battery_better is True
    assert worth(ticks((1000, 10), (1000, 10), (0, 40)), []).battery_better is False


def test_a_missing_price_makes_the_cost_unknown_and_never_zero() -> None:
    found = worth(ticks((1000, 50), (1000, None), (0, 50)), [])
    assert (found.cost_eur, found.avoided_eur, found.battery_better) == (None, None, None)
    assert found.drawn_kwh == pytest.approx(1)


def test_what_running_at_once_would_have_cost_is_unknown_where_a_price_on_its_way_is() -> None:
    found = worth(ticks((0, None), (1000, -20), (1000, -20), (0, 50)), [])
    assert found.cost_eur == pytest.approx(-0.02)
    assert (found.at_once_eur, found.avoided_eur) == (None, None)


def test_nothing_is_counted_over_a_time_the_daemon_was_down() -> None:
    first, last = ticks((1000, 50), (1000, 50))
    assert drawn([first, replace(last, at=first.at + timedelta(hours=5))]).energy_j == 0


def test_a_real_day_agrees_with_its_books() -> None:
    story = tell()
    observed = [f for f in story.facts if isinstance(f, ZoneObserved)]
    found = worth(observed, story.epochs)
    assert found.useful_kwh == pytest.approx(sum(e.useful_j for e in story.epochs) / 3.6e6)
    assert found.drawn_kwh == pytest.approx(sum(e.useful_j + e.wasted_j + e.idle_j for e in story.epochs) / 3.6e6, rel=0.05)
    assert found.cost_eur is not None
    assert found.cost_eur < 0
