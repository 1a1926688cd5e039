"""``gridsched demo``: the main job on one machine, in about two minutes."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from gridsched.core.errors import GridschedError

__all__ = ["demo"]


def demo(
    keep: Annotated[
        bool, typer.Option("--keep", help="Leave the daemon and the nodes running, and say where and how to stop them.")
    ] = False,
    no_kill: Annotated[
        bool, typer.Option("--no-kill", help="A quiet day: nobody opts out, nothing is killed. The weights come out the same.")
    ] = False,
    kill_daemon: Annotated[bool, typer.Option("--kill-daemon", help="Kill the daemon too, in the middle, and start it again.")] = False,
    seed: Annotated[int, typer.Option(help="Which nodes are struck, and when. The weights come out the same.")] = 0,
    speed: Annotated[
        float | None, typer.Option(help="How many times as fast as the real day; default: 860, less on a busy machine.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The site, the logs, the picture and demo-summary.json go here.")] = Path("demo-out"),
    plain: Annotated[
        bool, typer.Option("--plain", help="A line for each event instead of the live view, as when the output is no terminal.")
    ] = False,
) -> None:
    """A real German day: surplus comes and goes, three nodes train a network, one opts out and one is killed; nothing is lost."""
    from gridsched.demo.play import Options, play

    console = Console(highlight=False)
    options = Options(
        folder=out.absolute(),
        keep=keep,
        quiet=no_kill,
        kill_daemon=kill_daemon,
        seed=seed,
        speed=speed,
        plain=plain or not console.is_terminal,
    )
    try:
        play(options, console)
    except GridschedError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(1) from error
    except KeyboardInterrupt:
        console.print("\nstopped; all processes are ended, what they wrote is in", options.folder)
        raise typer.Exit(130) from None
