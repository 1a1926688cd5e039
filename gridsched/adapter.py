"""What an adapter is, and the few tools it needs. Adapter authors import all of it from ``gridsched`` itself.

An adapter is one class per provider. It is made from its table in ``gridsched.toml``, says what it gives and how often to
ask, fetches bytes through the ``Http`` it is handed, and parses them with a pure ``parse``. It owns no thread, sleep, retry
or environment: those live once, in the daemon's session.
"""

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields
from datetime import datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Any, Protocol, TypeVar, Union, get_args, get_origin, get_type_hints

from gridsched.core.errors import AdapterError, ConfigError, InvalidInput
from gridsched.core.quantity import duration, unknown_key
from gridsched.core.rows import Batch, named_zone
from gridsched.core.signal import SignalKind

__all__ = ["Adapter", "Fault", "Http", "Publication", "Response", "body_of", "read_json", "read_options", "refuse_old", "value_at"]

T = TypeVar("T")


class Fault(StrEnum):
    """Why a provider gave nothing usable: the ``kind`` of an `AdapterError`."""

    HTML = "html"
    EMPTY = "empty"
    TRUNCATED = "truncated"
    MALFORMED = "malformed"
    WRONG_UNIT = "wrong_unit"
    NOT_PUBLISHED = "not_published"
    STALE = "stale"
    RATE_LIMITED = "rate_limited"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    TOO_LARGE = "too_large"


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """An answer, whole: header names are in lower case, ``content_type`` is without its parameters."""

    status: int
    body: bytes
    headers: Mapping[str, str]
    content_type: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """When a provider publishes the next day: from ``opens`` until ``closes`` on ``timezone``'s clock, worth asking ``every`` so often.

    An adapter may carry one as ``publishes``. Outside the window, and once the next day is there, its usual ``every`` holds: so the
    prices of tomorrow are seen within minutes, and nobody is asked in vain for the rest of the day. The next day is there when its
    noon is: some providers spill an hour over on the day the clock is put forward, others publish a day in parts.
    """

    opens: time
    closes: time
    timezone: str
    every: timedelta = timedelta(minutes=5)

    def __post_init__(self) -> None:
        named_zone(self.timezone)
        if not self.opens < self.closes:
            raise InvalidInput(f"a publication window opens at {self.opens} and closes at {self.closes}; it must close later that day")
        if not self.every > timedelta(0):
            raise InvalidInput(f"a publication is asked for every {self.every}; that must be longer than 0")

    def awaited(self, now: datetime, newest: datetime | None) -> bool:
        """Whether the next day is due at ``now`` and not there yet; ``newest`` is when the newest known slot starts (None: none is)."""
        local = now.astimezone(named_zone(self.timezone))
        noon = datetime.combine(local.date() + timedelta(days=1), time(12), tzinfo=local.tzinfo)
        return self.opens <= local.time() < self.closes and (newest is None or newest < noon)


class Http(Protocol):
    """What an adapter may do to the network."""

    def get(self, url: str, *, params: Mapping[str, str | int] | None = None, headers: Mapping[str, str] | None = None) -> Response:
        """The answer, whatever its status; raises AdapterError when there is none worth reading."""
        ...

    def post(self, url: str, *, body: bytes, headers: Mapping[str, str] | None = None) -> Response:
        """The answer to ``body``, on the terms of `get`. It may be sent twice, so ask nothing that must happen only once."""
        ...


class Adapter(Protocol):
    """One provider, as configured. ``signals`` is what it gives for ``zone``; ``every`` how often it is worth asking.

    It may also have ``publishes``, a `Publication`: when the next day comes out.
    """

    name: str
    signals: tuple[SignalKind, ...]
    every: timedelta
    zone: str

    def __init__(self, table: Mapping[str, object], *, site: Path) -> None:
        """From its table in ``gridsched.toml``; ``site`` is what relative paths start from. Raises ConfigError."""
        ...

    def fetch(self, http: Http, now: datetime) -> Batch:
        """What the provider says at ``now``, and the rows it could not use; raises AdapterError."""
        ...


def body_of(response: Response, *, source: str) -> bytes:
    """The body of a good answer; raises AdapterError for a bad status, an empty body or a web page."""
    if response.status == 429:
        raise AdapterError(f"{source} asks for fewer requests", kind=Fault.RATE_LIMITED)
    if response.status in (204, 404):
        raise AdapterError(f"{source} has not published this (HTTP {response.status})", kind=Fault.NOT_PUBLISHED)
    if response.status in (401, 403):
        raise AdapterError(f"{source} refuses access (HTTP {response.status}); check the key and the plan", kind=Fault.REFUSED)
    if response.status >= 500:
        raise AdapterError(f"{source} is in trouble (HTTP {response.status})", kind=Fault.UNAVAILABLE)
    if response.status != 200:
        raise AdapterError(
            f"{source} does not accept the request (HTTP {response.status}); check the adapter's options", kind=Fault.REFUSED
        )
    _refuse_page(response.body, source)
    return response.body


