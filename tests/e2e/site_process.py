"""A site and its nodes as real processes: made in a folder, waited for with a deadline, and always swept up.

The daemon listens on a free port and keeps it over a restart. Two files give the grid's signals around the present; `Site.grid`
writes them anew. Nothing here sleeps in the hope that something has happened: `Site.wait` asks until it has, and fails with
the last words of every process.
"""

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from gridsched import config, owner
from gridsched.clock import SystemClock
from gridsched.core.errors import GridschedError, Unreachable
from gridsched.demo.stage import Process
from gridsched.node import start
from gridsched.node.state import Choice, Home, Status
from gridsched.plugins import shipped
from gridsched.remote import Operator
from gridsched.sites import write_token

__all__ = ["GRID_FILES", "JOB_FILE", "MOST_WATTS", "PATIENCE_S", "POLICY", "ZONE", "NodeProcess", "Site", "submission"]

T = TypeVar("T")

ZONE = "z1"
PATIENCE_S = 90.0
"""Many times what anything here takes on an idle machine."""

MOST_WATTS = 1000.0
JOB_FILE = shipped("examples") / "tabular_mlp.py"

_LAST_LINES = 40
_LOOK_S = 0.05
_GRACE_S = 15.0

_FILE_ADAPTER = """
[[adapter]]
use = "signals/file.py"
zone = "{zone}"
path = "{signal}.csv"
signal = "{signal}"
unit = "{unit}"
resolution = "1h"
time = "time"
value = "value"
every = "0.5s"
"""
GRID_FILES = "".join(_FILE_ADAPTER.format(zone=ZONE, signal=s, unit=u) for s, u in (("price", "EUR/MWh"), ("surplus", "W")))

_SITE = """
[site]
name = "e2e"

[store]
url = "{store}"

[control]
every = "{every}"
sync_every = "1s"
lease_ttl = "15s"
absent_after = "5s"
start_jitter = "0.2s"
hand_over_after = "1m"
"""
POLICY = """
zone = "{zone}"
timezone = "Europe/Berlin"

[when]
any = [{{ signal = "price", below = "{below:g} EUR/MWh", stop = "{below:g} EUR/MWh" }}]

[draw]
watts = {watts:g}

[reward]
per_kwh_eur = 0.30
per_unit_eur = 0.0005
"""
_NODE = """
runtime = "{runtime}"
priority = "low"
save_every = "{save_every}"
release_memory_after = "10m"

[limits]
cpu_share = {cpu_share:g}
not_on_battery = false
min_free_disk = "0.01 GB"
"""


@cache
def submission(*, epochs: int, passes: int, zone: str = ZONE) -> owner.Submission:
    """The example with its small network; ``passes`` over its samples make a unit long enough to be struck in the middle."""
    return owner.prepare(JOB_FILE, zone=zone, changes={"epochs": epochs, "passes": passes})


@dataclass(kw_only=True)
class NodeProcess:
    """One consumer's machine: its home folder and its agent, whose worker is a child of it."""

    name: str
    home: Home
    process: Process

    def choose(self, *, opted_in: bool) -> None:
        """What ``gridsched node opt-in`` and ``opt-out`` do."""
        start.choose(self.home, Choice(opted_in=opted_in, made_at=SystemClock().now()))

    def status(self) -> Status:
        """What the agent last wrote of itself."""
        return self.home.status() or Status(node_id=self.name, phase="none", reason="never_run")

    @property
    def in_the_middle(self) -> bool:
        """Whether it is between a unit's first step and its last, as far as it has told."""
        status = self.status()
        return status.phase == "running" and 0 < status.step < 0.8 * status.steps


