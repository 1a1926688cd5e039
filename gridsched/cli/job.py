"""The model owner's commands: add a dataset, submit a job, watch it, fetch what it has become."""

import json
import time
from collections.abc import Callable, Set
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.live import Live
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, out
from gridsched.cli.output import may_write, writing
from gridsched.core.errors import InvalidInput
from gridsched.core.job import JobSpec
from gridsched.core.quantity import quantity
from gridsched.core.units import MICRO, kwh, utc
from gridsched.remote import Operator

__all__ = ["JobArgument", "app", "datasets"]

app = typer.Typer(no_args_is_help=True, help="Jobs: submit, watch, fetch.")
datasets = typer.Typer(no_args_is_help=True, help="Datasets by name.")

JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job, or an ensemble of jobs.")]
Look = Callable[[Operator, list[Any]], tuple[Table, list[str]]]

_POLL_S = 1.0
_SHOWN = 8
"""Units under way that are shown; where something is in doubt, they are the first ones."""


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
    from gridsched.train.tables import read_table

    with daemon_at(site, url, token) as daemon:
        added = owner.add_dataset(daemon, name, read_table(file, label=label), attribution=attribution)
    out.print(f"dataset [bold]{name}[/bold]: {added.samples} samples, {added.size_bytes / 1e6:.2f} MB, manifest {added.digest[:12]}")


