"""A version evaluated because somebody asks, by a node like any other work; the daemon itself never runs a model."""

from datetime import datetime

from gridsched.core.cut import asked_unit, evaluation_unit
from gridsched.core.errors import Conflict, InvalidInput, NotFound
from gridsched.core.facts import Fact
from gridsched.core.job import Job, JobState
from gridsched.core.round import Epoch, Version
from gridsched.core.work import UnitState, WorkUnit
from gridsched.ports import Tx

__all__ = ["evaluate"]


def evaluate(tx: Tx, _: datetime, job_id: str, *, number: int) -> list[Fact]:
    """Open a unit that evaluates version ``number``; asking again, or for what has been evaluated, changes nothing.

    Only a running job has nodes: Conflict for any other, and InvalidInput where there are no test samples.
    """
    job, version = tx.must(Job, job_id), tx.get(Version, job_id, number)
    if version is None:
        raise NotFound(f"job {job_id} has no version {number}; it has 0 to {job.version}")
    if version.loss is not None:
        return []
    if job.state is not JobState.RUNNING:
        raise Conflict(f"job {job_id} is {job.state}, so no node works for it; evaluate it here, without --on-nodes")
    own = evaluation_unit(job.spec, version=version)
    if own is not None and tx.count(WorkUnit, unit_id=own.unit_id, state=(UnitState.OPEN, UnitState.LEASED)):
        return []  # its epoch's own evaluation is under way
    current = max(epoch.number for epoch in tx.find(Epoch, job_id=job_id))
    unit = asked_unit(job.spec, version=version, epoch=current)
    if unit is None:
        raise InvalidInput(
            f"job {job_id} was submitted without test samples; evaluate it here on samples of your own, with --data FILE.npz"
        )
    if tx.get(WorkUnit, unit.unit_id) is None:
        tx.insert(unit)
    return []
