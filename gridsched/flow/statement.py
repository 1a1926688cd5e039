"""What a consumer may see of the ledger: the own account, line by line."""

from gridsched.core.lease import Lease
from gridsched.core.ledger import Account, Transfer, TransferKind, node_account
from gridsched.core.reward import paid_energy_j
from gridsched.ports import Tx
from gridsched.wire import Statement, StatementLine

__all__ = ["statement"]


def statement(tx: Tx, node_id: str) -> Statement:
    """What a node has earned, line by line; each line carries the digest that chains it to the whole ledger."""
    account = tx.get(Account, node_account(node_id)) or Account(account_id=node_account(node_id))
    leases = {lease.lease_id: lease for lease in tx.find(Lease, node_id=node_id)}
    moved = tx.find(Transfer, order="sequence", credit=account.account_id, kind=(TransferKind.POST, TransferKind.REVERSE))
    paid = tx.find(Transfer, order="sequence", debit=account.account_id)
    lines = [
        StatementLine(
            transfer_id=t.transfer_id,
            kind=t.kind.value,
            at=t.at.isoformat(),
            lease_id=t.lease_id,
            amount_micro=t.amount_micro if t.credit == account.account_id else -t.amount_micro,
            energy_j=paid_energy_j(leases[t.lease_id]) if t.lease_id in leases else None,
            digest=t.digest,
        )
        for t in sorted([*moved, *paid], key=lambda t: t.sequence)
    ]
    return Statement(
        node_id=node_id,
        balance_micro=account.balance_micro,
        pending_micro=account.credits_pending,
        energy_j=sum(lease.energy_j for lease in leases.values()),
        lines=lines,
    )
