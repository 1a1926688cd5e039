"""A unit under way twice: who gets the copy and when, that the first result alone counts, and that nobody is worse off for it."""

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridsched.core.errors import LeaseLost
from gridsched.core.facts import EnergyMetered, LeaseEnded, LeaseOffered, NodeCut, NodePresent, RewardPosted, UnitAccepted, ZoneObserved
from gridsched.core.fleet import Presence
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.ledger import OPERATOR, Account
from gridsched.core.method import Method
from gridsched.core.round import Epoch
from gridsched.core.work import Refusal, UnitState, WorkUnit
from gridsched.flow import admit, assign, collect, sync, timing
from gridsched.flow.collect import Checked
from gridsched.testing import check_invariants
from gridsched.wire import ConsentChoice, HandOver, LeaseReport, MeterReport, Sync, UpdateNotice
from tests.flow.conftest import B, C, House, of

ONE = Method(epochs=2, batch_size=8, samples_per_unit=128, units_per_round=1)
"""Rounds of one unit of 16 steps."""


def only_unit(house: House) -> WorkUnit:
    return house.rows(WorkUnit, unit_id="j.r0.u0")[0]


def at_work(house: House, *idle: str, method: Method = ONE, **joining: Any) -> Lease:
    """``pc`` works on the only unit, ``idle`` have nothing to do."""
    house.job(method=method)
    lease = house.working()
    for name in idle:
        house.join(name, **joining)
    return lease


def cut(house: House, node_id: str = "pc") -> list[Any]:
    return house.do(partial(sync.cut, lines={node_id: house.clock.now()}))[1]


def finish(house: House, lease: Lease, *, register_j: float | None = None, checked: Checked = Checked(norm=1.0)) -> Any:  # noqa: B008 (frozen)
    meter = None if register_j is None else MeterReport(register_j=register_j, age_s=0.0, power_w=50.0, method="estimated")
    notice = UpdateNotice(
        instance="one",
        lease_id=lease.lease_id,
        generation=lease.generation,
        update=B,
        steps_executed=16,
        metrics={"loss": 1.0},
        meter=meter,
    )
    return house.do(partial(collect.update, node_id=lease.node_id, message=notice, checked=checked, rules=house.rules))


def copied(house: House, *, why: str = "holder_cut") -> tuple[Lease, Lease]:
    """The first lease on ``pc``, cut off, and its copy on ``desk``, which has taken it."""
    first = at_work(house, "desk")
    cut(house)
    facts = house.tick()[1]
    assert [(f.node_id, f.unit_id, f.reason) for f in of(facts, LeaseOffered)] == [("desk", "j.r0.u0", why)]
    house.sync("desk", register_j=0.0)
    return first, house.held("desk")


def parting(house: House, lease: Lease, *, steps: int, register_j: float) -> list[Any]:
    """What a node says that has just heard that its lease is over."""
    report = LeaseReport(lease_id=lease.lease_id, generation=lease.generation, state="paused", step=steps, steps_executed=steps)
    meter = MeterReport(register_j=register_j, age_s=0.0, power_w=50.0, method="estimated")
    message = Sync(instance="one", lease=report, meter=meter)
    return house.do(partial(collect.sync_many, items=[(lease.node_id, message)], rules=house.rules))[1]


# -- when


def test_a_node_whose_line_is_cut_is_in_doubt_and_its_unit_goes_to_an_idle_one_too(house: House) -> None:
    first, copy = copied(house)
    assert (first.generation, copy.generation) == (1, 2)
    assert only_unit(house).state is UnitState.LEASED
    assert house.held("pc").lease_id == first.lease_id, "nothing is taken from a node for being out of reach"


def test_planning_again_makes_no_second_copy(house: House) -> None:
    copied(house)
    house.join("third")
    assert [type(f) for f in house.tick()[1]] == [ZoneObserved]


