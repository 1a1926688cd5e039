"""``gridsched schedule`` and ``gridsched forecast``: when a job works and why, and what may come."""

import json
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, out
from gridsched.cli.output import may_draw, writing
from gridsched.core.errors import InvalidInput

__all__ = ["JsonOption", "PlotOption", "forecast", "give", "schedule"]

schedule = typer.Typer(no_args_is_help=True, help="When a job with a deadline works, and why.")
forecast = typer.Typer(no_args_is_help=True, help="What is known of prices and other signals, and what may come.")

JsonOption = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]
PlotOption = Annotated[Path | None, typer.Option("--plot", metavar="OUT.png", help="A picture of it.")]


@schedule.command("show")
def show_schedule(
    job_id: Annotated[str, typer.Argument(metavar="JOB")],
    as_json: JsonOption = False,
    plot: PlotOption = None,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """A job's next hours with what energy is expected to cost in them, and why it is these."""
    with daemon_at(site, url, token) as daemon:
        may_draw(plot)
        told = daemon.get(f"/v1/jobs/{job_id}/schedule")
        if not as_json:
            _tell_schedule(told)
        if plot is not None:
            from gridsched.report.ahead import plot_schedule

            if told["deadline"] is None:
                raise InvalidInput(
                    f"job {job_id} has no deadline, so there are no hours to draw; give it one with: gridsched job submit --deadline"
                )
            with writing(plot):
                plot_schedule(plot, told)
        give(told, as_json=as_json, plot=plot)


def give(told: Any, *, as_json: bool, plot: Path | None) -> None:
    """The rest of an answer: the JSON alone, or where the picture is."""
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    elif plot is not None:
        out.print(f"{plot} shows it", markup=False)


def _tell_schedule(told: Any) -> None:
    due = f", due {_when(told['deadline'])}" if told["deadline"] else ""
    out.print(f"[bold]{told['job_id']}[/bold] is {told['state']}{due}: {told['timing'].replace('_', ' ')}")
    out.print(f"  {told['why']}", markup=False)
    if told["hours"]:
        table = Table("from", "until", "hours", told["unit"], box=None)
        for run in told["hours"]:
            length = (_moment(run["end"]) - _moment(run["start"])) / timedelta(hours=1)
            table.add_row(_when(run["start"]), _when(run["end"]), f"{length:.3g}", "" if run["mean"] is None else f"{run['mean']:.2f}")
        out.print(table)
    if told.get("later_s"):
        out.print(f"  {told['later_s'] / 3600:.3g} h are left for after {_when(told['known_until'])}, chosen once more is known")
    if told.get("expected") is not None:
        out.print(f"  expected on average over all its work: {told['expected']:.4g} {told['unit']}")


@forecast.command("show")
def show_forecast(
    zone: Annotated[str, typer.Option(help="Default: the daemon's only zone.")] = "",
    signal: Annotated[str, typer.Option(help="Default: the objective of the zone's policy.")] = "",
    days: Annotated[int, typer.Option(min=0, max=14, help="So many days behind the last known slot.")] = 5,
    as_json: JsonOption = False,
    plot: PlotOption = None,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Known values, then what is expected of each slot to come and the band in which it lies with a probability of 80 %."""
    from gridsched.cli.operator import only_zone

    with daemon_at(site, url, token) as daemon:
        may_draw(plot)
        asked = {"days": days} | ({"signal": signal} if signal else {})
        told = daemon.get(f"/v1/zones/{zone or only_zone(daemon)}/forecast", **asked)
        if not as_json:
            _tell_forecast(told)
        if plot is not None:
            from gridsched.report.ahead import plot_forecast

            with writing(plot):
                plot_forecast(plot, told)
        give(told, as_json=as_json, plot=plot)


def _tell_forecast(told: Any) -> None:
    learned = (
        f"learned from {told['learned_days']} days" if told["learned_days"] else "no past days are known yet, so the mean of what is known"
    )
    if told["told_days"]:
        learned += f", the first {told['told_days']} days from forecasts of residual load and renewables"
    out.print(f"[bold]{told['signal']}[/bold] in {told['zone']}, {told['unit']}: known until {_when(told['known_until'])}, then {learned}")
    table = Table("day (UTC)", "", "lowest", "mean", "highest", "where four of five values lie", box=None)
    for day, rows in _by_day([row for row in told["known"] if row["value"] is not None]):
        values = [row["value"] for row in rows]
        table.add_row(day, "known", *_three(min(values), sum(values) / len(values), max(values)), "")
    for day, rows in _by_day(told["coming"]):
        values = [row["mean"] for row in rows]
        band = f"{min(row['low'] for row in rows):.1f} to {max(row['high'] for row in rows):.1f}"
        table.add_row(day, "expected", *_three(min(values), sum(values) / len(values), max(values)), band)
    out.print(table)


def _three(*values: float) -> list[str]:
    return [f"{value:.1f}" for value in values]


def _by_day(rows: Sequence[Any]) -> list[tuple[str, list[Any]]]:
    return [(day, list(group)) for day, group in groupby(rows, key=lambda row: f"{_moment(row['start']):%Y-%m-%d}")]


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _when(text: str) -> str:
    return f"{_moment(text):%Y-%m-%d %H:%M} UTC"
