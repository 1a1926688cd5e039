"""Units done again elsewhere: which ones, by whom, and what follows from the answers (see `core.trust` for the rules).

An audit is a unit of its own with the same specification under another id, in the round of the unit that it audits: the round waits for it
like for any other, and it is never merged. The auditor is drawn among the nodes of the same hardware class, where bits are equal; where
there is none, and the unit is short enough for classes to agree in all but rounding, among all with the same runtime. Where nobody is left
to ask, the unit is not held up. Every unit is asked about a few times at most, so no wait is without an end.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from gridsched.core.facts import AuditEnded, AuditOpened, Fact
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, kind_of_runtime
from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.round import Round, RoundState
from gridsched.core.trust import AuditReason, AuditResult, Judgement, Vote, audit_chance, choose, drawn, judge, votes_needed
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.flow import advance, settle
from gridsched.flow.abandon import abandon
from gridsched.flow.auditors import at_hand, target_w
from gridsched.flow.case import classes_of, worked_on
from gridsched.flow.quarantine import disown, quarantine, reopened
from gridsched.flow.rules import Rules
from gridsched.ports import Reply, Tx

__all__ = ["LONGEST_ACROSS", "answer_of", "audits_of", "consider", "refused", "returned", "stop", "suspect", "sweep"]

LONGEST_ACROSS = 20
"""Steps of the longest unit whose update is the same in two hardware classes but for rounding; longer ones drift apart chaotically."""

_MOST_TRIES = 3
"""Times that a unit's answers are set aside because nobody can say which is right; then its job ends."""

_FRUITLESS_SHARE, _FRUITLESS = 0.03, 3
"""Suspicions are followed as long as those that proved unfounded are at most this share of a job's units, and this many more."""

_WAITING = (UnitState.OPEN, UnitState.LEASED)


def answer_of(update: str | None, metrics: Mapping[str, float]) -> str:
    """What a result counts as where results are compared: an update's digest, or an evaluation's metrics."""
    return update or json.dumps(dict(metrics), sort_keys=True, separators=(",", ":"))


def audits_of(tx: Tx, unit_id: str) -> list[WorkUnit]:
    """All audits of a unit, in the order in which they were opened; they are numbered, so no search is needed."""
    found: list[WorkUnit] = []
    while (audit := tx.get(WorkUnit, _audit_id(unit_id, len(found) + 1))) is not None:
        found.append(audit)
    return found


def _audit_id(unit_id: str, number: int) -> str:
    return f"{unit_id}.a{number}"


def consider(tx: Tx, now: datetime, unit: WorkUnit, *, rules: Rules) -> list[Fact]:
    """A unit has been accepted: have it done again where the draw falls on it, or where its answers were set aside before."""
    if rules.trust is None or unit.state is not UnitState.ACCEPTED or unit.audits or unit.only_node:
        return []
    _drop_answers_of_other_classes(tx, unit)
    if any(audit.state is UnitState.ACCEPTED for audit in audits_of(tx, unit.unit_id)):
        return _weigh(tx, now, unit, rules)  # it was opened again, and others have answered before
    lease = tx.must(Lease, unit.accepted_lease)
    verified = min((_presence(tx, name).verified for name in _workers(tx, unit, lease)), default=0)
    if not _set_asides(tx, unit) and not drawn(unit.unit_id, audit_chance(verified, rules.trust), rules.trust):
        return []
    return _ask(tx, now, unit, AuditReason.DRAWN, 1, rules)


def _drop_answers_of_other_classes(tx: Tx, unit: WorkUnit) -> None:
    """What was answered to the result that ``unit`` had before it was opened again, by nodes whose bits are not those of its new one."""
    for audit in audits_of(tx, unit.unit_id):
        if audit.state is UnitState.ACCEPTED and audit.answer != unit.answer and not _one_class(tx, audit, unit):
            tx.put(replace(audit, state=UnitState.ABANDONED, answer=""))


