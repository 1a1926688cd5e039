"""Readings come in. Nothing acts on arrival; the next control tick does."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime

from gridsched.core.facts import Fact, ReadingsDropped, ReadingsStored, SignalDegraded, SignalRecovered
from gridsched.core.signal import Reading, plausible
from gridsched.ports import Tx

__all__ = ["degraded", "recovered", "store"]


def store(tx: Tx, now: datetime, readings: Sequence[Reading], *, source: str) -> list[Fact]:
    """Keep the plausible readings; one fact per signal kept and one per reason dropped."""
    kept: list[Reading] = []
    dropped: Counter[tuple[str, str, str]] = Counter()
    for reading in readings:
        why = plausible(reading)
        if why is None:
            kept.append(reading)
        else:
            dropped[(reading.zone, reading.signal.value, why)] += 1
    facts: list[Fact] = [
        ReadingsDropped(at=now, source=source, zone=zone, signal=signal, count=count, reason=why)
        for (zone, signal, why), count in sorted(dropped.items())
    ]
    for zone, signal in sorted({(r.zone, r.signal) for r in kept}):
        new = tx.store_readings([r for r in kept if (r.zone, r.signal) == (zone, signal)])
        if new:
            facts.append(ReadingsStored(at=now, source=source, zone=zone, signal=signal.value, count=new))
    return facts


def degraded(_tx: Tx, now: datetime, *, source: str, kind: str, detail: str) -> list[Fact]:
    """A source has begun to fail; the caller tells edges from levels."""
    return [SignalDegraded(at=now, source=source, kind=kind, detail=detail)]


def recovered(_tx: Tx, now: datetime, *, source: str) -> list[Fact]:
    """A failing source gives readings again."""
    return [SignalRecovered(at=now, source=source)]
