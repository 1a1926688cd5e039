"""The consumer's standing choice, and whether it allows work right now."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from gridsched.core.errors import InvalidInput

__all__ = ["Consent", "ConsentReason", "opted_out"]


class ConsentReason(StrEnum):
    """Why a consumer's choice keeps a node from working."""

    OPTED_OUT = "opted_out"
    CONSENT_ENDED = "consent_ended"
    REWARD_TOO_LOW = "reward_too_low"


@dataclass(frozen=True, slots=True, kw_only=True)
class Consent:
    """From when, until when (None: until withdrawn), at most how many watts (None: the node's own power), at least what reward.

    ``min_reward_micro_per_kwh`` is in micro-units per kilowatt hour. A limit of 0 W means zero, not "no limit".
    """

    node_id: str
    opted_in: bool
    since: datetime
    until: datetime | None = None
    max_w: float | None = None
    min_reward_micro_per_kwh: int = 0

    def __post_init__(self) -> None:
        if self.until is not None and self.opted_in and self.until <= self.since:
            raise InvalidInput(f"node {self.node_id}: opting in until {self.until} ends before it begins; give a time in the future")
        if self.max_w is not None and not self.max_w >= 0:
            raise InvalidInput(f"node {self.node_id}: max watts must be 0 or more, got {self.max_w}")

    def refuses(self, *, reward_micro_per_kwh: int, now: datetime) -> ConsentReason | None:
        """Why this consent does not allow work at ``now`` for this reward, or None where it does. ``until`` itself is outside."""
        if not self.opted_in or now < self.since:
            return ConsentReason.OPTED_OUT
        if self.until is not None and now >= self.until:
            return ConsentReason.CONSENT_ENDED
        if reward_micro_per_kwh < self.min_reward_micro_per_kwh:
            return ConsentReason.REWARD_TOO_LOW
        return None

    def power_w(self, registered_w: float) -> float:
        """The most this node may draw, in watts."""
        return registered_w if self.max_w is None else min(registered_w, self.max_w)

    def left(self, now: datetime) -> timedelta | None:
        """Time until the consent ends, or None where it has no end."""
        return None if self.until is None else max(self.until - now, timedelta(0))


def opted_out(node_id: str, now: datetime) -> Consent:
    """The consent of a node that has not said yes: nobody is opted in by default."""
    return Consent(node_id=node_id, opted_in=False, since=now)