def suspect(tx: Tx, now: datetime, *, suspicions: Mapping[str, AuditReason], rules: Rules) -> Reply[int]:
    """Have units done again that look odd, the oddest first; how many. A screen accuses nobody, and if it errs often it is not heard."""
    facts: list[Fact] = []
    if rules.trust is None:
        return Reply(0)
    for unit_id, reason in suspicions.items():
        unit = tx.must(WorkUnit, unit_id)
        rnd = tx.get(Round, unit.round_id)
        due = unit.state is UnitState.ACCEPTED and not unit.only_node and rnd is not None and rnd.state is RoundState.OPEN
        if due and not audits_of(tx, unit_id) and _worth_hearing(tx, unit):
            facts += _ask(tx, now, unit, reason, 1, rules)
    return Reply(sum(isinstance(fact, AuditOpened) for fact in facts), facts)


def returned(tx: Tx, now: datetime, audit: WorkUnit, *, agrees: Collection[str], rules: Rules) -> list[Fact]:
    """An audit has been accepted, and ``agrees`` with the units named but for rounding: pay for it, and see what the answers say now."""
    unit = tx.must(WorkUnit, audit.audits)
    twins = [other for other in (unit, *audits_of(tx, unit.unit_id)) if other.unit_id in agrees and other.answer]
    audit = replace(audit, answer=twins[0].answer) if twins and not _one_class(tx, audit, twins[0]) else audit
    tx.put(audit)
    facts = _pay(tx, now, audit)
    if unit.state is not UnitState.ACCEPTED:  # it was opened again meanwhile
        tx.put(replace(audit, state=UnitState.ABANDONED, answer=""))
        return facts
    if rules.trust is not None and audit.answer != unit.answer and not _comparable(tx, audit, unit):
        tx.put(replace(audit, state=UnitState.ABANDONED, answer=""))
        opened = _ask(tx, now, unit, AuditReason(audit.audit_reason), 1, rules)
        return facts + opened + ([] if any(isinstance(fact, AuditOpened) for fact in opened) else _go_on(tx, now, unit))
    return facts + _weigh(tx, now, unit, rules)


def refused(tx: Tx, now: datetime, audit: WorkUnit, *, rules: Rules) -> list[Fact]:
    """An auditor's result cannot be read, or is not finite: that is no answer and says nothing of the unit. Another node is asked."""
    unit, auditor = tx.must(WorkUnit, audit.audits), audit.only_node
    tx.put(replace(_presence(tx, auditor), verified=0))
    if rules.trust is None or unit.state is not UnitState.ACCEPTED:
        return _withdraw(tx, now, audit, AuditResult.WITHDRAWN)
    able = [name for name in _able(tx, now, unit, but=audit.unit_id) if name != auditor]
    return _hand_on(tx, now, audit, unit, able, rules)


def sweep(tx: Tx, now: datetime, *, rules: Rules) -> list[Fact]:
    """Audits whose auditor cannot come are given to another one; what nobody takes though there are watts to work with is let go."""
    facts: list[Fact] = []
    if rules.trust is None:
        return facts
    for audit in _each(tx, UnitState.OPEN):
        unit, job = tx.must(WorkUnit, audit.audits), tx.must(Job, audit.spec.job_id)
        waited = audit.audit_at is not None and now - audit.audit_at >= rules.hand_over_after
        if unit.state is not UnitState.ACCEPTED:
            facts += _withdraw(tx, now, audit, AuditResult.WITHDRAWN)
        elif waited and (target_w(tx, job.spec.zone) > 0 or tx.count(Lease, zone=job.spec.zone, state=LeaseState.ACTIVE)):
            facts += _withdraw(tx, now, audit, AuditResult.UNAUDITABLE) + _weigh(tx, now, unit, rules)
        elif audit.only_node not in (able := _able(tx, now, unit, but=audit.unit_id)):
            facts += _hand_on(tx, now, audit, unit, able, rules)
    return facts


def stop(tx: Tx, now: datetime) -> list[Fact]:
    """The site audits no more: what is open is let go, so that nothing waits for it."""
    facts: list[Fact] = []
    for audit in _each(tx, *_WAITING):
        unit = tx.must(WorkUnit, audit.audits)
        facts += _withdraw(tx, now, audit, AuditResult.WITHDRAWN)
        facts += _go_on(tx, now, unit) if unit.state is UnitState.ACCEPTED else []
    return facts


