"""The audit log: what changes something at an operator's word is committed together with who said it, or not at all."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from gridsched.core.access import Role
from gridsched.core.deed import Deed
from gridsched.core.facts import Fact
from gridsched.ports import Reply, Tx

__all__ = ["done_by"]

T = TypeVar("T")


def done_by(
    tx: Tx,
    now: datetime,
    change: Callable[[Tx, datetime], Sequence[Fact] | Reply[T]],
    *,
    who: str,
    role: Role,
    verb: str,
    thing: str,
    detail: str = "",
) -> Sequence[Fact] | Reply[T]:
    """What ``change`` gives, and a row of the audit log in the same savepoint; where ``change`` raises there is no row."""
    outcome = change(tx, now)
    newest = tx.find(Deed, order="-number", limit=1)
    number = newest[0].number + 1 if newest else 1
    tx.insert(Deed(number=number, at=now, who=who, role=role, verb=verb, thing=thing, detail=detail))
    return outcome
