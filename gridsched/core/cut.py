"""How a job is cut into epochs, rounds and units.

An epoch visits every sample once: in one order over the whole dataset, cut into consecutive ranges, or part by part where the
dataset has parts. Which part comes in which round follows from the seed and the epoch, as everything does.
"""

import functools
import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gridsched.core.job import JobSpec
from gridsched.core.round import Round, RoundState, Version
from gridsched.core.work import UnitKind, UnitSpec, WorkUnit

__all__ = [
    "asked_unit",
    "evaluation_unit",
    "is_asked",
    "lone_sample",
    "nth_unit",
    "open_round",
    "rounds_per_epoch",
    "seed_of",
    "total_rounds",
    "training_unit",
    "unit_sizes",
    "units_of",
    "units_per_epoch",
]


def units_per_epoch(spec: JobSpec) -> int:
    """Units it takes to see every sample once, as they are first cut; not for node-local data, whose units follow from who holds some."""
    return len(spec.parts) if _by_parts(spec) else math.ceil(spec.epoch_samples / spec.unit_samples)


_ASKED = ".e1"


def rounds_per_epoch(spec: JobSpec) -> int:
    """Rounds it takes to see every sample once. With a quorum it may take more, where units are cut shorter for slow nodes."""
    if spec.local:
        return 1
    if spec.method.quorum:
        return math.ceil(units_per_epoch(spec) / spec.method.quorum)
    return math.ceil(units_per_epoch(spec) / _units_per_round(spec))


def total_rounds(spec: JobSpec) -> int:
    """Rounds from the initial version to the last one."""
    return rounds_per_epoch(spec) * spec.method.epochs


def unit_sizes(spec: JobSpec) -> Counter[int]:
    """How many units of which size an epoch has, as they are first cut; not for node-local data, of which the nodes alone know."""
    if _by_parts(spec):
        return Counter(spec.parts)
    whole, rest = divmod(spec.epoch_samples, spec.unit_samples)
    return Counter({spec.unit_samples: whole}) + Counter({rest: 1} if rest else {})


def lone_sample(spec: JobSpec) -> int:
    """The size of a unit whose last batch has one sample only; 0 where none has, or the nodes alone know."""
    if spec.local:
        return 0
    return next((size for size in sorted(unit_sizes(spec)) if (size - 1) % spec.method.batch_size == 0), 0)


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on ``parts`` alone, never on who asks or when."""
    text = "\0".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def open_round(spec: JobSpec, *, number: int, base: str, now: datetime, epoch: int | None = None) -> Round:
    """Round ``number`` of the job, from the version with digest ``base``; of ``epoch`` where that does not follow from the number."""
    return Round(
        round_id=f"{spec.job_id}.r{number}",
        job_id=spec.job_id,
        number=number,
        epoch=number // rounds_per_epoch(spec) if epoch is None else epoch,
        base=base,
        state=RoundState.OPEN,
        opened_at=now,
    )


def _by_parts(spec: JobSpec) -> bool:
    return bool(spec.parts) and spec.part < 0


def _units_per_round(spec: JobSpec) -> int:
    return min(spec.method.units_per_round or len(spec.parts), len(spec.parts)) if _by_parts(spec) else spec.method.units_per_round


def units_of(spec: JobSpec, rnd: Round) -> list[WorkUnit]:
    """The training units of a round that waits for all, in their canonical order; none for node-local data."""
    if spec.local:
        return []
    count = _units_per_round(spec)
    begin = (rnd.number % rounds_per_epoch(spec)) * count
    places = range(begin, min(begin + count, units_per_epoch(spec)))
    if _by_parts(spec):
        order = _order_of_parts(len(spec.parts), spec.seed, rnd.epoch)
        return [_part(spec, rnd, index, part) for index, part in enumerate(sorted(order[place] for place in places))]
    return [_range(spec, rnd, index, place) for index, place in enumerate(places)]


def nth_unit(spec: JobSpec, rnd: Round, place: int) -> WorkUnit:
    """The unit at ``place`` in the order of the round's epoch, trained from the round's version."""
    if _by_parts(spec):
        return _part(spec, rnd, place, _order_of_parts(len(spec.parts), spec.seed, rnd.epoch)[place])
    return _range(spec, rnd, place, place)


def _range(spec: JobSpec, rnd: Round, index: int, place: int) -> WorkUnit:
    """The range at ``place`` among the consecutive ones of the epoch's order, the last of which may be shorter."""
    start, whole = place * spec.unit_samples, spec.epoch_samples
    first, of = (sum(spec.parts[: spec.part]), whole) if spec.part >= 0 else (0, 0)
    return training_unit(spec, rnd, index, start=start, stop=min(start + spec.unit_samples, whole), first=first, of=of)


def _part(spec: JobSpec, rnd: Round, index: int, part: int) -> WorkUnit:
    return training_unit(spec, rnd, index, start=0, stop=spec.parts[part], first=sum(spec.parts[:part]), of=spec.parts[part])


@functools.lru_cache(maxsize=64)
def _order_of_parts(count: int, seed: int, epoch: int) -> Sequence[int]:
    """Whole parts come in an order drawn anew for every epoch."""
    return sorted(range(count), key=lambda part: seed_of("parts", seed, epoch, part))


def training_unit(
    spec: JobSpec, rnd: Round, index: int, *, start: int, stop: int, first: int = 0, of: int = 0, dataset: str = "", only_node: str = ""
) -> WorkUnit:
    """Unit ``index`` of a round: positions ``[start, stop)`` of the epoch's order (over the stretch of ``of`` samples from ``first``).

    Where the samples are a node's own, ``dataset`` is that node's manifest and ``only_node`` the node.
    """
    method = spec.method
    unit = UnitSpec(
        unit_id=f"{rnd.round_id}.u{index}",
        job_id=spec.job_id,
        kind=UnitKind.TRAIN,
        program=spec.program,
        dataset=dataset or spec.dataset,
        base=rnd.base,
        version=rnd.number,
        epoch=rnd.epoch,
        start=start,
        stop=stop,
        batch_size=method.batch_size,
        passes=method.passes,
        seed=spec.seed,
        inner=method.inner,
        codec=method.codec,
        first=first,
        of=of,
        bag=spec.bag,
        micro_batch=method.micro_batch,
        precision=method.precision,
        memory_bytes=spec.memory_bytes,
        local=spec.local,
        exact_buffers=True,
    )
    return WorkUnit(spec=unit, round_id=rnd.round_id, index=index, only_node=only_node)


def evaluation_unit(spec: JobSpec, *, version: Version) -> WorkUnit | None:
    """The unit that evaluates ``version`` on the held-out samples, or None where the job has none.

    Its batches are those of training, for whose size the job's memory was measured.
    """
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
            batch_size=spec.method.batch_size,
            passes=1,
            seed=spec.seed,
            inner=spec.method.inner,
            micro_batch=spec.method.micro_batch,
            memory_bytes=spec.memory_bytes,
        ),
        round_id="",
        index=0,
    )


def asked_unit(spec: JobSpec, *, version: Version, epoch: int) -> WorkUnit | None:
    """The unit that evaluates ``version`` because somebody asked, not because an epoch ended; its energy is booked on ``epoch``."""
    unit = evaluation_unit(spec, version=version)
    if unit is None:
        return None
    return replace(unit, spec=replace(unit.spec, unit_id=f"{spec.job_id}.v{version.number}{_ASKED}", epoch=epoch))


def is_asked(unit: WorkUnit) -> bool:
    """Whether the unit came of `asked_unit`."""
    return unit.unit_id.endswith(_ASKED)
