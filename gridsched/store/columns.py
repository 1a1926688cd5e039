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

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import msgspec
import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator, TypeEngine

__all__ = ["Body", "Converted", "Moment", "Word", "column_type", "text"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def text() -> TypeEngine[str]:
    """Text that sorts by its bytes; PostgreSQL would else sort by the language of its cluster."""
    return sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


class Converted(TypeDecorator[Any]):
    """A type whose values the driver does not know: ``stored`` is the way there and ``kept`` the way back, neither is given None.

    The hot path calls the two directly; SQLAlchemy's own queries go through the methods below.
    """

    impl: TypeEngine[Any] | type[TypeEngine[Any]] = sa.Text
    cache_ok = True
    stored: Callable[[Any], Any]
    kept: Callable[[Any], Any]

    def is_plain(self, value: Any) -> bool:  # noqa: ARG002
        """Whether ``value`` would come back as itself, not merely as its equal."""
        return True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002 (SQLAlchemy's signature)
        """As the driver takes it."""
        return None if value is None else self.stored(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        """As the record has it."""
        return None if value is None else self.kept(value)


class Moment(Converted):
    """An aware datetime as microseconds since 1970 in UTC; a naive one raises TypeError."""

    impl = sa.BigInteger
    cache_ok = True

    def __init__(self) -> None:
        super().__init__()
        self.stored = _microseconds
        self.kept = _moment

    def is_plain(self, value: datetime) -> bool:
        """In UTC already."""
        return value.tzinfo is UTC


class Word(Converted):
    """A member of a closed enum as its value; an unknown word raises ValueError, on the way in and on the way out."""

    impl = text()
    cache_ok = True

    def __init__(self, words: type[StrEnum]) -> None:
        super().__init__()
        self.words = words
        self.stored = lambda word: words(word).value
        self.kept = words

    def is_plain(self, value: Any) -> bool:
        """The enum's member, not a bare string."""
        return type(value) is self.words


class Body(Converted):
    """A nested record, tuple or mapping as JSON."""

    cache_ok = True

    def __init__(self, hint: Any) -> None:
        super().__init__()
        self.hint = hint
        self.stored = lambda value: msgspec.json.encode(value).decode()
        self.kept = msgspec.json.Decoder(hint).decode


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND


def _moment(microseconds: int) -> datetime:
    return _EPOCH + timedelta(microseconds=microseconds)


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
