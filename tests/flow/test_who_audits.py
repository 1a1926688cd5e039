"""Which nodes an audit is put to, and that no round waits for one that cannot begin."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from gridsched.core.consent import Consent
from gridsched.core.facts import AuditEnded, AuditOpened, NodeQuarantined, RewardReversed
from gridsched.core.fleet import Node, held_out
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import advance, audit, collect, decide
from gridsched.wire import ConsentChoice
from tests.flow.conftest import C, House, of
from tests.flow.test_audits import ALWAYS, finish, one_unit, ready, worker


@pytest.fixture
def site(house: House) -> House:
    """A house that audits every unit."""
    house.rules = replace(house.rules, trust=ALWAYS)
    return house


def audited(site: House, *, watts: float) -> list[str]:
    """Who is asked to do the job's one unit again, with so much surplus."""
    site.job(method=one_unit())
    site.surplus(watts)
    site.tick()
    return [fact.node_id for fact in of(finish(site, worker(site)), AuditOpened)]


def test_a_node_that_draws_more_than_there_is_is_not_asked(site: House) -> None:
    site.join("pc", power_w=100.0)
    site.join("server", power_w=500.0)
    assert not audited(site, watts=200.0)
    assert ready(site) == 1


def test_a_node_that_its_owner_lets_draw_nothing_is_not_asked(site: House) -> None:
    site.join("pc")
    site.join("old")
    with site.store.write() as tx:
        tx.put(*(replace(consent, max_w=0.0) for consent in tx.find(Consent, node_id="old")))
    assert not audited(site, watts=200.0)


def test_a_node_that_is_held_out_today_is_not_asked(site: House) -> None:
    site.policy = replace(site.policy, hold_out_share=0.5)
    day = f"{site.clock.now():%Y-%m-%d}"
    by_lot: dict[bool, list[str]] = {True: [], False: []}
    for number in range(50):
        by_lot[held_out(f"n{number}", share=0.5, day=day)].append(f"n{number}")
    site.join(by_lot[False][0])
    site.join(by_lot[True][0])
    assert not audited(site, watts=1000.0)
    assert ready(site) == 1


def test_while_surplus_comes_or_goes_whoever_is_no_larger_than_the_first_worker_is_asked(site: House) -> None:
    site.join("pc")
    site.join("old")
    site.job(method=one_unit())
    site.surplus(200.0)
    site.tick()
    first = worker(site)
    site.clock.advance(timedelta(minutes=20))
    site.surplus(50.0)
    site.tick()
    assert len(of(finish(site, first), AuditOpened)) == 1


@pytest.mark.parametrize(("watts", "waits"), [(0.0, True), (1000.0, False)])
def test_an_audit_that_nobody_takes_is_waited_for_only_while_nobody_may_work(site: House, watts: float, waits: bool) -> None:
    site.join("pc")
    site.join("old")
    assert len(audited(site, watts=1000.0)) == 1
    site.clock.advance(site.rules.hand_over_after)
    site.surplus(watts)
    site.do(partial(decide.zone, policy=site.policy))
    _, facts = site.do(partial(audit.sweep, rules=site.rules))
    assert [fact.result for fact in of(facts, AuditEnded)] == ([] if waits else ["unauditable"])
    assert ready(site) == (0 if waits else 1)
    assert len(site.rows(WorkUnit, state=UnitState.OPEN)) == int(waits)


@pytest.mark.parametrize(("continuation", "step", "accused"), [(None, 0, True), (C, 8, False)])
def test_a_liar_is_shielded_by_whose_middle_it_went_on_from_and_by_nobody_who_gave_nothing(
    site: House, continuation: str | None, step: int, accused: bool
) -> None:
    for name in ("a", "b", "c", "d"):
        site.join(name)
    site.job(method=one_unit())
    site.surplus(1000.0)
    site.tick()
    site.hand_over(worker(site), continuation, step=step)
    site.clock.advance(timedelta(seconds=1))
    site.tick()
    liar = worker(site)
    asked = of(finish(site, liar, "wrong"), AuditOpened)
    caught: list[str] = []
    for _ in range(2):
        site.tick()
        facts = finish(site, asked[0].node_id)
        asked = of(facts, AuditOpened)
        caught += [fact.node_id for fact in of(facts, NodeQuarantined)]
    assert caught == ([liar] if accused else [])


def test_a_node_of_another_class_that_gave_nothing_makes_no_unit_unauditable(site: House) -> None:
    site.join("pi", runtime="torch-arm")
    site.job(method=one_unit(passes=4))
    site.surplus(1000.0)
    site.tick()
    site.hand_over("pi", None, step=0)
    for name in ("pc", "old"):
        site.join(name)
    site.clock.advance(timedelta(seconds=1))
    site.tick()
    assert len(of(finish(site, worker(site)), AuditOpened)) == 1


@pytest.mark.parametrize("passes", [1, 4])  # 16 steps: but for rounding the same in all classes of a runtime; 64: in none but one
def test_an_auditor_of_another_class_is_not_held_to_the_bits_of_a_unit_that_was_done_again(site: House, passes: int) -> None:
    """Its answer was right of the result that could not be read any more; nodes of another class have done the unit since."""
    torch, wasm = ("pc", "old"), ("phone", "tablet", "page")
    for name in (*torch, *wasm):
        site.join(name, runtime="torch-x" if name in torch else "wasm-0123abcd", opt_in=name in torch)
    site.job(method=one_unit(passes=passes))
    site.surplus(1000.0)
    site.tick()
    (opened,) = of(finish(site, worker(site), "by torch"), AuditOpened)
    site.tick()
    finish(site, opened.node_id, "by torch")
    site.do(partial(advance.redo, round_id="j.r0", lost={"j.r0.u0": "its update is damaged"}))
    for name in (*torch, *wasm):
        site.do(partial(collect.choose, node_id=name, message=ConsentChoice(opted_in=name in wasm), rules=site.rules))
    site.clock.advance(timedelta(seconds=1))
    site.tick()
    facts = finish(site, worker(site), "by wasm")
    (again,) = of(facts, AuditOpened)
    assert again.node_id in wasm
    site.tick()
    facts += finish(site, again.node_id, "by wasm")
    assert [fact.result for fact in of(facts, AuditEnded)] == ["match"]
    assert not of(facts, NodeQuarantined)
    assert not of(facts, RewardReversed)
    assert site.rows(Node, node_id=opened.node_id)[0].quarantined_at is None
    assert ready(site) == 1
