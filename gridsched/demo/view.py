"""The live view: one `Scene` as a rich renderable. Nothing here knows where a scene comes from."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from gridsched.core.round import Epoch
from gridsched.core.units import MICRO, kwh
from gridsched.demo.scene import BERLIN, Line, NodeRow, Scene, clock_time, short_unit
from gridsched.demo.spark import bar, begun_columns, by_column, strip

__all__ = ["MOODS", "epoch_table", "render"]

LINES = 6
_UPPER_LINES = 18
MOODS: Mapping[str, str] = MappingProxyType({"good": "green", "bad": "bright_red", "plain": "default"})
_DIM = "grey58"
_TITLE = "bold bright_white"
_SURPLUS, _PRICE, _NEGATIVE, _TARGET, _DRAWN = "green", "yellow", "bright_cyan", "blue", "bright_magenta"
_STATES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "working": ("● working", "green"),
        "starting": ("◌ starting", "yellow"),
        "paused": ("‖ paused", "yellow"),
        "available": ("○ waiting", "default"),
        "no_surplus": ("○ waiting", "default"),
        "opted_out": ("◇ opted out", "bright_red"),
        "absent": ("✕ gone", "bright_red"),
    }
)
_WHY: Mapping[str, str] = MappingProxyType(
    {
        "accepted": "there is surplus",
        "surplus_back": "surplus is back",
        "planned": "offered a unit",
        "no_surplus": "no surplus",
        "target_lowered": "less surplus now",
        "opted_out": "its owner said no",
        "absent": "not heard of now",
        "available": "waits for its turn",
    }
)


def render(scene: Scene, *, width: int = 100, height: int = 40) -> RenderableType:
    """The whole screen, ``width`` columns wide; on a screen of few lines the log is the first to shrink."""
    upper = [_day(scene, width), _nodes(scene, width), _training(scene, width)]
    left = height - _UPPER_LINES - len(scene.nodes) - 3
    return Group(*upper, *([_log(scene, width, lines=min(left, LINES))] if left > 0 else []))


def _panel(body: RenderableType, title: str, width: int) -> Panel:
    return Panel(body, title=title, title_align="left", border_style="grey42", padding=(0, 1), width=width)


def _day(scene: Scene, width: int) -> Panel:
    columns = width - 27
    latest, top_w = scene.latest, _top_w(scene)
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(width=8, style=_DIM)
    grid.add_column(width=12, justify="right")
    grid.add_column(width=columns, no_wrap=True)
    price = latest.price_eur_mwh if latest else None
    grid.add_row("price", _amount(price, "€/MWh", 2), _strip(scene, "price_eur_mwh", columns, top=22.0, colour=_PRICE))
    grid.add_row(
        "surplus", _amount(latest.surplus_w if latest else None, "W"), _strip(scene, "surplus_w", columns, top=top_w, colour=_SURPLUS)
    )
    grid.add_row("drawn", _amount(latest.drawn_w if latest else None, "W"), _strip(scene, "drawn_w", columns, top=top_w, colour=_DRAWN))
    grid.add_row("", _clock(scene), _hours(scene, columns))
    grid.add_row(
        "may draw",
        _amount(latest.target_w if latest else None, "W"),
        bar(latest.target_w if latest else 0, top=top_w, width=columns, colour=_TARGET),
    )
    grid.add_row(
        "draws",
        _amount(latest.drawn_w if latest else None, "W"),
        bar(latest.drawn_w if latest else 0, top=top_w, width=columns, colour=_DRAWN),
    )
    because = Text.assemble(("because  ", _DIM), scene.detail or "the first decision is yet to come", no_wrap=True, overflow="ellipsis")
    local = scene.now.astimezone(BERLIN)
    title = f"[{_TITLE}]gridsched  {local:%A} {local.day} {local:%B %Y}[/] [{_DIM}]in Germany, {scene.speed:.0f} times as fast[/]"
    return _panel(Group(grid, because), title, width)


def _strip(scene: Scene, name: str, columns: int, *, top: float, colour: str) -> Text:
    values = by_column([(m.at, getattr(m, name)) for m in scene.moments], day=scene.day, columns=columns)
    return strip(values, top=top, colour=colour, below=_NEGATIVE, begun=begun_columns(scene.now, day=scene.day, columns=columns))


def _top_w(scene: Scene) -> float:
    """The scale of everything in watts: all nodes at once, or the largest surplus seen."""
    seen = [moment.surplus_w or 0.0 for moment in scene.moments]
    return max([sum(node.power_w for node in scene.nodes), *seen, 100.0])


def _clock(scene: Scene) -> Text:
    return Text(clock_time(scene.now), style="bold bright_white")


def _hours(scene: Scene, columns: int) -> Text:
    """The day's progress as a line, with the hours below what they belong to."""
    begun = begun_columns(scene.now, day=scene.day, columns=columns)
    line = ["━" if column < begun else "─" for column in range(columns)]
    for hour in range(0, 24, 3):
        at = round(hour * columns / 24)
        line[at : at + 2] = f"{hour:02d}"
    text = Text("".join(line), style="grey35", no_wrap=True)
    text.stylize("bright_white", 0, begun)
    return text


def _nodes(scene: Scene, width: int) -> Panel:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style=_DIM, width=width - 4)
    for name, size in (("node", 12), ("state", 11), ("why", 18)):
        table.add_column(name, width=size, no_wrap=True)
    table.add_column("unit and step", ratio=1, no_wrap=True)
    for name, size in (("power", 5), ("energy", 9), ("earned", 8), ("trust", 5)):
        table.add_column(name, width=size, justify="right", no_wrap=True)
    for node in scene.nodes:
        table.add_row(*_node(node))
    body: RenderableType = table if scene.nodes else Text("nobody has joined yet", style=_DIM)
    return _panel(body, f"[{_TITLE}]nodes[/] [{_DIM}]consumers' machines, each a process of its own[/]", width)


