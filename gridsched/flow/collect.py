"""What nodes send: presence, meter readings, continuations and updates. Each is accepted or refused with a reason."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gridsched.core.consent import Consent
from gridsched.core.errors import DuplicateIdentity, GridschedError, InvalidInput, LeaseLost, NotFound
from gridsched.core.facts import (
    AgentReplaced,
    Fact,
    LeaseActive,
    LeasePaused,
    MeterRefused,
    NodeOptedIn,
    NodeOptedOut,
    NodePresent,
    UnitAccepted,
    UpdateRejected,
)
from gridsched.core.fleet import DeviceState, Node, Presence
from gridsched.core.job import is_digest
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end, grant, hold, pause, renew
from gridsched.core.meter import MeterMethod, MeterReading, refusal
from gridsched.core.units import J_PER_KWH, J_PER_MWH, MICRO
from gridsched.core.work import Refusal, UnitKind, UnitState, WorkUnit
from gridsched.flow import advance, assign, settle
from gridsched.flow.assign import close_lease
from gridsched.flow.orders import Desk, open_desk, orders_for
from gridsched.flow.rules import Rules
from gridsched.flow.statement import statement
from gridsched.flow.tell import lease_ended, lease_fact
from gridsched.ports import Reply, Tx
from gridsched.wire import ConsentChoice, HandOver, Hello, LeaseReport, MeterReport, Orders, Sync, UpdateNotice

__all__ = ["Checked", "choose", "hand_over", "hello", "orders_for", "statement", "sync_many", "update"]

_SPEED_MEMORY = 0.7
_INSTANT = timedelta(microseconds=1)
_LONGEST_S = timedelta(days=36_500).total_seconds()
_MOST_STEPS = 2**53
_MOST_REFUSALS = 5
_DEVICE_PAUSE = {
    DeviceState.USER_ACTIVE: LeaseReason.DEVICE_BUSY,
    DeviceState.HOT: LeaseReason.DEVICE_HOT,
    DeviceState.ON_BATTERY: LeaseReason.ON_BATTERY,
    DeviceState.DISK_FULL: LeaseReason.DISK_FULL,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What reading the stored update found, outside any transaction: its L2 ``norm``, or why it must not be merged."""

    norm: float | None = None
    refusal: Refusal | None = None
    detail: str = ""


def hello(tx: Tx, now: datetime, node_id: str, message: Hello, *, rules: Rules) -> Reply[Orders]:
    """An agent process begins. It takes the node over; calls of an earlier process are refused from now on."""
    node = tx.must(Node, node_id)
    presence = tx.get(Presence, node_id) or Presence(node_id=node_id)
    facts: list[Fact] = []
    if presence.instance not in ("", message.instance):
        facts.append(AgentReplaced(at=now, node_id=node_id, instance=message.instance))
    if not presence.present:
        facts.append(NodePresent(at=now, node_id=node_id, zone=node.zone))
    tx.put(replace(node, runtime=message.runtime), replace(presence, instance=message.instance, present=True, seen_at=now))
    tx.put(*(renew(lease, now=now, ttl=rules.lease_ttl) for lease in tx.find(Lease, node_id=node_id, state=LIVE)))
    return Reply(orders_for(tx, now, node_id, rules=rules), facts)


def sync_many(tx: Tx, now: datetime, items: Sequence[tuple[str, Sync]], *, rules: Rules) -> Reply[list[Orders | Exception]]:
    """Answer a whole group of syncs with a few statements. One node's error is its own answer and touches no other."""
    desk = open_desk(tx, [node_id for node_id, _ in items])
    group = _Group(desk, now, rules)
    answers: list[Orders | Exception] = []
    for node_id, message in items:
        try:
            answers.append(group.sync(tx, node_id, message))
        except GridschedError as error:
            answers.append(error)
    group.keep(tx)
    return Reply(answers, group.facts)


