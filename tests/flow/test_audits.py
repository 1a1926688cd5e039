"""Who is asked to do a unit again, what waits for it and for how long, and whom a wrong answer is laid to."""

import hashlib
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.facts import AuditEnded, AuditOpened, Fact, NodeQuarantined
from gridsched.core.fleet import Node, Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.method import Method
from gridsched.core.round import Epoch
from gridsched.core.trust import Auditing, AuditReason
from gridsched.core.work import Refusal, UnitState, WorkUnit
from gridsched.flow import advance, assign, audit, collect, quarantine
from gridsched.flow.case import case_of
from gridsched.flow.collect import Checked
from gridsched.wire import ConsentChoice, HandOver, Hello, Orders, UpdateNotice
from tests.flow.conftest import House, of

ALWAYS = Auditing(share=1.0, probation=1, secret=b"one")
C = "c" * 64


@pytest.fixture
def site(house: House) -> House:
    """A house that audits every unit."""
    house.rules = replace(house.rules, trust=ALWAYS)
    return house


def one_unit(**method: Any) -> Method:
    return Method(epochs=1, batch_size=8, samples_per_unit=128, units_per_round=1, **method)


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def begin(site: House) -> None:
    site.surplus(1000.0)
    site.tick()


def finish(site: House, node_id: str, result: str = "honest", *, agrees: tuple[str, ...] = ()) -> list[Fact]:
    lease = site.held(node_id)
    message = UpdateNotice(
        instance="one",
        lease_id=lease.lease_id,
        generation=lease.generation,
        update=digest(result),
        steps_executed=16,
        metrics={"loss": 1.0},
    )
    checked = Checked(norm=1.0, agrees=agrees)
    _, facts = site.do(partial(collect.update, node_id=node_id, message=message, checked=checked, rules=site.rules))
    return facts


def worker(site: House) -> str:
    """The node that does the job's first unit."""
    (unit,) = site.rows(WorkUnit, unit_id="j.r0.u0")
    return next(name for name in (node.node_id for node in site.rows(Node)) if (held := site.lease(name)) and held.unit_id == unit.unit_id)


def ready(site: House) -> int:
    with site.store.read() as tx:
        return len(advance.ready_to_merge(tx))


def test_a_round_waits_for_its_audit_and_the_auditor_is_another_node_of_the_class(site: House) -> None:
    for name, runtime in (("pc", "torch-x"), ("old", "torch-x"), ("pi", "torch-arm")):
        site.join(name, runtime=runtime)
    site.job(method=one_unit(passes=4))
    begin(site)
    first = worker(site)
    (opened,) = of(finish(site, first), AuditOpened)
    like = {node.node_id for node in site.rows(Node) if node.runtime == site.rows(Node, node_id=first)[0].runtime} - {first}
    if not like:
        raise AssertionError("the node of a class of its own came first; name them so that it does not")
    assert opened.node_id in like
    assert not ready(site)
    site.tick()
    facts = finish(site, opened.node_id)
    assert [fact.result for fact in of(facts, AuditEnded)] == ["match"]
    assert ready(site) == 1
    with site.store.read() as tx:
        assert [unit.unit_id for unit in advance.taken(tx, "j.r0")] == ["j.r0.u0"]
    assert [presence.verified for presence in site.rows(Presence, node_id=first)] == [1]
    assert [presence.verified for presence in site.rows(Presence, node_id=opened.node_id)] == [0]  # it knew what it did


def test_no_class_of_its_own_to_ask_holds_up_nothing(site: House) -> None:
    site.join("pc")
    site.join("pi", runtime="torch-arm")
    site.job(method=one_unit(passes=4))  # 64 steps: other classes drift away
    begin(site)
    facts = finish(site, worker(site))
    assert not of(facts, AuditOpened)
    assert [fact.result for fact in of(facts, AuditEnded)] == ["unauditable"]
    assert ready(site) == 1


@pytest.mark.parametrize(("near", "results"), [(True, ["match"]), (False, ["undecided"])])
def test_a_short_unit_is_compared_across_classes_but_for_rounding(site: House, near: bool, results: list[str]) -> None:
    site.join("pc")
    site.join("pi", runtime="torch-arm")
    site.job(method=one_unit())
    begin(site)
    (opened,) = of(finish(site, worker(site), "one class"), AuditOpened)
    site.tick()
    facts = finish(site, opened.node_id, "another class", agrees=("j.r0.u0",) if near else ())
    assert [fact.result for fact in of(facts, AuditEnded)] == results
    assert not of(facts, NodeQuarantined)


