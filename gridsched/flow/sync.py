"""The call that every node repeats: presence, the meter, and how its lease is going; answered with its orders. And what a line tells.

A group of reports is worked on as one: the rows it needs are read together, changed in memory, and written together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from gridsched.core.errors import DuplicateIdentity, GridschedError, InvalidInput, NotFound
from gridsched.core.facts import Fact, LeaseActive, LeasePaused, MeterRefused, NodeCut, NodePresent
from gridsched.core.fleet import DeviceState, Node, Presence
from gridsched.core.lease import Lease, LeaseReason, LeaseState, grant, pause, renewed_until
from gridsched.core.meter import MeterMethod, MeterReading, believed_j, refusal
from gridsched.core.units import J_PER_KWH, J_PER_MWH, MICRO
from gridsched.flow import settle
from gridsched.flow.assign import close_lease
from gridsched.flow.orders import Desk, open_desk
from gridsched.flow.rules import Rules
from gridsched.flow.tell import lease_fact
from gridsched.ports import Reply, Tx
from gridsched.wire import LeaseReport, MeterReport, Orders, Sync

__all__ = ["LONGEST_S", "MOST_STEPS", "Group", "back", "began", "cut", "sync_many"]

LONGEST_S = timedelta(days=36_500).total_seconds()
MOST_STEPS = 2**53
_Changes = dict[str, Any]
_MOST_WORDS = 500
_SPEED_MEMORY = 0.7
_INSTANT = timedelta(microseconds=1)
_DEVICE_PAUSE = {
    DeviceState.USER_ACTIVE: LeaseReason.DEVICE_BUSY,
    DeviceState.HOT: LeaseReason.DEVICE_HOT,
    DeviceState.ON_BATTERY: LeaseReason.ON_BATTERY,
    DeviceState.DISK_FULL: LeaseReason.DISK_FULL,
}


def sync_many(tx: Tx, now: datetime, items: Sequence[tuple[str, Sync]], *, rules: Rules) -> Reply[list[Orders | Exception]]:
    """Answer a whole group of syncs with a few statements. One node's error is its own answer and touches no other."""
    desk = open_desk(tx, [node_id for node_id, _ in items])
    group = Group(desk, now, rules)
    answers: list[Orders | Exception] = []
    for node_id, message in items:
        try:
            answers.append(group.sync(tx, node_id, message))
        except GridschedError as error:
            answers.append(error)
    group.keep(tx)
    return Reply(answers, group.facts)


def cut(tx: Tx, now: datetime, lines: Mapping[str, datetime]) -> list[Fact]:
    """The lines of these nodes were cut at the times given, and have not come back. Whoever was heard of since is in no doubt."""
    facts: list[Fact] = []
    nodes = {node.node_id: node for node in tx.find(Node, node_id=tuple(sorted(lines)))}
    for presence in tx.find(Presence, node_id=tuple(sorted(nodes))):
        at = lines[presence.node_id]
        if presence.present and presence.cut_at is None and (presence.seen_at is None or presence.seen_at <= at):
            tx.put(replace(presence, cut_at=at))
            facts.append(NodeCut(at=now, node_id=presence.node_id, zone=nodes[presence.node_id].zone))
    return facts


def back(tx: Tx, now: datetime, node_id: str) -> list[Fact]:
    """The line of a doubtful node is up again."""
    presence = tx.get(Presence, node_id)
    if presence is None or presence.cut_at is None:
        return []
    tx.put(replace(presence, present=True, seen_at=now, cut_at=None))
    return [NodePresent(at=now, node_id=node_id, zone=tx.must(Node, node_id).zone)]


