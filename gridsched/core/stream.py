"""Jobs with a quorum are streams of units: what has come is merged, whoever is still at work, and no node waits for another.

`Method.units_at_once` units are under way at any time, cut one after another from the epoch's order. The first ``quorum`` accepted ones
make a round, the next ones the round after it, and so on; so what a merge takes is settled before it starts. Weights fall with
staleness as in FedAsync (Xie et al. 2019, arXiv:1903.03934), and merging by the quorum is FedBuff (Nguyen et al. 2022, arXiv:2106.06639).

A unit under an id never changes once a node has seen it, because nodes keep middles and results by that id. A range that is cut in two,
or trained again from a newer version, is a new unit under a new id: ``j.e0.u3`` is the fourth of epoch 0, ``j.e0.u3.64-128`` a piece of
it, and ``j.e0.u3.64-128.v9`` that piece from version 9 (``.v9-2`` for the second time). Rounds do not span epochs: an epoch's last round
takes what is left.
"""

import math
from dataclasses import replace

from gridsched.core.cut import nth_unit
from gridsched.core.job import JobSpec
from gridsched.core.round import Round
from gridsched.core.work import UnitSpec, WorkUnit

__all__ = ["again", "cut", "rebased", "split", "weight"]

_WORTH_CUTTING = 1.5
"""A unit that takes up to half longer than wished stays whole: its rest would hardly be worth a unit of its own."""


def cut(spec: JobSpec, rnd: Round, place: int) -> WorkUnit:
    """The unit at ``place`` in the order of the round's epoch."""
    unit = nth_unit(spec, rnd, place)
    return replace(unit, spec=replace(unit.spec, unit_id=f"{spec.job_id}.e{rnd.epoch}.u{place}"))


def rebased(unit: WorkUnit, rnd: Round) -> WorkUnit:
    """A unit that no node has seen yet, from the round's version."""
    assert unit.leases == 0, f"unit {unit.unit_id} was seen by a node: train its range again under a new id"
    return replace(unit, spec=replace(unit.spec, base=rnd.base, version=rnd.number), round_id=rnd.round_id)


def again(unit: WorkUnit, rnd: Round) -> WorkUnit:
    """The same range from the round's version, under a new id; nothing of ``unit``'s work is in it."""
    version, _, time = _version(unit.unit_id).partition("-")
    anew = f".v{rnd.number}"
    if version == anew:  # it came too late again while the round was held up
        anew += f"-{int(time or 1) + 1}"
    spec = replace(unit.spec, unit_id=_range_id(unit.spec) + anew, base=rnd.base, version=rnd.number)
    return _fresh(unit, spec, rnd.round_id)


def split(unit: WorkUnit, *, speed: float, seconds: float) -> tuple[WorkUnit, WorkUnit] | None:
    """``unit`` as a piece of about ``seconds`` at ``speed`` (steps per second) and the rest; None where it is not longer by half.

    It is cut between two batches, so every batch is what it was. A speed of 0 is not known.
    """
    spec = unit.spec
    if not speed > 0 or spec.steps <= _WORTH_CUTTING * seconds * speed:
        return None
    at = spec.start + max(1, int(seconds * speed / spec.passes)) * spec.batch_size
    if at >= spec.stop:
        return None
    root, version = _root(spec.unit_id), _version(spec.unit_id)
    pieces = (replace(spec, stop=at), replace(spec, start=at))
    first, rest = (_fresh(unit, replace(piece, unit_id=f"{root}.{piece.start}-{piece.stop}{version}"), unit.round_id) for piece in pieces)
    return first, rest


def weight(samples: int, *, staleness: int, power: float) -> float:
    """What an update counts for in a merge: its samples, discounted by ``(1 + staleness) ** -power``.

    The discount is rounded to 2**-32, because C libraries differ in the last bit of a power and a replay elsewhere must not.
    """
    return samples * math.ldexp(round(math.ldexp((1 + staleness) ** -power, 32)), -32)


def _fresh(unit: WorkUnit, spec: UnitSpec, round_id: str) -> WorkUnit:
    return WorkUnit(spec=spec, round_id=round_id, index=unit.index, only_node=unit.only_node)


def _root(unit_id: str) -> str:
    """``j.e0.u3`` of ``j.e0.u3.64-128.v9``; a job's id has no dot."""
    return ".".join(unit_id.split(".")[:3])


def _version(unit_id: str) -> str:
    """``.v9`` of ``j.e0.u3.64-128.v9``, ``.v9-2`` of ``j.e0.u3.v9-2``, else nothing."""
    last = unit_id.rsplit(".", 1)[1]
    return f".{last}" if last.startswith("v") else ""


def _range_id(spec: UnitSpec) -> str:
    return spec.unit_id.removesuffix(_version(spec.unit_id))
