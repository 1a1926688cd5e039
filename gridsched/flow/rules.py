"""The numbers that verbs go by, as the operator set them."""

from dataclasses import dataclass
from datetime import timedelta

from gridsched.core.copies import Pace
from gridsched.core.errors import InvalidInput
from gridsched.core.trust import Auditing

__all__ = ["Rules"]

_PUSH_S = 4.0
_TRIP_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Durations are of the daemon's clock; ``clock_speed`` clock seconds pass in a real one.

    ``sync_every``: how often nodes report. ``lease_ttl``: how long a lease lives without hearing from its node.
    ``longest_lease``: the most one lease lasts, and the time its reward is reserved for. ``absent_after``: silence that makes a
    node absent. ``start_jitter``: spread of starts. ``hand_over_after``: how long a unit may stay paused on a node that was
    passed over while others work. ``copies``: the share of a round's units, at least one, that may be under way twice at a time; 0 for
    none. ``max_update_norm``: the largest accepted L2 norm of an update. ``trust``: how units are done again elsewhere; None: not at all.
    ``dry_run``: decide, and grant nothing.
    """

    clock_speed: float = 1.0
    sync_every: timedelta = timedelta(seconds=20)
    lease_ttl: timedelta = timedelta(seconds=90)
    longest_lease: timedelta = timedelta(hours=6)
    absent_after: timedelta = timedelta(seconds=60)
    start_jitter: timedelta = timedelta(seconds=2)
    hand_over_after: timedelta = timedelta(minutes=10)
    copies: float = 0.2
    max_update_norm: float = 1e4
    trust: Auditing | None = None
    dry_run: bool = False

    @property
    def heard_within(self) -> timedelta:
        """How long it takes at most until a node that is connected has heard of an order and stopped at a step boundary."""
        return min(self.sync_every, timedelta(seconds=_PUSH_S * self.clock_speed))

    @property
    def pace(self) -> Pace:
        """What makes a holder doubtful: two reports missed, or a lease's whole time to live without the usual progress."""
        return Pace(overdue=2 * self.sync_every, settled_in=self.lease_ttl, trip=timedelta(seconds=_TRIP_S * self.clock_speed))

    def __post_init__(self) -> None:
        if not 0 <= self.copies <= 1:
            raise InvalidInput(f"copies must be a share between 0 and 1, got {self.copies}")
        if self.lease_ttl < 2 * self.sync_every:
            raise InvalidInput(
                f"lease_ttl {self.lease_ttl} must be at least twice sync_every {self.sync_every}, or one lost message ends a lease"
            )
        if self.longest_lease < self.lease_ttl:
            raise InvalidInput(f"longest_lease {self.longest_lease} must be at least lease_ttl {self.lease_ttl}")
