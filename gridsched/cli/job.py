"""The model owner's commands: add a dataset, submit a job, watch it, fetch what it has become."""

import json
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.progress import Progress
from rich.table import Table

from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, out
from gridsched.core.errors import InvalidInput
from gridsched.core.quantity import quantity
from gridsched.core.units import MICRO, kwh, utc
from gridsched.remote import Operator

__all__ = ["app", "datasets"]

app = typer.Typer(no_args_is_help=True, help="Jobs: submit, watch, fetch.")
datasets = typer.Typer(no_args_is_help=True, help="Datasets by name.")

_POLL_S = 1.0


@datasets.command("add")
def add_dataset(
    name: str,
    file: Annotated[Path, typer.Argument(help="A CSV (also .gz) of numbers, or an .npz of arrays.")],
    label: Annotated[str, typer.Option(help="The CSV column to predict.")] = "label",
    attribution: Annotated[str, typer.Option(help="The credit that its licence asks for.")] = "",
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Store a dataset's samples as shards under a name."""
    from gridsched import owner

    with daemon_at(site, url, token) as daemon:
        added = owner.add_dataset(daemon, name, owner.read_table(file, label=label), attribution=attribution)
    out.print(f"dataset [bold]{name}[/bold]: {added.samples} samples, {added.size_bytes / 1e6:.2f} MB, manifest {added.digest[:12]}")


@datasets.command("list")
def list_datasets(site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """All datasets."""
    with daemon_at(site, url, token) as daemon:
        rows = daemon.get("/v1/datasets")
    for row in rows:
        out.print(f"{row['name']}  {row['samples']} samples  {row['size_bytes'] / 1e6:.2f} MB  {row['digest'][:12]}  {row['attribution']}")


@app.command()
def submit(
    file: Annotated[Path, typer.Argument(metavar="FILE.py", help="A job file; see examples/.")],
    name: Annotated[str, typer.Option(help="Default: the file's name.")] = "",
    zone: Annotated[str, typer.Option(help="Default: the daemon's only zone.")] = "",
    seed: Annotated[int, typer.Option(help="Order of samples and every random draw follow from it.")] = 0,
    epochs: Annotated[int | None, typer.Option(help="Instead of what the job file says.")] = None,
    deadline: Annotated[
        str, typer.Option(help="When it should be done, such as 2026-06-08T06:00+02:00; without one it takes surplus only.")
    ] = "",
    top_up: Annotated[bool, typer.Option(help="For the deadline, draw outside surplus where the operator allows it.")] = True,
    top_up_below: Annotated[str, typer.Option(help='Outside surplus only up to this price, such as "60 EUR/MWh".')] = "",
    priority: Annotated[int, typer.Option(help="Jobs of a higher priority go first.")] = 0,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Trace the model, store program and samples, and hand the job in. The same thing twice is one job, with the wishes said last."""
    from gridsched import owner
    from gridsched.cli.operator import only_zone

    with daemon_at(site, url, token) as daemon:
        wishes = _wishes(deadline, priority, top_up=top_up, below=top_up_below)
        with out.status("tracing the model"):
            made = owner.prepare(file, zone=zone or only_zone(daemon), name=name, seed=seed, changes={"epochs": epochs}, wishes=wishes)
        with Progress(console=out, transient=True) as progress:
            bar = progress.add_task("storing", total=sum(map(len, made.blobs.values())))
            spec = owner.submit(daemon, made, progress=lambda size: progress.advance(bar, size))
    method = spec.method
    out.print(f"job [bold]{spec.job_id}[/bold]: {spec.samples} samples, {method.epochs} epochs, units of {spec.unit_samples} samples")
    if spec.deadline is not None:
        out.print(f"due by {spec.deadline:%Y-%m-%d %H:%M} UTC; its hours: gridsched schedule show {spec.job_id}")
    out.print(f"next: gridsched job watch {spec.job_id}")


def _wishes(deadline: str, priority: int, *, top_up: bool, below: str) -> dict[str, Any]:
    """The owner's wishes as `JobSpec` has them."""
    try:
        due = utc(datetime.fromisoformat(deadline)) if deadline else None
    except ValueError as error:
        raise InvalidInput(f"--deadline {deadline!r} is not a moment with an offset; write it like 2026-06-08T06:00+02:00") from error
    if due is None and (below or not top_up):
        raise InvalidInput("--top-up-below and --no-top-up speak of drawing for a deadline; name one with --deadline")
    highest = quantity(below, "EUR/MWh") if below else None
    return {"deadline": due, "priority": priority, "top_up": top_up, "top_up_below_eur_mwh": highest}


@app.command("list")
def list_jobs(site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """All jobs."""
    with daemon_at(site, url, token) as daemon:
        rows = daemon.get("/v1/jobs")
    for row in rows:
        out.print(f"{row['job_id']}  {row['state']}  version {row['version']}  {row['reason']}")
    if not rows:
        out.print("no job yet; submit one with: gridsched job submit examples/image_cnn.py")


@app.command()
def watch(job_id: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Follow a job until it ends."""
    with daemon_at(site, url, token) as daemon:
        if out.is_terminal:
            with Live(console=out, auto_refresh=False) as live:
                state = _follow(daemon, job_id, lambda table, _: live.update(table, refresh=True))
        else:
            seen: set[int] = set()
            state = _follow(daemon, job_id, lambda _, epochs: _lines(epochs, seen))
    out.print(f"job {job_id} is {state['state']}: {state['reason']}" if state["reason"] else f"job {job_id} is {state['state']}")
    if state["state"] != "done":
        raise typer.Exit(1)


def _follow(daemon: Operator, job_id: str, show: Any) -> Any:
    while True:
        state, epochs = daemon.get(f"/v1/jobs/{job_id}"), daemon.get(f"/v1/jobs/{job_id}/epochs")
        show(_table(job_id, state, epochs), epochs)
        if state["state"] != "running":
            return state
        time.sleep(_POLL_S)


def _table(job_id: str, state: Any, epochs: list[Any]) -> Table:
    title = f"{job_id}: {state['state']}, version {state['version']}"
    table = Table(
        "epoch", "accuracy", "loss", "useful Wh", "wasted Wh", "idle Wh", "cost EUR", "reward EUR", title=title, title_justify="left"
    )
    for row in epochs:
        table.add_row(*_row(row))
    return table


def _row(row: Any) -> list[str]:
    figures = [f"{kwh(row[use]) * 1000:.2f}" for use in ("useful_j", "wasted_j", "idle_j")]
    money = [f"{row[name] / MICRO:.6f}" for name in ("cost_micro", "reward_micro")]
    quality = ["" if row["accuracy"] is None else f"{row['accuracy']:.2%}", "" if row["loss"] is None else f"{row['loss']:.4f}"]
    return [str(row["number"]), *quality, *figures, *money]


def _lines(epochs: list[Any], seen: set[int]) -> None:
    """One line for each epoch that has ended since the last look."""
    for row in epochs:
        if row["ended_at"] is not None and row["number"] not in seen:
            seen.add(row["number"])
            number, accuracy, loss, useful, wasted, idle, _, reward = _row(row)
            out.print(
                f"epoch {number}: accuracy {accuracy}, loss {loss}, {useful} Wh useful, {wasted} wasted, {idle} idle, reward {reward} EUR"
            )


@app.command()
def fetch(
    job_id: str,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: JOB.safetensors.")] = None,
    version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """The trained weights by the names of your module's state_dict, and their evaluation as JSON beside them."""
    from gridsched import owner

    path = output or Path(f"{job_id}.safetensors")
    with daemon_at(site, url, token) as daemon:
        data, row = owner.fetch(daemon, job_id, number=version)
    path.write_bytes(data)
    path.with_suffix(".json").write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    accuracy = "" if row["accuracy"] is None else f", test accuracy {row['accuracy']:.2%}"
    out.print(f"version {row['number']} is in [bold]{path}[/bold]{accuracy}; its evaluation is in {path.with_suffix('.json')}")
    out.print(f'  module.load_state_dict(safetensors.torch.load_file("{path}"))', markup=False)


@app.command()
def cancel(job_id: str, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """End a job; energy drawn so far is paid."""
    with daemon_at(site, url, token) as daemon:
        daemon.post(f"/v1/jobs/{job_id}/cancel")
    out.print(f"job {job_id} is cancelled")
