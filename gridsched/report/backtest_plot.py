"""The backtest as a picture: one ordinary week with the hours that each way chose, and what was captured month by month."""

from calendar import month_abbr
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import DateFormatter, DayLocator
from matplotlib.figure import Figure
from numpy.typing import NDArray

from gridsched.core.signal import UNIT, SignalKind
from gridsched.report import lanes
from gridsched.report.backtest import Record, Task, Week, outlook, planned, with_foresight
from gridsched.report.captured import AT_ONCE, ORACLE, OURS, Replayed
from gridsched.report.rules import rules_of

__all__ = ["plot", "typical"]

Mask = NDArray[np.bool_]

_ROWS = (ORACLE, OURS, "mean_of_four_weeks", "quantile_threshold", "cheapest_of_each_day", AT_ONCE)
_SHOWN = {ORACLE: "perfect foresight", OURS: "gridsched"}
_COLOURS = {ORACLE: lanes.INK, OURS: lanes.BLUE, "mean_of_four_weeks": lanes.PURPLE, "quantile_threshold": lanes.ORANGE}
_MOST_MONTHS = 18


def plot(
    path: Path,
    document: Mapping[str, Any],
    rec: Record,
    task: Task,
    found: Sequence[Week],
    replayed: Sequence[Replayed],
    attribution: str = "",
) -> Path:
    """Draw ``document`` (of `captured.document`) as a PNG at ``path``, with a week in which as much was captured as usual."""
    figure = Figure(figsize=(12.5, 8.2), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    height = figure.get_size_inches()[1]
    boxes = ((5.1, 1.95), (3.2, 1.45), (0.75, 1.6))
    axes = [figure.add_axes((0.135, bottom / height, 0.835, tall / height)) for bottom, tall in boxes]
    week = typical(found, replayed)
    _signal(axes[0], rec, week)
    _hours(axes[1], rec, week, _chosen(rec, task, week))
    _over_the_week(axes[:2], rec, week)
    _bars(axes[2], document)
    title = _title(document)
    figure.text(0.024, 1 - 0.32 / height, title, fontsize=15, fontweight="bold", color=lanes.INK, va="center")
    figure.text(0.024, 1 - 0.62 / height, _subtitle(document), fontsize=10, color=lanes.MUTED, va="center")
    figure.text(0.024, 0.17 / height, attribution, fontsize=7.5, color=lanes.MUTED, va="center")
    note = f"times in {rec.calendar.timezone} · drawn by gridsched"
    figure.text(0.97, 0.17 / height, note, fontsize=7.5, color=lanes.MUTED, va="center", ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "gridsched", "Title": title})
    return path


def typical(found: Sequence[Week], replayed: Sequence[Replayed]) -> Week:
    """The week with much to gain in which the schedule captured a share next to the middle one."""
    gain = np.array([week[AT_ONCE].cost - week[ORACLE].cost for week in replayed])
    share = np.array([(week[AT_ONCE].cost - week[OURS].cost) / max(g, 1e-9) for week, g in zip(replayed, gain, strict=True)])
    much = gain >= np.median(gain)
    far = np.where(much, np.abs(share - np.median(share[much])), np.inf)
    return found[int(np.argmin(far))]


def _chosen(rec: Record, task: Task, week: Week) -> dict[str, Mask]:
    effort, plain = task.effort(rec.grid.slot, rec.policy), task.effort(rec.grid.slot)
    masks = {OURS: planned(rec, week, effort, outlook(rec, effort)), ORACLE: with_foresight(rec, week, effort)}
    return {**masks, **{name: rule(rec, task, week, plain) for name, rule in rules_of(rec.signal).items() if name in _ROWS}}


def _signal(axes: Axes, rec: Record, week: Week) -> None:
    lanes.shape(axes)
    times = [lanes.days(rec.grid.time(slot)) for slot in range(week.start, week.end + 1)]
    values = rec.grid.values[week.start : week.end]
    unit, scale = UNIT[rec.signal], 1.0
    if unit == "W":
        scale, unit = next(((s, u) for s, u in ((1e9, "GW"), (1e6, "MW"), (1e3, "kW")) if np.nanmax(np.abs(values)) >= s), (1.0, "W"))
    values = np.append(values, values[-1:]) / scale
    low = float(np.nanmin(values, initial=0.0))
    axes.step(times, values, where="post", color=lanes.PURPLE, linewidth=1.5)
    if low < 0:
        axes.fill_between(times, values, 0, where=list(values < 0), step="post", color=lanes.PALE_PURPLE, linewidth=0)
        axes.axhline(0, color=lanes.MUTED, linewidth=0.8)
    axes.margins(y=0.1)
    first = rec.date(week.day)
    name = str(rec.signal).replace("_", " ").capitalize()
    lanes.heading(axes, name, [(unit, lanes.MUTED), (f"an ordinary week, from {first:%A}, {first.day} {first:%B %Y}", lanes.MUTED)])


