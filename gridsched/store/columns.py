"""How a record's field becomes a column: one SQLAlchemy type for every kind of field, and the only place that converts values.

==============  ==========================================  ===============================
field           column                                      why
==============  ==========================================  ===============================
datetime        big integer, microseconds since 1970 UTC    exact, sortable, the same on every database
a word (enum)   text, its value                             the same words as in logs and pages
bool, int       boolean, big integer                        money is an integer and stays one
float           double
str             text, ordered by bytes                      one order on every database
anything else   text, JSON                                  read back strictly as what it was
==============  ==========================================  ===============================
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["Body", "Moment", "Word", "column_type"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def text() -> TypeEngine[str]:
    """Text that sorts by its bytes; PostgreSQL would else sort by the language of its cluster."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


class Moment(TypeDecorator[datetime]):
    """An aware datetime as microseconds since 1970 in UTC."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> int | None:  # noqa: ARG002 (SQLAlchemy's signature)
        """Microseconds since 1970; subtracting an aware moment from a naive one raises."""
        return None if value is None else (value - _EPOCH) // _MICROSECOND

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> datetime | None:  # noqa: ARG002
        """The moment, aware, in UTC."""
        return None if value is None else _EPOCH + timedelta(microseconds=value)


class Word(TypeDecorator[StrEnum]):
    """A member of a closed enum as its value; an unknown word raises when it is read."""

    impl = text()
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words

    def process_bind_param(self, value: StrEnum | str | None, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        """The word; one that the enum does not have raises ValueError."""
        return None if value is None else self.words(value).value

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> StrEnum | None:  # noqa: ARG002
        """The enum's member."""
        return None if value is None else self.words(value)


class Body(TypeDecorator[Any]):
    """A nested record, tuple or mapping as JSON."""

    impl = sa.Text
    cache_ok = True

    def __init__(self, hint: Any) -> None:
        super().__init__()
        self.hint = hint
        self._decoder = msgspec.json.Decoder(hint)

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str | None:  # noqa: ARG002
        """The JSON text."""
        return None if value is None else msgspec.json.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        """What the text says, as the type it had."""
        return None if value is None else self._decoder.decode(value)


def column_type(hint: Any) -> tuple[TypeEngine[Any], bool]:
    """The column type of a field annotated ``hint``, and whether it may be null."""
    inner, nullable = _without_none(hint)
    if isinstance(inner, type):
        if issubclass(inner, StrEnum):
            return Word(inner), nullable
        if inner in _PLAIN:
            return _PLAIN[inner], nullable
    return Body(inner), nullable


_PLAIN: dict[type, TypeEngine[Any]] = {
    bool: sa.Boolean(),
    int: sa.BigInteger(),
    float: sa.Double(),
    str: text(),
    datetime: Moment(),
}


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) not in (UnionType, Union):
        return hint, False
    rest = tuple(part for part in get_args(hint) if part is not NoneType)
    return (rest[0] if len(rest) == 1 else Union[rest]), len(rest) < len(get_args(hint))  # noqa: UP007 (built at run time)
