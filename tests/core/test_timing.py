"""A job's hours: which slots are open to it, which are chosen, and what its schedule says at a moment."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.grid import Calendar
from gridsched.core.job import JobSpec
from gridsched.core.method import Method
from gridsched.core.outlook import Outlook, look_ahead
from gridsched.core.rule import Policy
from gridsched.core.schedule import Standing
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.timing import HORIZON, Hours, JobSchedule, Timing, choose, effort_of, open_slots, own_policy, standing_of
from gridsched.plugins import parse_policy

HOUR, QUARTER, NOTHING = timedelta(hours=1), timedelta(minutes=15), timedelta(0)
START = datetime(2018, 5, 1, tzinfo=UTC)
A = "a" * 64


def rule(when: str = '{ signal = "price", below = 0 }', top_up: str = "", schedule: str = "") -> Policy:
    top_up = f"[top_up]\nallowed = true\nwatts = 100\n{top_up}"
    return parse_policy(f'zone = "de"\n[when]\nany = [{when}]\n[draw]\nwatts = 100\n{top_up}\n[schedule]\n{schedule}', "test")


def surplus_only(when: str = '{ signal = "price", below = 0 }', schedule: str = "") -> Policy:
    policy = rule(when, schedule=schedule)
    return replace(policy, top_up=replace(policy.top_up, allowed=False))


def outlook(*values: float, kind: SignalKind = SignalKind.PRICE, slot: timedelta = HOUR) -> Outlook:
    readings = [
        Reading(
            zone="de", signal=kind, start=START + n * slot, end=START + (n + 1) * slot, value=value, quality=Quality.MEASURED, source="x",
            known_at=START,
        )
        for n, value in enumerate(values)
    ]  # fmt: skip
    found = look_ahead(readings, now=START, calendar=Calendar())
    assert found is not None
    return found


def chosen(ahead: Outlook, policy: Policy, work: timedelta, *, deadline: timedelta | None = None, now: datetime = START) -> Hours:
    shut = ~open_slots(policy, ahead.known, {ahead.signal: ahead.known.values})
    due = ahead.known.end if deadline is None else START + deadline
    return choose(ahead, policy, work=work, deadline=due, shut=shut, standing=Standing(), now=now)


def drawn(hours: Hours, slots: int) -> str:
    """One sign an hour: ``#`` works, ``.`` rests."""
    return "".join(".#"[any(low <= START + n * HOUR < high for low, high in hours.runs)] for n in range(slots))


@pytest.mark.parametrize(
    ("policy", "values", "picture"),
    [
        (rule(), [50, -1, 0, 70], "####"),
        (rule(top_up='max_price = "50 EUR/MWh"'), [50, -1, 51, 70], "##.."),
        (surplus_only(), [50, -1, 0, -70], ".#.#"),
        (surplus_only('{ signal = "price", below = 0 }, { signal = "surplus", above = 1 }'), [50, -1, 0, -70], ".#.#"),
        (surplus_only('{ signal = "surplus", above = 1 }'), [50, -1, 0, -70], "####"),  # nothing tells when: nothing is shut
        (surplus_only('{ all = [{ signal = "price", below = 0 }, { signal = "surplus", above = 1 }] }'), [50, -1], ".#"),
        (surplus_only('{ all = [{ signal = "price", below = 9 }, { signal = "price", above = 3 }] }'), [1, 5, 10], ".#."),
    ],
)
def test_open_slots(policy: Policy, values: list[float], picture: str) -> None:
    known = outlook(*values).known
    assert "".join(".#"[int(slot)] for slot in open_slots(policy, known, {SignalKind.PRICE: known.values})) == picture


def test_outside_its_validity_a_policy_opens_nothing() -> None:
    known = outlook(1, 1, 1).known
    policy = replace(rule(), valid_from=START + HOUR, valid_until=START + 2 * HOUR)
    assert list(open_slots(policy, known, {})) == [False, True, False]


def test_a_price_that_is_not_known_opens_nothing_that_has_a_limit() -> None:
    known = outlook(400, 300, kind=SignalKind.CARBON).known
    policy = rule(top_up='max_price = "50 EUR/MWh"', schedule='objective = "carbon"')
    assert not open_slots(policy, known, {SignalKind.CARBON: known.values}).any()
    assert open_slots(policy, known, {SignalKind.PRICE: np.array([40.0, 60.0])}).tolist() == [True, False]


def test_the_cheapest_open_hours_are_chosen() -> None:
    hours = chosen(outlook(50, 10, 40, 20, 60), rule(), 2 * HOUR)
    assert drawn(hours, 5) == ".#.#."
    assert (hours.known, hours.starts) == (15, 2)
    assert hours.expected == pytest.approx(15)
    assert hours.available == 5 * HOUR


