"""What is seen of a zone: each node's state in one word, and all of them in one fact."""

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime

from gridsched.core.consent import Consent
from gridsched.core.facts import ZoneObserved
from gridsched.core.fleet import DeviceState, Node, NodeReason, Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.policy import Decision, Policy
from gridsched.core.signal import SignalKind
from gridsched.ports import Tx

__all__ = ["misfit", "observe", "reason_of"]


def observe(tx: Tx, now: datetime, decision: Decision, policy: Policy, signals: Mapping[str, float]) -> ZoneObserved:
    """The zone at a control tick: what was allowed, leased and drawn, and why its nodes work or do not."""
    nodes = tx.find(Node, zone=decision.zone, revoked_at=None)
    ids = tuple(node.node_id for node in nodes)
    presences = {p.node_id: p for p in tx.find(Presence, node_id=ids)}
    consents = {c.node_id: c for c in tx.find(Consent, node_id=ids)}
    leases = {lease.node_id: lease for lease in tx.find(Lease, zone=decision.zone, state=LIVE)}
    jobs = [job for job in tx.find(Job, state=JobState.RUNNING) if job.spec.zone == decision.zone]
    reasons = Counter(
        reason_of(
            node,
            presences.get(node.node_id),
            consents.get(node.node_id),
            leases.get(node.node_id),
            target_w=decision.target_w,
            reward=decision.reward_micro_per_kwh,
            now=now,
            jobs=jobs,
        ).value
        for node in nodes
    )
    return ZoneObserved(
        at=now,
        zone=decision.zone,
        decision_id=decision.decision_id,
        target_w=decision.target_w,
        leased_w=sum(lease.draws_w() for lease in leases.values()),
        drawn_w=sum(p.drawn_w for p in presences.values() if p.present),
        reason=decision.reason.value,
        signals=dict(signals),
        nodes=dict(sorted(reasons.items())),
        needed=_needed(decision, policy),
    )


def _needed(decision: Decision, policy: Policy) -> tuple[str, ...]:
    """A limit binds only while there is one, and an alarm must be known where it is required or was heard before."""
    heard = {seen.signal for seen in decision.inputs}
    free = {SignalKind.LIMIT} if policy.alarm.required or SignalKind.ALARM in heard else {SignalKind.LIMIT, SignalKind.ALARM}
    return tuple(kind.value for kind in policy.signals if kind not in free)


def reason_of(
    node: Node,
    presence: Presence | None,
    consent: Consent | None,
    lease: Lease | None,
    *,
    target_w: float | None,
    reward: int,
    now: datetime,
    jobs: Sequence[Job] = (),
) -> NodeReason:
    """Why a node works or does not, in one word. ``target_w`` None: not known; ``jobs`` are its zone's running ones."""
    if node.quarantined_at is not None:
        return NodeReason.QUARANTINED
    if presence is None or not presence.present:
        return NodeReason.ABSENT
    if presence.cut_at is not None:
        return NodeReason.DOUBTFUL
    refused = consent.refuses(reward_micro_per_kwh=reward, now=now) if consent else None
    if consent is None or refused is not None:
        return NodeReason(refused.value) if refused else NodeReason.OPTED_OUT
    if presence.device is not DeviceState.FREE:
        return NodeReason.DEVICE
    if lease is None:
        return NodeReason.NO_SURPLUS if target_w is not None and target_w <= 0 else misfit(node, jobs) or NodeReason.AVAILABLE
    return {LeaseState.OFFERED: NodeReason.STARTING, LeaseState.ACTIVE: NodeReason.WORKING}.get(lease.state, NodeReason.PAUSED)


def misfit(node: Node, jobs: Sequence[Job]) -> NodeReason | None:
    """Why a node can do none of ``jobs``: no runtime of its class covers one, or it lacks memory. None where it can, or there is none."""
    covered = [job for job in jobs if job.runs_on(node.runtime)]
    if not jobs or any(job.spec.memory_bytes <= node.memory_bytes for job in covered):
        return None
    return NodeReason.MEMORY if covered else NodeReason.RUNTIME
