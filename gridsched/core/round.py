"""Rounds and epochs: which units a version is trained into, and which version comes next.

``open -> merged | abandoned``. All units of a round start from one version, but for jobs with a quorum (see `core.stream`). The version
that a round merges into has the round's number plus one, so versions grow by one per merged round. A round whose units were all
skipped merges into the version it began with, under the next number.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from gridsched.core.errors import IllegalMove

__all__ = [
    "CHAIN",
    "Epoch",
    "Round",
    "RoundState",
    "Version",
    "close",
    "way",
]


CHAIN = 8
"""So many steps back a node may be and still be told the way, instead of downloading a version whole."""


class RoundState(StrEnum):
    """``merged`` and ``abandoned`` are final."""

    OPEN = "open"
    MERGED = "merged"
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """The units trained from model version ``number`` of a job."""

    round_id: str
    job_id: str
    number: int
    epoch: int
    base: str
    state: RoundState
    opened_at: datetime
    closed_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One journal row: version ``number`` is a function of its parent and the updates named here, in this order.

    ``updates`` are (unit id, update digest, samples) in canonical order, ``staleness`` how many versions each of them was behind
    (none: no unit was). ``outer`` is the blob of the outer optimizer's state and ``step`` that of the encoded step from the parent,
    (of ``step_bytes``) where there are such; ``loss`` and ``accuracy`` come from an evaluate unit.
    """

    job_id: str
    number: int
    digest: str
    parent: str | None
    round_id: str | None
    epoch: int
    updates: tuple[tuple[str, str, int], ...]
    size_bytes: int
    made_at: datetime
    loss: float | None = None
    accuracy: float | None = None
    test_samples: int = 0
    staleness: tuple[int, ...] = ()
    outer: str | None = None
    step: str | None = None
    step_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one pass over the dataset took. Energies in joules, money in micro-units; ``accuracy`` of the epoch's last version.

    ``cut`` counts the units cut from its order so far, where the job is a stream of them. ``audit_j`` is the part of ``wasted_j`` that was
    spent on doing units again elsewhere, to see whether their results are right.
    """

    job_id: str
    number: int
    started_at: datetime
    ended_at: datetime | None = None
    useful_j: float = 0.0
    wasted_j: float = 0.0
    idle_j: float = 0.0
    reward_micro: int = 0
    cost_micro: float = 0.0
    units: int = 0
    loss: float | None = None
    accuracy: float | None = None
    cut: int = 0
    audit_j: float = 0.0


def close(rnd: Round, state: RoundState, now: datetime) -> Round:
    """Merge or abandon an open round."""
    if rnd.state is not RoundState.OPEN:
        raise IllegalMove(f"round {rnd.round_id} is already {rnd.state}")
    return replace(rnd, state=state, closed_at=now)


def way(versions: Sequence[Version]) -> list[tuple[str, str]]:
    """(version, step to the next) digests that end at the last of consecutive ``versions``: as far back as it is shorter than its file."""
    found: list[tuple[str, str]] = []
    total_bytes = 0
    for version in reversed(versions):
        total_bytes += version.step_bytes
        if version.parent is None or version.step is None or total_bytes >= versions[-1].size_bytes:
            break
        found.append((version.parent, version.step))
    return found[::-1]
