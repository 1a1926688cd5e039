"""From a decision to a lease and back: who is offered work, who pauses and why, and what ends a lease."""

from datetime import timedelta
from functools import partial

import pytest

from gridsched.core.errors import DuplicateIdentity, InvalidInput, LeaseLost
from gridsched.core.facts import (
    AgentReplaced,
    LeaseActive,
    LeaseEnded,
    LeaseOffered,
    LeasePaused,
    LeaseResumed,
    NodeAbsent,
    NodePresent,
    ZoneObserved,
    kind_of,
)
from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.ledger import OPERATOR, Account, Transfer, TransferKind
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import admit, assign, collect
from gridsched.wire import ConsentChoice, HandOver, Hello, Sync, UpdateNotice
from tests.flow.conftest import A, B, House, of


def test_surplus_and_consent_make_an_offer(house: House) -> None:
    house.job()
    house.join("pc")
    house.surplus(150)
    decision, facts = house.tick()
    offers = of(facts, LeaseOffered)
    assert [(o.node_id, o.unit_id, o.power_w, o.decision_id) for o in offers] == [("pc", "j.r0.u0", 100.0, decision.decision_id)]
    orders, _ = house.sync(state="starting")
    assert orders.order is not None
    assert (orders.order.desired, orders.order.unit.unit_id) == ("run", "j.r0.u0")


def test_a_granted_lease_reserves_the_most_it_can_earn(house: House) -> None:
    house.job()
    house.working()
    (reserve,) = house.rows(Transfer)
    assert reserve.kind is TransferKind.RESERVE
    assert reserve.amount_micro == int(100 * 6 * 1.05 / 1000 * 250_000) + 1000 + 1  # the last one for what is carried into it


@pytest.mark.parametrize(
    "why_not",
    ["not opted in", "no surplus", "no work", "wrong runtime", "program not covered", "too little memory", "too big for the surplus"],
)
def test_no_offer(house: House, why_not: str) -> None:
    if why_not != "no work":
        house.job(
            memory_bytes=2 * 10**9 if why_not == "too little memory" else 0,
            runtime="torch" if why_not == "wrong runtime" else "",
            wasm_lacks="aten.conv3d.default" if why_not == "program not covered" else "",
        )
    house.join(
        "pc",
        opt_in=why_not != "not opted in",
        runtime="wasm-0123abcd" if why_not in ("wrong runtime", "program not covered") else "torch",
        power_w=200.0 if why_not == "too big for the surplus" else 100.0,
    )
    house.surplus(0 if why_not == "no surplus" else 150)
    _, facts = house.tick()
    assert not of(facts, LeaseOffered)
    assert house.lease() is None


def test_planning_again_changes_nothing(house: House) -> None:
    house.job()
    house.working()
    _, facts = house.tick()
    assert [type(f) for f in facts] == [ZoneObserved]


def test_no_surplus_pauses_and_surplus_resumes_the_same_lease(house: House) -> None:
    house.job()
    before = house.working()
    house.clock.advance(timedelta(minutes=16))
    house.sync(step=3)
    house.surplus(0)
    _, facts = house.tick()
    assert [f.reason for f in of(facts, LeasePaused)] == ["no_surplus"]
    orders, _ = house.sync(state="paused", step=3)
    assert orders.order is not None
    assert orders.order.desired == "pause"
    house.clock.advance(timedelta(seconds=60))
    house.sync(state="paused", step=3)
    house.surplus(500)
    _, facts = house.tick()
    assert [f.lease_id for f in of(facts, LeaseResumed)] == [before.lease_id]
    assert house.held().generation == before.generation


def test_a_stale_signal_pauses_visibly(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(minutes=36))
    house.sync(step=3)
    decision, facts = house.tick()
    assert decision.reason == "stale_signal"
    assert [f.reason for f in of(facts, LeasePaused)] == ["stale_signal"]


def test_less_surplus_pauses_only_who_no_longer_fits(house: House) -> None:
    house.job()
    house.join("big", power_w=300.0)
    house.join("small", power_w=50.0)
    house.surplus(400)
    house.tick()
    house.clock.advance(timedelta(minutes=1))
    house.surplus(120)
    _, facts = house.tick()
    assert [(f.node_id, f.reason) for f in of(facts, LeasePaused)] == [("big", "target_lowered")]
    assert house.held("small").state is LeaseState.OFFERED


