"""Who could do a unit again now, whoever did it before; and who may work at all."""

from collections.abc import Collection, Sequence
from datetime import datetime
from math import inf

from gridsched.core.consent import Consent
from gridsched.core.fleet import DeviceState, Node, Presence, held_out
from gridsched.core.job import Job
from gridsched.core.policy import Decision
from gridsched.core.zone import ZoneState
from gridsched.flow import timing
from gridsched.ports import Tx

__all__ = ["at_hand", "target_w", "willing"]


def at_hand(tx: Tx, now: datetime, job: Job, *, but: Collection[str], drew_w: float) -> dict[str, str]:
    """The hardware classes, by name, of the nodes that could do a unit of ``job`` now: there, willing, of good standing, not ``but`` these.

    ``drew_w`` is what the unit was done with.
    """
    zone = job.spec.zone
    nodes = {node.node_id: node for node in tx.find(Node, zone=zone, revoked_at=None, quarantined_at=None)}
    there = tuple(name for name, node in nodes.items() if name not in but and timing.can_run(node, job))
    free = [p.node_id for p in tx.find(Presence, node_id=there) if p.present and p.cut_at is None and p.device is DeviceState.FREE]
    return {node.node_id: node.runtime for node in willing(tx, now, zone, [nodes[name] for name in free], drew_w=drew_w)}


def willing(tx: Tx, now: datetime, zone: str, nodes: Sequence[Node], *, drew_w: float) -> list[Node]:
    """Those of the zone's ``nodes`` that may work at its present reward, by their owners' choice and by the zone's.

    One that is held out today may not, nor one that draws more than the zone may: a round would wait for it that nobody else can end.
    In the minutes in which surplus comes or goes it is enough for nobody, so that ``drew_w``, with which such work was done, always counts.
    """
    state, target = tx.get(ZoneState, zone) or ZoneState(zone=zone), target_w(tx, zone)
    most_w = max(target, drew_w) if target > 0 else inf  # nobody works: that says nothing of later
    by_name = {node.node_id: node for node in nodes}
    return [
        by_name[consent.node_id]
        for consent in tx.find(Consent, node_id=tuple(by_name))
        if not consent.refuses(reward_micro_per_kwh=state.reward_micro_per_kwh, now=now)
        and 0 < consent.power_w(by_name[consent.node_id].power_w) <= most_w
        and not held_out(consent.node_id, share=state.hold_out_share, day=f"{now:%Y-%m-%d}")
    ]


def target_w(tx: Tx, zone: str) -> float:
    """The watts that the zone's newest decision allows; 0 before its first one."""
    state = tx.get(ZoneState, zone)
    decision = tx.get(Decision, state.decision_id) if state is not None and state.decision_id else None
    return 0.0 if decision is None else decision.target_w
