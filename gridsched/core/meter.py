"""A node's cumulative energy register, and what the daemon believes of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

__all__ = ["TOLERANCE", "MeterMethod", "MeterReading", "MeterRefusal", "believed_j", "refusal"]

TOLERANCE = 0.05
"""Share by which a meter may exceed registered power x time (the accuracy class of a cheap smart plug)."""

_SLACK_S = 2.0
_LATE = 30
"""Slacks by which a report may have been late: what came after it seems to have drawn as much more in as much less time."""


class MeterMethod(StrEnum):
    """``measured``: a counter of the device (RAPL, NVML, battery, smart plug); ``estimated``: a power model."""

    MEASURED = "measured"
    ESTIMATED = "estimated"


class MeterRefusal(StrEnum):
    """Why a register value cannot be true."""

    RUNS_BACKWARDS = "runs_backwards"
    TOO_MUCH_POWER = "too_much_power"
    FROM_THE_FUTURE = "from_the_future"
    NOT_FINITE = "not_finite"


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterReading:
    """The register of ``node_id`` in joules at ``at``, by the daemon's clock.

    ``lease_id`` names the lease the node worked under since the reading before, or None. ``delta_j`` is the energy since then.
    """

    node_id: str
    at: datetime
    register_j: float
    delta_j: float
    method: MeterMethod
    lease_id: str | None = None


def refusal(
    *,
    before_j: float | None,
    before_at: datetime | None,
    register_j: float,
    at: datetime,
    now: datetime,
    registered_w: float,
    slack: timedelta = timedelta(seconds=_SLACK_S),
) -> MeterRefusal | None:
    """Why this reading cannot be true, or None.

    The daemon dates readings itself (arrival minus the age the node's monotonic clock gives), so a node whose
    calendar is a day off meters as well as any other. A first reading only sets the register. One that says a little more than
    can have been drawn is not refused: the one before it was held up on its way, and `believed_j` tells how much of it is believed.
    """
    if register_j != register_j or register_j in (float("inf"), float("-inf")):
        return MeterRefusal.NOT_FINITE
    if at > now:
        return MeterRefusal.FROM_THE_FUTURE
    if before_j is None or before_at is None:
        return None
    if register_j < before_j:
        return MeterRefusal.RUNS_BACKWARDS
    most_j = before_j + _most_j(before_at, at, registered_w, slack) + registered_w * _LATE * slack.total_seconds()
    return MeterRefusal.TOO_MUCH_POWER if register_j > most_j else None


def believed_j(
    *,
    before_j: float,
    before_at: datetime,
    register_j: float,
    at: datetime,
    registered_w: float,
    slack: timedelta = timedelta(seconds=_SLACK_S),
) -> float:
    """The register, or as much of it as can have been reached by ``at``; what is left of it is believed with the next readings."""
    return min(register_j, before_j + _most_j(before_at, at, registered_w, slack))


def _most_j(before_at: datetime, at: datetime, registered_w: float, slack: timedelta) -> float:
    return registered_w * (1 + TOLERANCE) * (max((at - before_at).total_seconds(), 0.0) + slack.total_seconds())
