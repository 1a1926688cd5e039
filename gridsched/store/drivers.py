"""What differs between SQLite and PostgreSQL: how a connection is opened, a transaction begun, and an error understood."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.psycopg import PGDialect_psycopg

from gridsched.core.errors import Busy, ConfigError, Conflict, InvalidInput, StorageFull

__all__ = ["Driver", "driver_of"]

_BUSY_S = 10.0
_ACTIVE, _IN_TRANSACTION, _IN_ERROR = 1, 2, 3
"""Of libpq's PGTransactionStatusType: https://www.postgresql.org/docs/current/libpq-status.html"""

_PRAGMAS = (
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit that was answered survives a power cut
    "PRAGMA wal_autocheckpoint = 4000",
    "PRAGMA cache_size = -65536",
    "PRAGMA query_only = ON",
)
_MAY_WRITE = "PRAGMA query_only = OFF"


@dataclass(frozen=True, slots=True)
class Driver:
    """One database: ``engine`` opens connections, ``dialect`` writes SQL with positional placeholders."""

    engine: sa.Engine
    dialect: sa.Dialect
    open_write: tuple[str, ...]
    begin_write: str
    begin_read: str
    lock_schema: tuple[str, ...]
    full: Callable[[Exception], bool]
    in_transaction: Callable[[Any], bool]

    @property
    def name(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.dialect.name

    @property
    def errors(self) -> Any:
        """The module with the driver's exceptions (PEP 249)."""
        return self.engine.dialect.dbapi

    def understood(self, error: Exception) -> Exception:
        """The driver's ``error`` as ours, where the caller can do something about it; our own bugs stay as they are."""
        text = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if self.full(error):
            return StorageFull(f"the database's disk is full ({text}); nothing of this was stored. Free some room and try again")
        if isinstance(error, self.errors.IntegrityError):
            return Conflict(f"a unique value is taken already: {text}")
        if isinstance(error, (self.errors.DataError, OverflowError)):
            return InvalidInput(f"the database cannot hold a value: {text}")
        if isinstance(error, self.errors.OperationalError | self.errors.InterfaceError):
            return Busy(f"the database did not answer as it should ({text}); nothing of this is known to be stored. Try again")
        return error


def driver_of(url: str) -> Driver:
    """The driver for ``url`` (``sqlite:///FILE`` or ``postgresql+psycopg://...``); raises ConfigError for others."""
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError as error:
        raise ConfigError(f"[store] url {url!r} is not a database URL; write sqlite:///data/gridsched.sqlite") from error
    if parsed.get_backend_name() == "sqlite":
        return _sqlite(parsed)
    if parsed.drivername == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "postgresql+psycopg":
        return _postgresql(parsed)
    raise ConfigError(f"[store] url names {parsed.drivername}; use sqlite or postgresql+psycopg")


def _sqlite(url: sa.URL) -> Driver:
    if url.database in (None, "", ":memory:"):
        raise ConfigError("[store] a SQLite database in memory survives nothing; name a file: sqlite:///data/gridsched.sqlite")
    Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(
        url,
        isolation_level="AUTOCOMMIT",  # we say BEGIN ourselves; the driver's own would spoil savepoints
        connect_args={"check_same_thread": False, "timeout": _BUSY_S, "cached_statements": 512},
    )
    sa.event.listen(engine, "connect", _prepare_sqlite)
    return Driver(
        engine=engine,
        dialect=engine.dialect,
        open_write=(_MAY_WRITE,),
        begin_write="BEGIN IMMEDIATE",
        begin_read="BEGIN",
        lock_schema=(_MAY_WRITE, "PRAGMA busy_timeout = 600000", "BEGIN IMMEDIATE"),
        full=lambda error: getattr(error, "sqlite_errorname", "") == "SQLITE_FULL",
        in_transaction=lambda connection: bool(connection.in_transaction),
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    for pragma in _PRAGMAS:
        connection.execute(pragma)


def _postgresql(url: sa.URL) -> Driver:
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError("[store] PostgreSQL needs its driver: pip install 'gridsched[postgres]'") from error
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True, connect_args={"autocommit": True})
    return Driver(
        engine=engine,
        dialect=PGDialect_psycopg(paramstyle="format"),  # type: ignore[no-untyped-call]
        open_write=(),
        begin_write="BEGIN",
        begin_read="BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        lock_schema=("BEGIN", "SELECT pg_advisory_xact_lock(8097321)"),  # any number that is ours alone
        full=lambda error: isinstance(error, psycopg.errors.DiskFull),
        in_transaction=lambda connection: connection.info.transaction_status in (_ACTIVE, _IN_TRANSACTION, _IN_ERROR),
    )