def test_without_copies_nothing_is_done_twice(house: House) -> None:
    house.rules = replace(house.rules, copies=0.0)
    at_work(house, "desk")
    cut(house)
    assert not of(house.tick()[1], LeaseOffered)


def test_open_work_goes_before_copies(house: House) -> None:
    house.job(method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2))
    house.working()
    cut(house)
    house.join("desk")
    assert [(f.unit_id, f.reason) for f in of(house.tick()[1], LeaseOffered)] == [("j.r0.u1", "planned")]


def test_a_copy_stays_within_the_target_with_the_watts_of_the_node_in_doubt_held_back(house: House) -> None:
    house.job(method=ONE)
    house.working(watts=150.0)
    house.join("desk")
    cut(house)
    assert not of(house.tick()[1], LeaseOffered), "100 of 150 W may still be drawn by the node that is out of reach"
    house.join("pi", power_w=50.0)
    assert [f.node_id for f in of(house.tick()[1], LeaseOffered)] == ["pi"]


def test_whoever_finishes_takes_the_copy_at_once_where_no_node_was_idle(house: House) -> None:
    house.job(method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2))
    house.join("desk")
    house.working()
    house.sync("desk", register_j=0.0)
    mine = house.held("desk")
    cut(house)
    assert not of(house.tick()[1], LeaseOffered)
    assert [(f.node_id, f.unit_id, f.reason) for f in of(finish(house, mine)[1], LeaseOffered)] == [
        ("desk", house.held("pc").unit_id, "holder_cut")
    ]


def test_a_share_of_the_round_is_copied_at_most(house: House) -> None:
    house.job(samples=640, method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=10))
    house.surplus(1_000)
    for number in range(10):
        house.join(f"n{number}", power_w=10.0)
    house.tick()
    for number in range(10):
        house.sync(f"n{number}", register_j=0.0)
        cut(house, f"n{number}")
    for number in range(10, 20):
        house.join(f"n{number}", power_w=10.0)
    offers = of(house.tick()[1], LeaseOffered)
    assert len(offers) == 2, "a fifth of ten"
    assert len({f.unit_id for f in offers}) == 2


@pytest.mark.parametrize(("device", "offered"), [("hot", 1), ("user_active", 1), ("free", 0)])
def test_a_unit_that_its_node_s_own_limits_stop_is_taken_up_by_an_idle_one(house: House, device: str, offered: int) -> None:
    at_work(house, "desk")
    house.sync(step=2, device=device)
    assert [f.reason for f in of(house.tick()[1], LeaseOffered)] == ["holder_paused"] * offered


def test_a_unit_that_is_being_given_back_is_not_copied_meanwhile(house: House) -> None:
    at_work(house, "desk")
    house.do(partial(collect.choose, node_id="pc", message=ConsentChoice(opted_in=False), rules=house.rules))
    assert not of(house.tick()[1], LeaseOffered)
    house.clock.advance(house.rules.pace.overdue)
    house.sync("desk")
    assert [f.node_id for f in of(house.tick()[1], LeaseOffered)] == ["desk"]


def test_a_node_that_misses_two_reports_is_in_doubt(house: House) -> None:
    at_work(house, "desk")
    house.clock.advance(timedelta(seconds=39))
    house.sync("desk")
    assert not of(house.tick()[1], LeaseOffered)
    house.clock.advance(timedelta(seconds=1))
    assert [f.reason for f in of(house.tick()[1], LeaseOffered)] == ["holder_silent"]


def test_a_straggler_s_unit_is_done_by_a_much_faster_idle_node(house: House) -> None:
    at_work(house, "desk")
    with house.store.write() as tx:
        tx.put(replace(tx.must(Presence, "pc"), speed=0.5), replace(tx.must(Presence, "desk"), speed=0.6))
    assert not of(house.tick()[1], LeaseOffered)
    with house.store.write() as tx:
        tx.put(replace(tx.must(Presence, "desk"), speed=5.0))
    assert [(f.node_id, f.reason) for f in of(house.tick()[1], LeaseOffered)] == [("desk", "holder_slow")]


