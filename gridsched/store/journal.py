"""The journal of facts: what has happened, in order, found again by kind and by what it is about."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import cache
from typing import Any

import msgspec
import sqlalchemy as sa

from gridsched.core import facts
from gridsched.core.errors import GridschedError
from gridsched.core.facts import Fact, kind_of
from gridsched.store.session import Session, Text
from gridsched.store.statements import Statements
from gridsched.store.tables import KINDS, Named, Noted

__all__ = ["Journal", "subjects"]


class Journal:
    """The statements of the journal in one dialect. Facts are never changed or removed."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self._noted = Statements(KINDS[Noted], dialect)
        self._named = Statements(KINDS[Named], dialect)
        self._last = Text(sa.select(sa.func.max(_FACTS.c.seq)), dialect)
        self._text: Callable[[bool, bool], Text] = cache(lambda by_kind, by_subject: Text(self._select(by_kind, by_subject), dialect))

    def append(self, session: Session, happened: Sequence[Fact]) -> None:
        """Write ``happened`` after the last one there is. Only one transaction writes at a time, so the numbers have no gaps."""
        if not happened:
            return
        first = (session.run(self._last.sql).fetchone()[0] or 0) + 1
        numbered = list(enumerate(happened, start=first))
        noted = [Noted(seq=seq, at=fact.at, kind=_names[type(fact)], body=msgspec.json.encode(fact).decode()) for seq, fact in numbered]
        named = [Named(subject=subject, seq=seq) for seq, fact in numbered for subject in subjects(fact)]
        session.run_many(self._noted.insert, self._noted.insert_many, [self._noted.row(row) for row in noted])
        session.run_many(self._named.insert, self._named.insert_many, [self._named.row(row) for row in named])

    def find(self, session: Session, *, since: int, limit: int, kinds: Sequence[str], subject: str) -> list[tuple[int, Fact]]:
        """Facts after number ``since``, at most ``limit``, of these ``kinds`` (none: all), that name ``subject`` (empty: all)."""
        text = self._text(bool(kinds), bool(subject))
        asked = self._noted.asked({"kind": kinds}) | {"since": since, "limit_": limit, "subject": subject}
        rows = session.run(text.sql, text.values(asked)).fetchall()
        return [(seq, _decoder(kind).decode(body)) for seq, kind, body in rows]

    def _select(self, by_kind: bool, by_subject: bool) -> sa.Select[Any]:
        chosen = sa.select(_FACTS.c.seq, _FACTS.c.kind, _FACTS.c.body).where(_FACTS.c.seq > sa.bindparam("since"))
        if by_kind:
            chosen = chosen.where(self._noted.condition("kind", "any"))
        if by_subject:
            named = sa.and_(_SUBJECTS.c.seq == _FACTS.c.seq, _SUBJECTS.c.subject == sa.bindparam("subject"))
            chosen = chosen.join(_SUBJECTS, named).where(_SUBJECTS.c.seq > sa.bindparam("since"))
        return chosen.order_by(_FACTS.c.seq).limit(sa.bindparam("limit_", type_=sa.BigInteger))


_FACTS = KINDS[Noted].table
_SUBJECTS = KINDS[Named].table


class _Names(dict[type[Fact], str]):
    """A fact's name by its class, worked out once."""

    def __missing__(self, kind: type[Fact]) -> str:
        name = self[kind] = kind_of(kind)
        return name


class _SubjectFields(dict[type[Fact], tuple[str, ...]]):
    """Which fields of a fact hold the ids it names."""

    def __missing__(self, kind: type[Fact]) -> tuple[str, ...]:
        found = self[kind] = tuple(f.name for f in fields(kind) if f.name.endswith("_id") or f.name in ("zone", "job", "node"))
        return found


_names = _Names()
_subject_fields = _SubjectFields()


def subjects(fact: Fact) -> list[str]:
    """The ids a fact names, each once: its zone, and every field that ends in ``_id``."""
    values = (getattr(fact, name) for name in _subject_fields[type(fact)])
    return list(dict.fromkeys(value for value in values if value))


@cache
def _decoder(kind: str) -> "msgspec.json.Decoder[Fact]":
    for name in facts.__all__:
        fact = getattr(facts, name)
        if isinstance(fact, type) and kind_of(fact) == kind:
            return msgspec.json.Decoder(fact)
    raise GridschedError(f"the journal has facts of the kind {kind!r}, which this version does not know; upgrade gridsched")
