"""Rounds over data that nodes hold for themselves: one unit for each holder, which only that holder can do.

Who takes part is settled when a round opens: the holders that are present and able, and that may work. One that comes later is in the next
round; one that leaves is waited for, or no longer than the method's ``grace_s``; one that removes its data, can no longer run the job,
or is shut out, is waited for no longer. A round that has nobody takes those that come first.
"""

from dataclasses import replace
from datetime import datetime

from gridsched.core.cut import training_unit
from gridsched.core.facts import Fact, RoundOpened
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, JobSpec, JobState
from gridsched.core.lease import LIVE, Lease, LeaseReason, LeaseState, end
from gridsched.core.round import Round, RoundState
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import settle, timing
from gridsched.flow.auditors import willing
from gridsched.flow.tell import lease_ended
from gridsched.ports import Tx

__all__ = ["has_nobody", "holder_left", "holders_came", "shut_out", "units_for", "wishes_changed"]


def units_for(tx: Tx, now: datetime, spec: JobSpec, rnd: Round, *, after: int = 0) -> list[WorkUnit]:
    """The units of a round over the nodes' own data named ``spec.local``, in the order of the nodes' names; ``after`` it had before."""
    job = tx.must(Job, spec.job_id)
    nodes = tx.find(Node, zone=spec.zone, revoked_at=None, quarantined_at=None)
    holders = {node.node_id: node for node in nodes if spec.local in node.data and timing.can_run(node, job)}
    there = [holders[presence.node_id] for presence in tx.find(Presence, node_id=tuple(holders)) if presence.present]
    drew_w = max((lease.power_w for lease in tx.find(Lease, job_id=spec.job_id, order="-power_w", limit=1)), default=0.0)
    taking_part = sorted(willing(tx, now, spec.zone, there, drew_w=drew_w), key=lambda node: node.node_id)
    return [
        training_unit(
            spec, rnd, index, start=0, stop=node.data[spec.local].samples, dataset=node.data[spec.local].digest, only_node=node.node_id
        )
        for index, node in enumerate(taking_part, start=after)
    ]


def holders_came(tx: Tx, now: datetime, zone: str | None = None) -> list[Fact]:
    """Fill the open rounds of ``zone`` (None: of all) that have nobody, where somebody is there by now; their time begins then."""
    facts: list[Fact] = []
    for job in tx.find(Job, state=JobState.RUNNING) if zone is None else tx.find(Job, state=JobState.RUNNING, zone=zone):
        for rnd in tx.find(Round, job_id=job.job_id, state=RoundState.OPEN) if job.spec.local else ():
            if not has_nobody(tx, rnd):
                continue
            units = units_for(tx, now, job.spec, rnd, after=tx.count(WorkUnit, round_id=rnd.round_id))
            if units:
                tx.put(replace(rnd, opened_at=now))
                tx.insert(*units)
                facts.append(RoundOpened(at=now, job_id=job.job_id, round_id=rnd.round_id, epoch=rnd.epoch, units=len(units)))
    return facts


def has_nobody(tx: Tx, rnd: Round) -> bool:
    """Whether all who were in the round have left; one whose unit is skipped has not: asked again, it would come to the same."""
    if tx.count(WorkUnit, round_id=rnd.round_id, state=(UnitState.OPEN, UnitState.LEASED, UnitState.ACCEPTED)):
        return False
    before = tx.find(WorkUnit, round_id=rnd.round_id)
    return not before or not tx.count(Lease, unit_id=tuple(unit.unit_id for unit in before), reason=LeaseReason.NOT_FINITE)


def shut_out(tx: Tx, now: datetime, node: Node) -> list[Fact]:
    """Give up the units over ``node``'s own data: it may do them no more, and nobody else can."""
    return holder_left(tx, now, replace(node, data={}))


def wishes_changed(tx: Tx, now: datetime, job: Job) -> list[Fact]:
    """Give up the units of ``job`` that their holders can no longer run: it asks for more by now, or for another runtime."""
    waiting = tx.find(WorkUnit, job_id=job.job_id, state=(UnitState.OPEN, UnitState.LEASED), audits="")
    holders = sorted({unit.only_node for unit in waiting if unit.only_node})
    return [fact for name in holders for fact in holder_left(tx, now, tx.must(Node, name))]


def holder_left(tx: Tx, now: datetime, node: Node) -> list[Fact]:
    """Give up the units over data that ``node`` does not hold any more, and those that it can no longer run: nobody can do them."""
    held = {data.digest for data in node.data.values()}
    facts: list[Fact] = []
    for unit in tx.find(WorkUnit, only_node=node.node_id, state=(UnitState.OPEN, UnitState.LEASED)):
        able = unit.spec.dataset in held and timing.can_run(node, tx.must(Job, unit.spec.job_id))
        if unit.audits or able:
            continue
        for lease in tx.find(Lease, unit_id=unit.unit_id, state=LIVE):
            ended = end(lease, LeaseState.REVOKED, LeaseReason.NODE_REFUSED, now)
            tx.put(ended)
            facts.append(lease_ended(ended, now))
        abandoned = replace(unit, state=UnitState.ABANDONED)
        tx.put(abandoned)
        facts += settle.settle_unit(tx, now, abandoned)
    return facts
