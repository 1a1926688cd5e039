"""What is known and what may come: from readings as they were known then, on real calendars."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import sin

import numpy as np
import pytest

from gridsched.core.grid import Calendar
from gridsched.core.outlook import LOOK_AHEAD, Outlook, band, look_ahead, slot_of
from gridsched.core.signal import Quality, Reading, SignalKind

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
BERLIN = Calendar(timezone="Europe/Berlin")
NOON = datetime(2024, 3, 12, 12, tzinfo=UTC)
"""Tomorrow's prices have just been published."""


def price(start: datetime) -> float:
    return 50 + 30 * sin(start.hour / 4) + 20 * sin(start.toordinal() / 2)


def reading(start: datetime, value: float, *, length: timedelta = HOUR, known_at: datetime | None = None, **changes: Quality) -> Reading:
    local = BERLIN.midnight(BERLIN.day_of(start))
    return Reading(
        zone="de", signal=SignalKind.PRICE, start=start, end=start + length, value=value, quality=changes.get("quality", Quality.MEASURED),
        source="x", known_at=known_at or local - 11 * HOUR,
    )  # fmt: skip


def published(until: datetime, *, days: int = 40, length: timedelta = HOUR) -> list[Reading]:
    """Prices of the days before local midnight ``until``, each known since noon of the day before."""
    count = int(days * DAY / length)
    return [reading(at, price(at), length=length) for n in range(count, 0, -1) for at in [until - n * length]]


MIDNIGHT = BERLIN.midnight(BERLIN.day_of(NOON) + 2 * DAY)


def seen(readings: Iterable[Reading], now: datetime = NOON) -> Outlook:
    found = look_ahead(list(readings), now=now, calendar=BERLIN)
    assert found is not None
    return found


def test_known_slots_run_from_the_present_one_to_the_last_published() -> None:
    outlook = seen(published(MIDNIGHT), NOON + timedelta(minutes=20))
    assert (outlook.known.start, outlook.known.end, len(outlook.known)) == (NOON, MIDNIGHT, 35)
    assert outlook.known.values[0] == pytest.approx(price(NOON))
    assert 30 < outlook.learned <= 41


def test_what_was_learned_later_changes_nothing() -> None:
    """Scrambling everything that was not known then leaves the outlook as it is, bit by bit."""
    readings = published(MIDNIGHT)
    later = [reading(r.start, -9e3, known_at=NOON + timedelta(seconds=1)) for r in readings]
    unknown = [reading(MIDNIGHT + n * HOUR, 4000.0, known_at=NOON + HOUR) for n in range(48)]
    plain, scrambled = seen(readings), seen([*readings, *later, *unknown])
    assert np.array_equal(plain.known.values, scrambled.known.values)
    assert np.array_equal(plain.chain.moves, scrambled.chain.moves)
    assert band(plain, MIDNIGHT + 3 * DAY) == band(scrambled, MIDNIGHT + 3 * DAY)
    assert band(plain, MIDNIGHT + DAY) != band(seen([*readings, *later], NOON + HOUR), MIDNIGHT + DAY)


def test_a_revision_counts_and_a_forecast_never_hides_what_is_settled() -> None:
    readings = published(MIDNIGHT)
    revised = reading(NOON, 7.0, known_at=NOON - HOUR)
    guessed = reading(NOON + HOUR, 99.0, known_at=NOON - HOUR, quality=Quality.FORECAST)
    outlook = seen([*readings, revised, guessed])
    assert outlook.known.values[:2] == pytest.approx([7.0, price(NOON + HOUR)])


def test_holes_stay_unknown() -> None:
    outlook = seen(r for r in published(MIDNIGHT) if r.start != NOON + 3 * HOUR)
    assert np.isnan(outlook.known.values[3])
    assert not np.isnan(outlook.known.values[4])


def test_nothing_known_from_now_on_is_no_outlook() -> None:
    old = published(BERLIN.midnight(BERLIN.day_of(NOON)))
    assert look_ahead(old, now=NOON, calendar=BERLIN) is None
    assert look_ahead([], now=NOON, calendar=BERLIN) is None


def test_what_is_measured_and_still_fresh_stands_for_the_present_slot_alone() -> None:
    old = [r for r in published(MIDNIGHT) if r.end <= NOON - HOUR / 2]
    outlook = look_ahead(old, now=NOON, calendar=BERLIN, stale_after=HOUR)
    assert outlook is not None
    assert (len(outlook.known), outlook.known.values[0]) == (1, old[-1].value)
    grid, days = outlook.ahead(NOON + DAY)
    assert (grid.start, len(grid)) == (NOON + HOUR, 23)
    assert len(days) == 2, "the rest of today, and a part of tomorrow"


def test_a_young_site_takes_later_days_as_the_mean_of_what_it_knows() -> None:
    outlook = seen(published(MIDNIGHT, days=2))
    assert outlook.learned == 0
    rows = band(outlook, MIDNIGHT + DAY)
    assert all(low == mean == high for _, mean, low, high in rows)
    at_noon = next(mean for at, mean, _, _ in rows if at == NOON + 2 * DAY)
    assert at_noon == pytest.approx((price(NOON) + price(NOON + DAY)) / 2)


