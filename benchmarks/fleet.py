"""What the benchmarks of a whole site share: its job, its memory, what must hold when all is over, and how things are told.

Real processes, as in the end-to-end tests: a daemon on SQLite with full sync, nodes with tokens, an operator over HTTP.
"""

import json
import os
import signal
import sys
from collections import Counter
from datetime import datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from gridsched import config, owner  # noqa: E402
from gridsched.demo.stage import Process  # noqa: E402
from gridsched.store.sql import SqlStore  # noqa: E402
from gridsched.testing import check_invariants  # noqa: E402
from tests.e2e.site_process import ZONE, Site  # noqa: E402

__all__ = ["JOB_FILE", "ROOT", "accepted_steps", "family", "load", "memory_mb", "moments", "must_hold", "submission", "tell"]

signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a benchmark that is told to end leaves no process behind
JOB_FILE = Path(__file__).resolve().parent / "fashion_mlp.py"


@cache
def submission(*, rounds: int, units: int, passes: int = 1, seed: int = 0) -> owner.Submission:
    """Fashion-MNIST by federated averaging: ``rounds`` rounds of ``units`` units, an equal share of the samples each."""
    changes = {"epochs": rounds, "units_per_round": units, "passes": passes}
    return owner.prepare(JOB_FILE, zone=ZONE, seed=seed, changes=changes)


def family(process: Process) -> list[psutil.Process]:
    """A process and those below it; none where it is down."""
    try:
        head = psutil.Process(process.child.pid) if process.child is not None else None
        return [] if head is None else [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_mb(process: psutil.Process) -> float:
    """Proportional set size: shared pages count for each process by its share, so that a sum over processes is what they take."""
    try:
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss:")), 0.0)


def moments(site: Site, job_id: str) -> list[float]:
    """When each version was journalled, the first one included, in seconds since 1970."""
    return [datetime.fromisoformat(row["made_at"]).timestamp() for row in site.operator.get(f"/v1/jobs/{job_id}/versions")]


def accepted_steps(site: Site, *, until_s: float) -> tuple[int, int]:
    """(units, steps) of training that the daemon has accepted, of all jobs, up to a moment in seconds since 1970."""
    facts = [fact for fact in site.facts("unit_accepted") if fact["unit_kind"] == "train"]
    chosen = [fact for fact in facts if datetime.fromisoformat(fact["at"]).timestamp() <= until_s]
    return len(chosen), sum(fact["steps"] for fact in chosen)


def must_hold(site: Site, job_id: str) -> list[str]:
    """Every promise of the store, and of one job's journal: raises AssertionError where one is broken. The digests of its versions."""
    versions: list[dict[str, Any]] = site.operator.get(f"/v1/jobs/{job_id}/versions")
    assert [row["number"] for row in versions] == list(range(len(versions))), "a version is missing or doubled"
    assert all(after["parent"] == before["digest"] for before, after in pairwise(versions)), "a version does not follow from the one before"
    doubled = [u for u, n in Counter(f["unit_id"] for f in site.facts("unit_accepted") if f["job_id"] == job_id).items() if n > 1]
    assert not doubled, f"accepted twice: {doubled}"
    books = site.operator.get("/v1/ledger")
    assert books["balanced"], "the books do not balance"
    assert books["chain_ok"], "the chain of transfers is broken"
    store = SqlStore(config.load(site.folder).store.url)
    with store.read() as tx:
        check_invariants(tx)
    store.close()
    return [row["digest"] for row in versions]


def load() -> str:
    """How busy the machine is with everything on it, for whoever reads the figures later."""
    one, five, _ = os.getloadavg()
    return f"{psutil.cpu_count()} cores, load {one:.1f} (1 min), {five:.1f} (5 min)"


def tell(name: str, **figures: object) -> None:
    """The verdict as one JSON object, on the last line."""
    print(json.dumps({"name": name, **figures, "machine": load()}), flush=True)
