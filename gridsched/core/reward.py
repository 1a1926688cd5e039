"""What a node earns: metered energy that led to verified work, at the rate shown before it opted in.

Money is whole micro-units, and a small node often earns less than one per lease: what is left over is carried to its next lease, so
that many short leases pay what one long lease would.
"""

from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.meter import TOLERANCE
from gridsched.core.units import J_PER_KWH, micro_from_rate

__all__ = ["carried_on", "due_micro", "most_micro", "paid_energy_j"]


def paid_energy_j(lease: Lease) -> float:
    """Joules that are paid: metered while active, at most the leased power x active time plus the meter's tolerance."""
    return min(lease.energy_j, lease.power_w * lease.active_s * (1 + TOLERANCE))


def due_micro(lease: Lease) -> int:
    """Micro-units owed for an ended lease of an accepted unit, what its node carried into it included.

    The unit's bonus goes to the lease that finished it. One that ended because its node was quarantined is owed nothing.
    """
    if lease.reason is LeaseReason.QUARANTINED:
        return 0
    bonus = lease.reward_micro_per_unit if lease.state is LeaseState.RELEASED else 0
    return min(int(_exact_micro(lease)) + bonus, most_micro(lease))


def carried_on(lease: Lease) -> float:
    """Part of a micro-unit, 0 <= part < 1, that an ended lease leaves to its node's next one."""
    return lease.carried_micro if lease.reason is LeaseReason.QUARANTINED else _exact_micro(lease) % 1.0


def most_micro(lease: Lease) -> int:
    """The most a lease can ever earn: what is reserved when it is granted, with one micro-unit for what its node carries into it."""
    longest_s = (lease.ends_at - lease.offered_at).total_seconds()
    metered = micro_from_rate(lease.power_w * longest_s * (1 + TOLERANCE), lease.reward_micro_per_kwh)
    return metered + (lease.reward_micro_per_kwh > 0) + lease.reward_micro_per_unit


def _exact_micro(lease: Lease) -> float:
    return paid_energy_j(lease) * lease.reward_micro_per_kwh / J_PER_KWH + lease.carried_micro
