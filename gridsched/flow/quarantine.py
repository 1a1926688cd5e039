"""A node whose answer was found wrong: it gets no more work, is not paid for what is not merged yet, and all of that is done again.

What it did before stays as it is: a version cannot be taken back, so the fact names those that hold its updates.
"""

from dataclasses import replace
from datetime import datetime

from gridsched.core.facts import Fact, NodePardoned, NodeQuarantined, RewardReversed
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end
from gridsched.core.ledger import Transfer, TransferKind
from gridsched.core.round import Round, RoundState, Version
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import copies, local, settle
from gridsched.flow.tell import lease_ended
from gridsched.ports import Tx

__all__ = ["disown", "notice", "pardon", "quarantine", "reopened"]

_ENDED = tuple(state for state in LeaseState if state not in LIVE)


def quarantine(tx: Tx, now: datetime, node_id: str, unit_id: str, why: str) -> list[Fact]:
    """Shut a node out until it is pardoned; ``why`` is told to its owner. Its work that waits to be merged is opened again, unpaid."""
    node = tx.must(Node, node_id)
    if node.quarantined_at is not None:
        return []
    versions = _versions_with(tx, node_id)
    tx.put(replace(node, quarantined_at=now, quarantine_reason=why), replace(tx.must(Presence, node_id), verified=0))
    facts: list[Fact] = [NodeQuarantined(at=now, node_id=node_id, zone=node.zone, unit_id=unit_id, reason=why, versions=tuple(versions))]
    for lease in tx.find(Lease, node_id=node_id, state=LIVE):
        facts += _take_away(tx, now, lease)
    for unit in _with_a_middle_of(tx, node_id):
        facts += _begin_anew(tx, now, unit)
    facts += _leave_unpaid(tx, now, node_id)
    for unit in _unmerged(tx):
        finished = tx.must(Lease, unit.accepted_lease)
        if finished.node_id == node_id and not _confirmed(tx, unit):
            facts += disown(tx, now, unit, finished, why, units=int(not unit.audits))
            tx.put(replace(unit, state=UnitState.ABANDONED, answer="") if unit.audits else reopened(unit))
    return facts + local.shut_out(tx, now, node)


def _unmerged(tx: Tx) -> list[WorkUnit]:
    """What was accepted and is in no version yet; in a stream some of it waits for rounds that are not open yet."""
    found: list[WorkUnit] = []
    for rnd in tx.find(Round, state=RoundState.OPEN):
        if tx.must(Job, rnd.job_id).spec.method.quorum:
            accepted = tx.find(WorkUnit, job_id=rnd.job_id, state=UnitState.ACCEPTED)
            found += [unit for unit in accepted if unit.round_id and int(unit.round_id.rpartition(".r")[2]) >= rnd.number]
        else:
            found += tx.find(WorkUnit, round_id=rnd.round_id, state=UnitState.ACCEPTED)
    return found


def pardon(tx: Tx, now: datetime, node_id: str) -> list[Fact]:
    """Let a quarantined node work again; it begins as a newcomer does. A node in good standing is left alone."""
    node = tx.must(Node, node_id)
    if node.quarantined_at is None:
        return []
    tx.put(replace(node, quarantined_at=None, quarantine_reason=""))
    presence = tx.get(Presence, node_id)
    if presence is not None:
        tx.put(replace(presence, verified=0))
    return [NodePardoned(at=now, node_id=node_id, zone=node.zone)]


def notice(node: Node) -> str:
    """What a quarantined node's owner is told; empty for any other."""
    if node.quarantined_at is None:
        return ""
    return (
        f"quarantined since {node.quarantined_at:%Y-%m-%d %H:%M} UTC: {node.quarantine_reason}. Nothing of it is merged or paid. "
        f"Where nobody has tampered with the node, test its memory and its cooling, then ask the operator to run: "
        f"gridsched pardon {node.node_id}"
    )


def reopened(unit: WorkUnit) -> WorkUnit:
    """``unit`` to be done again from its beginning: a middle that somebody has handed over may be as wrong as the result."""
    return replace(
        unit,
        state=UnitState.OPEN,
        continuation=None,
        continuation_step=0,
        update=None,
        update_norm=None,
        accepted_lease=None,
        accepted_at=None,
        answer="",
        digests=(),
    )