@pytest.mark.parametrize(
    ("objective", "kind", "picture"),
    [("carbon", SignalKind.CARBON, ".#."), ("renewable_share", SignalKind.RENEWABLE_SHARE, "..#"), ("surplus", SignalKind.SURPLUS, "..#")],
)
def test_more_is_better_where_it_is(objective: str, kind: SignalKind, picture: str) -> None:
    ahead = outlook(0.5, 0.1, 0.9, kind=kind)
    hours = chosen(ahead, rule(schedule=f'objective = "{objective}"'), HOUR)
    assert drawn(hours, 3) == picture
    assert hours.expected == pytest.approx(0.1 if picture == ".#." else 0.9)


def test_a_least_time_on_does_not_reach_into_a_slot_that_is_shut() -> None:
    policy = surplus_only(schedule='min_on = "2h"')
    ahead = outlook(-5, 20, -5, -5)
    shut = ~open_slots(policy, ahead.known, {SignalKind.PRICE: ahead.known.values})
    hours = choose(ahead, policy, work=2 * HOUR, deadline=ahead.known.end, shut=shut, standing=Standing(on=True, slots=0), now=START)
    assert drawn(hours, 4)[:2] == "#.", "the policy comes before a least time on"


def test_gigawatts_of_residual_load_are_no_dearer_than_a_missed_deadline() -> None:
    hours = chosen(outlook(5e10, 2e10, 4e10, kind=SignalKind.RESIDUAL_LOAD), rule(schedule='objective = "residual_load"'), 3 * HOUR)
    assert drawn(hours, 3) == "###"


def test_work_that_does_not_fit_says_how_much_time_there_is() -> None:
    hours = chosen(outlook(50, -10, 40), surplus_only(), 2 * HOUR)
    assert drawn(hours, 3) == ".#."
    assert hours.later == HOUR
    assert hours.available == HOUR
    assert hours.expected is None, "no price makes up for a missed deadline"


def test_a_deadline_within_a_slot_uses_the_part_before_it() -> None:
    hours = chosen(outlook(5, 5, 5), rule(), 3 * HOUR, deadline=HOUR + 2 * QUARTER)
    assert hours.runs[-1][1] == START + HOUR + 2 * QUARTER
    assert hours.available == HOUR + 2 * QUARTER
    assert chosen(outlook(5, 5, 5), rule(), HOUR, deadline=QUARTER).runs == ((START, START + QUARTER),)


def test_of_the_present_slot_only_the_rest_is_there() -> None:
    late = START + 3 * QUARTER
    hours = chosen(outlook(1, 9, 2, 2), rule(schedule='restart_waste = "15m"'), HOUR, now=late)
    assert drawn(hours, 4) == "..##", "a start now would lose all that is left of the hour"
    free = chosen(outlook(1, 9, 2), rule(schedule='restart_waste = "0s"'), HOUR, now=START + 2 * QUARTER)
    assert drawn(free, 3) == "#.#"
    assert hours.available == 3 * HOUR + QUARTER


def test_days_not_known_yet_may_be_better() -> None:
    """Thirty days of a price of 10 at noon: at 50 now, there is nothing to lose by waiting."""
    days = 30
    readings = [
        Reading(
            zone="de", signal=SignalKind.PRICE, start=at, end=at + HOUR, value=10.0 + n % 3 if at.hour == 12 else 50.0 + n % 5,
            quality=Quality.MEASURED, source="x", known_at=at,
        )
        for n in range(24 * days)
        for at in [START - (24 * days - n) * HOUR]
    ]  # fmt: skip
    ahead = look_ahead([*readings, replace(readings[-1], start=START, end=START + HOUR, value=50.0)], now=START, calendar=Calendar())
    assert ahead is not None
    patient = chosen(ahead, rule(), HOUR, deadline=3 * 24 * HOUR)
    assert patient.runs == ()
    assert patient.later == HOUR
    assert patient.expected is not None
    assert 9 < patient.expected < 13
    assert (
        chosen(ahead, rule(), HOUR, deadline=2 * HOUR).runs == ((START, START + HOUR),) or chosen(ahead, rule(), HOUR, deadline=HOUR).runs
    )


def test_far_deadlines_get_their_share() -> None:
    hours = chosen(outlook(*[5.0] * 24), rule(), 600 * HOUR, deadline=2 * HORIZON)
    assert drawn(hours, 24) == "#" * 24


