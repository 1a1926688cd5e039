"""What holds when nobody decides any more, when the machine's clock was set back, and when a node has worked before it said so."""

from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.consent import Consent
from gridsched.core.facts import LeasePaused, LeaseResumed, RewardPosted
from gridsched.core.lease import Lease, LeaseReason, LeaseState
from gridsched.core.ledger import Transfer
from gridsched.core.round import Round
from gridsched.core.signal import SignalKind
from gridsched.core.timing import JobSchedule, Timing
from gridsched.core.work import WorkUnit
from gridsched.flow import admit, assign, collect
from gridsched.wire import ConsentChoice, HandOver, MeterReport
from tests.flow.conftest import B, House, of

NO_TEST: dict[str, Any] = {"samples": 64, "test_dataset": None, "test_samples": 0}


def swept(house: House) -> list[LeasePaused]:
    return of(house.do(partial(assign.sweep, rules=house.rules))[1], LeasePaused)


def alone(house: House, *, for_: timedelta) -> list[LeasePaused]:
    """No control tick for so long, while the node goes on reporting."""
    paused: list[LeasePaused] = []
    for _ in range(for_ // timedelta(seconds=60)):
        house.clock.advance(timedelta(seconds=60))
        house.sync(step=1)
        paused += swept(house)
    return paused


def test_what_draws_while_nobody_decides_is_paused(house: House) -> None:
    house.job()
    house.working()
    assert not alone(house, for_=timedelta(minutes=10))
    (fact,) = alone(house, for_=timedelta(minutes=2))
    assert (fact.node_id, fact.reason) == ("pc", "stale_signal")
    assert house.held().draws_w() == 0
    house.surplus(1000)
    assert of(house.tick()[1], LeaseResumed), "somebody decides again"


def test_a_zone_that_decides_seldom_has_its_own_time(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(minutes=15))
    house.surplus(1000)
    house.tick()
    assert not alone(house, for_=timedelta(minutes=75))
    assert alone(house, for_=timedelta(minutes=1))


def test_a_daemon_that_was_away_for_long_comes_up_idle(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(minutes=9))
    assert not house.do(partial(assign.restart, rules=house.rules))[1]
    house.clock.advance(timedelta(minutes=2))
    _, facts = house.do(partial(assign.restart, rules=house.rules))
    assert [fact.reason for fact in of(facts, LeasePaused)] == ["stale_signal"]
    assert house.held().expires_at == house.clock.now() + house.rules.lease_ttl


# -- the clock was set back while the daemon was down


def set_back(house: House, by: timedelta) -> datetime:
    house.clock = type(house.clock)(house.clock.now() - by)
    house.do(partial(assign.restart, rules=house.rules))
    return house.clock.now()


def test_a_lease_that_changed_long_ago_lives_no_longer_for_a_clock_set_back(house: House) -> None:
    house.job()
    house.working()
    alone(house, for_=timedelta(minutes=9))
    now = set_back(house, timedelta(minutes=5))
    assert house.held().expires_at == now + house.rules.lease_ttl


def test_an_outrun_lease_waits_for_its_last_words_and_not_for_the_future(house: House) -> None:
    house.job()
    lease = house.working()
    ended = replace(lease, state=LeaseState.REVOKED, reason=LeaseReason.OUTRUN, changed_at=house.clock.now())
    with house.store.write() as tx:
        tx.put(ended)
    now = set_back(house, timedelta(hours=1))
    (lease,) = house.rows(Lease)
    assert (lease.changed_at, lease.expires_at) == (now, now + house.rules.lease_ttl)


def test_a_choice_made_before_the_clock_was_set_back_counts_and_for_as_long_as_it_was_meant(house: House) -> None:
    house.join("pc")
    house.join("phone")
    house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=True, for_s=3600.0), rules=house.rules))
    now = set_back(house, timedelta(days=30))
    pc, phone = sorted(house.rows(Consent), key=lambda consent: consent.node_id)
    assert (pc.since, pc.until) == (now, now + timedelta(hours=1))
    assert (phone.since, phone.until) == (now, None)
    assert pc.refuses(reward_micro_per_kwh=0, now=now) is None