def disown(tx: Tx, now: datetime, unit: WorkUnit, lease: Lease, why: str, *, units: int) -> list[Fact]:
    """Take back what ``lease`` was paid for finishing ``unit``, and count its energy as wasted; ``units`` are done again for it.

    Doing it twice takes it back once.
    """
    paid = tx.get(Transfer, f"{lease.lease_id}.{TransferKind.POST}")
    reverse_id = f"{lease.lease_id}.{TransferKind.REVERSE}"
    if tx.get(Transfer, reverse_id) is not None:
        return []
    amount = paid.amount_micro if paid is not None else 0
    settle.unbook(tx, unit, lease, units=units, reward_micro=amount)
    if paid is None or not amount:
        return []
    settle.record(
        tx,
        Transfer(
            transfer_id=reverse_id,
            kind=TransferKind.REVERSE,
            debit=paid.credit,
            credit=paid.debit,
            amount_micro=amount,
            at=now,
            lease_id=lease.lease_id,
        ),
    )
    return [
        RewardReversed(
            at=now, node_id=lease.node_id, zone=lease.zone, lease_id=lease.lease_id, job_id=lease.job_id, amount_micro=amount, reason=why
        )
    ]


def _take_away(tx: Tx, now: datetime, lease: Lease) -> list[Fact]:
    """End a live lease of the node; its unit begins anew, unless somebody else is at it."""
    ended = end(lease, LeaseState.REVOKED, LeaseReason.QUARANTINED, now)
    tx.put(ended)
    unit = tx.must(WorkUnit, lease.unit_id)
    if unit.state is UnitState.LEASED and not copies.has_another(tx, ended):
        tx.put(replace(unit, state=UnitState.OPEN, continuation=None, continuation_step=0))
    return [lease_ended(ended, now)]


def _with_a_middle_of(tx: Tx, node_id: str) -> list[WorkUnit]:
    """The units under way that go on from where the node has come to."""
    mine = {lease.lease_id: lease.unit_id for lease in tx.find(Lease, node_id=node_id, state=LeaseState.HANDED_OVER)}
    units = tx.find(WorkUnit, unit_id=tuple(sorted(set(mine.values()))), state=(UnitState.OPEN, UnitState.LEASED))
    return [unit for unit in units if not mine.keys().isdisjoint(unit.middles)]


def _begin_anew(tx: Tx, now: datetime, unit: WorkUnit) -> list[Fact]:
    """Open a unit whose middle may be wrong; whoever goes on from it stops, and is paid for what it has drawn in good faith."""
    facts: list[Fact] = []
    for lease in tx.find(Lease, unit_id=unit.unit_id, state=LIVE):
        ended = end(lease, LeaseState.REVOKED, LeaseReason.SUPERSEDED, now)
        tx.put(ended)
        facts.append(lease_ended(ended, now))
    tx.put(reopened(unit))
    return facts


def _leave_unpaid(tx: Tx, now: datetime, node_id: str) -> list[Fact]:
    """What the node did before for units that are not paid yet earns it nothing; a lease that only waits for its last words is closed."""
    facts: list[Fact] = []
    for lease in tx.find(Lease, node_id=node_id, state=_ENDED, settled=False):
        unpaid = replace(lease, reason=LeaseReason.QUARANTINED)
        tx.put(unpaid)
        facts += settle.settle_alone(tx, now, unpaid) if lease.awaits_last_words else []
    return facts


def _confirmed(tx: Tx, unit: WorkUnit) -> bool:
    """Whether another node has come to the same answer."""
    if unit.audits:
        return tx.must(WorkUnit, unit.audits).answer == unit.answer
    same = {"round_id": unit.round_id, "audits": unit.unit_id, "answer": unit.answer}
    return tx.count(WorkUnit, **same, state=UnitState.ACCEPTED) > 0


def _versions_with(tx: Tx, node_id: str) -> list[str]:
    """The versions of running jobs that hold updates of the node."""
    done = {lease.unit_id for lease in tx.find(Lease, node_id=node_id, state=LeaseState.RELEASED)}
    return [
        f"{version.job_id}.v{version.number}"
        for job in tx.find(Job, state=JobState.RUNNING)
        for version in tx.find(Version, job_id=job.job_id, order="number")
        if any(unit_id in done for unit_id, _, _ in version.updates)
    ]