def _each(tx: Tx, *states: UnitState) -> Iterator[WorkUnit]:
    """The audits in these states, each as it is when its turn comes: what followed from one may have ended the next."""
    for found in tx.find(WorkUnit, state=states):
        audit = tx.must(WorkUnit, found.unit_id) if found.audits else found
        if audit.audits and audit.state in states:
            yield audit


# -- asking


def _ask(tx: Tx, now: datetime, unit: WorkUnit, reason: AuditReason, count: int, rules: Rules) -> list[Fact]:
    """Open at most ``count`` audits of a unit, each with another node; where nobody can be asked, say so."""
    assert rules.trust is not None
    chosen = choose(unit.unit_id, _able(tx, now, unit), count, rules.trust)
    if not chosen:
        return [_ended(now, unit, AuditResult.UNAUDITABLE, "no other node of its hardware class is there")]
    before = len(audits_of(tx, unit.unit_id))
    facts: list[Fact] = []
    for number, node_id in enumerate(chosen, start=before + 1):
        spec = replace(unit.spec, unit_id=_audit_id(unit.unit_id, number))
        audit = WorkUnit(
            spec=spec,
            round_id=unit.round_id,
            index=unit.index,
            only_node=node_id,
            audits=unit.unit_id,
            audit_reason=reason.value,
            audit_at=now,
        )
        tx.insert(audit)
        facts.append(
            AuditOpened(at=now, job_id=spec.job_id, unit_id=unit.unit_id, audit_id=spec.unit_id, node_id=node_id, reason=reason.value)
        )
    return facts


def _hand_on(tx: Tx, now: datetime, audit: WorkUnit, unit: WorkUnit, able: Sequence[str], rules: Rules) -> list[Fact]:
    assert rules.trust is not None
    chosen = choose(unit.unit_id, able, 1, rules.trust)
    if not chosen:
        return _withdraw(tx, now, audit, AuditResult.UNAUDITABLE) + _weigh(tx, now, unit, rules)
    tx.put(replace(audit, only_node=chosen[0], continuation=None, continuation_step=0))
    job_id, reason = audit.spec.job_id, audit.audit_reason
    return [AuditOpened(at=now, job_id=job_id, unit_id=unit.unit_id, audit_id=audit.unit_id, node_id=chosen[0], reason=reason)]


def _able(tx: Tx, now: datetime, unit: WorkUnit, *, but: str = "") -> list[str]:
    """The nodes that could do ``unit`` again now, of a class that compares, and not asked yet, unless by the audit ``but``."""
    lease = tx.must(Lease, unit.accepted_lease)
    job = tx.must(Job, unit.spec.job_id)
    audits = [audit for audit in audits_of(tx, unit.unit_id) if audit.unit_id != but and not _was_set_aside(audit)]
    asked = _workers(tx, unit, lease) | {audit.only_node for audit in audits}
    willing = at_hand(tx, now, job, but=asked, drew_w=lease.power_w)
    classes = classes_of(tx, unit)
    same = [name for name, runtime in willing.items() if {runtime} == classes]
    if same or unit.spec.kind is not UnitKind.TRAIN or unit.spec.steps > LONGEST_ACROSS:
        return same
    kinds = {kind_of_runtime(name) for name in classes}
    return [name for name, runtime in willing.items() if {kind_of_runtime(runtime)} == kinds]


def _worth_hearing(tx: Tx, unit: WorkUnit) -> bool:
    """Whether the screens have been right often enough in this job to cost further energy."""
    job_id, reasons = unit.spec.job_id, (AuditReason.SIZE.value, AuditReason.DIRECTION.value, AuditReason.COPY.value)
    suspected = tx.find(WorkUnit, job_id=job_id, state=UnitState.ACCEPTED, audit_reason=reasons)
    units = tx.count(WorkUnit, job_id=job_id, state=UnitState.ACCEPTED, audits="")
    return len(suspected) < _FRUITLESS + _FRUITLESS_SHARE * units


# -- weighing


