"""OpenADR 3 events as plain spans of time, each with one value.

An event says once what holds for all its intervals and lets each override it; an interval without a start follows the one before;
several values in one payload divide the interval; a whole event may be cut short or repeated by its own ``duration``
(OpenADR 3.1.1 User Guide, sections 7.3 and 7.4: https://github.com/grid-coordination/openadr3-specification).
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from gridsched.core.errors import InvalidInput
from gridsched.core.rows import StampFormat, moment

__all__ = ["EventSpan", "event_spans", "iso_duration"]

_DURATION = re.compile(
    r"([-+]?)P(?!$)(?:([\d.]+)Y)?(?:([\d.]+)M)?(?:([\d.]+)W)?(?:([\d.]+)D)?(?:T(?=.)(?:([\d.]+)H)?(?:([\d.]+)M)?(?:([\d.]+)S)?)?"
)
_PART_S = (365 * 86400, 30 * 86400, 7 * 86400, 86400, 3600, 60, 1)
_NOW = ("0001-01-01", "0000-01-01", "0000-00-00")  # how the versions of the standard write "at once"
_MOST_SPANS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EventSpan:
    """``value``, as written, of the payload type ``kind`` over ``[start, end)``; ``interval`` is the id the event gives it."""

    kind: str
    value: object
    start: datetime
    end: datetime
    interval: object


@dataclass(frozen=True, slots=True, kw_only=True)
class _Period:
    """An ``intervalPeriod``; None where it leaves something to its context."""

    start: datetime | None = None
    at_once: bool = False
    duration: timedelta | None = None
    spread: timedelta | None = None


def iso_duration(written: object) -> timedelta:
    """``PT1H30M``, ``P1D``, ``P9999Y`` as a timedelta, a year being 365 days and a month 30; raises InvalidInput."""
    match = _DURATION.fullmatch(written.strip()) if isinstance(written, str) else None
    if match is None:
        raise InvalidInput(f"{written!r} is not an ISO 8601 duration such as PT1H")
    try:
        seconds = sum(float(part) * unit for part, unit in zip(match.groups()[1:], _PART_S, strict=True) if part)
        return timedelta(seconds=-seconds if match[1] == "-" else seconds)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"{written!r} is not a duration that fits a calendar") from error


def event_spans(event: Mapping[str, Any], *, now: datetime, until: datetime, luck: float = 0.0) -> list[EventSpan]:
    """Every value of ``event`` with its time, in the order of its intervals; raises InvalidInput for one that cannot be placed.

    What has no end, and what ends later, ends at ``until``. "At once" is when the event was made, or ``now``. ``luck`` from -1 to 1
    places a start within its ``randomizeStart``; the intervals that follow move along.
    """
    try:
        base = list(_chained(event, now, until, luck))
        spans = [piece for span in base for piece in _divided(span)]
        written = event.get("duration")
        return spans if written is None or not base else list(_repeated(spans, base, iso_duration(written), now, until))
    except OverflowError as error:
        raise InvalidInput("the event lies outside the calendar") from error


def _chained(event: Mapping[str, Any], now: datetime, until: datetime, luck: float) -> Iterator[EventSpan]:
    default = _period(event.get("intervalPeriod"))
    shift = luck * (default.spread or timedelta(0))
    end: datetime | None = None
    intervals = event.get("intervals") or []
    if not isinstance(intervals, list):
        raise InvalidInput("its intervals are not a list")
    for interval in intervals:
        if not isinstance(interval, dict) or not isinstance(interval.get("payloads"), list):
            raise InvalidInput("an interval has no list of payloads")
        own = _period(interval.get("intervalPeriod"))
        if own.spread is not None:
            shift = luck * own.spread
        start = _start(own, end, now, event, shift) or end or _start(default, None, now, event, shift)
        if start is None:
            raise InvalidInput("neither the event nor its first interval says when it starts")
        duration = default.duration if own.duration is None else own.duration
        end = _end(start, duration, until)
        for payload in interval["payloads"]:
            if isinstance(payload, dict) and isinstance(payload.get("values", []), list):
                yield EventSpan(
                    kind=str(payload.get("type")), value=payload.get("values", []), start=start, end=end, interval=interval.get("id")
                )


def _period(written: object) -> _Period:
    if written is None:
        return _Period()
    if not isinstance(written, dict):
        raise InvalidInput(f"{written!r} is not an intervalPeriod")
    start, duration, spread = (written.get(name) for name in ("start", "duration", "randomizeStart"))
    at_once = isinstance(start, str) and start.startswith(_NOW)
    return _Period(
        start=None if start is None or at_once else moment(start, StampFormat.ISO),
        at_once=at_once,
        duration=None if duration is None else iso_duration(duration),
        spread=None if spread is None else iso_duration(spread),
    )


def _start(period: _Period, end: datetime | None, now: datetime, event: Mapping[str, Any], shift: timedelta) -> datetime | None:
    """When ``period`` itself says it starts: a moment, or at once, which in a later interval means right after the one before."""
    if period.start is not None:
        return period.start + shift
    if not period.at_once:
        return None
    if end is not None:
        return end
    try:
        return moment(event.get("createdDateTime"), StampFormat.ISO) + shift
    except InvalidInput:
        return now + shift


def _end(start: datetime, duration: timedelta | None, until: datetime) -> datetime:
    """No duration, or one of 0, lasts until further notice."""
    if not duration:
        return max(start, until)
    try:
        return start + duration
    except OverflowError:
        return max(start, until)


def _divided(span: EventSpan) -> Iterator[EventSpan]:
    """A span for each of its values, side by side; an alert's are texts about the same time, and it counts without one."""
    assert isinstance(span.value, list)
    values = [*span.value, ""][:1] if span.kind.startswith("ALERT_") else span.value
    if len(values) > _MOST_SPANS:
        raise InvalidInput(f"an interval has {len(values)} values")
    for number, value in enumerate(values):
        begin, end = (span.start + (span.end - span.start) * edge / len(values) for edge in (number, number + 1))
        yield replace(span, value=value, start=begin, end=end)


def _repeated(spans: list[EventSpan], base: list[EventSpan], lasting: timedelta, now: datetime, until: datetime) -> Iterator[EventSpan]:
    """The spans again and again for as long as the event lasts; only the rounds that reach past ``now``."""
    first, last = min(span.start for span in base), max(span.end for span in base)
    close = _end(first, lasting, until)
    around = last - first
    if around <= timedelta(0):
        return
    rounds = range(max(0, math.floor((now - first) / around)), math.ceil((min(close, until) - first) / around))
    if len(rounds) * len(spans) > _MOST_SPANS:
        raise InvalidInput(f"the event repeats itself {len(rounds)} times before {until:%Y-%m-%d %H:%M}")
    for number in rounds:
        for span in spans:
            start, end = span.start + number * around, min(span.end + number * around, close)
            if start < end:
                yield replace(span, start=start, end=end)
