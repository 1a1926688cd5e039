"""Metered energy and accepted work become transfers: reserve at grant, post at settlement, void the rest."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from gridsched.core.errors import Conflict
from gridsched.core.facts import EnergyMetered, EpochFinished, Fact, RewardPosted
from gridsched.core.fleet import Presence
from gridsched.core.lease import LAST_WORDS, Lease, LeaseState
from gridsched.core.ledger import GENESIS, OPERATOR, Account, Transfer, TransferKind, apply, node_account, seal
from gridsched.core.reward import carried_on, due_micro, most_micro, paid_energy_j
from gridsched.core.round import Epoch
from gridsched.core.work import UnitState, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.ports import Tx

__all__ = ["finish_epoch", "record", "reserve", "settle_alone", "settle_unit", "unbook"]

_RELIABILITY_MEMORY = 0.9
_WELL_ENDED = (LeaseState.RELEASED, LeaseState.HANDED_OVER)


def reserve(tx: Tx, now: datetime, lease: Lease) -> list[Fact]:
    """Set aside the most this lease can earn. Doing it twice reserves once, though another release would set aside another amount."""
    if _held(tx, lease) is not None:
        return []
    record(
        tx,
        Transfer(
            transfer_id=f"{lease.lease_id}.{TransferKind.RESERVE}",
            kind=TransferKind.RESERVE,
            debit=OPERATOR,
            credit=node_account(lease.node_id),
            amount_micro=most_micro(lease),
            at=now,
            lease_id=lease.lease_id,
        ),
    )
    return []


def settle_unit(tx: Tx, now: datetime, unit: WorkUnit) -> list[Fact]:
    """Pay every lease of a closed unit, and book its energy as useful, wasted or idle.

    Steps that were run again because a node was lost share the unit's energy with those that counted, step for step; all of
    an abandoned unit's energy is wasted. Energy drawn in good faith is paid either way. Leases taken from nodes at work follow.
    """
    leases = [lease for lease in tx.find(Lease, unit_id=unit.unit_id) if not lease.settled and not lease.awaits_last_words]
    facts: list[Fact] = []
    settled: list[Lease] = []
    for lease in leases:
        paid, said = _settle_lease(tx, now, lease)
        settled.append(paid)
        facts += said
        _charge_bonus(tx, lease)
    executed = sum(lease.steps_executed for lease in leases)
    accepted = unit.state is UnitState.ACCEPTED
    share = min(1.0, unit.spec.steps / executed) if accepted and executed else float(accepted)
    return facts + _book_energy(tx, now, unit, settled, useful=share, units=int(accepted))


def settle_alone(tx: Tx, now: datetime, lease: Lease) -> list[Fact]:
    """Pay a lease that was taken from a node at work, once that has been heard or its time is over. All its energy was wasted."""
    unit = tx.must(WorkUnit, lease.unit_id)
    paid, facts = _settle_lease(tx, now, lease)
    return facts + _book_energy(tx, now, unit, [paid], useful=0.0, units=0)


def _settle_lease(tx: Tx, now: datetime, lease: Lease) -> tuple[Lease, list[Fact]]:
    assert not lease.live, f"lease {lease.lease_id} of a closed unit is still {lease.state}"
    held = _held(tx, lease)
    lease = replace(lease, settled=True, carried_micro=_remember_node(tx, lease))
    due = _payable_micro(lease, held)
    tx.put(lease)
    if held is not None:
        kind = TransferKind.POST if due else TransferKind.VOID
        record(
            tx,
            Transfer(
                transfer_id=f"{lease.lease_id}.{kind}",
                kind=kind,
                debit=held.debit,
                credit=held.credit,
                amount_micro=due,
                at=now,
                lease_id=lease.lease_id,
                pending_id=held.transfer_id,
            ),
        )
    if held is None or not due:
        return lease, []
    return lease, [
        RewardPosted(
            at=now,
            node_id=lease.node_id,
            zone=lease.zone,
            lease_id=lease.lease_id,
            job_id=lease.job_id,
            amount_micro=due,
            energy_j=paid_energy_j(lease),
        )
    ]


def _held(tx: Tx, lease: Lease) -> Transfer | None:
    """What was set aside for a lease; nothing where it was never granted."""
    return tx.get(Transfer, f"{lease.lease_id}.{TransferKind.RESERVE}")


def _payable_micro(lease: Lease, held: Transfer | None) -> int:
    """What a lease is owed, within what was set aside for it: an earlier release may have set aside less."""
    return 0 if held is None else min(due_micro(lease), held.amount_micro)


def _charge_bonus(tx: Tx, lease: Lease) -> None:
    """The bonus counts against the day's money like the energy, which was charged as it was metered."""
    zone = tx.get(ZoneState, lease.zone)
    if zone is not None and lease.state is LeaseState.RELEASED and lease.reward_micro_per_unit:
        tx.put(zone.spend(energy_j=0.0, money_micro=lease.reward_micro_per_unit))


