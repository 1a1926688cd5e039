"""Units under way twice: which ones an idle node may take up beside their holder, and what becomes of the one that comes second."""

from collections.abc import Sequence
from datetime import datetime

from gridsched.core.copies import Held, cause, doubt, left_s, most_copies, rank
from gridsched.core.facts import Fact, LeasePaused, NodeCut
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import timing
from gridsched.flow.open_work import COULD_NOT
from gridsched.flow.rules import Rules
from gridsched.flow.tell import lease_ended
from gridsched.ports import Tx

__all__ = ["Copies", "end_others", "has_another", "raises_doubt"]

_MOST_SLOW = 32
"""Of all that are at work, only those with the most left are compared with every idle node."""

_OWN_LIMITS = (LeaseReason.DEVICE_BUSY, LeaseReason.DEVICE_HOT, LeaseReason.ON_BATTERY, LeaseReason.DISK_FULL)


def raises_doubt(fact: Fact) -> bool:
    """Whether a node may leave a unit lying that an idle one could take up at once: its line was cut, or its own limits stop it."""
    return isinstance(fact, NodeCut) or (isinstance(fact, LeasePaused) and fact.reason in _OWN_LIMITS)


def has_another(tx: Tx, ended: Lease) -> bool:
    """Whether the unit of a lease that has just ended is still under way on another node."""
    return any(lease.lease_id != ended.lease_id for lease in tx.find(Lease, unit_id=ended.unit_id, state=LIVE))


def end_others(tx: Tx, now: datetime, winner: Lease) -> tuple[list[Lease], list[Fact]]:
    """The unit is accepted: whoever else is at it stops; the ended leases, and the facts."""
    others = [lease for lease in tx.find(Lease, unit_id=winner.unit_id, state=LIVE) if lease.lease_id != winner.lease_id]
    ended = [end(lease, LeaseState.REVOKED, LeaseReason.OUTRUN, now) for lease in others]
    tx.put(*ended)
    return ended, [lease_ended(lease, now) for lease in ended]


class Copies:
    """The units of ``jobs`` that may be copied at ``now``, for nodes that would otherwise be idle.

    Each job has at most a share of a round's units under way twice at a time. Units of a node's own data, and audits, are done by one
    node alone. ``most_units``: of a job with more than that under way nothing is copied; None for no limit.
    """

    def __init__(self, tx: Tx, now: datetime, jobs: Sequence[Job], rules: Rules, *, most_units: int | None = None) -> None:
        self._tx, self._now, self._pace = tx, now, rules.pace
        self._jobs = {job.job_id: job for job in jobs}
        self._left: dict[str, int] = {}
        self._doubted: list[Held] = []
        self._slow: list[Held] = []
        for job in jobs if rules.copies > 0 else ():
            if most_units is None or tx.count(WorkUnit, job_id=job.job_id, state=UnitState.LEASED) <= most_units:
                self._look(job, rules.copies)
        self._slow = sorted(self._slow, key=lambda held: -left_s(held, now, pace=self._pace))[:_MOST_SLOW]

    @property
    def left(self) -> int:
        """How many copies may still be made."""
        return sum(self._left.values())

    def suit(self, node: Node, presence: Presence) -> bool:
        """Whether there is one for this node, as far as can be seen without asking the store."""
        return bool(self._for(node, presence))

    def take(self, node: Node, presence: Presence) -> tuple[WorkUnit, LeaseReason] | None:
        """The one that this node should do, and why; it is no more there for others."""
        for held, why in self._for(node, presence):
            unit = held.unit
            if not self._tx.count(Lease, unit_id=unit.unit_id, node_id=node.node_id, reason=COULD_NOT):
                self._left[unit.spec.job_id] -= 1
                self._doubted = [other for other in self._doubted if other is not held]
                self._slow = [other for other in self._slow if other is not held]
                return unit, why
        return None

    def _look(self, job: Job, share: float) -> None:
        units = {unit.unit_id: unit for unit in self._tx.find(WorkUnit, job_id=job.job_id, state=UnitState.LEASED)}
        leases: dict[str, list[Lease]] = {}
        for lease in self._tx.find(Lease, job_id=job.job_id, state=LIVE):
            leases.setdefault(lease.unit_id, []).append(lease)
        doubled = sum(len(held) > 1 for held in leases.values())
        self._left[job.job_id] = max(most_copies(share, units=job.spec.units_at_once) - doubled, 0)
        alone = {name: found[0] for name, found in leases.items() if len(found) == 1 and name in units}
        if self._left[job.job_id]:
            self._sort([(units[name], lease) for name, lease in alone.items() if not (units[name].only_node or units[name].audits)])

    def _sort(self, alone: Sequence[tuple[WorkUnit, Lease]]) -> None:
        ids = tuple(sorted({lease.node_id for _, lease in alone}))
        seen = {presence.node_id: presence for presence in self._tx.find(Presence, node_id=ids)}
        runtimes = {node.node_id: node.runtime for node in self._tx.find(Node, node_id=ids)}
        for unit, lease in sorted(alone, key=lambda item: (item[0].spec.version, item[0].index)):
            holder = seen.get(lease.node_id) or Presence(node_id=lease.node_id)
            held = Held(unit=unit, lease=lease, holder=holder, runtime=runtimes.get(lease.node_id, ""))
            (self._slow if doubt(held, self._now, pace=self._pace) is None else self._doubted).append(held)

    def _for(self, node: Node, presence: Presence) -> list[tuple[Held, LeaseReason]]:
        found = []
        for held in (*self._doubted, *self._slow):
            job = self._jobs[held.unit.spec.job_id]
            if self._left[job.job_id] and held.lease.node_id != node.node_id and timing.can_run(node, job):
                why = cause(held, presence, self._now, pace=self._pace)
                found += [(held, why)] if why is not None else []
        return rank(found, node.runtime, self._now, pace=self._pace)
