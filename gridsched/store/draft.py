"""What a transaction has written so far, kept in memory until it has to be sent.

A verb reads a few rows, changes them, and reads some again; a group of verbs changes the same accounts and zones over and over.
Here a row is read once, its changes stay in memory, and they go to the database in one statement a kind when the group commits.
Whoever reads meanwhile sees them: what the database finds is overlaid with what is pending, which is easy since all conditions
are equal, any-of or null.

**Levels** are the savepoints. A level is memory alone as long as nothing of it was sent; only then a real ``SAVEPOINT`` begins,
after all that was pending below it. So undoing a verb usually costs nothing.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from gridsched.core.errors import Conflict, GridschedError
from gridsched.store.session import Session
from gridsched.store.statements import SEVERAL, Statements, Where

__all__ = ["Draft"]

Key = tuple[Any, ...]

_MUCH = 16
"""So many pending rows of one kind are sent before the next search has to look through them all."""


@dataclass(slots=True)
class _Level:
    """``pending`` holds the records to write and their rows, by kind and key; ``begun``: its SAVEPOINT was sent."""

    pending: dict[type[Any], dict[Key, tuple[Any, list[Any]]]] = field(default_factory=dict)
    begun: bool = False


class Draft:
    """The pending writes of one transaction, over what the database has. ``may_write``: else every write raises."""

    __slots__ = ("_kinds", "_levels", "_may_write", "_seen", "_session")

    def __init__(self, session: Session, kinds: Mapping[type[Any], Statements], *, may_write: bool) -> None:
        self._session = session
        self._kinds = kinds
        self._may_write = may_write
        self._levels = [_Level(begun=True)]
        self._seen: dict[type[Any], dict[Key, Any]] = {kind: {} for kind in kinds}
        """What the database has under a key (None: nothing), as far as this transaction has looked."""

    # -- reading

    def get(self, kind: type[Any], key: Key) -> Any:
        """The record with that key, or None."""
        for level in reversed(self._levels):
            staged = level.pending.get(kind)
            if staged and key in staged:
                return staged[key][0]
        seen = self._seen[kind]
        if key not in seen:
            statements = self._kinds[kind]
            row = self._session.run(*statements.get(key)).fetchone()
            seen[key] = None if row is None else statements.record(row)
        return seen[key]

    def find(self, kind: type[Any], where: Where, *, order: str, limit: int | None) -> list[Any]:
        """All records that match, ordered by the named fields, then by key."""
        statements = self._kinds[kind]
        if not order and limit is None and len(statements.kind.key) == 1 and tuple(where) == statements.kind.key:
            return self._by_keys(kind, where[statements.kind.key[0]])
        pending = self._pending(kind)
        more = None if limit is None else limit + len(pending)
        rows = self._session.run(*statements.find(where, order=order, limit=more)).fetchall()
        found = [statements.record(row) for row in rows]
        if not pending:
            return found
        read_key = statements.key_of
        found = [record for record in found if read_key(record) not in pending]
        found += [record for record, _ in pending.values() if _matches(record, where, statements.kind.paths)]
        return _ordered(found, statements.order(order), statements.kind.paths)[:limit]

    def count(self, kind: type[Any], where: Where) -> int:
        """How many records match."""
        if self._pending(kind):
            return len(self.find(kind, where, order="", limit=None))
        return int(self._session.run(*self._kinds[kind].count(where)).fetchone()[0])

    def _by_keys(self, kind: type[Any], asked: Any) -> list[Any]:
        """As `find` for keys, of which only those not known yet are asked for."""
        several = set(asked) if isinstance(asked, SEVERAL) else {asked}
        self._look(kind, several)
        found = [self.get(kind, (each,)) for each in several]
        read_key = self._kinds[kind].key_of
        return sorted((record for record in found if record is not None), key=read_key)

    def _look(self, kind: type[Any], keys: Iterable[Any]) -> None:
        """Read all ``keys`` that are not known yet, in one statement."""
        seen, statements = self._seen[kind], self._kinds[kind]
        missing = [each for each in keys if (each,) not in seen]
        if len(missing) > 1:
            rows = self._session.run(*statements.find({statements.kind.key[0]: missing}, order="", limit=None)).fetchall()
            seen.update(dict.fromkeys(((each,) for each in missing), None))
            for row in rows:
                record = statements.record(row)
                seen[statements.key_of(record)] = record

    def _pending(self, kind: type[Any]) -> dict[Key, tuple[Any, list[Any]]]:
        """What is pending of ``kind`` at all levels; never much, since much is sent."""
        staged = [level.pending[kind] for level in self._levels if level.pending.get(kind)]
        if sum(map(len, staged)) > _MUCH:
            if staged[0] is self._levels[0].pending.get(kind):
                self._send(self._levels[0], kind)  # no savepoint is in effect: one begins only after all below it was sent
            else:
                self.send()
            return self._pending(kind)
        return {key: value for each in staged for key, value in each.items()} if len(staged) > 1 else staged[0] if staged else {}

    # -- writing

    def put(self, records: Sequence[Any]) -> None:
        """Insert or replace by key."""
        self._demand_write(records)
        top = self._levels[-1].pending
        for record in records:
            kind = type(record)
            statements = self._kinds[kind]
            top.setdefault(kind, {})[statements.key_of(record)] = statements.taken(record)

    def insert(self, records: Sequence[Any]) -> None:
        """New records, all or none; raises `Conflict` naming the first that exists."""
        self._demand_write(records)
        fresh: set[tuple[type[Any], Key]] = set()
        for kind in {type(record) for record in records}:
            if len(self._kinds[kind].kind.key) == 1:
                self._look(kind, {self._kinds[kind].key_of(record)[0] for record in records if type(record) is kind})
        for record in records:
            kind, key = type(record), self._kinds[type(record)].key_of(record)
            if (kind, key) in fresh or self.get(kind, key) is not None:
                raise Conflict(f"{self._kinds[kind].label(key)} exists already; nothing of this was stored")
            fresh.add((kind, key))
        self.put(records)

    def swap(self, record: Any, expected: Where) -> bool:
        """Replace by key where what is there has the ``expected`` values; whether it had."""
        statements = self._kinds[type(record)]
        there = self.get(type(record), statements.key_of(record))
        if there is None or not _matches(there, expected, statements.kind.paths):
            return False
        self.put([record])
        return True

    def delete(self, kind: type[Any], where: Where) -> int:
        """Remove what matches; how many."""
        self.send()
        self._seen[kind].clear()
        return int(self._session.run(*self._kinds[kind].delete(where)).rowcount)

    def _demand_write(self, records: Sequence[Any]) -> None:
        if not self._may_write and records:
            what = self._kinds[type(records[0])].label(self._kinds[type(records[0])].key_of(records[0]))
            raise GridschedError(f"a read-only transaction cannot store {what}; hand the writer a verb")

    # -- levels, and sending

    def enter(self) -> None:
        """Begin a part that can be undone alone."""
        self._levels.append(_Level())

    def keep(self) -> None:
        """The part is well; it is undone with what is around it, or not at all."""
        level = self._levels.pop()
        if level.begun:
            self._session.run("RELEASE SAVEPOINT part")
        for kind, staged in level.pending.items():
            self._levels[-1].pending.setdefault(kind, {}).update(staged)

    def undo(self) -> None:
        """Forget the part. A transaction that is lost cannot be mended in parts."""
        level = self._levels.pop()
        if level.begun and not self._session.lost:
            for seen in self._seen.values():
                seen.clear()
            self._session.run("ROLLBACK TO SAVEPOINT part")
            self._session.run("RELEASE SAVEPOINT part")

    def send(self) -> None:
        """Send everything pending, each level inside its savepoint: the database then has what this transaction sees."""
        for level in self._levels:
            if not level.begun:
                self._session.run("SAVEPOINT part")
                level.begun = True
            for kind in list(level.pending):
                self._send(level, kind)

    def _send(self, level: _Level, kind: type[Any]) -> None:
        staged = level.pending.pop(kind, None)
        if staged:
            statements = self._kinds[kind]
            self._session.run_many(statements.put, statements.put_many, [row for _, row in staged.values()])
            self._seen[kind].update((key, record) for key, (record, _) in staged.items())


def _matches(record: Any, where: Where, paths: Mapping[str, str]) -> bool:
    """Whether ``record`` fulfils what ``where`` asks, as the database would see it."""
    for name, asked in where.items():
        value = attrgetter(paths[name])(record)
        if value not in asked if isinstance(asked, SEVERAL) else value != asked:
            return False
    return True


def _ordered(records: list[Any], order: Sequence[tuple[str, bool]], paths: Mapping[str, str]) -> list[Any]:
    """``records`` by (column, descends), nothing first, as the statements order them."""
    for name, descends in reversed(order):
        read = attrgetter(paths[name])
        records.sort(key=lambda record, read=read: _sortable(read(record)), reverse=descends)  # type: ignore[misc]
    return records


def _sortable(value: Any) -> tuple[bool, Any]:
    return (value is not None, value if value is not None else 0)
