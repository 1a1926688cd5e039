"""Who works: leases are offered, paused, resumed and taken back so that their power stays within the target."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median

import numpy as np

from gridsched.core.consent import Consent, opted_out
from gridsched.core.facts import Fact, LeaseOffered, LeasePaused, LeaseResumed, NodeAbsent, ZoneObserved
from gridsched.core.fleet import DeviceState, Fleet, Node, NodeReason, Plan, Presence, held_out, jitter_share, plan
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end, offer, pause, renew, resume
from gridsched.core.policy import Decision, Policy, Reason
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.flow import advance, audit, local, settle, stream, timing
from gridsched.flow.copies import Copies, has_another
from gridsched.flow.observe import observe
from gridsched.flow.rules import Rules
from gridsched.flow.tell import lease_ended, lease_fact, lease_offered
from gridsched.ports import Tx

__all__ = ["again", "close_lease", "offer_next", "restart", "sweep", "tick"]

_PAUSED_FOR: Mapping[Reason, LeaseReason] = {
    Reason.ALARM: LeaseReason.ALARM,
    Reason.STALE_SIGNAL: LeaseReason.STALE_SIGNAL,
    Reason.UNKNOWN_SIGNAL: LeaseReason.STALE_SIGNAL,
    Reason.DISPUTED_SIGNAL: LeaseReason.STALE_SIGNAL,
    Reason.PAUSED_BY_OPERATOR: LeaseReason.PAUSED_BY_OPERATOR,
}
_NODE_TO_LEASE: Mapping[NodeReason, LeaseReason] = {
    NodeReason.OPTED_OUT: LeaseReason.OPTED_OUT,
    NodeReason.CONSENT_ENDED: LeaseReason.CONSENT_ENDED,
    NodeReason.REWARD_TOO_LOW: LeaseReason.REWARD_TOO_LOW,
    NodeReason.DEVICE: LeaseReason.DEVICE_BUSY,
    NodeReason.HELD_OUT: LeaseReason.TARGET_LOWERED,
    NodeReason.NO_WORK: LeaseReason.NOT_SCHEDULED,
    NodeReason.QUARANTINED: LeaseReason.QUARANTINED,
}
_COULD_NOT = (LeaseReason.NODE_REFUSED, LeaseReason.UPDATE_REFUSED, LeaseReason.NOT_FINITE)
_OUT_OF_REACH = (NodeReason.ABSENT, NodeReason.DOUBTFUL)
_FEW = 100
"""Units under way among which a node that has just finished one looks for a copy; in larger rounds the next control tick does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seat:
    """One node of the zone as the tick sees it; ``reason`` is why it may not work, or None."""

    node: Node
    presence: Presence
    consent: Consent
    lease: Lease | None
    reason: NodeReason | None

    @property
    def power_w(self) -> float:
        return self.lease.power_w if self.lease else self.consent.power_w(self.node.power_w)


