"""``gridsched evaluate``: studies of what unreliable nodes, data, members and rules do to a model, as tables and pictures."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gridsched.cli.base import err, out, told
from gridsched.cli.output import importing, writing
from gridsched.core.errors import InvalidInput

if TYPE_CHECKING:
    from gridsched.study.churn import Arm, Outcome

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Studies on this machine: tables and pictures into a folder.")

OutArgument = Annotated[Path, typer.Argument(help="A folder for the tables, the figures, the pictures and the logs.")]
JobOption = Annotated[Path | None, typer.Option("--job", help="The job file; default: the shipped network for Fashion-MNIST.")]


def _numbers(text: str, what: str) -> list[float]:
    try:
        found = [float(part) for part in text.split(",") if part.strip()]
    except ValueError as error:
        raise InvalidInput(f"{what} {text!r} is not a list of numbers; write it like 2,5,15") from error
    if any(not number > 0 for number in found):
        raise InvalidInput(f"{what} {text!r} must be above 0, all of them")
    return found


@app.command()
def churn(
    folder: OutArgument,
    every: Annotated[str, typer.Option(help="Opting out and in every so many seconds; empty: not at all.")] = "2,5,15,30,60,120",
    power_cuts: Annotated[str, typer.Option(help="Killed and started again every so many seconds; empty: not at all.")] = "15,30,60,120",
    nodes: Annotated[int, typer.Option(min=2, help="How many nodes.")] = 3,
    epochs: Annotated[int | None, typer.Option(min=1, help="Default: the job file's.")] = None,
    at_most: Annotated[float, typer.Option(help="Seconds after which a run is ended where it is.")] = 600.0,
    job: JobOption = None,
) -> None:
    """Nodes switched off and on every X seconds, against all of them in peace and one alone: accuracy, time and energy per epoch."""
    with told():
        with importing():
            from gridsched.report.study import write
            from gridsched.study.churn import arms
            from gridsched.study.tables import churn_document, churn_panels, churn_rows

        planned = arms(nodes, opt_outs_s=_numbers(every, "--every"), power_cuts_s=_numbers(power_cuts, "--power-cuts"))
        _empty(folder)
        found, job_id = _carry_out(planned, folder, job, epochs=epochs, fleet_size=nodes, at_most_s=at_most)
        with writing(folder):
            _tell(write(folder, "churn", churn_document(found, job_id), churn_rows(found), churn_panels(found)))


@app.command()
def peers(
    folder: OutArgument,
    power_cuts: Annotated[str, typer.Option(help="Killed and started again every so many seconds.")] = "15,30,60,120",
    nodes: Annotated[int, typer.Option(min=2, help="How many nodes.")] = 3,
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of the job.")] = 10,
    at_most: Annotated[float, typer.Option(help="Seconds after which a run is ended where it is.")] = 600.0,
    flower: Annotated[
        Path | None, typer.Option(help="A virtual environment with flwr, torch and numpy; without it Flower is left out.")
    ] = None,
    job: JobOption = None,
) -> None:
    """The same job, machines and power cuts with gridsched, plain torch.distributed and Flower: accuracy, time and energy per epoch."""
    with told():
        with importing():
            from gridsched.report.study import write
            from gridsched.study.churn import arms
            from gridsched.study.flower import with_flower
            from gridsched.study.peers import with_torch
            from gridsched.study.tables import peers_document, peers_panels, peers_rows

        planned = arms(nodes, opt_outs_s=[], power_cuts_s=_numbers(power_cuts, "--power-cuts"))
        _empty(folder)
        found, job_id = _carry_out(planned, folder, job, epochs=epochs, fleet_size=nodes, at_most_s=at_most)
        with err.status("") as status:
            for number, arm in enumerate(planned):
                place = folder / "runs" / f"torch-{number:02d}"
                found.append(with_torch(arm, _file(job), place, epochs=epochs, fleet_size=nodes, at_most_s=at_most, told=status.update))
                out.print(_said(found[-1], found))
            for number, arm in enumerate(planned if flower is not None else ()):
                assert flower is not None
                place = folder / "runs" / f"flower-{number:02d}"
                run = partial(with_flower, epochs=epochs, fleet_size=nodes, at_most_s=at_most, told=status.update)
                found.append(run(arm, _file(job), place, flower))
                out.print(_said(found[-1], found))
        with writing(folder):
            _tell(write(folder, "peers", peers_document(found, job_id), peers_rows(found), peers_panels(found)))


SamplesOption = Annotated[int | None, typer.Option(min=10, help="Learn from the first so many samples only; default: all.")]
EpochsOption = Annotated[int | None, typer.Option(min=1, help="Default: the job file's.")]
SeedOption = Annotated[int, typer.Option(help="Of the order of samples and all else that is drawn.")]


@app.command()
def data(
    folder: OutArgument, job: JobOption = None, epochs: EpochsOption = None, samples: SamplesOption = None, seed: SeedOption = 0
) -> None:
    """Accuracy against the amount of data."""
    _study(folder, "data", job, epochs, samples, seed)


@app.command()
def members(
    folder: OutArgument, job: JobOption = None, epochs: EpochsOption = None, samples: SamplesOption = None, seed: SeedOption = 0
) -> None:
    """Accuracy against the number of members that are trained apart and asked together."""
    _study(folder, "members", job, epochs, samples, seed)


@app.command()
def combination(
    folder: OutArgument, job: JobOption = None, epochs: EpochsOption = None, samples: SamplesOption = None, seed: SeedOption = 0
) -> None:
    """Every rule for combining members' answers, for members who hold alike, uneven and different samples."""
    _study(folder, "combination", job, epochs, samples, seed)