class _Group:
    """The rows that a group of reports changes, written together at the end."""

    def __init__(self, desk: Desk, now: datetime, rules: Rules) -> None:
        self.desk, self.now, self.rules = desk, now, rules
        self.facts: list[Fact] = []
        self._readings: dict[tuple[str, datetime], MeterReading] = {}
        self._touched: set[str] = set()
        self._zones: set[str] = set()
        self._lost: dict[str, Lease] = {}

    def sync(self, tx: Tx, node_id: str, message: Sync) -> Orders:
        self.arrive(node_id, message.instance, message.device)
        worked = message.lease is not None and self._report(tx, node_id, message.lease)
        if message.meter is not None:
            self.meter(node_id, message.meter, worked=worked, lost=self._lost_lease(tx, node_id, message.lease))
        self._obey_device(node_id)
        return self.desk.orders(node_id, self.now, self.rules)

    def arrive(self, node_id: str, instance: str, device: str | None = None) -> None:
        """The node was heard of; raises for a stranger and for an agent that another one has replaced."""
        node, presence = self.desk.nodes.get(node_id), self.desk.presences.get(node_id)
        if node is None or presence is None:
            raise NotFound(f"node {node_id} has not joined; run gridsched node join")
        if presence.instance != instance:
            raise DuplicateIdentity(f"another agent runs as node {node_id}; stop one of the two, or let this one join under another name")
        state = presence.device if device is None else _device(device)
        if not presence.present:
            self.facts.append(NodePresent(at=self.now, node_id=node_id, zone=node.zone))
        self.desk.presences[node_id] = replace(presence, present=True, seen_at=self.now, device=state)
        self._touched.add(node_id)

    def meter(self, node_id: str, report: MeterReport, *, worked: bool, lost: Lease | None = None) -> None:
        """Believe the register or say why not; what is believed is booked on the node's lease: as work done, or as idle.

        ``lost`` is a lease that ended while the node was away: what was drawn under it is still its own.
        """
        node, presence = self.desk.nodes[node_id], self.desk.presences[node_id]
        if not abs(report.age_s) <= _LONGEST_S:
            raise InvalidInput(f"node {node_id}: a meter reading {report.age_s} s old is outside any calendar; send its age in seconds")
        at = self.now - timedelta(seconds=report.age_s)
        if presence.register_at is not None and at < presence.register_at:
            return  # overtaken on its way by a later reading, which holds all of this one
        slack = timedelta(seconds=2 * self.rules.clock_speed)
        why = refusal(
            before_j=presence.register_j,
            before_at=presence.register_at,
            register_j=report.register_j,
            at=at,
            now=self.now,
            registered_w=node.power_w,
            slack=slack,
        )
        if why is not None:
            self.facts.append(MeterRefused(at=self.now, node_id=node_id, reason=why.value, register_j=report.register_j))
            return
        if presence.register_at is not None:
            at = max(at, presence.register_at + _INSTANT)  # two messages in one instant are two readings
        delta_j = 0.0 if presence.register_j is None else report.register_j - presence.register_j
        power_w = min(max(report.power_w, 0.0), node.power_w)
        self.desk.presences[node_id] = replace(presence, register_j=report.register_j, register_at=at, drawn_w=power_w)
        lease = self._book(node_id, delta_j, worked)
        if lease is None and lost is not None and presence.register_at is not None:
            lease = self._book_lost(lost, delta_j, presence.register_at, at)
        method = MeterMethod.MEASURED if report.method == MeterMethod.MEASURED else MeterMethod.ESTIMATED
        reading = MeterReading(node_id=node_id, at=at, register_j=report.register_j, delta_j=delta_j, method=method, lease_id=lease)
        self._readings[(node_id, at)] = reading

    def _book(self, node_id: str, delta_j: float, worked: bool) -> str | None:
        lease = self.desk.leases.get(node_id)
        if lease is None:
            return None
        if delta_j > 0:
            self.desk.leases[node_id] = self._charge(lease, delta_j, worked=worked)
        return lease.lease_id

    def _book_lost(self, lease: Lease, delta_j: float, since: datetime, at: datetime) -> str | None:
        """Of what the register says for ``since`` to ``at``, the part before the lease's end is the lease's; the rest is nobody's."""
        share = (min(lease.changed_at, lease.expires_at) - since) / (at - since)
        if delta_j <= 0 or share <= 0:
            return None
        self._lost[lease.lease_id] = self._charge(lease, delta_j * min(share, 1.0), worked=True)
        return lease.lease_id

    def _charge(self, lease: Lease, delta_j: float, *, worked: bool) -> Lease:
        """``lease`` with further energy on it; the zone's day is charged too."""
        state = self.desk.zones.get(lease.zone)
        price = state.price_eur_mwh if state is not None and state.price_eur_mwh is not None else 0.0
        if state is not None:
            promised = delta_j * lease.reward_micro_per_kwh / J_PER_KWH if worked else 0.0
            self.desk.zones[lease.zone] = state.spend(energy_j=delta_j, money_micro=promised)
            self._zones.add(lease.zone)
        return replace(
            lease,
            energy_j=lease.energy_j + (delta_j if worked else 0.0),
            idle_j=lease.idle_j + (0.0 if worked else delta_j),
            cost_micro=lease.cost_micro + price * MICRO * delta_j / J_PER_MWH,
        )

    def _lost_lease(self, tx: Tx, node_id: str, report: LeaseReport | None) -> Lease | None:
        """The ended and unsettled lease that the node still reports work on; None for any other report."""
        if report is None or node_id in self.desk.leases:
            return None
        lease = self._lost.get(report.lease_id) or tx.get(Lease, report.lease_id)
        if lease is None or lease.node_id != node_id or lease.live or lease.settled or report.steps_executed <= lease.steps_executed:
            return None
        return replace(lease, steps_executed=report.steps_executed)

    def _report(self, tx: Tx, node_id: str, report: LeaseReport) -> bool:
        """Take note of what the node says of its lease; whether it has worked since it last did.

        A report on any other lease is answered by the orders. A slow node may run for a while between two steps.
        """
        if not 0 <= report.steps_executed < _MOST_STEPS:
            raise InvalidInput(f"lease {report.lease_id}: {report.steps_executed} executed steps are not a count; send 0 or more")
        lease = self.desk.leases.get(node_id)
        if lease is None or (lease.lease_id, lease.generation) != (report.lease_id, report.generation):
            return False
        if report.state == "refused":
            self.facts += close_lease(tx, self.now, lease, LeaseState.REVOKED, LeaseReason.NODE_REFUSED)
            del self.desk.leases[node_id]
            return False
        worked = report.state == "running" or report.steps_executed > lease.steps_executed
        if lease.state is LeaseState.OFFERED:
            lease = grant(lease, _began(lease, self.now) if worked else self.now)
            self.facts.append(lease_fact(LeaseActive, lease, self.now))
            self.facts += settle.reserve(tx, self.now, lease)
        self.desk.leases[node_id] = self._progress(lease, report)
        self._learn_speed(node_id, report)
        return worked

    def _learn_speed(self, node_id: str, report: LeaseReport) -> None:
        if report.speed > 0 and math.isfinite(report.speed):
            presence = self.desk.presences[node_id]
            smoothed = report.speed if presence.speed <= 0 else _SPEED_MEMORY * presence.speed + (1 - _SPEED_MEMORY) * report.speed
            self.desk.presences[node_id] = replace(presence, speed=smoothed)

    def _progress(self, lease: Lease, report: LeaseReport) -> Lease:
        renewed = renew(lease, now=self.now, ttl=self.rules.lease_ttl)
        steps = self.desk.units[lease.unit_id].spec.steps
        return replace(
            renewed, step=min(max(renewed.step, report.step), steps), steps_executed=max(renewed.steps_executed, report.steps_executed)
        )

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
        tx.put(*(self.desk.zones[zone] for zone in sorted(self._zones)))


