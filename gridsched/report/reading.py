"""The facts of a stretch of time or of a zone, out of a journal that may be years long."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from gridsched.core.facts import Fact, JobEnded, NodeAbsent, NodeJoined, NodeOptedIn, NodeOptedOut, NodePresent, ZoneObserved, kind_of
from gridsched.flow.past import fact_at, first_since, first_that, pages
from gridsched.ports import Tx

__all__ = ["facts_between", "in_zone", "job_ended_at", "newest"]

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


def in_zone(facts: Sequence[Fact], zone: str) -> list[Fact]:
    """Those that say they are of ``zone``, or are of a node that joined it. What a job did, such as a version, is of no zone."""
    joined = {fact.node_id: fact.zone for fact in facts if isinstance(fact, NodeJoined)}
    return [fact for fact in facts if (getattr(fact, "zone", "") or joined.get(getattr(fact, "node_id", ""))) == zone]


def job_ended_at(tx: Tx, job_id: str) -> datetime | None:
    """When a job was done, cancelled or failed; None while it runs."""
    return next((fact.at for _, fact in pages(tx, 1, kinds=(kind_of(JobEnded),), subject=job_id)), None)


def newest(tx: Tx) -> datetime | None:
    """When the last fact was committed, or None in an empty journal."""
    end = first_that(lambda number: fact_at(tx, number) is None)
    last = fact_at(tx, end - 1)
    return last.at if last is not None else None
