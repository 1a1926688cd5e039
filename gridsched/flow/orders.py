"""What a node is told: the state its lease should be in, why, and what it has earned."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from gridsched.core.consent import Consent, opted_out
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.ledger import Account, node_account
from gridsched.core.round import CHAIN, Version, way
from gridsched.core.work import UnitSpec, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.flow import quarantine
from gridsched.flow.observe import reason_of
from gridsched.flow.rules import Rules
from gridsched.ports import Tx
from gridsched.wire import ConsentView, Order, Orders

__all__ = ["Desk", "desired", "open_desk", "orders_for"]

_FEW_JOBS = 20
"""Among more running jobs than so many, some fits any node, or nobody looks: this is on the way of every call."""


@dataclass(slots=True, kw_only=True)
class Desk:
    """All rows that answering a group of nodes takes, read in a few statements however large the group."""

    nodes: dict[str, Node]
    presences: dict[str, Presence]
    consents: dict[str, Consent]
    leases: dict[str, Lease]
    units: dict[str, WorkUnit]
    zones: dict[str, ZoneState]
    accounts: dict[str, Account]
    ways: dict[str, list[tuple[str, str]]]
    jobs: list[Job]

    def orders(self, node_id: str, now: datetime, rules: Rules, *, notice: str = "") -> Orders:
        """The node's orders as the rows on the desk stand now."""
        node = self.nodes[node_id]
        zone = self.zones.get(node.zone) or ZoneState(zone=node.zone)
        consent = self.consents.get(node_id) or opted_out(node_id, now)
        lease = self.leases.get(node_id)
        account = self.accounts.get(node_account(node_id))
        jobs = [job for job in self.jobs if job.spec.zone == node.zone]
        seen, reward = self.presences.get(node_id), zone.reward_micro_per_kwh
        reason = reason_of(node, seen, consent, lease, target_w=None, reward=reward, now=now, jobs=jobs)
        left = consent.left(now)
        return Orders(
            node_id=node_id,
            clock_speed=rules.clock_speed,
            sync_every_s=rules.sync_every.total_seconds(),
            node_reason=reason.value,
            consent=ConsentView(
                opted_in=consent.opted_in,
                left_s=None if left is None else left.total_seconds(),
                max_w=consent.max_w,
                min_reward_micro_per_kwh=consent.min_reward_micro_per_kwh,
            ),
            reward_micro_per_kwh=reward,
            reward_micro_per_unit=zone.reward_micro_per_unit,
            earned_micro=account.balance_micro if account else 0,
            order=self._order(lease, now) if lease is not None and lease.live else None,
            notice=notice or quarantine.notice(node),
        )

    def _order(self, lease: Lease, now: datetime) -> Order:
        unit = self.units[lease.unit_id]
        return Order(
            lease_id=lease.lease_id,
            generation=lease.generation,
            desired=desired(lease),
            reason=lease.reason.value,
            power_w=lease.power_w,
            ttl_s=max((lease.expires_at - now).total_seconds(), 0.0),
            wait_s=max((lease.not_before - now).total_seconds(), 0.0),
            unit=unit.spec,
            continuation=unit.continuation,
            continuation_step=unit.continuation_step,
            steps=self.ways.get(unit.spec.base, []),
        )


def open_desk(tx: Tx, node_ids: Sequence[str]) -> Desk:
    """Read what concerns ``node_ids``."""
    ids = tuple(dict.fromkeys(node_ids))
    nodes = {node.node_id: node for node in tx.find(Node, node_id=ids)}
    leases = {lease.node_id: lease for lease in tx.find(Lease, node_id=ids, state=LIVE)}
    leased = tuple(lease.unit_id for lease in leases.values())
    units = {unit.unit_id: unit for unit in tx.find(WorkUnit, unit_id=leased)} if leased else {}
    jobs = tx.find(Job, state=JobState.RUNNING, limit=_FEW_JOBS + 1) if len(leases) < len(nodes) else []
    return Desk(
        nodes=nodes,
        presences={p.node_id: p for p in tx.find(Presence, node_id=ids)},
        consents={c.node_id: c for c in tx.find(Consent, node_id=ids)},
        leases=leases,
        units=units,
        zones={zone.zone: zone for zone in tx.find(ZoneState, zone=tuple({node.zone for node in nodes.values()}))},
        accounts={a.account_id: a for a in tx.find(Account, account_id=tuple(node_account(n) for n in ids))},
        jobs=jobs if len(jobs) <= _FEW_JOBS else [],
        ways=_ways(tx, [units[lease.unit_id].spec for lease in leases.values() if lease.state is LeaseState.OFFERED]),
    )


def _ways(tx: Tx, specs: Sequence[UnitSpec]) -> dict[str, list[tuple[str, str]]]:
    """How the versions that these units begin with are reached from older ones, by digest; told with the offer, when they are fetched."""
    if not specs:
        return {}
    jobs, ends = {spec.job_id for spec in specs}, {spec.version for spec in specs}
    numbers = {number for end in ends for number in range(max(end - CHAIN, 0) + 1, end + 1)}
    rows = {(row.job_id, row.number): row for row in tx.find(Version, job_id=jobs, number=numbers)}
    found: dict[str, list[tuple[str, str]]] = {}
    for spec in specs:
        chain = [rows.get((spec.job_id, number)) for number in range(max(spec.version - CHAIN, 0) + 1, spec.version + 1)]
        found[spec.base] = way([row for row in chain if row is not None])
    return found


def orders_for(tx: Tx, now: datetime, node_id: str, *, rules: Rules) -> Orders:
    """The present orders of one node, for a push; raises `NotFound` for one that never joined."""
    tx.must(Node, node_id)
    return open_desk(tx, [node_id]).orders(node_id, now, rules)


def desired(lease: Lease) -> str:
    """``run``, ``pause`` or ``hand_over``: what should be true of a live lease."""
    if lease.state is LeaseState.PAUSED:
        return "hand_over" if lease.wants_hand_over else "pause"
    return "run"
