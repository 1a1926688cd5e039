"""The picture is drawn for a whole day and for the odd ones: no price, one tick, a hole, a large fleet. Its looks are for eyes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gridsched.core.errors import NotFound
from gridsched.core.facts import AgentReplaced, EnergyMetered, Fact, LeaseActive, LeasePaused, NodeJoined, RewardPosted, ZoneObserved
from gridsched.core.round import Epoch
from gridsched.report import lanes
from gridsched.report.day import MOST_NODES, plot
from gridsched.report.strips import crashes
from tests.story import DAY, JOB, ZONE, Story, tell


@pytest.fixture(scope="module")
def story() -> Story:
    return tell()


def thinned(facts: Sequence[Fact], every: int = 30) -> list[Fact]:
    """A tick now and then is enough to draw from."""
    return [f for f in facts if not isinstance(f, ZoneObserved) or f.at.minute % every == 0]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """What is drawn from now on, instead of files."""
    seen: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: seen.append(figure))
    return seen


def words(figure: Figure) -> list[str]:
    """The title, what stands below it, and the small print."""
    return [text.get_text() for text in figure.texts]


def node_names(figure: Figure) -> list[str]:
    return [label.get_text() for label in figure.axes[3].get_yticklabels()]


def elsewhere(facts: Sequence[Fact]) -> list[Fact]:
    """The same in zone gb, by nodes of its own; one of them is taken over by another agent while it works."""
    told = [replace(fact, **_there(fact)) for fact in facts if hasattr(fact, "zone")]
    struck = next(fact for fact in told if isinstance(fact, LeaseActive))
    return [*told, AgentReplaced(at=struck.at, node_id=struck.node_id, instance="two")]


def _there(fact: Fact) -> dict[str, Any]:
    node_id = getattr(fact, "node_id", "")
    return {"zone": "gb", "node_id": f"gb-{node_id}"} if node_id else {"zone": "gb"}


def half_hours(begin: datetime, *watts: float) -> list[Fact]:
    """Ticks that draw so much, at 50 EUR/MWh."""
    return [
        ZoneObserved(
            at=begin + number * timedelta(minutes=30),
            zone=ZONE,
            decision_id="d",
            target_w=1000.0,
            leased_w=drawn_w,
            drawn_w=drawn_w,
            reason="surplus",
            signals={"price": 50.0},
            nodes={},
        )
        for number, drawn_w in enumerate(watts)
    ]


def booked(at: datetime, *, paid: int, **joules: float) -> list[Fact]:
    """What a unit of the job's first epoch took, by use, and what its node was paid."""
    reward = RewardPosted(at=at, node_id="attic-pc", zone=ZONE, lease_id="l1", job_id=JOB, amount_micro=paid, energy_j=sum(joules.values()))
    return [
        *(EnergyMetered(at=at, job_id=JOB, zone=ZONE, epoch=0, use=use, energy_j=j, cost_micro=0.0) for use, j in joules.items()),
        reward,
    ]


def test_a_day_becomes_a_picture_with_colour_in_every_lane(story: Story, tmp_path: Path) -> None:
    path = plot(tmp_path / "out" / "day.png", thinned(story.facts), zone=ZONE, epochs=story.epochs, attribution="SMARD.de")
    pixels = matplotlib.image.imread(path)[..., :3]
    assert pixels.shape[1] == 1875
    bands = [band for band in (pixels[i : i + 115] for i in range(115, 1265, 115)) if len(band) == 115]
    assert all(((band.max(axis=2) - band.min(axis=2)) > 0.3).any() for band in bands)


@pytest.mark.parametrize("case", ["no price", "no renewables", "one tick", "no nodes", "no epochs", "a hole", "nothing drawn"])
def test_an_odd_day_is_drawn_all_the_same(case: str, story: Story, tmp_path: Path) -> None:
    facts, epochs = thinned(story.facts), list(story.epochs)
    ticks = [f for f in facts if isinstance(f, ZoneObserved)]
    match case:
        case "no price":
            facts = [replace(t, signals={}) for t in ticks]
        case "no renewables":
            facts = [replace(t, signals={"price": 4.0}) for t in ticks]
        case "one tick":
            facts = [ticks[0]]
        case "no nodes":
            facts = list(ticks)
        case "no epochs":
            epochs = []
        case "a hole":
            facts = [t for t in ticks if not 6 <= t.at.hour < 12]
        case _:
            facts, epochs = [replace(t, target_w=0.0, drawn_w=0.0, leased_w=0.0) for t in ticks], []
    assert plot(tmp_path / "day.png", facts, zone=ZONE, epochs=epochs).stat().st_size > 20_000


