"""What a node earns: metered energy that led to verified work, at the rate shown before it opted in."""

from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.meter import TOLERANCE
from gridsched.core.units import micro_from_rate

__all__ = ["due_micro", "most_micro", "paid_energy_j"]


def paid_energy_j(lease: Lease) -> float:
    """Joules that are paid: metered while active, at most the leased power x active time plus the meter's tolerance."""
    return min(lease.energy_j, lease.power_w * lease.active_s * (1 + TOLERANCE))


def due_micro(lease: Lease) -> int:
    """Micro-units owed for an ended lease of an accepted unit. The unit's bonus goes to the lease that finished it.

    One that ended because its node was quarantined is owed nothing.
    """
    if lease.reason is LeaseReason.QUARANTINED:
        return 0
    bonus = lease.reward_micro_per_unit if lease.state is LeaseState.RELEASED else 0
    return min(micro_from_rate(paid_energy_j(lease), lease.reward_micro_per_kwh) + bonus, most_micro(lease))


def most_micro(lease: Lease) -> int:
    """The most a lease can ever earn: what is reserved when it is granted."""
    longest_s = (lease.ends_at - lease.offered_at).total_seconds()
    return micro_from_rate(lease.power_w * longest_s * (1 + TOLERANCE), lease.reward_micro_per_kwh) + lease.reward_micro_per_unit
