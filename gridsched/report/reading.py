"""The facts of a stretch of time, out of a journal that may be years long."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta

from gridsched.core.facts import Fact, NodeAbsent, NodeJoined, NodeOptedIn, NodeOptedOut, NodePresent, ZoneObserved, kind_of
from gridsched.ports import Tx

__all__ = ["facts_between", "newest"]

_STANDING = tuple(kind_of(kind) for kind in (NodeJoined, NodePresent, NodeAbsent, NodeOptedIn, NodeOptedOut))
"""Facts that hold until another one says otherwise, however long ago they were stated."""

_LONGEST_LEASE = timedelta(days=1)
_PAGE = 5000


def facts_between(tx: Tx, start: datetime, end: datetime) -> list[Fact]:
    """All facts of ``[start, end)``, after those from before that still say something about the nodes at ``start``.

    In the order they were committed; control ticks are of ``[start, end)`` alone.
    """
    lead, first, last = (_first(tx, moment) for moment in (start - _LONGEST_LEASE, start, end))
    standing = [fact for _, fact in _pages(tx, 1, lead, kinds=_STANDING)]
    before = [fact for _, fact in _pages(tx, lead, first) if not isinstance(fact, ZoneObserved)]
    return [*standing, *before, *(fact for _, fact in _pages(tx, first, last))]


def newest(tx: Tx) -> datetime | None:
    """When the last fact was committed, or None in an empty journal."""
    end = _first_that(lambda number: _fact(tx, number) is None)
    last = _fact(tx, end - 1)
    return last.at if last is not None else None


def _first(tx: Tx, moment: datetime) -> int:
    """The number of the first fact at or after ``moment``; one past the last where there is none."""
    return _first_that(lambda number: (fact := _fact(tx, number)) is None or fact.at >= moment)


def _first_that(holds: Callable[[int], bool]) -> int:
    """By doubling, then halving: facts are numbered from 1 without gaps, in order of time."""
    high = 1
    while not holds(high):
        high *= 2
    return bisect_left(range(1, high), True, key=holds) + 1


def _fact(tx: Tx, number: int) -> Fact | None:
    found = tx.facts(since=number - 1, limit=1) if number > 0 else []
    return found[0][1] if found else None


def _pages(tx: Tx, first: int, end: int, *, kinds: Sequence[str] = ()) -> Iterator[tuple[int, Fact]]:
    since = first - 1
    while page := tx.facts(since=since, limit=_PAGE, kinds=kinds):
        for seq, fact in page:
            if seq >= end:
                return
            yield seq, fact
        since = page[-1][0]
