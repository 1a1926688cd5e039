"""The target is shared out among nodes that can use it, never twice, and never against what a consumer allows."""

from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.facts import JobEnded, LeaseOffered, LeasePaused, LeaseResumed, NodeQuarantined, ZoneObserved
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.work import Refusal
from gridsched.flow import assign, collect
from gridsched.flow.collect import Checked
from gridsched.wire import ConsentChoice, HandOver, UpdateNotice
from tests.flow.conftest import B, House, of


def drawn_w(house: House) -> float:
    return sum(lease.draws_w() for lease in house.rows(Lease, state=LIVE))


def absent_at_work(house: House) -> None:
    """``pc`` works and falls silent; ``old`` waits; the surplus carries one of them."""
    house.job()
    house.working(watts=150.0)
    house.join("old")
    house.clock.advance(timedelta(seconds=60))
    house.sync("old")
    house.do(partial(assign.sweep, rules=house.rules))


def test_the_power_of_a_silent_node_is_not_given_away_while_its_lease_lives(house: House) -> None:
    absent_at_work(house)
    assert not of(house.tick()[1], LeaseOffered)
    assert drawn_w(house) <= 150.0
    house.clock.advance(timedelta(seconds=30))
    house.do(partial(assign.sweep, rules=house.rules))
    assert [f.node_id for f in of(house.tick()[1], LeaseOffered)] == ["old"]


def test_a_silent_node_is_paused_when_the_target_falls_below_its_power(house: House) -> None:
    absent_at_work(house)
    house.surplus(0.0)
    _, facts = house.tick()
    assert [(f.node_id, f.reason) for f in of(facts, LeasePaused)] == [("pc", "no_surplus")]
    orders, _ = house.sync(step=1)
    assert orders.order is not None
    assert orders.order.desired == "pause"


@pytest.mark.parametrize("why", ["memory", "runtime"])
def test_a_node_that_can_run_nothing_takes_no_room_from_one_that_can(house: House, why: str) -> None:
    house.job(memory_bytes=10**9, wasm_lacks="aten.conv3d.default")
    able, unable = {"memory": 10**9, "runtime": "torch"}, {"memory": 10**9, "runtime": "torch"}
    unable[why] = {"memory": 10**6, "runtime": "wasm-0123abcd"}[why]
    house.join("a-first", **unable)  # type: ignore[arg-type]
    house.join("b-second", **able)  # type: ignore[arg-type]
    house.surplus(100)
    _, facts = house.tick()
    assert [f.node_id for f in of(facts, LeaseOffered)] == ["b-second"]
    (seen,) = of(facts, ZoneObserved)
    assert seen.nodes == {"starting": 1, why: 1}
    orders, _ = house.sync("a-first")
    assert orders.node_reason == why


@pytest.mark.parametrize("watts", [0.0, 40.0])
def test_a_lower_limit_of_the_consumer_counts_at_once(house: House, watts: float) -> None:
    house.job()
    lease = house.working()
    choice = ConsentChoice(opted_in=True, max_w=watts)
    orders, facts = house.do(partial(collect.choose, node_id="pc", message=choice, rules=house.rules))
    assert of(facts, LeasePaused)
    assert orders.order.desired == "hand_over"
    house.clock.advance(timedelta(seconds=1))
    assert not of(house.tick()[1], LeaseResumed), "not with the old watts"
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=B, step=4, steps_executed=4, reason="x")
    house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
    house.clock.advance(timedelta(seconds=1))
    assert [(f.unit_id, f.power_w) for f in of(house.tick()[1], LeaseOffered)] == ([("j.r0.u0", 40.0)] if watts else [])


def test_a_higher_limit_leaves_the_lease_alone(house: House) -> None:
    house.job()
    house.working()
    _, facts = house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=True, max_w=5000.0), rules=house.rules))
    assert not of(facts, LeasePaused)
    assert house.held().state is LeaseState.ACTIVE


