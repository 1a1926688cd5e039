"""Rounds that do not wait for all: quorums, staleness, units cut for slow nodes, times of grace, and units that end in NaN everywhere."""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from itertools import pairwise

import pytest

from gridsched.core.facts import (
    EnergyMetered,
    Fact,
    JobEnded,
    LeaseEnded,
    RewardPosted,
    RoundCutShort,
    RoundMerged,
    UnitAccepted,
    UnitSkipped,
    UnitStale,
    UpdateRejected,
)
from gridsched.core.fleet import Presence
from gridsched.core.job import Job, JobState
from gridsched.core.lease import LeaseReason, LeaseState
from gridsched.core.method import Method, NotFinite
from gridsched.core.round import Epoch, Round, RoundState, Version
from gridsched.core.work import UnitKind, UnitState, WorkUnit
from gridsched.flow import advance, assign, collect, timing
from gridsched.flow.collect import Checked
from gridsched.wire import UpdateNotice
from tests.flow.conftest import A, B, C, House, of
from tests.flow.test_copies import parting

STREAM = Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=3, quorum=2, max_staleness=2)
NODES = ("n1", "n2", "n3")


def site(house: House, method: Method = STREAM, *, samples: int = 512, nodes: Sequence[str] = NODES, test: bool = False) -> None:
    """A job, and nodes that have just been granted its first units."""
    for node_id in nodes:
        house.join(node_id)
    house.job(method=method, samples=samples, test_dataset=C if test else None, test_samples=10 if test else 0)
    go_on(house)


def go_on(house: House, seconds: float = 10.0) -> list[Fact]:
    """Time passes, the zone is planned, and nodes with a lease report at work."""
    house.clock.advance(timedelta(seconds=seconds))
    house.surplus(1000)
    facts = house.tick()[1]
    for presence in house.rows(Presence):
        if house.lease(presence.node_id):
            facts += house.sync(presence.node_id, executed=1)[1]
    return facts


def finish(
    house: House, node_id: str, *, update: str = B, checked: Checked | None = None, loss: float = 0.5, register_j: float | None = None
) -> list[Fact]:
    lease = house.held(node_id)
    message = UpdateNotice(
        instance="one",
        lease_id=lease.lease_id,
        generation=lease.generation,
        update=update,
        steps_executed=8,
        metrics={"loss": loss},
    )
    if register_j is not None:
        house.sync(node_id, executed=8, register_j=register_j)
    verb = partial(collect.update, node_id=node_id, message=message, checked=checked or Checked(norm=1.0), rules=house.rules)
    return house.do(verb)[1]


def merge(house: House, digest: str = C) -> list[Fact]:
    """Merge the one round that is ready."""
    with house.store.read() as tx:
        (ready,) = advance.ready_to_merge(tx)
    return house.do(partial(advance.merged, round_id=ready.round_id, digest=digest, size_bytes=9))[1]


def ready(house: House) -> list[str]:
    with house.store.read() as tx:
        return [rnd.round_id for rnd in advance.ready_to_merge(tx)]


def unit_of(house: House, node_id: str) -> WorkUnit:
    return house.rows(WorkUnit, unit_id=house.held(node_id).unit_id)[0]


def under_way(house: House) -> list[WorkUnit]:
    return house.rows(WorkUnit, kind=UnitKind.TRAIN, state=(UnitState.OPEN, UnitState.LEASED))


# -- quorum


def test_as_many_units_as_wished_are_under_way_at_any_time(house: House) -> None:
    site(house)
    for node_id in ("n1", "n2", "n1"):
        assert sorted(unit.unit_id for unit in under_way(house)) == sorted({house.held(n).unit_id for n in NODES})
        finish(house, node_id)
    assert [u.unit_id for u in house.rows(WorkUnit, order="index")] == [f"j.e0.u{n}" for n in range(6)]
    assert {u.round_id for u in under_way(house)} == {"j.r0"}


