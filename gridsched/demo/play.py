"""The demo from beginning to end: set up, let the day pass, tell what came of it."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from gridsched import config, owner, remote, sites
from gridsched.clock import SystemClock
from gridsched.core.errors import GridschedError
from gridsched.core.job import JobSpec
from gridsched.daemon import open_clock
from gridsched.demo import pace, site
from gridsched.demo.ending import tell
from gridsched.demo.scene import Line, Scene, clock_time
from gridsched.demo.stage import Stage, free_port, pids
from gridsched.demo.story import Act, Cue, Incident, next_cues, write_story
from gridsched.demo.view import MOODS, render
from gridsched.demo.watch import Watcher
from gridsched.node import start as node
from gridsched.node.settings import read_settings
from gridsched.node.state import Choice, Home
from gridsched.plugins import shipped
from gridsched.store.sql import SqlStore

__all__ = ["Options", "play"]

ZONE = "demo"
_JOB = "image_cnn.py"
_LONGEST = timedelta(days=2)
_LOOK_S = 0.2
_READY_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line says.

    ``folder`` becomes the site. ``quiet``: nobody opts out, nothing is killed. ``seed`` as in `write_story`. ``speed`` None: what suits
    the machine, as busy as it is now.
    """

    folder: Path
    keep: bool = False
    quiet: bool = False
    kill_daemon: bool = False
    seed: int = 0
    speed: float | None = None
    plain: bool = False


def play(options: Options, console: Console) -> dict[str, Any]:
    """Run the whole demo and return its summary; what it wrote is in ``options.folder``. Raises the first error with the log it is in."""
    begun = time.monotonic()
    speed = options.speed or _speed(console)
    site.write_site(options.folder, speed=speed)
    with _terminable(), Stage(options.folder, f"http://127.0.0.1:{free_port()}") as stage, ExitStack() as after:
        watcher = _set_up(stage, options.folder, console, speed=speed)
        after.callback(watcher.store.close)
        script = (
            () if options.quiet else write_story(_names(), watcher.look().units_planned, seed=options.seed, kill_daemon=options.kill_daemon)
        )
        _pass_the_day(stage, watcher, script, console, plain=options.plain)
        summary = tell(watcher, options.folder, console, crashes=stage.crashes, wall_s=time.monotonic() - begun)
        if options.keep:
            _leave_running(stage, console)
        return summary


def _names() -> list[str]:
    return [profile.name for profile in site.profiles()]


# Setting up.


def _speed(console: Console) -> float:
    free = pace.free_cores()
    speed = pace.speed_for(free)
    if speed < site.SPEED:
        console.print(
            f"this machine is busy ({free:.1f} cores are free), so the day will take {86_400 / speed:.0f} s instead of 100", style="yellow"
        )
    return speed


def _set_up(stage: Stage, folder: Path, console: Console, *, speed: float) -> Watcher:
    with console.status("[bold]Tracing the network and measuring this machine") as status:
        job = owner.prepare(shipped("examples") / _JOB, zone=ZONE, changes=pace.CHANGES)
        step_s = pace.step_s(job)
        status.update("[bold]Starting the daemon")
        settings = config.load(folder)
        sites.write_token(settings)
        stage.daemon().start()
        operator = remote.Operator(stage.url, settings.token_file.read_text(encoding="utf-8").strip())
        stage.wait_for(lambda: _answers(operator), what="the daemon's first answer", within_s=_READY_S)
        status.update("[bold]Three consumers join and opt in")
        spec = owner.submit(operator, job)
        _join_all(stage, operator, pace=pace.pace_of(step_s, speed), speed=speed)
        operator.close()
    _say_what_runs(console, stage, spec)
    return Watcher(
        store=SqlStore(settings.store.url),
        zone=ZONE,
        job_id=spec.job_id,
        now=open_clock(settings).now,
        day=site.DAY,
        speed=speed,
    )


def _answers(operator: remote.Operator) -> bool:
    with suppress(GridschedError):
        return bool(operator.get("/v1/status"))
    return False


