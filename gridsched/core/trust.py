"""Trust: how often a node's work is done again elsewhere, and what follows where the results differ.

A unit is a pure function, so an honest recomputation gives the same answer, and comparing two answers needs no judgement of quality.
Newcomers are always audited; with every unit in a row that was found right the chance falls, never below a floor: the adaptive
replication of BOINC (Anderson 2020, arXiv:1903.01699). Who is audited, and by whom, is drawn with a secret of the site's own: we can
repeat the draw, and nobody can foresee it.

One answer against another accuses nobody. Liars who run the same altered program give the same wrong answer, so two votes against
one accuse nobody either where more liars could be about: a judgement takes more votes than a third of all that could vote.
"""

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gridsched.core.errors import InvalidInput

__all__ = [
    "AuditReason",
    "AuditResult",
    "Auditing",
    "Judgement",
    "Vote",
    "audit_chance",
    "choose",
    "drawn",
    "judge",
    "votes_needed",
]

_LEAD = 8
"""Votes ahead that decide however many could vote: with under a third of them lying alike, (1/2) ** 8 against an honest node."""


class AuditReason(StrEnum):
    """Why a unit is done again: ``drawn`` by chance, one of the screens' suspicions, or ``disputed``: answers to it differ."""

    DRAWN = "drawn"
    SIZE = "size"
    DIRECTION = "direction"
    COPY = "copy"
    DISPUTED = "disputed"


class AuditResult(StrEnum):
    """How an audit ended: answers agreed, one was found wrong, no side could be believed, nobody was there to ask, or it fell away."""

    MATCH = "match"
    MISMATCH = "mismatch"
    UNDECIDED = "undecided"
    UNAUDITABLE = "unauditable"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """How a site audits.

    ``share`` is the floor of the chance that a unit is done again, ``probation`` the number of units in a row that must be found right
    before chance decides at all; ``secret`` makes the draws unforeseeable.
    """

    share: float = 0.05
    probation: int = 3
    secret: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise InvalidInput(f"audits share must lie between 0 and 1, got {self.share}")
        if self.probation < 0:
            raise InvalidInput(f"audits probation must be 0 or more, got {self.probation}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What a node answered to a unit: equal texts are the same answer."""

    node_id: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """The answer that is believed, and the nodes that gave it or another one."""

    answer: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


def audit_chance(verified: int, auditing: Auditing) -> float:
    """How likely the next unit of a node is done again, which has ``verified`` units in a row found right."""
    if verified < auditing.probation:
        return 1.0
    return max(auditing.share, 1 / max(verified, 1))


def drawn(unit_id: str, chance: float, auditing: Auditing) -> bool:
    """Whether the draw falls on a unit; the same whenever it is asked."""
    return int.from_bytes(_mac(auditing, "audit", unit_id)[:8], "big") < chance * 2**64


def choose(unit_id: str, node_ids: Sequence[str], count: int, auditing: Auditing) -> list[str]:
    """At most ``count`` of ``node_ids``, drawn for this unit: nobody can bring about that a friend is asked."""
    return sorted(node_ids, key=lambda node_id: _mac(auditing, "auditor", unit_id, node_id))[:count]


def votes_needed(able: int) -> int:
    """How many equal votes accuse those who voted otherwise, where ``able`` nodes could vote and fewer than a third of them lie."""
    return max(2, able // 3 + 1)


def judge(votes: Sequence[Vote], *, able: int) -> Judgement | None:
    """What ``votes`` on a unit say, where ``able`` nodes could vote in all; None while nothing can be said.

    Two equal answers and no other are believed. Where answers differ, one must have the `votes_needed`, or lead far enough.
    """
    counts = Counter(vote.answer for vote in votes).most_common(2)
    if not counts:
        return None
    (answer, most), rest = counts[0], counts[1][1] if len(counts) > 1 else 0
    decided = most > rest and (most >= votes_needed(able) or most - rest >= _LEAD) if rest else most >= 2
    if not decided:
        return None
    return Judgement(
        answer=answer,
        right=tuple(vote.node_id for vote in votes if vote.answer == answer),
        wrong=tuple(vote.node_id for vote in votes if vote.answer != answer),
    )


def _mac(auditing: Auditing, *parts: str) -> bytes:
    return hmac.digest(auditing.secret, "\0".join(parts).encode(), hashlib.sha256)
