"""When a unit is worth doing twice: whose holder is in doubt, who is far behind, and which one comes first."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from gridsched.core.copies import Held, Pace, cause, doubt, left_s, most_copies, rank, whole_s
from gridsched.core.fleet import Presence
from gridsched.core.lease import Lease, LeaseReason, grant, offer, pause
from gridsched.core.method import InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec, WorkUnit

NOW = datetime(2018, 5, 1, 12, tzinfo=UTC)
PACE = Pace(overdue=timedelta(seconds=40), settled_in=timedelta(seconds=90), trip=timedelta(seconds=1))
STEPS = 100


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def unit(name: str = "u0", **changes: Any) -> WorkUnit:
    spec = UnitSpec(
        unit_id=f"j.r0.{name}", job_id="j", kind=UnitKind.TRAIN, program="a" * 64, dataset="b" * 64, base="c" * 64, version=0, epoch=0,
        start=0, stop=STEPS, batch_size=1, passes=1, seed=1, inner=InnerOptimizer(),
    )  # fmt: skip
    return WorkUnit(spec=spec, round_id="j.r0", index=0, **changes)


def working(*, at: datetime = NOW, name: str = "u0", **changes: Any) -> Lease:
    made = offer(
        unit_id=f"j.r0.{name}", job_id="j", node_id="pc", zone="z", generation=1, power_w=100.0, decision_id="z.1",
        reward_micro_per_kwh=1, reward_micro_per_unit=1, now=at, ttl=seconds(90), longest=timedelta(hours=6),
    )  # fmt: skip
    return replace(grant(made, at), **changes)


def held(lease: Lease | None = None, *, runtime: str = "torch-x", **seen: Any) -> Held:
    lease = lease or working()
    values: dict[str, Any] = {"node_id": "pc", "present": True, "seen_at": NOW, "speed": 1.0}
    holder = Presence(**values | seen)
    return Held(unit=unit(lease.unit_id.rpartition(".")[2]), lease=lease, holder=holder, runtime=runtime)


def idle(speed: float = 1.0) -> Presence:
    return Presence(node_id="desk", present=True, seen_at=NOW, speed=speed)


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        ({}, None),
        ({"cut_at": NOW}, LeaseReason.HOLDER_CUT),
        ({"present": False}, LeaseReason.HOLDER_SILENT),
        ({"seen_at": NOW - seconds(40)}, LeaseReason.HOLDER_SILENT),
        ({"seen_at": NOW - seconds(39)}, None),
    ],
)
def test_a_holder_out_of_reach_is_in_doubt(seen: dict[str, Any], why: LeaseReason | None) -> None:
    assert doubt(held(**seen), NOW, pace=PACE) is why


@pytest.mark.parametrize("reason", [LeaseReason.DEVICE_BUSY, LeaseReason.DEVICE_HOT, LeaseReason.OPTED_OUT, LeaseReason.TARGET_LOWERED])
def test_a_paused_unit_is_in_doubt_at_once(reason: LeaseReason) -> None:
    assert doubt(held(pause(working(), reason, NOW)), NOW, pace=PACE) is LeaseReason.HOLDER_PAUSED


def test_a_unit_whose_middle_is_on_its_way_is_awaited_until_that_is_overdue() -> None:
    giving = held(replace(pause(working(), LeaseReason.OPTED_OUT, NOW), wants_hand_over=True), seen_at=NOW + seconds(40))
    assert doubt(giving, NOW + seconds(39), pace=PACE) is None
    assert doubt(giving, NOW + seconds(40), pace=PACE) is LeaseReason.HOLDER_PAUSED


def test_what_a_holder_needs_counts_from_its_last_report() -> None:
    assert left_s(held(working(step=40, steps_executed=40)), NOW, pace=PACE) == 60.0
    assert left_s(held(working(step=40, steps_executed=40)), NOW + seconds(15), pace=PACE) == 45.0
    assert left_s(held(speed=0.0), NOW, pace=PACE) == 0.0, "of a speed that is not known nobody says it is slow"


def test_a_worker_that_hangs_is_seen_by_what_its_lease_shows() -> None:
    hanging = working(at=NOW - seconds(90), step=10, steps_executed=10)
    assert left_s(held(hanging), NOW, pace=PACE) == pytest.approx(90 / (10 / 90))
    assert left_s(held(replace(hanging, step=0, steps_executed=0)), NOW, pace=PACE) == math.inf
    assert left_s(held(replace(hanging, changed_at=NOW - seconds(89))), NOW, pace=PACE) == 90.0, "a slow start is no sign yet"


@pytest.mark.parametrize(
    ("candidate", "why"), [(2.0, LeaseReason.HOLDER_SLOW), (1.53, LeaseReason.HOLDER_SLOW), (1.52, None), (1.0, None), (0.0, None)]
)
def test_a_node_much_faster_than_what_is_left_takes_it_up(candidate: float, why: LeaseReason | None) -> None:
    """100 s are left; a candidate pays off below 66.7 s, its trip of 1 s counted in."""
    assert cause(held(), idle(candidate), NOW, pace=PACE) is why


def test_a_copy_begins_with_the_newest_continuation() -> None:
    begun = replace(held(), unit=unit(continuation="d" * 64, continuation_step=80))
    assert whole_s(begun.unit, idle()) == 20.0
    assert left_s(begun, NOW, pace=PACE) == 20.0, "so did the holder"


def test_for_a_doubted_holder_speed_does_not_matter() -> None:
    assert cause(held(cut_at=NOW), idle(0.0), NOW, pace=PACE) is LeaseReason.HOLDER_CUT


def test_doubted_holders_come_first_then_the_node_s_own_class_then_who_needs_longest() -> None:
    cut_other = (held(working(name="u1"), cut_at=NOW, runtime="torch-arm"), LeaseReason.HOLDER_CUT)
    cut_own = (held(working(name="u2"), cut_at=NOW), LeaseReason.HOLDER_CUT)
    slow = (held(working(name="u3", step=50)), LeaseReason.HOLDER_SLOW)
    slower = (held(working(name="u4", step=10)), LeaseReason.HOLDER_SLOW)
    ranked = rank([slow, slower, cut_other, cut_own], "torch-x", NOW, pace=PACE)
    assert [each.lease.unit_id for each, _ in ranked] == ["j.r0.u2", "j.r0.u1", "j.r0.u4", "j.r0.u3"]


@pytest.mark.parametrize(("share", "units", "most"), [(0.2, 1, 1), (0.2, 4, 1), (0.2, 10, 2), (1.0, 7, 7), (0.0, 100, 0)])
def test_a_share_of_a_round_is_copied_at_most_and_one_unit_at_least_unless_it_is_none(share: float, units: int, most: int) -> None:
    assert most_copies(share, units=units) == most
