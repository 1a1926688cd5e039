"""What is known of one signal from now on, and what may come after that: known slots first, a chain of days behind them.

Only readings that were known at the time enter, so an outlook made again for a past moment is the one that was made then.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from gridsched.core.drivers import Driven, Told, tell
from gridsched.core.forecast import MOST_DAYS, Chain, Days, learn
from gridsched.core.grid import DAY, KINDS, Calendar, Grid, LocalDays, grid_of
from gridsched.core.signal import Reading, Series, SignalKind

__all__ = ["DRIVERS", "LOOK_AHEAD", "LOOK_BACK", "Outlook", "band", "look_ahead", "slot_of"]

LOOK_BACK = (MOST_DAYS + 14) * DAY
"""As far as a chain learns, and the days that its first profiles need."""
LOOK_AHEAD = 8 * DAY
"""As far as anybody publishes."""

DRIVERS = (SignalKind.RESIDUAL_LOAD, SignalKind.RENEWABLE_SHARE)
"""What tells of prices and carbon before they are published, as far as a zone has forecasts of it."""

_DRIVEN = frozenset({SignalKind.PRICE, SignalKind.CARBON})
_SHORTEST = timedelta(minutes=15)
_SLOTS = (_SHORTEST, timedelta(minutes=30), timedelta(hours=1))

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """``known`` has the slots from the present one to the last published one (NaN where a provider left a hole).

    ``chain`` stands for the days from the one in which ``known`` ends: day 0 is what is left of that day, or the one that begins there.
    ``learned`` past days made it (0: all days are taken as the mean of the known slots); ``told`` of its days have drivers that tell them.
    ``newest`` is when the newest reading was learned.
    """

    signal: SignalKind
    known: Grid
    chain: Chain
    learned: int
    newest: datetime
    calendar: Calendar
    told: int = 0

    def since(self, now: datetime) -> "Outlook | None":
        """The same later on, when nothing new is known; None once the last known slot has passed."""
        passed = max(0, self.known.index(now))
        if passed >= len(self.known):
            return None
        known = Grid(start=self.known.time(passed), slot=self.known.slot, values=self.known.values[passed:])
        return replace(self, known=known)

    def ahead(self, until: datetime) -> tuple[Grid, LocalDays]:
        """The slots after the known ones and wholly before ``until``, without values, and their local days."""
        count = max(0, (until - self.known.end) // self.known.slot)
        grid = Grid(start=self.known.end, slot=self.known.slot, values=np.full(count, np.nan))
        if count:
            return grid, self.calendar.days(grid)
        nothing = np.zeros(0, dtype=np.intp)
        return grid, LocalDays(bounds=np.zeros(1, dtype=np.intp), kinds=nothing, columns=nothing, width=DAY // grid.slot)


def slot_of(readings: Sequence[Reading], now: datetime) -> timedelta:
    """The length of slot that a signal comes in of late: the shortest of 15, 30 and 60 minutes that its readings have."""
    lengths = {reading.end - reading.start for reading in readings if reading.end > now - 2 * DAY}
    return next((slot for slot in _SLOTS if any(length <= slot for length in lengths)), _SLOTS[-1])


def look_ahead(
    readings: Sequence[Reading],
    *,
    now: datetime,
    calendar: Calendar,
    stale_after: timedelta = timedelta(0),
    drivers: Sequence[Sequence[Reading]] = (),
) -> Outlook | None:
    """The outlook at ``now`` on one signal of one zone, given what was known of it; None where nothing is known from now on.

    A value that is fresh for ``stale_after`` behind its slot stands for the present one: what is measured is not published ahead.
    ``drivers`` are readings of other signals of the zone; those that reach beyond the known slots tell of prices and carbon there.
    """
    seen = [reading for reading in readings if reading.known_at <= now]
    if not seen:
        return None
    slot = slot_of(seen, now)
    best_last = Series(seen).best_last()
    start = calendar.midnight(calendar.day_of(max(min(r.start for r in seen), now - LOOK_BACK)))
    present = start + (now - start) // slot * slot
    end = max(min(max(reading.end for reading in seen), now + LOOK_AHEAD), present + slot)
    whole = grid_of(best_last, start=start, end=start + -((start - end) // slot) * slot, slot=slot)
    known = _known(whole, present, best_last, now, stale_after)
    if known is None:
        return None
    signal = seen[0].signal
    by_then = [[r for r in rows if r.known_at <= now] for rows in drivers] if signal in _DRIVEN else []
    chain, learned = _learn(whole, known, calendar, [rows for rows in by_then if rows])
    return Outlook(
        signal=signal,
        known=known,
        chain=chain,
        learned=learned,
        newest=max(r.known_at for r in seen),
        calendar=calendar,
        told=len(chain.told),
    )


def _known(whole: Grid, present: datetime, readings: Sequence[Reading], now: datetime, stale_after: timedelta) -> Grid | None:
    """From the present slot to the last known one."""
    values = whole.values[whole.index(present) :].copy()
    if np.isnan(values[0]):
        last = max((r for r in readings if r.start <= now), key=lambda r: r.end, default=None)
        if last is not None and now - last.end <= stale_after and stale_after:
            values[0] = last.value
    found = np.flatnonzero(~np.isnan(values))
    return Grid(start=present, slot=whole.slot, values=values[: int(found[-1]) + 1]) if len(found) else None


def _learn(whole: Grid, known: Grid, calendar: Calendar, drivers: Sequence[Sequence[Reading]]) -> tuple[Chain, int]:
    """The chain behind ``known``, and from how many days it was learned."""
    past = Grid(start=whole.start, slot=whole.slot, values=whole.values[: whole.index(known.end)])
    days = calendar.days(past)
    count = len(days) if calendar.midnight(calendar.day_of(past.end)) == past.end else len(days) - 1
    table = days.table(past.values, range(count))
    seen = Days(values=table, kinds=days.kinds[:count])
    told, kinds = _told(seen, past, calendar, drivers) if drivers and count == len(days) else (None, [])
    chain = learn(seen, told, kinds) if count else None
    if chain is not None:
        return chain, min(count, MOST_DAYS)
    return _flat(past, days), 0


def _told(seen: Days, past: Grid, calendar: Calendar, drivers: Sequence[Sequence[Reading]]) -> tuple[Told | None, list[int]]:
    """What drivers tell of the days after ``past``, as many as all of them cover from midnight to midnight, and the kinds of those days."""
    ends = past.end + LOOK_AHEAD
    days = calendar.days(grid_of((), start=past.start, end=ends, slot=past.slot))
    tables = []
    for rows in drivers:
        grid = grid_of(Series(rows).best_last(), start=past.start, end=ends, slot=past.slot)
        tables.append(_mended(days.table(grid.values, range(len(days)))))
    values, count = _mended(seen.values), len(seen.values)
    gaps = np.any([np.isnan(table).any(axis=1) for table in tables], axis=0)
    coming = int(np.argmax(gaps[count:])) if gaps[count:].any() else len(gaps) - count
    gaps[:count] |= np.isnan(values).any(axis=1)
    first = int(np.flatnonzero(gaps[:count])[-1]) + 1 if gaps[:count].any() else 0
    if not coming:
        return None, []
    kinds = days.kinds[first : count + coming]
    told = tell(Driven(values=values[first:], kinds=kinds, drivers=[table[first : count + coming] for table in tables]))
    return told, [int(kind) for kind in kinds[count - first :]]


def _mended(table: Array) -> Array:
    """Days with few holes, such as the hour that a clock change leaves out, with those holes filled from their neighbours."""
    mended = table.copy()
    for row in mended:
        holes = np.isnan(row)
        if 0 < holes.sum() <= len(row) // 12:
            row[holes] = np.interp(np.flatnonzero(holes), np.flatnonzero(~holes), row[~holes])
    return mended


def _flat(past: Grid, days: LocalDays) -> Chain:
    """Every day alike: at each time of day what has been usual at that time, as far as it is known."""
    usual = np.full(days.width, np.nanmean(past.values))
    for column in range(days.width):
        seen = past.values[days.columns == column]
        if not np.isnan(seen).all():
            usual[column] = np.nanmean(seen)
    nothing, certain = np.zeros((1, days.width)), np.ones(1)
    return Chain(
        profiles=np.tile(usual, (KINDS, 1)), deviations=nothing, first_deviations=nothing, first=certain, moves=certain.reshape(1, 1)
    )


def band(outlook: Outlook, until: datetime, *, low: float = 0.1, high: float = 0.9) -> list[tuple[datetime, float, float, float]]:
    """Each slot after the known ones: when it begins, what is expected, and between which values it lies with probability high - low."""
    grid, days = outlook.ahead(until)
    rows: list[tuple[datetime, float, float, float]] = []
    for number, kind in enumerate(days.kinds):
        mean = outlook.chain.mean(number, int(kind))
        lower, upper = (outlook.chain.quantile(number, int(kind), share) for share in (low, high))
        for slot in range(days.bounds[number], days.bounds[number + 1]):
            column = days.columns[slot]
            rows.append((grid.time(slot), float(mean[column]), float(lower[column]), float(upper[column])))
    return rows
