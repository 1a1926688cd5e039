"""What a control tick makes of schedules: who may work, what is labelled top-up, what is told once, and what is left alone."""

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.facts import DeadlineAtRisk, LeaseOffered, LeasePaused, PlanningFailed
from gridsched.core.job import Job
from gridsched.core.lease import LeaseReason, LeaseState
from gridsched.core.method import Method
from gridsched.core.policy import Decision, Reason, Tier
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.timing import JobSchedule, Timing
from gridsched.core.zone import ZoneState
from gridsched.flow import advance, decide, timing
from gridsched.plugins import parse_policy
from tests.flow.conftest import House, of

HOUR = timedelta(hours=1)
POLICY = """
zone = "de-lu"
[when]
any = [{ signal = "price", below = 0 }, { signal = "surplus", above = 1, stop = 0 }]
[draw]
watts = 400
[top_up]
allowed = true
watts = 250
max_price = "60 EUR/MWh"
"""


@pytest.fixture
def house(house: House) -> House:
    house.policy = parse_policy(POLICY, "test")
    return house


def price(house: House, *values: float) -> None:
    """Prices of the hours from now on."""
    now = house.clock.now()
    readings = [
        Reading(
            zone="de-lu", signal=SignalKind.PRICE, start=now + n * HOUR, end=now + (n + 1) * HOUR, value=value, quality=Quality.MEASURED,
            source="t", known_at=now,
        )
        for n, value in enumerate(values)
    ]  # fmt: skip
    with house.store.write() as tx:
        tx.store_readings(readings)


def plan(house: House, job_id: str, *hours: tuple[float, float], **changes: Any) -> JobSchedule:
    """A schedule with such hours from now on, kept as the planner has it kept."""
    now = house.clock.now()
    deadline = house.rows(Job, job_id=job_id)[0].spec.deadline
    assert deadline is not None
    schedule = replace(
        JobSchedule(
            job_id=job_id, zone="de-lu", timing=Timing.PLANNED, why="", objective=SignalKind.PRICE, deadline=deadline, computed_at=now,
            digest="", hours=tuple((now + a * HOUR, now + b * HOUR) for a, b in hours), known_until=now + 24 * HOUR,
        ),
        **changes,
    )  # fmt: skip
    house.do(partial(timing.keep, schedules=[schedule]))
    return schedule


def due(house: House, job_id: str = "due", **wishes: Any) -> None:
    house.job(job_id, deadline=house.clock.now() + 20 * HOUR, **wishes)


def decided(house: House, **how: Any) -> Decision:
    decision: Decision = house.do(partial(decide.zone, policy=house.policy, **how))[0]
    return decision


def test_in_its_hours_a_job_draws_top_up_and_the_decision_says_for_whom(house: House) -> None:
    price(house, 30.0)
    due(house)
    plan(house, "due", (0, 1))
    decision = decided(house)
    assert (decision.target_w, decision.tier, decision.reason) == (250, Tier.TOP_UP, Reason.TOP_UP)
    assert "a deadline is at risk and the price of 30 EUR/MWh allows it" in decision.detail
    assert decision.detail.endswith("for due by 2018-05-01 20:00 UTC")


@pytest.mark.parametrize(
    ("wishes", "changes", "value"),
    [
        ({}, {"hours": ()}, 30.0),  # not in its hours
        ({"top_up": False}, {}, 30.0),
        ({"top_up_below_eur_mwh": 20.0}, {}, 30.0),
        ({}, {}, 61.0),  # dearer than the policy allows
        ({}, {"timing": Timing.UNMEASURED}, 30.0),
    ],
)
def test_otherwise_it_draws_nothing_outside_surplus(house: House, wishes: Any, changes: Any, value: float) -> None:
    price(house, value)
    due(house, **wishes)
    plan(house, "due", (0, 1), **changes)
    assert decided(house).target_w == 0


