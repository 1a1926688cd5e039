"""The nodes of a zone as a control tick sees them: which of them may work, why the others may not, and their order of merit."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from statistics import median

import numpy as np

from gridsched.core.consent import Consent, opted_out
from gridsched.core.fleet import DeviceState, Fleet, Node, NodeReason, Presence, held_out
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease
from gridsched.core.policy import Decision, Policy
from gridsched.ports import Tx

__all__ = ["Seat", "fleet", "seats_of", "unavailable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """One node of the zone as the tick sees it; ``reason`` is why it may not work, or None."""

    node: Node
    presence: Presence
    consent: Consent
    lease: Lease | None
    reason: NodeReason | None

    @property
    def power_w(self) -> float:
        """What it draws under its lease, or would under a new one."""
        return self.lease.power_w if self.lease else self.consent.power_w(self.node.power_w)

    @property
    def draws_w(self) -> float:
        """What its lease counts against the target now."""
        return self.lease.draws_w() if self.lease else 0.0


def seats_of(tx: Tx, now: datetime, decision: Decision, policy: Policy, jobs: Sequence[Job]) -> list[Seat]:
    """All nodes of the decision's zone; who holds a lease of a job that is not among ``jobs`` waits for that job's hours."""
    scheduled = {job.job_id for job in jobs}
    nodes = tx.find(Node, zone=decision.zone, revoked_at=None)
    ids = tuple(node.node_id for node in nodes)
    presences = {p.node_id: p for p in tx.find(Presence, node_id=ids)}
    consents = {c.node_id: c for c in tx.find(Consent, node_id=ids)}
    leases = {lease.node_id: lease for lease in tx.find(Lease, zone=decision.zone, state=LIVE)}
    seats = []
    for node in nodes:
        presence = presences.get(node.node_id) or Presence(node_id=node.node_id)
        consent = consents.get(node.node_id) or opted_out(node.node_id, now)
        reason = unavailable(node, presence, consent, decision, policy.hold_out_share, now)
        lease = leases.get(node.node_id)
        if reason is None and lease is not None and lease.power_w > consent.power_w(node.power_w):
            reason = NodeReason.PAUSED  # the consumer allows fewer watts than when it was offered: it is being handed over
        if reason is None and lease is not None and lease.job_id not in scheduled:
            reason = NodeReason.NO_WORK  # its job waits for its own hours
        seats.append(Seat(node=node, presence=presence, consent=consent, lease=lease, reason=reason))
    return seats


def unavailable(
    node: Node, presence: Presence, consent: Consent, decision: Decision, hold_out_share: float, now: datetime
) -> NodeReason | None:
    """Why a node may not work now, whatever there is to do; None where it may."""
    if node.quarantined_at is not None:
        return NodeReason.QUARANTINED
    if not presence.present:
        return NodeReason.ABSENT
    if presence.cut_at is not None:
        return NodeReason.DOUBTFUL
    refused = consent.refuses(reward_micro_per_kwh=decision.reward_micro_per_kwh, now=now)
    if refused is not None:
        return NodeReason(refused.value)
    if presence.device is not DeviceState.FREE:
        return NodeReason.DEVICE
    if consent.power_w(node.power_w) <= 0:
        return NodeReason.OPTED_OUT
    if held_out(node.node_id, share=hold_out_share, day=f"{now:%Y-%m-%d}"):
        return NodeReason.HELD_OUT
    return None


def fleet(seats: Sequence[Seat]) -> Fleet:
    """``seats`` as the columns that `core.fleet.plan` wants."""
    known = [s.presence.speed / s.node.power_w for s in seats if s.presence.speed > 0]
    usual = median(known) if known else 1.0  # a node never measured counts as a usual one, so that it gets measured
    merit = [(s.presence.speed / s.node.power_w if s.presence.speed > 0 else usual) * s.presence.reliability for s in seats]
    return Fleet(
        node_ids=[s.node.node_id for s in seats],
        power_w=np.array([s.power_w for s in seats], dtype=np.float64),
        merit=np.array(merit, dtype=np.float64),
        served_j=np.array([s.presence.served_j for s in seats], dtype=np.float64),
        running=np.array([s.draws_w > 0 for s in seats], dtype=np.bool_),
        holding=np.array([s.lease is not None for s in seats], dtype=np.bool_),
    )