def test_within_a_class_only_the_same_bits_are_the_same(site: House) -> None:
    site.join("pc")
    site.join("old")
    site.job(method=one_unit())
    begin(site)
    (opened,) = of(finish(site, worker(site)), AuditOpened)
    site.tick()
    facts = finish(site, opened.node_id, "nearly honest", agrees=("j.r0.u0",))
    assert [fact.result for fact in of(facts, AuditEnded)] == ["undecided"]


def test_an_auditor_that_goes_is_replaced_and_with_nobody_left_the_round_goes_on(site: House) -> None:
    for name in ("pc", "old", "pi"):
        site.join(name)
    site.job(method=one_unit())
    begin(site)
    first = worker(site)
    (opened,) = of(finish(site, first), AuditOpened)
    out = ConsentChoice(opted_in=False)
    site.do(partial(collect.choose, node_id=opened.node_id, message=out, rules=site.rules))
    _, facts = site.do(partial(audit.sweep, rules=site.rules))
    (again,) = of(facts, AuditOpened)
    assert again.audit_id == opened.audit_id
    assert again.node_id not in (first, opened.node_id)
    assert not site.do(partial(audit.sweep, rules=site.rules))[1]  # it is there, so it stays with it
    site.do(partial(collect.choose, node_id=again.node_id, message=out, rules=site.rules))
    _, facts = site.do(partial(audit.sweep, rules=site.rules))
    assert [fact.result for fact in of(facts, AuditEnded)] == ["unauditable"]
    assert ready(site) == 1


def test_an_audit_that_nobody_takes_while_others_work_is_let_go(site: House) -> None:
    for name in ("pc", "old", "pi"):
        site.join(name)
    site.job(method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2))
    begin(site)
    (opened,) = of(finish(site, worker(site)), AuditOpened)
    later = site.rules.hand_over_after
    site.clock.advance(later - timedelta(seconds=1))
    with site.store.write() as tx:
        held = [replace(unit, state=UnitState.OPEN) for unit in tx.find(WorkUnit, unit_id=opened.audit_id)]
        tx.put(*held)
        tx.put(*(replace(presence, present=True, seen_at=site.clock.now()) for presence in tx.find(Presence)))
    other = next(name for name in ("pc", "old", "pi") if site.lease(name))
    site.sync(other, register_j=0.0)
    assert not of(site.do(partial(audit.sweep, rules=site.rules))[1], AuditEnded)
    site.clock.advance(timedelta(seconds=1))
    _, facts = site.do(partial(audit.sweep, rules=site.rules))
    assert [fact.result for fact in of(facts, AuditEnded)] == ["unauditable"]


def three(site: House) -> str:
    for name in ("pc", "old", "pi"):
        site.join(name)
    site.job(method=one_unit())
    begin(site)
    return worker(site)


def dispute(site: House, opened: AuditOpened) -> list[Fact]:
    """The auditor and then the third node answer honestly."""
    site.tick()
    (third,) = of(finish(site, opened.node_id), AuditOpened)
    assert third.reason == AuditReason.DISPUTED
    site.tick()
    return finish(site, third.node_id)


def test_what_was_paid_is_taken_back_and_the_right_result_takes_the_place_of_the_wrong_one(site: House) -> None:
    liar = three(site)
    site.sync(liar, register_j=0.0)
    site.clock.advance(timedelta(seconds=20))
    site.sync(liar, step=8, register_j=900.0)
    (opened,) = of(finish(site, liar, "wrong"), AuditOpened)
    facts = dispute(site, opened)
    (caught,) = of(facts, NodeQuarantined)
    assert caught.node_id == liar
    (unit,) = site.rows(WorkUnit, unit_id="j.r0.u0")
    assert (unit.state, unit.update) == (UnitState.ACCEPTED, digest("honest"))
    assert ready(site) == 1
    (epoch,) = site.rows(Epoch)
    assert epoch.useful_j == 0.0
    assert epoch.wasted_j == 900.0
    assert epoch.units == 1  # it is done, and by whom is right


