"""``gridsched node``: join a daemon, run, opt in, opt out, and see what the node does and why."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gridsched.clock import SystemClock
from gridsched.config import client as environment
from gridsched.core.errors import GridschedError, InvalidInput
from gridsched.core.quantity import duration, quantity
from gridsched.core.units import MICRO, kwh
from gridsched.node.settings import NodeSettings, Priority, read_settings
from gridsched.node.state import Choice, Home, HomeLock, Status

__all__ = ["HomeOption", "app", "home_of"]

app = typer.Typer(no_args_is_help=True, help="Offer this machine: join, run, opt in and out, see why.")
data = typer.Typer(no_args_is_help=True, help="Data of your own that jobs may learn from here; it never leaves this machine.")
app.add_typer(data, name="data")
out = Console()
err = Console(stderr=True)

_DEFAULT_HOME = Path("~/.local/share/gridsched/node")
HomeOption = Annotated[Path | None, typer.Option("--home", help=f"The node's folder; default $GRIDSCHED_HOME or {_DEFAULT_HOME}.")]
RuntimeOption = Annotated[
    str, typer.Option(help="torch: fast; wasm: small, and needs no PyTorch; auto: torch if it is installed. Default: as in node.toml.")
]


def home_of(chosen: Path | None) -> Home:
    """The node's folder that an option names, else the environment's, else the default."""
    return Home((chosen or environment().home or _DEFAULT_HOME).expanduser())


def _fail(error: GridschedError) -> typer.Exit:
    err.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
    return typer.Exit(1)


@app.command()
def join(
    url: Annotated[str, typer.Argument(help="The daemon's address, such as http://192.168.1.10:8080.")],
    code: Annotated[str, typer.Option(help="The one-time code from `gridsched invite`.")],
    name: Annotated[str, typer.Option(help="The node's name; default: this machine's.")] = "",
    power: Annotated[str, typer.Option(help="The most this device draws, such as 120W.")] = "100W",
    meter: Annotated[str, typer.Option(help="The meter adapter, such as meters/rapl.py.")] = "",
    priority: Annotated[Priority | None, typer.Option(help="How training competes for the processor.")] = None,
    runtime: RuntimeOption = "",
    home: HomeOption = None,
) -> None:
    """Enrol this machine with a one-time code; nothing runs before you opt in."""
    from gridsched.node import start

    folder = home_of(home)
    try:
        settings = read_settings(folder.settings)
        settings = _with(settings, meter=meter, priority=priority, runtime=runtime)
        power_w = quantity(power, "W")
        with out.status("looking at the training runtime"):
            joined = start.join(folder, url, code, name=name or start.default_name(), power_w=power_w, settings=settings)
    except GridschedError as error:
        raise _fail(error) from error
    settled = escape(str(folder.settings))
    out.print(f"joined zone [bold]{joined.zone}[/bold] as node [bold]{joined.node_id}[/bold]; settings are in {settled}")
    out.print(f"reward now: {_money(joined.reward_micro_per_kwh)} per kWh, {_money(joined.reward_micro_per_unit)} per finished unit")
    out.print("next: gridsched node opt-in --for 2h, and gridsched node run")


@app.command()
def run(
    runtime: RuntimeOption = "",
    home: HomeOption = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Run the agent until Ctrl-C: it works when there is surplus and you allow it."""
    from gridsched.node import start

    logging.basicConfig(level=log_level.upper(), format="%(asctime)s %(levelname)s %(message)s")
    folder = home_of(home)
    try:
        start.run_agent(
            folder,
            runtime=runtime,
            on_start=lambda identity: out.print(f"node {identity.node_id} runs for {identity.url}; Ctrl-C saves and stops", markup=False),
        )
    except GridschedError as error:
        raise _fail(error) from error
    out.print("stopped; everything is saved")


@app.command("opt-in")
def opt_in(
    for_: Annotated[str, typer.Option("--for", help="For how long, such as 2h; default: until you opt out.")] = "",
    max_watts: Annotated[str, typer.Option(help="At most this power, such as 150.")] = "",
    min_reward: Annotated[float, typer.Option(help="At least this much per kWh, in EUR.")] = 0.0,
    home: HomeOption = None,
) -> None:
    """Allow work on this machine, within your limits."""
    try:
        choice = Choice(
            opted_in=True,
            for_s=_for_s(for_),
            max_w=quantity(max_watts, "W") if max_watts else None,
            min_reward_micro_per_kwh=round(min_reward * MICRO),
            made_at=SystemClock().now(),
        )
        told = _choose(home_of(home), choice)
    except GridschedError as error:
        raise _fail(error) from error
    limits = [f"for {for_}" if for_ else "until you opt out"]
    limits += [f"at most {choice.max_w:g} W"] if choice.max_w is not None else []
    limits += [f"from {_money(choice.min_reward_micro_per_kwh)} per kWh"] if choice.min_reward_micro_per_kwh else []
    out.print(f"opted in {', '.join(limits)}" + _passed_on(told))


@app.command("opt-out")
def opt_out(home: HomeOption = None) -> None:
    """Stop work at once; what is half done is saved and given back."""
    try:
        told = _choose(home_of(home), Choice(opted_in=False, made_at=SystemClock().now()))
    except GridschedError as error:
        raise _fail(error) from error
    out.print("opted out" + _passed_on(told))


