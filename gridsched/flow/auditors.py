"""Who could do a unit again now, whoever did it before."""

from collections.abc import Collection
from datetime import datetime
from math import inf

from gridsched.core.consent import Consent
from gridsched.core.fleet import DeviceState, Node, Presence, held_out
from gridsched.core.job import Job
from gridsched.core.policy import Decision
from gridsched.core.zone import ZoneState
from gridsched.flow import timing
from gridsched.ports import Tx

__all__ = ["at_hand", "target_w"]


def at_hand(tx: Tx, now: datetime, job: Job, *, but: Collection[str], drew_w: float) -> dict[str, str]:
    """The hardware classes, by name, of the nodes that could do a unit of ``job`` now: there, willing, of good standing, not ``but`` these.

    One that is held out today is not asked, nor one that draws more than the zone may: a round would wait for it that nobody else can end.
    In the minutes in which surplus comes or goes it is enough for nobody, so that ``drew_w``, with which the unit was done, always counts.
    """
    zone = tx.get(ZoneState, job.spec.zone) or ZoneState(zone=job.spec.zone)
    most_w = max(target_w(tx, zone.zone), drew_w) if target_w(tx, zone.zone) > 0 else inf  # nobody works: that says nothing of later
    nodes = {node.node_id: node for node in tx.find(Node, zone=zone.zone, revoked_at=None, quarantined_at=None)}
    there = tuple(name for name, node in nodes.items() if name not in but and timing.can_run(node, job))
    free = tuple(p.node_id for p in tx.find(Presence, node_id=there) if p.present and p.cut_at is None and p.device is DeviceState.FREE)
    return {
        consent.node_id: nodes[consent.node_id].runtime
        for consent in tx.find(Consent, node_id=free)
        if not consent.refuses(reward_micro_per_kwh=zone.reward_micro_per_kwh, now=now)
        and 0 < consent.power_w(nodes[consent.node_id].power_w) <= most_w
        and not held_out(consent.node_id, share=zone.hold_out_share, day=f"{now:%Y-%m-%d}")
    }


def target_w(tx: Tx, zone: str) -> float:
    """The watts that the zone's newest decision allows; 0 before its first one."""
    state = tx.get(ZoneState, zone)
    decision = tx.get(Decision, state.decision_id) if state is not None and state.decision_id else None
    return 0.0 if decision is None else decision.target_w