def test_a_quarantined_node_gets_no_work_and_its_owner_is_told_what_to_do(site: House) -> None:
    liar = three(site)
    (opened,) = of(finish(site, liar, "wrong"), AuditOpened)
    dispute(site, opened)
    site.job("k", method=one_unit())
    site.tick()
    assert site.lease(liar) is None
    orders: Orders = site.sync(liar)[0]
    assert orders.node_reason == "quarantined"
    assert f"gridsched pardon {liar}" in orders.notice
    assert "test its memory" in orders.notice
    site.do(partial(quarantine.pardon, node_id=liar))
    assert site.sync(liar)[0].notice == ""


def test_where_two_nodes_had_a_hand_in_a_wrong_result_neither_is_accused(site: House) -> None:
    first = three(site)
    site.sync(first, step=4)
    lease = site.held(first)
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=C, step=4, steps_executed=4, reason="opted_out")
    site.do(partial(collect.choose, node_id=first, message=ConsentChoice(opted_in=False), rules=site.rules))
    site.do(partial(collect.hand_over, node_id=first, message=message, rules=site.rules))
    assert [one.reason for one in site.rows(type(lease), lease_id=lease.lease_id)] == [LeaseReason.OPTED_OUT]
    assert [one.state for one in site.rows(type(lease), lease_id=lease.lease_id)] == [LeaseState.HANDED_OVER]
    site.join("new")
    site.tick()
    second = worker(site)
    assert second != first
    (opened,) = of(finish(site, second, "wrong"), AuditOpened)
    facts = dispute(site, opened)
    assert [fact.result for fact in of(facts, AuditEnded)] == ["mismatch"]
    assert not of(facts, NodeQuarantined)
    (unit,) = site.rows(WorkUnit, unit_id="j.r0.u0")
    assert unit.update == digest("honest")


def test_suspicions_that_prove_unfounded_are_heard_a_few_times_and_no_more(site: House) -> None:
    site.rules = replace(site.rules, trust=replace(ALWAYS, share=0.0, probation=0))
    for name in ("pc", "old", "pi"):
        site.join(name)
    with site.store.write() as tx:
        tx.put(*(replace(presence, verified=10**9) for presence in tx.find(Presence)))
    site.job(samples=64 * 10, method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=10))
    begin(site)
    while not ready(site):
        finish(site, next(name for name in ("pc", "old", "pi") if site.lease(name)))
        site.tick()
    heard = 0
    for number in range(8):
        verb = partial(audit.suspect, suspicions={f"j.r0.u{number}": AuditReason.SIZE}, rules=site.rules)
        count, facts = site.do(verb)
        heard += count
        site.tick()
        for opened in of(facts, AuditOpened):
            finish(site, opened.node_id)
    assert heard == 4  # three, and 3 % of ten units
    assert ready(site) == 1


def test_an_auditor_whose_result_is_no_answer_ends_no_job_and_another_one_is_asked(site: House) -> None:
    for name in ("pc", "old", "pi"):
        site.join(name)
    site.job(method=one_unit())
    begin(site)
    first = worker(site)
    (again,) = (opened,) = of(finish(site, first), AuditOpened)
    for refusal in (Refusal.NOT_FINITE, Refusal.UNREADABLE):
        site.tick()
        (audited,) = [unit for unit in site.rows(WorkUnit) if unit.audits]
        lease = site.held(audited.only_node)
        message = UpdateNotice(
            instance="one", lease_id=lease.lease_id, generation=lease.generation, update=C, steps_executed=16, metrics={}
        )
        checked = Checked(refusal=refusal, detail="broken")
        _, facts = site.do(partial(collect.update, node_id=audited.only_node, message=message, checked=checked, rules=site.rules))
        (again,) = of(facts, AuditOpened)
        assert again.audit_id == opened.audit_id
        assert again.node_id not in (first, audited.only_node)
    assert site.rows(Job)[0].state is JobState.RUNNING
    site.tick()
    assert [fact.result for fact in of(finish(site, again.node_id), AuditEnded)] == ["match"]
    assert ready(site) == 1


def test_a_liars_units_for_rounds_to_come_of_a_stream_are_done_again_too(site: House) -> None:
    for name in ("pc", "old", "pi", "mac"):
        site.join(name)
    site.rules = replace(site.rules, trust=None)
    site.job(method=Method(epochs=1, batch_size=8, samples_per_unit=32, units_per_round=3, quorum=1), samples=256)
    begin(site)
    liar = next(node.node_id for node in site.rows(Node) if site.lease(node.node_id))
    finish(site, liar, "lie")
    site.tick()
    finish(site, liar, "second lie")
    mine = site.rows(WorkUnit, state=UnitState.ACCEPTED)
    assert sorted(unit.round_id for unit in mine) == ["j.r0", "j.r1"]
    site.do(partial(quarantine.quarantine, node_id=liar, unit_id=mine[0].unit_id, why="it lied"))
    assert not site.rows(WorkUnit, state=UnitState.ACCEPTED)
    states = {unit.unit_id: unit.state for unit in site.rows(WorkUnit)}
    assert {states[unit.unit_id] for unit in mine} == {UnitState.OPEN}


