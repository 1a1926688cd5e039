"""How much may be drawn in a zone now, and why."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gridsched.core.facts import Fact, PolicyDecided, PolicyLoaded
from gridsched.core.policy import Decision, Policy, PolicyState, Reason, Tier, day_start, evaluate
from gridsched.core.signal import Reading, SignalKind, Snapshot, snapshot
from gridsched.core.zone import ZoneState
from gridsched.flow import timing
from gridsched.flow.rules import Rules
from gridsched.flow.watch import is_watched
from gridsched.ports import Reply, Tx

__all__ = ["next_edge", "see", "zone"]

_LATELY = timedelta(hours=1)
_LOOK_BACK = timedelta(hours=26)
_EVER = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT = timedelta(microseconds=1)
_NOT_KNOWN = (Reason.STALE_SIGNAL, Reason.UNKNOWN_SIGNAL)
_USUAL = Rules()


def zone(
    tx: Tx, now: datetime, policy: Policy, *, view: Snapshot | None = None, ahead: timedelta = timedelta(0), rules: Rules = _USUAL
) -> Reply[Decision]:
    """Evaluate the zone's policy, store the decision with its inputs, and remember what the policy must remember.

    ``view`` is what `see` gives, for a caller that has looked already. The decision is to last for ``ahead``: it allows no more than a slot
    that begins within that time is known to allow, so that nodes have stopped when a window ends. A dry run is labelled as one.

    What a policy remembers is kept by what each condition says, so an edit elsewhere in the file restarts no delay. Where nobody has
    decided for a while it is forgotten: what was seen before says nothing of the time since.
    """
    facts: list[Fact] = []
    before = tx.get(ZoneState, policy.zone) or ZoneState(zone=policy.zone)
    if before.policy_digest != policy.digest:
        facts.append(PolicyLoaded(at=now, zone=policy.zone, policy=policy.name, digest=policy.digest))
        before = replace(before, policy_digest=policy.digest)
    if not is_watched(tx, now, policy.zone, rules):
        before = replace(before, state=before.state.after_a_gap(policy))
    day = day_start(policy, now)
    view = view or see(tx, now, policy)
    used = before.used(day)
    decision, state = _evaluate(tx, policy, before.state, view, before)
    decision = _lasting(tx, now, policy, decision, state, view, before, ahead)
    if waiting := timing.waiting(tx, now, decision):
        decision = replace(decision, detail=f"{decision.detail}; waiting for better hours: {', '.join(waiting)}")
    if rules.dry_run:
        decision = replace(decision, detail=f"dry run, nothing is granted: {decision.detail}")
    after = replace(
        before,
        state=state,
        decision_id=decision.decision_id,
        reward_micro_per_kwh=decision.reward_micro_per_kwh,
        reward_micro_per_unit=decision.reward_micro_per_unit,
        price_eur_mwh=_price(view),
        hold_out_share=policy.hold_out_share,
        day=day,
        energy_j=used.energy_j,
        money_micro=used.money_micro,
    )
    last = tx.get(Decision, before.decision_id) if before.decision_id else None
    tx.put(decision, after)
    if last is None or _outcome(last) != _outcome(decision):
        facts.append(
            PolicyDecided(
                at=now,
                zone=policy.zone,
                decision_id=decision.decision_id,
                target_w=decision.target_w,
                tier=decision.tier.value,
                reason=decision.reason.value,
                detail=decision.detail,
            )
        )
    return Reply(decision, facts)


def _evaluate(tx: Tx, policy: Policy, state: PolicyState, view: Snapshot, zone: ZoneState) -> tuple[Decision, PolicyState]:
    """The policy at the moment of ``view``, with the jobs that need their top-up then."""
    now = view.now
    pressing = timing.pressing(tx, now, policy.zone, price_eur_mwh=_price(view))
    used = zone.used(day_start(policy, now))
    decision, after = evaluate(policy, state, view, now, used=used, paused=zone.paused, wants_top_up=bool(pressing))
    if decision.tier is Tier.TOP_UP:
        due = ", ".join(f"{job.job_id} by {job.spec.deadline:%Y-%m-%d %H:%M} UTC" for job in pressing)
        decision = replace(decision, detail=f"{decision.detail}, for {due}")
    return decision, after


def _lasting(
    tx: Tx, now: datetime, policy: Policy, decision: Decision, state: PolicyState, view: Snapshot, zone: ZoneState, ahead: timedelta
) -> Decision:
    """``decision``, or less where what is known of a slot that begins within ``ahead`` allows less.

    A slot of which nothing is known yet changes nothing: a provider that speaks at the last moment must not stop the work each time.
    """
    for edge in sorted(moment for moment in _edges(tx, policy.zone, view) if moment <= now + ahead):
        if decision.target_w <= 0:
            break
        later = see(tx, now, policy, at=edge)
        then, _ = _evaluate(tx, policy, state, later, zone)
        if then.target_w >= decision.target_w or (then.reason in _NOT_KNOWN and _fades(view, later)):
            continue
        if then.target_w > 0:
            decision = replace(decision, target_w=then.target_w, detail=f"{decision.detail}; from {edge:%H:%M:%S} UTC on {then.detail}")
        else:
            detail = f"the window ends at {edge:%H:%M:%S} UTC and nodes are to stop inside it: {then.detail}"
            decision = replace(decision, target_w=0.0, tier=then.tier, reason=then.reason, detail=detail)
    return decision


def _fades(now: Snapshot, later: Snapshot) -> bool:
    """Whether something that counts now has no slot to follow it yet."""
    return any(state.fresh and not later.states[kind].fresh for kind, state in now.states.items() if kind in later.states)


def next_edge(tx: Tx, policy: Policy, view: Snapshot) -> datetime | None:
    """When next a known slot, or an hour of a job's schedule, ends; None where neither is known."""
    return min(_edges(tx, policy.zone, view), default=None)


