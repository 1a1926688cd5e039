"""What a policy would decide over the time to come, given what is known and expected of it. Pure, and never stored as a decision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from gridsched.core.policy import Decision, Policy, PolicyState, Reason, Tier, Used, day_start, evaluate
from gridsched.core.signal import Snapshot
from gridsched.core.units import J_PER_KWH

__all__ = ["Foretold", "foretell"]

_NOTHING_USED = Used()


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """A slot from ``start`` to ``end``: the mean of the targets in it, and the outcome that holds for most of it."""

    start: datetime
    end: datetime
    target_w: float
    tier: Tier
    reason: Reason
    detail: str


def foretell(
    policy: Policy, state: PolicyState, views: Iterable[Snapshot], *, pace: timedelta, slot: timedelta, used: Used = _NOTHING_USED
) -> list[Foretold]:
    """The policy evaluated at each of ``views``, which follow one another at ``pace``, told by slots of ``slot``.

    Budgets are counted as if all that is offered were drawn, so what is foretold to run out may last longer. The operator's switch is
    taken as off, and no deadline as pressing.
    """
    day: datetime | None = None
    decisions: list[Decision] = []
    for view in views:
        today = day_start(policy, view.now)
        used, day = (used if day in (None, today) else _NOTHING_USED), today
        decision, state = evaluate(policy, state, view, view.now, used=used)
        energy_j = decision.target_w * pace.total_seconds()
        money = energy_j / J_PER_KWH * decision.reward_micro_per_kwh
        used = Used(energy_j=used.energy_j + energy_j, money_micro=used.money_micro + money)
        decisions.append(decision)
    per_slot = slot // pace
    return [_told(decisions[first : first + per_slot], pace) for first in range(0, len(decisions), per_slot)]


def _told(decisions: Sequence[Decision], pace: timedelta) -> Foretold:
    counts: dict[tuple[Tier, Reason], int] = {}
    for decision in decisions:
        counts[decision.tier, decision.reason] = counts.get((decision.tier, decision.reason), 0) + 1
    most = max(counts, key=lambda outcome: counts[outcome])
    shown = next(decision for decision in decisions if (decision.tier, decision.reason) == most)
    return Foretold(
        start=decisions[0].decided_at,
        end=decisions[-1].decided_at + pace,
        target_w=sum(decision.target_w for decision in decisions) / len(decisions),
        tier=shown.tier,
        reason=shown.reason,
        detail=shown.detail,
    )