def choose(tx: Tx, now: datetime, node_id: str, message: ConsentChoice, *, rules: Rules) -> Reply[Orders]:
    """The consumer opts in or out. Opting out stops the work at once and asks for the unit's middle; nothing is lost.

    So does allowing fewer watts than the lease has: the next lease keeps to them.
    """
    node = tx.must(Node, node_id)
    if message.for_s is not None and not 0 < message.for_s <= _LONGEST_S:
        raise InvalidInput(f"opting in for {message.for_s} s is not a time; give one above 0, or none for an open end")
    until = None if message.for_s is None else now + timedelta(seconds=message.for_s)
    consent = Consent(
        node_id=node_id,
        opted_in=message.opted_in,
        since=now,
        until=until if message.opted_in else None,
        max_w=message.max_w,
        min_reward_micro_per_kwh=message.min_reward_micro_per_kwh,
    )
    tx.put(consent)
    facts: list[Fact] = [(NodeOptedIn if message.opted_in else NodeOptedOut)(at=now, node_id=node_id, zone=node.zone)]
    desk = open_desk(tx, [node_id])
    lease = desk.leases.get(node_id)
    if lease is not None and (not message.opted_in or lease.power_w > consent.power_w(node.power_w)):
        why = LeaseReason.TARGET_LOWERED if message.opted_in else LeaseReason.OPTED_OUT
        paused = pause(lease, why, now) if lease.draws_w() > 0 else lease
        desk.leases[node_id] = replace(paused, wants_hand_over=True)
        tx.put(desk.leases[node_id])
        facts += [lease_fact(LeasePaused, paused, now)] if paused is not lease else []
    return Reply(desk.orders(node_id, now, rules), facts)


