"""What each node did when, told from the facts alone."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple

from gridsched.core.facts import (
    HELD,
    AgentReplaced,
    Fact,
    LeaseActive,
    LeaseEnded,
    LeaseOffered,
    LeasePaused,
    LeaseResumed,
    NodeAbsent,
    NodeCut,
    NodeJoined,
    NodeOptedIn,
    NodeOptedOut,
    NodePresent,
)

__all__ = ["NodeState", "Strip", "crashes", "node_strips", "without_gaps"]


class NodeState(StrEnum):
    """``waiting``: opted in and without work. ``crashed``: silent while it held a lease; ``absent``: silent otherwise."""

    WORKING = "working"
    PAUSED = "paused"
    WAITING = "waiting"
    OPTED_OUT = "opted out"
    ABSENT = "absent"
    CRASHED = "crashed"


class Strip(NamedTuple):
    """A node was in ``state`` over ``[start, end)``, because of ``reason``."""

    start: datetime
    end: datetime
    state: NodeState
    reason: str


@dataclass(slots=True)
class _Lane:
    """One node: what is known of it, and its strips so far; the last one is still open."""

    present: bool = False
    opted_in: bool = False
    lease_id: str = ""
    held: NodeState = NodeState.WAITING
    reason: str = ""
    crashed: bool = False
    cut_at_work: bool = False
    crashed_at: list[datetime] = field(default_factory=list)
    begun: list[tuple[datetime, NodeState, str]] = field(default_factory=list)

    def hear(self, fact: Fact) -> None:
        since = fact.at
        match fact:
            case NodePresent():
                self.present, self.crashed = True, False
            case NodeAbsent():
                since = fact.at - timedelta(seconds=fact.silent_s)
                self.present, self.crashed = False, bool(self.lease_id) or self.cut_at_work
                self._note_crash(since)
            case NodeCut():
                self.cut_at_work = bool(self.lease_id)  # its unit may be done by another node before it is missed
            case AgentReplaced():
                if self.present:  # it came back before it was missed; otherwise its absence has been counted
                    self._note_crash(since)
            case NodeOptedIn():
                self.opted_in = True
            case NodeOptedOut():
                self.opted_in = False
            case LeaseEnded():
                self._end(fact)
            case LeaseOffered() | LeaseActive() | LeasePaused() | LeaseResumed():
                self.lease_id, self.reason, self.cut_at_work = fact.lease_id, fact.reason, False
                self.held = {LeaseOffered: NodeState.WAITING, LeasePaused: NodeState.PAUSED}.get(type(fact), NodeState.WORKING)
        self._mark(since)

    def _note_crash(self, at: datetime) -> None:
        if self.lease_id or self.cut_at_work:
            self.crashed_at.append(at)
        self.cut_at_work = False

    def _end(self, fact: LeaseEnded) -> None:
        if fact.lease_id == self.lease_id:
            self.lease_id, self.held, self.reason = "", NodeState.WAITING, fact.reason

    def _mark(self, since: datetime) -> None:
        state, reason = self._now()
        while self.begun and self.begun[-1][0] >= since:
            self.begun.pop()
        if not self.begun or self.begun[-1][1:] != (state, reason):
            self.begun.append((since, state, reason))

    def _now(self) -> tuple[NodeState, str]:
        if not self.present:
            return (NodeState.CRASHED, "node_silent") if self.crashed else (NodeState.ABSENT, "absent")
        if not self.opted_in:
            return NodeState.OPTED_OUT, "opted_out"
        return self.held, (self.reason if self.held is NodeState.PAUSED else "")

    def strips(self, until: datetime) -> list[Strip]:
        ends = [*(begun[0] for begun in self.begun[1:]), max(until, self.begun[-1][0])]
        return [Strip(start, end, state, reason) for (start, state, reason), end in zip(self.begun, ends, strict=True) if start < end]


def node_strips(facts: Iterable[Fact], *, until: datetime) -> dict[str, list[Strip]]:
    """By node id, in the order the nodes were first heard of: strips without a hole from its first fact to ``until``.

    ``facts`` in the order they were committed. A node that fell silent did so ``silent_s`` before anyone noticed, and its
    strip begins there.
    """
    return {node_id: lane.strips(until) for node_id, lane in _lanes(facts).items()}


def crashes(facts: Iterable[Fact]) -> list[tuple[datetime, str]]:
    """When which node vanished while it held a lease, by time."""
    return sorted((at, node_id) for node_id, lane in _lanes(facts).items() for at in lane.crashed_at)


def without_gaps(strips: Sequence[Strip], *, shorter_than: timedelta) -> list[Strip]:
    """``strips`` with short waits between two of a kind filled in: the moment between two units is not worth a line."""
    merged: list[Strip] = []
    for strip in strips:
        if len(merged) > 1 and merged[-1].state is NodeState.WAITING and merged[-1].end - merged[-1].start < shorter_than:
            before = merged[-2]
            if before[2:] == strip[2:]:
                merged[-2:] = [before._replace(end=strip.end)]
                continue
        merged.append(strip)
    return merged


def _lanes(facts: Iterable[Fact]) -> dict[str, _Lane]:
    lanes: dict[str, _Lane] = {}
    for fact in facts:
        if isinstance(fact, (NodeJoined, NodePresent, NodeAbsent, NodeCut, AgentReplaced, NodeOptedIn, NodeOptedOut, *HELD)):
            lanes.setdefault(fact.node_id, _Lane()).hear(fact)
    return lanes
