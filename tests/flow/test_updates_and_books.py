"""What finished units do: accepted once or refused with a reason, energy split by steps, rewards posted, rounds merged, epochs closed."""

import math
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from gridsched.core.access import secret_hash
from gridsched.core.errors import Conflict, Forbidden, InvalidInput, LeaseLost
from gridsched.core.facts import (
    EnergyMetered,
    EpochFinished,
    Fact,
    JobEnded,
    LeaseEnded,
    LeaseOffered,
    MeterRefused,
    RewardPosted,
    RoundMerged,
    RoundOpened,
    UnitAccepted,
    UpdateRejected,
    VersionEvaluated,
)
from gridsched.core.fleet import Presence
from gridsched.core.job import Job, JobState
from gridsched.core.ledger import OPERATOR, Account, Transfer, TransferKind, node_account, verify
from gridsched.core.meter import MeterReading
from gridsched.core.policy import Decision
from gridsched.core.round import Epoch, Round, RoundState, Version
from gridsched.core.work import Refusal, UnitState, WorkUnit
from gridsched.core.zone import ZoneState
from gridsched.flow import admit, advance, collect
from gridsched.flow.collect import Checked
from gridsched.flow.retain import named
from gridsched.train.unit import Metrics, summary
from gridsched.wire import ConsentChoice, Join, MeterReport, UpdateNotice, decode, encode
from tests.flow.conftest import A, B, C, House, of
from tests.flow.test_copies import parting

GOOD = Checked(norm=1.0)


def notice(house: House, node_id: str = "pc", *, executed: int = 8, register_j: float | None = None, **changes: object) -> UpdateNotice:
    lease = house.held(node_id)
    meter = None if register_j is None else MeterReport(register_j=register_j, age_s=0.0, power_w=90.0, method="estimated")
    values: dict[str, object] = {
        "instance": "one",
        "lease_id": lease.lease_id,
        "generation": lease.generation,
        "update": B,
        "steps_executed": executed,
        "metrics": {"loss": 0.5},
        "meter": meter,
    }
    return UpdateNotice(**values | changes)  # type: ignore[arg-type]


def finish(house: House, message: UpdateNotice, checked: Checked = GOOD, node_id: str = "pc") -> list[Fact]:
    _, facts = house.do(partial(collect.update, node_id=node_id, message=message, checked=checked, rules=house.rules))
    return facts


def finish_round(house: House) -> None:
    """Both units of the round, by one node."""
    for _ in range(2):
        house.clock.advance(timedelta(seconds=30))
        house.surplus(1000)
        house.tick()
        house.sync()
        finish(house, notice(house))


