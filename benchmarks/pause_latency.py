"""How long it takes until a zone is at rest: from the operator's switch, and from a change of the grid's price.

A real daemon and two real nodes that train, as on a site of one's own. *At rest* is when the last worker has stopped between two
steps and its continuation is synced to its disk (the file's own time). A price is read from a file every half second and acted upon
with the next control tick, every second; the switch waits for neither. Run it with ``python benchmarks/pause_latency.py [pauses]``.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.e2e.site_process import ZONE, NodeProcess, Site  # noqa: E402

PAUSES = 7
GOAL_S = 2.0
DEAR, CHEAP = 90.0, 10.0
# Documented times to clear a machine that somebody else needs, none of them measured here:
PEERS = {
    "Kubernetes pod termination, default grace period: s": 30.0,
    "EC2 spot interruption notice: s": 120.0,
}


@dataclass(frozen=True)
class Pause:
    """One pause of all nodes: ``seconds`` until the last of them was at rest."""

    cause: str
    seconds: float


def pauses(site: Site, cause: str, *, times: int) -> list[Pause]:
    """Pause the working nodes of ``site`` and let them go on, ``times`` times."""
    stop, go_on = {
        "switch": (
            lambda: site.operator.post(f"/v1/zones/{ZONE}/pause"),
            lambda: site.operator.post(f"/v1/zones/{ZONE}/resume"),
        ),
        "signal": (lambda: site.grid(price=DEAR), lambda: site.grid(price=CHEAP)),
    }[cause]
    return [_pause(site, cause, stop, go_on) for _ in range(times)]


def _pause(site: Site, cause: str, stop: Callable[[], object], go_on: Callable[[], object]) -> Pause:
    nodes = list(site.nodes.values())
    site.wait("all nodes work", lambda: all(_works(node) for node in nodes))
    asked_ns = time.time_ns()
    stop()
    site.wait("all nodes are at rest", lambda: all(node.status().phase == "paused" for node in nodes))
    rested_ns = max(_saved_ns(node) for node in nodes)
    go_on()
    return Pause(cause=cause, seconds=(rested_ns - asked_ns) / 1e9)


def _works(node: NodeProcess) -> bool:
    status = node.status()
    return status.phase == "running" and status.step > 0


def _saved_ns(node: NodeProcess) -> int:
    """When the newest continuation on the node's disk was written."""
    return max(file.stat().st_mtime_ns for file in node.home.work.rglob("*") if file.is_file())


def ready(site: Site) -> None:
    """Two nodes in the middle of units that last for minutes, and save only when they pause."""
    site.join("n1", "n2", cpu_share=0.6, save_every="1h")
    site.submit(epochs=50, passes=20_000)


def main() -> None:
    times = int(sys.argv[1]) if len(sys.argv) > 1 else PAUSES
    runs: list[Pause] = []
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder) / "site") as site:
        ready(site)
        for cause in ("switch", "signal"):
            runs += pauses(site, cause, times=times)
            found = [run.seconds for run in runs if run.cause == cause]
            print(f"{cause}: median {statistics.median(found):.2f} s, worst {max(found):.2f} s of {times} pauses", flush=True)
    worst = max(run.seconds for run in runs)
    print(
        json.dumps(
            {
                "name": "pause_latency",
                "value": round(worst, 3),
                "unit": "s from the operator's switch or the price's change until the last node is at rest and saved, worst of all",
                "goal": GOAL_S,
                "reached": worst <= GOAL_S,
                "peers": PEERS,
                "runs": [{"cause": run.cause, "seconds": round(run.seconds, 3)} for run in runs],
            }
        )
    )


if __name__ == "__main__":
    main()
