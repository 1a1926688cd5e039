"""An open transaction, seen from below: run a statement, run it for many rows, commit."""

from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa

from gridsched.core.errors import Busy
from gridsched.store.drivers import Driver

__all__ = ["Session", "Text"]


class Text:
    """A statement of SQLAlchemy Core as the text a driver takes, and its values' names in order."""

    __slots__ = ("_names", "_own", "sql")

    def __init__(self, statement: Any, dialect: sa.Dialect) -> None:
        compiled = statement.compile(dialect=dialect)
        self.sql = str(compiled)
        self._names: tuple[str, ...] = tuple(compiled.positiontup or ())
        self._own = {name: value for name, value in compiled.params.items() if value is not None}

    def values(self, named: dict[str, Any]) -> list[Any]:
        """The values in the order the text wants them."""
        return [named[name] if name in named else self._own[name] for name in self._names]


class Session:
    """One transaction on one connection. Not for use by two threads at once."""

    __slots__ = ("_connection", "_cursor", "driver", "in_arrays", "lost")

    def __init__(self, driver: Driver, connection: Any) -> None:
        self.driver = driver
        self._connection = connection
        self._cursor = connection.cursor()
        self.in_arrays = driver.name == "postgresql"
        self.lost = False
        """Whether the database has given the whole transaction up (a full disk, a cut connection): nothing of it may count."""

    def run(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Run one statement; the cursor with its rows. The driver's errors come as ours."""
        try:
            self._cursor.execute(sql, values)
        except (self.driver.errors.Error, OverflowError) as error:  # sqlite3 raises the second for a number of over 64 bits
            raise self._failed(error) from error
        return self._cursor

    def run_many(self, one: Callable[[], str], arrays: Callable[[], str], rows: Sequence[Sequence[Any]]) -> int:
        """Run a statement for each row: on PostgreSQL once, over ``arrays`` of columns; on SQLite inside the driver. Rows changed."""
        if len(rows) == 1:
            return int(self.run(one(), rows[0]).rowcount)
        if not rows:
            return 0
        if self.in_arrays:
            return int(self.run(arrays(), [_array(column) for column in zip(*rows, strict=True)]).rowcount)
        try:
            return int(self._cursor.executemany(one(), rows).rowcount)
        except (self.driver.errors.Error, OverflowError) as error:  # sqlite3 raises the second for a number of over 64 bits
            raise self._failed(error) from error

    def commit(self) -> None:
        """Make it durable. A transaction that was lost on the way raises, whatever was caught meanwhile."""
        if self.lost:
            raise Busy("the database gave the transaction up; nothing of it is stored. Try again")
        self.run("COMMIT")

    def _failed(self, error: Exception) -> Exception:
        self.lost = self.lost or not self.driver.in_transaction(self._connection)
        return self.driver.understood(error)


def _array(column: Sequence[Any]) -> str:
    """PostgreSQL's text form of an array; the driver's own way of writing one takes five times as long."""
    try:
        joined = '","'.join(column)
    except TypeError:  # not text, or not all of it
        return "{" + ",".join(map(_element, column)) + "}"
    if "\\" in joined or joined.count('"') != 2 * (len(column) - 1):
        return "{" + ",".join(map(_element, column)) + "}"
    return '{"' + joined + '"}'


def _element(value: Any) -> str:
    if value is None:
        return "NULL"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' if isinstance(value, str) else str(value)
