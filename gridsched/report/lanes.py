"""The lanes of a day's picture: each function draws one thing on one axes, over the time axis they all share."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import zip_longest
from statistics import median

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea
from numpy.typing import NDArray

from gridsched.core.facts import ZoneObserved
from gridsched.core.round import Epoch
from gridsched.report.strips import NodeState, Strip

__all__ = ["INK", "MUTED", "accuracy", "days", "energy", "heading", "nodes", "power", "price", "shape", "share"]

# Okabe and Ito's colours (jfly.uni-koeln.de/color), which people with any kind of colour vision tell apart; text is darkened.
INK, MUTED, HAIR = "#222222", "#767676", "#E6E6E6"
BLUE, SKY, GREEN, ORANGE, RED, PURPLE = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#9A4C7B"
PALE_GREEN, PALE_PURPLE, GREY = "#CDEBE1", "#EBD3E1", "#B5B5B5"

STATE_COLOUR: Mapping[NodeState, str] = {
    NodeState.WORKING: BLUE,
    NodeState.PAUSED: ORANGE,
    NodeState.WAITING: "#DCE7EE",
    NodeState.OPTED_OUT: GREY,
    NodeState.CRASHED: RED,
    NodeState.ABSENT: "#FFFFFF",
}
STATE_INK: Mapping[NodeState, str] = {NodeState.WORKING: "white", NodeState.CRASHED: "white"}

Words = Sequence[tuple[str, str]]
_Series = tuple[NDArray[np.float64], NDArray[np.float64]]


def days(moment: datetime) -> float:
    """``moment`` on matplotlib's time axis, in days."""
    return float(date2num(moment))  # type: ignore[no-untyped-call]


def shape(axes: Axes, *, bottom: bool = False) -> None:
    """The quiet frame that every lane has."""
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(MUTED if bottom else HAIR)
    axes.tick_params(axis="both", colors=MUTED, labelsize=8.5, length=0)
    axes.tick_params(axis="x", labelbottom=bottom, length=3 if bottom else 0)
    axes.grid(axis="y", color=HAIR, linewidth=0.7)
    axes.set_axisbelow(True)


def heading(axes: Axes, title: str, words: Words = ()) -> None:
    """The lane's title, and beside it a legend in words, each in the colour of what it names."""
    parts: list[Artist] = [TextArea(title, textprops={"color": INK, "fontsize": 10, "fontweight": "bold"})]
    parts += [TextArea(word, textprops={"color": colour, "fontsize": 9}) for word, colour in words]
    box = HPacker(children=parts, align="baseline", pad=0, sep=11)
    axes.add_artist(
        AnchoredOffsetbox(
            "lower left", child=box, pad=0, frameon=False, bbox_to_anchor=(0, 1.0), bbox_transform=axes.transAxes, borderpad=0.35
        )
    )


def _series(observed: Sequence[ZoneObserved], value_of: Callable[[ZoneObserved], float | None]) -> _Series:
    """Times (matplotlib's days) and values, with a hole wherever nothing is known: unknown is not zero."""
    times = np.array([days(o.at) for o in observed])
    values = np.array([np.nan if (v := value_of(o)) is None else v for o in observed], dtype=np.float64)
    if len(times) < 3:
        return times, values
    steps = np.diff(times)
    holes = np.flatnonzero(steps > 3 * median(steps)) + 1
    return np.insert(times, holes, times[holes - 1]), np.insert(values, holes, np.nan)


def price(axes: Axes, observed: Sequence[ZoneObserved]) -> None:
    """The price in EUR/MWh, shaded where it is negative."""
    times, values = _series(observed, lambda o: o.signals.get("price"))
    axes.axhline(0, color=MUTED, linewidth=0.8)
    axes.fill_between(times, values, 0, where=list(values < 0), step="post", color=PALE_PURPLE, linewidth=0)
    axes.step(times, values, where="post", color=PURPLE, linewidth=1.6)
    negative = bool(np.nanmin(values, initial=0.0) < 0)
    words = [("EUR/MWh", MUTED), *([("shaded where the grid pays", PURPLE)] if negative else [])]
    renewable = [s for o in observed if (s := o.signals.get("renewable_share")) is not None]
    if renewable:
        words.append((f"band: {100 * min(renewable):.0f} to {max(renewable):.0%} renewable", "#3C8D53"))
    heading(axes, "Price", words)
    axes.margins(y=0.12)


def share(axes: Axes, observed: Sequence[ZoneObserved]) -> None:
    """The share of renewables as a thin band, the greener the more."""
    times, values = _series(observed, lambda o: o.signals.get("renewable_share"))
    edges = np.append(times, times[-1] + (times[-1] - times[-2] if len(times) > 1 else 1 / 24))
    axes.pcolormesh(edges, [0, 1], np.ma.masked_invalid(values)[np.newaxis, :], cmap="Greens", vmin=0.2, vmax=0.9, rasterized=True)
    axes.set_yticks([])


