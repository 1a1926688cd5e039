"""The picture is drawn for a whole day and for the odd ones: no price, one tick, a hole, a large fleet. Its looks are for eyes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

from gridsched.core.errors import NotFound
from gridsched.core.facts import Fact, NodeJoined, ZoneObserved
from gridsched.report import lanes
from gridsched.report.day import MOST_NODES, plot
from tests.story import DAY, ZONE, Story, tell


@pytest.fixture(scope="module")
def story() -> Story:
    return tell()


def thinned(facts: Sequence[Fact], every: int = 30) -> list[Fact]:
    """A tick now and then is enough to draw from."""
    return [f for f in facts if not isinstance(f, ZoneObserved) or f.at.minute % every == 0]


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


def test_where_nothing_is_known_the_line_has_a_hole(story: Story) -> None:
    axes = Figure().add_subplot()
    ticks = [f for f in thinned(story.facts) if isinstance(f, ZoneObserved) and not 6 <= f.at.hour < 12]
    ticks[3] = replace(ticks[3], signals={})
    lanes.price(axes, ticks)
    values = np.asarray(axes.lines[-1].get_ydata(), dtype=float)
    assert np.isnan(values).sum() == 2
    assert ticks[-1].at - ticks[0].at > timedelta(hours=23)
