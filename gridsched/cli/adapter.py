"""``gridsched adapter``: which adapters there are, and what one of them gives when it is asked now."""

import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from gridsched import config, plugins
from gridsched.adapter import Adapter
from gridsched.cli.base import SiteOption, out, told
from gridsched.clock import SystemClock
from gridsched.core.errors import ConfigError, InvalidInput, NotFound
from gridsched.core.settings import AdapterTable, Settings
from gridsched.core.signal import UNIT, Reading
from gridsched.core.units import utc
from gridsched.sources import open_session, secrets_of
from gridsched.trial import Seen, Trial, as_json, attempt

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Adapters: which there are, and what one of them gives.")

_HERE = "here"  # the zone of an adapter that is tried without a site


@app.command("list")
def list_(
    as_data: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    site: SiteOption = None,
) -> None:
    """The adapters of this site, or the shipped ones: what each can give, and how often it asks."""
    with told():
        rows = [_about(ref, base) for base, ref in _files(_settings(site))]
    if as_data:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        every = f", asked every {row['every']}" if row["every"] else ""
        out.print(f"[bold]{escape(row['use'])}[/bold]  {escape(row['gives'])}{every}\n    {escape(row['about'])}")


def _files(settings: Settings | None) -> Iterator[tuple[Path, str]]:
    base = settings.folder / "adapters" if settings else plugins.shipped("adapters")
    for kind in ("signals", "meters"):
        yield from ((base, f"{kind}/{path.name}") for path in sorted((base / kind).glob("*.py")))


def _about(ref: str, base: Path) -> dict[str, str]:
    kind = plugins.load_adapter(ref, base)
    signals = getattr(kind, "signals", ())
    every = getattr(kind, "every", None)
    return {
        "use": ref,
        "gives": ", ".join(signals) if signals else "a node's energy",
        "every": _span(every) if isinstance(every, timedelta) else "",
        "about": (kind.__doc__ or "").strip().splitlines()[0],
    }


@app.command("try")
def try_(
    name: Annotated[
        str, typer.Argument(help="As in gridsched.toml: energy_charts, or its number there; or a file, with its options as --option.")
    ],
    option: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="KEY=VALUE", help="Instead of a table in gridsched.toml; repeat it.")
    ] = None,
    at: Annotated[str, typer.Option(help="Ask as if it were then, such as 2018-01-28T12:00:00Z.")] = "",
    rows: Annotated[int, typer.Option(help="How many readings to show of each signal, half of them from either end.", min=0)] = 6,
    as_data: Annotated[bool, typer.Option("--json", help="All of it as JSON, one line for each adapter.")] = False,
    site: SiteOption = None,
) -> None:
    """Ask one adapter, now and once, and show what it got or why it got nothing."""
    with told():
        settings = _settings(site)
        now = _moment(at, settings)
        trials = [_ask(chosen, settings, now) for chosen in _chosen(name, option or [], settings)]
    for trial in trials:
        if as_data:
            typer.echo(json.dumps(as_json(trial)))
        else:
            _show(trial, rows)
    if any(trial.kind for trial in trials):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """A table, the folder its adapter lies in, and the folder its relative paths start from."""

    table: AdapterTable
    base: Path
    site: Path

    def open(self) -> Adapter:
        options = {key: value for key, value in self.table.options.items() if key != "every"}
        kind = plugins.load_adapter(self.table.use, self.base)
        if not hasattr(kind, "fetch"):
            raise ConfigError(f"{self.table.use} meters a node and gives no signal; a node's meter shows in gridsched node status")
        adapter: Adapter = kind(options, site=self.site)
        return adapter


def _chosen(name: str, options: Sequence[str], settings: Settings | None) -> list[_Chosen]:
    """Every table that ``name`` means; with ``options``, or where the site has none, the adapter's own file."""
    if settings is not None and not options:
        found = [table for number, table in enumerate(settings.adapters, start=1) if name in _names(number, table)]
        if found:
            return [_Chosen(table=table, base=settings.folder / "adapters", site=settings.folder) for table in found]
    if name.isdecimal():
        raise NotFound(f"there is no adapter {name} here; gridsched check lists the site's, gridsched adapter list the files")
    return [_unlisted(name, {"zone": _HERE} | dict(_option(written) for written in options), settings)]


def _names(number: int, table: AdapterTable) -> tuple[str, ...]:
    stem = Path(table.use).stem
    return (str(number), table.use, stem, f"{stem}.{number}")


def _unlisted(name: str, options: Mapping[str, object], settings: Settings | None) -> _Chosen:
    """An adapter by its file or name alone."""
    site = settings.folder if settings else Path()
    path = Path(name)
    if path.suffix == ".py" and path.is_file():
        return _Chosen(table=AdapterTable(use=path.name, options=options), base=path.parent, site=site)
    use = name if ":" in name or path.suffix == ".py" else f"signals/{name}.py"
    own = site / "adapters"
    base = own if (own / use).is_file() else plugins.shipped("adapters")
    return _Chosen(table=AdapterTable(use=use, options=options), base=base, site=site)