def test_an_accepted_unit_is_paid_for_metered_energy_and_the_bonus(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    facts = finish(house, notice(house, register_j=5000.0))
    assert [f.unit_id for f in of(facts, UnitAccepted)] == ["j.r0.u0"]
    (reward,) = of(facts, RewardPosted)
    assert (reward.energy_j, reward.amount_micro) == (5000.0, int(5000 / 3.6e6 * 250_000) + 1000)
    (account,) = house.rows(Account, account_id=node_account("pc"))
    assert (account.balance_micro, account.credits_pending) == (reward.amount_micro, 0)
    assert [(f.use, f.energy_j) for f in of(facts, EnergyMetered)] == [("useful", 5000.0)]
    assert house.rows(Presence)[0].served_j == 5000.0


def test_what_is_below_a_micro_unit_is_paid_with_the_next_unit(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    (first,) = of(finish(house, notice(house, register_j=10.0)), RewardPosted)
    house.surplus(1000)
    house.tick()
    house.sync(register_j=10.0)
    house.clock.advance(timedelta(seconds=30))
    (second,) = of(finish(house, notice(house, register_j=20.0)), RewardPosted)
    exact = 10 / 3.6e6 * 250_000
    assert (first.amount_micro, second.amount_micro) == (1000, 1000 + int(2 * exact))
    assert house.rows(Presence)[0].owed_micro == pytest.approx(2 * exact - 1)
    assert house.rows(Epoch)[0].reward_micro == first.amount_micro + second.amount_micro


def test_the_same_update_twice_is_accepted_once(house: House) -> None:
    house.job()
    house.working()
    message = notice(house, register_j=100.0)
    assert of(finish(house, message), UnitAccepted)
    assert finish(house, message) == []
    assert len(house.rows(Transfer, kind=TransferKind.POST)) == 1


@pytest.mark.parametrize("why", list(Refusal))
def test_a_refused_update_gives_the_unit_back_and_says_why(house: House, why: Refusal) -> None:
    house.job()
    house.working()
    message = notice(house)
    orders, facts = house.do(
        partial(collect.update, node_id="pc", message=message, checked=Checked(refusal=why, detail="tensor w"), rules=house.rules)
    )
    assert [(f.reason, f.detail) for f in of(facts, UpdateRejected)] == [(why.value, "tensor w")]
    assert why.value in orders.notice
    assert [f.reason for f in of(facts, LeaseEnded)] == ["not_finite" if why is Refusal.NOT_FINITE else "update_refused"]
    (unit,) = house.rows(WorkUnit, unit_id="j.r0.u0")
    assert (unit.state, unit.update, unit.continuation) == (UnitState.OPEN, None, None)
    with pytest.raises(LeaseLost):
        finish(house, message)


@pytest.mark.parametrize("changes", [{"update": None}, {"update": "not-a-digest"}], ids=["none", "no digest"])
def test_a_training_unit_without_an_update_is_refused(house: House, changes: dict[str, Any]) -> None:
    house.job()
    house.working()
    facts = finish(house, notice(house, **changes))
    assert [f.reason for f in of(facts, UpdateRejected)] == ["unreadable"]


def test_steps_run_twice_make_wasted_energy(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    facts = finish(house, notice(house, executed=16, register_j=4000.0))
    assert {f.use: f.energy_j for f in of(facts, EnergyMetered)} == {"useful": 2000.0, "wasted": 2000.0}
    (epoch,) = house.rows(Epoch)
    assert (epoch.useful_j, epoch.wasted_j, epoch.units) == (2000.0, 2000.0, 1)


def test_energy_while_starting_or_paused_is_idle_and_unpaid(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=30))
    house.sync(state="starting", register_j=600.0)
    house.clock.advance(timedelta(seconds=30))
    facts = finish(house, notice(house, register_j=1600.0))
    assert {f.use: f.energy_j for f in of(facts, EnergyMetered)} == {"useful": 1000.0, "idle": 600.0}
    assert of(facts, RewardPosted)[0].energy_j == 1000.0


def test_cost_follows_the_price_of_the_hour_also_below_zero(house: House) -> None:
    house.job()
    house.working()
    with house.store.write() as tx:
        tx.put(replace(tx.must(ZoneState, "de-lu"), price_eur_mwh=-50.0))
    house.clock.advance(timedelta(seconds=60))
    house.sync(register_j=3600.0)
    finish(house, notice(house, register_j=3600.0))
    (epoch,) = house.rows(Epoch)
    assert epoch.cost_micro == round(-50.0 * 1e6 * 3600 / 3.6e9)


@pytest.mark.parametrize(
    ("register_j", "age_s", "reason"),
    [(900.0, 0.0, "runs_backwards"), (1e9, 0.0, "too_much_power"), (1001.0, -5.0, "from_the_future"), (math.nan, 0.0, "not_finite")],
)
def test_a_register_that_cannot_be_true_is_refused_and_nothing_booked(house: House, register_j: float, age_s: float, reason: str) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    house.sync(register_j=1000.0)
    _, facts = house.sync(register_j=register_j, age_s=age_s)
    assert [f.reason for f in of(facts, MeterRefused)] == [reason]
    assert house.held().energy_j == 1000.0
    assert sum(r.delta_j for r in house.rows(MeterReading)) == 1000.0


def test_a_report_that_was_held_up_makes_none_of_those_after_it_incredible_and_all_is_booked(house: House) -> None:
    house.job()
    house.working()
    house.sync(register_j=0.0)
    facts, drawn_j = [], 0.0
    for after_s in (20, 30, 10, 20, 20, 20, 20):  # the second one came ten seconds late
        house.clock.advance(timedelta(seconds=after_s))
        drawn_j += 20 * 100.0
        facts += house.sync(register_j=drawn_j)[1]
    assert not of(facts, MeterRefused)
    assert house.held().energy_j == drawn_j == sum(reading.delta_j for reading in house.rows(MeterReading))


def test_a_round_merges_once_into_the_next_version_and_opens_the_next_round(house: House) -> None:
    house.job(samples=256)
    house.working()
    finish_round(house)
    with house.store.read() as tx:
        (ready,) = advance.ready_to_merge(tx)
    assert ready.round_id == "j.r0"
    merge = partial(advance.merged, round_id="j.r0", digest=C, size_bytes=9)
    _, facts = house.do(merge)
    assert [(f.version, f.samples) for f in of(facts, RoundMerged)] == [(1, 128)]
    assert [f.round_id for f in of(facts, RoundOpened)] == ["j.r1"]
    assert house.do(merge) == (None, [])
    version = house.rows(Version, number=1)[0]
    assert (version.parent, [u[0] for u in version.updates]) == (A, ["j.r0.u0", "j.r0.u1"])
    assert house.rows(Round, round_id="j.r0")[0].state is RoundState.MERGED


def test_the_last_evaluation_closes_the_epoch_and_the_job(house: House) -> None:
    house.job()
    house.working()
    finish_round(house)
    house.do(partial(advance.merged, round_id="j.r0", digest=C, size_bytes=9))
    assert house.rows(Job)[0].state is JobState.RUNNING
    house.clock.advance(timedelta(seconds=1))
    house.tick()
    house.sync()
    message = notice(house, update=None, metrics={"loss": 0.25, "samples": 10.0, "correct": 9.0}, executed=1)
    facts = finish(house, message)
    assert [(f.version, f.accuracy) for f in of(facts, VersionEvaluated)] == [(1, 0.9)]
    assert of(facts, EpochFinished)
    assert [f.state for f in of(facts, JobEnded)] == ["done"]
    assert house.rows(Epoch)[0].accuracy == 0.9


def test_an_evaluation_without_a_finite_loss_is_refused(house: House) -> None:
    house.job()
    house.working()
    finish_round(house)
    house.do(partial(advance.merged, round_id="j.r0", digest=C, size_bytes=9))
    house.clock.advance(timedelta(seconds=1))
    house.tick()
    house.sync()
    facts = finish(house, notice(house, update=None, metrics={"loss": math.nan}))
    assert [f.reason for f in of(facts, UpdateRejected)] == ["not_finite"]


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf])
def test_a_unit_that_diverged_is_refused_as_such_though_json_has_no_word_for_its_loss(house: House, loss: float) -> None:
    house.job()
    house.working()
    told = notice(house, metrics=summary(Metrics(loss_sum=loss, samples=64)))
    facts = finish(house, decode(encode(told), UpdateNotice))
    assert [(f.reason, f.detail) for f in of(facts, UpdateRejected)] == [(Refusal.NOT_FINITE, "training needs a finite loss")]


