"""A picture of trainings side by side: accuracy against the energy drawn, and against the time since they were submitted."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from gridsched.report import lanes

__all__ = ["plot"]

Json = Mapping[str, Any]

_COLOURS = (lanes.BLUE, lanes.RED, lanes.GREEN, lanes.PURPLE, lanes.ORANGE, lanes.SKY)
_HEIGHT, _WIDTH = 4.6, 11.5
_LONG_H = 2.0


def plot(path: Path, courses: Sequence[Json]) -> Path:
    """Write the picture. ``courses`` are `gridsched.compared.Course` as plain values."""
    figure = Figure(figsize=(_WIDTH, _HEIGHT), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    longest_h = max((point["hours"] for one in courses for point in one["points"]), default=0.0)
    time = ("hours", 1.0, "hours since submission") if longest_h >= _LONG_H else ("hours", 60.0, "minutes since submission")
    for place, (key, factor, unit) in ((0.065, ("energy_wh", 1.0, "Wh drawn")), (0.545, time)):
        axes = figure.add_axes((place, 0.14, 0.42, 0.62))
        lanes.shape(axes, bottom=True)
        for number, one in enumerate(courses):
            _draw(axes, one, key, factor, _COLOURS[number % len(_COLOURS)])
        axes.set_xlabel(unit, color=lanes.MUTED, fontsize=9)
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    words = [(_word(one), _COLOURS[number % len(_COLOURS)]) for number, one in enumerate(courses)]
    figure.text(
        0.024, 1 - 0.30 / _HEIGHT, "Accuracy on held-out samples, by epoch", fontsize=15, fontweight="bold", color=lanes.INK, va="center"
    )
    across = 0.024
    for word, colour in words:
        text = figure.text(across, 1 - 0.62 / _HEIGHT, word, fontsize=10, color=colour, va="center")
        across += text.get_window_extent().width / figure.bbox.width + 0.025
    figure.text(0.976, 0.14 / _HEIGHT, "drawn by gridsched", fontsize=7.5, color=lanes.MUTED, va="center", ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "gridsched", "Title": "Accuracy on held-out samples, by epoch"})
    return path


def _draw(axes: Axes, one: Json, key: str, factor: float, colour: str) -> None:
    points = [point for point in one["points"] if point["accuracy"] is not None]
    if points:
        across, up = [factor * point[key] for point in points], [point["accuracy"] for point in points]
        axes.plot(across, up, color=colour, linewidth=1.6, marker="o", markersize=4)


def _word(one: Json) -> str:
    return f"{one['name']} ({one['method']}" + (f", {one['members']} members by {one['rule']})" if one["rule"] else ")")
