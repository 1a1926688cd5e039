"""The store over SQLite or PostgreSQL: one transaction's view of the records (`SqlTx`), and where transactions come from (`SqlStore`)."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa

from gridsched.core.errors import NotFound
from gridsched.core.facts import Fact
from gridsched.core.signal import Reading, SignalKind
from gridsched.store.draft import Draft
from gridsched.store.drivers import driver_of
from gridsched.store.journal import Journal
from gridsched.store.migrate import upgrade
from gridsched.store.revisions import Revisions
from gridsched.store.session import Session
from gridsched.store.statements import Statements
from gridsched.store.tables import KINDS

__all__ = ["SqlStore", "SqlTx"]

R = TypeVar("R")


class Book:
    """Every statement of one dialect; made once, shared by all transactions."""

    def __init__(self, dialect: sa.Dialect) -> None:
        self.kinds = {record: Statements(kind, dialect) for record, kind in KINDS.items()}
        self.journal = Journal(dialect)
        self.revisions = Revisions(dialect)


class SqlTx:
    """`gridsched.ports.Tx` on an open transaction. Not for use by two threads at once.

    What is put is sent later (see `draft`), at the latest with the commit.
    """

    __slots__ = ("_book", "_draft", "_session")

    def __init__(self, session: Session, book: Book, *, may_write: bool) -> None:
        self._session = session
        self._book = book
        self._draft = Draft(session, book.kinds, may_write=may_write)

    @property
    def lost(self) -> bool:
        """Whether the database has given this transaction up; nothing of it may count."""
        return self._session.lost

    # -- reading

    def get(self, kind: type[R], /, *key: Any) -> R | None:
        """The record with that key, or None."""
        found: R | None = self._draft.get(kind, key)
        return found

    def must(self, kind: type[R], /, *key: Any) -> R:
        """The record with that key; raises `NotFound` naming it."""
        record = self.get(kind, *key)
        if record is None:
            raise NotFound(f"there is no {self._book.kinds[kind].label(key)}")
        return record

    def find(self, kind: type[R], /, *, order: str = "", limit: int | None = None, **where: Any) -> list[R]:
        """All records that match, ordered by the named fields, then by key."""
        return self._draft.find(kind, where, order=order, limit=limit)

    def count(self, kind: type[Any], /, **where: Any) -> int:
        """How many records match."""
        return self._draft.count(kind, where)

    # -- writing

    def insert(self, *records: Any) -> None:
        """New records; raises `Conflict` where one exists, and then none of them was stored."""
        self._draft.insert(records)

    def put(self, *records: Any) -> None:
        """Insert or replace by key; of two records with one key the later stays."""
        self._draft.put(records)

    def swap(self, record: Any, /, **expected: Any) -> bool:
        """Replace by key only where the stored row still has the ``expected`` values; whether it had."""
        return self._draft.swap(record, expected)

    def delete(self, kind: type[Any], /, **where: Any) -> int:
        """Remove what matches; how many."""
        return self._draft.delete(kind, where)

    @contextlib.contextmanager
    def savepoint(self) -> Iterator[None]:
        """What is done inside is undone alone when it raises."""
        self._draft.enter()
        try:
            yield
        except BaseException:
            self._draft.undo()
            raise
        self._draft.keep()

    def send(self) -> None:
        """Send what is pending to the database; a value it refuses raises here at the latest."""
        self._draft.send()

    # -- readings and facts

    def store_readings(self, readings: Sequence[Reading]) -> int:
        """Append readings; the number of new rows. A repeat of its slot's newest revision adds none, unless a forecast would grow old."""
        self._draft.send()
        return self._book.revisions.store(self._session, readings)

    def readings(self, zone: str, signal: SignalKind, start: datetime, end: datetime, *, known_at: datetime) -> list[Reading]:
        """The newest revision known at ``known_at`` of every slot that overlaps [start, end), by start.

        A slot is a source's: what another source, or the same one with another quality, says of the same time stands beside it.
        """
        self._draft.send()
        return self._book.revisions.known(self._session, zone, signal, start, end, known_at)

    def facts(self, *, since: int = 0, limit: int = 1000, kinds: Sequence[str] = (), subject: str = "") -> list[tuple[int, Fact]]:
        """Committed facts after sequence ``since``; ``subject`` matches any id a fact names."""
        self._draft.send()
        return self._book.journal.find(self._session, since=since, limit=limit, kinds=kinds, subject=subject)

    def append(self, facts: Sequence[Fact]) -> None:
        """Write ``facts`` to the journal, in order, with this transaction. The writer does it for every verb."""
        self._draft.send()
        self._book.journal.append(self._session, facts)


class SqlStore:
    """`gridsched.ports.Store` at a database URL. ``migrations`` is the folder of schema steps; None: the shipped one.

    Reads come from a pool of connections and each see one moment; writes go through one connection of their own, one at a time.
    """

    def __init__(self, url: str, *, migrations: Path | None = None) -> None:
        self.driver = driver_of(url)
        self._migrations = migrations
        self._book = Book(self.driver.dialect)
        self._writing = threading.Lock()
        self._write_connection: Any = None

    @contextlib.contextmanager
    def read(self) -> Iterator[SqlTx]:
        """A transaction that sees one moment and changes nothing."""
        connection = self._connect()
        try:
            session = Session(self.driver, connection.dbapi_connection)
            session.run(self.driver.begin_read)
            try:
                yield SqlTx(session, self._book, may_write=False)
            finally:
                session.run("ROLLBACK")
        finally:
            connection.close()

    @contextlib.contextmanager
    def write(self) -> Iterator[SqlTx]:
        """A transaction that is durable once the block is left; undone when it raises."""
        with self._writing:
            session = Session(self.driver, self._writer())
            try:
                session.run(self.driver.begin_write)
                tx = SqlTx(session, self._book, may_write=True)
                yield tx
                tx.send()
                session.commit()
            except BaseException:
                self._undo(session)
                raise

    def upgrade(self) -> None:
        """Bring the schema to the newest migration, under a lock; a second daemon that starts at once waits, then finds it done."""
        upgrade(self.driver, self._migrations)

    def close(self) -> None:
        """Close every connection."""
        with self._writing:
            self._drop()
        self.driver.engine.dispose()

    def _writer(self) -> Any:
        """The connection that writes: outside the pool, opened again after one was lost."""
        if self._write_connection is None:
            pooled = self._connect()
            self._write_connection = pooled.dbapi_connection
            pooled.detach()
            for statement in self.driver.open_write:
                self._write_connection.execute(statement)
        return self._write_connection

    def _connect(self) -> Any:
        try:
            return self.driver.engine.raw_connection()
        except self.driver.errors.Error as error:
            raise self.driver.understood(error) from error

    def _undo(self, session: Session) -> None:
        """Roll back; a connection that cannot even do that is left, and the next transaction opens another."""
        try:
            session.run("ROLLBACK")
        except Exception:  # noqa: BLE001 (whatever it is, this connection is of no more use)
            self._drop()

    def _drop(self) -> None:
        connection, self._write_connection = self._write_connection, None
        if connection is not None:
            with contextlib.suppress(Exception):
                connection.close()
