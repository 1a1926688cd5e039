"""What nodes send: presence, meter readings, continuations and updates. Each is accepted or refused with a reason."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from gridsched.core.consent import Consent
from gridsched.core.errors import InvalidInput, LeaseLost, OtherRelease
from gridsched.core.facts import (
    AgentReplaced,
    Fact,
    LeaseActive,
    LeasePaused,
    NodeOptedIn,
    NodeOptedOut,
    NodePresent,
    UnitAccepted,
    UpdateRejected,
)
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import is_digest
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end, grant, hold, pause, renew
from gridsched.core.ledger import Transfer
from gridsched.core.work import Refusal, UnitKind, UnitState, WorkUnit
from gridsched.flow import advance, assign, audit, local, not_finite, quarantine, settle, stream
from gridsched.flow.copies import end_others, has_another
from gridsched.flow.orders import open_desk, orders_for
from gridsched.flow.rules import Rules
from gridsched.flow.statement import statement
from gridsched.flow.sync import LONGEST_S, MOST_STEPS, Group, began, sync_many
from gridsched.flow.tell import lease_ended, lease_fact
from gridsched.ports import Reply, Tx
from gridsched.wire import VERSION, ConsentChoice, HandOver, Hello, MeterReport, Orders, UpdateNotice

__all__ = ["Checked", "choose", "hand_over", "hello", "orders_for", "statement", "sync_many", "update"]

_MOST_REFUSALS = 5
_GIVEN_BACK = frozenset(
    {
        LeaseReason.HANDED_OVER,
        LeaseReason.OPTED_OUT,
        LeaseReason.CONSENT_ENDED,
        LeaseReason.NODE_LEFT,
        LeaseReason.REWARD_TOO_LOW,
        LeaseReason.NO_SURPLUS,
        LeaseReason.ALARM,
        LeaseReason.STALE_SIGNAL,
        LeaseReason.TARGET_LOWERED,
        LeaseReason.NOT_SCHEDULED,
        LeaseReason.DEVICE_BUSY,
        LeaseReason.DEVICE_HOT,
        LeaseReason.ON_BATTERY,
        LeaseReason.DISK_FULL,
        LeaseReason.PAUSED_BY_OPERATOR,
        LeaseReason.PAUSED_TOO_LONG,
    }
)
"""Why a node may say that it gives a unit back: its owner's reasons, and those of the pauses it was asked back in.

