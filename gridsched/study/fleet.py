"""A site with nodes of its own for one run of a study: real processes under a grid that always has surplus."""

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

from gridsched import config, owner, remote, sites
from gridsched.clock import SystemClock
from gridsched.core.errors import GridschedError
from gridsched.demo.stage import Stage, free_port
from gridsched.node import start as node
from gridsched.node.settings import read_settings
from gridsched.node.state import Choice, Home
from gridsched.plugins import shipped

__all__ = ["NODE_W", "Fleet", "share_of"]

NODE_W = 100.0
"""What a node draws when it computes with all that it may use of a core; the studies' energies are in proportion to this."""

_ZONE = "study"
_READY_S = 90.0
_SITE = """
[site]
name = "study"

[control]
every = "1s"
sync_every = "1s"
lease_ttl = "12s"
absent_after = "4s"
start_jitter = "0s"
hand_over_after = "1m"

[[zone]]
name = "study"
policy = "always.toml"

[[adapter]]
use = "signals/file.py"
zone = "study"
path = "price.csv"
signal = "price"
unit = "EUR/MWh"
resolution = "1h"
time = "time"
value = "value"
every = "10s"
"""
_POLICY = """
zone = "study"
timezone = "UTC"

[when]
any = [{ signal = "price", below = "20 EUR/MWh", stop = "20 EUR/MWh" }]

[draw]
watts = 1000000

[reward]
per_kwh_eur = 0.30
per_unit_eur = 0.0
"""
_NODE = """
priority = "low"
save_every = "5s"
release_memory_after = "1h"

[meter]
use = "meters/estimate.py"
max_w = {watts:g}
idle_w = 0.0
cores = {share:g}

[limits]
cpu_share = {share:g}
not_on_battery = false
min_free_disk = "0.01 GB"
"""


class Fleet:
    """A daemon and ``nodes`` nodes in ``folder``, each held to ``share`` of a core, as if they were as many machines."""

    def __init__(self, folder: Path, *, nodes: int, share: float) -> None:
        self.names = tuple(f"node-{number + 1}" for number in range(nodes))
        self.on = dict.fromkeys(self.names, False)
        self.cuts = 0
        self._share = share
        _write_site(folder)
        self._settings = config.load(folder)
        sites.write_token(self._settings)
        self.stage = Stage(folder, f"http://127.0.0.1:{free_port()}")

    def __enter__(self) -> "Fleet":
        self.stage.__enter__()
        try:
            self.stage.daemon().start()
            self.operator = remote.Operator(self.stage.url, self._settings.token_file.read_text(encoding="utf-8").strip())
            self.stage.wait_for(self._answers, what="the daemon's first answer", within_s=_READY_S)
            codes = [str(self.operator.post("/v1/invites", {"zone": _ZONE, "for_s": 86_400.0})["code"]) for _ in self.names]
            with ThreadPoolExecutor(max_workers=len(self.names)) as threads:
                list(threads.map(self._join, self.names, codes))
        except BaseException:
            self.stage.end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.operator.close()
        self.stage.__exit__(kind, error, trace)

    def submit(self, job: owner.Submission) -> str:
        """Hand the job in; its id."""
        return owner.submit(self.operator, job).job_id

    def job(self, job_id: str) -> tuple[dict[str, Any], Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
        """The job, its epochs and its versions, as the daemon tells them."""
        path = f"/v1/jobs/{job_id}"
        return self.operator.get(path), self.operator.get(f"{path}/epochs"), self.operator.get(f"{path}/versions")

    def opt(self, name: str, *, into: bool) -> None:
        """Its owner's switch."""
        if self.on[name] is not into:
            node.choose(Home(self.stage.home(name)), Choice(opted_in=into, made_at=SystemClock().now()))
            self.on[name] = into

    def power(self, name: str, *, on: bool) -> None:
        """The plug in its wall: ``kill -9`` for all that runs there, or start again. Its owner is opted in all the time."""
        process = self.stage.node(name)
        if on and not process.wanted:
            process.start()
        elif not on and process.wanted:
            process.kill()
            self.cuts += 1

    def _answers(self) -> bool:
        with suppress(GridschedError):
            return bool(self.operator.get("/v1/status"))
        return False

    def _join(self, name: str, code: str) -> None:
        home = Home(self.stage.home(name))
        home.folder.mkdir(parents=True)
        home.settings.write_text(_NODE.format(watts=NODE_W, share=self._share), encoding="utf-8")
        node.join(home, self.stage.url, code, name=name, power_w=NODE_W, settings=read_settings(home.settings))
        self.stage.node(name).start()


def share_of(nodes: int) -> float:
    """The share of a core that each of ``nodes`` may have on this machine, with something left for the daemon."""
    return round(min(0.85 * (os.cpu_count() or 1) / nodes, 1.0), 2)


def _write_site(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=False)
    (folder / "policies").mkdir()
    shutil.copytree(shipped("adapters"), folder / "adapters", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "policies" / "always.toml").write_text(_POLICY, encoding="utf-8")
    (folder / "gridsched.toml").write_text(_SITE, encoding="utf-8")
    hour = SystemClock().now().replace(minute=0, second=0, microsecond=0)
    rows = [f"{(hour + timedelta(hours=n)).isoformat()},10" for n in range(-1, 25)]
    (folder / "price.csv").write_text("\n".join(["time,value", *rows, ""]), encoding="utf-8")