def _hours(axes: Axes, rec: Record, week: Week, chosen: Mapping[str, Mask]) -> None:
    lanes.shape(axes, bottom=True)
    width = rec.grid.slot / timedelta(days=1)
    for row, name in enumerate(_ROWS):
        spans = [(lanes.days(rec.grid.time(week.start + begin)), (end - begin) * width) for begin, end in _spans(chosen[name])]
        axes.broken_barh(spans, (row - 0.34, 0.68), color=_COLOURS.get(name, lanes.GREY), linewidth=0)
    axes.set_ylim(len(_ROWS) - 0.5, -0.5)
    axes.set_yticks(range(len(_ROWS)), [_name(name) for name in _ROWS])
    axes.tick_params(axis="y", labelcolor=lanes.INK)
    axes.grid(visible=False)
    lanes.heading(axes, "Hours chosen")


def _spans(ran: Mask) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], ran.astype(np.int8), [0]])))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _over_the_week(rows: Sequence[Axes], rec: Record, week: Week) -> None:
    zone = ZoneInfo(rec.calendar.timezone)
    start, end = rec.grid.time(week.start), rec.grid.time(week.end)
    for axes in rows:
        axes.set_xlim(lanes.days(start), lanes.days(end))
        axes.xaxis.set_major_locator(DayLocator(tz=zone))  # type: ignore[no-untyped-call]
        axes.grid(axis="x", color=lanes.HAIR, linewidth=0.7)
    rows[-1].xaxis.set_major_formatter(DateFormatter("%a %d", tz=zone))  # type: ignore[no-untyped-call]


def _bars(axes: Axes, document: Mapping[str, Any]) -> None:
    parts = document["months"] if len(document["months"]) <= _MOST_MONTHS else document["quarters"]
    lanes.shape(axes, bottom=True)
    names = (OURS, "mean_of_four_weeks", "quantile_threshold")
    places = np.arange(len(parts))
    for number, name in enumerate(names):
        shares = [100 * (_of(part, name)["captured"] or 0.0) for part in parts.values()]
        axes.bar(places + (number - 1) * 0.27, shares, width=0.25, color=_COLOURS[name])
    axes.axhline(100, color=lanes.INK, linewidth=0.9)
    axes.axhline(0, color=lanes.MUTED, linewidth=0.8)
    axes.set_ylim(bottom=max(axes.get_ylim()[0], -60), top=106)
    axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:.0f}%")
    axes.set_xticks(places, [_part(name) for name in parts])
    axes.set_xlim(-0.6, len(parts) - 0.4)
    words = [("of what perfect foresight saves over running at once", lanes.MUTED), *((_name(name), _COLOURS[name]) for name in names)]
    lanes.heading(axes, "Captured", words)


def _of(part: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = part if name == OURS else part["oracle"] if name == ORACLE else part["rules"][name]
    return found


def _part(name: str) -> str:
    """``2025-03`` as Mar, ``2025-Q1`` as Q1, each above its year."""
    year, _, rest = name.partition("-")
    return f"{rest if rest.startswith('Q') else month_abbr[int(rest)]}\n{year}"


def _name(name: str) -> str:
    return _SHOWN.get(name, name.replace("_", " "))


def _title(document: Mapping[str, Any]) -> str:
    share, rules = document["captured"], document["rules"]
    if share is None:
        return "Nothing could be saved by waiting"
    threshold = rules["quantile_threshold"]["captured"]
    beside = "" if threshold is None else f", a price threshold {threshold:.0%}"
    return f"The schedule captures {share:.0%} of what perfect foresight would save{beside}"


def _subtitle(document: Mapping[str, Any]) -> str:
    what = f"{document['hours_per_week']:g} h each, {document['restart_waste_minutes']:g} min lost at a start"
    when = f"{document['weeks']} weeks from {document['from']} to {document['to']}"
    told = [when, what, f"{document['starts_per_week']:.1f} starts a week", _count(document["deadline_misses"])]
    if document["objective"] == SignalKind.PRICE:
        ours, best, at_once = (_of(document, name)["cost_eur_per_useful_mwh"] for name in (OURS, ORACLE, AT_ONCE))
        told.append(f"{ours:.1f} EUR/MWh (at once {at_once:.1f}, at best {best:.1f})")
    return "   ·   ".join(told)


def _count(misses: int) -> str:
    return "no deadline missed" if not misses else f"{misses} deadline{'s' if misses > 1 else ''} missed"
