"""The picture of a day: what the grid did, what was allowed and drawn, what each node did, and what came of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, DateFormatter
from matplotlib.figure import Figure

from gridsched.core.errors import NotFound
from gridsched.core.facts import EnergyMetered, Fact, LeaseEnded, LeasePaused, RewardPosted, RewardReversed, ZoneObserved
from gridsched.core.round import Epoch
from gridsched.core.units import MICRO, kwh
from gridsched.report import lanes
from gridsched.report.reading import in_zone
from gridsched.report.strips import Strip, crashes, node_strips, without_gaps
from gridsched.report.worth import drawn

__all__ = ["MOST_NODES", "plot"]

MOST_NODES = 12
"""Strips that fit; of a larger fleet the first ones heard of are drawn and the rest counted."""

_GAP = 0.012
"""Waits shorter than this share of the picture are a few pixels: the moment between two work units."""


def plot(
    path: Path,
    facts: Sequence[Fact],
    *,
    zone: str,
    epochs: Sequence[Epoch],
    attribution: str = "",
    title: str = "",
    timezone: tzinfo = UTC,
) -> Path:
    """Draw ``zone`` over the time that ``facts`` (in order of commit) observed it, as a PNG at ``path``.

    Facts from before, and those of other zones, are neither drawn nor counted. ``epochs`` are the records of one job of the zone; of one
    that reaches beyond that time only what was metered in it is drawn. Without ``title`` the picture says what it found.
    Raises `NotFound` where no control tick of the zone is among the facts. Times are those of ``timezone``.
    """
    own = in_zone(facts, zone)
    observed = [f for f in own if isinstance(f, ZoneObserved)]
    if not observed:
        raise NotFound(f"no control tick of zone {zone} lies in that time; choose another day or zone")
    start, end = observed[0].at, max(observed[-1].at, observed[0].at + timedelta(minutes=1))
    told = node_strips(own, until=end)
    strips = {node_id: _tidy(told[node_id], start, end) for node_id in list(told)[:MOST_NODES]}
    within = [e for e in epochs if e.started_at < end and (e.ended_at is None or e.ended_at > start)]
    shown = [_part(e, own, start, max(end, facts[-1].at)) for e in within]
    figure = Figure(figsize=(12.5, 9.2 + 0.26 * max(0, len(strips) - 3)), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    rows = _rows(figure, len(strips))
    lanes.price(rows[0], observed)
    lanes.share(rows[1], observed)
    lanes.power(rows[2], observed)
    lanes.nodes(rows[3], strips, span=end - start, left_out=len(told) - len(strips))
    lanes.energy(rows[4], shown, until=end)
    lanes.accuracy(rows[5], shown)
    _time_axis(rows, start, end, shown, timezone)
    _words(figure, title or _finding(observed, shown), _subtitle(own, observed, timezone), attribution, timezone)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Software": "gridsched", "Title": title or _finding(observed, shown)})
    return path


def _part(epoch: Epoch, facts: Sequence[Fact], start: datetime, end: datetime) -> Epoch:
    """``epoch`` as far as it lies in ``[start, end]``: what was metered of it there, and no end that was still to come."""
    over = epoch.ended_at is not None and epoch.ended_at <= end
    if over and epoch.started_at >= start:
        return epoch
    whose = (epoch.job_id, epoch.number)
    metered = [f for f in facts if isinstance(f, EnergyMetered) and f.at >= start and (f.job_id, f.epoch) == whose]
    part = replace(
        epoch,
        started_at=max(epoch.started_at, start),
        useful_j=_joules(metered, "useful"),
        wasted_j=_joules(metered, "wasted"),
        idle_j=_joules(metered, "idle"),
    )
    return part if over else replace(part, ended_at=None, loss=None, accuracy=None)


def _joules(metered: Sequence[EnergyMetered], use: str) -> float:
    return sum(f.energy_j for f in metered if f.use == use)


def _tidy(strips: Sequence[Strip], start: datetime, end: datetime) -> list[Strip]:
    """What lies within the picture, without what is too short to be seen."""
    whole = without_gaps(strips, shorter_than=(end - start) * _GAP)
    cut = [strip._replace(start=max(strip.start, start), end=min(strip.end, end)) for strip in whole]
    return [strip for strip in cut if strip.start < strip.end]


def _rows(figure: Figure, nodes: int) -> list[Axes]:
    inches = [1.15, 0.16, 1.75, 0.31 * max(nodes, 1), 1.05, 1.05]
    height = figure.get_size_inches()[1]
    above, below, gaps = 1.0, 0.62, [0.12, 0.42, 0.42, 0.42, 0.42]
    room = height - above - below - sum(gaps)
    scale, top = room / sum(inches), height - above
    axes: list[Axes] = []
    for tall, gap in zip(inches, [*gaps, 0.0], strict=True):
        top -= tall * scale
        axes.append(figure.add_axes((0.115, top / height, 0.855, tall * scale / height)))
        top -= gap
    for one in axes:
        lanes.shape(one, bottom=one is axes[-1])
    return axes


def _time_axis(rows: Sequence[Axes], start: datetime, end: datetime, epochs: Sequence[Epoch], timezone: tzinfo) -> None:
    locator = AutoDateLocator(tz=timezone, minticks=6, maxticks=13)  # type: ignore[no-untyped-call]
    stamp = "%d %b %H:%M" if end - start > timedelta(hours=30) else "%H:%M"
    for axes in rows:
        axes.set_xlim(lanes.days(start), lanes.days(end))
        axes.xaxis.set_major_locator(locator)
        for epoch in epochs:
            if epoch.ended_at is not None and axes is not rows[1]:
                axes.axvline(lanes.days(epoch.ended_at), color=lanes.MUTED, linewidth=0.5, linestyle=(0, (1, 3)), zorder=0.5)
    rows[-1].xaxis.set_major_formatter(DateFormatter(stamp, tz=timezone))  # type: ignore[no-untyped-call]


def _words(figure: Figure, title: str, subtitle: str, attribution: str, timezone: tzinfo) -> None:
    height = figure.get_size_inches()[1]
    figure.text(0.024, 1 - 0.30 / height, title, fontsize=15, fontweight="bold", color=lanes.INK, va="center")
    figure.text(0.024, 1 - 0.58 / height, subtitle, fontsize=10, color=lanes.MUTED, va="center")
    figure.text(0.024, 0.17 / height, attribution, fontsize=7.5, color=lanes.MUTED, va="center")
    figure.text(0.97, 0.17 / height, f"times in {timezone} · drawn by gridsched", fontsize=7.5, color=lanes.MUTED, va="center", ha="right")


def _finding(observed: Sequence[ZoneObserved], epochs: Sequence[Epoch]) -> str:
    power = drawn(observed)
    inside = power.allowed_j / power.energy_j if power.energy_j else 0.0
    known = [e.accuracy for e in epochs if e.accuracy is not None]
    what = f"Trained to {known[-1]:.1%} accuracy" if known else "Nothing was trained to the end"
    return f"{what}, {inside:.0%} of the energy drawn while there was surplus" if power.energy_j else "Nothing was drawn"


def _subtitle(facts: Sequence[Fact], observed: Sequence[ZoneObserved], timezone: tzinfo) -> str:
    """When and where, and what the zone took and did from its first tick on."""
    start = observed[0].at
    before, during = [f for f in facts if f.at < start], [f for f in facts if f.at >= start]
    counts = (
        (sum(isinstance(f, LeasePaused) for f in during), "pause"),
        (sum(isinstance(f, LeaseEnded) and f.state == "handed_over" for f in during), "hand-over"),
        (len(crashes(facts)) - len(crashes(before)), "crash"),
    )
    told = ", ".join(_count(number, word) for number, word in counts)
    began = start.astimezone(timezone)
    when = f"{began:%A, {began.day} %B %Y}, {observed[0].zone}"
    return "   ·   ".join((when, _energy(observed, during), _paid(observed, during), told))


def _energy(observed: Sequence[ZoneObserved], facts: Sequence[Fact]) -> str:
    metered = [f for f in facts if isinstance(f, EnergyMetered)]
    whole_j = sum(f.energy_j for f in metered)
    told = f"{kwh(drawn(observed).energy_j):.3g} kWh drawn"
    return f"{told}, {_joules(metered, 'useful') / whole_j:.0%} useful" if whole_j else told


def _paid(observed: Sequence[ZoneObserved], facts: Sequence[Fact]) -> str:
    power = drawn(observed)
    cost = f"{_money(power.cost_eur * MICRO)} at spot prices" if power.priced_j == power.energy_j else "a spot price is missing"
    paid = sum(f.amount_micro for f in facts if isinstance(f, RewardPosted))
    taken_back = sum(f.amount_micro for f in facts if isinstance(f, RewardReversed))
    return f"{cost}, {_money(paid - taken_back)} paid to consumers"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}{'es' if word.endswith('sh') else 's'}"


def _money(micro: float) -> str:
    text = f"{micro / MICRO:.2f} EUR" if abs(micro) >= MICRO else f"{micro / MICRO * 100:.2g} ct"
    return text.replace("-", "\N{MINUS SIGN}")