def hand_over(tx: Tx, now: datetime, node_id: str, message: HandOver, *, rules: Rules) -> Reply[Orders]:
    """A node gives its unit back with the middle it has reached; any other node goes on from there. Sent twice, it counts once."""
    known = tx.get(Lease, message.lease_id)
    if known is not None and known.node_id == node_id and known.state is LeaseState.HANDED_OVER and known.generation == message.generation:
        return Reply(orders_for(tx, now, node_id, rules=rules))
    lease = hold(known, lease_id=message.lease_id, node_id=node_id, generation=message.generation)
    if message.continuation is not None and not is_digest(message.continuation):
        raise InvalidInput(f"lease {lease.lease_id}: continuation must be a stored blob's digest, got {message.continuation!r}")
    facts, lease = _last_words(tx, now, node_id, message.instance, lease, message.meter, message.steps_executed, rules)
    unit = tx.must(WorkUnit, lease.unit_id)
    if not 0 <= message.step <= unit.spec.steps:
        raise InvalidInput(f"lease {lease.lease_id}: step {message.step} is outside the unit's 0..{unit.spec.steps}")
    reason = LeaseReason(message.reason) if message.reason in LeaseReason.__members__.values() else LeaseReason.HANDED_OVER
    ended = end(replace(lease, step=max(lease.step, message.step)), LeaseState.HANDED_OVER, reason, now)
    further = message.continuation is not None and message.step > unit.continuation_step
    tx.put(
        ended,
        replace(
            unit,
            state=UnitState.OPEN,
            continuation=message.continuation if further else unit.continuation,
            continuation_step=message.step if further else unit.continuation_step,
        ),
    )
    return Reply(orders_for(tx, now, node_id, rules=rules), [*facts, lease_ended(ended, now)])


def update(tx: Tx, now: datetime, node_id: str, message: UpdateNotice, checked: Checked, *, rules: Rules) -> Reply[Orders]:
    """A finished unit: accept it exactly once, or refuse it with the reason and let another node do it.

    Raises `LeaseLost` for an old generation. A repeat of what was accepted is answered as the first time.
    """
    known = tx.get(Lease, message.lease_id)
    if known is not None and known.node_id == node_id and known.state is LeaseState.RELEASED and known.generation == message.generation:
        return Reply(orders_for(tx, now, node_id, rules=rules))
    lease = hold(known, lease_id=message.lease_id, node_id=node_id, generation=message.generation)
    unit = tx.must(WorkUnit, lease.unit_id)
    if unit.state is not UnitState.LEASED or unit.leases != lease.generation:
        raise LeaseLost(f"unit {unit.unit_id} has moved on to lease {unit.leases}; drop this result")
    facts, lease = _last_words(tx, now, node_id, message.instance, lease, message.meter, message.steps_executed, rules)
    if lease.state is LeaseState.OFFERED:  # finished within one sync: it was granted by doing
        lease = grant(lease, _began(lease, now))
        facts = [*facts, lease_fact(LeaseActive, lease, now), *settle.reserve(tx, now, lease)]
    checked = checked if checked.refusal else _complete(unit, message, checked)
    if checked.refusal is not None:
        return _refuse(tx, now, node_id, lease, unit, checked, facts, rules)
    return _accept(tx, now, node_id, lease, unit, message, checked, facts, rules)


def _complete(unit: WorkUnit, message: UpdateNotice, checked: Checked) -> Checked:
    """``checked``, or the refusal of a notice that lacks what its kind of unit must bring."""
    if unit.spec.kind is UnitKind.TRAIN and not (message.update and is_digest(message.update)):
        return Checked(refusal=Refusal.UNREADABLE, detail="a training unit needs the digest of its stored update")
    if unit.spec.kind is UnitKind.EVALUATE and not math.isfinite(message.metrics.get("loss", math.nan)):
        return Checked(refusal=Refusal.NOT_FINITE, detail="an evaluation needs a finite loss")
    return checked