def refuse_once(house: House, node_id: str = "pc", why: Refusal = Refusal.NORM_BOUND) -> list[object]:
    lease = house.held(node_id)
    message = UpdateNotice(
        instance="one", lease_id=lease.lease_id, generation=lease.generation, update=B, steps_executed=8, metrics={"loss": 1.0}
    )
    bad = Checked(refusal=why, detail="the update's norm is above the bound")
    _, facts = house.do(partial(collect.update, node_id=node_id, message=message, checked=bad, rules=house.rules))
    return list(facts)


def test_a_unit_whose_result_is_refused_again_and_again_ends_the_job_with_the_reason(house: House) -> None:
    """A model that has diverged takes too large a step on every node; energy must not be burnt on it for ever."""
    house.job(samples=64)
    house.working()
    ended: list[JobEnded] = []
    for _ in range(5):
        assert not ended
        house.clock.advance(timedelta(seconds=10))
        house.tick()
        house.sync()
        ended = of(refuse_once(house), JobEnded)  # type: ignore[arg-type]
    (fact,) = ended
    assert fact.state == "failed"
    assert "j.r0.u0" in fact.reason
    assert "norm_bound" in fact.reason
    assert house.rows(Job)[0].state is JobState.FAILED
    assert house.lease() is None


def refused(house: House, node_id: str, times: int, why: Refusal) -> tuple[list[JobEnded], list[NodeQuarantined]]:
    """``node_id`` gets the only unit and returns it badly, so many times; what came of the last."""
    facts: list[Any] = []
    for _ in range(times):
        house.clock.advance(timedelta(seconds=10))
        house.tick()
        house.sync(node_id)
        facts = refuse_once(house, node_id, why)
    return of(facts, JobEnded), of(facts, NodeQuarantined)


def opted(house: House, node_id: str, *, opted_in: bool) -> None:
    house.do(partial(collect.choose, node_id=node_id, message=ConsentChoice(opted_in=opted_in), rules=house.rules))


def test_a_node_that_returns_rubbish_again_and_again_shuts_itself_out_and_ends_no_job(house: House) -> None:
    house.job(samples=64)
    house.working()
    assert refused(house, "pc", 4, Refusal.UNREADABLE) == ([], [])
    ended, shut_out = refused(house, "pc", 1, Refusal.UNREADABLE)
    assert not ended
    assert [(f.node_id, f.unit_id) for f in shut_out] == [("pc", "j.r0.u0")]
    assert "for the 5th time" in shut_out[0].reason
    assert house.rows(Job)[0].state is JobState.RUNNING
    house.join("attic")
    house.sync("attic")
    assert [(f.node_id, f.unit_id) for f in of(house.tick()[1], LeaseOffered)] == [("attic", "j.r0.u0")]


def test_a_unit_that_several_nodes_cannot_do_right_ends_its_job(house: House) -> None:
    house.job(samples=64)
    house.working()
    assert refused(house, "pc", 4, Refusal.UNREADABLE) == ([], [])
    opted(house, "pc", opted_in=False)
    house.join("attic")
    ended, shut_out = refused(house, "attic", 1, Refusal.UNREADABLE)
    assert not shut_out
    assert "unreadable" in ended[0].reason


def test_too_large_a_step_on_several_nodes_ends_the_job_and_accuses_nobody(house: House) -> None:
    house.job(samples=64)
    house.working()
    assert refused(house, "pc", 4, Refusal.NORM_BOUND) == ([], [])
    house.join("attic")
    house.sync("attic")
    ended, shut_out = refused(house, "attic", 1, Refusal.NORM_BOUND)
    assert not shut_out
    assert "norm_bound" in ended[0].reason


@pytest.mark.parametrize("how", ["refused by the node", "its update refused"])
def test_who_could_not_do_a_unit_gets_another_one_first(house: House, how: str) -> None:
    house.job()
    house.working()
    if how == "refused by the node":
        house.sync(state="refused")
    else:
        refuse_once(house)
    house.clock.advance(timedelta(seconds=1))
    assert [f.unit_id for f in of(house.tick()[1], LeaseOffered)] == ["j.r0.u1"]
