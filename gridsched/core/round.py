"""Rounds and epochs: which units a version is trained into, and which version comes next.

``open -> merged | abandoned``. All units of a round start from one version; the version that a round merges
into has the round's number plus one, so versions grow by one per merged round.
"""

import hashlib
import math
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from gridsched.core.errors import IllegalMove
from gridsched.core.job import JobSpec
from gridsched.core.work import UnitKind, UnitSpec, WorkUnit

__all__ = [
    "Epoch",
    "Round",
    "RoundState",
    "Version",
    "close",
    "evaluation_unit",
    "open_round",
    "rounds_per_epoch",
    "seed_of",
    "total_rounds",
    "units_of",
]


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

    ``updates`` are (unit id, update digest, samples) in canonical order; ``loss`` and ``accuracy`` come from an evaluate unit.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """What one pass over the dataset took. Energies in joules, money in micro-units; ``accuracy`` of the epoch's last version."""

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


def rounds_per_epoch(spec: JobSpec) -> int:
    """Rounds it takes to see every sample once."""
    return math.ceil(spec.samples / (spec.method.samples_per_unit * spec.method.units_per_round))


def total_rounds(spec: JobSpec) -> int:
    """Rounds from the initial version to the last one."""
    return rounds_per_epoch(spec) * spec.method.epochs


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone, never on who asks or when."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def open_round(spec: JobSpec, *, number: int, base: str, now: datetime) -> Round:
    """Round ``number`` of the job, starting from the version with digest ``base``."""
    return Round(
        round_id=f"{spec.job_id}.r{number}",
        job_id=spec.job_id,
        number=number,
        epoch=number // rounds_per_epoch(spec),
        base=base,
        state=RoundState.OPEN,
        opened_at=now,
    )


def units_of(spec: JobSpec, rnd: Round) -> list[WorkUnit]:
    """The training units of a round: consecutive ranges of the epoch's order, the last one possibly shorter."""
    method = spec.method
    first = (rnd.number % rounds_per_epoch(spec)) * method.samples_per_unit * method.units_per_round
    last = min(first + method.samples_per_unit * method.units_per_round, spec.samples)
    starts = range(first, last, method.samples_per_unit)
    return [
        WorkUnit(
            spec=UnitSpec(
                unit_id=f"{rnd.round_id}.u{index}",
                job_id=spec.job_id,
                kind=UnitKind.TRAIN,
                program=spec.program,
                dataset=spec.dataset,
                base=rnd.base,
                version=rnd.number,
                epoch=rnd.epoch,
                start=start,
                stop=min(start + method.samples_per_unit, last),
                batch_size=method.batch_size,
                passes=method.passes,
                seed=spec.seed,
                inner=method.inner,
                codec=method.codec,
            ),
            round_id=rnd.round_id,
            index=index,
        )
        for index, start in enumerate(starts)
    ]


def evaluation_unit(spec: JobSpec, *, version: Version) -> WorkUnit | None:
    """The unit that evaluates ``version`` on the held-out samples, or None where the job has none."""
    if spec.test_dataset is None or spec.test_samples < 1:
        return None
    return WorkUnit(
        spec=UnitSpec(
            unit_id=f"{spec.job_id}.v{version.number}.e0",
            job_id=spec.job_id,
            kind=UnitKind.EVALUATE,
            program=spec.program,
            dataset=spec.test_dataset,
            base=version.digest,
            version=version.number,
            epoch=version.epoch,
            start=0,
            stop=spec.test_samples,
            batch_size=max(spec.method.batch_size, 64),
            passes=1,
            seed=spec.seed,
            inner=spec.method.inner,
        ),
        round_id="",
        index=0,
    )


def close(rnd: Round, state: RoundState, now: datetime) -> Round:
    """Merge or abandon an open round."""
    if rnd.state is not RoundState.OPEN:
        raise IllegalMove(f"round {rnd.round_id} is already {rnd.state}")
    return replace(rnd, state=state, closed_at=now)