def test_a_node_that_could_not_do_a_unit_gets_no_copy_of_it(house: House) -> None:
    house.job(method=ONE)
    house.working("desk")
    house.sync("desk", state="refused")
    house.do(partial(collect.choose, node_id="desk", message=ConsentChoice(opted_in=False), rules=house.rules))
    house.working("pc")
    assert house.held("pc").generation == 2
    house.do(partial(collect.choose, node_id="desk", message=ConsentChoice(opted_in=True), rules=house.rules))
    cut(house)
    assert not of(house.tick()[1], LeaseOffered)


def test_a_node_in_doubt_gets_no_new_work_until_it_is_heard_of(house: House) -> None:
    house.join("pc")
    cut(house)
    house.job(method=ONE)
    house.surplus(1000)
    assert not of(house.tick()[1], LeaseOffered)
    assert of(house.do(partial(sync.back, node_id="pc"))[1], NodePresent)
    assert len(of(house.tick()[1], LeaseOffered)) == 1


def test_a_report_on_its_way_when_the_line_was_cut_leaves_no_doubt(house: House) -> None:
    at_work(house, "desk")
    before = house.clock.now()
    house.clock.advance(timedelta(seconds=1))
    house.sync(step=3)
    assert not of(house.do(partial(sync.cut, lines={"pc": before}))[1], NodeCut)
    assert not of(house.tick()[1], LeaseOffered)


def test_after_a_restart_no_node_is_in_doubt(house: House) -> None:
    at_work(house, "desk")
    cut(house)
    house.do(partial(assign.restart, rules=house.rules))
    assert not of(house.tick()[1], LeaseOffered)


# -- who wins, and what becomes of the other


@pytest.mark.parametrize("winner", ["pc", "desk"])
def test_the_first_result_counts_and_the_other_lease_ends(house: House, winner: str) -> None:
    leases = dict(zip(("pc", "desk"), copied(house), strict=True))
    loser = leases["desk" if winner == "pc" else "pc"]
    house.sync("pc", step=3)
    _, facts = finish(house, leases[winner])
    assert [f.lease_id for f in of(facts, UnitAccepted)] == [leases[winner].lease_id]
    assert [(f.node_id, f.state, f.reason) for f in of(facts, LeaseEnded)] == [
        (winner, "released", "finished"),
        (loser.node_id, "revoked", "outrun"),
    ]
    with pytest.raises(LeaseLost, match="outrun"):
        finish(house, loser)
    assert only_unit(house).accepted_lease == leases[winner].lease_id


def test_the_one_that_was_outrun_gets_other_work_at_once(house: House) -> None:
    _, copy = copied(house)
    house.sync("pc", step=3)
    house.job("k", method=ONE)
    _, facts = finish(house, copy)
    assert {f.node_id: f.unit_id for f in of(facts, LeaseOffered)} == {"desk": "k.r0.u0"}
    house.job("l", method=ONE)
    orders, _ = house.sync("pc", step=3)
    assert orders.order is None
    house.tick()
    assert house.held("pc").job_id == "l"


def test_work_in_good_faith_is_paid_and_booked_as_wasted_once_its_last_words_have_come(house: House) -> None:
    first, copy = copied(house)
    house.clock.advance(timedelta(seconds=60))
    house.sync("pc", step=5, register_j=1000.0)
    house.clock.advance(timedelta(seconds=20))
    _, facts = finish(house, copy, register_j=4000.0)
    assert [f.node_id for f in of(facts, RewardPosted)] == ["desk"]
    assert sum(f.energy_j for f in of(facts, EnergyMetered) if f.use == "useful") == pytest.approx(4000.0)
    facts = parting(house, first, steps=9, register_j=2000.0)
    assert [(f.node_id, f.energy_j) for f in of(facts, RewardPosted)] == [("pc", 2000.0)]
    assert {f.use: f.energy_j for f in of(facts, EnergyMetered)} == {"wasted": 2000.0}
    assert not of(parting(house, first, steps=9, register_j=2000.0), RewardPosted), "said twice, paid once"
    (epoch,) = house.rows(Epoch, number=0)
    assert [epoch.useful_j, epoch.wasted_j] == pytest.approx([4000.0, 2000.0])
    assert epoch.units == 1
    assert house.rows(Presence, node_id="pc")[0].reliability == 1.0, "being outrun is no fault"


