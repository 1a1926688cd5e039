"""Readings with both their times: when they hold, and when we learned them. Nothing is overwritten.

A *slot* is what one source says, with one quality, of one signal over one interval; later rows of a slot revise earlier
ones, or say of a forecast that it still stands. Another source's value, or a forecast beside a measurement, is another slot:
`gridsched.core.signal` ranks those.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import sqlalchemy as sa

from gridsched.core.signal import FORECAST_TRUST, Quality, Reading, SignalKind
from gridsched.store.session import Session, Text
from gridsched.store.statements import Statements
from gridsched.store.tables import KINDS

__all__ = ["Revisions"]

_READINGS = KINDS[Reading].table
_SLOT = ("zone", "signal", "start", "end", "source", "quality")
_SAID_AGAIN = FORECAST_TRUST / 6
"""How old the row of a forecast becomes before one that says the same is kept beside it."""


class Revisions:
    """The statements for readings in one dialect."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._statements = Statements(KINDS[Reading], dialect)
        self._known = Text(_known(self._statements.fields), dialect)

    def known(self, session: Session, zone: str, signal: SignalKind, start: datetime, end: datetime, known_at: datetime) -> list[Reading]:
        """The newest revision known at ``known_at`` of every slot that overlaps [start, end), by start."""
        asked = self._statements.asked({"zone": zone, "signal": signal, "start": start, "end": end, "known_at": known_at})
        return [self._statements.record(row) for row in session.run(self._known.sql, self._known.values(asked)).fetchall()]

    def store(self, session: Session, readings: Sequence[Reading]) -> int:
        """Append what is new; returns how many rows that was.

        A reading says something new where its slot's newest revision, as of the reading's own ``known_at``, had another value; or
        where that is a forecast which would be too old to be believed before its slot is over.
        """
        fresh: list[Reading] = []
        for _, group in groupby(sorted(readings, key=_by_series), key=lambda r: (r.zone, r.signal)):
            fresh += self._fresh(session, list(group))
        session.run_many(self._statements.put, self._statements.put_many, [self._statements.row(reading) for reading in fresh])
        return len(fresh)

    def _fresh(self, session: Session, readings: list[Reading]) -> list[Reading]:
        """Those of one zone and signal that differ from what was known before each, in the order they were learned."""
        fresh: list[Reading] = []
        for known_at, group in groupby(readings, key=lambda r: r.known_at):
            learned = {_slot(r): r for r in group}  # said twice at one moment: the later row counts
            first, last = min(r.start for r in learned.values()), max(r.end for r in learned.values())
            stored = self.known(session, readings[0].zone, readings[0].signal, first, last, known_at)
            before = {_slot(r): r for r in [*stored, *fresh]}
            fresh += [r for slot, r in learned.items() if slot not in before or _says_more(r, before[slot])]
        return fresh


def _known(fields: Sequence[str]) -> sa.Select[Any]:
    newest_first = sa.func.row_number().over(partition_by=[_READINGS.c[name] for name in _SLOT], order_by=_READINGS.c.known_at.desc())
    rows = (
        sa.select(*(_READINGS.c[name] for name in fields), newest_first.label("age"))
        .where(_READINGS.c.zone == sa.bindparam("is_zone"))
        .where(_READINGS.c.signal == sa.bindparam("is_signal"))
        .where(_READINGS.c.end > sa.bindparam("is_start"))
        .where(_READINGS.c.start < sa.bindparam("is_end"))
        .where(_READINGS.c.known_at <= sa.bindparam("is_known_at"))
        .subquery()
    )
    columns = [rows.c[name] for name in fields]
    return sa.select(*columns).where(rows.c.age == 1).order_by(rows.c.start, rows.c.end, rows.c.source, rows.c.quality)


def _says_more(told: Reading, before: Reading) -> bool:
    """Whether ``told`` changes what is known of its slot; a forecast that is told every few minutes is kept two or three times."""
    if told.value != before.value:
        return True
    grows_old = told.quality is Quality.FORECAST and told.end - before.known_at > FORECAST_TRUST
    return grows_old and told.known_at - before.known_at > _SAID_AGAIN


def _by_series(reading: Reading) -> tuple[str, str, datetime]:
    return reading.zone, reading.signal, reading.known_at


def _slot(reading: Reading) -> tuple[Any, ...]:
    return reading.start, reading.end, reading.source, reading.quality