def test_open_rounds_and_audits_begin_no_later_than_now(house: House) -> None:
    house.job()
    (unit, *_) = house.rows(WorkUnit, order="index")
    with house.store.write() as tx:
        tx.put(replace(unit, audit_at=house.clock.now()))
    now = set_back(house, timedelta(hours=1))
    assert house.rows(WorkUnit, unit_id=unit.unit_id)[0].audit_at == now
    assert [rnd.opened_at for rnd in house.rows(Round)] == [now]


def decides(house: House, *, every: timedelta, times: int) -> None:
    """So many control ticks more, with surplus."""
    for _ in range(times):
        house.clock.advance(every)
        house.surplus(1000)
        house.tick()
        house.sync(step=1)


def test_a_zone_is_judged_by_the_decision_it_stands_by_and_not_by_those_of_a_clock_that_ran_ahead(house: House) -> None:
    house.job()
    house.working()
    decides(house, every=timedelta(minutes=1), times=5)
    set_back(house, timedelta(hours=1))
    assert house.held().draws_w() == 0, "nobody has decided yet"
    decides(house, every=timedelta(0), times=1)
    assert not swept(house)
    assert house.held().draws_w() == 100
    assert not alone(house, for_=timedelta(minutes=10))
    assert alone(house, for_=timedelta(minutes=1))


def test_how_often_a_zone_decides_is_told_by_what_it_has_decided_since(house: House) -> None:
    house.job()
    house.working()
    decides(house, every=timedelta(minutes=1), times=7)
    set_back(house, timedelta(hours=1))
    decides(house, every=timedelta(minutes=15), times=2)
    assert not alone(house, for_=timedelta(minutes=75))
    assert alone(house, for_=timedelta(minutes=1))


def test_nobody_plans_between_two_ticks_under_a_decision_from_the_future(house: House) -> None:
    house.job()
    house.working()
    again = partial(assign.again, zone="de-lu", policy=house.policy, rules=house.rules)
    set_back(house, timedelta(hours=1))
    house.join("old")
    assert not house.do(again)[1]
    house.surplus(1000)
    house.tick()
    assert house.held("old").draws_w() == 100


def test_how_long_a_job_has_worked_or_rested_is_counted_from_now(house: House) -> None:
    house.job()
    now = house.clock.now()
    stands = JobSchedule(
        job_id="j", zone="de-lu", timing=Timing.PLANNED, why="", objective=SignalKind.PRICE, deadline=now + timedelta(days=1),
        computed_at=now, digest="", working=True, since=now,
    )  # fmt: skip
    with house.store.write() as tx:
        tx.put(stands)
    now = set_back(house, timedelta(hours=1))
    assert house.rows(JobSchedule) == [replace(stands, since=now)]


# -- a node that has worked before its first report


@pytest.mark.parametrize("stopped", [False, True])
def test_a_unit_given_back_before_its_first_report_is_paid_for(house: House, stopped: bool) -> None:
    house.job(**NO_TEST)
    house.join("pc")
    house.sync(register_j=0.0)
    house.surplus(1000)
    house.tick()
    house.clock.advance(timedelta(seconds=18))
    if stopped:  # its owner has said no meanwhile: the lease was paused before it was granted
        house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=house.rules))
    give_back(house, steps=4)
    (lease,) = house.rows(Lease)
    assert (lease.state, lease.energy_j, lease.active_s) == (LeaseState.HANDED_OVER, 1800.0, 18.0)
    _, facts = house.do(partial(admit.cancel, job_id="j"))
    assert [(fact.node_id, fact.energy_j) for fact in of(facts, RewardPosted)] == [("pc", 1800.0)]


def test_a_unit_given_back_untouched_was_never_granted(house: House) -> None:
    house.job(**NO_TEST)
    house.join("pc")
    house.surplus(1000)
    house.tick()
    house.clock.advance(timedelta(seconds=18))
    give_back(house, steps=0)
    assert not house.rows(Transfer)
    assert house.rows(Lease)[0].active_s == 0.0


def give_back(house: House, *, steps: int) -> None:
    meter = MeterReport(register_j=450.0 * steps, age_s=0.0, power_w=100.0, method="measured")
    message = HandOver(
        instance="one",
        lease_id=house.held().lease_id,
        generation=1,
        continuation=B if steps else None,
        step=steps,
        steps_executed=steps,
        reason="opted_out",
        meter=meter,
    )
    house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