@pytest.mark.parametrize(
    "odd",
    [
        {"samples": 1e30},
        {"samples": 0.0},
        {"samples": 10.0, "correct": 11.0},
        {"samples": 10.0, "correct": -1.0},
        {"samples": 10.0, "correct": 500.0, "count": 400.0},
    ],
)
def test_an_evaluation_that_counts_more_than_there_is_is_refused(house: House, odd: dict[str, float]) -> None:
    house.job()
    house.working()
    finish_round(house)
    house.do(partial(advance.merged, round_id="j.r0", digest=C, size_bytes=9))
    house.clock.advance(timedelta(seconds=1))
    house.tick()
    house.sync()
    facts = finish(house, notice(house, update=None, metrics={"loss": 0.5} | odd))
    assert [f.reason for f in of(facts, UpdateRejected)] == ["unreadable"]


def test_a_cancelled_job_revokes_its_leases_and_pays_what_was_drawn(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    house.sync(step=2, register_j=3600.0)
    lease = house.held()
    _, facts = house.do(partial(admit.cancel, job_id="j"))
    assert [f.state for f in of(facts, LeaseEnded)] == ["revoked"]
    facts = parting(house, lease, steps=2, register_j=3600.0)
    assert [f.energy_j for f in of(facts, RewardPosted)] == [3600.0]
    assert {f.use for f in of(facts, EnergyMetered)} == {"wasted"}
    assert {u.state for u in house.rows(WorkUnit)} == {UnitState.ABANDONED}
    assert house.do(partial(admit.cancel, job_id="j")) == (None, [])


def test_the_books_balance_and_the_chain_verifies(house: House) -> None:
    house.job(samples=256)
    house.working()
    finish_round(house)
    chain = sorted(house.rows(Transfer), key=lambda t: t.sequence)
    assert verify(chain) is None
    accounts = {a.account_id: a for a in house.rows(Account)}
    assert accounts[OPERATOR].debits_posted == accounts[node_account("pc")].credits_posted > 0


def test_a_statement_lists_what_was_earned(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    finish(house, notice(house, register_j=3600.0))
    with house.store.read() as tx:
        statement = collect.statement(tx, "pc")
    assert statement.balance_micro == sum(line.amount_micro for line in statement.lines) == 1250
    assert statement.energy_j == 3600.0


def test_a_job_submitted_twice_is_one_job_and_another_under_its_id_is_refused(house: House) -> None:
    spec = house.job()
    assert house.do(partial(admit.submit, spec=spec, initial_bytes=1)) == (None, [])
    with pytest.raises(Conflict, match="job j exists"):
        house.do(partial(admit.submit, spec=replace(spec, seed=2), initial_bytes=1))


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"code": "wrong"}, Forbidden, "not known"),
        ({"node_id": "pc"}, Forbidden, "used by node pc"),
        ({"version": 99}, InvalidInput, "protocol 99"),
        ({"node_id": "No Good"}, InvalidInput, "lower-case"),
        ({"memory_bytes": 2**70}, InvalidInput, "memory must be"),
    ],
)
def test_joining_badly_is_refused_with_the_remedy(house: House, change: dict[str, object], error: type[Exception], match: str) -> None:
    house.join("pc")
    house.do(partial(admit.new_invite, zone="de-lu", code_hash=secret_hash("new"), valid_for=timedelta(hours=1)))
    code = "c-pc" if change.get("node_id") == "pc" else "new"
    values = {"code": code, "node_id": "b", "device": "pc", "power_w": 1.0, "memory_bytes": 1, "runtime": "torch", "meter": "m"}
    with pytest.raises(error, match=match):
        house.do(partial(admit.join, message=Join(**values | change), token="t", rules=house.rules))  # type: ignore[arg-type]


