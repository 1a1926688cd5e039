"""Policy files: TOML with a closed vocabulary, read strictly. ``policies/README.md`` shows the whole of it on one page.

Every problem of a file is found and reported at once, each with the key it is about, what is wrong and what would be right.
Values may carry a unit (``"40 EUR/MWh"``, ``"2 kW"``); a wrong unit is an error that names the right ones.
"""

import tomllib
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import TypeVar

from gridsched.core.condition import AllOf, AnyOf, Comparison, Condition, Leaf
from gridsched.core.errors import InvalidInput, PolicyError
from gridsched.core.quantity import duration, quantity, unknown_key
from gridsched.core.rule import AlarmRule, Budget, Draw, Policy, Reward, SchedulingRule, TopUp
from gridsched.core.signal import UNIT, SignalKind
from gridsched.core.units import MICRO, utc

__all__ = ["load_policies", "load_policy", "parse_policy"]

T = TypeVar("T")

_TOP = (
    "about",
    "agree",
    "alarm",
    "budget",
    "draw",
    "hold_out_share",
    "reward",
    "schedule",
    "stale_after",
    "timezone",
    "top_up",
    "valid_from",
    "valid_until",
    "when",
    "zone",
)
_LEAF = ("above", "below", "for", "signal", "stop", "stop_for")
_DEEPEST = 16
_MOST_EUR = 10**12  # more would not fit the ledger's whole micro-units


def load_policy(path: Path) -> Policy:
    """The policy in ``path``, named by its file; raises PolicyError with every problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"{path}: cannot be read as UTF-8 text: {error}") from error
    return parse_policy(text, path.stem, where=str(path))


def load_policies(paths: Iterable[Path]) -> Mapping[str, Policy]:
    """The policies in ``paths`` by zone; raises one PolicyError for all files, also when two rule the same zone."""
    problems: list[str] = []
    by_zone: dict[str, tuple[Policy, Path]] = {}
    for path in sorted(paths):
        try:
            policy = load_policy(path)
        except PolicyError as error:
            problems.append(str(error))
            continue
        _, other = by_zone.setdefault(policy.zone, (policy, path))
        if other != path:
            problems.append(f"{path}: zone {policy.zone!r} already has the policy {other}; a zone has one policy, so remove one of the two")
    if problems:
        raise PolicyError("\n".join(problems))
    return {zone: policy for zone, (policy, _) in by_zone.items()}


def parse_policy(text: str, name: str, *, where: str = "") -> Policy:
    """The policy in ``text``; raises PolicyError with every problem, each after ``where`` (default: ``name``)."""
    where = where or f"{name}.toml"
    try:
        document = tomllib.loads(text, parse_float=Decimal)  # so that money never passes through a float
    except ValueError as error:  # also what Python says of an integer that is too long
        raise PolicyError(f"{where}: is not TOML: {error}") from error
    except (ArithmeticError, RecursionError) as error:
        raise PolicyError(f"{where}: has a number or a nesting out of all measure; write a smaller one") from error
    reader = _Reader()
    policy = _policy(reader, document, name)
    if policy is None or reader.problems:
        raise PolicyError(_report(where, reader.problems))
    return policy


def _report(where: str, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return "\n".join([f"{where}: {len(problems)} problems", *(f"  {problem}" for problem in problems)])


class _Reader:
    """Takes values out of tables and keeps every problem, with the path of the key it is about."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def keys(self, table: Mapping[str, object], path: str, known: Iterable[str]) -> None:
        prefix = f"{path}: " if path else ""
        self.problems += [f"{prefix}{unknown_key(key, known)}" for key in table if key not in known]

    def table(self, parent: Mapping[str, object], key: str, known: Iterable[str]) -> Mapping[str, object]:
        found = parent.get(key, {})
        if not isinstance(found, dict):
            self.problems.append(f"{key}: is a table; write it as [{key}]")
            return {}
        self.keys(found, key, known)
        return found

    def value(self, table: Mapping[str, object], path: str, key: str, read: Callable[[object], T]) -> T | None:
        """``table[key]`` as ``read`` takes it; None where it is missing or wrong (which is then noted)."""
        return self.made(_join(path, key), lambda: read(table[key])) if key in table else None

    def made(self, path: str, make: Callable[[], T]) -> T | None:
        try:
            return make()
        except ValueError as error:  # InvalidInput, and what Python says of an integer too long to be shown
            self.problems.append(f"{path}: {error}" if path else str(error))
            return None


