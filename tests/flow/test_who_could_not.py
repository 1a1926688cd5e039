"""A node that could not do a unit leaves it to others that may; alone it ends a job only where nobody else would try."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.facts import Fact, JobEnded, LeaseOffered
from gridsched.core.job import Job, JobState
from gridsched.core.method import Method
from gridsched.core.work import Refusal
from gridsched.flow import collect
from gridsched.flow.collect import Checked
from gridsched.wire import ConsentChoice, UpdateNotice
from tests.flow.conftest import B, House, of

ONE_UNIT: dict[str, Any] = {"samples": 64, "test_dataset": None, "test_samples": 0}


def finish(house: House, node_id: str, refusal: Refusal | None = None) -> list[Fact]:
    """``node_id`` returns its unit: well, or refused for a reason."""
    lease = house.held(node_id)
    message = UpdateNotice(
        instance="one", lease_id=lease.lease_id, generation=lease.generation, update=B, steps_executed=8, metrics={"loss": 1.0}
    )
    checked = Checked(norm=1.0) if refusal is None else Checked(refusal=refusal, detail="as it is")
    return list(house.do(partial(collect.update, node_id=node_id, message=message, checked=checked, rules=house.rules))[1])


def asked(house: House, *, after: timedelta = timedelta(seconds=30)) -> list[tuple[str, str]]:
    """Who is offered what at a further control tick."""
    house.clock.advance(after)
    house.surplus(1000)
    return [(fact.node_id, fact.unit_id) for fact in of(house.tick()[1], LeaseOffered)]


@pytest.mark.parametrize("why", [Refusal.NORM_BOUND, Refusal.NOT_FINITE, Refusal.UNREADABLE])
def test_a_unit_that_one_node_did_badly_is_offered_to_the_next(house: House, why: Refusal) -> None:
    house.job(**ONE_UNIT)
    house.join("a-bad")
    house.join("b-good")
    assert asked(house) == [("a-bad", "j.r0.u0")]
    house.sync("a-bad")
    finish(house, "a-bad", why)
    assert asked(house) == [("b-good", "j.r0.u0")]


def test_a_unit_that_nodes_refuse_comes_to_each_before_anyone_is_asked_again(house: House) -> None:
    house.job(**ONE_UNIT)
    nodes = ["a-bad", "b-bad", "c-good"]
    for node_id in nodes:
        house.join(node_id)
    for node_id in nodes:
        assert asked(house) == [(node_id, "j.r0.u0")]
        house.sync(node_id, state="refused")


def test_where_all_have_failed_who_has_tried_least_is_asked_again(house: House) -> None:
    house.job(**ONE_UNIT)
    house.join("a-bad")
    house.join("b-bad")
    order = []
    for _ in range(4):
        ((node_id, _),) = asked(house)
        order.append(node_id)
        house.sync(node_id, state="refused")
    assert order == ["a-bad", "b-bad", "a-bad", "b-bad"]


def test_a_lone_node_is_asked_again_at_once(house: House) -> None:
    house.job(**ONE_UNIT)
    house.join("pc")
    house.join("phone", opt_in=False)
    for _ in range(3):
        assert asked(house) == [("pc", "j.r0.u0")]
        house.sync("pc", state="refused")


def test_what_a_lone_node_refuses_time_and_again_it_is_asked_about_less_and_less_often(house: House) -> None:
    house.job(**ONE_UNIT)
    house.join("pc")
    for wait in (0.5, 0.5, 0.5, 1, 2, 4, 8, 16, 32, 60, 60):
        minutes = timedelta(minutes=wait)
        if wait >= 1:
            assert asked(house, after=minutes - timedelta(seconds=1)) == [], f"before {wait} minutes are over"
            minutes = timedelta(seconds=1)
        assert asked(house, after=minutes) == [("pc", "j.r0.u0")], f"after {wait} minutes"
        house.sync("pc", state="refused")


def test_a_node_that_waits_to_be_asked_again_does_another_unit_meanwhile(house: House) -> None:
    house.job(**{**ONE_UNIT, "samples": 128})
    house.join("pc")
    soon = timedelta(seconds=10)
    for _ in range(6):
        assert asked(house, after=soon)
        house.sync("pc", state="refused")
    assert asked(house, after=soon) == []
    house.job("other", **ONE_UNIT)
    assert asked(house, after=soon) == [("pc", "other.r0.u0")]


def test_one_that_there_is_no_power_for_keeps_nobody_from_trying_again(house: House) -> None:
    house.job(**ONE_UNIT)
    house.join("pc")
    house.join("tower", power_w=5000.0)
    for _ in range(3):
        assert asked(house) == [("pc", "j.r0.u0")]
        house.sync("pc", state="refused")


def beside_one_at_work(house: House) -> None:
    """``attic`` is at work for long, and alone; ``pc`` is left with another job's only unit."""
    house.rules = replace(house.rules, copies=0.0)
    house.job("other", **ONE_UNIT)
    house.join("attic")
    house.surplus(1000)
    house.tick()
    house.sync("attic")
    house.job(**ONE_UNIT)
    house.join("pc")