def tick(
    tx: Tx, now: datetime, decision: Decision, *, policy: Policy, rules: Rules, signals: Mapping[str, float] | None = None
) -> list[Fact]:
    """Bring the zone's leases in line with ``decision``; planning again at once would change nothing."""
    jobs = timing.may_work(tx, now, decision)
    seats = _seats(tx, now, decision, policy, jobs)
    work = _open_units(tx, jobs)
    target_w = 0.0 if rules.dry_run else decision.target_w
    silent = [s for s in seats if s.reason in _OUT_OF_REACH and s.lease is not None and s.lease.draws_w() > 0]
    held_w = sum(s.power_w for s in silent)  # it may be drawing all of it: nobody else gets it before its lease ends
    if held_w > target_w:
        stopped, held_w = silent, 0.0
    else:
        stopped = []
    held_w += sum(s.presence.drawn_w for s in seats if s.reason is NodeReason.DOUBTFUL and s.lease is None)  # outrun, and may not know it
    chosen = plan(target_w - held_w, _fleet(_fit(tx, seats, work)), units=len(work))
    by_id = {seat.node.node_id: seat for seat in seats}
    facts = _pause_all(tx, now, [*_unfit(seats), *((s, None) for s in stopped), *((by_id[n], None) for n in chosen.pause)], decision)
    facts += _resume_all(tx, now, [by_id[n] for n in chosen.resume], decision, rules)
    started = _start_all(tx, now, [by_id[n] for n in chosen.start], work, decision, rules)
    busy_w = held_w + chosen.drawn_w - sum(by_id[n].power_w for n in chosen.start) + sum(fact.power_w for fact in started)
    at_work = {fact.node_id for fact in started}
    idle = [s for s in seats if s.reason is None and s.lease is None and s.node.node_id not in at_work]
    facts += [*started, *_copy_all(tx, now, idle, jobs, decision, rules, left_w=target_w - busy_w)]
    facts += _ask_back(tx, now, seats, chosen, work, decision, rules)
    timing.stand(tx, now, decision, {job.job_id for job in jobs})
    return [*facts, observe(tx, now, decision, signals or {})]


def again(tx: Tx, now: datetime, zone: str, *, policy: Policy, rules: Rules) -> list[Fact]:
    """Between two control ticks: new units have come up, so plan once more under the zone's standing decision."""
    decision = _standing(tx, now, zone, rules)
    if decision is None:
        return []
    return [fact for fact in tick(tx, now, decision, policy=policy, rules=rules) if not isinstance(fact, ZoneObserved)]


def offer_next(tx: Tx, now: datetime, node_id: str, *, rules: Rules) -> list[Fact]:
    """A node has just finished a unit: offer it the next one at once, where the standing decision leaves room for it.

    It takes the room that it has just freed, so nobody is passed over; the next control tick plans for all, and knows the hold-out.
    """
    node, presence, consent = tx.must(Node, node_id), tx.get(Presence, node_id), tx.get(Consent, node_id)
    decision = _standing(tx, now, node.zone, rules)
    if decision is None or presence is None or consent is None or node.revoked_at is not None or rules.dry_run:
        return []
    if _unavailable(node, presence, consent, decision, 0.0, now) is not None or tx.count(Lease, node_id=node_id, state=LIVE):
        return []
    drawn = sum(lease.draws_w() for lease in tx.find(Lease, zone=node.zone, state=(LeaseState.OFFERED, LeaseState.ACTIVE)))
    seat = _Seat(node=node, presence=presence, consent=consent, lease=None, reason=None)
    if drawn + seat.power_w > decision.target_w:
        return []
    jobs, left_w = timing.may_work(tx, now, decision), decision.target_w - drawn
    started = _start_all(tx, now, [seat], _open_units(tx, jobs), decision, rules, jitter=False)
    return [*started] or _copy_all(tx, now, [seat], jobs, decision, rules, left_w=left_w, most_units=_FEW)


def _standing(tx: Tx, now: datetime, zone: str, rules: Rules) -> Decision | None:
    """The zone's decision while it is young enough to act upon: an old one is from before a restart."""
    state = tx.get(ZoneState, zone)
    decision = tx.get(Decision, state.decision_id) if state is not None and state.decision_id and not state.paused else None
    return decision if decision is not None and now - decision.decided_at <= rules.lease_ttl else None


def _seats(tx: Tx, now: datetime, decision: Decision, policy: Policy, jobs: Sequence[Job]) -> list[_Seat]:
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
        reason = _unavailable(node, presence, consent, decision, policy.hold_out_share, now)
        lease = leases.get(node.node_id)
        if reason is None and lease is not None and lease.power_w > consent.power_w(node.power_w):
            reason = NodeReason.PAUSED  # the consumer allows fewer watts than when it was offered: it is being handed over
        if reason is None and lease is not None and lease.job_id not in scheduled:
            reason = NodeReason.NO_WORK  # its job waits for its own hours
        seats.append(_Seat(node=node, presence=presence, consent=consent, lease=lease, reason=reason))
    return seats


