"""Pictures of what lies ahead, and of what was around a decision; drawn from the daemon's own answers."""

from collections.abc import Mapping, Sequence
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure

from gridsched.core.policy import Tier
from gridsched.report import lanes

__all__ = ["plot_decision", "plot_forecast", "plot_schedule"]

Json = Mapping[str, Any]

_TIER = {Tier.SURPLUS.value: lanes.GREEN, Tier.TOP_UP.value: lanes.ORANGE, Tier.NONE.value: lanes.GREY}


def plot_forecast(path: Path, told: Json) -> Path:
    """Known slots as a line, then the mean and the band of those to come. ``told`` is the answer of ``/v1/zones/Z/forecast``."""
    figure, [axes] = _figure([3.1])
    zone = ZoneInfo(told["timezone"])
    _outlook(axes, told)
    _time_axis([axes], _when(told["known"][0]["start"]), _end(told), zone)
    learned = f"learned from {told['learned_days']} days" if told["learned_days"] else "no past days are known: the mean of the known slots"
    subtitle = f"known until {_when(told['known_until']).astimezone(zone):%a %d %b %H:%M}   ·   {learned}"
    return _save(figure, path, f"{_name(told['signal'])} in {told['zone']}: what is known, and what may come", subtitle, zone)


def plot_schedule(path: Path, told: Json) -> Path:
    """A job's hours over the objective that they were chosen by. ``told`` is the answer of ``/v1/jobs/J/schedule``."""
    figure, [axes, hours] = _figure([2.7, 0.5])
    if told.get("known"):
        _outlook(axes, told)
        start, end = _when(told["known"][0]["start"]), _end(told)
    else:
        start, end = _when(told["now"]), _when(told["deadline"] or told["now"])
    for run in told["hours"]:
        low, high = lanes.days(_when(run["start"])), lanes.days(_when(run["end"]))
        hours.axvspan(low, high, color=lanes.BLUE, linewidth=0)
        axes.axvspan(low, high, color=lanes.BLUE, alpha=0.12, linewidth=0)
    hours.set_yticks([])
    lanes.heading(
        hours,
        "Works",
        [("in the hours chosen", lanes.BLUE), ("later ones follow once their prices are known", lanes.MUTED), ("deadline", lanes.RED)],
    )
    for one in (axes, hours):
        one.axvline(lanes.days(_when(told["now"])), color=lanes.INK, linewidth=0.8)
        if told["deadline"] and _when(told["deadline"]) <= end:
            one.axvline(lanes.days(_when(told["deadline"])), color=lanes.RED, linewidth=2)
    _time_axis([axes, hours], start, end, ZoneInfo("UTC"))
    due = f"due {_when(told['deadline']):%a %d %b %H:%M}" if told["deadline"] else "no deadline"
    expected = "" if told.get("expected") is None else f"   ·   {told['expected']:.3g} {told['unit']} expected on average"
    work = "" if told.get("work_s") is None else f"   ·   {told['work_s'] / 3600:.3g} h of work left"
    return _save(figure, path, f"When job {told['job_id']} works", f"{due}{work}{expected}   ·   {_words(told['timing'])}", ZoneInfo("UTC"))


def plot_decision(path: Path, told: Json) -> Path:
    """The target around a decision, over the price. ``told`` is the answer of ``/v1/zones/Z/explain``."""
    decision = told["decision"]
    figure, [price, target] = _figure([1.5, 1.7])
    start, end = _when(told["start"]), _when(told["end"])
    _slots(price, told["signals"]["price"]["slots"])
    lanes.heading(price, "Price", [("EUR/MWh", lanes.MUTED)])
    _target(target, told["decisions"], end=max(_when(told["decisions"][-1]["decided_at"]), _when(decision["decided_at"])))
    for one in (price, target):
        one.axvline(lanes.days(_when(decision["decided_at"])), color=lanes.RED, linewidth=1.2)
    _time_axis([price, target], start, end, ZoneInfo("UTC"))
    title = f"{decision['target_w']:.0f} W at {_when(decision['decided_at']):%H:%M}, because of: {_words(decision['reason'])}"
    return _save(
        figure,
        path,
        title,
        f"{_when(decision['decided_at']):%A, %d %B %Y}, {decision['zone']}   ·   {decision['detail']}"[:150],
        ZoneInfo("UTC"),
    )