def test_who_could_not_do_a_unit_waits_a_while_for_one_that_is_busy(house: House) -> None:
    beside_one_at_work(house)
    assert asked(house) == [("pc", "j.r0.u0")]
    house.sync("pc", state="refused")
    assert asked(house) == []
    assert asked(house, after=house.rules.hand_over_after) == [("pc", "j.r0.u0")]
    house.sync("pc", state="refused")
    assert asked(house) == []
    assert of(finish(house, "attic"), LeaseOffered)[0].unit_id == "j.r0.u0", "the busy one comes to it"


@pytest.mark.parametrize("why", [Refusal.NORM_BOUND, Refusal.NOT_FINITE])
def test_one_node_alone_ends_no_job_while_others_are_willing_and_not_without_end(house: House, why: Refusal) -> None:
    beside_one_at_work(house)
    ended: list[JobEnded] = []
    for tries in range(15):
        assert not ended, f"after {tries} tries"
        assert asked(house, after=house.rules.hand_over_after) == [("pc", "j.r0.u0")]
        house.sync("pc")
        ended = of(finish(house, "pc", why), JobEnded)
    (fact,) = ended
    assert "pc" in fact.reason if why is Refusal.NOT_FINITE else "norm_bound" in fact.reason


@pytest.mark.parametrize(("why", "tries"), [(Refusal.NORM_BOUND, 5), (Refusal.NOT_FINITE, 2)])
def test_one_that_is_there_and_has_not_said_yes_is_not_waited_for(house: House, why: Refusal, tries: int) -> None:
    """Its choice, its device or the reward keep it away; energy must not be burnt on a diverged model meanwhile."""
    house.job(**ONE_UNIT)
    house.join("pc")
    house.join("phone", opt_in=False)
    house.join("laptop")
    house.sync("laptop", device="on_battery")
    house.join("picky")
    choice = ConsentChoice(opted_in=True, min_reward_micro_per_kwh=10**9)
    house.do(partial(collect.choose, node_id="picky", message=choice, rules=house.rules))
    for number in range(tries):
        assert house.rows(Job)[0].state is JobState.RUNNING, f"after {number} tries"
        assert asked(house) == [("pc", "j.r0.u0")]
        house.sync("pc")
        finish(house, "pc", why)
    assert house.rows(Job)[0].state is JobState.FAILED


def test_who_has_just_finished_a_unit_is_not_given_at_once_what_it_could_not_do(house: House) -> None:
    house.job(method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2))
    house.join("pc")
    assert asked(house) == [("pc", "j.r0.u0")]
    house.sync("pc", state="refused")
    assert asked(house) == [("pc", "j.r0.u1")]
    house.sync("pc")
    house.join("attic", opt_in=False)
    house.sync("attic")
    assert not of(finish(house, "pc"), LeaseOffered)
    assert asked(house) == [("pc", "j.r0.u0")], "nobody else is willing"