def read_json(payload: bytes, *, source: str) -> Any:
    """The JSON document in ``payload``; raises AdapterError and nothing else, whatever the bytes. NaN reads as null: unknown."""
    _refuse_page(payload, source)
    try:
        return json.loads(payload, parse_constant=lambda _: None)
    except json.JSONDecodeError as error:
        cut = error.pos >= len(error.doc.rstrip()) or "Unterminated" in error.msg
        kind = Fault.TRUNCATED if cut else Fault.MALFORMED
        raise AdapterError(f"{source} answered with JSON that is {kind} at character {error.pos}", kind=kind) from error
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"{source} answered with something that is not JSON", kind=Fault.MALFORMED) from error


def _refuse_page(payload: bytes, source: str) -> None:
    head = payload[:256].lstrip().lower()
    if not head:
        raise AdapterError(f"{source} answered with an empty body", kind=Fault.EMPTY)
    doctype = head.startswith(b"<") and b"<!doctype html" in head  # maybe after a comment or an XML declaration
    if doctype or head.startswith(b"<html"):
        raise AdapterError(f"{source} answered with a web page instead of data; it may be down or the URL wrong", kind=Fault.HTML)


def value_at(document: object, path: str) -> object:
    """What lies at the dotted ``path`` (``data.0.price``; a number is a list's position), the document itself for an empty one.

    None where nothing lies there.
    """
    for key in filter(None, path.split(".")):
        if isinstance(document, dict):
            document = document.get(key)
        elif isinstance(document, list) and key.removeprefix("-").isdecimal() and -len(document) <= int(key) < len(document):
            document = document[int(key)]
        else:
            return None
    return document


def refuse_old(batch: Batch, *, now: datetime, max_age: timedelta, source: str) -> Batch:
    """``batch``, unless its newest slot ended ``max_age`` or more ago: an old answer with a good status is the quietest failure."""
    if not batch.readings:
        raise AdapterError(f"{source} has no value for any slot", kind=Fault.NOT_PUBLISHED)
    newest = max(reading.end for reading in batch.readings)
    if now - newest >= max_age:
        raise AdapterError(f"{source} still serves old data: its newest slot ended {newest:%Y-%m-%d %H:%M} UTC", kind=Fault.STALE)
    return batch


def read_options(kind: type[T], table: Mapping[str, object], *, adapter: str) -> T:
    """``table`` as the frozen dataclass ``kind``; raises one ConfigError with every problem, naming the nearest key for a wrong one.

    Fields may be str, int, float, bool, timedelta (written like ``"15m"``), a StrEnum, a tuple of str, a Mapping of str,
    or one of these or None.
    """
    known: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    hints = get_type_hints(kind)
    problems = [unknown_key(key, known) for key in table if key not in known]
    problems += [f"{name!r} is missing" for name, f in known.items() if name not in table and _required(f)]
    values: dict[str, object] = {}
    for name in known.keys() & table.keys():
        try:
            values[name] = _as(hints[name], table[name])
        except InvalidInput as error:
            problems.append(f"{name}: {error}")
    if not problems:
        try:
            return kind(**values)
        except InvalidInput as error:
            problems = [str(error)]
    raise ConfigError(f"adapter {adapter}: " + "; ".join(sorted(problems)))


def _required(field: "Field[Any]") -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _as(hint: Any, value: object) -> object:
    """``value`` as the type ``hint``, strictly."""
    if get_origin(hint) in (UnionType, Union):
        return _as(next(arg for arg in get_args(hint) if arg is not type(None)), value)
    if hint is timedelta:
        return duration(value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if get_origin(hint) is tuple and isinstance(value, list) and all(isinstance(item, str) for item in value):
        return tuple(value)
    if get_origin(hint) is Mapping and isinstance(value, dict) and all(isinstance(item, str) for item in value.values()):
        return dict(value)
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return _member(hint, value)
    if isinstance(hint, type) and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = getattr(hint, "__name__", str(hint))
    raise InvalidInput(f"{value!r} is not a {expected}")


def _member(hint: type[StrEnum], value: object) -> StrEnum:
    try:
        return hint(str(value))
    except ValueError as error:
        raise InvalidInput(f"{value!r} is none of {', '.join(hint)}") from error