def test_without_a_price_a_price_limit_of_its_own_is_not_kept_so_nothing_is_drawn(house: House) -> None:
    house.policy = parse_policy(POLICY.replace('max_price = "60 EUR/MWh"', ""), "test")
    due(house, "limited", top_up_below_eur_mwh=20.0)
    plan(house, "limited", (0, 1))
    assert decided(house).target_w == 0
    due(house, "free")
    plan(house, "free", (0, 1))
    assert decided(house).tier is Tier.TOP_UP


def test_a_schedule_for_another_deadline_counts_no_more(house: House) -> None:
    price(house, 30.0)
    due(house)
    plan(house, "due", (0, 1))
    [job] = house.rows(Job)
    house.do(partial(advance.submit, spec=replace(job.spec, deadline=house.clock.now() + 9 * HOUR), initial_bytes=1))
    assert decided(house).target_w == 0


def test_top_up_is_for_those_that_may_have_it_and_others_give_their_units_back(house: House) -> None:
    price(house, 30.0, 30.0)
    house.join("pc", power_w=100)
    house.job("patient")
    house.surplus(500, minutes=1)
    house.tick()
    house.sync("pc")
    assert house.held("pc").job_id == "patient"
    due(house)
    plan(house, "due", (0, 2))
    house.clock.advance(timedelta(minutes=20))
    decision, facts = house.tick()
    assert decision.tier is Tier.TOP_UP
    assert [(f.job_id, f.reason) for f in of(facts, LeasePaused)] == [("patient", LeaseReason.NOT_SCHEDULED)]
    assert of(facts, LeaseOffered) == []
    house.clock.advance(house.rules.hand_over_after)
    house.sync("pc")
    house.tick()
    assert house.held("pc").wants_hand_over, "it holds the node that the other job needs"


def test_a_job_that_waits_keeps_its_unit_where_nothing_else_needs_the_node(house: House) -> None:
    price(house, -1.0, -50.0)
    house.join("pc", power_w=100)
    due(house)
    house.tick()
    house.sync("pc")
    plan(house, "due", (1, 2))
    decision, facts = house.tick()
    assert decision.target_w == 400
    assert decision.detail.endswith("waiting for better hours: due")
    assert [f.reason for f in of(facts, LeasePaused)] == [LeaseReason.NOT_SCHEDULED]
    house.clock.advance(house.rules.hand_over_after)
    house.sync("pc", state="paused")
    house.tick()
    assert not house.held("pc").wants_hand_over
    house.clock.advance(HOUR - house.rules.hand_over_after)
    house.sync("pc", state="paused")
    house.tick()
    assert house.held("pc").state is LeaseState.ACTIVE


def test_surplus_that_the_objective_does_not_tell_is_taken_as_it_comes(house: House) -> None:
    price(house, 30.0, -50.0)
    house.join("pc", power_w=100)
    due(house)
    plan(house, "due", (1, 2))
    house.surplus(500)
    decision, facts = house.tick()
    assert decision.reason is Reason.SURPLUS
    assert [f.job_id for f in of(facts, LeaseOffered)] == ["due"]


def test_open_units_go_by_priority_then_deadline_then_submission(house: House) -> None:
    now = house.clock.now()
    house.job("a")
    house.clock.advance(timedelta(seconds=1))
    house.job("b", deadline=now + 9 * HOUR)
    house.job("c", deadline=now + 5 * HOUR)
    house.job("d", priority=1)
    with house.store.read() as tx:
        assert [job.job_id for job in timing.running(tx, "de-lu")] == ["d", "c", "b", "a"]


def test_what_gets_worse_is_told_once(house: House) -> None:
    due(house)
    fine, late = {"work_s": 10.0, "available_s": 20.0}, {"work_s": 30.0, "available_s": 20.0}
    schedule = plan(house, "due")

    def told(**changes: Any) -> list[type]:
        return [type(fact) for fact in house.do(partial(timing.keep, schedules=[replace(schedule, **changes)]))[1]]

    assert told(**fine) == []
    assert told(**late) == [DeadlineAtRisk]
    assert told(**late | {"work_s": 40.0}) == []
    assert told(**fine) == []
    assert told(**late) == [DeadlineAtRisk]
    assert told(timing=Timing.FAILED) == [PlanningFailed]
    assert told(timing=Timing.FAILED) == []


