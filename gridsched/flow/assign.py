"""Who works: leases are offered, paused, resumed and taken back so that their power stays within the target."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from gridsched.core.consent import Consent
from gridsched.core.facts import Fact, LeaseOffered, LeasePaused, LeaseResumed, NodeAbsent, ZoneObserved
from gridsched.core.fleet import Node, NodeReason, Plan, Presence, jitter_share, plan
from gridsched.core.job import Job
from gridsched.core.lease import LAST_WORDS, LIVE, Lease, LeaseReason, LeaseState, end, offer, pause, renew, resume
from gridsched.core.policy import Decision, Policy, Reason
from gridsched.core.round import Round, RoundState
from gridsched.core.timing import JobSchedule
from gridsched.core.work import UnitState, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.flow import advance, audit, local, settle, stream, timing
from gridsched.flow.copies import Copies, has_another
from gridsched.flow.observe import observe
from gridsched.flow.open_work import OpenWork
from gridsched.flow.rules import Rules
from gridsched.flow.seats import Seat, fleet, seats_of, unavailable
from gridsched.flow.tell import lease_ended, lease_fact, lease_offered
from gridsched.flow.watch import is_watched
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
_OUT_OF_REACH = (NodeReason.ABSENT, NodeReason.DOUBTFUL)
_FEW = 100
"""Units under way among which a node that has just finished one looks for a copy; in larger rounds the next control tick does."""


def tick(
    tx: Tx, now: datetime, decision: Decision, *, policy: Policy, rules: Rules, signals: Mapping[str, float] | None = None
) -> list[Fact]:
    """Bring the zone's leases in line with ``decision``; planning again at once would change nothing."""
    jobs = timing.may_work(tx, now, decision)
    seats = seats_of(tx, now, decision, policy, jobs)
    work = OpenWork(tx, jobs)
    target_w = 0.0 if rules.dry_run else decision.target_w
    silent = [s for s in seats if s.reason in _OUT_OF_REACH and s.draws_w > 0]
    held_w = sum(s.power_w for s in silent)  # it may be drawing all of it: nobody else gets it before its lease ends
    if held_w > target_w:
        stopped, held_w = silent, 0.0
    else:
        stopped = []
    held_w += sum(s.presence.drawn_w for s in seats if s.reason is NodeReason.DOUBTFUL and s.lease is None)  # outrun, and may not know it
    work.leave_to_others(now, seats, target_w=target_w - held_w, patience=rules.hand_over_after)
    chosen = plan(target_w - held_w, fleet(work.fit(seats)), units=len(work))
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
    return [*facts, observe(tx, now, decision, policy, signals or {})]


def again(tx: Tx, now: datetime, zone: str, *, policy: Policy, rules: Rules) -> list[Fact]:
    """Between two control ticks: new units have come up, so plan once more under the zone's standing decision."""
    decision = _standing(tx, now, zone, rules)
    if decision is None:
        return []
    return [fact for fact in tick(tx, now, decision, policy=policy, rules=rules) if not isinstance(fact, ZoneObserved)]


def offer_next(tx: Tx, now: datetime, node_id: str, *, rules: Rules) -> list[Fact]:
    """A node has just finished a unit: offer it the next one at once, where the standing decision leaves room for it.

    It takes the room that it has just freed, so nobody is passed over; the next control tick plans for all, knows the hold-out, and
    who else could do what it could not.
    """
    node, presence, consent = tx.must(Node, node_id), tx.get(Presence, node_id), tx.get(Consent, node_id)
    decision = _standing(tx, now, node.zone, rules)
    if decision is None or presence is None or consent is None or node.revoked_at is not None or rules.dry_run:
        return []
    if unavailable(node, presence, consent, decision, 0.0, now) is not None or tx.count(Lease, node_id=node_id, state=LIVE):
        return []
    drawn = sum(lease.draws_w() for lease in tx.find(Lease, zone=node.zone, state=(LeaseState.OFFERED, LeaseState.ACTIVE)))
    seat = Seat(node=node, presence=presence, consent=consent, lease=None, reason=None)
    if drawn + seat.power_w > decision.target_w:
        return []
    jobs, left_w = timing.may_work(tx, now, decision), decision.target_w - drawn
    work = OpenWork(tx, jobs)
    work.leave_all_tried()
    started = _start_all(tx, now, [seat], work, decision, rules, jitter=False)
    return [*started] or _copy_all(tx, now, [seat], jobs, decision, rules, left_w=left_w, most_units=_FEW)


def _standing(tx: Tx, now: datetime, zone: str, rules: Rules) -> Decision | None:
    """The zone's decision while it is young enough to act upon: an old one is from before a restart, and so is one from the future."""
    state = tx.get(ZoneState, zone)
    decision = tx.get(Decision, state.decision_id) if state is not None and state.decision_id and not state.paused else None
    return decision if decision is not None and timedelta(0) <= now - decision.decided_at <= rules.lease_ttl else None


def _unfit(seats: Sequence[Seat]) -> list[tuple[Seat, LeaseReason | None]]:
    """Seats whose node may no longer work though it still draws; one out of reach is left to its lease's expiry."""
    return [
        (s, _NODE_TO_LEASE.get(s.reason, LeaseReason.TARGET_LOWERED))
        for s in seats
        if s.reason not in (None, *_OUT_OF_REACH) and s.draws_w > 0
    ]


def _pause_all(tx: Tx, now: datetime, seats: Sequence[tuple[Seat, LeaseReason | None]], decision: Decision) -> list[Fact]:
    facts: list[Fact] = []
    for seat, why in seats:
        assert seat.lease is not None
        reason = why or (_PAUSED_FOR.get(decision.reason, LeaseReason.NO_SURPLUS) if decision.target_w <= 0 else LeaseReason.TARGET_LOWERED)
        paused = pause(seat.lease, reason, now)
        tx.put(paused)
        facts.append(lease_fact(LeasePaused, paused, now))
    return facts


