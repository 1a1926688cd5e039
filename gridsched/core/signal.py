"""Signals: what is known about the grid in one zone, and since when.

A ``Reading`` is one value of one signal over a half-open slot ``[start, end)``, with the moment *we* learned it.
A ``Series`` is all readings of one signal in one zone; ``as_of(t)`` hides whatever was learned after ``t``.
A ``Snapshot`` is the one value per signal that counts at ``now``, each with its age.

**Age.** A value holds for its slot, so inside ``[start, end)`` its age is 0, however long ago it was learned: a day-ahead
price is as good at noon as it was the evening before. From ``end`` on it ages, however recently it arrived: a meter value
delivered late describes the past all the same. It stays fresh up to and including ``end + stale_after``; with
``stale_after`` 0 it is fresh inside its slot only. A *forecast* must, besides, have been learned within ``FORECAST_TRUST``; one that
is said again unchanged is learned again.
Unknown is not zero: a slot without a reading has no state, and asking for its value raises.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from gridsched.core.errors import InvalidInput, StaleSignal
from gridsched.core.units import utc

__all__ = [
    "FORECAST_TRUST",
    "STALE_AFTER",
    "UNIT",
    "Quality",
    "Reading",
    "Series",
    "SignalKind",
    "SignalState",
    "Snapshot",
    "is_fresh",
    "plausible",
    "snapshot",
    "why_stale",
]


class SignalKind(StrEnum):
    """What a signal tells. Surplus is positive when there is energy looking for a consumer.

    ``residual_load`` is the load less wind and sun, and may be negative; ``limit`` is the most a utility lets the zone draw for now.
    """

    SURPLUS = "surplus"
    PRICE = "price"
    CARBON = "carbon"
    RENEWABLE_SHARE = "renewable_share"
    RESIDUAL_LOAD = "residual_load"
    LIMIT = "limit"
    CURTAILMENT = "curtailment"
    ALARM = "alarm"


UNIT: Mapping[SignalKind, str] = MappingProxyType(
    {
        SignalKind.SURPLUS: "W",
        SignalKind.PRICE: "EUR/MWh",
        SignalKind.CARBON: "g/kWh",
        SignalKind.RENEWABLE_SHARE: "share",
        SignalKind.RESIDUAL_LOAD: "W",
        SignalKind.LIMIT: "W",
        SignalKind.CURTAILMENT: "W",
        SignalKind.ALARM: "level",
    }
)

# What is published ahead for each slot needs no grace: the next slot has its own value or none. What is measured
# describes a slot that is over by the time it arrives. A limit may be either: between two messages of a meter it holds on, and where
# it is lifted the next slot says so.
STALE_AFTER: Mapping[SignalKind, timedelta] = MappingProxyType(
    {
        SignalKind.SURPLUS: timedelta(minutes=15),
        SignalKind.PRICE: timedelta(0),
        SignalKind.CARBON: timedelta(hours=1),
        SignalKind.RENEWABLE_SHARE: timedelta(hours=1),
        SignalKind.RESIDUAL_LOAD: timedelta(hours=1),
        SignalKind.LIMIT: timedelta(minutes=15),
        SignalKind.CURTAILMENT: timedelta(0),
        SignalKind.ALARM: timedelta(minutes=15),
    }
)

FORECAST_TRUST = timedelta(hours=36)

_PLAUSIBLE: Mapping[SignalKind, tuple[float, float]] = MappingProxyType(
    {
        SignalKind.SURPLUS: (-1e12, 1e12),
        SignalKind.PRICE: (-10_000.0, 10_000.0),
        SignalKind.CARBON: (0.0, 3_000.0),
        SignalKind.RENEWABLE_SHARE: (0.0, 1.0),
        SignalKind.RESIDUAL_LOAD: (-1e12, 1e12),
        SignalKind.LIMIT: (0.0, 1e12),
        SignalKind.CURTAILMENT: (0.0, 1e12),
        SignalKind.ALARM: (0.0, 1.0),
    }
)

# Of what several sources say at once, the highest alarm and the lowest limit count.
_STRICTNESS: Mapping[SignalKind, float] = MappingProxyType({SignalKind.ALARM: 1.0, SignalKind.LIMIT: -1.0})


class Quality(StrEnum):
    """How a value came to be. A settled day-ahead price is ``measured``: nobody will correct it by observing more."""

    MEASURED = "measured"
    ESTIMATED = "estimated"
    FORECAST = "forecast"


_TRUST = {Quality.MEASURED: 2, Quality.ESTIMATED: 1, Quality.FORECAST: 0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One value of ``signal`` in ``zone`` over ``[start, end)``, in the signal's canonical ``UNIT``.

    ``known_at`` is when we learned it; providers give no trustworthy publication time. Moments are aware and kept in UTC.
    A revision is another reading of the same slot with a later ``known_at``; nothing is overwritten.
    """

    zone: str
    signal: SignalKind
    start: datetime
    end: datetime
    value: float
    quality: Quality
    source: str
    known_at: datetime

    def __post_init__(self) -> None:
        what = f"reading of {self.signal} in {self.zone}"
        for name in ("start", "end", "known_at"):
            try:
                object.__setattr__(self, name, utc(getattr(self, name)))
            except ValueError as error:
                raise InvalidInput(f"{what}: {name}: {error}") from error
        object.__setattr__(self, "value", float(self.value))
        if not self.start < self.end:
            raise InvalidInput(f"{what} starts at {self.start} and ends at {self.end}; a slot must end later than it starts")
        if not math.isfinite(self.value):
            raise InvalidInput(f"{what} at {self.start} is {self.value}; leave an unknown slot out instead")
        if self.signal is SignalKind.RENEWABLE_SHARE and not 0 <= self.value <= 1:
            raise InvalidInput(f"{what} at {self.start} is {self.value}; give a share from 0 to 1, not percent")