def _fit(tx: Tx, seats: Sequence[_Seat], work: Sequence[WorkUnit]) -> list[_Seat]:
    """Seats that may work and can: a node that can run none of the open units must not take the room of one that can."""
    kinds = {(unit.spec.job_id, unit.only_node): tx.must(Job, unit.spec.job_id) for unit in work}

    def can(node: Node) -> bool:
        return any(only in ("", node.node_id) and timing.can_run(node, job) for (_, only), job in kinds.items())

    return [s for s in seats if s.reason is None and (s.lease is not None or can(s.node))]


def _unavailable(
    node: Node, presence: Presence, consent: Consent, decision: Decision, hold_out_share: float, now: datetime
) -> NodeReason | None:
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


def _fleet(seats: Sequence[_Seat]) -> Fleet:
    known = [s.presence.speed / s.node.power_w for s in seats if s.presence.speed > 0]
    usual = median(known) if known else 1.0  # a node never measured counts as a usual one, so that it gets measured
    merit = [(s.presence.speed / s.node.power_w if s.presence.speed > 0 else usual) * s.presence.reliability for s in seats]
    return Fleet(
        node_ids=[s.node.node_id for s in seats],
        power_w=np.array([s.power_w for s in seats], dtype=np.float64),
        merit=np.array(merit, dtype=np.float64),
        served_j=np.array([s.presence.served_j for s in seats], dtype=np.float64),
        running=np.array([s.lease is not None and s.lease.draws_w() > 0 for s in seats], dtype=np.bool_),
        holding=np.array([s.lease is not None for s in seats], dtype=np.bool_),
    )


def _open_units(tx: Tx, jobs: Sequence[Job]) -> list[WorkUnit]:
    """Units that wait for a node, in the order they should be done: as ``jobs`` are, training before evaluation, oldest version first."""
    units: list[WorkUnit] = []
    for job in jobs:
        waiting = tx.find(WorkUnit, job_id=job.job_id, state=UnitState.OPEN)
        units += sorted(waiting, key=lambda unit: (unit.spec.kind is UnitKind.EVALUATE, unit.spec.version, not unit.audits, unit.index))
    return units


def _unfit(seats: Sequence[_Seat]) -> list[tuple[_Seat, LeaseReason | None]]:
    """Seats whose node may no longer work though it still draws; one out of reach is left to its lease's expiry."""
    return [
        (s, _NODE_TO_LEASE.get(s.reason, LeaseReason.TARGET_LOWERED))
        for s in seats
        if s.reason not in (None, *_OUT_OF_REACH) and s.lease is not None and s.lease.draws_w() > 0
    ]


def _pause_all(tx: Tx, now: datetime, seats: Sequence[tuple[_Seat, LeaseReason | None]], decision: Decision) -> list[Fact]:
    facts: list[Fact] = []
    for seat, why in seats:
        assert seat.lease is not None
        reason = why or (_PAUSED_FOR.get(decision.reason, LeaseReason.NO_SURPLUS) if decision.target_w <= 0 else LeaseReason.TARGET_LOWERED)
        paused = pause(seat.lease, reason, now)
        tx.put(paused)
        facts.append(lease_fact(LeasePaused, paused, now))
    return facts


def _resume_all(tx: Tx, now: datetime, seats: Sequence[_Seat], decision: Decision, rules: Rules) -> list[Fact]:
    facts: list[Fact] = []
    for seat in seats:
        assert seat.lease is not None
        resumed = replace(
            renew(resume(seat.lease, LeaseReason.SURPLUS_BACK, now), now=now, ttl=rules.lease_ttl), decision_id=decision.decision_id
        )
        tx.put(resumed)
        facts.append(lease_fact(LeaseResumed, resumed, now))
        facts += settle.reserve(tx, now, resumed)  # it may have been paused before its node had taken it
    return facts


