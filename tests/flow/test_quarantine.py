"""What becomes of everything that a node left behind before it was shut out: its middles, and leases that nobody has paid yet."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from gridsched.core.facts import RewardPosted
from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.ledger import Transfer, TransferKind
from gridsched.core.trust import Auditing
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import assign, quarantine
from tests.flow.conftest import House, of
from tests.flow.test_audits import finish, one_unit


@pytest.fixture
def site(house: House) -> House:
    """A house that shuts nodes out, and draws no audits; node ``liar`` is at work on the only unit."""
    house.rules = replace(house.rules, trust=Auditing(share=0.0, probation=0, secret=b"one"))
    house.job(method=one_unit(), test_samples=0, test_dataset=None)
    house.working("liar")
    house.clock.advance(timedelta(seconds=20))
    house.sync("liar", step=4, register_j=1000.0)
    return house


def goes_on(site: House, node_id: str) -> int:
    """Another node takes the unit up; the step from which."""
    site.join(node_id)
    site.surplus(1000.0)
    site.tick()
    order = site.sync(node_id, register_j=0.0)[0].order
    assert order is not None
    return order.continuation_step


def shut_out(site: House, node_id: str = "liar") -> None:
    site.do(partial(quarantine.quarantine, node_id=node_id, unit_id="", why="it lied elsewhere"))


def test_nobody_goes_on_from_the_middle_of_a_node_that_is_shut_out(site: House) -> None:
    site.hand_over("liar")
    shut_out(site)
    assert goes_on(site, "honest") == 0


def test_whoever_has_gone_on_from_it_already_stops_and_is_paid_and_the_unit_begins_anew(site: House) -> None:
    site.hand_over("liar")
    assert goes_on(site, "honest") == 8
    taken = site.held("honest")
    site.clock.advance(timedelta(seconds=20))
    site.sync("honest", step=10, register_j=1500.0)
    shut_out(site)
    (ended,) = site.rows(Lease, lease_id=taken.lease_id)
    assert (ended.state, ended.reason) == (LeaseState.REVOKED, LeaseReason.SUPERSEDED)
    (unit,) = site.rows(WorkUnit)
    assert (unit.state, unit.continuation, unit.continuation_step) == (UnitState.OPEN, None, 0)
    site.clock.advance(timedelta(seconds=20))
    site.surplus(1000.0)
    site.tick()
    site.sync("honest", register_j=1500.0)
    facts = finish(site, "honest")
    site.clock.advance(site.rules.lease_ttl)  # its time for last words
    facts += site.do(partial(assign.sweep, rules=site.rules))[1]
    paid = {fact.lease_id: fact.node_id for fact in of(facts, RewardPosted)}
    assert paid[taken.lease_id] == "honest"
    assert set(paid.values()) == {"honest"}


def test_the_middles_of_others_stay_though_it_was_at_the_unit_too(site: House) -> None:
    site.hand_over("liar", None, step=0)
    assert goes_on(site, "other") == 0
    site.hand_over("other")
    shut_out(site)
    assert goes_on(site, "honest") == 8


def test_what_a_node_did_before_it_was_shut_out_earns_it_nothing_later(site: House) -> None:
    site.hand_over("liar")
    (before,) = site.rows(Lease)
    assert not before.settled
    shut_out(site)
    goes_on(site, "honest")
    finish(site, "honest")
    mine = [transfer.kind for transfer in site.rows(Transfer, lease_id=before.lease_id)]
    assert mine == [TransferKind.RESERVE, TransferKind.VOID]


def test_a_lease_that_was_outrun_and_waits_for_its_last_words_is_closed_unpaid(site: House) -> None:
    (lease,) = site.rows(Lease)
    outrun = replace(lease, state=LeaseState.REVOKED, reason=LeaseReason.OUTRUN)
    with site.store.write() as tx:
        tx.put(outrun)
    shut_out(site)
    assert [row.settled for row in site.rows(Lease)] == [True]
    assert [transfer.kind for transfer in site.rows(Transfer)] == [TransferKind.RESERVE, TransferKind.VOID]