def test_a_round_takes_the_quorum_that_came_first_and_what_comes_while_it_merges_is_the_next_one_s(house: House) -> None:
    site(house)
    finish(house, "n3")
    assert ready(house) == []
    finish(house, "n1")
    assert ready(house) == ["j.r0"]
    finish(house, "n2")
    with house.store.read() as tx:
        assert [unit.unit_id for unit in advance.taken(tx, "j.r0")] == sorted(("j.e0.u0", "j.e0.u2"))
    facts = merge(house)
    assert [(f.version, f.samples, f.staleness) for f in of(facts, RoundMerged)] == [(1, 128, 0.0)]
    (late,) = house.rows(WorkUnit, round_id="j.r1", state=UnitState.ACCEPTED)
    assert late.spec.version == 0
    assert ready(house) == []
    finish(house, "n1")
    merge(house, "d" * 64)
    (version,) = house.rows(Version, number=2)
    assert [unit_id for unit_id, _, _ in version.updates] == ["j.e0.u1", "j.e0.u4"]
    assert version.staleness == (1, 1)


def test_a_new_version_reaches_what_no_node_has_seen_and_leaves_the_rest_as_it_began(house: House) -> None:
    site(house, replace(STREAM, units_per_round=5))
    unseen = [unit.unit_id for unit in under_way(house) if unit.state is UnitState.OPEN]
    assert len(unseen) == 2
    house.do(partial(assign.close_lease, lease=house.held("n3"), state=LeaseState.EXPIRED, reason=LeaseReason.NODE_SILENT))
    tried = next(unit for unit in under_way(house) if unit.state is UnitState.OPEN and unit.leases)
    for node_id in ("n1", "n2"):
        finish(house, node_id)
    merge(house)
    bases = {unit.unit_id: unit.spec.base for unit in under_way(house)}
    assert bases[tried.unit_id] == A
    assert all(bases[unit.unit_id] == (A if unit.leases else C) for unit in under_way(house))
    assert {unit.round_id for unit in under_way(house)} == {"j.r1"}


def test_an_epoch_ends_with_what_is_left_and_no_round_reaches_into_the_next(house: House) -> None:
    """Three units and a quorum of two: the second round is the epoch's last, with one."""
    site(house, replace(STREAM, epochs=2), samples=192)
    for node_id in ("n1", "n2", "n3"):
        finish(house, node_id)
    assert house.lease("n1") is None, "nothing of the epoch is left to begin"
    merge(house)
    assert house.rows(Epoch)[0].ended_at is None
    assert ready(house) == ["j.r1"]
    merge(house, "d" * 64)
    assert house.rows(Epoch, number=0)[0].ended_at is not None
    assert [(v.number, v.epoch, len(v.updates)) for v in house.rows(Version, order="number")] == [(0, 0, 0), (1, 0, 2), (2, 0, 1)]
    assert [(r.number, r.epoch) for r in house.rows(Round, state=RoundState.OPEN)] == [(2, 1)]
    assert {u.unit_id for u in under_way(house)} == {f"j.e1.u{n}" for n in range(3)}


def test_a_stream_ends_with_its_last_epoch(house: House) -> None:
    site(house, samples=192)
    for node_id in ("n1", "n2", "n3"):
        finish(house, node_id)
    merge(house)
    facts = merge(house, "d" * 64)
    assert [f.state for f in of(facts, JobEnded)] == ["done"]


def test_the_last_evaluation_ends_a_stream(house: House) -> None:
    site(house, samples=128, test=True, nodes=("n1", "n2"))
    finish(house, "n1")
    finish(house, "n2")
    merge(house)
    assert house.rows(Job)[0].state is JobState.RUNNING
    go_on(house)
    (node_id,) = [n for n in ("n1", "n2") if house.lease(n)]
    assert [f.state for f in of(finish(house, node_id), JobEnded)] == ["done"]


# -- staleness