def test_a_code_ends_at_its_moment(house: House) -> None:
    house.do(partial(admit.new_invite, zone="de-lu", code_hash=secret_hash("c"), valid_for=timedelta(minutes=1)))
    house.clock.advance(timedelta(minutes=1))
    message = Join(code="c", node_id="b", device="pc", power_w=1.0, memory_bytes=1, runtime="torch", meter="m")
    with pytest.raises(Forbidden, match="ended at"):
        house.do(partial(admit.join, message=message, token="t", rules=house.rules))


def test_what_rows_name_is_kept_and_nothing_else(house: House) -> None:
    house.job(program="d" * 64)
    house.working()
    finish_round(house)
    with house.store.read() as tx:
        assert named(tx) == {"d" * 64, A, B, C}


def test_who_finishes_a_unit_gets_the_next_one_in_the_same_breath(house: House) -> None:
    house.job()
    house.working()
    orders, facts = house.do(partial(collect.update, node_id="pc", message=notice(house), checked=GOOD, rules=house.rules))
    assert [f.unit_id for f in of(facts, LeaseOffered)] == ["j.r0.u1"]
    assert (orders.order.unit.unit_id, orders.order.wait_s) == ("j.r0.u1", 0.0)


@pytest.mark.parametrize("why_not", ["the decision is old", "the operator paused", "the consumer opted out", "another took the room"])
def test_no_next_unit_without_room_and_consent(house: House, why_not: str) -> None:
    house.job()
    house.working(watts=150.0)
    message = notice(house)
    if why_not == "the decision is old":
        house.clock.advance(house.rules.lease_ttl + timedelta(seconds=1))
    elif why_not == "the operator paused":
        house.do(partial(admit.pause_zone, zone="de-lu", paused=True))
    elif why_not == "the consumer opted out":
        house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=house.rules))
    else:
        with house.store.write() as tx:
            decision = tx.find(Decision)[0]
            tx.put(replace(decision, target_w=99.0))
    facts = finish(house, message)
    assert of(facts, UnitAccepted)
    assert not of(facts, LeaseOffered)


def test_a_reading_overtaken_by_a_later_one_is_passed_over_and_accuses_nobody(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    house.sync(register_j=2000.0)
    _, facts = house.sync(register_j=1500.0, age_s=10.0)
    assert not of(facts, MeterRefused)
    assert house.held().energy_j == 2000.0
    assert sum(r.delta_j for r in house.rows(MeterReading)) == 2000.0
