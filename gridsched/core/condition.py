"""When a policy's rule holds: a tree of conditions over signals, each leaf with a start pair and a stop pair.

A leaf switches on once its start threshold has been passed without a break for ``start_delay``, and off once it has been
back behind its stop threshold for ``stop_delay`` (two thresholds and two delays, as evcc does for surplus charging). A signal
that is stale or unknown switches it off at once: unknown is not surplus. An alarm alone stays as it was: it is not over because
nobody speaks of it. ``step`` is the whole state machine, and pure.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from gridsched.core.errors import PolicyError
from gridsched.core.signal import UNIT, SignalKind

__all__ = ["AllOf", "AnyOf", "Comparison", "Condition", "Leaf", "LeafState", "holds", "leaves", "step"]


class Comparison(StrEnum):
    """On which side of its threshold a signal means surplus."""

    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """``signal`` above (or below) ``start`` for ``start_delay``; holds until it is back at ``stop`` for ``stop_delay``.

    Thresholds are in the signal's canonical unit. Both comparisons are strict: ``below = 0`` means negative.
    """

    signal: SignalKind
    comparison: Comparison
    start: float
    stop: float
    start_delay: timedelta = timedelta(0)
    stop_delay: timedelta = timedelta(0)

    def __post_init__(self) -> None:
        above = self.comparison is Comparison.ABOVE
        if self.stop > self.start if above else self.stop < self.start:
            unit = UNIT[self.signal]
            side = "at or below" if above else "at or above"
            raise PolicyError(
                f"{self.signal} {self.comparison} {self.start:g} {unit} would stop at {self.stop:g} {unit}, before it starts; "
                f"put the stop threshold {side} {self.start:g} {unit}"
            )
        if not above and self.signal in (SignalKind.SURPLUS, SignalKind.CURTAILMENT):
            raise PolicyError(f"{self.signal} below {self.start:g} W would draw more when there is less; use above")
        if min(self.start_delay, self.stop_delay) < timedelta(0):
            raise PolicyError(f"{self.signal}: a delay cannot be negative")

    @property
    def key(self) -> str:
        """Names this leaf's state by what it says, so that an edit elsewhere in the policy does not restart its delays."""
        delays = f"{self.start_delay.total_seconds():g}s/{self.stop_delay.total_seconds():g}s"
        return f"{self.signal} {self.comparison} {self.start:g}/{self.stop:g} {delays}"

    def passes(self, value: float, threshold: float) -> bool:
        """Whether ``value`` is on the right side of ``threshold``, strictly."""
        return value > threshold if self.comparison is Comparison.ABOVE else value < threshold


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Holds when at least one of its conditions does."""

    conditions: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """Holds when all of its conditions do."""

    conditions: tuple["Condition", ...]


Condition = Leaf | AnyOf | AllOf


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafState:
    """Whether a leaf is on, since when, and since when it has been asking to change."""

    on: bool
    since: datetime
    pending_since: datetime | None = None


def step(leaf: Leaf, before: LeafState | None, value: float | None, now: datetime) -> LeafState:
    """The leaf's next state, given its signal's value at ``now``; None means stale or unknown."""
    before = before or LeafState(on=False, since=now)
    if value is None:
        stays = before.on and leaf.signal is SignalKind.ALARM
        return LeafState(on=stays, since=now if before.on and not stays else before.since)
    wants = leaf.passes(value, leaf.stop if before.on else leaf.start)
    if wants == before.on:
        return LeafState(on=before.on, since=before.since)
    pending = min(before.pending_since or now, now)
    if now - pending >= (leaf.stop_delay if before.on else leaf.start_delay):
        return LeafState(on=wants, since=now)
    return LeafState(on=before.on, since=before.since, pending_since=pending)


def leaves(condition: Condition) -> Iterator[Leaf]:
    """Every leaf of the tree, in the order it was written."""
    if isinstance(condition, Leaf):
        yield condition
    else:
        for child in condition.conditions:
            yield from leaves(child)


def holds(condition: Condition, truth: Mapping[str, bool | None]) -> bool | None:
    """Kleene's three-valued logic over the leaves' ``truth`` by key; None is unknown.

    So a stale signal does not spoil an ``any`` that another signal carries, and never carries an ``all``.
    """
    if isinstance(condition, Leaf):
        return truth[condition.key]
    values = [holds(child, truth) for child in condition.conditions]
    decisive = isinstance(condition, AnyOf)
    if decisive in values:
        return decisive
    return None if None in values else not decisive