def power(axes: Axes, observed: Sequence[ZoneObserved]) -> None:
    """Target, leased and drawn power in watts, over the surplus where it is of the same size."""
    times, target = _series(observed, lambda o: o.target_w)
    _, surplus = _series(observed, lambda o: o.signals.get("surplus"))
    words: list[tuple[str, str]] = []
    scale, unit = (1000.0, "kW") if np.nanmax(target, initial=0.0) >= 10_000 else (1.0, "W")
    if 0 < np.nanmax(surplus, initial=0.0) <= 5 * max(np.nanmax(target, initial=0.0), 1.0):
        axes.fill_between(times, np.maximum(surplus, 0) / scale, 0, step="post", color=PALE_GREEN, linewidth=0)
        words.append(("surplus", GREEN))
    drawn = _series(observed, lambda o: o.drawn_w)[1] / scale
    leased = _series(observed, lambda o: o.leased_w)[1] / scale
    axes.fill_between(times, drawn, 0, step="post", color=BLUE, alpha=0.55, linewidth=0)
    axes.step(times, leased, where="post", color=BLUE, linewidth=0.9)
    axes.step(times, target / scale, where="post", color=INK, linewidth=1.5)
    axes.set_ylim(bottom=0)
    axes.margins(y=0.1)
    heading(axes, "Power", [(unit, MUTED), *words, ("target", INK), ("leased (line) and drawn (area)", BLUE)])


def nodes(axes: Axes, strips: Mapping[str, Sequence[Strip]], *, span: timedelta, left_out: int = 0) -> None:
    """One strip per node, coloured by state; the reason is written where it fits. ``left_out`` nodes found no room."""
    seen: set[NodeState] = set()
    for row, node_id in enumerate(strips):
        for strip in strips[node_id]:
            seen.add(strip.state)
            _strip(axes, row, strip, span)
    axes.set_ylim(max(len(strips), 1) - 0.5, -0.5)
    axes.set_yticks(range(len(strips)), list(strips))
    axes.tick_params(axis="y", labelcolor=INK)
    axes.grid(visible=False)
    readable = {NodeState.WAITING: "#6F8FA3", NodeState.ABSENT: MUTED, NodeState.OPTED_OUT: MUTED, NodeState.PAUSED: "#A87400"}
    words = [(state.value, readable.get(state, STATE_COLOUR[state])) for state in NodeState if state in seen]
    heading(axes, "Nodes", [*words, (f"and {left_out} more nodes", MUTED)] if left_out else words)


def _strip(axes: Axes, row: int, strip: Strip, span: timedelta) -> None:
    start, width = days(strip.start), days(strip.end) - days(strip.start)
    edge = GREY if strip.state is NodeState.ABSENT else "none"
    axes.barh(row, width, left=start, height=0.68, color=STATE_COLOUR[strip.state], edgecolor=edge, linewidth=0.6)
    says = _says(strip)
    if says and (strip.end - strip.start) / span > 0.0085 * len(says):
        ink = STATE_INK.get(strip.state, INK)
        axes.text(start + width / 2, row, says, ha="center", va="center_baseline", fontsize=8, color=ink)


def _says(strip: Strip) -> str:
    words = {NodeState.PAUSED: strip.reason, NodeState.CRASHED: "crashed", NodeState.OPTED_OUT: "opted out", NodeState.ABSENT: "absent"}
    return words.get(strip.state, "").replace("_", " ")


def energy(axes: Axes, epochs: Sequence[Epoch], *, until: datetime) -> None:
    """A stacked bar for each epoch: useful, wasted and idle energy.

    An epoch ends when it has been evaluated, and the next one does not wait for that: a bar is as wide as it took the next to begin.
    """
    scale, unit = (3.6e6, "kWh") if max((_whole_j(e) for e in epochs), default=0.0) >= 3.6e6 else (3600.0, "Wh")
    for epoch, after in zip_longest(epochs, epochs[1:]):
        ended = epoch.ended_at or until
        start, end = days(epoch.started_at), days(min(ended, after.started_at) if after is not None else ended)
        bottom = 0.0
        for joules, colour in ((epoch.useful_j, GREEN), (epoch.wasted_j, RED), (epoch.idle_j, GREY)):
            axes.bar(start, joules / scale, width=end - start, bottom=bottom, align="edge", color=colour, edgecolor="white", linewidth=1.2)
            bottom += joules / scale
        if bottom:
            axes.text(
                (start + end) / 2, bottom / 2, str(epoch.number), ha="center", va="center", color="white", fontsize=9, fontweight="bold"
            )
    axes.margins(y=0.08)
    heading(
        axes,
        "Energy per epoch",
        [(unit, MUTED), ("each as wide as it took the next to begin:", MUTED), ("useful", "#007A59"), ("wasted", RED), ("idle", MUTED)],
    )


def accuracy(axes: Axes, epochs: Sequence[Epoch]) -> None:
    """Accuracy on held-out samples at the end of each epoch, the first and the last one in figures."""
    known = [(e.ended_at, e.accuracy) for e in epochs if e.ended_at is not None and e.accuracy is not None]
    heading(axes, "Accuracy", [("held-out samples, at the end of each epoch", MUTED)])
    if not known:
        axes.set_yticks([])
        return
    times, values = [days(at) for at, _ in known], [100 * value for _, value in known]
    axes.plot(times, values, color=BLUE, linewidth=1.6, marker="o", markersize=4.5, markeredgecolor="white")
    low = min(values)
    axes.set_ylim(max(0.0, low - 8), 104)
    axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:.0f}%")
    labels = {0: (-15, "left"), len(known) - 1: (6, "right")}  # the last one may lie on the picture's edge; an only one is told once
    for number, (above, side) in labels.items():
        label, place = f"{values[number]:.1f}%", (times[number], values[number])
        axes.annotate(label, place, xytext=(0, above), textcoords="offset points", ha=side, color=BLUE, fontsize=9.5, fontweight="bold")


def _whole_j(epoch: Epoch) -> float:
    return epoch.useful_j + epoch.wasted_j + epoch.idle_j