def plausible(reading: Reading) -> str | None:
    """Why ``reading`` should be dropped, or None. Zero, negative and very large prices are ordinary values."""
    low, high = _PLAUSIBLE[reading.signal]
    if low <= reading.value <= high:
        return None
    return f"{reading.signal} {reading.value:g} {UNIT[reading.signal]} is outside {low:g}..{high:g}; is the unit right?"


def _rank(reading: Reading) -> tuple[float, ...]:
    """Which of two readings of the same time counts: better quality, then the finer slot, then the later revision.

    Quality comes before novelty because some providers rewrite forecasts after the fact.
    """
    length_s = (reading.end - reading.start).total_seconds()
    return (_TRUST[reading.quality], -length_s, reading.known_at.timestamp())


def _order(reading: Reading) -> tuple[tuple[float, ...], str, float]:
    """A total order, so that the outcome never depends on the order of arrival."""
    return (_rank(reading), reading.source, reading.value)


class Series:
    """Readings of one signal in one zone, sorted by slot; every revision is kept."""

    def __init__(self, readings: Iterable[Reading] = ()) -> None:
        self._all = sorted(readings, key=lambda r: (r.start, r.end, r.known_at, r.source, r.value))
        if len({(r.zone, r.signal) for r in self._all}) > 1:
            raise InvalidInput("a series holds one signal of one zone; build one for each")
        best: dict[tuple[datetime, datetime], Reading] = {}
        for reading in self._all:
            slot = (reading.start, reading.end)
            if slot not in best or _order(reading) >= _order(best[slot]):
                best[slot] = reading
        self._current = sorted(best.values(), key=lambda r: (r.start, r.end))
        self._starts = [r.start for r in self._current]
        self._longest = max((r.end - r.start for r in self._current), default=timedelta(0))

    def __iter__(self) -> Iterator[Reading]:
        """The reading that counts for each slot, by time."""
        return iter(self._current)

    def __len__(self) -> int:
        return len(self._current)

    def as_of(self, known_at: datetime) -> "Series":
        """This series as it was known at ``known_at``; every back-test reads through here."""
        return Series(r for r in self._all if r.known_at <= known_at)

    def best_last(self) -> list[Reading]:
        """The reading that counts for each slot, and of slots that overlap the one that counts after the others."""
        return sorted(self._current, key=_order)

    def at(self, moment: datetime) -> Reading | None:
        """The reading whose slot holds ``moment``, or None: unknown. A slot's end belongs to the next slot."""
        low = bisect_left(self._starts, moment - self._longest)
        high = bisect_right(self._starts, moment)
        return max((r for r in self._current[low:high] if moment < r.end), key=_order, default=None)

    def between(self, start: datetime, end: datetime) -> tuple[Reading, ...]:
        """The readings whose slots overlap ``[start, end)``, by time."""
        low = bisect_left(self._starts, start - self._longest)
        high = bisect_left(self._starts, end)
        return tuple(r for r in self._current[low:high] if r.end > start)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalState:
    """What counts of one signal at one moment. ``age_s`` is the time since the slot ended, 0 while it lasts.

    ``others`` are sources that say something of the present too, each with its value.
    """

    kind: SignalKind
    value: float
    start: datetime
    end: datetime
    quality: Quality
    source: str
    known_at: datetime
    age_s: float
    fresh: bool
    others: tuple[tuple[str, float], ...] = ()


