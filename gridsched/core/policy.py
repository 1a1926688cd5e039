"""Policy: how much may be drawn in a zone, and why.

``evaluate`` is pure: the same policy, state, snapshot and moment give the same decision, which is stored with the policy's
digest and the ages of its inputs, so that anyone can ask later why a node was paused at 14:03. More surplus never lowers
the target; a limit of 0 means zero.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gridsched.core.condition import AllOf, AnyOf, Comparison, Condition, Leaf, LeafState, holds, leaves, step
from gridsched.core.errors import PolicyError
from gridsched.core.job import is_name
from gridsched.core.signal import STALE_AFTER, UNIT, SignalKind, SignalState, Snapshot, is_fresh
from gridsched.core.units import utc

__all__ = [
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
    TOP_UP = "top_up"
    NO_SURPLUS = "no_surplus"
    WAITING_START_DELAY = "waiting_start_delay"
    ALARM = "alarm"
    STALE_SIGNAL = "stale_signal"
    UNKNOWN_SIGNAL = "unknown_signal"
    OUTSIDE_VALIDITY = "outside_validity"
    BUDGET_SPENT_ENERGY = "budget_spent_energy"
    BUDGET_SPENT_MONEY = "budget_spent_money"
    CAP_ZERO = "cap_zero"
    PAUSED_BY_OPERATOR = "paused_by_operator"
    NO_POLICY = "no_policy"


_WHY_ON: Mapping[SignalKind, Reason] = MappingProxyType(
    {
        SignalKind.SURPLUS: Reason.SURPLUS,
        SignalKind.CURTAILMENT: Reason.CURTAILMENT,
        SignalKind.PRICE: Reason.PRICE,
        SignalKind.CARBON: Reason.LOW_CARBON,
        SignalKind.RENEWABLE_SHARE: Reason.RENEWABLES,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """How much may be drawn: ``watts``, or ``share`` of the signal ``share_of`` but at least ``min_w`` while the rule holds.

    ``max_w`` caps either; 0 means zero, None means no cap.
    """

    watts: float | None = None
    share_of: SignalKind | None = None
    share: float = 0.0
    min_w: float = 0.0
    max_w: float | None = None

    def __post_init__(self) -> None:
        if (self.watts is None) == (self.share_of is None):
            raise PolicyError("[draw] needs either watts or share_of_surplus (or share_of_curtailment), and not both")
        if self.share_of not in (None, SignalKind.SURPLUS, SignalKind.CURTAILMENT):
            raise PolicyError(f"[draw] cannot take a share of {self.share_of}; only surplus and curtailment are powers")
        if not 0 <= self.share <= 1:
            raise PolicyError(f"[draw] a share of the surplus lies between 0 and 1, got {self.share:g}")
        for name, value in (("watts", self.watts), ("min_watts", self.min_w), ("max_watts", self.max_w)):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise PolicyError(f"[draw] {name} must be 0 or more, got {value:g}")
        if self.max_w is not None and self.min_w > self.max_w:
            raise PolicyError(f"[draw] min_watts {self.min_w:g} is more than max_watts {self.max_w:g}")

    def target_w(self, signal_w: float | None) -> float:
        """Watts to draw while the rule holds, given the value of ``share_of`` (None: unknown, which counts as no surplus)."""
        wanted = self.watts if self.watts is not None else max(self.min_w, self.share * max(0.0, signal_w or 0.0))
        return wanted if self.max_w is None else min(wanted, self.max_w)

    @property
    def is_zero(self) -> bool:
        return self.max_w == 0 or self.watts == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRule:
    """A grid alarm stops everything at once and must be clear for ``clear_for`` before anything goes on.

    An alarm that was never heard of is taken as silent, unless ``required``; one heard and then lost pauses like any stale signal.
    """

    clear_for: timedelta = timedelta(minutes=5)
    required: bool = False

    @property
    def leaf(self) -> Leaf:
        return Leaf(signal=SignalKind.ALARM, comparison=Comparison.ABOVE, start=0.5, stop=0.5, stop_delay=self.clear_for)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """The most a zone may use per day of ``Policy.timezone``; 0 means nothing, None means no limit."""

    energy_j: float | None = None
    money_micro: int | None = None

    def __post_init__(self) -> None:
        if min(self.energy_j or 0, self.money_micro or 0) < 0:
            raise PolicyError("[budget] cannot be negative; leave it out for no limit")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """What the consumer is paid, in whole micro-units; shown before anyone opts in."""

    micro_per_kwh: int = 0
    micro_per_unit: int = 0

    def __post_init__(self) -> None:
        if min(self.micro_per_kwh, self.micro_per_unit) < 0:
            raise PolicyError("[reward] cannot be negative: a consumer is never charged for lending a machine")


@dataclass(frozen=True, slots=True, kw_only=True)
class TopUp:
    """May a job that would miss its deadline draw ``watts`` outside surplus, and up to which price? Off by default."""

    allowed: bool = False
    watts: float = 0.0
    max_price_eur_mwh: float | None = None

    def __post_init__(self) -> None:
        if self.allowed and not self.watts > 0:
            raise PolicyError("[top_up] allowed = true needs watts, for example watts = 500")


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's rule for one zone. ``digest`` is the sha256 of its content: equal digests decide equally.

    ``stale_after`` holds only what differs from ``signal.STALE_AFTER``; ``stale_limits`` has every kind.
    """

    name: str
    zone: str
    when: Condition
    draw: Draw
    alarm: AlarmRule = field(default_factory=AlarmRule)
    budget: Budget = field(default_factory=Budget)
    reward: Reward = field(default_factory=Reward)
    top_up: TopUp = field(default_factory=TopUp)
    hold_out_share: float = 0.0
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    timezone: str = "UTC"
    stale_after: tuple[tuple[SignalKind, timedelta], ...] = ()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "digest", hashlib.sha256(self.canonical().encode()).hexdigest())

    def _check(self) -> None:
        for what, text in (("name", self.name), ("zone", self.zone)):
            if not is_name(text):
                raise PolicyError(f"{what} {text!r} must be lower-case letters, digits, - and _, at most 63")
        if not any(True for _ in leaves(self.when)):
            raise PolicyError("[when] has no condition; give at least one, for example any = [{ signal = \"surplus\", above = \"2 kW\" }]")
        if any(leaf.signal is SignalKind.ALARM for leaf in leaves(self.when)):
            raise PolicyError("an alarm never means surplus; leave it out of [when], it is obeyed anyway (see [alarm])")
        if not 0 <= self.hold_out_share < 1:
            raise PolicyError(f"hold_out_share lies between 0 and below 1, got {self.hold_out_share:g}")
        if self.valid_from and self.valid_until and not utc(self.valid_from) < utc(self.valid_until):
            raise PolicyError(f"valid_until {self.valid_until.isoformat()} is not after valid_from {self.valid_from.isoformat()}; swap the two")
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise PolicyError(f"timezone {self.timezone!r} is not an IANA name such as Europe/Berlin") from error

    def canonical(self) -> str:
        """The content as one line of JSON with sorted keys."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("when", "digest")}
        return json.dumps({**content, "when": _tree(self.when)}, sort_keys=True, default=_plain)

    @property
    def stale_limits(self) -> Mapping[SignalKind, timedelta]:
        """How long each signal stays fresh after its slot has ended."""
        return {**STALE_AFTER, **dict(self.stale_after)}

    @property
    def signals(self) -> tuple[SignalKind, ...]:
        """Every signal this policy looks at, the alarm included, sorted."""
        kinds = {leaf.signal for leaf in leaves(self.when)} | {SignalKind.ALARM}
        if self.draw.share_of is not None:
            kinds.add(self.draw.share_of)
        if self.top_up.allowed and self.top_up.max_price_eur_mwh is not None:
            kinds.add(SignalKind.PRICE)
        return tuple(sorted(kinds))


def _tree(condition: Condition) -> object:
    if isinstance(condition, Leaf):
        return condition.key
    return {"any" if isinstance(condition, AnyOf) else "all": [_tree(child) for child in condition.conditions]}


def _plain(value: Any) -> object:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, datetime):
        return utc(value).isoformat()
    return asdict(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What the zone has used since ``day_start``: metered energy and promised rewards."""

    energy_j: float = 0.0
    money_micro: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyState:
    """What ``evaluate`` remembers from one tick to the next: each leaf's state by ``Leaf.key``."""

    leaves: Mapping[str, LeafState] = field(default_factory=dict)

    def to_json(self) -> str:
        rows = {key: [s.on, s.since.isoformat(), s.pending_since and s.pending_since.isoformat()] for key, s in self.leaves.items()}
        return json.dumps(rows, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "PolicyState":
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


def day_start(policy: Policy, now: datetime) -> datetime:
    """When the budget day that holds ``now`` began: midnight in the policy's time zone, in UTC."""
    local = utc(now).astimezone(ZoneInfo(policy.timezone))
    return utc(local.replace(hour=0, minute=0, second=0, microsecond=0))


def evaluate(
    policy: Policy,
    state: PolicyState,
    snapshot: Snapshot,
    now: datetime,
    *,
    used: Used = Used(),  # noqa: B008 - frozen
    paused: bool = False,
    wants_top_up: bool = False,
) -> tuple[Decision, PolicyState]:
    """How many watts may be drawn at ``now``, why, and what to remember for the next tick.

    ``used`` is what today's budget has spent; ``paused`` is the operator's switch; ``wants_top_up`` says that some job
    would miss its deadline on surplus alone. Delays count from the ticks that saw the signal, so a daemon that was down
    should start from an empty state.
    """
    fresh = {kind: _fresh_value(policy, snapshot.get(kind), now) for kind in policy.signals}
    rules = [*leaves(policy.when), policy.alarm.leaf]
    after = {leaf.key: step(leaf, state.leaves.get(leaf.key), fresh[leaf.signal], now) for leaf in rules}
    target_w, tier, reason, detail = (
        _stopped(policy, snapshot, fresh, after, now, used, paused)
        or _best(_surplus(policy, snapshot, fresh, after), _top_up(policy, fresh, wants_top_up))
    )
    decision = Decision(
        zone=policy.zone,
        policy=policy.name,
        policy_digest=policy.digest,
        decided_at=now,
        target_w=target_w,
        tier=tier,
        reason=reason,
        detail=detail,
        inputs=_inputs(policy, snapshot, now),
        reward_micro_per_kwh=policy.reward.micro_per_kwh,
        reward_micro_per_unit=policy.reward.micro_per_unit,
    )
    return decision, PolicyState(leaves=after)


_Outcome = tuple[float, Tier, Reason, str]
_Values = Mapping[SignalKind, float | None]


def _no(reason: Reason, detail: str) -> _Outcome:
    return 0.0, Tier.NONE, reason, detail


def _fresh_value(policy: Policy, state: SignalState | None, now: datetime) -> float | None:
    """The policy's own limit decides, whatever limit the snapshot was built with."""
    if state is None or not is_fresh(state, now, policy.stale_limits[state.kind]):
        return None
    return state.value


def _inputs(policy: Policy, snapshot: Snapshot, now: datetime) -> tuple[Input, ...]:
    states = [state for kind in policy.signals if (state := snapshot.get(kind)) is not None]
    return tuple(
        Input(signal=s.kind, value=s.value, age_s=max(0.0, (now - s.end).total_seconds()), source=s.source) for s in states
    )


def _stopped(
    policy: Policy, snapshot: Snapshot, fresh: _Values, after: Mapping[str, LeafState], now: datetime, used: Used, paused: bool
) -> _Outcome | None:
    """What forbids drawing anything, whatever the grid says; the first that applies."""
    budget = policy.budget
    if (policy.valid_from and now < policy.valid_from) or (policy.valid_until and now >= policy.valid_until):
        return _no(Reason.OUTSIDE_VALIDITY, f"the policy is valid from {policy.valid_from or 'ever'} until {policy.valid_until or 'further notice'}")
    if paused:
        return _no(Reason.PAUSED_BY_OPERATOR, "the operator has paused this zone")
    if after[policy.alarm.leaf.key].on:
        return _no(Reason.ALARM, f"a grid alarm holds, or has not been clear for {_minutes(policy.alarm.clear_for)} yet")
    heard = snapshot.get(SignalKind.ALARM) is not None
    if fresh[SignalKind.ALARM] is None and (heard or policy.alarm.required):
        return _missing(snapshot, SignalKind.ALARM, now)
    if policy.draw.is_zero:
        return _no(Reason.CAP_ZERO, "the policy's limit is 0 W")
    if budget.energy_j is not None and used.energy_j >= budget.energy_j:
        return _no(Reason.BUDGET_SPENT_ENERGY, f"today's energy budget of {budget.energy_j / 3.6e6:g} kWh is spent")
    if budget.money_micro is not None and used.money_micro >= budget.money_micro:
        return _no(Reason.BUDGET_SPENT_MONEY, f"today's money budget of {budget.money_micro / 1e6:g} EUR is spent")
    return None


def _surplus(policy: Policy, snapshot: Snapshot, fresh: _Values, after: Mapping[str, LeafState]) -> _Outcome:
    """What the rule and the draw give."""
    rule = list(leaves(policy.when))
    truth = {leaf.key: None if fresh[leaf.signal] is None else after[leaf.key].on for leaf in rule}
    verdict = holds(policy.when, truth)
    if verdict is None:
        unknown = next(leaf.signal for leaf in rule if truth[leaf.key] is None)
        return _missing(snapshot, unknown, snapshot.now)
    if not verdict:
        return _not_yet(rule, fresh, after)
    carrier = next(leaf for leaf in rule if truth[leaf.key])
    target_w = policy.draw.target_w(fresh[policy.draw.share_of] if policy.draw.share_of else None)
    if target_w > 0:
        return target_w, Tier.SURPLUS, _WHY_ON[carrier.signal], f"{_says(carrier, fresh)}: up to {target_w:.0f} W"
    share_of = policy.draw.share_of
    if share_of is not None and fresh[share_of] is None:
        return _missing(snapshot, share_of, snapshot.now)
    return _no(Reason.NO_SURPLUS, f"{_says(carrier, fresh)}, but there is no {share_of} to share")


def _not_yet(rule: list[Leaf], fresh: _Values, after: Mapping[str, LeafState]) -> _Outcome:
    for leaf in rule:
        pending = after[leaf.key].pending_since
        if pending is not None and not after[leaf.key].on:
            return _no(Reason.WAITING_START_DELAY, f"{_says(leaf, fresh)} since {pending:%H:%M:%S} UTC; starts after {_minutes(leaf.start_delay)}")
    return _no(Reason.NO_SURPLUS, "; ".join(_says_not(leaf, fresh) for leaf in rule if not after[leaf.key].on))


def _top_up(policy: Policy, fresh: _Values, wanted: bool) -> _Outcome | None:
    rule = policy.top_up
    if not (wanted and rule.allowed):
        return None
    watts = rule.watts if policy.draw.max_w is None else min(rule.watts, policy.draw.max_w)
    if rule.max_price_eur_mwh is None:
        return watts, Tier.TOP_UP, Reason.TOP_UP, f"a deadline is at risk: up to {watts:.0f} W outside surplus"
    price = fresh[SignalKind.PRICE]
    if price is None or price > rule.max_price_eur_mwh:
        return None
    return watts, Tier.TOP_UP, Reason.TOP_UP, f"a deadline is at risk and the price of {price:g} EUR/MWh allows up to {watts:.0f} W"


def _best(surplus: _Outcome, top_up: _Outcome | None) -> _Outcome:
    """The larger target, so that a little surplus never lowers what a deadline was granted."""
    return top_up if top_up is not None and top_up[0] > surplus[0] else surplus


def _missing(snapshot: Snapshot, kind: SignalKind, now: datetime) -> _Outcome:
    state = snapshot.get(kind)
    if state is None:
        return _no(Reason.UNKNOWN_SIGNAL, f"{kind} is unknown in {snapshot.zone}: no adapter has given a reading yet")
    return _no(Reason.STALE_SIGNAL, f"{kind} from {state.source} is stale: its last slot ended at {state.end:%Y-%m-%d %H:%M} UTC")


def _says(leaf: Leaf, fresh: _Values) -> str:
    return f"{leaf.signal} {fresh[leaf.signal]:g} {UNIT[leaf.signal]} is {leaf.comparison} {leaf.start:g}"


def _says_not(leaf: Leaf, fresh: _Values) -> str:
    value = fresh[leaf.signal]
    if value is None:
        return f"{leaf.signal} is not known"
    return f"{leaf.signal} {value:g} {UNIT[leaf.signal]} is not {leaf.comparison} {leaf.start:g}"


def _minutes(delay: timedelta) -> str:
    return f"{delay.total_seconds() / 60:g} min"