def _start_all(
    tx: Tx, now: datetime, seats: Sequence[_Seat], work: list[WorkUnit], decision: Decision, rules: Rules, *, jitter: bool = True
) -> list[LeaseOffered]:
    facts: list[LeaseOffered] = []
    for seat in seats:
        found = _unit_for(tx, seat.node, work)
        if found is not None:
            work.remove(found)
            unit, *rest = stream.fit(tx, found, speed=seat.presence.speed)
            work += rest
            delay = rules.start_jitter * jitter_share(seat.node.node_id, unit.unit_id) if jitter else timedelta(0)
            facts.append(_lease_out(tx, now, seat, unit, LeaseReason.PLANNED, decision, rules, delay=delay))
    return facts


def _copy_all(
    tx: Tx,
    now: datetime,
    idle: Sequence[_Seat],
    jobs: Sequence[Job],
    decision: Decision,
    rules: Rules,
    *,
    left_w: float,
    most_units: int | None = None,
) -> list[Fact]:
    """Let nodes that have nothing else to do take up units that are worth doing twice, within the watts that nobody uses."""
    if not any(seat.power_w <= left_w for seat in idle):
        return []
    copies = Copies(tx, now, jobs, rules, most_units=most_units)
    able = [seat for seat in idle if copies.left and copies.suit(seat.node, seat.presence)]
    by_id = {seat.node.node_id: seat for seat in able}
    facts: list[Fact] = []
    for seat in map(by_id.__getitem__, plan(left_w, _fleet(able), units=copies.left).start if able else ()):
        taken = copies.take(seat.node, seat.presence)
        if taken is not None:
            facts.append(_lease_out(tx, now, seat, *taken, decision, rules))
    return facts


def _lease_out(
    tx: Tx,
    now: datetime,
    seat: _Seat,
    unit: WorkUnit,
    reason: LeaseReason,
    decision: Decision,
    rules: Rules,
    *,
    delay: timedelta = timedelta(0),
) -> LeaseOffered:
    """Offer ``unit`` to the seat's node, as the next generation of its leases."""
    leased = replace(unit, state=UnitState.LEASED, leases=unit.leases + 1)
    lease = offer(
        unit_id=unit.unit_id,
        job_id=unit.spec.job_id,
        node_id=seat.node.node_id,
        zone=decision.zone,
        generation=leased.leases,
        power_w=seat.power_w,
        decision_id=decision.decision_id,
        reward_micro_per_kwh=decision.reward_micro_per_kwh,
        reward_micro_per_unit=decision.reward_micro_per_unit,
        now=now,
        ttl=rules.lease_ttl,
        longest=rules.longest_lease,
        jitter=delay,
        reason=reason,
        runtime=seat.node.runtime,
    )
    tx.put(leased, lease)
    return lease_offered(lease, now)


def _unit_for(tx: Tx, node: Node, work: Sequence[WorkUnit]) -> WorkUnit | None:
    """The unit this node worked on before, if it is open again (its continuation is on its disk), else the first it can run.

    One that it could not do comes last, so that another node gets it.
    """
    allowed = [unit for unit in work if unit.only_node in ("", node.node_id)]
    able = [unit for unit in allowed if timing.can_run(node, tx.must(Job, unit.spec.job_id))]
    failed: list[WorkUnit] = []
    for unit in able:
        last = tx.get(Lease, f"{unit.unit_id}.l{unit.leases}") if unit.leases else None
        if last is not None and last.node_id == node.node_id:
            if last.reason not in _COULD_NOT:
                return unit
            failed.append(unit)
    return next((unit for unit in able if unit not in failed), failed[0] if failed else None)


