"""The facts of a stretch of time, out of a journal that may be years long."""

from datetime import datetime, timedelta

from gridsched.core.facts import Fact, NodeAbsent, NodeJoined, NodeOptedIn, NodeOptedOut, NodePresent, ZoneObserved, kind_of
from gridsched.flow.past import fact_at, first_since, first_that, pages
from gridsched.ports import Tx

__all__ = ["facts_between", "newest"]

_STANDING = tuple(kind_of(kind) for kind in (NodeJoined, NodePresent, NodeAbsent, NodeOptedIn, NodeOptedOut))
"""Facts that hold until another one says otherwise, however long ago they were stated."""

_LONGEST_LEASE = timedelta(days=1)


def facts_between(tx: Tx, start: datetime, end: datetime) -> list[Fact]:
    """All facts of ``[start, end)``, after those from before that still say something about the nodes at ``start``.

    In the order they were committed; control ticks are of ``[start, end)`` alone.
    """
    lead, first, last = (first_since(tx, moment) for moment in (start - _LONGEST_LEASE, start, end))
    standing = [fact for _, fact in pages(tx, 1, lead, kinds=_STANDING)]
    before = [fact for _, fact in pages(tx, lead, first) if not isinstance(fact, ZoneObserved)]
    return [*standing, *before, *(fact for _, fact in pages(tx, first, last))]


def newest(tx: Tx) -> datetime | None:
    """When the last fact was committed, or None in an empty journal."""
    end = first_that(lambda number: fact_at(tx, number) is None)
    last = fact_at(tx, end - 1)
    return last.at if last is not None else None