Every other reason is the daemon's own verdict, upon which it acts.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What reading the stored update found, outside any transaction: its L2 ``norm``, or why it must not be merged.

    ``agrees`` are the units, of those that an audit does again, whose results it has but for rounding.
    """

    norm: float | None = None
    refusal: Refusal | None = None
    detail: str = ""
    agrees: tuple[str, ...] = ()


def hello(tx: Tx, now: datetime, node_id: str, message: Hello, *, rules: Rules) -> Reply[Orders]:
    """An agent process begins. It takes the node over; calls of an earlier process are refused from now on."""
    if message.version != VERSION:
        raise OtherRelease(
            f"node {node_id} speaks protocol {message.version}, the daemon {VERSION}; install the daemon's release, or load the page again"
        )
    node = tx.must(Node, node_id)
    presence = tx.get(Presence, node_id) or Presence(node_id=node_id)
    facts: list[Fact] = []
    if presence.instance not in ("", message.instance):
        facts.append(AgentReplaced(at=now, node_id=node_id, instance=message.instance))
    if not presence.present or presence.cut_at is not None:
        facts.append(NodePresent(at=now, node_id=node_id, zone=node.zone))
    memory = node.memory_bytes if message.memory_bytes is None else message.memory_bytes
    told = replace(node, runtime=message.runtime, memory_bytes=memory, data=message.data)
    tx.put(told, replace(presence, instance=message.instance, present=True, seen_at=now, cut_at=None))
    facts += [*local.holder_left(tx, now, told), *local.holders_came(tx, now, node.zone)]
    for lease in tx.find(Lease, node_id=node_id, state=LIVE):
        # A node that was given another release goes on with what it has done before.
        runtime = lease.runtime if lease.runtime == message.runtime else ""
        tx.put(replace(renew(lease, now=now, ttl=rules.lease_ttl), runtime=runtime))
    return Reply(orders_for(tx, now, node_id, rules=rules), facts)


def choose(tx: Tx, now: datetime, node_id: str, message: ConsentChoice, *, rules: Rules) -> Reply[Orders]:
    """The consumer opts in or out. Opting out stops the work at once and asks for the unit's middle; nothing is lost.

    So does allowing fewer watts than the lease has: the next lease keeps to them.
    """
    node = tx.must(Node, node_id)
    if message.for_s is not None and not 0 < message.for_s <= LONGEST_S:
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
    facts += local.holders_came(tx, now, node.zone)
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
    if lease.steps_executed > 0:
        lease, granted = _granted(tx, now, lease)
        facts = [*facts, *granted]
    unit = tx.must(WorkUnit, lease.unit_id)
    if not 0 <= message.step <= unit.spec.steps:
        raise InvalidInput(f"lease {lease.lease_id}: step {message.step} is outside the unit's 0..{unit.spec.steps}")
    reason = next((reason for reason in _GIVEN_BACK if reason == message.reason), LeaseReason.HANDED_OVER)
    ended = end(replace(lease, step=max(lease.step, message.step)), LeaseState.HANDED_OVER, reason, now)
    further = message.continuation is not None and message.step > unit.continuation_step
    tx.put(ended)
    tx.put(
        replace(
            unit,
            state=UnitState.LEASED if has_another(tx, ended) else UnitState.OPEN,
            continuation=message.continuation if further else unit.continuation,
            continuation_step=message.step if further else unit.continuation_step,
            middle_of=(*unit.middles, ended.lease_id) if further else unit.middles,
        ),
    )
    return Reply(orders_for(tx, now, node_id, rules=rules), [*facts, lease_ended(ended, now)])


def update(tx: Tx, now: datetime, node_id: str, message: UpdateNotice, checked: Checked, *, rules: Rules) -> Reply[Orders]:
    """A finished unit: accept it exactly once, or refuse it with the reason and let another node do it.

    Raises `LeaseLost` where the lease has ended, as it has when a copy was faster. A repeat of what was accepted is answered as the
    first time.
    """
    known = tx.get(Lease, message.lease_id)
    if known is not None and known.node_id == node_id and known.state is LeaseState.RELEASED and known.generation == message.generation:
        return Reply(orders_for(tx, now, node_id, rules=rules))
    lease = hold(known, lease_id=message.lease_id, node_id=node_id, generation=message.generation)
    unit = tx.must(WorkUnit, lease.unit_id)
    if unit.state is not UnitState.LEASED:
        raise LeaseLost(f"unit {unit.unit_id} is {unit.state} already; drop this result")
    facts, lease = _last_words(tx, now, node_id, message.instance, lease, message.meter, message.steps_executed, rules)
    lease, granted = _granted(tx, now, lease)
    facts = [*facts, *granted]
    checked = checked if checked.refusal else _complete(unit, message, checked)
    if checked.refusal is not None:
        return _refuse(tx, now, node_id, lease, unit, checked, facts, rules)
    return _accept(tx, now, node_id, lease, unit, message, checked, facts, rules)


def _granted(tx: Tx, now: datetime, lease: Lease) -> tuple[Lease, list[Fact]]:
    """``lease`` as granted by doing, where its node has worked on it before its first report; it may have been paused before that, too."""
    if lease.state is LeaseState.OFFERED:
        lease = grant(lease, began(lease, now))
        return lease, [lease_fact(LeaseActive, lease, now), *settle.reserve(tx, now, lease)]
    if lease.state is not LeaseState.PAUSED or tx.get(Transfer, f"{lease.lease_id}.reserve") is not None:
        return lease, []
    worked_s = (lease.changed_at - began(lease, lease.changed_at)).total_seconds()
    return replace(lease, active_s=worked_s), settle.reserve(tx, now, lease)


def _complete(unit: WorkUnit, message: UpdateNotice, checked: Checked) -> Checked:
    """``checked``, or the refusal of a notice that lacks what its kind of unit must bring."""
    evaluated = unit.spec.kind is UnitKind.EVALUATE
    if not evaluated and not (message.update and is_digest(message.update)):
        return Checked(refusal=Refusal.UNREADABLE, detail="a training unit needs the digest of its stored update")
    if not math.isfinite(message.metrics.get("loss", math.nan)):  # left out where it is NaN or infinite: JSON has no word for it
        return Checked(refusal=Refusal.NOT_FINITE, detail=f"{'an evaluation' if evaluated else 'training'} needs a finite loss")
    if evaluated and not _counts(unit, message.metrics):
        return Checked(refusal=Refusal.UNREADABLE, detail=f"an evaluation of {unit.spec.samples} samples cannot count {message.metrics}")
    return checked


def _counts(unit: WorkUnit, metrics: Mapping[str, float]) -> bool:
    """Whether an evaluation saw no more samples than there are, and got no more answers right than it gave."""
    samples = metrics.get("samples", unit.spec.samples)
    return 0 < samples <= unit.spec.samples and 0 <= metrics.get("correct", 0) <= metrics.get("count", samples)


def _refuse(
    tx: Tx, now: datetime, node_id: str, lease: Lease, unit: WorkUnit, checked: Checked, facts: Sequence[Fact], rules: Rules
) -> Reply[Orders]:
    assert checked.refusal is not None
    why = LeaseReason.NOT_FINITE if checked.refusal is Refusal.NOT_FINITE else LeaseReason.UPDATE_REFUSED
    ended = end(lease, LeaseState.REVOKED, why, now)
    tx.put(ended)
    state = UnitState.LEASED if has_another(tx, ended) else UnitState.OPEN
    given_back = replace(unit, state=state, continuation=None, continuation_step=0)
    tx.put(given_back)
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
    if unit.audits:
        made += audit.refused(tx, now, given_back, rules=rules)
    elif why is LeaseReason.NOT_FINITE:
        made += not_finite.settled(tx, now, given_back)
    else:
        made += _too_often(tx, now, given_back, checked.refusal, notice)
    return Reply(replace_notice(orders_for(tx, now, node_id, rules=rules), notice), made)


def _too_often(tx: Tx, now: datetime, unit: WorkUnit, why: Refusal, notice: str) -> list[Fact]:
    """What comes of a ``unit`` that has been refused again and again, each time at the cost of its energy.

    A unit is a pure function: what several nodes do not do right nobody will, and its job ends. Updates of one node alone that cannot
    be read say that this node is broken or lies; it is shut out, and ends no job by itself. Too large a step or an evaluation that
    does not add up may be the program's own fault: another node is to try it, and where none is there, or none comes to it, the job ends
    with that reason.
    """
    tries = tx.find(Lease, unit_id=unit.unit_id, reason=(LeaseReason.UPDATE_REFUSED, LeaseReason.NOT_FINITE))
    if len(tries) < _MOST_REFUSALS:
        return []
    told = f"{notice}, for the {len(tries)}th time"
    if len({lease.node_id for lease in tries}) > 1:
        return advance.hopeless(tx, now, unit, told)
    if why is Refusal.NORM_BOUND or unit.spec.kind is UnitKind.EVALUATE:
        waits = len(tries) < not_finite.MOST_OF_ONE and not_finite.others(tx, now, unit, tries)
        return [] if waits else advance.hopeless(tx, now, unit, told)
    return quarantine.quarantine(tx, now, tries[0].node_id, unit.unit_id, told)


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
        unit,
        state=UnitState.ACCEPTED,
        update=message.update,
        update_norm=checked.norm,
        accepted_lease=lease.lease_id,
        accepted_at=now,
        answer=audit.answer_of(message.update, message.metrics),
        digests=_trail(unit, message.digests),
    )
    accepted, too_late = stream.take_in(tx, now, accepted)
    tx.put(ended, accepted)
    outrun, told = end_others(tx, now, ended)
    taken = UnitAccepted(
        at=now,
        job_id=lease.job_id,
        unit_id=unit.unit_id,
        node_id=node_id,
        lease_id=lease.lease_id,
        kind="audit" if unit.audits else unit.spec.kind.value,
        samples=unit.spec.samples,
        steps=steps,
    )
    made: list[Fact] = [*facts, lease_ended(ended, now), *told, *(too_late or [taken])]
    if unit.audits:
        made += audit.returned(tx, now, accepted, agrees=checked.agrees, rules=rules)
    else:
        made += _go_on(tx, now, accepted, message.metrics, rules)
    for free in (node_id, *(lease.node_id for lease in outrun)):
        made += assign.offer_next(tx, now, free, rules=rules)
    return Reply(orders_for(tx, now, node_id, rules=rules), made)


def _trail(unit: WorkUnit, told: Sequence[tuple[int, str]]) -> tuple[tuple[int, str], ...]:
    """The parameter digests along the way, where they are what a unit of that length has; else none: they accuse, and decide nothing."""
    spec = unit.spec
    due = range(spec.digest_every, spec.steps + 1, spec.digest_every) if spec.kind is UnitKind.TRAIN else range(0)
    return tuple(told) if [step for step, _ in told] == list(due) and all(is_digest(digest) for _, digest in told) else ()


def _go_on(tx: Tx, now: datetime, accepted: WorkUnit, metrics: dict[str, float], rules: Rules) -> list[Fact]:
    """What follows from a unit that is done with: it is paid, perhaps done again elsewhere, and its job moves on."""
    facts = settle.settle_unit(tx, now, accepted)
    stream.refill(tx, accepted)
    facts += audit.consider(tx, now, accepted, rules=rules)
    if accepted.spec.kind is UnitKind.EVALUATE:
        facts += advance.evaluated(tx, now, accepted, metrics)
    return facts


def _last_words(
    tx: Tx, now: datetime, node_id: str, instance: str, lease: Lease, meter: MeterReport | None, steps_executed: int, rules: Rules
) -> tuple[list[Fact], Lease]:
    """Presence and meter that come with the end of a lease, booked before it ends."""
    if not 0 <= steps_executed < MOST_STEPS:
        raise InvalidInput(f"lease {lease.lease_id}: {steps_executed} executed steps are not a count; send 0 or more")
    group = Group(open_desk(tx, [node_id]), now, rules)
    group.last_words(node_id, instance, meter, worked=steps_executed > lease.steps_executed)
    group.keep(tx)
    booked = group.desk.leases.get(node_id, lease)
    return group.facts, replace(booked, steps_executed=max(booked.steps_executed, steps_executed))


def replace_notice(orders: Orders, notice: str) -> Orders:
    """``orders`` with a sentence for the node's owner."""
    return Orders(**{name: getattr(orders, name) for name in orders.__struct_fields__} | {"notice": notice})