@app.command()
def status(home: HomeOption = None, as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False) -> None:
    """What the node does and why, what it used and what it earned."""
    folder = home_of(home)
    try:
        identity = folder.identity()
        running = HomeLock(folder.folder).held()
        found = folder.status() or Status(node_id=identity.node_id, phase="none", reason="never_run")
    except GridschedError as error:
        raise _fail(error) from error
    if as_json:
        print(json.dumps(asdict(found) | {"running": running, "url": identity.url, "zone": identity.zone}, default=str))
        return
    out.print(_table(found, running=running, url=identity.url))


@data.command("add")
def add_data(
    name: Annotated[str, typer.Argument(help="The name by which jobs ask for it, such as steps.")],
    file: Annotated[Path, typer.Argument(help="An .npz of arrays by field, samples first, or a CSV.")],
    label: Annotated[str, typer.Option(help="The CSV's column to be learned.")] = "label",
    home: HomeOption = None,
) -> None:
    """Let jobs that ask for NAME learn from this file, here: the data itself never leaves this machine."""
    from gridsched.train.tables import read_table

    folder = home_of(home)
    try:
        folder.identity()
        added = folder.local.add(name, read_table(file, label=label))
    except GridschedError as error:
        raise _fail(error) from error
    out.print(
        f"data [bold]{name}[/bold]: {added.samples} samples; the daemon is told its name, digest and number of samples, no more",
        soft_wrap=True,
    )


@data.command("list")
def list_data(home: HomeOption = None) -> None:
    """Which data of this machine jobs may learn from, here."""
    try:
        found = home_of(home).local.all()
    except GridschedError as error:
        raise _fail(error) from error
    for name, each in found.items():
        out.print(f"{name}: {each.samples} samples, manifest {each.digest[:12]}", highlight=False)
    if not found:
        out.print("none; add some with: gridsched node data add NAME FILE")


@data.command("remove")
def remove_data(name: str, home: HomeOption = None) -> None:
    """Delete this node's copy of data NAME; jobs go on without it."""
    try:
        home_of(home).local.remove(name)
    except GridschedError as error:
        raise _fail(error) from error
    out.print(f"data {name} is removed")


def _with(settings: NodeSettings, *, meter: str, priority: Priority | None, runtime: str) -> NodeSettings:
    from dataclasses import replace

    settings = replace(settings, meter=meter) if meter else settings
    settings = replace(settings, runtime=runtime) if runtime else settings
    return replace(settings, priority=priority) if priority is not None else settings


def _for_s(text: str) -> float | None:
    if not text:
        return None
    length = duration(text)
    if length <= timedelta(0):
        raise InvalidInput(f"--for {text} is no time at all; write it like 2h, or leave it out to opt in until you opt out")
    return length.total_seconds()


def _passed_on(told: str) -> str:
    later = "; the daemon does not answer now and is told by the next `gridsched node run`"
    return {"agent": "; the agent acts on it now and tells the daemon", "later": later}.get(told, "")


def _choose(folder: Home, choice: Choice) -> str:
    from gridsched.node import start

    return start.choose(folder, choice)


def _table(found: Status, *, running: bool, url: str) -> Table:
    table = Table(title=f"node {found.node_id}", title_justify="left", show_header=False, box=None)
    table.add_column(style="dim")
    table.add_column()
    for name, told in _rows(found, running=running, url=url):
        table.add_row(name, escape(told))
    return table


def _rows(found: Status, *, running: bool, url: str) -> Iterator[tuple[str, str]]:
    """What there is to say, as the agent, the daemon and the device word it."""
    yield "agent", f"running (process {found.pid})" if running else "not running; start it with: gridsched node run"
    yield "state", f"{found.phase if running else 'stopped'}: {found.reason}" + (f" ({found.node_reason})" if found.node_reason else "")
    if found.unit_id and running:
        yield "work", f"{found.unit_id}, step {found.step} of {found.steps}"
    yield "device", found.device
    yield "power", (f"{found.power_w:.1f} W now, " if running else "") + f"{_energy(found.energy_j)} in all"
    yield "earned", _money(found.earned_micro)
    yield "consent", _consent(found)
    last = f"{found.last_contact:%Y-%m-%d %H:%M:%S} UTC" if found.last_contact else "never"
    yield "daemon", f"{url}, {'connected' if found.connected and running else 'no contact'}, last heard {last}"
    if found.waiting_updates:
        yield "waiting", f"{found.waiting_updates} finished units wait for the daemon"
    if found.notice:
        yield "notice", found.notice


def _consent(found: Status) -> str:
    if not found.opted_in:
        return "opted out"
    words = ["opted in"]
    words += [f"{timedelta(seconds=round(found.consent_left_s))} left"] if found.consent_left_s is not None else ["until you opt out"]
    words += [f"at most {found.max_w:g} W"] if found.max_w is not None else []
    words += [f"from {_money(found.min_reward_micro_per_kwh)} per kWh"] if found.min_reward_micro_per_kwh else []
    return ", ".join(words)


def _money(micro: int) -> str:
    return f"{micro / MICRO:.6f} EUR"


def _energy(joules: float) -> str:
    return f"{kwh(joules):.3f} kWh" if kwh(joules) >= 1 else f"{1000 * kwh(joules):.3f} Wh"
