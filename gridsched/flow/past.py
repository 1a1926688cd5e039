"""Where a moment lies in the journal of facts, which may be years long."""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from gridsched.core.facts import Fact
from gridsched.ports import Tx

__all__ = ["fact_at", "first_since", "first_that", "pages"]

_PAGE = 5000


def first_since(tx: Tx, moment: datetime) -> int:
    """The number of the first fact at or after ``moment``; one past the last where there is none."""
    return first_that(lambda number: (fact := fact_at(tx, number)) is None or fact.at >= moment)


def first_that(holds: Callable[[int], bool]) -> int:
    """The first number from 1 on for which ``holds``; by doubling, then halving: facts are numbered without gaps, in order of time."""
    high = 1
    while not holds(high):
        high *= 2
    return bisect_left(range(1, high), True, key=holds) + 1


def fact_at(tx: Tx, number: int) -> Fact | None:
    """The fact of that number."""
    found = tx.facts(since=number - 1, limit=1) if number > 0 else []
    return found[0][1] if found else None


def pages(tx: Tx, first: int, end: int | None = None, *, kinds: Sequence[str] = (), subject: str = "") -> Iterator[tuple[int, Fact]]:
    """Facts from number ``first`` on, before ``end`` (None: to the last), of these ``kinds``, that name ``subject``."""
    since = first - 1
    while page := tx.facts(since=since, limit=_PAGE, kinds=kinds, subject=subject):
        for seq, fact in page:
            if end is not None and seq >= end:
                return
            yield seq, fact
        since = page[-1][0]
