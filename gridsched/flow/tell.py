"""Small makers of the facts that several verbs state."""

from datetime import datetime
from typing import Any, TypeVar

from gridsched.core.facts import LeaseActive, LeaseEnded, LeaseOffered, LeasePaused, LeaseResumed
from gridsched.core.lease import Lease

__all__ = ["lease_ended", "lease_fact", "lease_offered"]

F = TypeVar("F", LeaseActive, LeasePaused, LeaseResumed)


def lease_fact(kind: type[F], lease: Lease, now: datetime) -> F:
    """``kind`` about ``lease`` as it is now."""
    return kind(**_about(lease, now))


def lease_offered(lease: Lease, now: datetime) -> LeaseOffered:
    """The offer of a new lease, with the decision behind it."""
    return LeaseOffered(**_about(lease, now), decision_id=lease.decision_id)


def lease_ended(lease: Lease, now: datetime, detail: str = "") -> LeaseEnded:
    """The end of a lease, with how it ended."""
    return LeaseEnded(**_about(lease, now), state=lease.state.value, detail=detail)


def _about(lease: Lease, now: datetime) -> dict[str, Any]:
    """What every fact about a lease says."""
    return {
        "at": now,
        "lease_id": lease.lease_id,
        "unit_id": lease.unit_id,
        "job_id": lease.job_id,
        "node_id": lease.node_id,
        "zone": lease.zone,
        "generation": lease.generation,
        "reason": lease.reason.value,
        "power_w": lease.power_w,
        "step": lease.step,
    }
