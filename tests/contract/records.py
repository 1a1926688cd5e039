"""Strategies for stored records and facts, made from their annotations."""

from dataclasses import fields
from datetime import UTC, datetime
from enum import StrEnum
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from hypothesis import reject
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput

__all__ = ["made"]

NAMES = st.from_regex(r"[a-z0-9][a-z0-9_-]{0,20}", fullmatch=True)
DIGESTS = st.from_regex(r"[0-9a-f]{64}", fullmatch=True)
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)
MOMENTS = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 (hypothesis adds the zone)
FLOATS = st.floats(allow_nan=False, allow_infinity=False, width=64)
NAMED = {"job_id", "node_id", "name"}
DIGESTED = {"program", "dataset", "initial", "base", "digest"}
BOUNDED: dict[str, st.SearchStrategy[Any]] = {
    "power_w": st.floats(1, 1e6),
    "max_w": st.none() | st.floats(0, 1e6),
    "lr": st.floats(1e-6, 1),
    "amount_micro": st.integers(0, 2**62),
}
WORDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "InnerOptimizer": {"name": st.sampled_from(["sgd", "adamw"]), "prox": st.floats(0, 1)},
    "OuterOptimizer": {"name": st.sampled_from(["sgd", "nesterov", "adam"])}
    | {name: st.floats(0, 1, exclude_max=True) for name in ("momentum", "beta1", "beta2")},
    "Method": {name: st.integers(1, 1000) for name in ("epochs", "batch_size", "samples_per_unit", "passes")}
    | {"staleness_power": st.floats(0, 100), "grace_s": st.just(0.0)}
    | {name: st.integers(0, 20) for name in ("quorum", "max_staleness", "micro_batch")}
    | {"units_per_round": st.integers(20, 1000), "bad_share": st.floats(0, 0.4), "unit_seconds": st.just(0.0)},
    "JobSpec": {"samples": st.just(7), "parts": st.just((3, 4)), "part": st.integers(-1, 1), "local": NAMES, "ensemble": NAMES},
}


@st.composite
def made(draw: st.DrawFn, kind: type[Any]) -> Any:
    """Any valid ``kind``."""
    hints = get_type_hints(kind)
    given = {f.name: draw(_value(hints[f.name], f.name, kind.__name__)) for f in fields(kind)}
    try:
        return kind(**given)
    except InvalidInput:
        reject()


def _value(hint: Any, name: str, owner: str) -> st.SearchStrategy[Any]:
    if name in WORDS.get(owner, {}):
        return WORDS[owner][name]
    if name in BOUNDED and hint is not str and not _is_enum(hint):
        return BOUNDED[name]
    origin, arguments = get_origin(hint), get_args(hint)
    if NoneType in arguments:
        return st.none() | st.one_of([_value(each, name, owner) for each in arguments if each is not NoneType])
    if origin is tuple and arguments[-1] is ...:
        return st.lists(_value(arguments[0], "", owner), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*(_value(each, "", owner) for each in arguments))
    if origin is not None:
        return st.dictionaries(_value(arguments[0], "", owner), _value(arguments[1], "", owner), max_size=3)
    return _plain(hint, name)


def _is_enum(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, StrEnum)


def _plain(hint: Any, name: str) -> st.SearchStrategy[Any]:
    if hint is str:
        return NAMES if name in NAMED else DIGESTS if name in DIGESTED else TEXTS
    if _is_enum(hint):
        return st.sampled_from(list(hint))
    if hint is datetime:
        return MOMENTS
    plain = {bool: st.booleans(), int: st.integers(-(2**63), 2**63 - 1), float: FLOATS}
    return plain[hint] if hint in plain else made(hint)