def _policy(reader: _Reader, document: Mapping[str, object], name: str) -> Policy | None:
    reader.keys(document, "", _TOP)
    zone = reader.value(document, "", "zone", _text)
    if "zone" not in document:
        reader.problems.append('zone: is missing; name the zone this policy rules, for example zone = "de"')
    when = _when(reader, document)
    draw = _draw(reader, document)
    alarm = _alarm(reader, document)
    budget = _budget(reader, document)
    reward = _reward(reader, document)
    top_up = _top_up(reader, document)
    schedule = _schedule(reader, document)
    stale = reader.table(document, "stale_after", list(SignalKind))
    limits = {SignalKind(key): reader.value(stale, "stale_after", key, duration) for key in sorted(stale) if key in set(SignalKind)}
    agree = _agree(reader, document)
    hold_out = reader.value(document, "", "hold_out_share", _share)
    valid_from = reader.value(document, "", "valid_from", _moment)
    valid_until = reader.value(document, "", "valid_until", _moment)
    timezone = reader.value(document, "", "timezone", _text)
    reader.value(document, "", "about", _text)
    if reader.problems or zone is None or when is None or draw is None:
        return None
    return reader.made(
        "",
        lambda: Policy(
            name=name,
            zone=zone,
            when=when,
            draw=draw,
            alarm=alarm or AlarmRule(),
            budget=budget or Budget(),
            reward=reward or Reward(),
            top_up=top_up or TopUp(),
            schedule=schedule or SchedulingRule(),
            hold_out_share=hold_out or 0.0,
            valid_from=valid_from,
            valid_until=valid_until,
            timezone=timezone or "UTC",
            stale_after=tuple((kind, limit) for kind, limit in limits.items() if limit is not None),
            agree=agree,
        ),
    )


def _agree(reader: _Reader, document: Mapping[str, object]) -> tuple[tuple[SignalKind, float], ...]:
    table = reader.table(document, "agree", list(SignalKind))
    kinds = [SignalKind(key) for key in sorted(table) if key in set(SignalKind)]
    apart = {kind: reader.value(table, "agree", kind, partial(quantity, canonical=UNIT[kind])) for kind in kinds}
    reader.problems += [f"agree.{kind}: sources cannot be less than nothing apart" for kind, value in apart.items() if (value or 0) < 0]
    return tuple((kind, value) for kind, value in apart.items() if value is not None)


def _when(reader: _Reader, document: Mapping[str, object]) -> Condition | None:
    if not isinstance(document.get("when"), dict):
        reader.problems.append('when: is missing; say when there is surplus, for example any = [{ signal = "surplus", above = "2 kW" }]')
        return None
    return _condition(reader, document["when"], "when")


def _condition(reader: _Reader, found: object, path: str) -> Condition | None:
    """A table with ``any`` or ``all`` of further conditions, or a leaf."""
    if not isinstance(found, dict):
        reader.problems.append(f'{path}: is a condition; write it like {{ signal = "surplus", above = "2 kW" }}')
        return None
    if path.count("[") > _DEEPEST:
        reader.problems.append(f"{path}: lies more than {_DEEPEST} conditions deep; an any in an any, or an all in an all, can be one")
        return None
    combining = [key for key in ("any", "all") if key in found]
    if not combining:
        return _leaf(reader, found, path)
    reader.keys(found, path, ("any", "all"))
    if len(combining) == 2:
        reader.problems.append(f"{path}: has both any and all; nest one in the other")
    key = combining[0]
    children = found[key]
    if not isinstance(children, list) or not children:
        reader.problems.append(f"{path}.{key}: is a list with at least one condition")
        return None
    conditions = [_condition(reader, child, f"{path}.{key}[{index}]") for index, child in enumerate(children)]
    complete = tuple(condition for condition in conditions if condition is not None)
    return AnyOf(complete) if key == "any" else AllOf(complete)


def _leaf(reader: _Reader, found: Mapping[str, object], path: str) -> Leaf | None:
    reader.keys(found, path, _LEAF)
    signal = reader.value(found, path, "signal", _signal)
    if "signal" not in found:
        reader.problems.append(f"{path}: has no signal; name one of {', '.join(SignalKind)}")
    sides = [side for side in Comparison if side in found]
    if len(sides) != 1:
        reader.problems.append(f"{path}: needs either above or below, and not both")
    if signal is None or len(sides) != 1:
        return None
    start = reader.value(found, path, sides[0], lambda written: quantity(written, UNIT[signal]))
    stop = reader.value(found, path, "stop", lambda written: quantity(written, UNIT[signal]))
    start_delay = reader.value(found, path, "for", duration) or duration(0)
    stop_delay = reader.value(found, path, "stop_for", duration) or duration(0)
    if start is None:
        return None
    return reader.made(
        path,
        lambda: Leaf(
            signal=signal,
            comparison=sides[0],
            start=start,
            stop=start if stop is None else stop,
            start_delay=start_delay,
            stop_delay=stop_delay,
        ),
    )