def _edges(tx: Tx, zone: str, view: Snapshot) -> list[datetime]:
    ends = {state.end for state in view.states.values()} | set(timing.edges(tx, zone))
    return [end for end in ends if end > view.now]


def _price(view: Snapshot) -> float | None:
    state = view.get(SignalKind.PRICE)
    return state.value if state is not None and state.fresh else None


def see(tx: Tx, now: datetime, policy: Policy, *, at: datetime | None = None) -> Snapshot:
    """All signals of the policy's zone as known at ``now``, as they count at ``at`` (default: now); the price too, as what energy costs.

    The slot that counts holds that moment or is the last that ended, so the long look back is only for signals silent of late.
    """
    at = at or now
    kinds = sorted({*policy.signals, SignalKind.PRICE, SignalKind.SURPLUS, SignalKind.RENEWABLE_SHARE})
    readings = [reading for kind in kinds for reading in _heard(tx, now, policy, kind, at)]
    return snapshot(policy.zone, at, readings, policy.stale_limits)


def _heard(tx: Tx, now: datetime, policy: Policy, kind: SignalKind, at: datetime) -> list[Reading]:
    """What was last heard of one signal: as far back as it may still count, or of an alarm ever."""
    for back in (_LATELY, max(_LOOK_BACK, policy.stale_limits[kind] + _INSTANT)):
        found = tx.readings(policy.zone, kind, at - back, at + _INSTANT, known_at=now)
        if found:
            return found
    return _last_alarm(tx, now, policy.zone, at) if kind is SignalKind.ALARM else []


def _last_alarm(tx: Tx, now: datetime, zone: str, at: datetime) -> list[Reading]:
    """The last that was said of alarms, however long ago: nobody has given the all-clear since. The one row, unless it is for later."""
    newest = tx.find(Reading, zone=zone, signal=SignalKind.ALARM, order="-end", limit=1)
    if all(reading.start <= at and reading.known_at <= now for reading in newest):
        return newest
    return tx.readings(zone, SignalKind.ALARM, _EVER, at + _INSTANT, known_at=now)


def _outcome(decision: Decision) -> tuple[float, str, str]:
    return (decision.target_w, decision.tier.value, decision.reason.value)
