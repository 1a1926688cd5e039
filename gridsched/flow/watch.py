"""Whether somebody decides for a zone."""

from datetime import datetime, timedelta
from itertools import pairwise

from gridsched.core.policy import Decision
from gridsched.core.zone import ZoneState
from gridsched.flow.rules import Rules
from gridsched.ports import Tx

__all__ = ["is_watched"]

_LATE_S = 60.0
"""Real seconds by which a control tick may be late on a machine that is busy; in a replay they are many of the daemon's."""
_TICKS = 6
"""Decisions from which is told how often a zone decides."""


def is_watched(tx: Tx, now: datetime, zone: str, rules: Rules) -> bool:
    """Whether the decision that the zone stands by is one that a control tick may still stand by, and none of a clock that ran ahead.

    A tick waits for the same writer as a sweep does, and never for a provider, so a busy daemon is late by seconds. It is given several
    lives of a lease, and no less than the time that a unit may stay paused; a zone that decides less often, several of its own intervals.
    """
    state = tx.get(ZoneState, zone)
    decision = tx.get(Decision, state.decision_id) if state is not None and state.decision_id else None
    if decision is None or decision.decided_at > now:
        return False
    late = max(5 * rules.lease_ttl, rules.hand_over_after, timedelta(seconds=_LATE_S * rules.clock_speed))
    return now - decision.decided_at <= late or now - decision.decided_at <= 5 * _usual(tx, decision)


def _usual(tx: Tx, standing: Decision) -> timedelta:
    """The longest that its zone went without deciding before ``standing``; what a clock that ran ahead has decided comes after it."""
    limit = _TICKS
    while True:
        found = tx.find(Decision, zone=standing.zone, order="-decided_at", limit=limit)
        passed = [decision.decided_at for decision in found if decision.decided_at <= standing.decided_at][:_TICKS]
        if len(passed) == _TICKS or len(found) < limit:
            return max((after - before for after, before in pairwise(passed)), default=timedelta(0))
        limit *= 2
