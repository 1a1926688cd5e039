"""A signal on regular slots, and the local days they fall into.

Prices are made by the local day: people sleep, work and rest by it, and a day's prices are published together. So forecasts
learn from whole days. A clock change makes a day of 23 or 25 hours; its slots keep the *column* of their wall-clock time, so
that ten in the morning stays ten in the morning, and the hour that comes twice has its column twice.
"""

from collections.abc import Iterable, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from gridsched.core.errors import InvalidInput
from gridsched.core.signal import Reading
from gridsched.core.units import utc

__all__ = ["DAY", "KINDS", "Calendar", "Grid", "LocalDays", "grid_of"]

DAY = timedelta(days=1)
KINDS = 3
"""Kinds of days: 0 a working day, 1 a Saturday, 2 a Sunday or a holiday."""
_SATURDAY, _SUNDAY = 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """``values`` [T] of slots of length ``slot``, one after another from ``start`` (UTC); NaN where nothing is known."""

    start: datetime
    slot: timedelta
    values: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not timedelta(0) < self.slot <= DAY or DAY % self.slot:
            raise InvalidInput(f"slots of {self.slot} do not divide a day; use 15, 30 or 60 minutes")

    def __len__(self) -> int:
        return len(self.values)

    @property
    def end(self) -> datetime:
        """The first moment after the last slot."""
        return self.start + len(self.values) * self.slot

    def index(self, moment: datetime) -> int:
        """The slot that holds ``moment``; may lie outside the grid."""
        return (moment - self.start) // self.slot

    def time(self, index: int) -> datetime:
        """When slot ``index`` begins."""
        return self.start + index * self.slot


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalDays:
    """The local days of a grid. Day d has slots ``bounds[d]`` to ``bounds[d + 1]`` [n + 1] and is of ``kinds[d]`` [n].

    ``columns`` [T] is each slot's place in a day of ``width`` slots. The first and the last day may be cut short by the grid.
    """

    bounds: NDArray[np.intp]
    kinds: NDArray[np.intp]
    columns: NDArray[np.intp]
    width: int

    def __len__(self) -> int:
        return len(self.kinds)

    def of(self, slot: int) -> int:
        """The day that holds ``slot``."""
        return int(np.searchsorted(self.bounds, slot, side="right")) - 1

    def table(self, values: NDArray[np.float64], days: range) -> NDArray[np.float64]:
        """``values`` [T] of whole ``days`` as rows [len(days), width]; the second of an hour that comes twice is left out."""
        rows = np.full((len(days), self.width), np.nan)
        for row, day in zip(rows, days, strict=True):
            span = slice(self.bounds[day + 1] - 1, self.bounds[day] - 1 if self.bounds[day] else None, -1)
            row[self.columns[span]] = values[span]
        return rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Calendar:
    """What kind a day is: the weekday in ``timezone``, and ``holidays``, which are lived like Sundays."""

    timezone: str = "UTC"
    holidays: Set[date] = field(default_factory=frozenset)

    def kind(self, day: date) -> int:
        """0 for a working day, 1 for a Saturday, 2 for a Sunday or a holiday."""
        if day in self.holidays or day.weekday() == _SUNDAY:
            return 2
        return int(day.weekday() == _SATURDAY)

    def midnight(self, day: date) -> datetime:
        """When ``day`` begins, in UTC."""
        return utc(datetime.combine(day, time(tzinfo=ZoneInfo(self.timezone))))

    def day_of(self, moment: datetime) -> date:
        """The local date of ``moment``."""
        return moment.astimezone(ZoneInfo(self.timezone)).date()

    def known_until(self, now: datetime, gate: time) -> datetime:
        """Until when day-ahead prices are known at ``now``: local midnight tonight, from ``gate`` on the one after."""
        local = now.astimezone(ZoneInfo(self.timezone))
        return self.midnight(local.date() + (2 if local.time() >= gate else 1) * DAY)

    def days(self, grid: Grid) -> LocalDays:
        """The local days that ``grid`` touches."""
        first, last = self.day_of(grid.start), self.day_of(grid.end - grid.slot)
        dates = [first + number * DAY for number in range((last - first).days + 1)]
        midnights = [self.midnight(day) for day in dates]
        bounds = np.clip([(moment - grid.start) // grid.slot for moment in [*midnights, self.midnight(last + DAY)]], 0, len(grid))
        columns = np.concatenate([self._columns(day, grid, low, high) for day, low, high in zip(dates, bounds, bounds[1:], strict=False)])
        kinds = np.array([self.kind(day) for day in dates], dtype=np.intp)
        return LocalDays(bounds=bounds.astype(np.intp), kinds=kinds, columns=columns.astype(np.intp), width=DAY // grid.slot)

    def _columns(self, day: date, grid: Grid, low: int, high: int) -> NDArray[np.intp]:
        """Wall-clock places of slots ``low`` to ``high``, all of ``day``."""
        midnight = self.midnight(day)
        width = DAY // grid.slot
        if self.midnight(day + DAY) - midnight == DAY:
            return np.arange(low, high) - (midnight - grid.start) // grid.slot
        zone = ZoneInfo(self.timezone)
        clocks = [grid.time(index).astimezone(zone) for index in range(low, high)]
        return np.array([min((timedelta(hours=c.hour, minutes=c.minute) // grid.slot), width - 1) for c in clocks], dtype=np.intp)


def grid_of(readings: Iterable[Reading], *, start: datetime, end: datetime, slot: timedelta) -> Grid:
    """``readings`` on slots of ``slot`` over ``[start, end)``; where several cover a slot the last given counts, so give the best last.

    A longer reading holds in each slot that begins in it; of shorter ones within a slot the mean is kept.
    """
    count = (end - start) // slot
    sums, hits = np.zeros(count), np.zeros(count)
    values = np.full(count, np.nan)
    for reading in readings:
        low, high = (reading.start - start) // slot, -((start - reading.end) // slot)
        if reading.end - reading.start >= slot:
            values[max(low, 0) : max(high, 0)] = reading.value
        elif 0 <= low < count:
            sums[low] += reading.value
            hits[low] += 1
    finer = hits > 0
    values[finer] = sums[finer] / hits[finer]
    return Grid(start=start, slot=slot, values=values)
