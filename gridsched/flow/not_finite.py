"""A unit is a pure function, so one that ends in NaN or infinity on two nodes would do so on every other: that is its result.

What follows is the owner's choice (`core.method.NotFinite`): the job stops and says which samples did it, or goes on without them.
A single node is not believed while there is another one that can be asked: it may be broken, or lying.
"""

from collections.abc import Sequence
from datetime import datetime

from gridsched.core.facts import Fact
from gridsched.core.job import Job
from gridsched.core.lease import Lease, LeaseReason
from gridsched.core.method import NotFinite
from gridsched.core.work import UnitKind, UnitSpec, WorkUnit
from gridsched.flow import advance
from gridsched.flow.auditors import at_hand
from gridsched.ports import Tx

__all__ = ["MOST_OF_ONE", "others", "settled"]

MOST_OF_ONE = 15
"""Tries by one node alone, though there are others that could do it and never come to it: no wait is without an end."""


def settled(tx: Tx, now: datetime, unit: WorkUnit) -> list[Fact]:
    """What comes of ``unit``, which has just been refused as not finite; nothing where another node is to try it first."""
    tries = tx.find(Lease, unit_id=unit.unit_id, reason=LeaseReason.NOT_FINITE)
    by = sorted({lease.node_id for lease in tries})
    enough = MOST_OF_ONE if others(tx, now, unit, tries) else 2
    if len(by) < 2 and len(tries) < enough:
        return []
    if tx.must(Job, unit.spec.job_id).spec.method.not_finite is NotFinite.SKIP:
        return advance.skip(tx, now, unit)
    return advance.hopeless(tx, now, unit, f"{_told(unit)} ended in NaN or infinity on {' and '.join(by)}; {_remedy(unit.spec)}")


_REMEDY = "lower the learning rate, look at these samples, or submit with not_finite = skip to go on without them"


def _remedy(spec: UnitSpec) -> str:
    if spec.kind is not UnitKind.TRAIN or spec.last_batch > 1:
        return _REMEDY
    return (
        f"{spec.samples} samples in batches of {spec.batch_size} end in a batch of one, which batch normalisation turns into NaN: "
        f"where the model has it, choose another batch_size; else {_REMEDY}"
    )


def others(tx: Tx, now: datetime, unit: WorkUnit, tries: Sequence[Lease]) -> bool:
    """Whether a node that did none of ``tries`` could do ``unit`` and is willing to: one that is merely there never comes to it."""
    if unit.only_node:
        return False
    by = {lease.node_id for lease in tries}
    drew_w = max((lease.power_w for lease in tries), default=0.0)
    return bool(at_hand(tx, now, tx.must(Job, unit.spec.job_id), but=by, drew_w=drew_w))


def _told(unit: WorkUnit) -> str:
    spec = unit.spec
    if spec.kind is UnitKind.EVALUATE:
        return f"the evaluation {unit.unit_id} of version {spec.version}"
    place = f"positions {spec.start} to {spec.stop} of the order of epoch {spec.epoch}"
    where = f" over samples {spec.first} to {spec.first + spec.of}" if spec.of else ""
    return f"unit {unit.unit_id} of round {unit.round_id.rpartition('.r')[2]} ({place}{where})"