def test_a_plan_leaves_alone_how_its_job_stands_and_one_for_a_job_that_has_ended_is_dropped(house: House) -> None:
    price(house, -1.0)
    due(house)
    plan(house, "due", (0, 1))
    house.tick()
    [before] = house.rows(JobSchedule)
    assert (before.working, before.since) == (True, house.clock.now())
    again = plan(house, "due", (0, 2))
    [after] = house.rows(JobSchedule)
    assert (after.hours, after.working, after.since) == (again.hours, True, before.since)
    house.do(partial(advance.cancel, job_id="due"))
    assert house.rows(JobSchedule) == []
    plan(house, "due", (0, 2))
    assert house.rows(JobSchedule) == []


@pytest.mark.parametrize(
    ("prices", "seconds_before", "target_w"),
    [
        ((-1.0, 5.0), 10, 0),
        ((-1.0, 5.0), 30, 400),
        ((-1.0, -2.0), 10, 400),
        ((-1.0,), 10, 400),  # nobody knows the next hour yet
    ],
)
def test_a_decision_is_to_last_for_as_long_as_nodes_need_to_hear_of_the_next(
    house: House, prices: tuple[float, ...], seconds_before: int, target_w: float
) -> None:
    price(house, *prices)
    house.clock.advance(HOUR - timedelta(seconds=seconds_before))
    decision = decided(house, ahead=timedelta(seconds=20))
    assert decision.target_w == target_w
    assert ("the window ends at 01:00:00 UTC" in decision.detail) is (target_w == 0)
    if target_w == 0:
        assert (decision.tier, decision.reason) == (Tier.NONE, Reason.UNKNOWN_SIGNAL), "nobody tells the surplus, the other ground"


def test_what_is_remembered_is_what_holds_now_and_not_what_will(house: House) -> None:
    """Looking ahead must not start the delays of what has not happened yet."""
    price(house, -1.0, 5.0)
    house.clock.advance(HOUR - timedelta(seconds=10))
    decided(house, ahead=timedelta(seconds=20))
    with house.store.read() as tx:
        states = tx.must(ZoneState, "de-lu").state.leaves
    assert [state.on for key, state in states.items() if key.startswith("price")] == [True]


def test_hours_that_end_stop_the_top_up_inside_them(house: House) -> None:
    price(house, 30.0, 30.0)
    due(house)
    plan(house, "due", (0, 0.5))
    house.clock.advance(HOUR / 2 - timedelta(seconds=10))
    assert decided(house).tier is Tier.TOP_UP
    stopped = decided(house, ahead=timedelta(seconds=20))
    assert stopped.target_w == 0
    assert "the window ends at 00:30:00 UTC" in stopped.detail


def test_an_hour_that_begins_starts_nothing_before(house: House) -> None:
    price(house, 30.0, 30.0)
    due(house)
    plan(house, "due", (1, 2))
    house.clock.advance(HOUR - timedelta(seconds=10))
    assert decided(house, ahead=timedelta(seconds=20)).target_w == 0


def test_a_case_is_weighed_by_the_job_s_own_speed(house: House) -> None:
    house.join("pc", power_w=100)
    due(house, method=Method(epochs=2, batch_size=8, samples_per_unit=64, units_per_round=2), test_dataset=None, test_samples=0)
    price(house, -1.0)

    def case() -> timing.Case:
        with house.store.read() as tx:
            [found] = timing.cases(tx, house.clock.now(), house.policy, margin=timedelta(minutes=2))
        return found

    assert (case().load.steps, case().load.time) == (32, None)
    house.tick()
    house.sync("pc", step=0)
    house.clock.advance(timedelta(seconds=40))
    house.sync("pc", step=4)
    load = case().load
    assert (load.steps, load.hands) == (28, 1)
    assert load.speed == pytest.approx(0.1)
    assert case().due == case().deadline - timedelta(minutes=2)