@dataclass
class Site:
    """One daemon and its nodes. Used as a context, it leaves no process behind; ``store`` is SQLite in the folder unless given."""

    folder: Path
    store: str = "sqlite:///data/gridsched.sqlite"
    zones: Mapping[str, str] = field(default_factory=lambda: {ZONE: "policy.toml"})
    adapters: str = GRID_FILES
    every: str = "1s"
    nodes: dict[str, NodeProcess] = field(default_factory=dict)
    url: str = ""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "logs").mkdir()
        shutil.copytree(shipped("adapters"), self.folder / "adapters", ignore=shutil.ignore_patterns("__pycache__"))
        (self.folder / "policies").mkdir()
        for zone, file in self.zones.items():
            (self.folder / "policies" / file).write_text(POLICY.format(zone=zone, below=20, watts=MOST_WATTS), encoding="utf-8")
        tables = "".join(f'\n[[zone]]\nname = "{zone}"\npolicy = "{file}"\n' for zone, file in self.zones.items())
        (self.folder / "gridsched.toml").write_text(
            _SITE.format(store=self.store, every=self.every) + tables + self.adapters, encoding="utf-8"
        )
        write_token(config.load(self.folder))
        self.daemon = self._process("daemon", "serve", "--site", str(self.folder), "--port", "0")
        self.grid()

    def __enter__(self) -> "Site":
        try:
            self.serve()
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.end()

    def end(self) -> None:
        """End everything: the nodes save and hand over, then the daemon goes; who does not is killed."""
        with suppress(AttributeError):
            self.operator.close()
        for process in self.processes[1:]:
            process.ask_to_end()
        for process in reversed(self.processes):
            process.end(within_s=_GRACE_S)

    @property
    def processes(self) -> list[Process]:
        """The daemon first."""
        return [self.daemon, *(node.process for node in self.nodes.values())]

    # -- the world

    def grid(self, *, price: float = 10.0, surplus: float = 5000.0) -> None:
        """What the grid says from now on: the same for an hour before and some hours after this moment."""
        hour = SystemClock().now().replace(minute=0, second=0, microsecond=0)
        for signal, value in (("price", price), ("surplus", surplus)):
            rows = [f"{(hour + timedelta(hours=n)).isoformat()},{value:g}" for n in range(-1, 4)]
            part = self.folder / f".{signal}.part"
            part.write_text("\n".join(["time,value", *rows, ""]), encoding="utf-8")
            part.replace(self.folder / f"{signal}.csv")

    def policy(self, text: str) -> None:
        """Edit the zone's policy as an editor does: the file is there, old or new, at every moment."""
        part = self.folder / "policies" / ".part"
        part.write_text(text, encoding="utf-8")
        part.replace(self.folder / "policies" / "policy.toml")

    # -- the daemon

    def serve(self) -> None:
        """Start the daemon, and wait until it answers."""
        (self.folder / "data" / "url").unlink(missing_ok=True)
        self.daemon.start()
        self.url = self.wait("the daemon answers", self._address)
        self.daemon.command = [*self.daemon.command[:-1], self.url.rsplit(":", 1)[1]]
        self.operator = Operator(self.url, (self.folder / "operator.token").read_text(encoding="utf-8").strip())

    def _address(self) -> str | None:
        written = self.folder / "data" / "url"
        return written.read_text(encoding="utf-8").strip() if written.is_file() else None

    def cli(self, *arguments: str) -> str:
        """What ``gridsched`` prints for this site; fails with all of it if the command does."""
        command = [*_GRIDSCHED, *arguments, "--site", str(self.folder)]
        done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PATIENCE_S, check=False)
        assert done.returncode == 0, f"gridsched {' '.join(arguments)} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def status(self, zone: str = ZONE) -> dict[str, Any]:
        """The zone at a glance."""
        zones: list[dict[str, Any]] = self.operator.get("/v1/status")["zones"]
        return next(row for row in zones if row["zone"] == zone)

    def facts(self, *kinds: str) -> list[dict[str, Any]]:
        """Everything of these kinds that has happened, in order."""
        found: list[dict[str, Any]] = self.operator.get("/v1/facts", kinds=",".join(kinds), limit=100_000)
        return found

    # -- nodes

    def join(
        self, *names: str, zone: str = ZONE, power_w: float = 100.0, cpu_share: float = 0.6, save_every: str = "0.3s", opt_in: bool = True,
        runtime: str = "torch",
    ) -> list[NodeProcess]:  # fmt: skip
        """Enrol nodes by the command line, all at once, start their agents and wait until they are present."""
        settings = _NODE.format(cpu_share=cpu_share, save_every=save_every, runtime=runtime)
        joining = [(name, self._join(name, zone=zone, power_w=power_w, settings=settings)) for name in names]
        try:
            for name, child in joining:
                said, _ = child.communicate(timeout=PATIENCE_S)
                assert child.returncode == 0, f"node {name} could not join: {said}"
        finally:
            for _, child in joining:
                child.kill()
                child.wait()
        for name in names:
            node = self.nodes[name]
            if opt_in:
                node.choose(opted_in=True)
            node.process.start()
        unready = {"absent", "opted_out"} if opt_in else {"absent"}
        self.wait(f"{', '.join(names)} are there", lambda: not unready & {self.row(name)["reason"] for name in names})
        return [self.nodes[name] for name in names]

    def _join(self, name: str, *, zone: str, power_w: float, settings: str) -> "subprocess.Popen[str]":
        home = self.folder / "nodes" / name
        home.mkdir(parents=True)
        (home / "node.toml").write_text(settings, encoding="utf-8")
        run = self._process(name, "node", "run", "--home", str(home))
        self.nodes[name] = NodeProcess(name=name, home=Home(home), process=run)
        command = [
            *_GRIDSCHED,
            "node",
            "join",
            self.url,
            "--code",
            self.invite(zone),
            "--name",
            name,
            "--power",
            f"{power_w:g}W",
            "--home",
            str(home),
        ]
        return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def invite(self, zone: str = ZONE) -> str:
        """A code that one device may join with."""
        return str(self.operator.post("/v1/invites", {"zone": zone, "for_s": 3600.0})["code"])

    def row(self, name: str) -> dict[str, Any]:
        """The node as the daemon sees it."""
        rows: list[dict[str, Any]] = self.operator.get("/v1/nodes")
        return next(row for row in rows if row["node_id"] == name)

    # -- jobs

    def submit(self, *, epochs: int, passes: int, zone: str = ZONE) -> str:
        """Hand in the example; its id."""
        return owner.submit(self.operator, submission(epochs=epochs, passes=passes, zone=zone)).job_id

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it stands."""
        found: dict[str, Any] = self.operator.get(f"/v1/jobs/{job_id}")
        return found

    def accepted(self, job_id: str) -> int:
        """Units accepted so far."""
        return sum(fact["job_id"] == job_id for fact in self.facts("unit_accepted"))

    def finish(self, job_id: str, *, within_s: float = 2 * PATIENCE_S) -> dict[str, Any]:
        """Wait until the job has ended, which must be well."""
        self.wait(f"job {job_id} ends", lambda: self.job(job_id)["state"] != "running", within_s=within_s)
        job = self.job(job_id)
        assert job["state"] == "done", f"{job['state']}: {job['reason']}\n{self.told()}"
        return job

    # -- waiting

    def wait(self, what: str, look: Callable[[], T | None], *, within_s: float = PATIENCE_S) -> T:
        """What ``look`` finds, once it is true; a daemon that is away is asked again. Fails when time is up or a process has died."""
        until = time.monotonic() + within_s
        while True:
            with suppress(Unreachable, StopIteration):
                if found := look():
                    return found
            died = [told for process in self.processes if (told := process.failure())]
            assert not died, "\n".join([f"while waiting until {what}:", *died, self.told()])
            assert time.monotonic() < until, f"not within {within_s:.0f} s: {what}\n{self.told()}"
            time.sleep(_LOOK_S)

    def told(self) -> str:
        """How things stand, and the last words of every process."""
        parts: list[str] = []
        with suppress(GridschedError, AttributeError):
            parts += [f"status: {self.operator.get('/v1/status')}", f"nodes: {self.operator.get('/v1/nodes')}"]
        logs = [*(self.folder / "logs").iterdir(), *(self.folder / "nodes").glob("*/worker.log")]
        return "\n".join([*parts, *(f"--- {log.relative_to(self.folder)}\n{_tail(log)}" for log in sorted(logs))])

    def log(self, name: str) -> str:
        """All that a process has said."""
        return (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _process(self, name: str, *arguments: str) -> Process:
        return Process(name=name, command=[*_GRIDSCHED, *arguments], log=self.folder / "logs" / f"{name}.log")


_GRIDSCHED: Sequence[str] = (sys.executable, "-m", "gridsched")


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-_LAST_LINES:])
