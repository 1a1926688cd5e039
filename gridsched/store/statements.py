"""The SQL text of everything that is done with one kind of record, and what goes into and out of it.

SQLAlchemy Core writes each statement once per shape (which columns are asked for, and how); the text is kept and the database
driver runs it. That way both databases are served by one description, and a heartbeat pays for no query building.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as dataclass_fields
from operator import attrgetter
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from gridsched.store.columns import Converted
from gridsched.store.session import Text
from gridsched.store.tables import Kind

__all__ = ["SEVERAL", "Statements", "Where"]

Convert = Callable[[Any], Any]
Row = Sequence[Any]
Where = Mapping[str, Any]

_REMEMBERED = 10_000
SEVERAL = (tuple, list, set, frozenset)


class Statements:
    """Statements for one ``kind`` in one ``dialect`` (whose placeholders are positional)."""

    def __init__(self, kind: Kind, dialect: sa.Dialect) -> None:
        self.kind = kind
        self._dialect = dialect
        self._names = tuple(kind.paths)
        self._read = attrgetter(*kind.paths.values())
        self._first_field = len(kind.paths) - len(dataclass_fields(kind.record))
        self.fields = self._names[self._first_field :]
        types = {name: kind.table.c[name].type for name in self._names}
        self._into = {name: type_.stored if isinstance(type_, Converted) else None for name, type_ in types.items()}
        self._converted = [(place, type_) for place, type_ in enumerate(types.values()) if isinstance(type_, Converted)]
        self._decoders = [(place, convert) for place, name in enumerate(self.fields) if (convert := _out_of(types[name]))]
        self.key_of = _key_reader([kind.paths[name] for name in kind.key])
        self._met: dict[Row, Any] = {}
        self._met_before: dict[Row, Any] = {}
        self._kept: dict[tuple[Any, ...], Text] = {}

    # -- rows and records

    def row(self, record: Any) -> list[Any]:
        """The record's values in column order, as the driver takes them."""
        return self.taken(record)[1]

    def taken(self, record: Any) -> tuple[Any, list[Any]]:
        """The record as it will be read back (mostly itself: only moments elsewhere and bare words differ), and its row."""
        values = list(self._read(record))
        plain = True
        for place, column in self._converted:
            value = values[place]
            if value is not None:
                values[place] = column.stored(value)
                plain = plain and column.is_plain(value)
        as_read = tuple(values[self._first_field :])
        if not plain:
            record = self._record(as_read)
        self._remember(as_read, record)
        return record, values

    def record(self, row: Row) -> Any:
        """The record of a row that `find` or `get` gave. Records are frozen, so equal rows share one, and most were met before."""
        row = tuple(row)
        found = self._met.get(row) or self._met_before.get(row)
        if found is None:
            found = self._record(row)
            self._remember(row, found)
        return found

    def _record(self, row: Row) -> Any:
        values = list(row)
        for place, convert in self._decoders:
            if values[place] is not None:
                values[place] = convert(values[place])
        return self.kind.record(**dict(zip(self.fields, values, strict=True)))

    def _remember(self, row: Row, record: Any) -> None:
        """In two generations, so that what is in use stays when room is made."""
        if len(self._met) >= _REMEMBERED:
            self._met, self._met_before = {}, self._met
        self._met[row] = record

    def label(self, key: Sequence[Any]) -> str:
        """A kind and key, for messages."""
        return f"{self.kind.record.__name__} {' '.join(map(str, key))}"

    # -- statements: each gives the text and the values in their order

    def get(self, key: Sequence[Any]) -> tuple[str, list[Any]]:
        """Select by key."""
        if len(key) != len(self.kind.key):
            raise TypeError(f"{self.kind.record.__name__} has the key {self.kind.key}, got {key!r}")
        shape = tuple((name, "is") for name in self.kind.key)
        text = self._text(("get",), lambda: self._select().where(*self._conditions(shape)))
        return text.sql, [self._value(name, value) for name, value in zip(self.kind.key, key, strict=True)]

    def find(self, where: Where, *, order: str, limit: int | None) -> tuple[str, list[Any]]:
        """Select what matches ``where``."""
        shape = _shape(where)
        text = self._text(
            ("find", shape, order, limit is None),
            lambda: (
                self._select()
                .where(*self._conditions(shape))
                .order_by(*self._ordering(order))
                .limit(None if limit is None else sa.bindparam("limit_", type_=sa.BigInteger))
            ),
        )
        return text.sql, text.values(self.asked(where) | {"limit_": limit})

    def count(self, where: Where) -> tuple[str, list[Any]]:
        """Count what matches ``where``."""
        shape = _shape(where)
        text = self._text(("count", shape), lambda: sa.select(sa.func.count()).select_from(self.kind.table).where(*self._conditions(shape)))
        return text.sql, text.values(self.asked(where))

    def delete(self, where: Where) -> tuple[str, list[Any]]:
        """Delete what matches ``where``."""
        shape = _shape(where)
        text = self._text(("delete", shape), lambda: sa.delete(self.kind.table).where(*self._conditions(shape)))
        return text.sql, text.values(self.asked(where))

    def insert(self) -> str:
        """Insert one row; a row whose key (or other unique value) exists is passed over."""
        return self._text(("insert",), lambda: self._insert_one().on_conflict_do_nothing()).sql

    def insert_many(self) -> str:
        """As `insert`, for arrays of columns (PostgreSQL)."""
        return self._text(("insert_many",), lambda: self._insert_arrays().on_conflict_do_nothing()).sql

    def put(self) -> str:
        """Insert one row, or replace the row with its key."""
        return self._text(("put",), lambda: self._replacing(self._insert_one())).sql

    def put_many(self) -> str:
        """As `put`, for arrays of columns (PostgreSQL)."""
        return self._text(("put_many",), lambda: self._replacing(self._insert_arrays())).sql

    # -- how they are written

    def _text(self, shape: tuple[Any, ...], write: Callable[[], Any]) -> Text:
        kept = self._kept.get(shape)
        if kept is None:
            kept = self._kept[shape] = Text(write(), self._dialect)
        return kept

    def _select(self) -> sa.Select[Any]:
        return sa.select(*(self.kind.table.c[name] for name in self.fields))

    def _insert_one(self) -> Any:
        return self._insert().values({name: sa.bindparam(name) for name in self._names})

    def _insert_arrays(self) -> Any:
        """One statement for any number of rows: PostgreSQL's fastest way in that can still replace."""
        columns = []
        for name in self._names:
            plain = _driver_type(self.kind.table.c[name].type)
            columns.append(sa.func.unnest(sa.cast(sa.bindparam(name), postgresql.ARRAY(plain))))
        return self._insert().from_select(list(self._names), sa.select(*columns))

    def _insert(self) -> Any:
        return (sqlite if self._dialect.name == "sqlite" else postgresql).insert(self.kind.table)

    def _replacing(self, insert: Any) -> Any:
        rest = {name: insert.excluded[name] for name in self._names if name not in self.kind.key}
        if not rest:
            return insert.on_conflict_do_nothing(index_elements=self.kind.key)
        return insert.on_conflict_do_update(index_elements=self.kind.key, set_=rest)

    def _conditions(self, shape: tuple[tuple[str, str], ...]) -> list[sa.ColumnElement[bool]]:
        return [self.condition(name, how) for name, how in shape]

    def condition(self, name: str, how: str) -> sa.ColumnElement[bool]:
        """``column is null``, ``column = :is_column``, or any of the list ``:is_column``, as ``how`` says: null, is, any."""
        column = self.kind.table.c[name]
        if how == "null":
            return column.is_(None)
        bind: sa.BindParameter[Any] = sa.bindparam(f"is_{name}")
        return self._any_of(column, bind) if how == "any" else column == bind

    def _any_of(self, column: sa.Column[Any], bind: sa.BindParameter[Any]) -> sa.ColumnElement[bool]:
        """The list is one value, so the text is the same for any length and no limit on placeholders is met."""
        if self._dialect.name == "sqlite":
            return column.in_(sa.select(sa.func.json_each(bind).table_valued("value").c.value))
        return column == sa.func.any(sa.cast(bind, postgresql.ARRAY(_driver_type(column.type))))

    def order(self, order: str) -> list[tuple[str, bool]]:
        """The columns to order by and whether each descends: those named, then the key."""
        names = order.replace(",", " ").split()
        given = [name.removeprefix("-") for name in names]
        return [(name.removeprefix("-"), name.startswith("-")) for name in [*names, *(key for key in self.kind.key if key not in given)]]

    def _ordering(self, order: str) -> list[sa.UnaryExpression[Any]]:
        return [_directed(self.kind.table.c[name], descends) for name, descends in self.order(order)]

    def asked(self, where: Where) -> dict[str, Any]:
        """What ``where`` asks for, as the driver takes it; null needs no value."""
        return {f"is_{name}": self._value(name, value) for name, value in where.items() if value is not None}

    def _value(self, name: str, value: Any) -> Any:
        convert = self._into[name]
        if not isinstance(value, SEVERAL):
            return convert(value) if convert else value
        several = [convert(each) for each in value] if convert else list(value)
        return json.dumps(several) if self._dialect.name == "sqlite" else several


