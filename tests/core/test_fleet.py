"""Dispatch: the target is never exceeded, planning again changes nothing, and input order does not matter."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.fleet import Fleet, held_out, plan
from gridsched.core.fleet import Node as FleetNode
from tests.core.test_lease import NOW

Row = tuple[str, float, float, float, bool, bool]  # id, power, merit, served, running, holding


def fleet(rows: Sequence[Row]) -> Fleet:
    columns = list(zip(*rows, strict=True)) if rows else [()] * 6
    return Fleet(
        node_ids=list(columns[0]),
        power_w=np.array(columns[1], dtype=np.float64),
        merit=np.array(columns[2], dtype=np.float64),
        served_j=np.array(columns[3], dtype=np.float64),
        running=np.array(columns[4], dtype=np.bool_),
        holding=np.array(columns[5], dtype=np.bool_),
    )


def idle(name: str, power_w: float, merit: float = 1.0, served_j: float = 0.0) -> Row:
    return (name, power_w, merit, served_j, False, False)


def running(name: str, power_w: float, merit: float = 1.0) -> Row:
    return (name, power_w, merit, 0.0, True, True)


def paused(name: str, power_w: float, merit: float = 1.0) -> Row:
    return (name, power_w, merit, 0.0, False, True)


@pytest.mark.parametrize(
    ("target_w", "rows", "start", "resume", "pause"),
    [
        (0, [running("a", 100), idle("b", 10)], [], [], ["a"]),
        (100, [idle("a", 100), idle("b", 10)], ["a"], [], []),
        (300, [idle("weak", 100, merit=1), idle("strong", 250, merit=2)], ["strong"], [], []),
        (100, [idle("big", 150, merit=9), idle("small", 90, merit=1)], ["small"], [], []),
        (100, [idle("a", 100, served_j=5.0), idle("b", 100, served_j=1.0)], ["b"], [], []),
        (100, [running("a", 100, merit=1.0), idle("b", 100, merit=1.05)], [], [], []),
        (100, [running("a", 100, merit=1.0), idle("b", 100, merit=2.0)], ["b"], [], ["a"]),
        (200, [paused("a", 100), idle("b", 100), running("c", 100)], [], ["a"], []),
        (99.9, [running("a", 100)], [], [], ["a"]),
    ],
    ids=[
        "no surplus pauses all",
        "the first that fits by name",
        "more work per joule first",
        "one that does not fit is skipped, not waited for",
        "least served first",
        "a trifle of merit displaces nobody",
        "a better node displaces a worse one",
        "who holds a unit goes before who would start",
        "a hair too little is too little",
    ],
)
def test_plan(target_w: float, rows: list[Row], start: list[str], resume: list[str], pause: list[str]) -> None:
    made = plan(target_w, fleet(rows), units=99)
    assert (made.start, made.resume, made.pause) == (start, resume, pause)


def test_no_more_starts_than_units() -> None:
    made = plan(1000, fleet([idle(f"n{i}", 10) for i in range(9)]), units=2)
    assert (made.start, made.drawn_w) == (["n0", "n1"], 20.0)


@given(st.lists(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,62}", fullmatch=True), unique=True, max_size=20))
def test_equal_nodes_go_by_name_however_long_the_names_are(names: list[str]) -> None:
    assert plan(1e9, fleet([idle(name, 1.0) for name in names]), units=99).start == sorted(names)


rows = st.lists(
    st.tuples(
        st.integers(0, 400).map(lambda i: f"n{i:03}"),
        st.floats(1.0, 500.0),
        st.floats(0.01, 10.0),
        st.floats(0.0, 1e6),
        st.booleans(),
        st.booleans(),
    ).map(lambda r: (*r[:4], r[4] and r[5], r[5])),
    max_size=40,
    unique_by=lambda r: r[0],
)


@settings(max_examples=200)
@given(rows, st.floats(0.0, 4000.0), st.integers(0, 20), st.randoms(use_true_random=False))
def test_plan_never_exceeds_its_target_ignores_order_and_settles_at_once(
    found: list[Row], target_w: float, units: int, random: object
) -> None:
    made = plan(target_w, fleet(found), units=units)
    assert made.drawn_w <= target_w + 1e-3
    assert len(made.start) <= units
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    again = plan(target_w, fleet(shuffled), units=units)
    assert (set(again.start), set(again.resume), set(again.pause)) == (set(made.start), set(made.resume), set(made.pause))
    after = [
        (n, p, m, s, (r or n in made.start or n in made.resume) and n not in made.pause, h or n in made.start) for n, p, m, s, r, h in found
    ]
    settled = plan(target_w, fleet(after), units=units - len(made.start))
    assert (settled.start, settled.resume, settled.pause) == ([], [], [])


def test_the_hold_out_is_a_share_of_all_and_the_same_all_day() -> None:
    names = [f"node-{i}" for i in range(4000)]
    out = {n for n in names if held_out(n, share=0.1, day="2018-05-01")}
    assert 0.08 < len(out) / len(names) < 0.12
    assert out == {n for n in names if held_out(n, share=0.1, day="2018-05-01")}
    assert out != {n for n in names if held_out(n, share=0.1, day="2018-05-02")}
    assert not any(held_out(n, share=0.0, day="2018-05-01") for n in names)


@pytest.mark.parametrize("power_w", [0.0, -5.0, float("nan"), 1e9])
def test_a_node_with_an_impossible_power_is_refused(power_w: float) -> None:
    with pytest.raises(InvalidInput, match="pc: power"):
        FleetNode(
            node_id="pc", zone="z", device="pc", power_w=power_w, memory_bytes=1, runtime="torch", meter="m", token_hash="", joined_at=NOW
        )
