"""Slots and local days: clock changes, what is known when, and readings that are longer or shorter than a slot."""

from datetime import UTC, date, datetime, time, timedelta

import numpy as np
import pytest

from gridsched.core.errors import InvalidInput
from gridsched.core.grid import DAY, Calendar, Grid, grid_of
from gridsched.core.signal import Quality, Reading, SignalKind

HOUR, QUARTER = timedelta(hours=1), timedelta(minutes=15)
BERLIN = Calendar(timezone="Europe/Berlin", holidays=frozenset({date(2025, 5, 1)}))
SPRING, PLAIN, AUTUMN = date(2025, 3, 30), date(2025, 4, 2), date(2025, 10, 26)


def whole_days(first: date, count: int = 1, *, slot: timedelta = QUARTER) -> Grid:
    start, end = BERLIN.midnight(first), BERLIN.midnight(first + count * DAY)
    return Grid(start=start, slot=slot, values=np.arange((end - start) // slot, dtype=np.float64))


@pytest.mark.parametrize(("day", "slots"), [(SPRING, 92), (PLAIN, 96), (AUTUMN, 100)])
def test_a_day_has_92_96_or_100_quarter_hours_and_columns_of_the_wall_clock(day: date, slots: int) -> None:
    grid = whole_days(day)
    days = BERLIN.days(grid)
    assert (len(grid), len(days), days.width) == (slots, 1, 96)
    assert days.bounds.tolist() == [0, slots]
    assert days.columns[:8].tolist() == list(range(8)), "until two o'clock all days are alike"
    assert days.columns[-80:].tolist() == list(range(16, 96)), "and from four o'clock on"


def test_the_hour_that_is_jumped_over_has_no_slot_and_the_one_that_comes_twice_has_two() -> None:
    spring, autumn = (BERLIN.days(whole_days(day)).columns.tolist() for day in (SPRING, AUTUMN))
    assert [spring.count(column) for column in (7, 8, 11, 12)] == [1, 0, 0, 1]
    assert [autumn.count(column) for column in (7, 8, 11, 12)] == [1, 2, 2, 1]
    assert autumn[8:16] == [8, 9, 10, 11] * 2


def test_a_table_has_a_hole_for_the_jumped_hour_and_the_first_of_the_two() -> None:
    for day, row in ((SPRING, [0, 1, np.nan, 2, 3]), (AUTUMN, [0, 1, 2, 4, 5])):
        grid = whole_days(day, slot=HOUR)
        table = BERLIN.days(grid).table(grid.values, range(1))
        assert table.shape == (1, 24)
        np.testing.assert_array_equal(table[0, :5], row)
        assert not np.isnan(table[0, 5:]).any()


def test_a_table_of_several_days_has_each_in_its_row() -> None:
    grid = whole_days(date(2025, 3, 29), 3, slot=HOUR)
    days = BERLIN.days(grid)
    assert days.bounds.tolist() == [0, 24, 47, 71]
    np.testing.assert_array_equal(days.table(grid.values, range(1, 3))[:, -1], [46, 70])
    assert [days.of(slot) for slot in (0, 23, 24, 46, 47, 70)] == [0, 0, 1, 1, 2, 2]


def test_days_that_the_grid_cuts_short_keep_their_columns() -> None:
    start = BERLIN.midnight(PLAIN) + 9 * HOUR
    days = BERLIN.days(Grid(start=start, slot=HOUR, values=np.zeros(20)))
    assert days.bounds.tolist() == [0, 15, 20]
    assert days.columns.tolist() == [*range(9, 24), *range(5)]


def test_kinds_are_working_day_saturday_and_sunday_or_holiday() -> None:
    assert [BERLIN.kind(date(2025, 4, 28) + n * DAY) for n in range(7)] == [0, 0, 0, 2, 0, 1, 2]
    assert BERLIN.days(whole_days(date(2025, 4, 30), 3, slot=HOUR)).kinds.tolist() == [0, 2, 0]


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2025-04-02T10:59:59+00:00", "2025-04-02T22:00:00+00:00"),  # 12:59 in Berlin: tonight
        ("2025-04-02T11:00:00+00:00", "2025-04-03T22:00:00+00:00"),  # 13:00: tomorrow night
        ("2025-04-02T22:00:00+00:00", "2025-04-03T22:00:00+00:00"),  # midnight: what was tomorrow is today
        ("2025-03-29T12:00:00+00:00", "2025-03-30T22:00:00+00:00"),  # the day before the clock is put forward
        ("2025-10-25T11:00:00+00:00", "2025-10-26T23:00:00+00:00"),  # and back
    ],
)
def test_from_the_gate_on_the_next_day_is_known(now: str, until: str) -> None:
    assert BERLIN.known_until(datetime.fromisoformat(now), time(13)) == datetime.fromisoformat(until)


def test_a_grid_counts_its_slots() -> None:
    grid = whole_days(PLAIN, slot=HOUR)
    assert grid.end == grid.start + DAY
    assert grid.time(3) == grid.start + 3 * HOUR
    assert grid.index(grid.start + 3 * HOUR + timedelta(minutes=59)) == 3
    assert grid.index(grid.start - timedelta(seconds=1)) == -1


@pytest.mark.parametrize("slot", [timedelta(0), timedelta(minutes=7), timedelta(days=2)])
def test_slots_divide_a_day(slot: timedelta) -> None:
    with pytest.raises(InvalidInput, match="do not divide a day"):
        Grid(start=datetime(2025, 1, 1, tzinfo=UTC), slot=slot, values=np.zeros(3))


def reading(start: int, minutes: int, value: float) -> Reading:
    begin = datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=start)
    return Reading(
        zone="z",
        signal=SignalKind.PRICE,
        start=begin,
        end=begin + timedelta(minutes=minutes),
        value=value,
        quality=Quality.MEASURED,
        source="s",
        known_at=begin,
    )


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([], [np.nan] * 4),
        ([(0, 60, 5.0)], [5, 5, 5, 5]),  # an hour holds in each of its quarters
        ([(15, 15, 1.0), (45, 15, 3.0)], [np.nan, 1, np.nan, 3]),
        ([(0, 5, 1.0), (5, 5, 2.0), (10, 5, 6.0)], [3, np.nan, np.nan, np.nan]),  # of shorter ones the mean
        ([(0, 60, 5.0), (15, 15, 7.0)], [5, 7, 5, 5]),  # the last given counts
        ([(-60, 90, 4.0), (30, 90, 8.0)], [4, 4, 8, 8]),  # what reaches over the ends is cut
        ([(-60, 60, 4.0), (60, 15, 8.0)], [np.nan] * 4),
    ],
)
def test_readings_become_slots(readings: list[tuple[int, int, float]], expected: list[float]) -> None:
    start = datetime(2025, 1, 1, tzinfo=UTC)
    grid = grid_of((reading(*row) for row in readings), start=start, end=start + HOUR, slot=QUARTER)
    np.testing.assert_array_equal(grid.values, expected)