def _ask_back(
    tx: Tx, now: datetime, seats: Sequence[_Seat], chosen: Plan, work: Sequence[WorkUnit], decision: Decision, rules: Rules
) -> list[Fact]:
    """Ask for units that wait too long on a passed-over node while others could work; opted-out nodes are asked at once.

    Where the unit's own job waits for its hours, only a node that could do something else meanwhile is asked.
    """
    if decision.target_w <= 0:
        return []
    resumed = set(chosen.resume)
    for seat in seats:
        lease = seat.lease
        if lease is None or lease.state is not LeaseState.PAUSED or lease.wants_hand_over or seat.node.node_id in resumed:
            continue
        if seat.reason is NodeReason.NO_WORK and not work:
            continue
        if now - lease.changed_at >= rules.hand_over_after:
            tx.put(replace(lease, wants_hand_over=True))
    return []


def close_lease(tx: Tx, now: datetime, lease: Lease, state: LeaseState, reason: LeaseReason) -> list[Fact]:
    """End a lease without a result; its unit waits for the next node with whatever continuation is stored, unless another is at it."""
    ended = end(lease, state, reason, now)
    tx.put(ended)
    unit = tx.must(WorkUnit, lease.unit_id)
    if unit.state is UnitState.LEASED and not has_another(tx, ended):
        tx.put(replace(unit, state=UnitState.OPEN))
    return [lease_ended(ended, now)]


def sweep(tx: Tx, now: datetime, *, rules: Rules) -> list[Fact]:
    """Notice silent nodes, and end leases and rounds whose time is over. The daemon's clock alone decides."""
    facts: list[Fact] = []
    for presence in tx.find(Presence, present=True):
        silent = now - (presence.seen_at or now)
        if silent >= rules.absent_after:
            tx.put(replace(presence, present=False, drawn_w=0.0))
            node = tx.must(Node, presence.node_id)
            facts.append(NodeAbsent(at=now, node_id=node.node_id, zone=node.zone, silent_s=silent.total_seconds()))
    for lease in tx.find(Lease, state=LIVE):
        if now >= lease.expires_at:
            why = LeaseReason.MAX_DURATION if lease.expires_at >= lease.ends_at else LeaseReason.NODE_SILENT
            facts += close_lease(tx, now, lease, LeaseState.EXPIRED, why)
    for lease in tx.find(Lease, state=LeaseState.REVOKED, settled=False, reason=LeaseReason.OUTRUN):
        if now >= lease.expires_at:
            facts += settle.settle_outrun(tx, now, lease)
    return facts + local.holders_came(tx, now) + advance.cut_short(tx, now)


def restart(tx: Tx, now: datetime, *, rules: Rules) -> list[Fact]:
    """The daemon is back: its absence is nobody's fault, so leases within their longest time get a fresh ``lease_ttl``.

    No line that was cut with it says anything of a node. Where the machine's clock was set back meanwhile, nothing may lie in the
    future: it would hold until time has caught up. What was open of audits is let go where the site audits no more.
    """
    for lease in tx.find(Lease, state=LIVE):
        tx.put(renew(_brought_back(lease, now), now=now, ttl=rules.lease_ttl))
    for presence in tx.find(Presence):
        register_at = presence.register_at and min(presence.register_at, now)
        tx.put(replace(presence, seen_at=now if presence.present else presence.seen_at, register_at=register_at, cut_at=None))
    for lease in tx.find(Lease, state=LeaseState.REVOKED, settled=False, reason=LeaseReason.OUTRUN):
        tx.put(replace(lease, expires_at=max(lease.expires_at, now + rules.lease_ttl)))  # time for its last words
    return audit.stop(tx, now) if rules.trust is None else []


def _brought_back(lease: Lease, now: datetime) -> Lease:
    """``lease`` with all its moments earlier by as much as its last change lies in the future."""
    ahead = max(lease.changed_at - now, timedelta(0))
    moments = ("offered_at", "not_before", "changed_at", "expires_at", "ends_at")
    return replace(lease, **{name: getattr(lease, name) - ahead for name in moments})