def _refuse(
    tx: Tx, now: datetime, node_id: str, lease: Lease, unit: WorkUnit, checked: Checked, facts: Sequence[Fact], rules: Rules
) -> Reply[Orders]:
    assert checked.refusal is not None
    ended = end(lease, LeaseState.REVOKED, LeaseReason.UPDATE_REFUSED, now)
    tx.put(ended, replace(unit, state=UnitState.OPEN, continuation=None, continuation_step=0))
    rejected = UpdateRejected(
        at=now,
        job_id=lease.job_id,
        unit_id=unit.unit_id,
        node_id=node_id,
        lease_id=lease.lease_id,
        reason=checked.refusal.value,
        detail=checked.detail,
    )
    notice = f"update of {unit.unit_id} refused: {checked.refusal} ({checked.detail})"
    made: list[Fact] = [*facts, rejected, lease_ended(ended, now)]
    if tx.count(Lease, unit_id=unit.unit_id, reason=LeaseReason.UPDATE_REFUSED) >= _MOST_REFUSALS:
        # A unit is a pure function: what was refused this often would be refused for ever, and every try costs energy.
        made += advance.fail(tx, now, lease.job_id, f"{notice}, for the {_MOST_REFUSALS}th time")
    return Reply(replace_notice(orders_for(tx, now, node_id, rules=rules), notice), made)


def _accept(
    tx: Tx,
    now: datetime,
    node_id: str,
    lease: Lease,
    unit: WorkUnit,
    message: UpdateNotice,
    checked: Checked,
    facts: Sequence[Fact],
    rules: Rules,
) -> Reply[Orders]:
    steps = unit.spec.steps
    ended = end(replace(lease, step=steps), LeaseState.RELEASED, LeaseReason.FINISHED, now)
    accepted = replace(
        unit, state=UnitState.ACCEPTED, update=message.update, update_norm=checked.norm, accepted_lease=lease.lease_id, accepted_at=now
    )
    tx.put(ended, accepted)
    made: list[Fact] = [
        *facts,
        lease_ended(ended, now),
        UnitAccepted(
            at=now,
            job_id=lease.job_id,
            unit_id=unit.unit_id,
            node_id=node_id,
            lease_id=lease.lease_id,
            kind=unit.spec.kind.value,
            samples=unit.spec.samples,
            steps=steps,
        ),
    ]
    made += settle.settle_unit(tx, now, accepted)
    if unit.spec.kind is UnitKind.EVALUATE:
        made += advance.evaluated(tx, now, accepted, message.metrics)
    made += assign.offer_next(tx, now, node_id, rules=rules)
    return Reply(orders_for(tx, now, node_id, rules=rules), made)


def _last_words(
    tx: Tx, now: datetime, node_id: str, instance: str, lease: Lease, meter: MeterReport | None, steps_executed: int, rules: Rules
) -> tuple[list[Fact], Lease]:
    """Presence and meter that come with the end of a lease, booked before it ends."""
    if not 0 <= steps_executed < _MOST_STEPS:
        raise InvalidInput(f"lease {lease.lease_id}: {steps_executed} executed steps are not a count; send 0 or more")
    group = _Group(open_desk(tx, [node_id]), now, rules)
    group.arrive(node_id, instance)
    if meter is not None:
        group.meter(node_id, meter, worked=steps_executed > lease.steps_executed)
    group.keep(tx)
    booked = group.desk.leases.get(node_id, lease)
    return group.facts, replace(booked, steps_executed=max(booked.steps_executed, steps_executed))


def _began(lease: Lease, now: datetime) -> datetime:
    """Since when a node that has worked before its first report may have done so."""
    return min(lease.not_before, now)


def replace_notice(orders: Orders, notice: str) -> Orders:
    """``orders`` with a sentence for the node's owner."""
    return Orders(**{name: getattr(orders, name) for name in orders.__struct_fields__} | {"notice": notice})


def _device(state: str) -> DeviceState:
    try:
        return DeviceState(state)
    except ValueError as error:
        raise InvalidInput(f"device state {state!r} is not known; use one of {', '.join(DeviceState)}") from error
