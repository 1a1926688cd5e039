"""The register of rules: how each operator becomes calls, forward and backward.

A rule is a function of the tape and the operator's own arguments, in ATen's order and with ATen's names for those that graphs
pass by name. What it does not cover it refuses with ``refuse``; the walk over the graph adds the node's name.
"""

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar

from gridsched.core.errors import UnsupportedOperator

__all__ = ["RULES", "Number", "Rule", "covers", "expect", "pair", "refuse"]

Rule = Callable[..., Any]
Number = int | float
_F = TypeVar("_F", bound=Rule)
_RULES: dict[str, Rule] = {}
RULES: Mapping[str, Rule] = _RULES
"""By operator; complete once the rules_* modules are imported."""


def covers(*operators: str) -> Callable[[_F], _F]:
    """Register the rule for these operators, named without ``aten.``."""

    def register(rule: _F) -> _F:
        for operator in operators:
            assert operator not in _RULES, operator
            _RULES[f"aten.{operator}"] = rule
        return rule

    return register


def refuse(what: str) -> NoReturn:
    """Say what of an operator is not covered."""
    raise UnsupportedOperator(what)


def expect(holds: bool, what: str) -> None:
    """Refuse ``what`` unless it ``holds``."""
    if not holds:
        refuse(what)


def pair(sizes: Number | tuple[int, ...]) -> tuple[int, int]:
    """Height and width of what may be given once for both."""
    if isinstance(sizes, tuple):
        return (sizes[0], sizes[-1])
    return (int(sizes), int(sizes))
