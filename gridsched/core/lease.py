"""A lease: right and duty of one node to draw up to ``power_w`` for one work unit until ``expires_at``.

::

    offered ──grant──> active <──pause/resume──> paused
       └───────┴──────────┴──> handed_over | released | expired | revoked

The **generation** of a lease is its number among the leases on its unit. A write must name a lease and generation that are
live, else it is refused (`LeaseLost`). A unit has at most two live leases, on different nodes: the second is a **copy**, made when
the first one's holder is in doubt or far behind. Accepting one of them ends the other in the same transaction, so two nodes can
never both finish a unit. The idea is the fencing token of Litestream's leases. Illegal moves raise; there is no ``set_status``.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from gridsched.core.errors import IllegalMove, LeaseLost

__all__ = [
    "LAST_WORDS",
    "LIVE",
    "Lease",
    "LeaseReason",
    "LeaseState",
    "end",
    "grant",
    "hold",
    "offer",
    "pause",
    "renew",
    "renewed_until",
    "resume",
]


class LeaseState(StrEnum):
    """Three live states and four ends."""

    OFFERED = "offered"
    ACTIVE = "active"
    PAUSED = "paused"
    HANDED_OVER = "handed_over"
    RELEASED = "released"
    EXPIRED = "expired"
    REVOKED = "revoked"


class LeaseReason(StrEnum):
    """Why a lease is where it is; the same words in logs, metrics, API and pages.

    ``holder_cut`` to ``holder_slow`` say why a copy was offered, ``outrun`` that the other lease on the unit finished first.
    """

    PLANNED = "planned"
    ACCEPTED = "accepted"
    NO_SURPLUS = "no_surplus"
    ALARM = "alarm"
    STALE_SIGNAL = "stale_signal"
    TARGET_LOWERED = "target_lowered"
    NOT_SCHEDULED = "not_scheduled"
    SURPLUS_BACK = "surplus_back"
    OPTED_OUT = "opted_out"
    CONSENT_ENDED = "consent_ended"
    REWARD_TOO_LOW = "reward_too_low"
    DEVICE_BUSY = "device_busy"
    DEVICE_HOT = "device_hot"
    ON_BATTERY = "on_battery"
    DISK_FULL = "disk_full"
    PAUSED_BY_OPERATOR = "paused_by_operator"
    PAUSED_TOO_LONG = "paused_too_long"
    FINISHED = "finished"
    HANDED_OVER = "handed_over"
    NODE_SILENT = "node_silent"
    NODE_LEFT = "node_left"
    NODE_REFUSED = "node_refused"
    MAX_DURATION = "max_duration"
    JOB_ENDED = "job_ended"
    UPDATE_REFUSED = "update_refused"
    NOT_FINITE = "not_finite"
    SUPERSEDED = "superseded"
    ROUND_CLOSED = "round_closed"
    TOO_STALE = "too_stale"
    HOLDER_CUT = "holder_cut"
    HOLDER_SILENT = "holder_silent"
    HOLDER_PAUSED = "holder_paused"
    HOLDER_SLOW = "holder_slow"
    OUTRUN = "outrun"
    QUARANTINED = "quarantined"


LIVE = (LeaseState.OFFERED, LeaseState.ACTIVE, LeaseState.PAUSED)
LAST_WORDS = (LeaseReason.OUTRUN, LeaseReason.JOB_ENDED, LeaseReason.ROUND_CLOSED, LeaseReason.TOO_STALE, LeaseReason.SUPERSEDED)
"""Why a lease is taken from a node that did nothing wrong: what it has drawn until it hears of it is still its own."""
_ENDS = (LeaseState.HANDED_OVER, LeaseState.RELEASED, LeaseState.EXPIRED, LeaseState.REVOKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """One lease and what was metered under it.

    ``expires_at`` moves with every renewal, never past ``ends_at``. ``energy_j`` was drawn while active, ``idle_j`` while
    offered or paused; ``cost_micro`` is that energy at the price of its hour, with
    fractions: a small node draws less than a micro-unit's worth between two reports. ``steps_executed`` counts every step run under
    this lease, repeated ones too; ``step`` is the furthest position in the unit. ``wants_hand_over`` asks a paused
    node to give its continuation back. ``carried_micro`` is the part of a micro-unit its node was still owed from leases before.
    ``runtime`` is the hardware class of all work under it; "" where that is not one, or not known: whose bits it has cannot be said.
    """

    lease_id: str
    unit_id: str
    job_id: str
    node_id: str
    zone: str
    generation: int
    state: LeaseState
    reason: LeaseReason
    power_w: float
    decision_id: str
    reward_micro_per_kwh: int
    reward_micro_per_unit: int
    offered_at: datetime
    not_before: datetime
    expires_at: datetime
    ends_at: datetime
    changed_at: datetime
    active_s: float = 0.0
    energy_j: float = 0.0
    idle_j: float = 0.0
    cost_micro: float = 0.0
    step: int = 0
    steps_executed: int = 0
    wants_hand_over: bool = False
    settled: bool = False
    carried_micro: float = 0.0
    runtime: str = ""

    @property
    def live(self) -> bool:
        """Whether the lease has not ended."""
        return self.state in LIVE

    @property
    def awaits_last_words(self) -> bool:
        """Whether it was taken away and is not settled: what its node has drawn until then may not have been heard yet."""
        return self.state is LeaseState.REVOKED and self.reason in LAST_WORDS and not self.settled

    def draws_w(self) -> float:
        """The power this lease counts against the target: offered leases reserve what they will draw."""
        return self.power_w if self.state in (LeaseState.OFFERED, LeaseState.ACTIVE) else 0.0


def offer(
    *,
    unit_id: str,
    job_id: str,
    node_id: str,
    zone: str,
    generation: int,
    power_w: float,
    decision_id: str,
    reward_micro_per_kwh: int,
    reward_micro_per_unit: int,
    now: datetime,
    ttl: timedelta,
    longest: timedelta,
    jitter: timedelta = timedelta(0),
    reason: LeaseReason = LeaseReason.PLANNED,
    runtime: str = "",
) -> Lease:
    """A new lease in state ``offered``; the node may start ``jitter`` after ``now``."""
    return Lease(
        lease_id=f"{unit_id}.l{generation}",
        unit_id=unit_id,
        job_id=job_id,
        node_id=node_id,
        zone=zone,
        generation=generation,
        state=LeaseState.OFFERED,
        reason=reason,
        power_w=power_w,
        decision_id=decision_id,
        reward_micro_per_kwh=reward_micro_per_kwh,
        reward_micro_per_unit=reward_micro_per_unit,
        offered_at=now,
        not_before=now + jitter,
        expires_at=min(now + jitter + ttl, now + longest),
        ends_at=now + longest,
        changed_at=now,
        runtime=runtime,
    )


def hold(lease: Lease | None, *, lease_id: str, node_id: str, generation: int) -> Lease:
    """The live lease that ``node_id`` claims to hold; raises `LeaseLost` for any other claim."""
    if lease is None or lease.node_id != node_id:
        raise LeaseLost(f"lease {lease_id} is not held by node {node_id}; drop the work and sync again")
    if lease.generation != generation or not lease.live:
        raise LeaseLost(
            f"lease {lease_id} generation {generation} has ended ({lease.state}: {lease.reason}); "
            "drop the work and sync again, energy drawn before that is still paid"
        )
    return lease


def grant(lease: Lease, now: datetime) -> Lease:
    """The node has taken the offer."""
    return _move(lease, LeaseState.ACTIVE, LeaseReason.ACCEPTED, now, allowed=(LeaseState.OFFERED,))


def renewed_until(lease: Lease, *, now: datetime, ttl: timedelta) -> datetime:
    """``now + ttl``, but never past ``ends_at`` and never back. Only a live lease can be renewed."""
    _demand(lease, LIVE, "renewed")
    return max(lease.expires_at, min(now + ttl, lease.ends_at))


def renew(lease: Lease, *, now: datetime, ttl: timedelta) -> Lease:
    """The lease with its ``expires_at`` pushed on; see `renewed_until`."""
    return replace(lease, expires_at=renewed_until(lease, now=now, ttl=ttl))


def pause(lease: Lease, reason: LeaseReason, now: datetime) -> Lease:
    """Stop at the next step boundary, keep the unit."""
    return _move(lease, LeaseState.PAUSED, reason, now, allowed=(LeaseState.OFFERED, LeaseState.ACTIVE))


def resume(lease: Lease, reason: LeaseReason, now: datetime) -> Lease:
    """Go on from where the pause left off. A hand-over not yet carried out is called off."""
    return replace(_move(lease, LeaseState.ACTIVE, reason, now, allowed=(LeaseState.PAUSED,)), wants_hand_over=False)


def end(lease: Lease, state: LeaseState, reason: LeaseReason, now: datetime) -> Lease:
    """Hand over, release, expire or revoke: the four ends, none of which has a way back."""
    assert state in _ENDS, f"{state} does not end a lease"
    return _move(lease, state, reason, now, allowed=LIVE)


def _move(lease: Lease, to: LeaseState, reason: LeaseReason, now: datetime, *, allowed: tuple[LeaseState, ...]) -> Lease:
    _demand(lease, allowed, to.value)
    worked = (now - lease.changed_at).total_seconds() if lease.state is LeaseState.ACTIVE else 0.0
    return replace(lease, state=to, reason=reason, changed_at=now, active_s=lease.active_s + max(worked, 0.0))


def _demand(lease: Lease, allowed: tuple[LeaseState, ...], what: str) -> None:
    if lease.state not in allowed:
        raise IllegalMove(f"lease {lease.lease_id} is {lease.state} ({lease.reason}) and cannot become {what}")