def _study(folder: Path, name: str, job: Path | None, epochs: int | None, samples: int | None, seed: int) -> None:
    with told():
        with importing():
            from gridsched.report.study import markdown, write
            from gridsched.study import together
            from gridsched.study.alone import bench
            from gridsched.study.quality_tables import combination_told, data_told, members_told

        _empty(folder)
        with err.status("tracing the network") as status:
            made = bench(_file(job), epochs=epochs, samples=samples, seed=seed)
            method = made.spec.method
            about = f"{_file(job).name}, {made.spec.samples} samples, {method.epochs} epochs, seed {seed}; trained in one process"
            found = {
                "data": lambda: data_told(together.data(made, status.update), about),
                "members": lambda: members_told(together.members(made, status.update), about),
                "combination": lambda: combination_told(together.combinations(made, status.update), about),
            }[name]()
        out.print(markdown(found.rows), markup=False)
        with writing(folder):
            _tell(write(folder, name, found.document, found.rows, found.panels))


def _empty(folder: Path) -> None:
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        full = any(folder.iterdir())
    if full:
        raise InvalidInput(f"{folder} is not empty; name a new folder")


def _file(job: Path | None) -> Path:
    from gridsched.plugins import shipped

    return job or shipped("examples") / "fashion_cnn.py"


def _carry_out(
    planned: "Sequence[Arm]", folder: Path, job: Path | None, *, epochs: int | None, fleet_size: int, at_most_s: float
) -> "tuple[list[Outcome], str]":
    """Every arm with gridsched, and the job's id."""
    from gridsched import owner
    from gridsched.study.churn import carry_out

    submission = owner.prepare(_file(job), zone="study", changes={"epochs": epochs})
    (folder / "runs").mkdir()
    found: list[Outcome] = []
    with err.status("") as status:
        for number, arm in enumerate(planned):
            place = folder / "runs" / f"{number:02d}"
            found.append(carry_out(arm, submission, place, fleet_size=fleet_size, at_most_s=at_most_s, told=status.update))
            out.print(_said(found[-1], found))
    return found, submission.spec.job_id


def _said(one: "Outcome", before: "Sequence[Outcome]") -> str:
    told_bits = one.digest and one.done >= 1 and len(before) > 1
    bits = "" if not told_bits else ", the same bits" if one.digest == before[0].digest else ", other bits"
    accuracy = "no epoch evaluated" if one.accuracy is None else f"accuracy {one.accuracy:.2%}"
    end = "" if one.done >= 1 else f" ({one.done:.0%} done when time was up)"
    return f"{one.arm}: {accuracy}{bits}, {one.wall_s:.0f} s, {(one.useful_j + one.wasted_j) / 3600:.3f} Wh per epoch{end}"


def _tell(written: Sequence[Path]) -> None:
    for path in written:
        out.print(f"{path}", markup=False)
