"""``gridsched report``: epochs as a table, a day as a picture, and whether a run was worth it.

Reads the site's store, so it works beside a running daemon as well as without one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from gridsched.cli.output import importing, may_draw, may_write, writing
from gridsched.config import client as environment
from gridsched.config import load
from gridsched.core.errors import GridschedError, InvalidInput, NotFound
from gridsched.core.job import Job
from gridsched.core.round import Epoch
from gridsched.core.units import MICRO, kwh

if TYPE_CHECKING:
    from gridsched.config import Settings
    from gridsched.ports import Tx

__all__ = ["app", "epoch_table"]

app = typer.Typer(no_args_is_help=True, help="Epochs as a table, a day as a picture, and whether a run was worth it.")
out = Console()

SiteOption = Annotated[Path | None, typer.Option("--site", help="The site's folder; default $GRIDSCHED_SITE or here.")]


@app.command()
def epochs(
    job_id: Annotated[str, typer.Argument(metavar="JOB")],
    csv: Annotated[Path | None, typer.Option(help="Write them there as CSV.")] = None,
    site: SiteOption = None,
) -> None:
    """Energy, cost, reward and accuracy of each epoch of a job."""
    with _reading(site) as (_, tx):
        if csv is None:
            out.print(epoch_table(_epochs(tx, job_id)))
            return
        may_write(csv)
        with importing():
            from gridsched.report.epochs import table

        found = _epochs(tx, job_id)
        with writing(csv):
            table(found).to_csv(csv, index=False)
    out.print(f"{len(found)} epochs of {job_id} are in {csv}", markup=False, soft_wrap=True)


@app.command()
def day(
    date: Annotated[str, typer.Option(help="A day in UTC, such as 2018-01-28; default: the last one with facts.")] = "",
    zone: Annotated[str, typer.Option(help="Default: the job's, else the site's first zone.")] = "",
    job: Annotated[str, typer.Option(help="Whose epochs to draw; default: the job of the zone that ran last.")] = "",
    picture: Annotated[Path, typer.Option("--out", help="The PNG to write.")] = Path("day.png"),
    attribution: Annotated[str, typer.Option(help="Who the figures are from; stands below the picture.")] = "",
    site: SiteOption = None,
) -> None:
    """A day as a picture: price, power against target, every node, energy and accuracy by epoch."""
    from gridsched.report.reading import facts_between

    with _reading(site) as (settings, tx):
        may_draw(picture)
        from gridsched.report.day import plot

        start = _midnight(tx, date)
        end = start + timedelta(days=1)
        place = _zone(tx, zone, job) or settings.zones[0].name
        chosen = job or _latest_job(tx, place, end)
        drawn = tx.find(Epoch, job_id=chosen, order="number") if chosen else []
        facts = facts_between(tx, start, end)
        with writing(picture):
            plot(picture, facts, zone=place, epochs=drawn, attribution=attribution)
    out.print(f"{picture} shows {start:%Y-%m-%d} (UTC)", markup=False, soft_wrap=True)


@app.command()
def worth(job_id: Annotated[str, typer.Argument(metavar="JOB")], site: SiteOption = None) -> None:
    """What a job's energy cost, what waiting for surplus saved, and what storage would have made of it."""
    from gridsched.core.facts import ZoneObserved
    from gridsched.report.reading import facts_between, job_ended_at
    from gridsched.report.worth import worth as weigh

    with _reading(site) as (_, tx):
        found = _epochs(tx, job_id)
        ran_in = tx.must(Job, job_id).spec.zone
        until = job_ended_at(tx, job_id) or datetime.max.replace(tzinfo=UTC)  # a cancelled job's last epoch never ends
        facts = facts_between(tx, found[0].started_at, until)
    result = weigh([f for f in facts if isinstance(f, ZoneObserved) and f.zone == ran_in], found)
    grid = Table("", "", title=f"Was {job_id} worth its energy?", show_header=False)
    grid.add_row("useful / drawn in its zone", f"{result.useful_kwh:.4g} / {result.drawn_kwh:.4g} kWh")
    unknown = "not known, a price is missing" if result.drawn_kwh else "nothing was drawn"
    grid.add_row("cost at the prices of its hours", _eur(result.cost_eur, unknown))
    grid.add_row("cost if run at once", _eur(result.at_once_eur, unknown))
    grid.add_row("avoided by waiting for surplus", _eur(result.avoided_eur, unknown))
    for name, (low, high) in result.stored_kwh.items():
        grid.add_row(f"{name} would have given back", f"{low:.4g} to {high:.4g} kWh" if low < high else f"{low:.4g} kWh")
    grid.add_row("best case of a battery, after its cost", _eur(result.battery_gain_eur, unknown))
    out.print(grid)
    if result.battery_better:
        out.print("On energy alone: no. A battery would have earned more with it; the model must be worth at least that.")


def epoch_table(found: list[Epoch]) -> Table:
    """A table for the terminal, one row per epoch."""
    grid = Table("epoch", "useful", "wasted", "idle", "cost", "reward", "accuracy", title="Energy in Wh, money in EUR")
    for column in grid.columns[1:]:
        column.justify = "right"
    for epoch in found:
        watt_hours = (f"{1000 * kwh(joules):.3f}" for joules in (epoch.useful_j, epoch.wasted_j, epoch.idle_j))
        money = (f"{micro / MICRO:.6f}" for micro in (epoch.cost_micro, epoch.reward_micro))
        grid.add_row(str(epoch.number), *watt_hours, *money, "" if epoch.accuracy is None else f"{epoch.accuracy:.1%}")
    return grid


@contextmanager
def _reading(site: Path | None) -> "Iterator[tuple[Settings, Tx]]":
    """The site's settings and one moment of its store; an error is told and ends the command."""
    from gridsched.store.sql import SqlStore

    try:
        settings = load(site or environment().site or Path())
        store = SqlStore(settings.store.url)
        try:
            with store.read() as tx:
                yield settings, tx
        finally:
            store.close()
    except GridschedError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error


def _epochs(tx: "Tx", job_id: str) -> list[Epoch]:
    found = tx.find(Epoch, job_id=job_id, order="number")
    if not found:
        raise NotFound(f"there are no epochs of a job {job_id}; see gridsched job list")
    return found


def _midnight(tx: "Tx", date: str) -> datetime:
    from gridsched.report.reading import newest

    if date:
        try:
            return datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError as error:
            raise InvalidInput(f"{date!r} is not a day; write it like 2018-01-28") from error
    last = newest(tx)
    if last is None:
        raise NotFound("nothing has happened at this site yet; start it with gridsched serve")
    return last.replace(hour=0, minute=0, second=0, microsecond=0)


def _zone(tx: "Tx", zone: str, job_id: str) -> str:
    """The zone that was asked for, or that of the job; empty where neither was named."""
    if not job_id:
        return zone
    job = tx.get(Job, job_id)
    if job is None:
        raise NotFound(f"there is no job {job_id}; see gridsched job list")
    if zone and zone != job.spec.zone:
        raise InvalidInput(f"job {job_id} runs in zone {job.spec.zone} and not in {zone}; leave out --zone or --job")
    return job.spec.zone


def _latest_job(tx: "Tx", zone: str, before: datetime) -> str:
    jobs = {job.job_id for job in tx.find(Job, zone=zone)}
    begun = [epoch for epoch in tx.find(Epoch) if epoch.job_id in jobs and epoch.started_at < before]
    return max(begun, key=lambda epoch: epoch.started_at).job_id if begun else ""


def _eur(amount: float | None, unknown: str) -> str:
    return unknown if amount is None else f"{amount:.5f} EUR"
