"""No path a lease can take loses energy that was drawn in good faith, and no number a node sends can hurt another's."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from gridsched.core.errors import GridschedError
from gridsched.core.facts import AuditEnded, EnergyMetered, LeaseResumed, NodePresent, RewardPosted
from gridsched.core.fleet import Presence
from gridsched.core.lease import Lease, LeaseState
from gridsched.core.ledger import OPERATOR, Account, Transfer, TransferKind
from gridsched.core.meter import MeterReading
from gridsched.core.reward import most_micro
from gridsched.core.round import Epoch
from gridsched.core.units import micro_from_rate
from gridsched.core.zone import ZoneState
from gridsched.flow import admit, assign, collect, settle
from gridsched.flow.collect import Checked
from gridsched.testing import check_invariants
from gridsched.wire import ConsentChoice, LeaseReport, MeterReport, Sync, UpdateNotice
from tests.flow.conftest import B, House, of
from tests.flow.test_audits import ALWAYS, one_unit, worker
from tests.flow.test_audits import finish as finish_unit
from tests.flow.test_copies import parting

GOOD = Checked(norm=1.0)


def notice(lease: Lease, *, register_j: float | None = None) -> UpdateNotice:
    meter = None if register_j is None else MeterReport(register_j=register_j, age_s=0.0, power_w=90.0, method="estimated")
    return UpdateNotice(
        instance="one",
        lease_id=lease.lease_id,
        generation=lease.generation,
        update=B,
        steps_executed=8,
        metrics={"loss": 0.5},
        meter=meter,
    )


def test_a_lease_paused_before_it_was_granted_and_resumed_is_paid(house: House) -> None:
    house.job()
    house.join("pc")
    house.sync(register_j=0.0)
    house.surplus(500)
    house.tick()
    house.do(partial(admit.pause_zone, zone="de-lu", paused=True))
    house.clock.advance(timedelta(seconds=20))
    house.tick()
    assert house.held().state is LeaseState.PAUSED
    house.do(partial(admit.pause_zone, zone="de-lu", paused=False))
    house.clock.advance(timedelta(seconds=20))
    assert of(house.tick()[1], LeaseResumed)
    assert [t.kind for t in house.rows(Transfer)] == [TransferKind.RESERVE]
    house.clock.advance(timedelta(seconds=60))
    _, facts = house.do(
        partial(collect.update, node_id="pc", message=notice(house.held(), register_j=5000.0), checked=GOOD, rules=house.rules)
    )
    assert [(f.energy_j, f.amount_micro) for f in of(facts, RewardPosted)] == [(5000.0, micro_from_rate(5000.0, 250_000) + 1000)]


def test_a_unit_finished_before_the_first_report_is_paid_for_its_energy(house: House) -> None:
    house.job()
    house.join("pc")
    house.sync(register_j=0.0)
    house.surplus(500)
    house.tick()
    house.clock.advance(timedelta(seconds=15))
    assert house.held().state is LeaseState.OFFERED
    _, facts = house.do(
        partial(collect.update, node_id="pc", message=notice(house.held(), register_j=1400.0), checked=GOOD, rules=house.rules)
    )
    assert [f.energy_j for f in of(facts, RewardPosted)] == [1400.0]


def test_steps_made_before_the_first_report_are_paid(house: House) -> None:
    house.job()
    house.join("pc")
    house.sync(register_j=0.0)
    house.surplus(500)
    house.tick()
    house.clock.advance(timedelta(seconds=15))
    house.sync(step=4, register_j=1400.0)
    _, facts = house.do(partial(collect.update, node_id="pc", message=notice(house.held()), checked=GOOD, rules=house.rules))
    assert [f.energy_j for f in of(facts, RewardPosted)] == [1400.0]


def test_energy_drawn_before_a_lease_was_lost_is_paid_when_its_node_is_back(house: House) -> None:
    """90 s of work until the lease ended, then 90 s more that nobody asked for: half the register's advance is the lease's."""
    house.job()
    house.working()
    lost = house.held()
    house.clock.advance(timedelta(seconds=90))
    house.do(partial(assign.sweep, rules=house.rules))
    house.clock.advance(timedelta(seconds=90))
    report = LeaseReport(lease_id=lost.lease_id, generation=1, state="paused", step=5, steps_executed=5)
    meter = MeterReport(register_j=9000.0, age_s=0.0, power_w=0.0, method="estimated")
    for _ in range(2):
        house.do(partial(collect.sync_many, items=[("pc", Sync(instance="one", lease=report, meter=meter))], rules=house.rules))
    (lease,) = house.rows(Lease)
    assert (lease.state, lease.energy_j, lease.steps_executed) == (LeaseState.EXPIRED, 4500.0, 5)
    assert sum(r.delta_j for r in house.rows(MeterReading, lease_id=lost.lease_id)) == 9000.0
    house.surplus(500)
    house.tick()
    house.sync()
    _, facts = house.do(partial(collect.update, node_id="pc", message=notice(house.held()), checked=GOOD, rules=house.rules))
    assert {f.lease_id: f.energy_j for f in of(facts, RewardPosted)} == {lost.lease_id: 4500.0, "j.r0.u0.l2": 0.0}


@pytest.mark.parametrize(("heard", "paid_j"), [(True, 3400.0), (False, 2000.0)])
def test_what_was_drawn_until_a_job_was_cancelled_is_paid_and_booked_when_its_node_has_said_so(
    house: House, heard: bool, paid_j: float
) -> None:
    house.job()
    lease = house.working()
    house.clock.advance(timedelta(seconds=25))
    house.sync(step=3, register_j=2000.0)
    house.clock.advance(timedelta(seconds=15))
    assert not of(house.do(partial(admit.cancel, job_id="j"))[1], RewardPosted)
    if heard:
        facts = parting(house, lease, steps=5, register_j=3400.0)
        assert not of(parting(house, lease, steps=5, register_j=3400.0), RewardPosted), "said twice, paid once"
    else:
        house.clock.advance(house.rules.lease_ttl)
        facts = house.do(partial(assign.sweep, rules=house.rules))[1]
    assert [(f.lease_id, f.energy_j) for f in of(facts, RewardPosted)] == [(lease.lease_id, paid_j)]
    assert {f.use: f.energy_j for f in of(facts, EnergyMetered)} == {"wasted": paid_j}
    (epoch,) = house.rows(Epoch)
    assert (epoch.useful_j, epoch.wasted_j, epoch.reward_micro) == (0.0, paid_j, of(facts, RewardPosted)[0].amount_micro)
    assert house.rows(Account, account_id=OPERATOR)[0].debits_pending == 0
    assert (house.rows(Presence)[0].reliability == 1.0) is heard, "only a node that has vanished is less reliable for it"
    with house.store.read() as tx:
        check_invariants(tx)


def test_what_an_auditor_drew_until_its_audit_was_withdrawn_is_paid_and_counted_as_an_audit_s(house: House) -> None:
    house.rules = replace(house.rules, trust=ALWAYS)
    for name in ("pc", "old"):
        house.join(name)
    house.job(method=one_unit(), test_samples=0, test_dataset=None)
    house.surplus(1000)
    house.tick()
    first = worker(house)
    finish_unit(house, first)
    house.tick()
    auditor = "old" if first == "pc" else "pc"
    house.sync(auditor, register_j=0.0)
    lease = house.held(auditor)
    house.clock.advance(timedelta(seconds=20))
    house.sync(auditor, step=2, register_j=1500.0)
    house.clock.advance(timedelta(seconds=10))
    house.rules = replace(house.rules, trust=None)
    _, facts = house.do(partial(assign.restart, rules=house.rules))
    assert [fact.result for fact in of(facts, AuditEnded)] == ["withdrawn"]
    facts = parting(house, lease, steps=4, register_j=2400.0)
    assert [(f.lease_id, f.energy_j) for f in of(facts, RewardPosted)] == [(lease.lease_id, 2400.0)]
    (epoch,) = house.rows(Epoch)
    assert (epoch.useful_j, epoch.wasted_j, epoch.audit_j) == (0.0, 2400.0, 2400.0)


def test_a_stranger_s_lease_gets_none_of_my_energy(house: House) -> None:
    house.job()
    house.working()
    lost = house.held()
    house.join("old", opt_in=False)
    house.sync("old", register_j=0.0)
    house.clock.advance(timedelta(seconds=90))
    house.do(partial(assign.sweep, rules=house.rules))
    report = LeaseReport(lease_id=lost.lease_id, generation=1, state="running", step=5, steps_executed=5)
    meter = MeterReport(register_j=9000.0, age_s=0.0, power_w=0.0, method="estimated")
    house.do(partial(collect.sync_many, items=[("old", Sync(instance="one", lease=report, meter=meter))], rules=house.rules))
    assert house.rows(Lease)[0].energy_j == 0.0


def test_the_bonus_counts_against_the_day_s_money(house: House) -> None:
    house.job()
    house.working()
    house.clock.advance(timedelta(seconds=60))
    _, facts = house.do(
        partial(collect.update, node_id="pc", message=notice(house.held(), register_j=3600.0), checked=GOOD, rules=house.rules)
    )
    (posted,) = of(facts, RewardPosted)
    assert house.rows(ZoneState)[0].money_micro == posted.amount_micro == 1250


@pytest.mark.parametrize("age_s", [1e300, 1e12, 1e18])
def test_a_meter_older_than_any_calendar_is_one_node_s_own_error(house: House, age_s: float) -> None:
    house.join("pc")
    house.join("old")
    odd = Sync(instance="one", meter=MeterReport(register_j=1.0, age_s=age_s, power_w=1.0, method="estimated"))
    items = [("pc", odd), ("old", Sync(instance="one"))]
    answers, _ = house.do(partial(collect.sync_many, items=items, rules=house.rules))
    assert isinstance(answers[0], GridschedError)
    assert answers[1].node_id == "old"


def test_a_count_of_steps_that_no_machine_makes_is_one_node_s_own_error(house: House) -> None:
    house.job()
    lease = house.working()
    house.join("old")
    report = LeaseReport(lease_id=lease.lease_id, generation=1, state="running", step=1, steps_executed=10**30)
    items = [("pc", Sync(instance="one", lease=report)), ("old", Sync(instance="one"))]
    answers, _ = house.do(partial(collect.sync_many, items=items, rules=house.rules))
    assert isinstance(answers[0], GridschedError)
    assert answers[1].node_id == "old"


@pytest.mark.parametrize("seconds", [1e300, 1e12])
def test_opting_in_for_longer_than_any_calendar_is_refused_by_name(house: House, seconds: float) -> None:
    house.join("pc")
    with pytest.raises(GridschedError, match="opting in for"):
        house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=True, for_s=seconds), rules=house.rules))


def test_a_device_state_nobody_knows_leaves_no_fact_behind(house: House) -> None:
    house.join("pc")
    house.clock.advance(timedelta(seconds=60))
    house.do(partial(assign.sweep, rules=house.rules))
    _, facts = house.do(partial(collect.sync_many, items=[("pc", Sync(instance="one", device="upside-down"))], rules=house.rules))
    assert not of(facts, NodePresent)


def test_after_the_clock_was_set_back_a_restart_lets_go_of_the_future(house: House) -> None:
    """The clock had run a year ahead; the daemon comes back in the true year, and the node never does."""
    house.job()
    lease = house.working()
    ahead = timedelta(days=365)
    with house.store.write() as tx:
        tx.put(
            replace(lease, **{f: getattr(lease, f) + ahead for f in ("offered_at", "not_before", "changed_at", "expires_at", "ends_at")})
        )
    house.do(partial(assign.restart, rules=house.rules))
    house.clock.advance(house.rules.lease_ttl)
    house.do(partial(assign.sweep, rules=house.rules))
    assert house.lease() is None


def test_after_the_clock_was_set_back_a_register_is_believed_again(house: House) -> None:
    house.job()
    house.working()
    with house.store.write() as tx:
        presence = tx.must(Presence, "pc")
        tx.put(replace(presence, register_at=house.clock.now() + timedelta(days=365)))
    house.do(partial(assign.restart, rules=house.rules))
    house.clock.advance(timedelta(seconds=60))
    house.sync(register_j=5000.0)
    assert house.held().energy_j == 5000.0


def reserves_less(monkeypatch: pytest.MonkeyPatch, *, by: int) -> None:
    """The release before this one: it sets aside less."""
    monkeypatch.setattr(settle, "most_micro", lambda lease: most_micro(lease) - by)


def test_a_lease_that_was_paused_over_an_upgrade_goes_on_and_holds_up_nobody(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.job()
    with monkeypatch.context() as before:
        reserves_less(before, by=1)
        house.working()
        house.do(partial(admit.pause_zone, zone="de-lu", paused=True))
        house.clock.advance(timedelta(seconds=20))
        house.tick()
    house.join("other")
    house.do(partial(admit.pause_zone, zone="de-lu", paused=False))
    house.clock.advance(timedelta(seconds=20))
    assert of(house.tick()[1], LeaseResumed)
    assert house.held("other").state is LeaseState.OFFERED
    assert len(house.rows(Transfer)) == 1


def test_no_more_is_paid_and_booked_than_was_set_aside(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.job()
    house.join()
    house.surplus(1000)
    house.tick()
    with monkeypatch.context() as before:
        reserves_less(before, by=most_micro(house.held()) - 500)
        house.sync(register_j=0.0)
    house.clock.advance(timedelta(seconds=60))
    _, facts = house.do(
        partial(collect.update, node_id="pc", message=notice(house.held(), register_j=1400.0), checked=GOOD, rules=house.rules)
    )
    assert [fact.amount_micro for fact in of(facts, RewardPosted)] == [500]
    assert [epoch.reward_micro for epoch in house.rows(Epoch)] == [500]