def _draw(reader: _Reader, document: Mapping[str, object]) -> Draw | None:
    table = reader.table(document, "draw", ("max_watts", "min_watts", "share_of_curtailment", "share_of_surplus", "watts"))
    shares = [kind for kind in (SignalKind.SURPLUS, SignalKind.CURTAILMENT) if f"share_of_{kind}" in table]
    if len(shares) == 2:
        reader.problems.append("draw: takes a share of the surplus or of the curtailment, and not of both")
    share = reader.value(table, "draw", f"share_of_{shares[0]}", _share) if shares else None
    watts, min_w, max_w = (reader.value(table, "draw", key, _watts) for key in ("watts", "min_watts", "max_watts"))
    if reader.problems and any(problem.startswith("draw") for problem in reader.problems):
        return None
    return reader.made(
        "",
        lambda: Draw(watts=watts, share_of=shares[0] if shares else None, share=share or 0.0, min_w=min_w or 0.0, max_w=max_w),
    )


def _alarm(reader: _Reader, document: Mapping[str, object]) -> AlarmRule | None:
    table = reader.table(document, "alarm", ("clear_for", "required"))
    clear_for = reader.value(table, "alarm", "clear_for", duration)
    required = reader.value(table, "alarm", "required", _flag)
    rule = AlarmRule(required=bool(required))
    return rule if clear_for is None else AlarmRule(clear_for=clear_for, required=bool(required))


def _budget(reader: _Reader, document: Mapping[str, object]) -> Budget | None:
    table = reader.table(document, "budget", ("energy_per_day", "money_per_day_eur"))
    energy_j = reader.value(table, "budget", "energy_per_day", _energy)
    money_micro = reader.value(table, "budget", "money_per_day_eur", _micro)
    return reader.made("", lambda: Budget(energy_j=energy_j, money_micro=money_micro))


def _reward(reader: _Reader, document: Mapping[str, object]) -> Reward | None:
    table = reader.table(document, "reward", ("per_kwh_eur", "per_unit_eur"))
    per_kwh = reader.value(table, "reward", "per_kwh_eur", _micro)
    per_unit = reader.value(table, "reward", "per_unit_eur", _micro)
    return reader.made("", lambda: Reward(micro_per_kwh=per_kwh or 0, micro_per_unit=per_unit or 0))


def _top_up(reader: _Reader, document: Mapping[str, object]) -> TopUp | None:
    table = reader.table(document, "top_up", ("allowed", "max_price", "watts"))
    allowed = reader.value(table, "top_up", "allowed", _flag)
    watts = reader.value(table, "top_up", "watts", _watts)
    price = reader.value(table, "top_up", "max_price", lambda written: quantity(written, UNIT[SignalKind.PRICE]))
    return reader.made("", lambda: TopUp(allowed=bool(allowed), watts=watts or 0.0, max_price_eur_mwh=price))


def _schedule(reader: _Reader, document: Mapping[str, object]) -> SchedulingRule | None:
    table = reader.table(document, "schedule", ("min_off", "min_on", "objective", "restart_waste"))
    objective = reader.value(table, "schedule", "objective", _signal)
    spans = {key: reader.value(table, "schedule", key, duration) for key in ("min_on", "min_off", "restart_waste")}
    given = {key: span for key, span in spans.items() if span is not None}
    return reader.made("", lambda: SchedulingRule(objective=objective or SignalKind.PRICE, **given))


def _watts(written: object) -> float:
    return quantity(written, "W")


def _energy(written: object) -> float:
    if not isinstance(written, str):
        raise InvalidInput(f'{written!r} needs its unit, for example "20 kWh"')
    return quantity(written, "J")


def _share(written: object) -> float:
    share = quantity(written, "share")
    if not 0 <= share <= 1:
        raise InvalidInput(f"{written} is not a share; it lies between 0 and 1 (or '0 %' and '100 %')")
    return share


def _micro(written: object) -> int:
    """Euros as whole micro-units, exactly."""
    if isinstance(written, bool) or not isinstance(written, int | Decimal) or not Decimal(written).is_finite():
        raise InvalidInput(f"{written!r} is not an amount in EUR; write it as a number, for example 0.20")
    if not -_MOST_EUR <= written <= _MOST_EUR:
        raise InvalidInput(f"is more money than can be counted; the most is {_MOST_EUR} EUR")
    micro = Decimal(written) * MICRO
    if micro != int(micro):
        raise InvalidInput(f"{written} EUR is finer than a millionth of a euro; round it")
    return int(micro)


def _moment(written: object) -> datetime:
    if not isinstance(written, datetime):
        raise InvalidInput(f"{written!s} is not a moment; write it with time and offset, for example 2026-01-01T00:00:00Z")
    try:
        return utc(written)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(str(error)) from error


def _signal(written: object) -> SignalKind:
    if not isinstance(written, str):
        raise InvalidInput(f"{written!r} is not the name of one signal; write one of {', '.join(SignalKind)} in quotes")
    if written not in set(SignalKind):
        raise InvalidInput(unknown_key(written, SignalKind).replace("unknown key", "unknown signal"))
    return SignalKind(written)


def _text(written: object) -> str:
    if not isinstance(written, str):
        raise InvalidInput(f"{written!r} is not text; put it in quotes")
    return written


def _flag(written: object) -> bool:
    if not isinstance(written, bool):
        raise InvalidInput(f"{written!r} is neither true nor false")
    return written


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