def test_a_unit_that_could_no_longer_be_merged_stops_and_is_trained_again_from_the_newest_version(house: House) -> None:
    site(house, replace(STREAM, quorum=1, max_staleness=1))
    house.sync("n3", register_j=0.0)
    house.clock.advance(timedelta(seconds=5))
    house.sync("n3", step=3, register_j=400.0)
    slow, lease = unit_of(house, "n3"), house.held("n3")
    finish(house, "n1")
    assert of(merge(house), UnitStale) == []
    finish(house, "n1")
    house.clock.advance(timedelta(seconds=2))
    facts = merge(house, "d" * 64)
    assert [(f.unit_id, f.staleness) for f in of(facts, UnitStale)] == [("j.e0.u1", 2), (slow.unit_id, 2)]
    ends = {f.unit_id: (f.state, f.reason) for f in of(facts, LeaseEnded)}
    assert ends[slow.unit_id] == ("revoked", "too_stale")
    facts = parting(house, lease, steps=4, register_j=600.0)
    assert sum(f.energy_j for f in of(facts, RewardPosted)) == 600.0, "it was drawn in good faith"
    assert {f.use: f.energy_j for f in of(facts, EnergyMetered)} == {"wasted": 600.0}
    assert house.rows(WorkUnit, unit_id=slow.unit_id)[0].state is UnitState.ABANDONED
    (anew,) = house.rows(WorkUnit, unit_id=f"{slow.unit_id}.v2")
    assert (anew.state, anew.spec.base, anew.spec.start, anew.spec.stop) == (UnitState.OPEN, "d" * 64, slow.spec.start, slow.spec.stop)


def test_a_unit_that_comes_too_late_for_the_next_free_round_is_not_merged_but_paid(house: House) -> None:
    """The round it would have been in time for is full, and still being merged."""
    site(house, replace(STREAM, quorum=1, max_staleness=0))
    finish(house, "n1")
    house.sync("n2", register_j=0.0)
    house.clock.advance(timedelta(seconds=10))
    facts = finish(house, "n2", register_j=700.0)
    assert [(f.unit_id, f.staleness) for f in of(facts, UnitStale)] == [("j.e0.u1", 1)]
    assert of(facts, UnitAccepted) == []
    assert [f.state for f in of(facts, LeaseEnded)] == ["released"]
    assert [f.energy_j for f in of(facts, RewardPosted)] == [700.0]
    assert {f.use for f in of(facts, EnergyMetered)} == {"wasted"}
    assert {u.unit_id for u in under_way(house)} >= {"j.e0.u1.v0"}
    assert house.rows(WorkUnit, round_id="j.r1") == []


def test_a_unit_that_comes_too_late_again_while_its_round_is_held_up_is_another_one_each_time(house: House) -> None:
    site(house, replace(STREAM, quorum=1, max_staleness=0), samples=192)
    finish(house, "n1")
    late = [of(finish(house, "n2"), UnitStale)[0].unit_id]
    for _ in range(3):
        go_on(house)
        node_id = next(n for n in ("n1", "n2") if (lease := house.lease(n)) and lease.unit_id.startswith("j.e0.u1.v0"))
        late.append(of(finish(house, node_id), UnitStale)[0].unit_id)
    assert late == ["j.e0.u1", "j.e0.u1.v0", "j.e0.u1.v0-2", "j.e0.u1.v0-3"]
    merge(house)
    assert [u.spec.version for u in under_way(house) if u.spec.start == 64] == [1]


def test_a_version_is_journaled_as_what_it_was_made_of_and_not_as_what_came_meanwhile(house: House) -> None:
    site(house, replace(STREAM, quorum=1), samples=192)
    finish(house, "n1")
    made_of = [("j.e0.u0", B)]
    house.do(partial(advance.redo, round_id="j.r0", lost={"j.e0.u0": "its node was found to lie while the round was being merged"}))
    finish(house, "n2")
    assert ready(house) == ["j.r0"]
    verb = partial(advance.merged, round_id="j.r0", digest=C, size_bytes=9, made_of=made_of)
    assert house.do(verb)[1] == []
    assert len(house.rows(Version)) == 1
    assert of(house.do(partial(verb, made_of=[("j.e0.u1", B)]))[1], RoundMerged)