class Group:
    """The rows that a group of reports changes, written together at the end.

    Every node sends this call for as long as it lives, so what a report changes in a row is gathered first and the row is
    copied once.
    """

    def __init__(self, desk: Desk, now: datetime, rules: Rules) -> None:
        self.desk, self.now, self.rules = desk, now, rules
        self.facts: list[Fact] = []
        self._readings: dict[tuple[str, datetime], MeterReading] = {}
        self._touched: set[str] = set()
        self._lost: dict[str, Lease] = {}
        self._spent: dict[str, tuple[float, float]] = {}

    def sync(self, tx: Tx, node_id: str, message: Sync) -> Orders:
        """Take one report in; the node's orders after it."""
        seen = self._arrive(node_id, message.instance, message.device)
        told: _Changes = {}
        worked = message.lease is not None and self._report(tx, node_id, message.lease, told)
        if worked or told:
            assert message.lease is not None
            seen |= _learnt_speed(self.desk.presences[node_id], message.lease)
        if message.meter is not None:
            lost = self._lost_lease(tx, node_id, message.lease)
            seen |= self._meter(node_id, message.meter, told, worked=worked, lost=lost)
        self._enter(node_id, seen, told)
        self._obey_device(node_id)
        return self.desk.orders(node_id, self.now, self.rules)

    def last_words(self, node_id: str, instance: str, meter: MeterReport | None, *, worked: bool) -> None:
        """Presence and meter that come with the end of the node's lease."""
        seen = self._arrive(node_id, instance, None)
        told: _Changes = {}
        if meter is not None:
            seen |= self._meter(node_id, meter, told, worked=worked, lost=None)
        self._enter(node_id, seen, told)

    def _enter(self, node_id: str, seen: _Changes, told: _Changes) -> None:
        self.desk.presences[node_id] = replace(self.desk.presences[node_id], **seen)
        if told:
            self.desk.leases[node_id] = replace(self.desk.leases[node_id], **told)

    def _arrive(self, node_id: str, instance: str, device: str | None) -> _Changes:
        """The node was heard of; raises for a stranger and for an agent that another one has replaced."""
        node, presence = self.desk.nodes.get(node_id), self.desk.presences.get(node_id)
        if node is None or presence is None:
            raise NotFound(f"node {node_id} has not joined; run gridsched node join")
        if presence.instance != instance:
            raise DuplicateIdentity(f"another agent runs as node {node_id}; stop one of the two, or let this one join under another name")
        state = presence.device if device is None else _device(device)
        if not presence.present or presence.cut_at is not None:
            self.facts.append(NodePresent(at=self.now, node_id=node_id, zone=node.zone))
        self._touched.add(node_id)
        return {"present": True, "seen_at": self.now, "device": state, "cut_at": None}

    def _meter(self, node_id: str, report: MeterReport, told: _Changes, *, worked: bool, lost: Lease | None) -> _Changes:
        """Believe the register or say why not; what is believed is booked on the node's lease: as work done, or as idle.

        ``lost`` is a lease that ended while the node was away: what was drawn under it is still its own.
        """
        node, presence = self.desk.nodes[node_id], self.desk.presences[node_id]
        if not abs(report.age_s) <= LONGEST_S:
            raise InvalidInput(f"node {node_id}: a meter reading {report.age_s} s old is outside any calendar; send its age in seconds")
        at = self.now - timedelta(seconds=report.age_s)
        if presence.register_at is not None and at < presence.register_at:
            return {}  # overtaken on its way by a later reading, which holds all of this one
        before_j, before_at, slack = presence.register_j, presence.register_at, timedelta(seconds=2 * self.rules.clock_speed)
        told_j, most_w = report.register_j, node.power_w
        why = refusal(before_j=before_j, before_at=before_at, register_j=told_j, at=at, now=self.now, registered_w=most_w, slack=slack)
        if why is not None:
            self.facts.append(MeterRefused(at=self.now, node_id=node_id, reason=why.value, register_j=report.register_j))
            return {}
        delta_j = 0.0
        if before_j is not None and before_at is not None:
            told_j = believed_j(before_j=before_j, before_at=before_at, register_j=told_j, at=at, registered_w=most_w, slack=slack)
            delta_j = told_j - before_j
            at = max(at, before_at + _INSTANT)  # two messages in one instant are two readings
        if lost is not None and before_at is not None:
            lease = self._book_lost(lost, delta_j, before_at, at)
        else:
            lease = self._book(node_id, delta_j, told, worked=worked)
        method = MeterMethod.MEASURED if report.method == MeterMethod.MEASURED else MeterMethod.ESTIMATED
        reading = MeterReading(node_id=node_id, at=at, register_j=told_j, delta_j=delta_j, method=method, lease_id=lease)
        self._readings[(node_id, at)] = reading
        return {"register_j": told_j, "register_at": at, "drawn_w": min(max(report.power_w, 0.0), node.power_w)}

    def _book(self, node_id: str, delta_j: float, told: _Changes, *, worked: bool) -> str | None:
        lease = self.desk.leases.get(node_id)
        if lease is None:
            return None
        if delta_j > 0:
            told |= self._charge(lease, delta_j, worked=worked)
        return lease.lease_id

    def _book_lost(self, lease: Lease, delta_j: float, since: datetime, at: datetime) -> str | None:
        """Of what the register says for ``since`` to ``at``, the part before the lease's end is the lease's; the rest is nobody's."""
        share = (min(lease.changed_at, lease.expires_at) - since) / (at - since)
        owned_j = delta_j * min(max(share, 0.0), 1.0)
        if owned_j > 0:
            lease = replace(lease, **self._charge(lease, owned_j, worked=True))
        if owned_j > 0 or lease.awaits_last_words:
            self._lost[lease.lease_id] = lease
        return lease.lease_id if owned_j > 0 else None

    def _charge(self, lease: Lease, delta_j: float, *, worked: bool) -> _Changes:
        """What further energy changes in ``lease``; the zone's day is charged too."""
        state = self.desk.zones.get(lease.zone)
        price = state.price_eur_mwh if state is not None and state.price_eur_mwh is not None else 0.0
        energy_j, money_micro = self._spent.get(lease.zone, (0.0, 0.0))
        promised = delta_j * lease.reward_micro_per_kwh / J_PER_KWH if worked else 0.0
        self._spent[lease.zone] = (energy_j + delta_j, money_micro + promised)
        cost_micro = lease.cost_micro + price * MICRO * delta_j / J_PER_MWH
        if worked:
            return {"energy_j": lease.energy_j + delta_j, "cost_micro": cost_micro}
        return {"idle_j": lease.idle_j + delta_j, "cost_micro": cost_micro}

    def _lost_lease(self, tx: Tx, node_id: str, report: LeaseReport | None) -> Lease | None:
        """The ended and unsettled lease that the node still reports work on; None for any other report."""
        held = self.desk.leases.get(node_id)
        if report is None or (held is not None and held.lease_id == report.lease_id):
            return None
        lease = self._lost.get(report.lease_id) or tx.get(Lease, report.lease_id)
        if lease is None or lease.node_id != node_id or lease.live or lease.settled:
            return None
        if report.steps_executed <= lease.steps_executed and not lease.awaits_last_words:
            return None
        return replace(lease, steps_executed=max(report.steps_executed, lease.steps_executed))

    def _report(self, tx: Tx, node_id: str, report: LeaseReport, told: _Changes) -> bool:
        """Take note of what the node says of its lease; whether it has worked since it last did.

        A report on any other lease is answered by the orders. A slow node may run for a while between two steps.
        """
        if not 0 <= report.steps_executed < MOST_STEPS:
            raise InvalidInput(f"lease {report.lease_id}: {report.steps_executed} executed steps are not a count; send 0 or more")
        lease = self.desk.leases.get(node_id)
        if lease is None or (lease.lease_id, lease.generation) != (report.lease_id, report.generation):
            return False
        if report.state == "refused":
            self.facts += close_lease(tx, self.now, lease, LeaseState.REVOKED, LeaseReason.NODE_REFUSED, report.reason[:_MOST_WORDS])
            del self.desk.leases[node_id]
            return False
        worked = report.state == "running" or report.steps_executed > lease.steps_executed
        if lease.state is LeaseState.OFFERED:
            lease = self.desk.leases[node_id] = grant(lease, began(lease, self.now) if worked else self.now)
            self.facts.append(lease_fact(LeaseActive, lease, self.now))
            self.facts += settle.reserve(tx, self.now, lease)
        told["expires_at"] = renewed_until(lease, now=self.now, ttl=self.rules.lease_ttl)
        told["step"] = min(max(lease.step, report.step), self.desk.units[lease.unit_id].spec.steps)
        told["steps_executed"] = max(lease.steps_executed, report.steps_executed)
        return worked

    def _obey_device(self, node_id: str) -> None:
        why = _DEVICE_PAUSE.get(self.desk.presences[node_id].device)
        lease = self.desk.leases.get(node_id)
        if why is not None and lease is not None and lease.draws_w() > 0:
            paused = pause(lease, why, self.now)
            self.desk.leases[node_id] = paused
            self.facts.append(lease_fact(LeasePaused, paused, self.now))

    def keep(self, tx: Tx) -> None:
        """Write every row that changed, one statement a kind."""
        tx.put(*(self.desk.presences[node_id] for node_id in sorted(self._touched)))
        tx.put(*(lease for node_id, lease in self.desk.leases.items() if node_id in self._touched))
        tx.put(*self._lost.values())
        tx.put(*self._readings.values())
        for lease in self._lost.values():
            if lease.awaits_last_words:
                self.facts += settle.settle_alone(tx, self.now, lease)
        for zone, (energy_j, money_micro) in sorted(self._spent.items()):
            state = self.desk.zones.get(zone)
            if state is not None:
                tx.put(state.spend(energy_j=energy_j, money_micro=money_micro))


def _learnt_speed(presence: Presence, report: LeaseReport) -> _Changes:
    if not (report.speed > 0 and math.isfinite(report.speed)):
        return {}
    if presence.speed <= 0:
        return {"speed": report.speed}
    return {"speed": _SPEED_MEMORY * presence.speed + (1 - _SPEED_MEMORY) * report.speed}


def began(lease: Lease, now: datetime) -> datetime:
    """Since when a node that has worked before its first report may have done so."""
    return min(lease.not_before, now)


def _device(state: str) -> DeviceState:
    try:
        return DeviceState(state)
    except ValueError as error:
        raise InvalidInput(f"device state {state!r} is not known; use one of {', '.join(DeviceState)}") from error
