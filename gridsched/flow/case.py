"""A finished unit with all that it takes to judge it: what was to be done, what came of it, and on what kind of machine."""

from dataclasses import dataclass

from gridsched.core.errors import NotFound
from gridsched.core.lease import Lease
from gridsched.core.work import UnitSpec, UnitState, WorkUnit
from gridsched.ports import Tx

__all__ = ["Case", "case_of", "classes_of", "worked_on"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """``answer`` is what the result counts as (see `gridsched.flow.audit.answer_of`), ``digests`` the parameters' along the way.

    ``classes`` are the hardware classes of all work that is in it; none where that of some of it is not known.
    """

    spec: UnitSpec
    state: UnitState
    update: str | None
    answer: str
    digests: tuple[tuple[int, str], ...] = ()
    classes: tuple[str, ...] = ()


def case_of(tx: Tx, unit_id: str) -> Case:
    """Raises `NotFound` for a unit that the site does not have."""
    unit = tx.get(WorkUnit, unit_id)
    if unit is None:
        raise NotFound(f"there is no unit {unit_id}; unit ids read JOB.r3.u2, see gridsched job watch and GET /v1/jobs/JOB/versions")
    found = tuple(sorted(classes_of(tx, unit)))
    classes = () if "" in found else found
    return Case(spec=unit.spec, state=unit.state, update=unit.update, answer=unit.answer, digests=unit.digests, classes=classes)


def classes_of(tx: Tx, unit: WorkUnit) -> set[str]:
    """The hardware classes of the work in a unit's result, as they were when it was done; "" among them for work of an unknown one."""
    return {lease.runtime for lease in worked_on(tx, unit)}


def worked_on(tx: Tx, unit: WorkUnit) -> list[Lease]:
    """The leases whose work is in a unit's result: the one that finished it, and those whose middles it went on from."""
    finished = () if unit.accepted_lease is None else (unit.accepted_lease,)
    return [tx.must(Lease, lease_id) for lease_id in (*unit.middles, *finished)]
