"""A unit that will not be merged: its leases are revoked, and what was drawn for it is paid and booked as wasted.

A node that is at it is paid when it has said what it drew until it heard of that, or when its time is over.
"""

from dataclasses import replace
from datetime import datetime

from gridsched.core.facts import Fact
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import settle
from gridsched.flow.tell import lease_ended
from gridsched.ports import Tx

__all__ = ["abandon"]


def abandon(tx: Tx, now: datetime, unit: WorkUnit, why: LeaseReason) -> list[Fact]:
    """Give ``unit`` up for good; the nodes that are at it hear ``why``."""
    facts: list[Fact] = []
    for lease in tx.find(Lease, unit_id=unit.unit_id, state=LIVE):
        ended = end(lease, LeaseState.REVOKED, why, now)
        tx.put(ended)
        facts.append(lease_ended(ended, now))
    given_up = replace(unit, state=UnitState.ABANDONED)
    tx.put(given_up)
    return facts + settle.settle_unit(tx, now, given_up)
