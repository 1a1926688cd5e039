"""``gridsched policy backtest``: what a policy and its schedule would have done with a recorded signal."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from gridsched.calendars import country_of
from gridsched.cli.base import err, out, told
from gridsched.cli.output import may_draw, may_write, writing
from gridsched.core.condition import leaves
from gridsched.core.errors import InvalidInput
from gridsched.core.quantity import duration
from gridsched.core.rule import Policy
from gridsched.core.signal import SignalKind
from gridsched.plugins import load_policy

if TYPE_CHECKING:
    from gridsched.report.backtest import Record, Task
    from gridsched.report.trace import Trace

__all__ = ["backtest"]


class WeekStarts(StrEnum):
    """Which days the weeks begin on."""

    ALL = "all"
    MONDAY = "monday"


def backtest(
    policy: Annotated[Path, typer.Option(help="The policy file.")],
    trace: Annotated[Path, typer.Option(help="A CSV file (.gz too) of prices, carbon or surplus at 15, 30 or 60 minutes.")],
    hours_per_week: Annotated[float, typer.Option(help="Useful hours to be done in each week.")] = 42.0,
    restart_waste: Annotated[str, typer.Option(help="Work lost at each start, such as 15m; default: the policy's.")] = "",
    begin: Annotated[
        str, typer.Option("--from", help="First day on which a week begins, such as 2025-01-01; default: as early as can be.")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="Weeks begin before this day.")] = "",
    json_out: Annotated[Path | None, typer.Option("--json", help="Write all figures there.")] = None,
    picture: Annotated[Path | None, typer.Option("--plot", help="Draw a PNG there.")] = None,
    objective: Annotated[str, typer.Option(help="price, carbon, surplus, ...; default: the policy's.")] = "",
    time_column: Annotated[str, typer.Option("--time", help="The column of stamps; default: the first that holds stamps.")] = "",
    value_column: Annotated[str, typer.Option("--value", help="The column of values; default: the one named like the objective.")] = "",
    unit: Annotated[str, typer.Option(help="The values' unit, such as ct/kWh; default: what the header says, else EUR/MWh or g/kWh.")] = "",
    timezone: Annotated[str, typer.Option(help="Whose clock stamps without an offset are, such as Europe/Berlin.")] = "",
    gate: Annotated[str, typer.Option(help="From when on the policy's clock the next day is known.")] = "13:00",
    week_starts: Annotated[WeekStarts, typer.Option(help="Weeks begin on every day in turn, or on Mondays.")] = WeekStarts.ALL,
    every: Annotated[int, typer.Option(min=1, help="Only every so many of the weeks: a quicker look.")] = 1,
    warm_up: Annotated[int, typer.Option(min=8, help="Days at the start of the trace that are only learned from.")] = 28,
    processes: Annotated[int, typer.Option(min=1, help="Work in so many processes; default: one for each core.")] = os.cpu_count() or 1,
    attribution: Annotated[str, typer.Option(help="Who the figures are from; stands below the picture.")] = "",
) -> None:
    """What the policy and its schedule would have done, beside the usual rules and perfect foresight.

    Every week has so many useful hours to do. A day's values are known from the gate of the day before.
    Beyond them is only what can be learned from those before: nothing ever looks further.
    """
    with told():
        from gridsched.report.backtest import Task, record, weeks
        from gridsched.report.captured import document, replay_all
        from gridsched.report.trace import Columns, read_trace

        may_write(json_out)
        may_draw(picture)
        rule = _with_objective(load_policy(policy), objective)
        waste = duration(restart_waste) if restart_waste else rule.schedule.restart_waste
        task = Task(useful=timedelta(hours=hours_per_week), waste=waste, gate=_clock(gate), warm_up=warm_up)
        columns = Columns(time=time_column, value=value_column, unit=unit, timezone=timezone)
        read = read_trace(trace, rule.schedule.objective, columns)
        _tell_source(read, rule)
        rec = record(read, rule)
        _tell_rounding(rec, task)
        found = weeks(rec, task, begin=_day(begin, "--from"), end=_day(end, "--to"), mondays=week_starts is WeekStarts.MONDAY)[::every]
        with Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=err, transient=True
        ) as bar:
            shown = bar.add_task("weeks", total=len(found))
            replayed = replay_all(rec, task, found, processes=processes, told=lambda count: bar.advance(shown, count))
        figures = document(rec, task, found, replayed)
        saved = []  # first: whoever closes the pipe early still has them
        if json_out is not None:
            with writing(json_out):
                json_out.write_text(json.dumps({"trace": read.name, "read_as": read.told, **figures}, indent=1) + "\n", encoding="utf-8")
            saved.append(f"all figures are in {json_out}")
        if picture is not None:
            from gridsched.report.backtest_plot import plot

            with writing(picture):
                plot(picture, figures, rec, task, found, replayed, attribution)
            saved.append(f"{picture} shows them and an ordinary week")
        out.print(_in_all(figures))
        _tell_missing(figures)
        out.print(_by_month(figures))
        for line in saved:
            out.print(line, markup=False)


def _with_objective(rule: Policy, objective: str) -> Policy:
    if not objective:
        return rule
    if objective not in set(SignalKind):
        raise InvalidInput(f"--objective {objective!r} is no signal; use price, carbon, residual_load, renewable_share or surplus")
    return replace(rule, schedule=replace(rule.schedule, objective=SignalKind(objective)))


def _tell_source(read: "Trace", rule: Policy) -> None:
    out.print(read.told, markup=False)
    country = country_of(rule.timezone)
    whose = f"holidays of {country}" if country else "weekends only, no country's holidays"
    out.print(f"days are those of {rule.timezone}, with {whose}")
    others = sorted({leaf.signal for leaf in leaves(rule.when)} - {read.signal})
    if others:
        out.print(f"the trace tells nothing of {', '.join(others)}: the policy's conditions on that count as unknown", style="yellow")


def _in_all(figures: Mapping[str, Any]) -> Table:
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title=_title(figures), caption=_caption(figures))
    grid.add_column("", no_wrap=True)
    for name in (figures["unit"], "captured", "starts", "surplus", "missed", "wasted"):
        grid.add_column(name, justify="right", no_wrap=True)
    rows = [*figures["rules"].items(), ("this policy", figures), ("perfect foresight", figures["oracle"])]
    for name, row in rows:
        cells = [_amount(row), _percent(row["captured"]), f"{row['starts_per_week']:.1f}", _percent(row["in_surplus_share"])]
        cells += [str(row["deadline_misses"]), f"{row['restart_waste_hours_per_week']:.2f} h"]
        grid.add_row(name.replace("_", " "), *cells, style="bold" if row is figures else "")
    return grid


def _by_month(figures: Mapping[str, Any]) -> Table:
    caption = "captured by this policy, by the mean of four weeks, by the threshold"
    grid = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True, title="By the month in which the weeks begin", caption=caption)
    grid.add_column("", no_wrap=True)
    for name in ("weeks", figures["unit"], "captured", "mean", "threshold", "starts", "surplus", "missed"):
        grid.add_column(name, justify="right", no_wrap=True)
    for month, part in figures["months"].items():
        shares = [part, part["rules"]["mean_of_four_weeks"], part["rules"]["quantile_threshold"]]
        cells = [str(part["weeks"]), _amount(part), *(_percent(share["captured"]) for share in shares)]
        grid.add_row(month, *cells, f"{part['starts_per_week']:.1f}", _percent(part["in_surplus_share"]), str(part["deadline_misses"]))
    return grid


def _caption(figures: Mapping[str, Any]) -> str:
    costs = figures["objective"] in (SignalKind.PRICE, SignalKind.CARBON)
    what = f"{figures['unit']}: of useful work, its waste included" if costs else f"{figures['unit']}: the mean while it runs"
    return f"{what}; starts and wasted: per week\ncaptured: of what perfect foresight saves over running at once"


def _tell_missing(figures: Mapping[str, Any]) -> None:
    """Cheap hours are easily had by whoever leaves the work undone, so that is said."""
    if figures["deadline_misses"]:
        share = figures["missing_hours"] / (figures["weeks"] * figures["hours_per_week"])
        alike = figures["oracle"]["deadline_misses"]
        why = f"; in {alike} no foresight could have: the policy allows too few hours, see [top_up]" if alike else ""
        undone = f"{figures['deadline_misses']} weeks were not done by their end, {share:.1%} of all hours are missing"
        out.print(undone + why, style="yellow", markup=False)


def _tell_rounding(rec: "Record", task: "Task") -> None:
    """Work is counted in parts of a slot, so a short waste may come out as another."""
    effort = task.effort(rec.grid.slot)
    counted = effort.waste * rec.grid.slot / effort.per_slot
    if counted != task.waste:
        asked, minutes = (time_ / timedelta(minutes=1) for time_ in (task.waste, counted))
        out.print(f"{asked:g} min lost at a start count as {minutes:g}: slots of {rec.grid.slot} are not split more finely", style="yellow")


def _title(figures: Mapping[str, Any]) -> str:
    work = f"{figures['hours_per_week']:g} hours a week, {figures['restart_waste_minutes']:g} min lost at a start"
    return f"{figures['weeks']} weeks from {figures['from']} to {figures['to']}, {work}"


def _amount(row: Mapping[str, Any]) -> str:
    amount = row.get("objective_mean", row["cost_eur_per_useful_mwh"])
    if amount is None:
        return "-"
    size, prefix = next(((s, p) for s, p in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if abs(amount) >= 10 * s), (1.0, ""))
    return f"{amount / size:,.2f}{prefix}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def _day(text: str, option: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise InvalidInput(f"{option} {text!r} is not a day; write it like 2025-01-31") from error


def _clock(text: str) -> time:
    try:
        return time.fromisoformat(text)
    except ValueError as error:
        raise InvalidInput(f"--gate {text!r} is not a time of day; write it like 13:00") from error