@datasets.command("list")
def list_datasets(site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """All datasets."""
    with daemon_at(site, url, token) as daemon:
        rows = daemon.get("/v1/datasets")
    for row in rows:
        size = f"{row['samples']} samples  {row['size_bytes'] / 1e6:.2f} MB"
        out.print(f"{row['name']}  {size}  {row['digest'][:12]}  {row['attribution']}", markup=False)


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
    runtime: Annotated[
        str,
        typer.Option(help="Only nodes with this runtime: torch, or wasm for the same bits on every device. Default: any that covers it."),
    ] = "",
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Trace the model, store program and samples, and hand the job in. The same thing twice is one job, with the wishes said last."""
    from gridsched import owner
    from gridsched.cli.operator import only_zone

    with daemon_at(site, url, token) as daemon:
        wishes = _wishes(deadline, priority, top_up=top_up, below=top_up_below) | {"runtime": runtime}
        with out.status("tracing the model"):
            made = owner.prepare(file, zone=zone or only_zone(daemon), name=name, seed=seed, changes={"epochs": epochs}, wishes=wishes)
        with Progress(console=out, transient=True) as progress:
            bar = progress.add_task("storing", total=sum(map(len, made.blobs.values())))
            spec = owner.submit(daemon, made, progress=lambda size: progress.advance(bar, size))
        lacking = daemon.get(f"/v1/jobs/{spec.job_id}")["wasm_lacks"]
    out.print(_submitted(spec, members=len(made.specs)))
    if lacking:
        out.print(f"for nodes with PyTorch alone: the wasm runtime does not cover it ({lacking})", markup=False, soft_wrap=True)
    if spec.deadline is not None:
        out.print(f"due by {spec.deadline:%Y-%m-%d %H:%M} UTC; its hours: gridsched schedule show {spec.job_id}")
    out.print(f"next: gridsched job watch {made.name}")


def _submitted(spec: JobSpec, *, members: int) -> str:
    """What was handed in, in a line or two."""
    epochs, parts = f"{spec.method.epochs} epochs", ", ".join(map(str, spec.parts))
    if spec.local and not spec.ensemble:
        return f"job [bold]{spec.job_id}[/bold]: {epochs}, a unit on each node that holds data {spec.local}"
    if spec.ensemble:
        drawn = f"each node's data {spec.local}" if spec.local else f"{spec.samples} samples each"
        what = f"a part each: {parts}" if spec.parts else f"{drawn}, drawn with replacement"
        return f"ensemble [bold]{spec.ensemble}[/bold]: {members} members, {epochs}, {what}"
    if spec.parts:
        units = f"{min(spec.units_at_once, len(spec.parts))} of {len(spec.parts)} parts in a round"
        return f"job [bold]{spec.job_id}[/bold]: {spec.samples} samples, {epochs}, {units}; their samples: {parts}"
    return f"job [bold]{spec.job_id}[/bold]: {spec.samples} samples, {epochs}, units of {spec.unit_samples} samples"


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
        out.print(f"{row['job_id']}  {row['state']}  version {row['version']}  {row['reason']}", markup=False)
    if not rows:
        out.print("no job yet; submit one with: gridsched job submit examples/image_cnn.py")


@app.command()
def watch(name: JobArgument, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """Follow a job, or all members of an ensemble, until the end."""
    from gridsched.trained import jobs_of

    with daemon_at(site, url, token) as daemon:
        ids = [job["job_id"] for job in jobs_of(daemon, name)]
        look = _look_at_members if len(ids) > 1 else _look_at_job
        if out.is_terminal:
            with Live(console=out, auto_refresh=False) as live:
                states = _follow(daemon, ids, look, lambda table, _: live.update(table, refresh=True))
        else:
            seen: set[str] = set()
            states = _follow(daemon, ids, look, lambda _, lines: _tell(lines, seen))
    for state in states:
        out.print(f"job {state['job_id']} is {state['state']}" + (f": {state['reason']}" if state["reason"] else ""), markup=False)
    if any(state["state"] != "done" for state in states):
        raise typer.Exit(1)


def _follow(daemon: Operator, ids: list[str], look: Look, show: Callable[[Table, list[str]], object]) -> list[Any]:
    while True:
        states = [daemon.get(f"/v1/jobs/{job_id}") for job_id in ids]
        show(*look(daemon, states))
        if all(state["state"] != "running" for state in states):
            return states
        time.sleep(_POLL_S)


def _tell(lines: list[str], seen: set[str]) -> None:
    """Print each line once."""
    for line in lines:
        if line not in seen:
            seen.add(line)
            out.print(line)


def _look_at_job(daemon: Operator, states: list[Any]) -> tuple[Table, list[str]]:
    """A job's epochs as a table, what its round waits for under it, and a line for each epoch that has ended."""
    (state,) = states
    epochs = daemon.get(f"/v1/jobs/{state['job_id']}/epochs")
    units = daemon.get(f"/v1/jobs/{state['job_id']}/units", limit=_SHOWN + 1)
    table = _table(state["job_id"], state, epochs)
    said = [f"for torch alone: {state['wasm_lacks']}"] if state["wasm_lacks"] else []
    said += [unit["waits"] for unit in units[:_SHOWN]] + ["..."] * (len(units) > _SHOWN)
    table.caption, table.caption_justify = escape("\n".join(said)), "left"
    return table, [_line(row) for row in epochs if row["ended_at"] is not None]


def _look_at_members(_: Operator, states: list[Any]) -> tuple[Table, list[str]]:
    """An ensemble's members as a table, and a line for each that has ended."""
    title = f"{states[0]['spec']['ensemble']}: {sum(state['state'] == 'done' for state in states)} of {len(states)} members done"
    table = Table("member", "state", "epoch", "version", "accuracy", title=title, title_justify="left")
    for state in states:
        accuracy = "" if state["accuracy"] is None else f"{state['accuracy']:.2%}"
        table.add_row(str(state["spec"]["member"]), state["state"], str(state["epoch"]), str(state["version"]), accuracy)
    ended = [state for state in states if state["state"] != "running"]
    return table, [f"member {state['spec']['member']} is {state['state']} at version {state['version']}" for state in ended]


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


def _line(row: Any) -> str:
    """An ended epoch in a line."""
    number, accuracy, loss, useful, wasted, idle, _, reward = _row(row)
    return f"epoch {number}: accuracy {accuracy}, loss {loss}, {useful} Wh useful, {wasted} wasted, {idle} idle, reward {reward} EUR"


@app.command()
def fetch(
    name: JobArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: JOB.safetensors; of an ensemble, a folder named after it.")
    ] = None,
    version: Annotated[int | None, typer.Option(help="Default: the newest.")] = None,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """The trained weights by the names of your module's state_dict, and their evaluation as JSON beside them."""
    from gridsched import trained

    with daemon_at(site, url, token) as daemon:
        jobs = trained.jobs_of(daemon, name)
        if jobs[0]["job_id"] != name:
            _fetch_members(daemon, jobs, output or Path(name), version)
            return
        path = output or Path(f"{name}.safetensors")
        beside = _beside(path)
        data, row = trained.fetch(daemon, jobs[0], number=version)
        with writing(path):
            path.write_bytes(data)
        with writing(beside):
            beside.write_text(json.dumps(row, indent=2) + "\n", encoding="utf-8")
    accuracy = "" if row["accuracy"] is None else f", test accuracy {row['accuracy']:.2%}"
    out.print(f"version {row['number']} is in [bold]{escape(str(path))}[/bold]{accuracy}; its evaluation is in {escape(str(beside))}")
    out.print(f'  module.load_state_dict(safetensors.torch.load_file("{path}"))', markup=False)


def _beside(path: Path) -> Path:
    """Where the evaluation of the weights at ``path`` goes; raises `InvalidInput` where one of the two cannot or must not be written."""
    if path.suffix.lower() == ".json":
        raise InvalidInput(f"{path} would be the evaluation's; name a file for the weights, such as {path.with_suffix('.safetensors')}")
    may_write(path)
    beside = path.with_suffix(".json")
    may_write(beside)
    _spare(beside, beside, keys={"job_id", "number", "digest"})
    return beside


def _spare(path: Path, about: Path, *, keys: Set[str]) -> None:
    """Raise `InvalidInput` where ``path`` is there and ``about`` is not JSON with ``keys``, as an earlier fetch leaves it."""
    if not path.exists():
        return
    try:
        found = json.loads(about.read_bytes())
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict) or not keys <= found.keys():
        raise InvalidInput(f"{path} is there already, and is not of an earlier fetch; move it away, or choose another place with --output")