@pytest.mark.parametrize(("day", "hours"), [("2024-03-31", 23), ("2024-10-27", 25), ("2024-06-01", 24)])
def test_a_day_to_come_has_as_many_slots_as_its_clock_says(day: str, hours: int) -> None:
    midnight = datetime.fromisoformat(f"{day}T00:00+02:00" if hours != 23 else f"{day}T00:00+01:00").astimezone(UTC)
    outlook = look_ahead(published(midnight), now=midnight - 10 * HOUR, calendar=BERLIN)
    assert outlook is not None
    rows = band(outlook, midnight + 2 * DAY)
    local = [at.astimezone(midnight.astimezone().tzinfo) for at, *_ in rows]
    assert len(local) == 48
    _, days = outlook.ahead(midnight + 3 * DAY)
    assert days.bounds[1] - days.bounds[0] == hours


@pytest.mark.parametrize(("minutes", "slot"), [([60], 60), ([60, 15], 15), ([30], 30), ([5], 15), ([20], 30), ([1440], 60)])
def test_slots_are_as_fine_as_the_signal(minutes: list[int], slot: int) -> None:
    readings = [reading(NOON, 1.0, length=timedelta(minutes=each)) for each in minutes]
    assert slot_of(readings, NOON) == timedelta(minutes=slot)


def test_quarter_hours_behind_years_of_hours_are_told_apart() -> None:
    old = [r for r in published(MIDNIGHT) if r.start < NOON - 7 * DAY]
    new = [r for r in published(MIDNIGHT, length=HOUR / 4) if r.start >= NOON - 7 * DAY]
    outlook = seen([*old, *new])
    assert outlook.known.slot == HOUR / 4
    assert len(outlook.known) == 140


def test_later_on_with_nothing_new_it_is_the_same_outlook() -> None:
    readings = published(MIDNIGHT)
    outlook, again = seen(readings), seen(readings, NOON + 5 * HOUR)
    later = outlook.since(NOON + 5 * HOUR + HOUR / 3)
    assert later is not None
    assert (later.known.start, later.known.end) == (again.known.start, again.known.end)
    assert np.array_equal(later.known.values, again.known.values)
    assert np.array_equal(later.chain.moves, again.chain.moves)
    assert outlook.since(MIDNIGHT) is None


def test_nobody_publishes_further_than_we_look() -> None:
    far = reading(NOON + 30 * DAY, 5.0, known_at=NOON)
    assert seen([*published(MIDNIGHT), far]).known.end <= NOON + LOOK_AHEAD


def wind(start: datetime) -> float:
    """A residual load in watts that the price would follow."""
    return 3e10 + 1e9 * (price(start) - 50)


def forecasts(until: datetime, *, days: int = 45, known_at: datetime | None = None) -> list[Reading]:
    """Residual loads of the days before local midnight ``until``, each forecast since the day before."""
    rows = [reading(until - n * HOUR, 0.0, known_at=known_at, quality=Quality.FORECAST) for n in range(int(days * DAY / HOUR), 0, -1)]
    return [replace(row, signal=SignalKind.RESIDUAL_LOAD, value=wind(row.start), known_at=min(row.known_at, NOON)) for row in rows]


def test_forecasts_that_reach_further_tell_what_the_next_days_cost() -> None:
    storm = MIDNIGHT + timedelta(hours=12)
    ahead = [replace(r, value=r.value - 6e10) if r.start >= MIDNIGHT else r for r in forecasts(MIDNIGHT + 2 * DAY)]
    prices = published(MIDNIGHT)
    blind = seen(prices)
    seeing = look_ahead(prices, now=NOON, calendar=BERLIN, drivers=[ahead])
    assert seeing is not None
    assert (blind.told, seeing.told) == (0, 2)
    expected = {at: mean for at, mean, _, _ in band(seeing, MIDNIGHT + 3 * DAY)}
    usual = {at: mean for at, mean, _, _ in band(blind, MIDNIGHT + 3 * DAY)}
    assert expected[storm] < usual[storm] - 20
    assert len(expected) == len(usual) == 72


def test_a_forecast_learned_later_tells_nothing() -> None:
    later = forecasts(MIDNIGHT + 2 * DAY, known_at=NOON + HOUR)
    later = [replace(row, known_at=NOON + HOUR) for row in later]
    found = look_ahead(published(MIDNIGHT), now=NOON, calendar=BERLIN, drivers=[later])
    assert found is not None
    assert found.told == 0


def test_a_day_that_is_not_forecast_to_its_end_is_not_told() -> None:
    ahead = [row for row in forecasts(MIDNIGHT + 2 * DAY) if row.end <= MIDNIGHT + DAY + 18 * HOUR]
    found = look_ahead(published(MIDNIGHT), now=NOON, calendar=BERLIN, drivers=[ahead])
    assert found is not None
    assert found.told == 1


def test_across_a_clock_change_the_days_are_told_all_the_same() -> None:
    """The hour that is left out on 31 March 2024 costs neither the days behind it nor itself."""
    now = datetime(2024, 4, 2, 12, tzinfo=UTC)
    until = BERLIN.midnight(BERLIN.day_of(now) + 2 * DAY)
    ahead = [replace(row, known_at=now) for row in forecasts(until + DAY)]
    found = look_ahead(published(until), now=now, calendar=BERLIN, drivers=[ahead])
    assert found is not None
    assert found.told == 1


def test_surplus_is_not_told_by_what_makes_prices() -> None:
    surplus = [replace(row, signal=SignalKind.SURPLUS) for row in published(MIDNIGHT)]
    found = look_ahead(surplus, now=NOON, calendar=BERLIN, drivers=[forecasts(MIDNIGHT + DAY)])
    assert found is not None
    assert found.told == 0
