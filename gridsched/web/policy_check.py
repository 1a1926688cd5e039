"""A policy's text as its editor sees it: every problem with the line and the key it is about. Pure."""

import re
from collections.abc import Callable, Iterator
from typing import Any

from gridsched.core.condition import Leaf, leaves
from gridsched.core.errors import InvalidInput
from gridsched.core.rule import Policy
from gridsched.core.signal import UNIT

__all__ = ["check", "summary"]

Json = dict[str, Any]

_NOT_TOML = re.compile(r"\(at line (\d+), column \d+\)")
_KEY = r"[a-z_]+(?:\[\d+\])?"
_SAID = re.compile(rf"(?:\[(?P<table>[a-z_]+)\]|(?P<path>{_KEY}(?:\.{_KEY})*)(?=[: ]))?(?P<rest>.*)", re.DOTALL)
_UNKNOWN = re.compile(r"unknown key '([^']+)'")
_HEADER = re.compile(r"\s*\[([a-z_.]+)\]")


def check(text: str, parse: Callable[[str], Policy]) -> Json:
    """Whether ``parse`` takes ``text``; if not, all its problems as ``{line, key, says}``. A line is counted from 1, or None."""
    try:
        policy = parse(text)
    except InvalidInput as error:
        return {"ok": False, "problems": [_located(text, said) for said in _problems(str(error))], "policy": None}
    return {"ok": True, "problems": [], "policy": summary(policy)}


def summary(policy: Policy) -> Json:
    """What the policy looks at, draws and pays, in values that a page can put into words."""
    draw = policy.draw
    return {
        "name": policy.name,
        "digest": policy.digest,
        "signals": [{"signal": kind.value, "unit": UNIT[kind]} for kind in policy.signals],
        "when": [_leaf(leaf) for leaf in leaves(policy.when)],
        "watts": draw.watts,
        "share_of": draw.share_of.value if draw.share_of else None,
        "share": draw.share,
        "max_w": draw.max_w,
        "top_up": policy.top_up.allowed,
        "timezone": policy.timezone,
        "reward_micro_per_kwh": policy.reward.micro_per_kwh,
        "reward_micro_per_unit": policy.reward.micro_per_unit,
    }


def _leaf(leaf: Leaf) -> Json:
    told = {"signal": leaf.signal.value, "comparison": leaf.comparison.value, "unit": UNIT[leaf.signal]}
    return told | {"start": leaf.start, "stop": leaf.stop}


def _problems(message: str) -> Iterator[str]:
    """The single problems in what the parser says: after the file's name on one line, or one a line under it."""
    first, *more = message.split("\n")
    if more:
        yield from (line.strip() for line in more)
    else:
        yield re.sub(r"^\S+\.toml:? ", "", first)


def _located(text: str, said: str) -> Json:
    at = _NOT_TOML.search(said)
    if at is not None:
        return {"line": int(at[1]), "key": "", "says": said}
    lines = text.split("\n")
    found = _SAID.fullmatch(said)
    path = (found["table"] or found["path"] or "") if found else ""
    steps = [step for step in path.split(".") if step]
    if len(steps) == 1 and _line(lines, steps) is None and not said.startswith(f"{path}:"):
        steps = []  # a sentence that begins with some other word
    unknown = _UNKNOWN.search(said)
    if unknown is not None:
        steps.append(unknown[1])
    return {"line": _line(lines, steps), "key": ".".join(steps), "says": said}


def _line(lines: list[str], steps: list[str]) -> int | None:
    """Where the key that ``steps`` lead to is written; where it is not, the nearest one on the way to it that is."""
    first, last, found = 0, len(lines), None
    for step in steps:
        name, _, index = step.rstrip("]").partition("[")
        header = next((n for n, line in enumerate(lines) if (at := _HEADER.match(line)) and at[1] == name), None)
        if header is not None:
            first, found = header + 1, header
            last = next((n for n in range(first, len(lines)) if _HEADER.match(lines[n])), len(lines))
            continue
        key = next((n for n in range(first, last) if re.match(rf"(?:.*[{{,]\s*|\s*){re.escape(name)}\s*=", lines[n])), None)
        if key is None:
            break
        first, found = key, key
        if index:
            first = found = _opened(lines, key, int(index), last)
    return None if found is None else found + 1


def _opened(lines: list[str], first: int, index: int, last: int) -> int:
    """The line in which the inline table number ``index`` of the list that begins on line ``first`` opens."""
    seen = -1
    for number in range(first, last):
        seen += lines[number].partition("#")[0].count("{")
        if seen >= index:
            return number
    return first