def _directed(column: sa.Column[Any], descends: bool) -> sa.UnaryExpression[Any]:
    """Nothing comes first, as SQLite has it; PostgreSQL would put it last."""
    if not column.nullable:
        return column.desc() if descends else column.asc()
    return column.desc().nulls_last() if descends else column.asc().nulls_first()


def _key_reader(paths: Sequence[str]) -> Callable[[Any], tuple[Any, ...]]:
    read = attrgetter(*paths)
    return read if len(paths) > 1 else lambda record: (read(record),)


def _shape(where: Where) -> tuple[tuple[str, str], ...]:
    """Which columns are asked for, and how: what decides a statement's text."""
    return tuple((name, "null" if value is None else "any" if isinstance(value, SEVERAL) else "is") for name, value in where.items())


def _out_of(type_: sa.types.TypeEngine[Any]) -> Convert | None:
    """From the driver's value to a record's; SQLite keeps a truth as 0 or 1."""
    return type_.kept if isinstance(type_, Converted) else bool if isinstance(type_, sa.Boolean) else None


def _driver_type(type_: sa.types.TypeEngine[Any]) -> sa.types.TypeEngine[Any]:
    """The plain type below a `TypeDecorator`: values are already converted."""
    impl = type_.impl if isinstance(type_, sa.types.TypeDecorator) else type_
    plain: sa.types.TypeEngine[Any] = sa.Text() if isinstance(impl, sa.Text) else impl  # type: ignore[assignment]
    return plain
