"""Policy: how much may be drawn in a zone right now, and why.

``evaluate`` is pure: the same policy, state, snapshot and moment give the same decision, which is stored with the policy's
digest and the ages of its inputs, so that anyone can ask later why a node was paused at 14:03. More surplus never lowers
the target; a limit of 0 means zero.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType

from gridsched.core.condition import AllOf, AnyOf, Comparison, Condition, Leaf, LeafState, holds, leaves, step
from gridsched.core.rule import AlarmRule, Budget, Draw, Policy, Reward, TopUp, day_start
from gridsched.core.signal import UNIT, SignalKind, SignalState, Snapshot, is_fresh, why_stale
from gridsched.core.units import J_PER_KWH, MICRO

__all__ = [
    "WHY_ON",
    "AlarmRule",
    "AllOf",
    "AnyOf",
    "Budget",
    "Comparison",
    "Condition",
    "Decision",
    "Draw",
    "Input",
    "Leaf",
    "LeafState",
    "Policy",
    "PolicyState",
    "Reason",
    "Reward",
    "Tier",
    "TopUp",
    "Used",
    "day_start",
    "evaluate",
]


class Tier(StrEnum):
    """Where the energy of a decision comes from. ``top_up`` is never surplus and always labelled."""

    SURPLUS = "surplus"
    TOP_UP = "top_up"
    NONE = "none"


class Reason(StrEnum):
    """Why a decision is what it is; the same words in logs, metrics, API and pages."""

    SURPLUS = "surplus"
    CURTAILMENT = "curtailment"
    PRICE = "price"
    LOW_CARBON = "low_carbon"
    RENEWABLES = "renewables"
    LOW_RESIDUAL_LOAD = "low_residual_load"
    TOP_UP = "top_up"
    NO_SURPLUS = "no_surplus"
    WAITING_START_DELAY = "waiting_start_delay"
    ALARM = "alarm"
    STALE_SIGNAL = "stale_signal"
    UNKNOWN_SIGNAL = "unknown_signal"
    DISPUTED_SIGNAL = "disputed_signal"
    OUTSIDE_VALIDITY = "outside_validity"
    BUDGET_SPENT_ENERGY = "budget_spent_energy"
    BUDGET_SPENT_MONEY = "budget_spent_money"
    CAP_ZERO = "cap_zero"
    LIMITED_TO_ZERO = "limited_to_zero"
    PAUSED_BY_OPERATOR = "paused_by_operator"
    NO_POLICY = "no_policy"


WHY_ON: Mapping[SignalKind, Reason] = MappingProxyType(
    {
        SignalKind.SURPLUS: Reason.SURPLUS,
        SignalKind.CURTAILMENT: Reason.CURTAILMENT,
        SignalKind.PRICE: Reason.PRICE,
        SignalKind.CARBON: Reason.LOW_CARBON,
        SignalKind.RENEWABLE_SHARE: Reason.RENEWABLES,
        SignalKind.RESIDUAL_LOAD: Reason.LOW_RESIDUAL_LOAD,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What the zone has used since ``day_start``: metered energy and promised rewards."""

    energy_j: float = 0.0
    money_micro: float = 0.0


