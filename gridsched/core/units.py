"""Units, conversions and the one sign convention.

Names carry their unit last: ``target_w``, ``energy_j``, ``price_eur_mwh``, ``carbon_g_kwh``, ``age_s``.
Signs: **surplus is positive when there is energy looking for a consumer; power drawn by a node is positive.**
Money is an integer count of micro-units (1 EUR = 1,000,000 micro); no float reaches the ledger.
"""

from datetime import UTC, datetime

__all__ = ["J_PER_KWH", "J_PER_MWH", "MICRO", "energy_j", "kwh", "micro_from_rate", "utc"]

J_PER_KWH = 3_600_000.0
J_PER_MWH = 3_600_000_000.0
MICRO = 1_000_000


def energy_j(power_w: float, seconds: float) -> float:
    """Energy in joules of a constant power in watts over a time in seconds."""
    return power_w * seconds


def kwh(joules: float) -> float:
    """Joules as kilowatt hours."""
    return joules / J_PER_KWH


def micro_from_rate(joules: float, rate_micro_per_kwh: int) -> int:
    """Whole micro-units for ``joules`` at ``rate_micro_per_kwh``, rounded down: a payout never exceeds the energy metered."""
    return int(joules * rate_micro_per_kwh // J_PER_KWH)


def utc(moment: datetime) -> datetime:
    """``moment`` in UTC; raises ValueError for a naive one, which could mean any place's time."""
    if moment.tzinfo is None:
        raise ValueError(f"timestamp {moment.isoformat()} has no UTC offset; write it as {moment.isoformat()}Z or with +01:00")
    return moment.astimezone(UTC)
