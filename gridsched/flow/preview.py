"""What policies would decide from now on: what is known ahead, forecasts behind it, and the policy's own memory to begin with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gridsched.core.outlook import band
from gridsched.core.policy import Policy, day_start
from gridsched.core.preview import Foretold, foretell
from gridsched.core.rule import OBEYED
from gridsched.core.signal import Quality, Reading, SignalKind, Snapshot, snapshot
from gridsched.core.zone import ZoneState
from gridsched.flow.timing import outlook_of
from gridsched.ports import Tx

__all__ = ["EXPECTED", "PACE", "SLOT", "Coming", "coming", "preview"]

PACE = timedelta(minutes=5)
"""Between two evaluations: finer than that, a delay of a policy hardly shows over a day."""

SLOT = timedelta(minutes=15)
EXPECTED = "forecast"
"""The source of values that nobody has published yet."""

_LOOK_BACK = timedelta(hours=26)

Coming = Mapping[SignalKind, Sequence[Reading]]


def coming(tx: Tx, now: datetime, policies: Sequence[Policy], until: datetime) -> Coming:
    """All that ``policies`` of one zone look at, from a little before ``now`` to ``until``: what is known, and the mean of what may come.

    Alarms and limits cannot be foreseen, so they are taken as they are announced: without one the grid is calm.
    """
    kinds = sorted({kind for policy in policies for kind in policy.signals} | {policy.schedule.objective for policy in policies})
    return {kind: _coming(tx, now, policies[0], kind, until) for kind in kinds}


def _coming(tx: Tx, now: datetime, policy: Policy, kind: SignalKind, until: datetime) -> list[Reading]:
    known = tx.readings(policy.zone, kind, now - max(_LOOK_BACK, policy.stale_limits[kind]), until, known_at=now)
    if kind in OBEYED:
        calm = Reading(
            zone=policy.zone, signal=kind, start=now, end=until, value=0.0, quality=Quality.FORECAST, source=EXPECTED, known_at=now
        )  # fmt: skip
        return [*known, calm] if kind is SignalKind.ALARM and known else known
    outlook = outlook_of(tx, policy, kind, now)
    if outlook is None:
        return known
    slot = outlook.known.slot
    return known + [
        Reading(
            zone=policy.zone, signal=kind, start=start, end=start + slot, value=_held(kind, mean), quality=Quality.FORECAST,
            source=EXPECTED, known_at=now,
        )
        for start, mean, _, _ in band(outlook, until + slot)
    ]  # fmt: skip


def _held(kind: SignalKind, mean: float) -> float:
    """A mean within what the signal can be: a chain of days knows no bounds."""
    return min(max(mean, 0.0), 1.0) if kind is SignalKind.RENEWABLE_SHARE else mean


def preview(tx: Tx, now: datetime, policy: Policy, known: Coming, until: datetime) -> list[Foretold]:
    """What ``policy`` would decide from ``now`` until ``until``, by slots of `SLOT`; it begins with what the zone's policy remembers."""
    zone = tx.get(ZoneState, policy.zone) or ZoneState(zone=policy.zone)
    begins = now.replace(minute=now.minute - now.minute % (SLOT // timedelta(minutes=1)), second=0, microsecond=0)
    views = _views(policy, known, begins, until)
    return foretell(policy, zone.state, views, pace=PACE, slot=SLOT, used=zone.used(day_start(policy, now)))


def _views(policy: Policy, known: Coming, begins: datetime, until: datetime) -> Iterator[Snapshot]:
    """The zone as it will be seen every `PACE`. What is forecast is taken to be said again by then, so that it does not grow old."""
    grace = max(policy.stale_limits.values())
    known_by_then = [replace(reading, known_at=reading.start) for kind in policy.signals for reading in known.get(kind, ())]
    moment = begins
    while moment < until:
        near = [reading for reading in known_by_then if reading.start <= moment and reading.end > moment - grace]
        yield snapshot(policy.zone, moment, near, policy.stale_limits)
        moment += PACE