def _fetch_members(daemon: Operator, jobs: list[Any], folder: Path, version: int | None) -> None:
    """A file for each member, and ``ensemble.json``, which says what they are."""
    from gridsched import trained

    index = folder / "ensemble.json"
    files = [folder / f"member-{job['spec']['member']}.safetensors" for job in jobs]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for path in (*files, index):
        may_write(path)
        _spare(path, index, keys={"ensemble", "members"})
    rows = []
    for job, file in zip(jobs, files, strict=True):
        data, row = trained.fetch(daemon, job, number=version)
        with writing(file):
            file.write_bytes(data)
        rows.append({"member": job["spec"]["member"], "file": file.name, **row})
    spec = jobs[0]["spec"]
    about = {"ensemble": spec["ensemble"], "method": spec["method"]["name"], "parts": spec["parts"], "members": rows}
    with writing(index):
        index.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    out.print(f"{len(rows)} members are in [bold]{escape(str(folder))}[/bold]; ensemble.json says which version each one is")


@app.command()
def cancel(name: JobArgument, site: SiteOption = None, url: UrlOption = None, token: TokenOption = None) -> None:
    """End a job, or all members of an ensemble; energy drawn so far is paid."""
    from gridsched.trained import jobs_of

    with daemon_at(site, url, token) as daemon:
        jobs = jobs_of(daemon, name)
        for job in jobs:
            daemon.post(f"/v1/jobs/{job['job_id']}/cancel")
        states = [daemon.get(f"/v1/jobs/{job['job_id']}")["state"] for job in jobs]
    if jobs[0]["job_id"] == name:
        out.print(f"job {name} is {states[0]}" + ("" if states[0] == "cancelled" else " already; there is nothing to cancel"))
        return
    of = f"all {len(jobs)}" if states.count("cancelled") == len(jobs) else f"{states.count('cancelled')} of {len(jobs)}"
    out.print(f"{of} members of {name} are cancelled" + ("" if of.startswith("all") else "; the others had ended before"))
