"""A zone as a lane over time: what the grid said, what was allowed and drawn and why; then what is known and what is expected."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from gridsched.core.facts import ZoneObserved, kind_of
from gridsched.core.job import JobState
from gridsched.core.policy import Policy
from gridsched.core.preview import Foretold
from gridsched.core.signal import UNIT, Reading, Series, SignalKind
from gridsched.core.timing import JobSchedule
from gridsched.flow import preview
from gridsched.flow.past import first_since, pages
from gridsched.flow.timing import running
from gridsched.ports import Tx
from gridsched.web.ahead import decided
from gridsched.web.views import plain

__all__ = ["foretold", "timeline", "values"]

Json = dict[str, Any]

_MOST_POINTS = 480
"""Of a measured line: as many as a chart on a wall has pixels to show."""
_OBSERVED = kind_of(ZoneObserved)


def timeline(tx: Tx, policy: Policy, now: datetime, *, back: timedelta, ahead: timedelta) -> Json:
    """The lane from ``now - back`` to ``now + ahead``. Powers are in W; each signal comes with its unit, and unknown is left out."""
    start, end = now - back, now + ahead
    known = preview.coming(tx, now, [policy], end)
    return {
        "zone": policy.zone,
        "policy": policy.name,
        "timezone": policy.timezone,
        "now": plain(now),
        "start": plain(start),
        "end": plain(end),
        "objective": policy.schedule.objective.value,
        "signals": {
            kind.value: {"unit": UNIT[kind], "slots": values(_seen(tx, policy, kind, start, now, known.get(kind, ())), start, end)}
            for kind in _kinds(policy)
        },
        "decisions": decided(tx, policy.zone, start, now),
        "drawn": _drawn(tx, policy.zone, start, now),
        "foretold": foretold(preview.preview(tx, now, policy, known, end)),
        "hours": _hours(tx, policy.zone, now, end),
    }


def _kinds(policy: Policy) -> list[SignalKind]:
    """What can be shown as a line: what the policy decides by, the price, and carbon and surplus where somebody provides them."""
    shown = {*policy.signals, policy.schedule.objective, SignalKind.PRICE, SignalKind.CARBON, SignalKind.SURPLUS}
    return sorted(shown - {SignalKind.ALARM})


def _seen(tx: Tx, policy: Policy, kind: SignalKind, start: datetime, now: datetime, coming: Sequence[Reading]) -> list[Reading]:
    past = tx.readings(policy.zone, kind, start, now, known_at=now)
    return [*past, *(reading for reading in coming if reading.end > now)]


def values(readings: Iterable[Reading], start: datetime, end: datetime) -> list[Json]:
    """The values that count, slot by slot; ``expected``: nobody has published them."""
    rows = []
    last = start
    for reading in sorted(Series(readings), key=lambda r: (r.start, r.source == preview.EXPECTED)):
        if reading.start >= end or reading.end <= start or reading.start < last:
            continue
        rows.append({"start": plain(reading.start), "end": plain(reading.end), "value": reading.value, "quality": reading.quality.value,
                     "expected": reading.source == preview.EXPECTED})  # fmt: skip
        last = reading.end
    return rows


def _drawn(tx: Tx, zone: str, start: datetime, now: datetime) -> list[list[Any]]:
    """``[moment, drawn W, leased W]`` as control ticks saw them, thinned to means where there are more than a chart can show."""
    seen = [fact for _, fact in pages(tx, first_since(tx, start), kinds=(_OBSERVED,), subject=zone) if isinstance(fact, ZoneObserved)]
    width = (now - start) / _MOST_POINTS
    return [[plain(part[-1].at), _mean(f.drawn_w for f in part), _mean(f.leased_w for f in part)] for part in _parts(seen, start, width)]


def _parts(seen: Sequence[ZoneObserved], start: datetime, width: timedelta) -> Iterator[list[ZoneObserved]]:
    part: list[ZoneObserved] = []
    for fact in seen:
        if part and (fact.at - start) // width != (part[0].at - start) // width:
            yield part
            part = []
        part.append(fact)
    if part:
        yield part


def _mean(watts: Iterable[float]) -> float:
    found = list(watts)
    return round(sum(found) / len(found), 1)


def foretold(rows: Iterable[Foretold]) -> list[Json]:
    """What a policy would decide, slot by slot."""
    return [plain(row) for row in rows]


def _hours(tx: Tx, zone: str, now: datetime, end: datetime) -> list[Json]:
    """The hours chosen for jobs with a deadline, as far as they lie ahead."""
    jobs = {job.job_id for job in running(tx, zone) if job.state is JobState.RUNNING}
    return [
        {"job_id": schedule.job_id, "start": plain(begins), "end": plain(ends)}
        for schedule in tx.find(JobSchedule, zone=zone)
        if schedule.job_id in jobs
        for begins, ends in schedule.hours
        if ends > now and begins < end
    ]