def _weigh(tx: Tx, now: datetime, unit: WorkUnit, rules: Rules) -> list[Fact]:
    """What the answers to ``unit`` say: believed, or asked further, or set aside."""
    audits = audits_of(tx, unit.unit_id)
    waiting = [audit for audit in audits if audit.state in _WAITING]
    given = _each_once(tx, [unit, *(audit for audit in audits if audit.state is UnitState.ACCEPTED)])
    votes = [Vote(node_id=_by(tx, one), answer=one.answer) for one in given]
    more = _able(tx, now, unit)
    judged = judge(votes, able=len(votes) + len(waiting) + len(more))
    if judged is not None:
        return _believe(tx, now, unit, given, waiting, judged)
    if waiting:
        return []
    if len(votes) < 2:  # nobody else has answered, and nobody is to be asked
        return _go_on(tx, now, unit)
    most = max(sum(vote.answer == other.answer for other in votes) for vote in votes)
    lacking = votes_needed(len(votes) + len(more)) - most
    if lacking <= len(more):
        return _ask(tx, now, unit, AuditReason.DISPUTED, max(lacking, 1), rules)
    return _set_aside(tx, now, unit, given[1:], votes)


def _believe(
    tx: Tx, now: datetime, unit: WorkUnit, given: Sequence[WorkUnit], waiting: Sequence[WorkUnit], judged: Judgement
) -> list[Fact]:
    """One answer is right: take it for the unit's where it is another, trust who gave it, and shut out who gave a wrong one."""
    facts: list[Fact] = []
    for audit in waiting:
        facts += _withdraw(tx, now, audit, AuditResult.WITHDRAWN)
    if unit.answer == judged.answer:
        seen = _presence(tx, _by(tx, unit))
        tx.put(replace(seen, verified=seen.verified + 1))
    elif not _is_merged(tx, unit):
        _take_over(tx, now, unit, next(one for one in given if one.answer == judged.answer))
    for one in given:
        if one.answer != judged.answer:
            facts += _find_wrong(tx, now, one, judged)
    if unit.spec.kind is UnitKind.EVALUATE and unit.answer != judged.answer:
        facts += advance.evaluated(tx, now, unit, json.loads(judged.answer))
    result = AuditResult.MISMATCH if judged.wrong else AuditResult.MATCH
    facts.append(_ended(now, unit, result, f"{', '.join(judged.wrong)} against {', '.join(judged.right)}" if judged.wrong else ""))
    return facts + _go_on(tx, now, unit)


def _find_wrong(tx: Tx, now: datetime, one: WorkUnit, judged: Judgement) -> list[Fact]:
    """A wrong answer. Where several nodes have worked on it, nobody can say whose middle was bad: all of them are newcomers again."""
    lease = tx.must(Lease, one.accepted_lease)
    workers = sorted(_workers(tx, one, lease))
    why = f"its answer to {one.unit_id} is not the one of {len(judged.right)} other nodes"
    facts = disown(tx, now, one, lease, why, units=0) if len(workers) == 1 else []
    if one.audits:
        tx.put(replace(one, state=UnitState.ABANDONED, answer=""))
    if len(workers) == 1:
        return facts + quarantine(tx, now, lease.node_id, one.unit_id, why)
    for name in workers:
        tx.put(replace(_presence(tx, name), verified=0))
    return facts


def _take_over(tx: Tx, now: datetime, unit: WorkUnit, right: WorkUnit) -> None:
    """Give ``unit`` the result of the audit that is right: nothing has to be done once more."""
    tx.put(
        replace(
            unit,
            update=right.update,
            update_norm=right.update_norm,
            accepted_lease=right.accepted_lease,
            accepted_at=now,
            answer=right.answer,
            digests=right.digests,
            continuation=right.continuation,
            middle_of=right.middle_of,
        )
    )


def _set_aside(tx: Tx, now: datetime, unit: WorkUnit, audits: Sequence[WorkUnit], votes: Sequence[Vote]) -> list[Fact]:
    """Answers differ and nobody is left to ask: none is believed and nobody accused. The unit is done again, a few times at most."""
    names = " and ".join(sorted({vote.node_id for vote in votes}))
    facts: list[Fact] = [_ended(now, unit, AuditResult.UNDECIDED, f"{names} disagree, and no other node of their class is there to decide")]
    for audit in audits:
        tx.put(replace(audit, state=UnitState.ABANDONED))
    for vote in votes:
        tx.put(replace(_presence(tx, vote.node_id), verified=0))
    settle.unbook(tx, unit, tx.must(Lease, unit.accepted_lease), units=1)
    tx.put(reopened(unit))
    if _set_asides(tx, unit) < _MOST_TRIES:
        return facts
    remedy = "let another node of their class join, or find the faulty one and shut it out, then submit the job again under a new id"
    return facts + advance.hopeless(tx, now, reopened(unit), f"{names} have disagreed on unit {unit.unit_id} {_MOST_TRIES} times; {remedy}")


