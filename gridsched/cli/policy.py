"""``gridsched policy``: does it parse, what does it need, and what did it decide."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from gridsched.cli.ahead import JsonOption, PlotOption, give
from gridsched.cli.base import SiteOption, TokenOption, UrlOption, daemon_at, err, out
from gridsched.cli.operator import only_zone, tell_decision
from gridsched.cli.output import may_draw, writing
from gridsched.core.errors import GridschedError
from gridsched.core.rule import Policy
from gridsched.core.units import MICRO
from gridsched.plugins import load_policies, load_policy

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Policies: check one, and ask what it decided.")


@app.command()
def check(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Policy files.")]) -> None:
    """Parse policies strictly and say what each looks at, draws and pays."""
    wrong = 0
    for path in files:
        try:
            _tell(path, load_policy(path))
        except GridschedError as error:
            wrong += 1
            err.print(str(error), style="red", markup=False, soft_wrap=True)
    if not wrong and len(files) > 1:
        try:
            load_policies(files)
        except GridschedError as error:
            wrong += 1
            err.print(str(error), style="red", markup=False, soft_wrap=True)
    if wrong:
        raise typer.Exit(1)


def _tell(path: Path, policy: Policy) -> None:
    out.print(f"[green]ok[/green] [bold]{escape(str(path))}[/bold] rules zone {policy.zone}  ({policy.digest[:12]})")
    draw = policy.draw
    much = f"{draw.watts:g} W" if draw.watts is not None else f"{draw.share:.0%} of the {draw.share_of}"
    cap = "" if draw.max_w is None else f", at most {draw.max_w:g} W"
    out.print(f"   looks at {', '.join(policy.signals)}; draws {much}{cap}")
    out.print(
        f"   pays {policy.reward.micro_per_kwh / MICRO:g} EUR per kWh and {policy.reward.micro_per_unit / MICRO:g} EUR per finished unit"
    )


@app.command()
def explain(
    zone: Annotated[str, typer.Option(help="Default: the daemon's only zone.")] = "",
    at: Annotated[str, typer.Option(help="A moment such as 2018-01-28T12:00:00Z; default: the newest decision.")] = "",
    as_json: JsonOption = False,
    plot: PlotOption = None,
    site: SiteOption = None,
    url: UrlOption = None,
    token: TokenOption = None,
) -> None:
    """The story of the decision that held at a moment, and what was around it."""
    with daemon_at(site, url, token) as daemon:
        may_draw(plot)
        told = daemon.get(f"/v1/zones/{zone or only_zone(daemon)}/explain", **({"at": at} if at else {}))
        if not as_json:
            tell_decision(told["decision"])
        if plot is not None:
            from gridsched.report.ahead import plot_decision

            with writing(plot):
                plot_decision(plot, told)
        give(told, as_json=as_json, plot=plot)