def _node(node: NodeRow) -> tuple[Text, ...]:
    words, colour = _STATES.get(node.state, (node.state.replace("_", " "), "default"))
    why = node.why or node.state
    return (
        Text(node.node_id, style="bold"),
        Text(words, style=colour),
        Text(_WHY.get(why, why.replace("_", " ")), style=_DIM),
        _progress(node),
        _amount(node.drawn_w, "W"),
        Text(f"{kwh(node.energy_j):.2f} kWh"),
        Text(f"{100 * node.earned_micro / MICRO:.2f} ct"),
        Text(f"{node.reliability:.0%}"),
    )


def _progress(node: NodeRow) -> Text:
    if not node.unit:
        return Text("-", style=_DIM)
    colour = "green" if node.state == "working" else "yellow"
    name = "evaluation" if node.kind == "evaluate" else short_unit(node.unit)
    share = bar(node.step, top=node.steps, width=6, colour=colour)
    return Text.assemble(share, " ", name, (f" {node.step}/{node.steps}", _DIM))


def _training(scene: Scene, width: int) -> Panel:
    columns = width - 4
    grid = Table.grid(padding=(0, 1), pad_edge=False)
    grid.add_column(width=8, style=_DIM)
    grid.add_column(width=columns - 9, no_wrap=True)
    grid.add_row("units", _units(scene, columns - 9))
    grid.add_row("accuracy", _accuracy(scene))
    grid.add_row("energy", _energy(scene))
    grid.add_row("rewards", _rewards(scene))
    return _panel(grid, f"[{_TITLE}]training[/] [{_DIM}]handwritten digits, a small convolutional network[/]", width)


def _units(scene: Scene, width: int) -> Text:
    merged = sum(1 for row in scene.epochs if row.ended_at is not None)
    words = f" {scene.units}/{scene.units_planned} units, {merged}/{scene.epochs_planned} epochs"
    return Text.assemble(bar(scene.units, top=scene.units_planned, width=width - len(words), colour="cyan"), words)


def _accuracy(scene: Scene) -> Text:
    """A column for each epoch, over the last tenth: below 90 % there is little to tell apart."""
    if not scene.accuracies:
        return Text("the first epoch is not over yet", style=_DIM)
    text = strip([max(accuracy - 0.9, 0.0) for accuracy in scene.accuracies], top=0.1, colour="cyan")
    text.append(f"  {scene.accuracies[-1]:.1%}", style="bold")
    earlier = "  ".join(f"{accuracy:.1%}" for accuracy in scene.accuracies[:-1])
    text.append(f"  after {earlier}" if earlier else "  after the first epoch", style=_DIM)
    return text


def _energy(scene: Scene) -> Text:
    useful, wasted, idle = (scene.total(use) for use in ("useful", "wasted", "idle"))
    whole = useful + wasted + idle
    parts = [(useful, "green", "useful"), (wasted, "bright_red", "wasted"), (idle, "grey50", "idle")]
    text = Text(no_wrap=True)
    for joules, colour, _ in parts:
        text.append("━" * round(24 * joules / whole) if whole else "", style=colour)
    text.append(" " if whole else "")
    for joules, colour, name in parts:
        text.append(f" {kwh(joules):.3f} kWh ", style=colour)
        text.append(name + " ", style=_DIM)
    return text


def _rewards(scene: Scene) -> Text:
    paid = sum(row.reward_micro for row in scene.epochs)
    cost = sum(row.cost_micro for row in scene.epochs)
    words = f" paid to consumers; the energy itself cost {100 * cost / MICRO:.2f} ct on the spot market"
    return Text.assemble((f"{100 * paid / MICRO:.2f} ct", "bold"), (words, _DIM))


def _log(scene: Scene, width: int, *, lines: int) -> Panel:
    recent = [_line(line) for line in scene.lines[-lines:]]
    blank = [Text() for _ in range(lines - len(recent))]
    return _panel(
        Group(*recent, *blank),
        f"[{_TITLE}]what has happened[/]",
        width,
    )


def _line(line: Line) -> Text:
    return Text.assemble((f"{clock_time(line.at)}  ", _DIM), (line.text, MOODS[line.mood]), no_wrap=True, overflow="ellipsis")


def _amount(value: float | None, unit: str, digits: int = 0) -> Text:
    return Text("-", style=_DIM) if value is None else Text(f"{value:.{digits}f} {unit}")


def epoch_table(epochs: Sequence[Epoch]) -> Table:
    """Each epoch's books, and their sum."""
    table = Table(
        title="Energy, money and quality by epoch", title_justify="left", title_style="bold", header_style=_DIM, border_style="grey42"
    )
    for name in ("epoch", "useful kWh", "wasted kWh", "idle kWh", "cost ct", "reward ct", "accuracy"):
        table.add_column(name, justify="right")
    for row in epochs:
        table.add_row(str(row.number + 1), *_books([row]), f"{row.accuracy:.1%}" if row.accuracy is not None else "-")
    table.add_section()
    last = next((row.accuracy for row in reversed(epochs) if row.accuracy is not None), None)
    table.add_row("all", *_books(list(epochs)), f"{last:.1%}" if last is not None else "-", style="bold")
    return table


def _books(rows: list[Epoch]) -> tuple[str, ...]:
    energy = [f"{kwh(sum(getattr(row, f'{use}_j') for row in rows)):.4f}" for use in ("useful", "wasted", "idle")]
    money = [f"{100 * sum(getattr(row, name) for row in rows) / MICRO:.3f}" for name in ("cost_micro", "reward_micro")]
    return (*energy, *money)