_NOTHING_USED = Used()


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """What ``evaluate`` remembers from one tick to the next: each leaf's state by ``Leaf.key``."""

    leaves: Mapping[str, LeafState] = field(default_factory=dict)

    def after_a_gap(self, policy: Policy) -> "PolicyState":
        """What is left of it where nobody has looked for a while: an alarm that held, which must be seen clear for its whole time."""
        alarm = policy.alarm.leaf.key
        return PolicyState(leaves={key: replace(leaf, pending_since=None) for key, leaf in self.leaves.items() if key == alarm})

    def to_json(self) -> str:
        """One line of JSON: ``{key: [on, since, pending_since]}``."""
        rows = {key: [s.on, s.since.isoformat(), s.pending_since and s.pending_since.isoformat()] for key, s in self.leaves.items()}
        return json.dumps(rows, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PolicyState":
        """What ``to_json`` wrote."""
        rows = json.loads(text).items()
        moment = datetime.fromisoformat
        return cls(leaves={k: LeafState(on=on, since=moment(since), pending_since=p and moment(p)) for k, (on, since, p) in rows})


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """One signal as the decision saw it; ``value`` is in the signal's canonical unit."""

    signal: SignalKind
    value: float
    age_s: float
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The outcome: ``target_w`` may be drawn in ``zone``, from ``tier``, because of ``reason``; ``detail`` says it in a sentence."""

    zone: str
    policy: str
    policy_digest: str
    decided_at: datetime
    target_w: float
    tier: Tier
    reason: Reason
    detail: str
    inputs: tuple[Input, ...] = ()
    reward_micro_per_kwh: int = 0
    reward_micro_per_unit: int = 0

    @property
    def decision_id(self) -> str:
        """The decision's name, to the millisecond: beside its ticks a zone decides when the operator pauses it or lets it go on."""
        return f"{self.zone}.{self.decided_at:%Y%m%dT%H%M%S}{self.decided_at.microsecond // 1000:03}"


def evaluate(
    policy: Policy,
    state: PolicyState,
    snapshot: Snapshot,
    now: datetime,
    *,
    used: Used = _NOTHING_USED,
    paused: bool = False,
    wants_top_up: bool = False,
) -> tuple[Decision, PolicyState]:
    """How many watts may be drawn at ``now``, why, and what to remember for the next tick.

    ``used`` is what today's budget has spent; ``paused`` is the operator's switch; ``wants_top_up`` says that some job
    would miss its deadline on surplus alone. Delays count from the ticks that saw the signal, so a daemon that was down
    starts from what `PolicyState.after_a_gap` leaves.
    """
    view = _look(policy, state, snapshot, now)
    outcome = _forbidden(view, used, paused=paused) or _limited(view, _larger(_surplus(view), _top_up(view, wanted=wants_top_up)))
    decision = Decision(
        zone=policy.zone,
        policy=policy.name,
        policy_digest=policy.digest,
        decided_at=now,
        target_w=outcome.target_w,
        tier=outcome.tier,
        reason=outcome.reason,
        detail=outcome.detail,
        inputs=_inputs(view),
        reward_micro_per_kwh=policy.reward.micro_per_kwh,
        reward_micro_per_unit=policy.reward.micro_per_unit,
    )
    return decision, PolicyState(leaves=view.leaves)


@dataclass(frozen=True, slots=True)
class _View:
    """The moment as the policy sees it: ``values`` that are fresh by its own limits, and its leaves, already stepped."""

    policy: Policy
    snapshot: Snapshot
    now: datetime
    values: Mapping[SignalKind, float | None]
    leaves: Mapping[str, LeafState]


@dataclass(frozen=True, slots=True)
class _Outcome:
    reason: Reason
    detail: str
    target_w: float = 0.0
    tier: Tier = Tier.NONE


def _look(policy: Policy, state: PolicyState, snapshot: Snapshot, now: datetime) -> _View:
    limits = policy.stale_limits
    disputed = {kind for kind, apart in policy.agree if _disputes(snapshot.get(kind), apart)}
    values = {kind: None if kind in disputed else _fresh_value(snapshot.get(kind), now, limits[kind]) for kind in policy.signals}
    rules = [*leaves(policy.when), policy.alarm.leaf]
    stepped = {leaf.key: step(leaf, state.leaves.get(leaf.key), values[leaf.signal], now) for leaf in rules}
    return _View(policy, snapshot, now, values, stepped)


def _fresh_value(state: SignalState | None, now: datetime, stale_after: timedelta) -> float | None:
    """The policy's own limit decides, whatever limit the snapshot was built with."""
    return state.value if state is not None and is_fresh(state, now, stale_after) else None


def _disputes(state: SignalState | None, apart: float) -> list[tuple[str, float]]:
    """The sources that are further ``apart`` from what counts, each with its value."""
    return [] if state is None else [(source, value) for source, value in state.others if abs(value - state.value) > apart]


def _forbidden(view: _View, used: Used, *, paused: bool) -> _Outcome | None:
    """What forbids drawing anything, whatever surplus there is; the first that applies."""
    policy, now = view.policy, view.now
    if not policy.is_valid_at(now):
        return _Outcome(Reason.OUTSIDE_VALIDITY, f"the policy is valid from {policy.valid_from} until {policy.valid_until}")
    if paused:
        return _Outcome(Reason.PAUSED_BY_OPERATOR, "the operator has paused this zone")
    return _alarm(view) or _limits(policy, used)


def _alarm(view: _View) -> _Outcome | None:
    rule = view.policy.alarm
    held = view.leaves[rule.leaf.key].on
    heard = held or view.snapshot.get(SignalKind.ALARM) is not None
    if view.values[SignalKind.ALARM] is None and (heard or rule.required):
        lost = _missing(view, SignalKind.ALARM)
        return replace(lost, detail=f"{lost.detail}; nothing is drawn until a source says whether there is one")
    if held:
        return _Outcome(Reason.ALARM, f"a grid alarm holds, or has not been clear for {_minutes(rule.clear_for)} yet")
    return None


def _limits(policy: Policy, used: Used) -> _Outcome | None:
    budget = policy.budget
    if policy.draw.is_zero:
        return _Outcome(Reason.CAP_ZERO, "the policy's limit is 0 W")
    if budget.energy_j is not None and used.energy_j >= budget.energy_j:
        return _Outcome(Reason.BUDGET_SPENT_ENERGY, f"today's energy budget of {budget.energy_j / J_PER_KWH:g} kWh is spent")
    if budget.money_micro is not None and used.money_micro >= budget.money_micro:
        return _Outcome(Reason.BUDGET_SPENT_MONEY, f"today's money budget of {budget.money_micro / MICRO:g} EUR is spent")
    return None


def _surplus(view: _View) -> _Outcome:
    """What the rule gives: nothing with the reason, or the draw with the first leaf that carries it."""
    rule = list(leaves(view.policy.when))
    truth = {leaf.key: None if view.values[leaf.signal] is None else view.leaves[leaf.key].on for leaf in rule}
    verdict = holds(view.policy.when, truth)
    if verdict is None:
        return _missing(view, next(leaf.signal for leaf in rule if truth[leaf.key] is None))
    if not verdict:
        return _not_yet(view, [leaf for leaf in rule if not truth[leaf.key]])
    return _drawn(view, next(leaf for leaf in rule if truth[leaf.key]))


def _drawn(view: _View, carrier: Leaf) -> _Outcome:
    draw = view.policy.draw
    target_w = draw.target_w(view.values[draw.share_of] if draw.share_of else None)
    if target_w > 0:
        why = WHY_ON[carrier.signal]
        return _Outcome(why, f"{_says(view, carrier)}: up to {target_w:.0f} W", target_w=target_w, tier=Tier.SURPLUS)
    if draw.share_of is not None and view.values[draw.share_of] is None:
        return _missing(view, draw.share_of)
    return _Outcome(Reason.NO_SURPLUS, f"{_says(view, carrier)}, but there is no {draw.share_of} to take a share of")


def _not_yet(view: _View, off: list[Leaf]) -> _Outcome:
    for leaf in off:
        pending = view.leaves[leaf.key].pending_since
        if pending is not None:
            since = f"since {pending:%H:%M:%S} UTC; it starts after {_minutes(leaf.start_delay)}"
            return _Outcome(Reason.WAITING_START_DELAY, f"{_says(view, leaf)} {since}")
    return _Outcome(Reason.NO_SURPLUS, "; ".join(_says(view, leaf, not_="not ") for leaf in off))


def _top_up(view: _View, *, wanted: bool) -> _Outcome | None:
    rule = view.policy.top_up
    if not (wanted and rule.allowed):
        return None
    detail = "a deadline is at risk"
    if rule.max_price_eur_mwh is not None:
        price = view.values[SignalKind.PRICE]
        if price is None or price > rule.max_price_eur_mwh:
            return None
        detail += f" and the price of {price:g} EUR/MWh allows it"
    cap_w = view.policy.draw.max_w
    watts = rule.watts if cap_w is None else min(rule.watts, cap_w)
    return _Outcome(Reason.TOP_UP, f"{detail}: up to {watts:.0f} W outside surplus", target_w=watts, tier=Tier.TOP_UP)


def _larger(surplus: _Outcome, top_up: _Outcome | None) -> _Outcome:
    """The larger target, so that a little surplus never lowers what a deadline was granted."""
    return top_up if top_up is not None and top_up.target_w > surplus.target_w else surplus


def _limited(view: _View, outcome: _Outcome) -> _Outcome:
    """No more than the utility allows for now; it binds while it is fresh, so where none is known there is none."""
    limit_w = view.values[SignalKind.LIMIT]
    if limit_w is None or outcome.target_w <= limit_w:
        return outcome
    if limit_w <= 0:
        return _Outcome(Reason.LIMITED_TO_ZERO, f"{outcome.detail}, but the utility's limit is 0 W for now")
    return replace(outcome, target_w=limit_w, detail=f"{outcome.detail}, limited to {limit_w:.0f} W by the utility")


def _missing(view: _View, kind: SignalKind) -> _Outcome:
    state = view.snapshot.get(kind)
    if state is None:
        return _Outcome(Reason.UNKNOWN_SIGNAL, f"{kind} is unknown in {view.policy.zone}: no adapter has given a reading")
    for source, value in _disputes(state, dict(view.policy.agree).get(kind, math.inf)):
        said = f"{state.source} says {state.value:g} {UNIT[kind]} and {source} says {value:g}"
        return _Outcome(Reason.DISPUTED_SIGNAL, f"{kind} is disputed: {said}; look which of the two is wrong")
    return _Outcome(Reason.STALE_SIGNAL, f"{kind} from {state.source} is stale: {why_stale(state, view.now)}")


def _says(view: _View, leaf: Leaf, *, not_: str = "") -> str:
    value = view.values[leaf.signal]
    if value is None:
        return f"{leaf.signal} is not known"
    shown = f"{leaf.signal} {value:g} {UNIT[leaf.signal]}"
    if not not_ and view.leaves[leaf.key].on and not leaf.passes(value, leaf.start):
        longer = f" for {_minutes(leaf.stop_delay)}" if leaf.stop_delay else ""
        return f"{shown} has not been back at {leaf.stop:g}{longer} yet"
    return f"{shown} is {not_}{leaf.comparison} {leaf.start:g}"


def _inputs(view: _View) -> tuple[Input, ...]:
    states = [state for kind in view.policy.signals if (state := view.snapshot.get(kind)) is not None]
    return tuple(Input(signal=s.kind, value=s.value, age_s=max(0.0, (view.now - s.end).total_seconds()), source=s.source) for s in states)


def _minutes(delay: timedelta) -> str:
    return f"{delay.total_seconds() / 60:g} min"
