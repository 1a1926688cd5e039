"""A study's results as files: a table that a README can hold, all figures as JSON, and a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from gridsched.report import lanes

__all__ = ["Line", "Panel", "draw", "markdown", "write"]

_COLOURS = (lanes.BLUE, lanes.RED, lanes.GREEN, lanes.PURPLE, lanes.ORANGE, lanes.SKY, lanes.MUTED)
_LETTERS_AN_INCH = 14.0
_LEGEND_LINE = 0.17  # inches
_STYLES = ("o-", "s-", "^-", "D-", "v-", "P-", "X-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """``y`` over ``x``; with ``x`` empty, one value that holds all along. None in ``y`` is a gap."""

    name: str
    y: Sequence[float | None]
    x: Sequence[float] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """Some lines over one axis. ``log`` for an x axis whose values are multiples of one another; ``ticks`` name the places 0, 1, 2 ..."""

    title: str
    x_title: str
    lines: Sequence[Line]
    log: bool = False
    percent: bool = False
    ticks: Sequence[str] = ()


def markdown(rows: Sequence[Mapping[str, str]]) -> str:
    """``rows`` of the same keys as a table; numbers are right-aligned by whoever shows it."""
    names = list(rows[0])
    head = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
    return "\n".join(head + ["| " + " | ".join(row[name] for name in names) + " |" for row in rows]) + "\n"


def write(folder: Path, name: str, document: Mapping[str, Any], rows: Sequence[Mapping[str, str]], panels: Sequence[Panel]) -> list[Path]:
    """``NAME.md``, ``NAME.json`` and ``NAME.png`` in ``folder``; where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    table, figures = folder / f"{name}.md", folder / f"{name}.json"
    table.write_text(f"# {document['title']}\n\n{document['about']}\n\n{markdown(rows)}", encoding="utf-8")
    figures.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    return [table, figures, draw(folder / f"{name}.png", str(document["title"]), str(document["about"]), panels)]


def draw(path: Path, title: str, about: str, panels: Sequence[Panel]) -> Path:
    """The panels side by side as a PNG."""
    width = max(4.6 * len(panels) + 0.6, 7.0)
    height = 4.9 + _LEGEND_LINE * max(0, max(len(panel.lines) for panel in panels) - 4)
    figure = Figure(figsize=(width, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    figure.text(0.02, 1 - 0.22 / height, title, fontsize=14, fontweight="bold", color=lanes.INK, va="center")
    figure.text(0.02, 1 - 0.42 / height, "\n".join(wrap(about, int(_LETTERS_AN_INCH * width))), fontsize=8.5, color=lanes.MUTED, va="top")
    found = figure.subplots(1, len(panels), squeeze=False)[0]
    figure.subplots_adjust(left=0.07, right=0.985, bottom=1 - 3.58 / height, top=1 - 1.08 / height, wspace=0.28)
    for axes, panel in zip(found, panels, strict=True):
        _panel(axes, panel)
    figure.savefig(path, metadata={"Software": "gridsched", "Title": title})
    return path


def _panel(axes: Axes, panel: Panel) -> None:
    lanes.shape(axes, bottom=True)
    lanes.heading(axes, panel.title)
    if panel.log:
        axes.set_xscale("log")
    scale = 100.0 if panel.percent else 1.0
    ticks = sorted({x for line in panel.lines for x in line.x})
    for place, line in enumerate(panel.lines):
        colour = _COLOURS[place % len(_COLOURS)]
        if line.x:
            values = [float("nan") if y is None else y * scale for y in line.y]
            axes.plot(line.x, values, _STYLES[place % len(_STYLES)], color=colour, linewidth=1.6, markersize=4.5, label=line.name)
        elif line.y[0] is not None:
            axes.axhline(line.y[0] * scale, color=colour, linewidth=1.3, linestyle=(0, (5, 3)), label=line.name)
    if ticks:
        axes.set_xticks(ticks, panel.ticks or [f"{x:g}" for x in ticks])
        axes.minorticks_off()
    axes.set_xlabel(panel.x_title, fontsize=9, color=lanes.MUTED)
    axes.margins(y=0.15)
    low, high = axes.get_ylim()
    axes.set_ylim(bottom=low if panel.percent else 0.0, top=min(high, 100.5) if panel.percent else high)
    axes.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.17), labelcolor=lanes.INK)
