"""What a trained model is worth to its owner: evaluate it, ask it, serve it, compare it with another."""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, err, out, told
from gridsched.cli.job import JobArgument
from gridsched.cli.output import may_draw, may_write, writing
from gridsched.core.errors import InvalidInput
from gridsched.remote import Operator
from gridsched.train.ensemble import Rule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from gridsched.compared import Course
    from gridsched.trained import Evaluated, Trained

__all__ = ["register"]

VersionOption = Annotated[int | None, typer.Option(help="Default: the newest.")]
RuleOption = Annotated[Rule | None, typer.Option(help="How an ensemble's members are combined; evaluate says which to use.")]
DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, mps, or auto for the fastest that is there.")]
_POLL_S = 1.0
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def register(app: typer.Typer) -> None:
    """Hang the commands on ``gridsched job``."""
    for command in (evaluate, predict, serve, compare):
        app.command()(command)


def evaluate(
    name: JobArgument,
    version: VersionOption = None,
    data: Annotated[
        Path | None, typer.Option(help="An .npz of arrays by field name; default: the test samples it was submitted with.")
    ] = None,
    rule: RuleOption = None,
    on_nodes: Annotated[bool, typer.Option("--on-nodes", help="Let a node of the running job do it, and wait for that.")] = False,
    wait_s: Annotated[float, typer.Option("--wait", min=1, help="With --on-nodes, at most so many seconds.")] = 600.0,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """How good a job's or an ensemble's model is, tried on this machine: accuracy, loss, each label, and every rule of combination."""
    from gridsched import trained
    from gridsched.train.tables import read_samples

    with daemon_at(site, url, token) as daemon:
        if on_nodes:
            if data is not None or rule is not None:
                raise InvalidInput("nodes evaluate a single job on its own test samples; leave out --data and --rule, or --on-nodes")
            _tell_row(_evaluated_by_nodes(daemon, name, version, wait_s), as_json=as_json)
            return
        with err.status("downloading"):
            model = trained.download(daemon, name, number=version, device=device)
            samples = read_samples(data, ()) if data else trained.held_out(daemon, model.jobs)
        with err.status("evaluating"):
            found = trained.evaluate(model, samples)
        if rule is not None and rule.value not in found.by_rule:
            raise InvalidInput(f"{name} is not combined by {rule}; there is {', '.join(found.by_rule) or 'no rule'} for it")
    if as_json:
        out.print(json.dumps({"name": name, "versions": _numbers(model), **asdict(found)}), markup=False)
    else:
        _show(model, found, rule.value if rule else found.best)


def _evaluated_by_nodes(daemon: Operator, job_id: str, number: int | None, wait_s: float) -> Any:
    """The version's journal row, once a node has evaluated it."""
    from gridsched.trained import jobs_of

    first = jobs_of(daemon, job_id)[0]
    if first["job_id"] != job_id:
        raise InvalidInput(f"nodes evaluate single jobs, and {job_id} is an ensemble; ask for a member, such as {first['job_id']}")
    wanted = first["version"] if number is None else number
    daemon.post(f"/v1/jobs/{job_id}/evaluate", {"version": wanted})
    until = time.monotonic() + wait_s
    with err.status(f"waiting for a node to evaluate version {wanted}"):
        while time.monotonic() < until:
            (row,) = [row for row in daemon.get(f"/v1/jobs/{job_id}/versions") if row["number"] == wanted]
            if row["loss"] is not None:
                return row
            time.sleep(_POLL_S)
    raise InvalidInput(f"no node has evaluated version {wanted} in {wait_s:.0f} s; it stays asked for. Why nodes wait: gridsched nodes")


def _tell_row(row: Any, *, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(row), markup=False)
        return
    accuracy = "" if row["accuracy"] is None else f", accuracy {row['accuracy']:.2%}"
    out.print(f"[bold]{row['job_id']}[/bold], version {row['number']}, on {row['test_samples']} samples: loss {row['loss']:.4f}{accuracy}")


def _numbers(model: "Trained") -> list[int]:
    return [int(version["number"]) for version in model.versions]


def _show(model: "Trained", found: "Evaluated", chosen: str) -> None:
    versions = ", ".join(map(str, sorted(set(_numbers(model)))))
    loss = "" if found.loss is None else f", loss {found.loss:.4f}"
    out.print(f"[bold]{model.name}[/bold], version {versions}, on {found.samples} samples{loss}")
    if len(found.by_rule) > 1:
        table = Table("rule", "accuracy", "log loss")
        for name, made in found.by_rule.items():
            table.add_row(f"[green]{name}[/green]" if name == found.best else name, f"{made.accuracy:.2%}", f"{made.loss:.4f}")
        out.print(table)
        out.print(f"the one to use, judged by these samples: [bold]{found.best}[/bold]")
    if not found.by_rule:
        return
    made = found.by_rule[chosen]
    table = Table("label", "answers", "recognised")
    for label, answers, accuracy in made.by_label:
        table.add_row(str(label), str(answers), f"{accuracy:.2%}")
    out.print(table)
    out.print(f"accuracy [bold]{made.accuracy:.2%}[/bold]" + (f" by {chosen}" if len(model.members) > 1 else ""))


def predict(
    name: JobArgument,
    input_file: Annotated[Path, typer.Option("--input", "-i", help="An .npz of arrays by field name, or a CSV with a sample in each row.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The .npz or .csv to write: probabilities and labels.")],
    version: VersionOption = None,
    rule: RuleOption = None,
    device: DeviceOption = "cpu",
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """A batch in, probabilities out."""
    from gridsched import trained
    from gridsched.train.tables import read_samples, write_prediction

    with daemon_at(site, url, token) as daemon:
        if output.suffix not in (".npz", ".csv"):
            raise InvalidInput(f"{output} must end in .npz or .csv")
        may_write(output)
        with err.status("downloading"):
            model = trained.download(daemon, name, number=version, device=device)
        predictor = model.predictor()
        chosen = predictor.rule(rule)
        with err.status("predicting"):
            made = predictor.predict(read_samples(input_file, predictor.fields), rule)
        with writing(output):
            write_prediction(output, made)
    out.print(f"{len(made.labels)} answers by {_told_by(model, chosen)} are in [bold]{escape(str(output))}[/bold]")


def _told_by(model: "Trained", rule: Rule) -> str:
    versions = ", ".join(map(str, sorted(set(_numbers(model)))))
    return f"version {versions}" if len(model.members) == 1 else f"{len(model.members)} members combined by {rule}"


def serve(
    name: JobArgument,
    port: Annotated[int, typer.Option(help="0 is any free port.")] = 8090,
    host: Annotated[
        str, typer.Option(help="Listen there; it asks nobody for a token, so leave it or put a proxy before it.")
    ] = "127.0.0.1",
    version: VersionOption = None,
    rule: RuleOption = None,
    device: DeviceOption = "cpu",
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """Answer predictions over HTTP from this machine, until Ctrl-C: POST /v1/predict."""
    from functools import partial

    from gridsched import trained
    from gridsched.core.settings import Web
    from gridsched.web.app import server
    from gridsched.web.predict import build

    with daemon_at(site, url, token) as daemon:
        with err.status("downloading"):
            model = trained.download(daemon, name, number=version, device=device)
        predictor = model.predictor()
        chosen = predictor.rule(rule)
        about: dict[str, Any] = {"model": name, "version": max(_numbers(model)), "rule": chosen.value if predictor.rules else "single"}
    app = build(partial(predictor.predict, rule=rule), predictor.fields, about)
    running = server(app, Web(host=host, port=port), ready=lambda: _announce(name, running.servers[0].sockets[0].getsockname()))
    running.run()


def _announce(name: str, address: tuple[Any, ...]) -> None:
    out.print(f"{name} answers on http://{address[0]}:{address[1]}/v1/predict; Ctrl-C ends it", markup=False)


def compare(
    names: Annotated[list[str], typer.Argument(metavar="JOB JOB...", help="Two or more jobs or ensembles.")],
    picture: Annotated[Path | None, typer.Option("--out", help="A PNG of accuracy against energy and against time.")] = None,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """What jobs reached and what it took: accuracy, energy, money, time and bytes, and which is better at equal energy."""
    from gridsched.compared import at_equal_energy, course

    with daemon_at(site, url, token) as daemon:
        if len(set(names)) < 2:
            raise InvalidInput("name two different jobs or more, such as: gridsched job compare JOB JOB")
        may_draw(picture)
        courses = [course(daemon, name, device=device) for name in dict.fromkeys(names)]
    better = at_equal_energy(courses)
    if as_json:
        rows = [{**asdict(one), "best_accuracy": one.best_accuracy} for one in courses]
        winner = None if better is None else {"energy_wh": better[0], "better": better[1]}
        out.print(json.dumps({"courses": rows, "at_equal_energy": winner}), markup=False)
    else:
        out.print(_side_by_side(courses))
        out.print(_verdict(courses, better))
    if picture is not None:
        from gridsched.report.compare import plot

        with told(), writing(picture):
            plot(picture, [asdict(one) for one in courses])
        err.print(f"{picture} shows it", markup=False, soft_wrap=True)


def _side_by_side(courses: "Sequence[Course]") -> Table:
    table = Table("", *(one.name for one in courses))
    for column in table.columns[1:]:
        column.justify = "right"
    for row, tell in _ROWS.items():
        table.add_row(row, *(tell(one) for one in courses))
    return table


def _per_epoch(one: "Course", watt_hours: float) -> str:
    return f"{watt_hours / len(one.points):.3f}" if one.points else ""


def _time(hours: float) -> str:
    return f"{hours:.1f} h" if hours >= 2 else f"{60 * hours:.2f} min"


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


_ROWS: "Mapping[str, Callable[[Course], str]]" = {
    "method": lambda one: one.method + (f", {one.members} members by {one.rule}" if one.rule else ""),
    "state": lambda one: one.state,
    "epochs, versions": lambda one: f"{len(one.points)}, {one.versions}",
    "best accuracy": lambda one: _share(one.best_accuracy),
    "final accuracy": lambda one: _share(one.final.accuracy if one.final else None),
    "final loss": lambda one: "" if one.final is None or one.final.loss is None else f"{one.final.loss:.4f}",
    "useful Wh per epoch": lambda one: _per_epoch(one, one.useful_wh),
    "wasted Wh per epoch": lambda one: _per_epoch(one, one.wasted_wh),
    "idle Wh per epoch": lambda one: _per_epoch(one, one.idle_wh),
    "reward EUR": lambda one: f"{one.reward_eur:.6f}",
    "cost EUR": lambda one: f"{one.cost_eur:.6f}",
    "time": lambda one: _time(one.final.hours) if one.final else "",
    "MB down to a node": lambda one: f"{one.down_bytes / 1e6:.2f}",
}


def _verdict(courses: "Sequence[Course]", better: tuple[float, str] | None) -> str:
    if better is None:
        return "which is better at equal energy is not known: one of them was not metered, or not evaluated"
    energy_wh, best = better
    reached = ", ".join(f"{one.name} {_share(one.accuracy_within(energy_wh)) or 'nothing yet'}" for one in courses)
    return f"at equal energy, {energy_wh:.3f} Wh: {reached}; better: [bold]{best}[/bold]"