def _resume_all(tx: Tx, now: datetime, seats: Sequence[Seat], decision: Decision, rules: Rules) -> list[Fact]:
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
    tx: Tx, now: datetime, seats: Sequence[Seat], work: OpenWork, decision: Decision, rules: Rules, *, jitter: bool = True
) -> list[LeaseOffered]:
    facts: list[LeaseOffered] = []
    for seat in seats:
        found = work.take(seat.node)
        if found is not None:
            unit, *rest = stream.fit(tx, found, speed=seat.presence.speed)
            work.add(rest)
            delay = rules.start_jitter * jitter_share(seat.node.node_id, unit.unit_id) if jitter else timedelta(0)
            facts.append(_lease_out(tx, now, seat, unit, LeaseReason.PLANNED, decision, rules, delay=delay))
    return facts


def _copy_all(
    tx: Tx,
    now: datetime,
    idle: Sequence[Seat],
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
    for seat in map(by_id.__getitem__, plan(left_w, fleet(able), units=copies.left).start if able else ()):
        taken = copies.take(seat.node, seat.presence)
        if taken is not None:
            facts.append(_lease_out(tx, now, seat, *taken, decision, rules))
    return facts


def _lease_out(
    tx: Tx,
    now: datetime,
    seat: Seat,
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


def _ask_back(tx: Tx, now: datetime, seats: Sequence[Seat], chosen: Plan, work: OpenWork, decision: Decision, rules: Rules) -> list[Fact]:
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


def close_lease(tx: Tx, now: datetime, lease: Lease, state: LeaseState, reason: LeaseReason, detail: str = "") -> list[Fact]:
    """End a lease without a result; its unit waits for the next node with whatever continuation is stored, unless another is at it."""
    ended = end(lease, state, reason, now)
    tx.put(ended)
    unit = tx.must(WorkUnit, lease.unit_id)
    if unit.state is UnitState.LEASED and not has_another(tx, ended):
        tx.put(replace(unit, state=UnitState.OPEN))
    return [lease_ended(ended, now, detail)]


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
    for lease in tx.find(Lease, state=LeaseState.REVOKED, settled=False, reason=LAST_WORDS):
        if now >= lease.expires_at:
            facts += settle.settle_alone(tx, now, lease)
    return facts + _pause_unwatched(tx, now, rules) + local.holders_came(tx, now) + advance.cut_short(tx, now)


def _pause_unwatched(tx: Tx, now: datetime, rules: Rules) -> list[Fact]:
    """Pause what draws under decisions that nobody makes any more: its zone has left the configuration, or its control tick fails."""
    facts: list[Fact] = []
    for zone in tx.find(ZoneState):
        if not is_watched(tx, now, zone.zone, rules):
            drawing = tx.find(Lease, zone=zone.zone, state=(LeaseState.OFFERED, LeaseState.ACTIVE))
            paused = [pause(lease, LeaseReason.STALE_SIGNAL, now) for lease in drawing]
            tx.put(*paused)
            facts += [lease_fact(LeasePaused, lease, now) for lease in paused]
    return facts


def restart(tx: Tx, now: datetime, *, rules: Rules) -> list[Fact]:
    """The daemon is back: its absence is nobody's fault, so leases within their longest time get a fresh ``lease_ttl``.

    No line that was cut with it says anything of a node. What was open of audits is let go where the site audits no more; what draws
    under a decision from long ago is paused until there is a new one.
    """
    for lease in tx.find(Lease, state=LIVE):
        tx.put(renew(_brought_back(lease, now), now=now, ttl=rules.lease_ttl))
    for presence in tx.find(Presence):
        register_at = presence.register_at and min(presence.register_at, now)
        tx.put(replace(presence, seen_at=now if presence.present else presence.seen_at, register_at=register_at, cut_at=None))
    for lease in tx.find(Lease, state=LeaseState.REVOKED, settled=False, reason=LAST_WORDS):
        tx.put(replace(lease, changed_at=min(lease.changed_at, now), expires_at=now + rules.lease_ttl))  # time for its last words
    _forget_the_future(tx, now)
    return _pause_unwatched(tx, now, rules) + (audit.stop(tx, now) if rules.trust is None else [])


def _brought_back(lease: Lease, now: datetime) -> Lease:
    """``lease`` with all its moments earlier by as much as its last change lies in the future.

    One that changed long ago and was renewed until the machine's clock was set back lives no longer for it.
    """
    ahead = max(lease.changed_at - now, timedelta(0))
    moments = ("offered_at", "not_before", "changed_at", "expires_at", "ends_at")
    back = replace(lease, **{name: getattr(lease, name) - ahead for name in moments})
    return replace(back, expires_at=min(back.expires_at, now))


def _forget_the_future(tx: Tx, now: datetime) -> None:
    """Where the machine's clock was set back, nothing that is still going on may have begun in the future: it would hold until then."""
    for consent in tx.find(Consent):
        if consent.since > now:
            ahead = consent.since - now
            tx.put(replace(consent, since=now, until=consent.until and consent.until - ahead))
    for unit in tx.find(WorkUnit, state=(UnitState.OPEN, UnitState.LEASED)):
        if unit.audit_at is not None and unit.audit_at > now:
            tx.put(replace(unit, audit_at=now))
    for rnd in tx.find(Round, state=RoundState.OPEN):
        if rnd.opened_at > now:
            tx.put(replace(rnd, opened_at=now))
    for schedule in tx.find(JobSchedule):
        if schedule.since is not None and schedule.since > now:
            tx.put(replace(schedule, since=now))
