"""Each node's day, told from facts: who worked, who paused and why, who vanished."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from gridsched.core.facts import (
    AgentReplaced,
    Fact,
    LeaseActive,
    LeaseEnded,
    LeaseOffered,
    LeasePaused,
    LeaseResumed,
    NodeAbsent,
    NodeCut,
    NodeJoined,
    NodeOptedIn,
    NodeOptedOut,
    NodePresent,
)
from gridsched.report.strips import NodeState, Strip, crashes, node_strips, without_gaps
from tests.story import DAY, tell

START = datetime(2018, 1, 28, 12, 0, tzinfo=UTC)


def at(minutes: float) -> datetime:
    return START + timedelta(minutes=minutes)


def lease(kind: type[Any], minutes: float, *, reason: str = "", lease_id: str = "l1", **more: Any) -> Any:
    return kind(
        at=at(minutes),
        lease_id=lease_id,
        unit_id="u1",
        job_id="digits",
        node_id="attic",
        zone="de-lu",
        generation=1,
        reason=reason,
        power_w=100.0,
        step=0,
        **more,
    )


def came(minutes: float) -> list[Fact]:
    return [
        NodeJoined(at=at(minutes), node_id="attic", zone="de-lu", device="desktop", power_w=100.0),
        NodePresent(at=at(minutes), node_id="attic", zone="de-lu"),
        NodeOptedIn(at=at(minutes), node_id="attic", zone="de-lu"),
    ]


def silent(minutes: float, seconds: float = 60.0) -> NodeAbsent:
    return NodeAbsent(at=at(minutes), node_id="attic", zone="de-lu", silent_s=seconds)


def story(*facts: Fact, until: float = 60) -> list[tuple[float, float, str, str]]:
    strips = node_strips([*came(0), *facts], until=at(until))["attic"]
    return [((s.start - START) / timedelta(minutes=1), (s.end - START) / timedelta(minutes=1), s.state.value, s.reason) for s in strips]


def test_a_node_waits_works_pauses_for_a_reason_and_goes_on() -> None:
    assert story(
        lease(LeaseOffered, 5, decision_id="d"),
        lease(LeaseActive, 6),
        lease(LeasePaused, 20, reason="no_surplus"),
        lease(LeaseResumed, 40, reason="surplus_back"),
        lease(LeaseEnded, 50, reason="finished", state="released"),
    ) == [(0, 6, "waiting", ""), (6, 20, "working", ""), (20, 40, "paused", "no_surplus"), (40, 50, "working", ""), (50, 60, "waiting", "")]


def test_opting_out_shows_at_once_even_before_the_unit_is_handed_over() -> None:
    told = story(
        lease(LeaseActive, 5),
        lease(LeasePaused, 30, reason="opted_out"),
        NodeOptedOut(at=at(30), node_id="attic", zone="de-lu"),
        lease(LeaseEnded, 31, reason="handed_over", state="handed_over"),
    )
    assert told[-2:] == [(5, 30, "working", ""), (30, 60, "opted out", "opted_out")]


def test_a_node_that_vanishes_at_work_has_crashed_since_it_was_last_heard_of() -> None:
    told = story(
        lease(LeaseActive, 5),
        silent(31),
        lease(LeaseEnded, 32, reason="node_silent", state="expired"),
        NodePresent(at=at(45), node_id="attic", zone="de-lu"),
    )
    assert told[1:] == [(5, 30, "working", ""), (30, 45, "crashed", "node_silent"), (45, 60, "waiting", "")]


def test_a_node_that_vanishes_without_work_is_absent() -> None:
    assert story(silent(31)) == [(0, 30, "waiting", ""), (30, 60, "absent", "absent")]


def test_only_vanishing_while_holding_a_lease_counts_as_a_crash() -> None:
    held = [*came(0), lease(LeaseActive, 5)]
    replaced = AgentReplaced(at=at(20), node_id="attic", instance="two")
    ended = lease(LeaseEnded, 10, reason="finished", state="released")
    assert crashes([*held, silent(31)]) == [(at(30), "attic")]
    assert crashes([*held, replaced]) == [(at(20), "attic")]
    assert crashes([*held, ended, replaced, silent(31)]) == []


def test_a_node_whose_unit_another_finished_before_it_was_missed_has_crashed_all_the_same() -> None:
    cut = NodeCut(at=at(30), node_id="attic", zone="de-lu")
    outrun = lease(LeaseEnded, 30.5, reason="outrun", state="revoked")
    facts = [lease(LeaseActive, 5), cut, outrun, silent(31)]
    assert story(*facts)[-1] == (30, 60, "crashed", "node_silent")
    assert crashes([*came(0), *facts]) == [(at(30), "attic")]
    assert crashes([*came(0), lease(LeaseActive, 5), cut, outrun, lease(LeaseActive, 31), replace(outrun, at=at(32)), silent(40)]) == []


def test_a_crashed_node_whose_agent_comes_back_is_counted_once() -> None:
    facts = [*came(0), lease(LeaseActive, 5), silent(31), AgentReplaced(at=at(31.5), node_id="attic", instance="two")]
    assert len(crashes(facts)) == 1


def test_the_end_of_an_earlier_lease_does_not_end_the_present_one() -> None:
    told = story(lease(LeaseActive, 5, lease_id="l2"), lease(LeaseEnded, 20, lease_id="l1", reason="superseded", state="expired"))
    assert told[-1] == (5, 60, "working", "")


def test_the_moment_between_two_units_is_filled_in_and_a_longer_wait_is_not() -> None:
    strips = [
        Strip(at(0), at(10), NodeState.WORKING, ""),
        Strip(at(10), at(11), NodeState.WAITING, ""),
        Strip(at(11), at(20), NodeState.WORKING, ""),
        Strip(at(20), at(30), NodeState.WAITING, ""),
        Strip(at(30), at(40), NodeState.WORKING, ""),
        Strip(at(40), at(41), NodeState.WAITING, ""),
        Strip(at(41), at(50), NodeState.PAUSED, "no_surplus"),
    ]
    assert without_gaps(strips, shorter_than=timedelta(minutes=5)) == [Strip(at(0), at(20), NodeState.WORKING, ""), *strips[3:]]


@pytest.mark.parametrize("node_id", ["attic-pc", "workshop", "laptop"])
def test_a_whole_day_leaves_no_hole_and_no_overlap(node_id: str) -> None:
    end = DAY + timedelta(days=1)
    strips = node_strips(tell().facts, until=end)[node_id]
    assert (strips[0].start, strips[-1].end) == (DAY, end)
    assert all(a.end == b.start for a, b in pairwise(strips))
