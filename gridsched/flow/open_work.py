"""The units that wait for a node, and which of them a node may be given.

A node that could not do a unit leaves it to others: the same node, first in merit, would else be asked about it for ever, and end its
job alone. It is asked again where nobody is there who has tried it less often; about what it has refused several times, less and less
often.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from gridsched.core.fleet import Node
from gridsched.core.job import Job
from gridsched.core.lease import Lease, LeaseReason
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.flow import timing
from gridsched.flow.seats import Seat
from gridsched.ports import Tx

__all__ = ["COULD_NOT", "OpenWork", "asked_again"]

COULD_NOT = (LeaseReason.NODE_REFUSED, LeaseReason.UPDATE_REFUSED, LeaseReason.NOT_FINITE)
"""Why a lease ended whose node could not do the unit."""
_AT_ONCE = 3
_MOST_OFTEN, _LEAST_OFTEN = timedelta(minutes=1), timedelta(hours=1)


def asked_again(tries: Iterable[Lease]) -> datetime | None:
    """When the node of ``tries`` may be asked again about the unit that it could not do in them; None: at once.

    What it refused before it began costs nothing, so nothing else ends such tries: after the third it waits a minute, and twice as long
    each time, up to an hour. It may have more memory by then, or a file that it could not have.
    """
    refused = [lease.changed_at for lease in tries if lease.reason is LeaseReason.NODE_REFUSED]
    if len(refused) < _AT_ONCE:
        return None
    return max(refused) + min(_MOST_OFTEN * (1 << min(len(refused) - _AT_ONCE, 10)), _LEAST_OFTEN)


class OpenWork:
    """The open units of ``jobs``, in the order they should be done: as the jobs are, training before evaluation, oldest version first."""

    def __init__(self, tx: Tx, jobs: Sequence[Job]) -> None:
        self._jobs = {job.job_id: job for job in jobs}
        self._units = [unit for job in jobs for unit in _waiting(tx, job)]
        begun = [unit for unit in self._units if unit.leases]
        last = tuple(f"{unit.unit_id}.l{unit.leases}" for unit in begun)
        self._last = {lease.unit_id: lease for lease in tx.find(Lease, lease_id=last)} if last else {}
        self._tried: dict[tuple[str, str], list[Lease]] = {}
        ids = tuple(unit.unit_id for unit in begun)
        for lease in tx.find(Lease, unit_id=ids, reason=COULD_NOT) if ids else ():
            self._tried.setdefault((lease.unit_id, lease.node_id), []).append(lease)
        self._left: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self._units)

    def leave_to_others(self, now: datetime, seats: Sequence[Seat], *, target_w: float, patience: timedelta) -> None:
        """From now on no node is given what it could not do while another one that may work has tried it less often.

        That is one that is free and fits into what is left of ``target_w``; and, for ``patience``, one that is busy or for which others
        would have to stop. What it has refused several times it is not given before its time either, whoever is there.
        """
        willing = [seat for seat in seats if seat.reason is None and seat.power_w <= target_w]
        left_w = target_w - sum(seat.draws_w for seat in willing)
        units = {unit.unit_id: unit for unit in self._units}
        for (unit_id, node_id), tries in self._tried.items():
            others = [seat for seat in willing if self._times(unit_id, seat.node) < len(tries) and self._can(seat.node, units[unit_id])]
            free = any(seat.lease is None and seat.power_w <= left_w for seat in others)
            waits = others and now - max(lease.changed_at for lease in tries) < patience
            if free or waits or now < (asked_again(tries) or now):
                self._left.add((unit_id, node_id))

    def leave_all_tried(self) -> None:
        """From now on no node is given what it could not do."""
        self._left |= set(self._tried)

    def fit(self, seats: Iterable[Seat]) -> list[Seat]:
        """Seats that may work and can: a node that can do none of the open units must not take the room of one that can."""
        kinds = list({(unit.spec.job_id, unit.only_node): unit for unit in self._units}.values())
        leaving = {node_id for _, node_id in self._left}

        def can(node: Node) -> bool:
            if node.node_id in leaving:
                return any(self._may(node, unit) for unit in self._units)
            return any(self._can(node, unit) for unit in kinds)

        return [seat for seat in seats if seat.reason is None and (seat.lease is not None or can(seat.node))]

    def take(self, node: Node) -> WorkUnit | None:
        """The unit this node worked on before, if it is open again (its continuation is on its disk), else the first it can do.

        One that it could not do comes last, so that another node gets it. What is taken is no more there for others.
        """
        able = [unit for unit in self._units if self._may(node, unit)]
        untried = [unit for unit in able if not self._times(unit.unit_id, node)]
        found = next(iter([*(unit for unit in able if self._left_off(node, unit)), *untried, *able]), None)
        if found is not None:
            self._units.remove(found)
        return found

    def add(self, units: Sequence[WorkUnit]) -> None:
        """Further units, to be done last."""
        self._units += units

    def _times(self, unit_id: str, node: Node) -> int:
        return len(self._tried.get((unit_id, node.node_id), ()))

    def _left_off(self, node: Node, unit: WorkUnit) -> bool:
        last = self._last.get(unit.unit_id)
        return last is not None and last.node_id == node.node_id and last.reason not in COULD_NOT

    def _may(self, node: Node, unit: WorkUnit) -> bool:
        return (unit.unit_id, node.node_id) not in self._left and self._can(node, unit)

    def _can(self, node: Node, unit: WorkUnit) -> bool:
        return unit.only_node in ("", node.node_id) and timing.can_run(node, self._jobs[unit.spec.job_id])


def _waiting(tx: Tx, job: Job) -> list[WorkUnit]:
    waiting = tx.find(WorkUnit, job_id=job.job_id, state=UnitState.OPEN)
    return sorted(waiting, key=lambda unit: (unit.spec.kind is UnitKind.EVALUATE, unit.spec.version, not unit.audits, unit.index))