def _go_on(tx: Tx, now: datetime, unit: WorkUnit) -> list[Fact]:
    """An evaluation may have been the last thing that its job waited for; a round is found by whoever merges."""
    return advance.epoch_over(tx, now, unit) if unit.spec.kind is UnitKind.EVALUATE else []


# -- books


def _withdraw(tx: Tx, now: datetime, audit: WorkUnit, result: AuditResult) -> list[Fact]:
    return [*abandon(tx, now, audit, LeaseReason.SUPERSEDED), _ended(now, audit, result, "")]


def _pay(tx: Tx, now: datetime, audit: WorkUnit) -> list[Fact]:
    """An audit is paid like other work; its energy is booked as an abandoned unit's is, since nothing of it is merged."""
    return settle.settle_unit(tx, now, replace(audit, state=UnitState.ABANDONED))


def _ended(now: datetime, unit: WorkUnit, result: AuditResult, detail: str) -> AuditEnded:
    return AuditEnded(at=now, job_id=unit.spec.job_id, unit_id=unit.audits or unit.unit_id, result=result.value, detail=detail)


def _set_asides(tx: Tx, unit: WorkUnit) -> int:
    """How often the answers to ``unit`` were set aside."""
    dropped = [audit for audit in audits_of(tx, unit.unit_id) if _was_set_aside(audit)]
    return len({audit.audit_at for audit in dropped if audit.audit_reason != AuditReason.DISPUTED})


def _was_set_aside(audit: WorkUnit) -> bool:
    """Whether this audit's answer was set aside: it says nothing any more, and its node may be asked again."""
    return audit.state is UnitState.ABANDONED and bool(audit.answer)


def _workers(tx: Tx, unit: WorkUnit, lease: Lease) -> set[str]:
    """The node that finished ``unit``, and all whose middle may be in its result."""
    return {lease.node_id, *(other.node_id for other in worked_on(tx, unit))}


def _by(tx: Tx, unit: WorkUnit) -> str:
    return tx.must(Lease, unit.accepted_lease).node_id


def _each_once(tx: Tx, given: Sequence[WorkUnit]) -> list[WorkUnit]:
    """One answer a node, and none of a node that is quarantined by now; the unit's own comes first and stays."""
    first = {_by(tx, one): one for one in reversed(given)}
    return [one for one in given if first[_by(tx, one)] is one and (one is given[0] or not _quarantined(tx, _by(tx, one)))]


def _is_merged(tx: Tx, unit: WorkUnit) -> bool:
    """Whether the unit's round is closed, so that its result is in a version for good."""
    rnd = tx.get(Round, unit.round_id) if unit.round_id else None
    return rnd is not None and rnd.state is not RoundState.OPEN


def _quarantined(tx: Tx, node_id: str) -> bool:
    node = tx.get(Node, node_id)
    return node is not None and node.quarantined_at is not None


def _presence(tx: Tx, node_id: str) -> Presence:
    return tx.get(Presence, node_id) or Presence(node_id=node_id)


def _comparable(tx: Tx, audit: WorkUnit, unit: WorkUnit) -> bool:
    """Whether another answer means that one of the two is wrong: not where the auditor was given another release on the way."""
    mine, theirs = classes_of(tx, audit), classes_of(tx, unit)
    short = unit.spec.kind is UnitKind.TRAIN and unit.spec.steps <= LONGEST_ACROSS and "" not in mine | theirs
    return mine == theirs or (short and set(map(kind_of_runtime, mine)) == set(map(kind_of_runtime, theirs)))


def _one_class(tx: Tx, one: WorkUnit, other: WorkUnit) -> bool:
    return len(classes := classes_of(tx, one)) == 1 and classes == classes_of(tx, other)
