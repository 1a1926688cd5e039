from dataclasses import replace
from datetime import UTC, datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from gridsched.core.round import Epoch
from gridsched.demo.scene import Line, Moment, NodeRow, Scene
from gridsched.demo.view import epoch_table, render

DAY = datetime(2018, 1, 27, 23, tzinfo=UTC)
NOW = DAY + timedelta(hours=13, minutes=45)
EPOCHS = tuple(
    Epoch(job_id="d", number=n, started_at=DAY, ended_at=NOW, useful_j=3.6e6, wasted_j=3.6e5, idle_j=0.0, reward_micro=10_000, accuracy=a)
    for n, a in enumerate((0.966, 0.992))
)
BUSY = NodeRow(node_id="pc", power_w=160.0, state="working", why="accepted", unit="d.r3.u2", step=60, steps=120, drawn_w=158.0)
GONE = NodeRow(node_id="raspberry-pi", power_w=10.0, state="absent", reliability=0.9)
SCENE = Scene(
    now=NOW,
    day=DAY,
    speed=860.0,
    moments=(Moment(at=NOW, price_eur_mwh=-4.09, surplus_w=172.0, target_w=163.0, leased_w=160.0, drawn_w=158.0, reason="surplus"),),
    detail="surplus 172 W is above 40: up to 163 W",
    nodes=(BUSY, GONE),
    epochs=EPOCHS,
    epochs_planned=8,
    units=13,
    units_planned=48,
    lines=tuple(Line(at=NOW, text=f"event {number}", mood="plain") for number in range(9)),
)


def printed(scene: Scene, *, width: int = 100, height: int = 40) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    console.print(render(scene, width=width, height=height))
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_screen_says_what_is_allowed_what_is_drawn_and_why() -> None:
    screen = printed(SCENE)
    for words in ("Sunday 28 January 2018", "13:45", "-4.09 €/MWh", "172 W", "163 W", "158 W", "surplus 172 W is above 40: up to 163 W"):
        assert words in screen, words


def test_each_node_has_its_state_its_unit_and_its_trust() -> None:
    screen = printed(SCENE)
    assert "● working   there is surplus" in screen
    assert "r3.u2 60/120" in screen
    assert "✕ gone      not heard of now" in screen
    assert "90%" in screen


def test_training_is_told_by_unit_epoch_energy_and_reward() -> None:
    screen = printed(SCENE)
    for words in ("13/48 units, 2/8 epochs", "99.2%  after 96.6%", "2.000 kWh useful", "0.200 kWh wasted", "2.00 ct paid"):
        assert words in screen, words


def test_the_log_shows_the_last_six_events() -> None:
    screen = printed(SCENE)
    assert [number for number in range(9) if f"event {number}" in screen] == [3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("height", [24, 25, 26, 28, 34])
def test_a_low_screen_is_not_overrun(height: int) -> None:
    assert len(printed(SCENE, height=height).splitlines()) <= height


@pytest.mark.parametrize("width", [100, 110, 120])
def test_every_line_is_as_wide_as_the_screen(width: int) -> None:
    assert {len(line) for line in printed(SCENE, width=width).splitlines()} == {width}


def test_before_anything_has_happened_the_screen_is_whole_too() -> None:
    screen = printed(replace(SCENE, moments=(), nodes=(), epochs=(), lines=(), detail="", units=0))
    assert "the first decision is yet to come" in screen
    assert "nobody has joined yet" in screen


def test_the_table_of_epochs_ends_with_their_sum() -> None:
    console = Console(file=StringIO(), width=100)
    console.print(epoch_table(EPOCHS))
    assert isinstance(console.file, StringIO)
    total = next(line for line in console.file.getvalue().splitlines() if "all" in line)
    assert [cell.strip() for cell in total.split("│")[1:-1]] == ["all", "2.0000", "0.2000", "0.0000", "0.000", "2.000", "99.2%"]