def test_own_policy_holds_both_limits() -> None:
    def own(policy: Policy, **wishes: Any) -> Policy:
        spec = JobSpec(
            job_id="j", name="j", program=A, dataset=A, samples=1, test_dataset=None, test_samples=0, initial=A, seed=1, method=Method(),
            zone="de", **{"deadline": START} | wishes,
        )  # fmt: skip
        return own_policy(policy, spec)

    limited = rule(top_up='max_price = "50 EUR/MWh"')
    assert own(limited).top_up.max_price_eur_mwh == 50
    assert own(limited, top_up_below_eur_mwh=20.0).top_up.max_price_eur_mwh == 20
    assert own(limited, top_up_below_eur_mwh=90.0).top_up.max_price_eur_mwh == 50
    assert own(rule(), top_up_below_eur_mwh=20.0).top_up.max_price_eur_mwh == 20
    assert not own(limited, top_up=False).top_up.allowed
    assert not own(limited, deadline=None).top_up.allowed
    assert not own(surplus_only()).top_up.allowed


def planned(*runs: tuple[float, float], known_h: float = 24, latest_h: float | None = None, timing: Timing = Timing.PLANNED) -> JobSchedule:
    return JobSchedule(
        job_id="j", zone="de", timing=timing, why="", objective=SignalKind.PRICE, deadline=START + 30 * HOUR, computed_at=START, digest="",
        hours=tuple((START + a * HOUR, START + b * HOUR) for a, b in runs), known_until=START + known_h * HOUR,
        latest_start=None if latest_h is None else START + latest_h * HOUR,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "hour", "presses", "waits"),
    [
        (planned((2, 4)), 1, False, True),
        (planned((2, 4)), 2, True, False),
        (planned((2, 4)), 4, False, True),
        (planned((2, 4)), 25, False, False),  # beyond what it knows a plan says nothing
        (planned((2, 4), latest_h=20), 21, True, False),
        (planned(latest_h=28), 30, False, False),  # the deadline has passed
        (planned(timing=Timing.FAILED, latest_h=20), 5, False, False),
        (planned(timing=Timing.FAILED, latest_h=20), 20, True, False),
        (planned(timing=Timing.AS_IT_COMES), 29, False, False),
    ],
)
def test_what_a_schedule_says_at_a_moment(schedule: JobSchedule, hour: float, presses: bool, waits: bool) -> None:
    moment = START + hour * HOUR
    assert (schedule.presses(moment), schedule.waits(moment)) == (presses, waits)


def test_standing_is_noted_when_it_changes_and_kept_while_it_does_not() -> None:
    resting = planned().stand(False, START)
    assert (resting.working, resting.since) == (False, START)
    assert resting.stand(False, START + HOUR) is resting
    assert resting.stand(True, START + HOUR).since == START + HOUR


@pytest.mark.parametrize(
    ("on", "since_h", "min_off", "slots"),
    [(True, 0.2, 0, 0), (True, -1.5, 0, 1), (True, -3, 0, 3), (False, 0.2, 0, 1), (False, 0.2, 60, 0), (False, -2, 60, 2)],
)
def test_how_a_job_stands_at_the_start_of_its_slot(on: bool, since_h: float, min_off: int, slots: int) -> None:
    scheduling = rule(schedule=f'min_off = "{min_off}m"').schedule
    assert standing_of(on, START + since_h * HOUR, START, scheduling, HOUR) == Standing(on=on, slots=slots)


@given(hours=st.floats(0, 2000), waste=st.floats(0, 90), slot=st.sampled_from([15, 30, 60]))
@settings(deadline=None)
def test_any_work_of_two_weeks_can_be_planned(hours: float, waste: float, slot: int) -> None:
    effort = effort_of(
        timedelta(hours=min(hours, 14 * 24)), rule(schedule=f'restart_waste = "{waste:.1f}m"').schedule, timedelta(minutes=slot)
    )
    assert effort.work * slot / effort.per_slot >= min(hours, 14 * 24) * 60 - 0.01
    assert effort.work <= 1400


def test_days_that_drivers_tell_are_weighed_on_the_scale_of_the_known_ones() -> None:
    """A price of 4000 makes all costs smaller for the sake of the deadline; a day told at 10 is still cheaper than an hour at 30."""
    ahead = outlook(*[30.0, *[4000.0] * 23])
    told = replace(ahead, chain=replace(ahead.chain, told=np.full((1, 1, 24), 10.0)))
    assert drawn(chosen(told, rule(), HOUR, deadline=2 * timedelta(days=1)), 24) == "." * 24
    dear = replace(ahead, chain=replace(ahead.chain, told=np.full((1, 1, 24), 50.0)))
    assert drawn(chosen(dear, rule(), HOUR, deadline=2 * timedelta(days=1)), 24) == "#" + "." * 23