def test_a_lost_update_s_unit_is_done_again_and_fills_the_round_it_left(house: House) -> None:
    site(house)
    for node_id in ("n1", "n2", "n3"):
        finish(house, node_id)
    house.do(partial(advance.redo, round_id="j.r0", lost={"j.e0.u0": "gone"}))
    assert ready(house) == []
    go_on(house)
    finish(house, "n1")
    assert ready(house) == ["j.r0"]
    assert len(house.rows(WorkUnit, round_id="j.r0", state=UnitState.ACCEPTED)) == 2


def test_a_lost_update_is_counted_once_and_what_it_drew_is_wasted(house: House) -> None:
    site(house)
    house.sync("n1", register_j=0.0)
    house.clock.advance(timedelta(seconds=10))
    finish(house, "n1", register_j=700.0)
    (epoch,) = house.rows(Epoch)
    assert (epoch.useful_j, epoch.wasted_j, epoch.units) == (700.0, 0.0, 1)
    (unit,) = house.rows(WorkUnit, unit_id="j.e0.u0")
    with house.store.write() as tx:
        tx.put(replace(unit, continuation=C, continuation_step=4))
    house.do(partial(advance.redo, round_id="j.r0", lost={"j.e0.u0": "gone"}))
    (epoch,) = house.rows(Epoch)
    assert (epoch.useful_j, epoch.wasted_j, epoch.units) == (0.0, 700.0, 0)
    (unit,) = house.rows(WorkUnit, unit_id="j.e0.u0")
    assert (unit.continuation, unit.continuation_step) == (None, 0), "a middle is kept only until its unit is done"


def test_a_unit_opened_again_in_a_round_to_come_stays_in_it_so_that_no_round_is_left_empty(house: House) -> None:
    """Three rounds of one are full when the update of the first and that of the second prove wrong; the second's comes back first."""
    site(house, replace(STREAM, quorum=1), samples=192)
    for node_id in NODES:
        finish(house, node_id)
    with house.store.write() as tx:
        for unit in tx.find(WorkUnit, unit_id=("j.e0.u0", "j.e0.u1")):
            tx.put(replace(unit, state=UnitState.OPEN, update=None, accepted_lease=None, accepted_at=None))
    go_on(house)
    finish(house, next(n for n in NODES if house.held(n).unit_id == "j.e0.u1"))
    assert ready(house) == []
    finish(house, next(n for n in NODES if (lease := house.lease(n)) and lease.unit_id == "j.e0.u0"))
    for number in range(3):
        assert ready(house) == [f"j.r{number}"]
        merge(house, f"{number}" * 64)
    assert house.rows(Job)[0].state is JobState.DONE
    assert [[unit_id for unit_id, _, _ in v.updates] for v in house.rows(Version, order="number")[1:]] == [
        ["j.e0.u0"],
        ["j.e0.u1"],
        ["j.e0.u2"],
    ]


# -- units cut for slow nodes


def test_a_slow_node_is_given_a_piece_that_it_can_do_in_time_and_a_fast_one_the_whole(house: House) -> None:
    method = replace(STREAM, unit_seconds=20.0)
    for node_id in ("n1", "n2"):
        house.join(node_id)
    with house.store.write() as tx:
        for node_id, speed in (("n1", 0.1), ("n2", 4.0)):
            tx.put(replace(tx.must(Presence, node_id), speed=speed))
    house.job(method=method, samples=512, test_dataset=None, test_samples=0)
    go_on(house)
    slow, fast = unit_of(house, "n1"), unit_of(house, "n2")
    assert slow.spec.samples == 16, "two batches at a tenth of a step per second"
    assert fast.spec.samples in (64, 48)
    spans = sorted((u.spec.start, u.spec.stop) for u in under_way(house))
    assert spans[0][0] == 0
    assert all(before[1] == after[0] for before, after in pairwise(spans))