def _remember_node(tx: Tx, lease: Lease) -> float:
    """The part of a micro-unit that the node carries into ``lease``; its presence goes on with what the lease leaves over."""
    presence = tx.get(Presence, lease.node_id)
    if presence is None:
        return 0.0
    well = _ended_well(lease, presence)
    memory = 1.0 if well is None else _RELIABILITY_MEMORY
    smoothed = memory * presence.reliability + (1 - memory) * float(well or 0)
    owed = carried_on(replace(lease, carried_micro=presence.owed_micro))
    tx.put(replace(presence, reliability=smoothed, served_j=presence.served_j + paid_energy_j(lease), owed_micro=owed))
    return presence.owed_micro


def _ended_well(lease: Lease, presence: Presence) -> bool | None:
    """None where it says nothing of the node: its work was not wanted any more, and it has been heard of since."""
    if lease.reason in LAST_WORDS and presence.seen_at is not None and presence.seen_at >= lease.changed_at:
        return None
    return lease.state in _WELL_ENDED


def _book_energy(tx: Tx, now: datetime, unit: WorkUnit, leases: Sequence[Lease], *, useful: float, units: int) -> list[Fact]:
    active_j = sum(lease.energy_j for lease in leases)
    split = {"useful": active_j * useful, "wasted": active_j * (1 - useful), "idle": sum(lease.idle_j for lease in leases)}
    cost = sum(lease.cost_micro for lease in leases)
    epoch = tx.must(Epoch, unit.spec.job_id, unit.spec.epoch)
    tx.put(
        replace(
            epoch,
            useful_j=epoch.useful_j + split["useful"],
            wasted_j=epoch.wasted_j + split["wasted"],
            idle_j=epoch.idle_j + split["idle"],
            reward_micro=epoch.reward_micro + sum(_payable_micro(lease, _held(tx, lease)) for lease in leases),
            cost_micro=epoch.cost_micro + cost,
            units=epoch.units + units,
            audit_j=epoch.audit_j + (split["wasted"] if unit.audits else 0.0),
        )
    )
    zone = leases[0].zone if leases else ""
    whole_j = sum(split.values())
    return [
        EnergyMetered(
            at=now,
            job_id=unit.spec.job_id,
            zone=zone,
            epoch=unit.spec.epoch,
            use=use,
            energy_j=joules,
            cost_micro=cost * joules / whole_j,
        )
        for use, joules in split.items()
        if joules > 0
    ]


def unbook(tx: Tx, unit: WorkUnit, lease: Lease, *, units: int, reward_micro: int = 0) -> None:
    """What ``lease`` drew for the result of ``unit`` is wasted after all; ``units`` are done again, and ``reward_micro`` was taken back."""
    epoch = tx.must(Epoch, unit.spec.job_id, unit.spec.epoch)
    useful = not unit.audits and lease.unit_id == unit.unit_id  # an audit's energy never was, though its result took the unit's place
    moved_j = min(lease.energy_j, epoch.useful_j) if useful else 0.0
    tx.put(
        replace(
            epoch,
            useful_j=epoch.useful_j - moved_j,
            wasted_j=epoch.wasted_j + moved_j,
            reward_micro=epoch.reward_micro - reward_micro,
            units=epoch.units - units,
        )
    )


def finish_epoch(tx: Tx, now: datetime, job_id: str, number: int) -> list[Fact]:
    """Close the books of an epoch, once."""
    epoch = tx.must(Epoch, job_id, number)
    if epoch.ended_at is not None:
        return []
    tx.put(replace(epoch, ended_at=now))
    return [
        EpochFinished(
            at=now,
            job_id=job_id,
            epoch=number,
            useful_j=epoch.useful_j,
            wasted_j=epoch.wasted_j,
            idle_j=epoch.idle_j,
            reward_micro=epoch.reward_micro,
            audit_j=epoch.audit_j,
        )
    ]


def record(tx: Tx, transfer: Transfer) -> Transfer:
    """Append ``transfer`` to the chain and move both accounts; one already there with the same content is returned as it is.

    Raises `Conflict` for the same id with other content, and for a reserve that was resolved before.
    """
    known = tx.get(Transfer, transfer.transfer_id)
    if known is not None:
        if (known.kind, known.debit, known.credit, known.amount_micro) != (
            transfer.kind,
            transfer.debit,
            transfer.credit,
            transfer.amount_micro,
        ):
            raise Conflict(f"transfer {transfer.transfer_id} exists with another content; reverse it with a further transfer")
        return known
    held = tx.get(Transfer, transfer.pending_id) if transfer.pending_id else None
    if transfer.pending_id and tx.count(Transfer, pending_id=transfer.pending_id):
        raise Conflict(f"transfer {transfer.transfer_id}: reserve {transfer.pending_id} is already posted or voided")
    debit = tx.get(Account, transfer.debit) or Account(account_id=transfer.debit)
    credit = tx.get(Account, transfer.credit) or Account(account_id=transfer.credit)
    last = tx.find(Transfer, order="-sequence", limit=1)
    sealed = seal(transfer, sequence=last[0].sequence + 1 if last else 1, before=last[0].digest if last else GENESIS)
    tx.insert(sealed)
    tx.put(*apply(sealed, debit=debit, credit=credit, reserve=held))
    return sealed