def _option(written: str) -> tuple[str, Any]:
    """``key=value``, the value as TOML has it (``5``, ``true``, ``["a"]``); anything else is text, and needs no quotes."""
    key, equals, value = written.partition("=")
    if not key or not equals:
        raise InvalidInput(f"--option {written!r} is not KEY=VALUE; write it like --option series=price")
    try:
        read = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key, value
    return key, read if isinstance(read, bool | int | float | str | list | dict) else value


def _ask(chosen: _Chosen, settings: Settings | None, now: datetime) -> Trial:
    clock = SystemClock()
    limits = settings or Settings(folder=chosen.site)
    masked = Settings(folder=limits.folder, http=limits.http, adapters=(*limits.adapters, chosen.table))
    session = open_session(masked, sleep=clock.sleep, now=clock.now)
    try:
        return attempt(chosen.open(), session, now, secrets=secrets_of(chosen.table))
    finally:
        session.close()


def _settings(site: Path | None) -> Settings | None:
    """The site that is named, or the one in this folder; None where there is none."""
    named = site or config.client().site
    if named is None and not Path(config.FILE).is_file():
        return None
    return config.load(named or Path())


def _moment(at: str, settings: Settings | None) -> datetime:
    """``at``, else where the site's replay begins, else now."""
    if not at:
        return settings.clock.replay_from if settings and settings.clock else SystemClock().now()
    try:
        return utc(datetime.fromisoformat(at))
    except ValueError as error:
        raise InvalidInput(f"--at {at!r} is not a moment with its offset; write it like 2018-01-28T12:00:00Z") from error


def _show(trial: Trial, rows: int) -> None:
    head = f"[bold]{escape(trial.name)}[/bold] for zone {escape(trial.zone)}, asked as of {_time(trial.now)} UTC"
    if trial.kind:
        out.print(f"[red]no[/red]  {head}: [bold]{trial.kind}[/bold] after {trial.took_s:.1f} s")
        out.print(f"    {trial.problem}\n    {trial.remedy}", markup=False)
        return
    out.print(f"[green]ok[/green]  {head}: {_many(len(trial.batch), 'reading')} in {trial.took_s:.1f} s")
    for seen in trial.seen():
        _show_signal(seen, trial.now, rows)
    if trial.batch.dropped:
        out.print(f"  [yellow]{_many(len(trial.batch.dropped), 'row')} set aside[/yellow]")
        for dropped in trial.batch.dropped[: max(rows, 1)]:
            out.print(f"    {dropped.row}: {dropped.reason}", markup=False)


def _show_signal(seen: Seen, now: datetime, rows: int) -> None:
    if not seen.readings:
        out.print(f"  [bold]{seen.kind}[/bold]  [yellow]nothing[/yellow] at that moment; for a recorded file say --at")
        return
    unit = UNIT[seen.kind]
    out.print(f"  [bold]{seen.kind}[/bold]  {_extent(seen.readings)}; {_counts(seen, unit)}")
    for reading in _ends(seen.readings, rows):
        age = f"{reading.quality}, {_age(reading, now)}, from {reading.source}"
        out.print(f"    {_time(reading.start)} to {_time(reading.end)}  {reading.value:12.6g} {unit}  {age}", markup=False)
    if seen.implausible:
        out.print(f"    [red]{len(seen.implausible)} would be dropped[/red]: {escape(seen.implausible[0])}")


def _extent(readings: Sequence[Reading]) -> str:
    values = [reading.value for reading in readings]
    spans = sorted({reading.end - reading.start for reading in readings})
    length = _span(spans[0]) if len(spans) == 1 else f"{_span(spans[0])} to {_span(spans[-1])}"
    return f"{_many(len(readings), 'slot')} of {length}, {min(values):.6g} to {max(values):.6g}"


def _counts(seen: Seen, unit: str) -> str:
    """What a policy would see."""
    state = seen.state
    if state is None:
        return "unknown now"
    return f"now {state.value:.6g} {unit}" + ("" if state.fresh else f", stale since {_span(timedelta(seconds=state.age_s))}")


def _ends(readings: Sequence[Reading], rows: int) -> Sequence[Reading]:
    first = (rows + 1) // 2
    return readings if len(readings) <= rows else [*readings[:first], *readings[len(readings) - rows // 2 :]]


def _age(reading: Reading, now: datetime) -> str:
    if reading.end <= now:
        return f"ended {_span(now - reading.end)} ago"
    return f"begins in {_span(reading.start - now)}" if reading.start > now else "lasts"


def _span(span: timedelta) -> str:
    """``1 d 2 h``, ``15 min``, ``30 s``: the two largest parts."""
    left = round(span.total_seconds())
    parts = []
    for seconds, word in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        count, left = divmod(left, seconds)
        if count:
            parts.append(f"{count} {word}")
    return " ".join(parts[:2]) or "0 s"


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _time(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S}" if moment.second else f"{moment:%Y-%m-%d %H:%M}"