def test_a_unit_that_a_node_has_seen_is_never_cut(house: House) -> None:
    site(house, replace(STREAM, unit_seconds=20.0), nodes=("n1",))
    first = house.held("n1")
    house.do(partial(assign.close_lease, lease=first, state=LeaseState.EXPIRED, reason=LeaseReason.NODE_SILENT))
    with house.store.write() as tx:
        tx.put(replace(tx.must(Presence, "n1"), speed=0.1))
    go_on(house)
    assert unit_of(house, "n1").unit_id == first.unit_id


# -- grace


GRACE = Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=3, grace_s=60.0)


def sweep(house: House) -> list[Fact]:
    return house.do(partial(assign.sweep, rules=house.rules))[1]


def test_a_round_whose_time_of_grace_is_over_merges_what_it_has(house: House) -> None:
    site(house, GRACE, samples=192)
    late, lease = unit_of(house, "n3").unit_id, house.held("n3")
    house.sync("n3", register_j=0.0)
    finish(house, "n1")
    finish(house, "n2")
    go_on(house, 45.0)
    assert of(sweep(house), RoundCutShort) == []
    house.sync("n3", register_j=900.0)
    house.clock.advance(timedelta(seconds=5))
    facts = sweep(house)
    assert [(f.units, f.samples) for f in of(facts, RoundCutShort)] == [(1, 64)]
    assert {(f.unit_id, f.state, f.reason) for f in of(facts, LeaseEnded)} == {(late, "revoked", "round_closed")}
    facts = parting(house, lease, steps=6, register_j=1300.0)
    assert sum(f.energy_j for f in of(facts, RewardPosted)) == 1300.0
    assert {f.use for f in of(facts, EnergyMetered)} == {"wasted"}
    assert [f.samples for f in of(merge(house), RoundMerged)] == [128]
    assert sweep(house) == []


def test_grace_waits_for_a_first_unit(house: House) -> None:
    site(house, GRACE, samples=192)
    house.clock.advance(timedelta(seconds=55))
    house.sync("n1", executed=2)
    house.clock.advance(timedelta(seconds=30))
    assert of(sweep(house), RoundCutShort) == []
    finish(house, "n1")
    assert [f.units for f in of(sweep(house), RoundCutShort)] == [2]


def test_a_round_that_waits_for_all_has_no_time_of_grace(house: House) -> None:
    site(house, replace(GRACE, grace_s=0.0), samples=192)
    finish(house, "n1")
    house.clock.advance(timedelta(days=1))
    assert of(sweep(house), RoundCutShort) == []
    assert ready(house) == []


# -- NaN


def exact(policy: NotFinite = NotFinite.STOP) -> Method:
    return Method(epochs=1, batch_size=8, samples_per_unit=64, units_per_round=2, not_finite=policy)


def nan_on_both(house: House) -> list[Fact]:
    """Both nodes, one after the other, find NaN in the round's first unit; between them the second unit is accepted."""
    holder, other = sorted(("n1", "n2"), key=lambda node_id: house.held(node_id).unit_id)
    facts = finish(house, holder, loss=math.nan)
    assert of(facts, JobEnded) == [], "one node alone is not believed"
    finish(house, other)
    assert house.held(other).unit_id == "j.r0.u0"
    return facts + finish(house, other, loss=math.nan)


def test_a_loss_that_is_not_a_number_is_refused_whatever_the_update(house: House) -> None:
    site(house, exact(), samples=128, nodes=("n1", "n2"))
    facts = finish(house, "n1", loss=math.inf)
    assert [(f.reason, f.detail) for f in of(facts, UpdateRejected)] == [("not_finite", "training needs a finite loss")]
    assert [f.reason for f in of(facts, LeaseEnded)] == ["not_finite"]
    assert of(facts, JobEnded) == []


def test_nan_on_two_nodes_is_the_unit_s_result_and_ends_the_job_naming_round_unit_and_samples(house: House) -> None:
    site(house, exact(), samples=128, nodes=("n1", "n2"))
    house.join("n3", opt_in=False)
    (ended,) = of(nan_on_both(house), JobEnded)
    assert ended.state == "failed"
    assert "unit j.r0.u0 of round 0 (positions 0 to 64 of the order of epoch 0) ended in NaN or infinity on n1 and n2" in ended.reason


