"""A zone's running state: what its policy remembers, what today has used, and the operator's switch."""

from dataclasses import dataclass, field, replace
from datetime import datetime

from gridsched.core.policy import PolicyState, Used

__all__ = ["ZoneState"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ZoneState:
    """``paused`` is the operator's switch, thrown by ``paused_by`` (a token's name) at ``paused_at``; both say nothing where it is off.

    ``price_eur_mwh`` is the price at the last control tick (None: unknown).

    ``hold_out_share`` is the policy's at that tick, for whoever asks nodes to work between two ticks.

    ``energy_j`` and ``money_micro`` were used since ``day`` began in the policy's time zone.
    """

    zone: str
    policy_digest: str = ""
    state: PolicyState = field(default_factory=PolicyState)
    paused: bool = False
    decision_id: str = ""
    reward_micro_per_kwh: int = 0
    reward_micro_per_unit: int = 0
    price_eur_mwh: float | None = None
    hold_out_share: float = 0.0
    day: datetime | None = None
    energy_j: float = 0.0
    money_micro: float = 0.0
    paused_at: datetime | None = None
    paused_by: str = ""

    def used(self, day: datetime) -> Used:
        """What has been used since ``day``; nothing where the counters are of an earlier one."""
        return Used(energy_j=self.energy_j, money_micro=self.money_micro) if self.day == day else Used()

    def spend(self, *, energy_j: float, money_micro: float) -> "ZoneState":
        """With further energy and promised reward on today's counters."""
        return replace(self, energy_j=self.energy_j + energy_j, money_micro=self.money_micro + money_micro)