def test_a_node_that_is_never_heard_again_is_paid_for_what_is_known_when_its_time_is_over(house: House) -> None:
    first = at_work(house, "desk")
    house.clock.advance(timedelta(seconds=10))
    house.sync("pc", step=2, register_j=500.0)
    cut(house)
    house.tick()
    house.sync("desk", register_j=0.0)
    house.clock.advance(timedelta(seconds=10))
    _, facts = finish(house, house.held("desk"))
    assert "pc" not in {f.node_id for f in of(facts, RewardPosted)}
    expires_at = house.rows(Lease, lease_id=first.lease_id)[0].expires_at
    house.clock.move_to(expires_at - timedelta(microseconds=1))
    assert not of(house.do(partial(assign.sweep, rules=house.rules))[1], RewardPosted)
    house.clock.move_to(expires_at)
    _, facts = house.do(partial(assign.sweep, rules=house.rules))
    assert [(f.node_id, f.energy_j) for f in of(facts, RewardPosted)] == [("pc", 500.0)]
    assert house.rows(Account, account_id=OPERATOR)[0].debits_pending == 0
    assert house.rows(Presence, node_id="pc")[0].reliability < 1.0, "it has vanished"


def test_a_daemon_that_was_away_leaves_time_for_last_words(house: House) -> None:
    first, copy = copied(house)
    house.clock.advance(timedelta(seconds=30))
    finish(house, copy)
    house.clock.advance(timedelta(hours=1))
    house.do(partial(assign.restart, rules=house.rules))
    house.do(partial(assign.sweep, rules=house.rules))
    assert of(parting(house, first, steps=5, register_j=300_000.0), RewardPosted)


@pytest.mark.parametrize("ending", ["expiry", "hand-over", "refusal", "revocation"])
def test_the_end_of_one_lease_does_not_open_the_unit_while_the_other_is_live(house: House, ending: str) -> None:
    first, copy = copied(house)
    if ending == "expiry":
        house.clock.advance(timedelta(seconds=80))
        house.sync("desk")
        house.clock.advance(timedelta(seconds=10))
        house.do(partial(assign.sweep, rules=house.rules))
    elif ending == "hand-over":
        message = HandOver(instance="one", lease_id=first.lease_id, generation=1, continuation=C, step=4, steps_executed=4, reason="x")
        house.do(partial(collect.hand_over, node_id="pc", message=message, rules=house.rules))
        assert only_unit(house).continuation_step == 4
    elif ending == "refusal":
        finish(house, first, checked=Checked(refusal=Refusal.WRONG_SHAPE, detail="w"))
    else:
        house.do(partial(admit.revoke_node, node_id="pc"))
    assert house.lease("pc") is None
    assert only_unit(house).state is UnitState.LEASED
    assert len(of(finish(house, copy)[1], UnitAccepted)) == 1


def test_what_an_outrun_node_out_of_reach_last_drew_is_given_to_nobody(house: House) -> None:
    """It drew 50 W when it was last heard, and does not know yet that it should stop."""
    house.job(method=ONE)
    house.working(watts=230.0)
    house.join("desk")
    cut(house)
    house.tick()
    house.sync("desk", register_j=0.0)
    finish(house, house.held("desk"))
    house.job("k", method=Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2))
    house.join("third")
    assert len(of(house.tick()[1], LeaseOffered)) == 1, "100 of 180 W"
    house.do(partial(sync.back, node_id="pc"))
    assert len(of(house.tick()[1], LeaseOffered)) == 1