def test_opting_out_pauses_at_once_and_asks_for_the_middle(house: House) -> None:
    house.job()
    lease = house.working()
    orders, facts = house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=house.rules))
    assert [f.reason for f in of(facts, LeasePaused)] == ["opted_out"]
    assert orders.order.desired == "hand_over"
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=B, step=4, steps_executed=4, reason="opted_out")
    for _ in range(2):  # the answer to the first may have been lost
        orders, _ = house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
        assert orders.order is None
    (unit,) = house.rows(WorkUnit, unit_id="j.r0.u0")
    assert (unit.state, unit.continuation, unit.continuation_step) == (UnitState.OPEN, B, 4)
    house.join("old")
    _, facts = house.tick()
    assert [(f.node_id, f.unit_id) for f in of(facts, LeaseOffered)] == [("old", "j.r0.u0")]
    orders, _ = house.sync("old", state="starting")
    assert orders.order is not None
    assert (orders.order.continuation, orders.order.continuation_step) == (B, 4)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        *((said, "handed_over") for said in ("outrun", "quarantined", "update_refused", "not_finite", "node_refused", "finished", "x")),
        *((said, said) for said in ("opted_out", "node_left", "no_surplus", "device_hot")),
    ],
)
def test_a_node_says_why_it_gives_a_unit_back_but_not_in_the_daemon_s_own_verdicts(house: House, said: str, kept: str) -> None:
    house.job()
    lease = house.working()
    house.clock.advance(timedelta(seconds=20))
    house.sync(step=4, register_j=1000.0)
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=B, step=4, steps_executed=4, reason=said)
    house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
    assert house.rows(Lease, lease_id=lease.lease_id)[0].reason is LeaseReason(kept)
    house.do(partial(admit.cancel, job_id="j"))
    assert house.rows(Account, account_id=OPERATOR)[0].debits_pending == 0


def test_an_earlier_middle_never_replaces_a_later_one(house: House) -> None:
    house.job()
    lease = house.working()
    with house.store.write() as tx:
        unit = tx.must(WorkUnit, "j.r0.u0")
        tx.put(type(unit)(**{f: getattr(unit, f) for f in unit.__slots__} | {"continuation": A, "continuation_step": 6}))
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=B, step=4, steps_executed=4, reason="x")
    house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
    (unit,) = house.rows(WorkUnit, unit_id="j.r0.u0")
    assert (unit.continuation, unit.continuation_step) == (A, 6)


def test_silence_makes_a_node_absent_and_then_ends_its_lease(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    _, facts = house.do(partial(assign.sweep, rules=house.rules))
    assert [f.silent_s for f in of(facts, NodeAbsent)] == [60.0]
    assert house.lease() is not None
    house.clock.advance(timedelta(seconds=30))
    _, facts = house.do(partial(assign.sweep, rules=house.rules))
    assert [(f.state, f.reason) for f in of(facts, LeaseEnded)] == [("expired", "node_silent")]
    assert house.rows(WorkUnit, unit_id="j.r0.u0")[0].state is UnitState.OPEN
    _, facts = house.sync()
    assert of(facts, NodePresent)


def test_one_moment_before_its_end_a_lease_still_holds(house: House) -> None:
    house.job()
    lease = house.working()
    house.clock.move_to(lease.expires_at - timedelta(microseconds=1))
    house.do(partial(assign.sweep, rules=house.rules))
    assert house.lease() is not None
    house.clock.move_to(lease.expires_at)
    house.do(partial(assign.sweep, rules=house.rules))
    assert house.lease() is None


def test_the_longest_lease_ends_even_a_busy_one(house: House) -> None:
    house.job()
    lease = house.working()
    while house.clock.now() < lease.ends_at:
        house.clock.advance(timedelta(minutes=1))
        house.sync(step=1)
    _, facts = house.do(partial(assign.sweep, rules=house.rules))
    assert [f.reason for f in of(facts, LeaseEnded)] == ["max_duration"]


def test_after_expiry_a_write_under_the_old_generation_is_refused(house: House) -> None:
    house.job()
    lease = house.working()
    house.clock.advance(timedelta(minutes=5))
    house.do(partial(assign.sweep, rules=house.rules))
    house.sync()
    house.tick()
    assert house.held().generation == 2
    old = UpdateNotice(instance="one", lease_id=lease.lease_id, generation=1, update=B, steps_executed=8, metrics={})
    with pytest.raises(LeaseLost, match=r"j\.r0\.u0\.l1 generation 1 has ended"):
        house.do(partial(collect.update, node_id="pc", message=old, checked=collect.Checked(norm=1.0), rules=house.rules))


def test_a_second_agent_with_one_identity_takes_over_and_the_first_is_told(house: House) -> None:
    house.job()
    house.working()
    _, facts = house.do(partial(collect.hello, node_id="pc", message=Hello(instance="two", runtime="torch"), rules=house.rules))
    assert [f.instance for f in of(facts, AgentReplaced)] == ["two"]
    with pytest.raises(DuplicateIdentity, match="stop one of the two"):
        house.sync(instance="one")
    house.sync(instance="two")


def test_in_a_group_one_node_s_error_is_its_own(house: House) -> None:
    house.join("pc")
    house.join("old")
    items = [("pc", Sync(instance="wrong")), ("old", Sync(instance="one")), ("stranger", Sync(instance="one"))]
    answers, _ = house.do(partial(collect.sync_many, items=items, rules=house.rules))
    assert [type(a).__name__ for a in answers] == ["DuplicateIdentity", "Orders", "NotFound"]


@pytest.mark.parametrize(
    ("device", "reason"), [("user_active", "device_busy"), ("hot", "device_hot"), ("on_battery", "on_battery"), ("disk_full", "disk_full")]
)
def test_the_device_s_own_limits_pause_it_with_the_reason(house: House, device: str, reason: str) -> None:
    house.job()
    house.working()
    orders, facts = house.sync(step=2, device=device)
    assert [f.reason for f in of(facts, LeasePaused)] == [reason]
    assert orders.order is not None
    assert orders.order.desired == "pause"
    house.sync(state="paused", step=2)
    _, facts = house.tick()
    assert of(facts, LeaseResumed)


def test_consent_that_ends_pauses_with_that_reason(house: House) -> None:
    house.job()
    house.join("pc")
    house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=True, for_s=600), rules=house.rules))
    house.surplus(500, minutes=60)
    house.tick()
    house.clock.advance(timedelta(seconds=599))
    house.sync(step=1)
    assert not of(house.tick()[1], LeasePaused)
    house.clock.advance(timedelta(seconds=1))
    assert [f.reason for f in of(house.tick()[1], LeasePaused)] == ["consent_ended"]