def is_fresh(state: SignalState | Reading, now: datetime, stale_after: timedelta) -> bool:
    """Whether ``state`` may be acted upon at ``now``; exactly at ``end + stale_after`` it still may (see the module's text)."""
    if _is_old_forecast(state, now):
        return False
    return now < state.end or (stale_after > timedelta(0) and now - state.end <= stale_after)


def why_stale(state: SignalState | Reading, now: datetime) -> str:
    """What keeps ``state``, which is not fresh at ``now``, from being acted upon; goes on after "is stale: "."""
    if _is_old_forecast(state, now):
        return f"it is a forecast that was learned too long ago, at {state.known_at:%Y-%m-%d %H:%M} UTC"
    return f"its slot ended at {state.end:%Y-%m-%d %H:%M} UTC"


def _is_old_forecast(state: SignalState | Reading, now: datetime) -> bool:
    return state.quality is Quality.FORECAST and now - state.known_at > FORECAST_TRUST


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All signals of ``zone`` as known at ``now``. A signal without any reading is absent."""

    zone: str
    now: datetime
    states: Mapping[SignalKind, SignalState]

    def get(self, kind: SignalKind) -> SignalState | None:
        """The state of ``kind``, stale or not; None when nothing is known."""
        return self.states.get(kind)

    def value(self, kind: SignalKind) -> float:
        """The value of ``kind`` in its canonical unit; raises StaleSignal when it is unknown or too old."""
        state = self.states.get(kind)
        if state is None:
            raise StaleSignal(f"{kind} in {self.zone} is unknown at {self.now.isoformat()}; check that an adapter of this zone provides it")
        if not state.fresh:
            raise StaleSignal(f"{kind} in {self.zone} from {state.source} is stale: {why_stale(state, self.now)}; check that source")
        return state.value


def snapshot(
    zone: str,
    now: datetime,
    readings: Iterable[Reading],
    stale_after: Mapping[SignalKind, timedelta] = STALE_AFTER,
) -> Snapshot:
    """The one value per signal that counts in ``zone`` at ``now``.

    Readings of other zones, slots that have not begun and rows learned after ``now`` are passed over. A slot that holds
    ``now`` wins; without one, the slot that ended last, with its age. Of several sources' alarms and limits the strictest counts:
    one that knows of none must not hide another's. ``stale_after`` overrides ``STALE_AFTER`` by kind.
    """
    best: dict[tuple[SignalKind, str], Reading] = {}
    for reading in readings:
        if reading.zone != zone or reading.start > now or reading.known_at > now:
            continue
        key = (reading.signal, reading.source)
        rival = best.get(key)
        if rival is None or _standing(reading, now) > _standing(rival, now):
            best[key] = reading
    counts: dict[SignalKind, Reading] = {}
    for (kind, _), reading in best.items():
        if kind not in counts or _precedence(reading, now) > _precedence(counts[kind], now):
            counts[kind] = reading
    limits = {**STALE_AFTER, **stale_after}
    others: dict[SignalKind, list[tuple[str, float]]] = {kind: [] for kind in counts}
    for (kind, source), reading in sorted(best.items()):
        if source != counts[kind].source and now < reading.end:
            others[kind].append((source, reading.value))
    states = {kind: _state(reading, now, limits[kind], others[kind]) for kind, reading in sorted(counts.items())}
    return Snapshot(zone=zone, now=now, states=MappingProxyType(states))


def _precedence(reading: Reading, now: datetime) -> tuple[bool, float, tuple[bool, datetime, tuple[tuple[float, ...], str, float]]]:
    """Which of several sources counts: a slot that lasts before one that ended, then the strictest that lasts, then its standing."""
    lasts = now < reading.end
    return (lasts, reading.value * _STRICTNESS.get(reading.signal, 0.0) if lasts else 0.0, _standing(reading, now))


def _standing(reading: Reading, now: datetime) -> tuple[bool, datetime, tuple[tuple[float, ...], str, float]]:
    """A slot that holds ``now`` before any that ended, though it ended this instant; then the later end; then ``_order``."""
    return (now < reading.end, min(reading.end, now), _order(reading))


def _state(reading: Reading, now: datetime, stale_after: timedelta, others: Iterable[tuple[str, float]]) -> SignalState:
    return SignalState(
        kind=reading.signal,
        value=reading.value,
        start=reading.start,
        end=reading.end,
        quality=reading.quality,
        source=reading.source,
        known_at=reading.known_at,
        age_s=max(0.0, (now - reading.end).total_seconds()),
        fresh=is_fresh(reading, now, stale_after),
        others=tuple(others),
    )