def _outlook(axes: Axes, told: Json) -> None:
    known, coming = told["known"], told["coming"]
    step = _when(known[1]["start"]) - _when(known[0]["start"]) if len(known) > 1 else None
    times = [lanes.days(_when(row["start"])) for row in known]
    values = [np.nan if row["value"] is None else row["value"] for row in known]
    last = (
        lanes.days(_when(coming[0]["start"]))
        if coming
        else times[-1] + (lanes.days(_when(known[1]["start"])) - times[0] if step else 1 / 24)
    )
    axes.axhline(0, color=lanes.MUTED, linewidth=0.8)
    axes.step([*times, last], [*values, values[-1]], where="post", color=lanes.PURPLE, linewidth=1.6)
    words = [(told["unit"], lanes.MUTED), ("known", lanes.PURPLE)]
    if coming:
        ahead = [*(lanes.days(_when(row["start"])) for row in coming), lanes.days(_end(told))]
        low, high, mean = ([*(row[name] for row in coming), coming[-1][name]] for name in ("low", "high", "mean"))
        axes.fill_between(ahead, low, high, step="post", color=lanes.PALE_PURPLE, linewidth=0)
        axes.step(ahead, mean, where="post", color=lanes.PURPLE, linewidth=1.1, linestyle=(0, (3, 2)))
        words += [("expected (dashed), and where four of five values lie (band)", lanes.PURPLE)]
    lanes.heading(axes, _name(told.get("signal") or told["objective"]), words)
    axes.margins(y=0.1)


def _slots(axes: Axes, slots: Sequence[Json]) -> None:
    if not slots:
        axes.text(0.5, 0.5, "not known", transform=axes.transAxes, color=lanes.MUTED, ha="center", va="center")
        return
    times = [lanes.days(_when(slot["start"])) for slot in slots]
    values = [slot["value"] for slot in slots]
    axes.axhline(0, color=lanes.MUTED, linewidth=0.8)
    axes.step([*times, lanes.days(_when(slots[-1]["end"]))], [*values, values[-1]], where="post", color=lanes.PURPLE, linewidth=1.6)
    axes.margins(y=0.12)


def _target(axes: Axes, decisions: Sequence[Json], *, end: datetime) -> None:
    """The target as an area, coloured by where its energy comes from."""
    ends = [*(_when(later["decided_at"]) for later in decisions[1:]), end]
    for decision, until in zip(decisions, ends, strict=True):
        low, high = lanes.days(_when(decision["decided_at"])), lanes.days(until)
        axes.fill_between([low, high], decision["target_w"], 0, color=_TIER[decision["tier"]], linewidth=0)
    seen = {decision["tier"] for decision in decisions if decision["target_w"] > 0}
    axes.set_ylim(0, max(1.0, *(decision["target_w"] for decision in decisions)) * 1.1)
    words = [(_words(tier), colour) for tier, colour in _TIER.items() if tier in seen]
    lanes.heading(axes, "Target", [("W", lanes.MUTED), *words])


def _figure(inches: Sequence[float]) -> tuple[Figure, list[Axes]]:
    above, below, gap = 1.0, 0.62, 0.42
    height = above + below + sum(inches) + gap * (len(inches) - 1)
    figure = Figure(figsize=(12.5, height), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes, top = [], height - above
    for number, tall in enumerate(inches):
        axes.append(figure.add_axes((0.065, (top - tall) / height, 0.885, tall / height)))
        lanes.shape(axes[-1], bottom=number == len(inches) - 1)
        top -= tall + gap
    return figure, axes


def _time_axis(rows: Sequence[Axes], start: datetime, end: datetime, zone: tzinfo) -> None:
    locator = AutoDateLocator(tz=zone, minticks=5, maxticks=11)  # type: ignore[no-untyped-call]
    for axes in rows:
        axes.set_xlim(lanes.days(start), lanes.days(end + (end - start) / 100))
        axes.xaxis.set_major_locator(locator)
    rows[-1].xaxis.set_major_formatter(DateFormatter("%a %d %b %H:%M", tz=zone))  # type: ignore[no-untyped-call]
    for label in rows[-1].get_xticklabels():
        label.set_fontsize(8)


def _save(figure: Figure, path: Path, title: str, subtitle: str, zone: tzinfo) -> Path:
    height = figure.get_size_inches()[1]
    figure.text(0.024, 1 - 0.30 / height, title, fontsize=15, fontweight="bold", color=lanes.INK, va="center")
    figure.text(0.024, 1 - 0.58 / height, subtitle, fontsize=10, color=lanes.MUTED, va="center")
    figure.text(0.97, 0.17 / height, f"times in {zone} · drawn by gridsched", fontsize=7.5, color=lanes.MUTED, va="center", ha="right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "gridsched", "Title": title})
    return path


def _end(told: Json) -> datetime:
    rows = told["coming"] or told["known"]
    first = told["known"]
    step = _when(rows[1]["start"]) - _when(rows[0]["start"]) if len(rows) > 1 else _when(told["now"]) - _when(first[0]["start"])
    return _when(rows[-1]["start"]) + step


def _when(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _name(signal: str) -> str:
    return _words(signal).capitalize()


def _words(name: str) -> str:
    return name.replace("_", " ")
