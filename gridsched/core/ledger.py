"""Double entry in integer micro-units; the words are TigerBeetle's.

A transfer debits one account and credits another and never changes. A **reserve** is pending until one further
transfer **posts** it (up to its amount; the rest is freed) or **voids** it. Mistakes are **reversed** by another transfer.
Every transfer carries the hash of the one before it, so a statement can be checked by anyone.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import StrEnum

from gridsched.core.errors import Conflict, InvalidInput

__all__ = ["GENESIS", "OPERATOR", "Account", "Transfer", "TransferKind", "apply", "node_account", "seal", "verify"]

OPERATOR = "operator"
GENESIS = "0" * 64


def node_account(node_id: str) -> str:
    """The account a node's rewards are credited to."""
    return f"node:{node_id}"


class TransferKind(StrEnum):
    """What a transfer does; only a reserve is pending."""

    RESERVE = "reserve"
    POST = "post"
    VOID = "void"
    REVERSE = "reverse"
    PAYOUT = "payout"


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """``amount_micro`` from ``debit`` to ``credit``. ``pending_id`` names the reserve that a post or void resolves.

    ``transfer_id`` is made by the sender from what it pays for, so sending it twice pays once.
    """

    transfer_id: str
    kind: TransferKind
    debit: str
    credit: str
    amount_micro: int
    at: datetime
    lease_id: str | None = None
    pending_id: str | None = None
    sequence: int = 0
    before: str = GENESIS
    digest: str = ""

    def __post_init__(self) -> None:
        if type(self.amount_micro) is not int or self.amount_micro < 0:
            raise InvalidInput(
                f"transfer {self.transfer_id}: amount must be a whole number of micro-units, 0 or more, got {self.amount_micro!r}"
            )
        if self.debit == self.credit:
            raise InvalidInput(f"transfer {self.transfer_id}: debit and credit are both {self.debit}")
        if (self.kind in (TransferKind.POST, TransferKind.VOID)) != (self.pending_id is not None):
            raise InvalidInput(
                f"transfer {self.transfer_id}: a {self.kind} {'needs' if self.pending_id is None else 'must not name'} a reserve"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Running sums in micro-units. What a node may be paid out is ``credits_posted - debits_posted``."""

    account_id: str
    debits_pending: int = 0
    debits_posted: int = 0
    credits_pending: int = 0
    credits_posted: int = 0

    @property
    def balance_micro(self) -> int:
        """Posted credits less posted debits."""
        return self.credits_posted - self.debits_posted


def apply(transfer: Transfer, *, debit: Account, credit: Account, reserve: Transfer | None = None) -> tuple[Account, Account]:
    """Both accounts after ``transfer``; raises `Conflict` for a post above its reserve or between other accounts."""
    assert (debit.account_id, credit.account_id) == (transfer.debit, transfer.credit), "accounts must be the transfer's own"
    amount = transfer.amount_micro
    if transfer.kind is TransferKind.RESERVE:
        return replace(debit, debits_pending=debit.debits_pending + amount), replace(
            credit, credits_pending=credit.credits_pending + amount
        )
    held = _freed(transfer, reserve)
    return (
        replace(debit, debits_pending=debit.debits_pending - held, debits_posted=debit.debits_posted + amount),
        replace(credit, credits_pending=credit.credits_pending - held, credits_posted=credit.credits_posted + amount),
    )


def _freed(transfer: Transfer, reserve: Transfer | None) -> int:
    if transfer.pending_id is None:
        return 0
    if reserve is None or reserve.transfer_id != transfer.pending_id or reserve.kind is not TransferKind.RESERVE:
        raise Conflict(f"transfer {transfer.transfer_id}: there is no reserve {transfer.pending_id}")
    if (reserve.debit, reserve.credit) != (transfer.debit, transfer.credit):
        raise Conflict(f"transfer {transfer.transfer_id}: reserve {reserve.transfer_id} is between other accounts")
    if transfer.amount_micro > (0 if transfer.kind is TransferKind.VOID else reserve.amount_micro):
        raise Conflict(
            f"transfer {transfer.transfer_id}: {transfer.amount_micro} is more than {transfer.kind} allows of {reserve.amount_micro}"
        )
    return reserve.amount_micro


def seal(transfer: Transfer, *, sequence: int, before: str) -> Transfer:
    """``transfer`` as link ``sequence`` of the chain after the digest ``before``."""
    linked = replace(transfer, sequence=sequence, before=before, digest="")
    return replace(linked, digest=_digest(linked))


def verify(chain: list[Transfer]) -> int | None:
    """The sequence of the first transfer that does not fit the chain, or None where all fit."""
    before = GENESIS
    for number, transfer in enumerate(chain, start=1):
        if transfer.sequence != number or transfer.before != before or transfer.digest != _digest(replace(transfer, digest="")):
            return number
        before = transfer.digest
    return None


def _digest(transfer: Transfer) -> str:
    body = asdict(transfer) | {"at": transfer.at.isoformat()}
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
