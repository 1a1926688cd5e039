"""When a unit is worth doing twice: its holder is in doubt, or would take much longer than an idle node.

A unit is a pure function, so a second node that does it comes to the same result (within one hardware class to the same bits), and
the first result counts. The idea is that of MapReduce's backup tasks (Dean and Ghemawat 2004, section 3.6), with one more cause: a
holder that seems to have vanished is not waited for until its lease runs out.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsched.core.fleet import Presence
from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.work import WorkUnit

__all__ = ["Held", "Pace", "cause", "doubt", "left_s", "most_copies", "rank", "whole_s"]

_FAR_BEHIND = 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A unit with its one live ``lease``, what its ``holder`` was last heard of, and the holder's hardware class."""

    unit: WorkUnit
    lease: Lease
    holder: Presence
    runtime: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What is too long.

    ``overdue``: a silence that puts a node in doubt. ``settled_in``: work after which a lease's own speed tells more than the usual one.
    ``trip``: what a unit takes beside its steps.
    """

    overdue: timedelta
    settled_in: timedelta
    trip: timedelta


def most_copies(share: float, *, units: int) -> int:
    """How many of a round's ``units`` may be under way twice at a time: a ``share`` of them, at least one; none for 0."""
    return max(1, int(share * units)) if share > 0 else 0


def doubt(held: Held, now: datetime, *, pace: Pace) -> LeaseReason | None:
    """Why nobody can say when the holder will finish, or None where it is heard of and at work.

    A pause whose continuation has been asked for is no doubt until that is overdue: the unit's middle is on its way.
    """
    lease, seen = held.lease, held.holder
    if seen.cut_at is not None:
        return LeaseReason.HOLDER_CUT
    if not seen.present or now - (seen.seen_at or lease.offered_at) >= pace.overdue:
        return LeaseReason.HOLDER_SILENT
    if lease.state is not LeaseState.PAUSED:
        return None
    coming = lease.wants_hand_over and now - lease.changed_at < pace.overdue
    return None if coming else LeaseReason.HOLDER_PAUSED


def cause(held: Held, candidate: Presence, now: datetime, *, pace: Pace) -> LeaseReason | None:
    """Why ``candidate``, which is idle, should do the unit too, or None where it need not."""
    doubted = doubt(held, now, pace=pace)
    if doubted is not None:
        return doubted
    whole = whole_s(held.unit, candidate) + pace.trip.total_seconds()
    return LeaseReason.HOLDER_SLOW if left_s(held, now, pace=pace) > _FAR_BEHIND * whole else None


def left_s(held: Held, now: datetime, *, pace: Pace) -> float:
    """Seconds of work that the holder still needs, as far as its last report tells; 0 where its speed is not known.

    Its usual speed counts, or what it has shown under this lease where that is less: a worker that hangs is seen by that.
    """
    lease, seen = held.lease, held.holder
    heard_at = max(seen.seen_at or now, lease.changed_at)
    lasting_s = (heard_at - lease.changed_at).total_seconds() if lease.state is LeaseState.ACTIVE else 0.0
    worked_s = lease.active_s + lasting_s
    speed = seen.speed if seen.speed > 0 else math.inf
    if worked_s >= pace.settled_in.total_seconds():
        speed = min(speed, lease.steps_executed / worked_s)
    behind = held.unit.spec.steps - max(lease.step, held.unit.continuation_step)
    since_s = (now - heard_at).total_seconds() if lease.state is LeaseState.ACTIVE else 0.0
    return max(behind / speed - since_s, 0.0) if speed > 0 else math.inf


def whole_s(unit: WorkUnit, candidate: Presence) -> float:
    """Seconds of work that ``candidate`` would need from the newest continuation that the daemon has; inf where its speed is not known."""
    return (unit.spec.steps - unit.continuation_step) / candidate.speed if candidate.speed > 0 else math.inf


def rank(found: Iterable[tuple[Held, LeaseReason]], runtime: str, now: datetime, *, pace: Pace) -> list[tuple[Held, LeaseReason]]:
    """The units that a node of hardware class ``runtime`` may copy, the most pressing first.

    Doubted holders come before slow ones; then the node's own class, where the copy has the same bits; then whose holder needs longest.
    Those that are alike stay as they came.
    """

    def order(item: tuple[Held, LeaseReason]) -> tuple[bool, bool, float]:
        held, why = item
        slow = why is LeaseReason.HOLDER_SLOW
        return slow, held.runtime != runtime, -left_s(held, now, pace=pace) if slow else 0.0

    return sorted(found, key=order)