def test_a_node_alone_is_believed_the_second_time_whoever_is_merely_there(house: House) -> None:
    site(house, exact(), samples=64, nodes=("n1",))
    house.join("n2", opt_in=False)
    assert of(finish(house, "n1", loss=math.nan), JobEnded) == []
    go_on(house)
    assert [f.state for f in of(finish(house, "n1", loss=math.nan), JobEnded)] == ["failed"]


def test_skipping_goes_on_without_the_unit_and_says_which_samples_are_left_out(house: House) -> None:
    site(house, exact(NotFinite.SKIP), samples=128, nodes=("n1", "n2"))
    facts = nan_on_both(house)
    assert [(f.unit_id, f.samples, f.epoch) for f in of(facts, UnitSkipped)] == [("j.r0.u0", 64, 0)]
    assert of(facts, JobEnded) == []
    assert house.rows(WorkUnit, unit_id="j.r0.u0")[0].state is UnitState.ABANDONED
    assert [f.samples for f in of(merge(house), RoundMerged)] == [64]


def test_a_round_whose_units_are_all_skipped_keeps_its_version_under_the_next_number(house: House) -> None:
    site(house, exact(NotFinite.SKIP), samples=64, nodes=("n1",))
    finish(house, "n1", loss=math.nan)
    go_on(house)
    finish(house, "n1", loss=math.nan)
    with house.store.read() as tx:
        (rnd,) = advance.ready_to_merge(tx)
        assert advance.taken(tx, rnd.round_id) == []
    facts = merge(house, A)
    (version,) = house.rows(Version, number=1)
    assert (version.digest, version.parent, version.updates) == (A, A, ())
    assert [f.state for f in of(facts, JobEnded)] == ["done"]


def test_a_stream_goes_on_with_the_next_unit_after_one_is_skipped(house: House) -> None:
    site(house, replace(STREAM, units_per_round=2, not_finite=NotFinite.SKIP), nodes=("n1", "n2"))
    first = house.held("n1").unit_id
    finish(house, "n1", loss=math.nan)
    finish(house, "n2")
    assert house.held("n2").unit_id == first
    assert of(finish(house, "n2", loss=math.nan), UnitSkipped)
    assert [u.unit_id for u in under_way(house)] == ["j.e0.u2", "j.e0.u3"]


@pytest.mark.parametrize(("policy", "state"), [(NotFinite.STOP, "failed"), (NotFinite.SKIP, "done")])
def test_an_evaluation_that_is_nan_everywhere_ends_the_job_one_way_or_the_other(house: House, policy: NotFinite, state: str) -> None:
    site(house, exact(policy), samples=64, nodes=("n1",), test=True)
    finish(house, "n1")
    merge(house)
    facts: list[Fact] = []
    for _ in range(2):
        go_on(house)
        facts = finish(house, "n1", loss=math.nan)
    assert [f.state for f in of(facts, JobEnded)] == [state]
    assert house.rows(Epoch)[0].accuracy is None


def test_what_is_left_of_a_stream_is_counted_by_its_units_however_many_rounds_they_made(house: House) -> None:
    """Eight units of eight steps, twice; after three rounds of one and one unit more, four are behind it."""

    def left() -> int:
        with house.store.read() as tx:
            (case,) = timing.cases(tx, house.clock.now(), house.policy, margin=timedelta(0))
        return case.load.steps

    for node_id in NODES:
        house.join(node_id)
    method = replace(STREAM, epochs=2, quorum=1, max_staleness=9)
    house.job(method=method, samples=512, test_dataset=None, test_samples=0, deadline=house.clock.now() + timedelta(days=1))
    go_on(house)
    assert left() == 2 * 8 * 8
    for digest in ("c", "d", "e"):
        finish(house, "n1")
        merge(house, digest * 64)
    finish(house, "n2")
    assert left() == 2 * 8 * 8 - 4 * 8