# -- any order of anything


class Two:
    """Two nodes and one unit; every verb that touches a lease may come at any time, also from whoever has lost it long ago."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.accepted = 0
        self.known: dict[str, list[Lease]] = {"pc": [], "desk": []}
        at_work(house, "desk")
        self.look()

    def look(self) -> None:
        for node_id, seen in self.known.items():
            held = self.house.lease(node_id)
            if held is not None and held.unit_id == "j.r0.u0" and held.lease_id not in {each.lease_id for each in seen}:
                seen.append(held)
        with self.house.store.read() as tx:
            check_invariants(tx)
            live = tx.count(Lease, unit_id="j.r0.u0", state=LIVE)
            won = tx.count(Lease, unit_id="j.r0.u0", state=LeaseState.RELEASED)
        unit = only_unit(self.house)
        assert unit.state is {True: UnitState.ACCEPTED, False: UnitState.LEASED if live else UnitState.OPEN}[bool(self.accepted)]
        assert won == self.accepted <= 1, "a unit is finished once"
        assert live <= (0 if self.accepted else 2)

    def act(self, what: str, node_id: str, which: int) -> None:
        house = self.house
        seen = self.known[node_id]
        lease = seen[which % len(seen)] if seen else None
        with suppress(LeaseLost):  # an old claim may be refused; nothing else may go wrong
            if what == "finish" and lease:
                facts = finish(house, lease)[1]
                self.accepted += len([f for f in of(facts, UnitAccepted) if f.unit_id == "j.r0.u0"])
            elif what == "refused" and lease:
                finish(house, lease, checked=Checked(refusal=Refusal.UNREADABLE, detail="x"))
            elif what == "hand_over" and lease:
                message = HandOver(
                    instance="one",
                    lease_id=lease.lease_id,
                    generation=lease.generation,
                    continuation=C,
                    step=3,
                    steps_executed=3,
                    reason="x",
                )
                house.do(partial(collect.hand_over, node_id=node_id, message=message, rules=house.rules))
            elif what == "sync" and lease:
                parting(house, lease, steps=1 + which, register_j=0.0)
            elif what == "hot":
                house.sync(node_id, device="hot")
            elif what == "cut":
                cut(house, node_id)
            elif what == "tick":
                house.surplus(1000)
                house.tick()
            elif what == "wait":
                house.clock.advance(timedelta(seconds=(20, 45, 95)[which]))
                house.do(partial(assign.sweep, rules=house.rules))
            elif what == "restart":
                house.do(partial(assign.restart, rules=house.rules))
        self.look()


VERBS = ("finish", "refused", "hand_over", "sync", "hot", "cut", "tick", "tick", "wait", "restart")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(VERBS), st.sampled_from(["pc", "desk"]), st.integers(0, 2)), min_size=3, max_size=14))
def test_in_any_order_of_all_lease_verbs_a_unit_is_accepted_at_most_once(moves: list[tuple[str, str, int]]) -> None:
    from tests.flow.conftest import house as fixture

    for house in fixture.__wrapped__():  # type: ignore[attr-defined]
        two = Two(house)
        for what, node_id, which in moves:
            two.act(what, node_id, which)


def test_what_is_left_of_a_unit_under_way_twice_is_counted_by_the_further_one(house: House) -> None:
    first, copy = copied(house)
    (job,) = house.rows(Job)
    for further, behind in ((first, copy), (copy, first)):
        with house.store.write() as tx:
            tx.put(replace(further, step=12), replace(behind, step=4))
        with house.store.read() as tx:
            assert timing._steps_left(tx, job) == 2 * 16 + 4 - 12