def _join_all(stage: Stage, operator: remote.Operator, *, pace: float, speed: float) -> None:
    """Each consumer gets a code, joins, opts in, and starts an agent; all at once, for each waits for its runtime to be looked at."""

    def join(profile: site.Profile) -> None:
        home = Home(stage.home(profile.name))
        site.write_profile(home.folder, profile, pace=pace, speed=speed)
        node.join(home, stage.url, codes[profile.name], name=profile.name, power_w=profile.power_w, settings=read_settings(home.settings))
        node.choose(home, Choice(opted_in=True, made_at=SystemClock().now()))
        stage.node(profile.name).start()

    found = site.profiles()
    codes = {profile.name: str(operator.post("/v1/invites", {"zone": ZONE, "for_s": 7 * 86400.0})["code"]) for profile in found}
    with ThreadPoolExecutor(max_workers=len(found)) as threads:
        for _ in threads.map(join, found):
            stage.check()


def _say_what_runs(console: Console, stage: Stage, spec: JobSpec) -> None:
    method = spec.method
    console.print(f"daemon [bold]{stage.url}[/bold] with {len(_names())} nodes; logs in {stage.folder / 'logs'}", soft_wrap=True)
    console.print(f"job [bold]{spec.job_id}[/bold]: {method.epochs} epochs over {spec.samples} digits, {method.samples_per_unit} to a unit")


# The day.


def _pass_the_day(stage: Stage, watcher: Watcher, script: tuple[Incident, ...], console: Console, *, plain: bool) -> None:
    """Look, show, and do what the script says, until the job has ended and everyone is back."""
    given: dict[int, list[Cue]] = {}
    with _shown(console, plain=plain) as show:
        while True:
            stage.check()
            scene = watcher.look()
            cues = next_cues(script, given, scene)
            for cue in cues:
                given.setdefault(cue.incident, []).append(cue)
                _perform(cue, stage, watcher)
            show(scene)
            if scene.job_state != "running" and not cues:
                return
            if scene.now > scene.day + _LONGEST:
                raise GridschedError(
                    f"the training was not done within two days of the replay ({scene.units} of {scene.units_planned} units); "
                    f"this machine is too busy for --speed {scene.speed:g}, try a lower one. The logs are in {stage.folder / 'logs'}"
                )
            time.sleep(_LOOK_S)


@contextmanager
def _shown(console: Console, *, plain: bool) -> Iterator[Callable[[Scene], None]]:
    """How a scene is shown: the live view, or one line for each event."""
    if plain:
        printed = 0

        def print_new(scene: Scene) -> None:
            nonlocal printed
            for line in scene.lines[printed:]:
                console.print(_plain(line))
            printed = len(scene.lines)

        yield print_new
        return
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        yield lambda scene: live.update(render(scene, width=min(console.width, 120), height=console.height), refresh=True)


def _plain(line: Line) -> Text:
    return Text.assemble((f"{clock_time(line.at)}  ", "dim"), (line.text, MOODS[line.mood]))


def _perform(cue: Cue, stage: Stage, watcher: Watcher) -> None:
    """Do to a process, or choose for a consumer, what the cue says."""
    match cue.act:
        case Act.OPT_OUT | Act.OPT_IN:
            node.choose(Home(stage.home(cue.node)), Choice(opted_in=cue.act is Act.OPT_IN, made_at=SystemClock().now()))
        case Act.KILL:
            stage.node(cue.node).kill()
            watcher.say(f"kill -9: {cue.node} loses its power in the middle of a unit", "bad")
        case Act.REVIVE:
            stage.node(cue.node).start()
            watcher.say(f"{cue.node} has power again", "good")
        case Act.KILL_DAEMON:
            stage.daemon().kill()
            watcher.say("kill -9: the daemon dies", "bad")
            stage.daemon().start()
            watcher.say("the daemon is started again and takes up what was left", "good")


# After it.


def _leave_running(stage: Stage, console: Console) -> None:
    stage.kept = True
    running = " ".join(str(pid) for pid in pids(stage))
    console.print(f"\n[bold]Still running:[/bold] {stage.url}  (operator token in {stage.folder / 'operator.token'})")
    console.print(f"  metrics at {stage.url}/metrics; ask with: gridsched status --site {stage.folder}", soft_wrap=True)
    console.print(f"  stop everything with: kill {running}", soft_wrap=True)


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends the demo like Ctrl-C, so that no process is left behind."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