def test_an_auditor_whose_agent_begins_anew_keeps_its_audit(site: House) -> None:
    for name in ("pc", "old"):
        site.join(name)
    site.job(method=one_unit())
    begin(site)
    (opened,) = of(finish(site, worker(site)), AuditOpened)
    site.tick()
    hello = Hello(instance="two", runtime="torch-x")
    site.do(partial(collect.hello, node_id=opened.node_id, message=hello, rules=site.rules))
    assert site.held(opened.node_id).unit_id == opened.audit_id
    assert not ready(site)


def test_an_audit_that_a_judgement_withdraws_is_swept_no_further(site: House) -> None:
    for number in range(9):
        site.join(f"n{number}")
    site.job(method=one_unit())
    begin(site)
    (opened,) = of(finish(site, worker(site)), AuditOpened)
    site.surplus(1000.0)
    site.tick()
    further = of(finish(site, opened.node_id, "wrong"), AuditOpened)
    assert len(further) == 3  # four equal votes of nine decide
    site.tick()
    finish(site, further[0].node_id)
    for node in site.rows(Node):  # with the others gone, two votes of four do
        site.do(partial(collect.choose, node_id=node.node_id, message=ConsentChoice(opted_in=False), rules=site.rules))
    for fact in further[1:]:
        lease = site.held(fact.node_id)
        back = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=None, step=0, steps_executed=0, reason="")
        site.do(partial(collect.hand_over, node_id=fact.node_id, message=back, rules=site.rules))
    (unit,) = site.rows(WorkUnit, unit_id="j.r0.u0")
    _, facts = site.do(partial(audit.sweep, rules=site.rules))
    assert [fact.result for fact in of(facts, AuditEnded)] == ["unauditable", "withdrawn", "mismatch"]
    first = site.rows(Lease, lease_id=unit.accepted_lease)[0].node_id
    assert [presence.verified for presence in site.rows(Presence, node_id=first)] == [1]


def test_audits_that_were_open_when_a_site_stopped_auditing_hold_up_nothing(site: House) -> None:
    for name in ("pc", "old"):
        site.join(name)
    site.job(method=one_unit(), test_samples=0, test_dataset=None)
    begin(site)
    first = worker(site)
    (opened,) = of(finish(site, first), AuditOpened)
    site.tick()
    site.rules = replace(site.rules, trust=None)
    _, facts = site.do(partial(assign.restart, rules=site.rules))
    assert [fact.result for fact in of(facts, AuditEnded)] == ["withdrawn"]
    assert site.lease(opened.node_id) is None
    assert ready(site) == 1


def test_a_unit_whose_answers_are_set_aside_is_counted_once_and_what_it_drew_is_wasted(site: House) -> None:
    for name in ("pc", "old"):
        site.join(name)
    site.job(method=one_unit())
    begin(site)
    first = worker(site)
    site.sync(first, register_j=0.0)
    site.clock.advance(timedelta(seconds=20))
    site.sync(first, step=8, register_j=900.0)
    (opened,) = of(finish(site, first), AuditOpened)
    site.tick()
    finish(site, opened.node_id, "another")
    (epoch,) = site.rows(Epoch)
    assert (epoch.useful_j, epoch.wasted_j, epoch.units) == (0.0, 900.0, 0)