def test_a_unit_stuck_on_a_passed_over_node_is_asked_back(house: House) -> None:
    house.job()
    house.working()
    house.sync(step=2, device="hot")
    for _ in range(11):
        house.clock.advance(timedelta(minutes=1))
        house.sync(state="paused", step=2, device="hot")
        house.surplus(1000)
        house.tick()
    orders, _ = house.sync(state="paused", step=2, device="hot")
    assert orders.order is not None
    assert orders.order.desired == "hand_over"


def test_the_operator_s_switch_pauses_the_zone(house: House) -> None:
    house.job()
    house.working()
    _, facts = house.do(partial(admit.pause_zone, zone="de-lu", paused=True))
    assert [kind_of(fact) for fact in facts] == ["zone_paused"]
    assert not house.do(partial(admit.pause_zone, zone="de-lu", paused=True))[1], "switched twice, told once"
    house.clock.advance(timedelta(seconds=1))
    assert [f.reason for f in of(house.tick()[1], LeasePaused)] == ["paused_by_operator"]
    house.do(partial(admit.pause_zone, zone="de-lu", paused=False))
    house.clock.advance(timedelta(seconds=1))
    assert of(house.tick()[1], LeaseResumed)


def test_a_restart_gives_every_live_lease_a_fresh_ttl(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(hours=2))
    house.do(partial(assign.restart, rules=house.rules))
    _, facts = house.do(partial(assign.sweep, rules=house.rules))
    assert not facts
    assert house.held().expires_at == house.clock.now() + house.rules.lease_ttl


def test_a_revoked_node_loses_its_lease_but_not_its_earnings(house: House) -> None:
    house.job()
    house.working()
    house.sync(step=2, register_j=1000.0)
    _, facts = house.do(partial(admit.revoke_node, node_id="pc"))
    assert [f.reason for f in of(facts, LeaseEnded)] == ["node_left"]
    (lease,) = house.rows(Lease)
    assert not lease.settled
    assert not of(house.tick()[1], LeaseOffered)


def test_a_refused_offer_goes_to_another_node(house: House) -> None:
    house.job()
    house.working()
    house.join("old")
    _, facts = house.sync(state="refused", reason="MemoryError: 2 GB are not there")
    assert [(f.reason, f.detail) for f in of(facts, LeaseEnded)] == [("node_refused", "MemoryError: 2 GB are not there")]
    house.clock.advance(timedelta(seconds=1))
    offered = {o.unit_id: o.node_id for o in of(house.tick()[1], LeaseOffered)}
    assert len(offered) == 2


def test_granting_is_seen_once(house: House) -> None:
    house.job()
    house.join("pc")
    house.surplus(500)
    house.tick()
    assert len(of(house.sync(state="starting")[1], LeaseActive)) == 1
    assert not of(house.sync(step=1)[1], LeaseActive)


def test_an_agent_of_another_protocol_is_told_which_release_to_install(house: House) -> None:
    house.join("pc")
    message = Hello(instance="two", runtime="torch", version=99)
    with pytest.raises(InvalidInput, match="protocol 99"):
        house.do(partial(collect.hello, node_id="pc", message=message, rules=house.rules))