def test_a_day_without_a_control_tick_is_an_error_that_names_the_zone(story: Story, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="zone nowhere"):
        plot(tmp_path / "day.png", story.facts, zone="nowhere", epochs=[])


def test_of_a_large_fleet_some_are_drawn_and_the_rest_is_counted(story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(lanes, "nodes", lambda _axes, strips, *, span, left_out: seen.append((len(strips), left_out)))
    crowd = [NodeJoined(at=DAY, node_id=f"n{i}", zone=ZONE, device="pc", power_w=1.0) for i in range(20)]
    plot(tmp_path / "day.png", [*crowd, *thinned(story.facts)], zone=ZONE, epochs=[])
    assert seen == [(MOST_NODES, 23 - MOST_NODES)]


def test_another_zone_of_the_site_is_neither_drawn_nor_counted(story: Story, tmp_path: Path, figures: list[Figure]) -> None:
    alone = thinned(story.facts)
    both = sorted([*alone, *elsewhere(alone)], key=lambda fact: fact.at)
    for facts, zone in ((alone, ZONE), (both, ZONE), (both, "gb")):
        plot(tmp_path / "day.png", facts, zone=zone, epochs=story.epochs if zone == ZONE else [])
    before, beside, other = figures
    assert words(beside) == words(before)
    assert node_names(beside) == node_names(before) == ["attic-pc", "workshop", "laptop"]
    assert node_names(other) == ["gb-attic-pc", "gb-workshop", "gb-laptop"]
    assert f"{len(crashes(alone)) + 1} crash" in words(other)[1]


def test_of_an_epoch_of_two_days_each_tells_what_fell_into_it(tmp_path: Path, figures: list[Figure]) -> None:
    evening, morning = DAY + timedelta(hours=20), DAY + timedelta(hours=30)
    paused = LeasePaused(
        at=evening + timedelta(hours=2), lease_id="l1", unit_id="u1", job_id=JOB, node_id="attic-pc", zone=ZONE, generation=1,
        reason="no_surplus", power_w=1000.0, step=0,
    )  # fmt: skip
    first = [*half_hours(evening, 1000, 1000, 1000, 1000, 0), paused, *booked(paused.at, paid=20_000, useful=7.2e6)]
    second = [*half_hours(morning, 1000, 1000, 0), *booked(morning + timedelta(hours=1), paid=10_000, useful=1.8e6, wasted=1.8e6)]
    epoch = Epoch(
        job_id=JOB, number=0, started_at=evening, ended_at=second[-1].at, useful_j=9e6, wasted_j=1.8e6, reward_micro=30_000, accuracy=0.9
    )
    plot(tmp_path / "first.png", first, zone=ZONE, epochs=[epoch])
    still_said = [fact for fact in first if not isinstance(fact, ZoneObserved)]
    plot(tmp_path / "second.png", [*still_said, *second], zone=ZONE, epochs=[epoch])
    one, two = figures
    assert "2 kWh drawn, 100% useful   ·   10 ct at spot prices, 2 ct paid to consumers   ·   1 pause," in words(one)[1]
    assert "1 kWh drawn, 50% useful   ·   5 ct at spot prices, 1 ct paid to consumers   ·   0 pauses," in words(two)[1]
    assert words(one)[0].startswith("Nothing was trained to the end")
    assert words(two)[0].startswith("Trained to 90.0% accuracy")
    bars = [[bar for bar in figure.axes[4].patches if isinstance(bar, Rectangle)] for figure in figures]
    assert [sum(bar.get_height() for bar in drawn) for drawn in bars] == pytest.approx([2.0, 1.0])
    assert min(bar.get_x() for bar in bars[1]) == lanes.days(morning)


def test_where_nothing_is_known_the_line_has_a_hole(story: Story) -> None:
    axes = Figure().add_subplot()
    ticks = [f for f in thinned(story.facts) if isinstance(f, ZoneObserved) and not 6 <= f.at.hour < 12]
    ticks[3] = replace(ticks[3], signals={})
    lanes.price(axes, ticks)
    values = np.asarray(axes.lines[-1].get_ydata(), dtype=float)
    assert np.isnan(values).sum() == 2
    assert ticks[-1].at - ticks[0].at > timedelta(hours=23)