@pytest.mark.parametrize(
    ("third", "passes", "results"),
    [
        ("torch-arm", 1, ["match"]),  # short, and all of one runtime: the same but for rounding
        ("torch-arm", 4, ["unauditable"]),
        ("wasm-0123abcd", 1, ["unauditable"]),  # the second half was drawn by another generator
    ],
)
def test_a_unit_begun_in_one_class_and_ended_in_another_is_held_to_no_bits_and_against_nobody(
    site: House, third: str, passes: int, results: list[str]
) -> None:
    for name, runtime in (("pc", "torch-x"), ("phone", third), ("tablet", third)):
        site.join(name, runtime=runtime, opt_in=name == "pc")
    site.job(method=one_unit(passes=passes))
    begin(site)
    lease = site.held("pc")
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=C, step=4, steps_executed=4, reason="opted_out")
    site.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=site.rules))
    site.do(partial(collect.hand_over, node_id="pc", message=message, rules=site.rules))
    for name in ("phone", "tablet"):
        site.do(partial(collect.choose, node_id=name, message=ConsentChoice(opted_in=True), rules=site.rules))
    site.tick()
    second = next(name for name in ("phone", "tablet") if site.lease(name))
    facts = finish(site, second, "begun elsewhere")
    for opened in of(facts, AuditOpened):
        site.tick()
        facts = finish(site, opened.node_id, "done in one class", agrees=("j.r0.u0",))
    assert [fact.result for fact in of(facts, AuditEnded)] == results
    assert not of(facts, NodeQuarantined)
    assert ready(site) == 1


def test_the_two_runtimes_are_not_asked_about_one_another_and_wasm_nodes_and_pages_are_one_class(site: House) -> None:
    """Dropout draws other numbers in the other runtime: an honest answer would look like a lie."""
    site.join("pc", runtime="torch-x")
    for name in ("page", "pi"):
        site.join(name, runtime="wasm-0123abcd", opt_in=False)
    site.job(method=one_unit())
    begin(site)
    assert [fact.result for fact in of(finish(site, "pc"), AuditEnded)] == ["unauditable"]
    for name in ("page", "pi"):
        site.do(partial(collect.choose, node_id=name, message=ConsentChoice(opted_in=True), rules=site.rules))
    site.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=site.rules))
    site.job("k", method=one_unit(passes=4))
    site.tick()
    first = next(name for name in ("page", "pi") if site.lease(name))
    (opened,) = of(finish(site, first), AuditOpened)
    assert {first, opened.node_id} == {"page", "pi"}


def begins_anew(site: House, name: str, runtime: str) -> None:
    site.do(partial(collect.hello, node_id=name, message=Hello(instance="one", runtime=runtime), rules=site.rules))


def test_a_unit_is_held_to_the_bits_of_the_release_that_did_it_whatever_its_node_runs_by_now(site: House) -> None:
    """A daemon with newer kernels: every page is of another class after its next hello, and no honest one may look like a liar for it."""
    for name in ("page", "phone", "tablet"):
        site.join(name, runtime="wasm-0123abcd")
    site.job(method=one_unit(passes=4))
    begin(site)
    first = worker(site)
    (opened,) = of(finish(site, first, "by old kernels"), AuditOpened)
    for name in ("page", "phone", "tablet"):
        begins_anew(site, name, "wasm-4567cdef")
    site.tick()
    facts = finish(site, opened.node_id, "by new kernels")
    assert [fact.result for fact in of(facts, AuditEnded)] == ["unauditable"]
    assert not of(facts, NodeQuarantined)
    assert ready(site) == 1


def test_an_auditor_that_is_given_another_release_on_the_way_says_nothing_against_anybody(site: House) -> None:
    for name in ("page", "phone", "tablet"):
        site.join(name, runtime="wasm-0123abcd")
    site.job(method=one_unit(passes=4))
    begin(site)
    (opened,) = of(finish(site, worker(site), "by old kernels"), AuditOpened)
    site.tick()
    assert site.held(opened.node_id).unit_id == opened.audit_id
    begins_anew(site, opened.node_id, "wasm-4567cdef")
    facts = finish(site, opened.node_id, "half by new ones")
    (again,) = of(facts, AuditOpened)
    site.tick()
    facts = finish(site, again.node_id, "by old kernels")
    assert [fact.result for fact in of(facts, AuditEnded)] == ["match"]
    assert not of(facts, NodeQuarantined)
    assert ready(site) == 1


def test_a_lease_that_two_releases_have_worked_under_has_the_bits_of_neither(site: House) -> None:
    for name in ("page", "phone"):
        site.join(name, runtime="wasm-0123abcd")
    site.job(method=one_unit(passes=4))
    begin(site)
    first = worker(site)
    for name in ("page", "phone"):
        begins_anew(site, name, "wasm-4567cdef")
    facts = finish(site, first, "half by old kernels")
    assert [fact.result for fact in of(facts, AuditEnded)] == ["unauditable"]
    with site.store.read() as tx:
        assert case_of(tx, "j.r0.u0").classes == ()
