"""What a policy says, as records: when there is surplus, how much may be drawn, what it pays, what else.

The file format is in ``gridsched.plugins``; what follows from a rule at one moment is ``gridsched.core.policy.evaluate``.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gridsched.core.condition import AnyOf, Comparison, Condition, Leaf, leaves
from gridsched.core.errors import PolicyError
from gridsched.core.job import is_name
from gridsched.core.signal import STALE_AFTER, SignalKind
from gridsched.core.units import utc

__all__ = ["AlarmRule", "Budget", "Draw", "Policy", "Reward", "SchedulingRule", "TopUp", "day_start"]


OBEYED = frozenset({SignalKind.ALARM, SignalKind.LIMIT})
"""What every policy obeys without naming it."""
_STALEST = timedelta(days=31)


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
        """Whether a limit of 0 W forbids drawing anything."""
        return self.max_w == 0 or self.watts == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AlarmRule:
    """A grid alarm stops everything at once and must be clear for ``clear_for`` before anything goes on.

    An alarm that was never heard of is taken as silent, unless ``required``; one heard and then lost pauses until it is heard again.
    """

    clear_for: timedelta = timedelta(minutes=5)
    required: bool = False

    @property
    def leaf(self) -> Leaf:
        """The alarm as a condition: on at once, off after ``clear_for``."""
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
class SchedulingRule:
    """How the hours of a job with a deadline are chosen: those in which ``objective`` is lowest, or highest where its ``sign`` is -1.

    Once on, such a job stays on for ``min_on``, once off it rests for ``min_off``; ``restart_waste`` is the work that a start loses.
    """

    objective: SignalKind = SignalKind.PRICE
    min_on: timedelta = timedelta(0)
    min_off: timedelta = timedelta(0)
    restart_waste: timedelta = timedelta(minutes=1)

    def __post_init__(self) -> None:
        if self.objective in OBEYED:
            raise PolicyError(f"[schedule] objective {self.objective} is obeyed, not sought; use price, carbon, residual_load or surplus")
        if min(self.min_on, self.min_off, self.restart_waste) < timedelta(0):
            raise PolicyError("[schedule] min_on, min_off and restart_waste are 0 or longer")

    @property
    def sign(self) -> float:
        """By which the objective becomes a cost: -1 where more of it is better."""
        return -1.0 if self.objective in (SignalKind.SURPLUS, SignalKind.CURTAILMENT, SignalKind.RENEWABLE_SHARE) else 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The operator's rule for one zone. ``digest`` is the sha256 of its content: equal digests decide equally.

    ``stale_after`` holds only what differs from ``signal.STALE_AFTER``; ``stale_limits`` has every kind. ``agree`` says by how much, in
    the signal's unit, its sources may differ before none of them is believed.
    """

    name: str
    zone: str
    when: Condition
    draw: Draw
    alarm: AlarmRule = field(default_factory=AlarmRule)
    budget: Budget = field(default_factory=Budget)
    reward: Reward = field(default_factory=Reward)
    top_up: TopUp = field(default_factory=TopUp)
    schedule: SchedulingRule = field(default_factory=SchedulingRule)
    hold_out_share: float = 0.0
    valid_from: datetime | None = None
    valid_until: datetime | None = None
    timezone: str = "UTC"
    stale_after: tuple[tuple[SignalKind, timedelta], ...] = ()
    agree: tuple[tuple[SignalKind, float], ...] = ()
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        self._check()
        object.__setattr__(self, "digest", hashlib.sha256(self.canonical().encode()).hexdigest())

    def _check(self) -> None:
        for what, text in (("name", self.name), ("zone", self.zone)):
            if not is_name(text):
                raise PolicyError(f"{what} {text!r} must be lower-case letters, digits, - and _, at most 63")
        self._check_signals()
        if not 0 <= self.hold_out_share < 1:
            raise PolicyError(f"hold_out_share lies between 0 and below 1, got {self.hold_out_share:g}")
        for which in ("valid_from", "valid_until"):
            moment = getattr(self, which)
            try:
                object.__setattr__(self, which, moment and utc(moment))
            except ValueError as error:
                raise PolicyError(f"{which}: {error}") from error
        if self.valid_from and self.valid_until and not self.valid_from < self.valid_until:
            raise PolicyError(
                f"valid_until {self.valid_until.isoformat()} is not after valid_from {self.valid_from.isoformat()}; swap the two"
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise PolicyError(f"timezone {self.timezone!r} is not an IANA name such as Europe/Berlin") from error

    def _check_signals(self) -> None:
        looked_at = {leaf.signal for leaf in leaves(self.when)}
        if not looked_at:
            raise PolicyError('[when] has no condition; give at least one, for example any = [{ signal = "surplus", above = "2 kW" }]')
        if looked_at & OBEYED:
            raise PolicyError(f"{', '.join(sorted(looked_at & OBEYED))} never means surplus; leave it out of [when], it is obeyed anyway")
        if needless := sorted({kind for kind, _ in self.agree} - set(self.signals) | {kind for kind, _ in self.agree} & OBEYED):
            raise PolicyError(f"[agree] {', '.join(needless)}: the policy does not look at it, or obeys the strictest anyway; leave it out")
        if too_long := [kind for kind, limit in self.stale_after if limit > _STALEST]:
            raise PolicyError(f"[stale_after] {', '.join(too_long)}: nothing counts so long after its slot; give {_STALEST.days}d at most")

    def canonical(self) -> str:
        """The content as one line of JSON with sorted keys."""
        content = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("when", "digest")}
        return json.dumps({**content, "when": _tree(self.when)}, sort_keys=True, default=_plain)

    def is_valid_at(self, now: datetime) -> bool:
        """Whether ``now`` lies in ``[valid_from, valid_until)``."""
        return not (self.valid_from and now < self.valid_from) and not (self.valid_until and now >= self.valid_until)

    @property
    def stale_limits(self) -> Mapping[SignalKind, timedelta]:
        """How long each signal stays fresh after its slot has ended."""
        return {**STALE_AFTER, **dict(self.stale_after)}

    @property
    def ceiling(self) -> float | None:
        """Above which cost (`SchedulingRule.sign` x objective) nothing may be drawn at all; None where there is no such limit.

        It follows from the conditions on the objective and, where the objective is the price, from the top-up's highest price.
        """
        rule = self.schedule
        if self.top_up.allowed and (self.top_up.max_price_eur_mwh is None or rule.objective is not SignalKind.PRICE):
            return None
        starts = [rule.sign * leaf.start for leaf in leaves(self.when) if leaf.signal is rule.objective]
        if self.top_up.allowed and self.top_up.max_price_eur_mwh is not None:
            starts.append(self.top_up.max_price_eur_mwh)
        return max(starts, default=None)

    @property
    def signals(self) -> tuple[SignalKind, ...]:
        """Every signal this policy looks at, alarm and limit included, sorted."""
        kinds = {leaf.signal for leaf in leaves(self.when)} | OBEYED
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
        return value.isoformat()
    return asdict(value)


def day_start(policy: Policy, now: datetime) -> datetime:
    """When the budget day that holds ``now`` began: midnight in the policy's time zone, in UTC."""
    local = utc(now).astimezone(ZoneInfo(policy.timezone))
    return utc(local.replace(hour=0, minute=0, second=0, microsecond=0, fold=0))  # the first, where the clock shows midnight twice
