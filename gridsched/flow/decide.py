"""How much may be drawn in a zone now, and why."""

from dataclasses import replace
from datetime import datetime, timedelta

from gridsched.core.facts import Fact, PolicyDecided, PolicyLoaded
from gridsched.core.policy import Decision, Policy, day_start, evaluate
from gridsched.core.signal import Reading, SignalKind, Snapshot, snapshot
from gridsched.core.zone import ZoneState
from gridsched.ports import Reply, Tx

__all__ = ["see", "zone"]

_LATELY = timedelta(hours=1)
_LOOK_BACK = timedelta(hours=26)
_INSTANT = timedelta(microseconds=1)


def zone(tx: Tx, now: datetime, policy: Policy, *, view: Snapshot | None = None) -> Reply[Decision]:
    """Evaluate the zone's policy, store the decision with its inputs, and remember what the policy must remember.

    ``view`` is what `see` gives, for a caller that has looked already.

    What a policy remembers is kept by what each condition says, so an edit elsewhere in the file restarts no delay.
    """
    facts: list[Fact] = []
    before = tx.get(ZoneState, policy.zone) or ZoneState(zone=policy.zone)
    if before.policy_digest != policy.digest:
        facts.append(PolicyLoaded(at=now, zone=policy.zone, policy=policy.name, digest=policy.digest))
        before = replace(before, policy_digest=policy.digest)
    day = day_start(policy, now)
    view = view or see(tx, now, policy)
    decision, state = evaluate(policy, before.state, view, now, used=before.used(day), paused=before.paused)
    used = before.used(day)
    price = view.get(SignalKind.PRICE)
    after = replace(
        before,
        state=state,
        decision_id=decision.decision_id,
        reward_micro_per_kwh=decision.reward_micro_per_kwh,
        reward_micro_per_unit=decision.reward_micro_per_unit,
        price_eur_mwh=price.value if price is not None and price.fresh else None,
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


def see(tx: Tx, now: datetime, policy: Policy) -> Snapshot:
    """All signals of the policy's zone as known at ``now``; the price too, because it is what energy costs.

    The slot that counts holds ``now`` or is the last that ended, so the long look back is only for signals silent of late.
    """
    kinds = sorted({*policy.signals, SignalKind.PRICE, SignalKind.SURPLUS, SignalKind.RENEWABLE_SHARE})
    readings: list[Reading] = []
    for kind in kinds:
        for back in (_LATELY, _LOOK_BACK):
            found = tx.readings(policy.zone, kind, now - back, now + _INSTANT, known_at=now)
            if found:
                readings += found
                break
    return snapshot(policy.zone, now, readings, policy.stale_limits)


def _outcome(decision: Decision) -> tuple[float, str, str]:
    return (decision.target_w, decision.tier.value, decision.reason.value)
