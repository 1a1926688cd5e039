"""What a day has used, which unit comes first, who is kept out of the day, and what outlives all of it."""

from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from gridsched.core.errors import Conflict
from gridsched.core.facts import JobEnded, LeaseOffered, LeasePaused
from gridsched.core.fleet import held_out
from gridsched.core.ledger import Transfer, TransferKind
from gridsched.core.method import Method
from gridsched.core.policy import Budget, Reason
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.zone import ZoneState
from gridsched.flow import advance, collect, settle
from gridsched.flow.collect import Checked
from gridsched.flow.retain import named
from gridsched.wire import ConsentChoice, HandOver, UpdateNotice
from tests.flow.conftest import B, House, of


def test_a_budget_that_is_spent_is_whole_again_at_midnight(house: House) -> None:
    house.policy = replace(house.policy, budget=Budget(energy_j=1000.0))
    house.job()
    house.working()
    house.clock.advance(timedelta(hours=12))
    house.surplus(500, minutes=60)
    house.tick()
    house.sync(step=1, register_j=1001.0)
    house.clock.advance(timedelta(seconds=20))
    assert house.tick()[0].reason is Reason.BUDGET_SPENT_ENERGY
    house.clock.advance(timedelta(hours=12))
    house.surplus(500)
    assert house.tick()[0].reason is Reason.SURPLUS


def test_a_price_that_is_no_longer_known_costs_nothing_rather_than_yesterday_s_price(house: House) -> None:
    start = house.clock.now()
    hour = Reading(
        zone="de-lu",
        signal=SignalKind.PRICE,
        start=start,
        end=start + timedelta(hours=1),
        value=80.0,
        quality=Quality.MEASURED,
        source="t",
        known_at=start,
    )
    with house.store.write() as tx:
        tx.store_readings([hour])
    house.tick()
    assert house.rows(ZoneState)[0].price_eur_mwh == 80.0
    house.clock.advance(timedelta(hours=20))
    house.tick()
    assert house.rows(ZoneState)[0].price_eur_mwh is None


def test_the_more_urgent_job_comes_first_whichever_was_there_first(house: House) -> None:
    house.job("early")
    house.clock.advance(timedelta(seconds=1))
    house.job("late", priority=1)
    house.join("pc")
    house.surplus(500)
    assert [f.job_id for f in of(house.tick()[1], LeaseOffered)] == ["late"]


def test_a_job_of_another_zone_gets_nothing_here(house: House) -> None:
    house.job(zone="dk1")
    house.join("pc")
    house.surplus(500)
    assert not of(house.tick()[1], LeaseOffered)


def test_who_is_held_out_of_the_day_gets_nothing_and_gives_up_what_it_has(house: House) -> None:
    house.job()
    names = [f"n{number}" for number in range(30)]
    day = f"{house.clock.now():%Y-%m-%d}"
    out = next(name for name in names if held_out(name, share=0.5, day=day))
    kept = next(name for name in names if not held_out(name, share=0.5, day=day))
    house.join(out)
    house.surplus(500)
    house.tick()
    house.sync(out)
    house.join(kept)
    house.policy = replace(house.policy, hold_out_share=0.5)
    house.clock.advance(timedelta(seconds=1))
    _, facts = house.tick()
    assert [f.node_id for f in of(facts, LeasePaused)] == [out]
    assert [f.node_id for f in of(facts, LeaseOffered)] == [kept]


def test_a_reserve_is_resolved_once_whatever_the_second_is_called(house: House) -> None:
    house.job()
    lease = house.working()
    (reserve,) = house.rows(Transfer)
    post = replace(reserve, transfer_id=f"{lease.lease_id}.post", kind=TransferKind.POST, amount_micro=1, pending_id=reserve.transfer_id)
    with house.store.write() as tx:
        settle.record(tx, post)
        with pytest.raises(Conflict, match="already posted or voided"):
            settle.record(tx, replace(post, transfer_id=f"{lease.lease_id}.void", kind=TransferKind.VOID, amount_micro=0))


def test_the_middle_of_a_unit_is_kept_while_somebody_may_go_on_from_it(house: House) -> None:
    house.job()
    lease = house.working()
    house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=house.rules))
    middle = "e" * 64
    message = HandOver(instance="one", lease_id=lease.lease_id, generation=1, continuation=middle, step=4, steps_executed=4, reason="x")
    house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
    with house.store.read() as tx:
        assert middle in named(tx)


def finish(house: House) -> list[object]:
    """The next offered unit, done."""
    house.clock.advance(timedelta(seconds=10))
    house.surplus(500)
    house.tick()
    house.sync()
    lease = house.held()
    message = UpdateNotice(
        instance="one", lease_id=lease.lease_id, generation=lease.generation, update=B, steps_executed=8, metrics={"loss": 0.5}
    )
    _, facts = house.do(partial(collect.update, node_id="pc", message=message, checked=Checked(norm=1.0), rules=house.rules))
    return list(facts)


def test_a_job_is_not_over_while_an_earlier_epoch_waits_for_its_evaluation(house: House) -> None:
    """The last version is evaluated first; the first epoch's quality must still come."""
    house.job(samples=64, method=Method(epochs=2, batch_size=8, samples_per_unit=64, units_per_round=1))
    house.join("pc")
    house.sync(register_j=0.0)
    for number in range(2):
        finish(house)
        house.do(partial(advance.merged, round_id=f"j.r{number}", digest="c" * 64, size_bytes=1))
        if house.lease() is not None:  # the evaluation may have been offered at once; let training go first
            house.sync(state="refused")
    ends = [of(finish(house), JobEnded) for _ in range(2)]  # type: ignore[arg-type]
    assert [len(end) for end in ends] == [0, 1]
