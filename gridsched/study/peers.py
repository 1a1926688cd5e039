"""The same job, machines and power cuts under plain ``torch.distributed``: what its users would see.

Every node runs PyTorch's own elastic agent (``torch.distributed.run``); one that comes or goes makes all others begin again at the last
checkpoint, at the end of the last epoch. Two kindnesses: the store through which they find one another is a process apart that is
never struck, and a dead node is noticed after three seconds instead of fifteen. One that gives up is started again.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from gridsched.core.errors import GridschedError
from gridsched.demo.stage import Process, free_port
from gridsched.plugins import shipped
from gridsched.study.churn import Arm, Outcome, per_epoch
from gridsched.study.fleet import NODE_W, share_of

__all__ = ["Race", "Spent", "run", "with_torch"]

_LOOK_S = 0.2
_STORE = """
import signal
import sys
from torch.distributed import TCPStore
store = TCPStore("127.0.0.1", int(sys.argv[1]), is_master=True, wait_for_workers=False)
print("ready", flush=True)
signal.pause()
"""
_PATIENT = "is_host=false,last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"


class Spent:
    """Processor seconds of processes and all below them, also of those that are gone since they were last looked at."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[int, float], float] = {}

    def look(self, heads: list[int]) -> float:
        """Look at the families of ``heads`` (process ids); the sum so far."""
        for head in heads:
            with suppress(psutil.Error):
                process = psutil.Process(head)
                for one in [process, *process.children(recursive=True)]:
                    with suppress(psutil.Error):
                        times = one.cpu_times()
                        self._seconds[one.pid, one.create_time()] = times.user + times.system
        return sum(self._seconds.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Race:
    """A peer's processes for one run: ``nodes`` are switched, ``others`` are spared. ``report`` gets a JSON line for each epoch."""

    peer: str
    nodes: list[Process]
    others: list[Process]
    report: Path


def with_torch(
    arm: Arm, job: Path, folder: Path, *, epochs: int, fleet_size: int, at_most_s: float, told: Callable[[str], None]
) -> Outcome:
    """Run ``arm`` (switched by power cuts, or in peace) with ``torch.distributed``, as `churn.carry_out` does with gridsched."""
    folder.mkdir(parents=True)
    share, port = share_of(fleet_size), free_port()
    store = Process(name="store", command=[sys.executable, "-c", _STORE, str(port)], log=folder / "store.log")
    nodes = [
        Process(name=f"node-{n + 1}", command=_command(job, folder, port, epochs, share), log=folder / f"node-{n + 1}.log")
        for n in range(arm.nodes)
    ]
    race = Race(peer="torch.distributed", nodes=nodes, others=[store], report=folder / "epochs.jsonl")
    return run(race, arm, epochs=epochs, share=share, at_most_s=at_most_s, told=told)


def run(race: Race, arm: Arm, *, epochs: int, share: float, at_most_s: float, told: Callable[[str], None]) -> Outcome:
    """Start everything, cut the power as ``arm`` says, until the last epoch or ``at_most_s``. All processes are gone afterwards."""
    spent, cuts, cpu_s = Spent(), 0, 0.0
    everything = [*race.nodes, *race.others]
    for process in race.others:
        process.start()
    try:
        began = time.monotonic()
        while True:
            elapsed = time.monotonic() - began
            for number, node in enumerate(race.nodes):
                on = arm.switching is None or arm.switching.on(number, elapsed)
                if on and not _runs(node):
                    node.start()  # also one that gave up by itself, as a service manager would
                elif not on and node.wanted:
                    node.kill()
                    cuts += 1
            cpu_s = spent.look([process.child.pid for process in everything if process.child is not None])
            reported = _reported(race.report)
            told(f"{race.peer}, {arm.name}: {len(reported)} of {epochs} epochs, {elapsed:.0f} s")
            if len(reported) >= epochs or elapsed > at_most_s:
                break
            time.sleep(_LOOK_S)
    finally:
        for process in everything:
            process.kill()
    if not reported and arm.switching is None:
        raise GridschedError(f"{race.peer} did not finish an epoch within {at_most_s:.0f} s; the logs are in {race.report.parent}")
    return Outcome(
        arm=f"{race.peer}: {arm.name}",
        nodes=arm.nodes,
        every_s=arm.switching.every_s if arm.switching else None,
        how=arm.switching.how.value if arm.switching else "",
        accuracy=reported[max(reported)] if reported else None,
        digest="",
        done=len(reported) / epochs,
        ended=len(reported),
        wall_s=elapsed,
        useful_j=per_epoch(cpu_s / share * NODE_W, len(reported)),
        wasted_j=0.0,
        idle_j=0.0,
        cuts=cuts,
    )


def _command(job: Path, folder: Path, port: int, epochs: int, share: float) -> list[str]:
    elastic = ["--nnodes", "1:64", "--nproc-per-node", "1", "--max-restarts", "100000", "--rdzv-backend", "c10d", "--rdzv-id", "study"]
    script = str(shipped("examples") / "peers" / "torch_distributed.py")
    return [
        sys.executable, "-m", "torch.distributed.run", *elastic, "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-conf", _PATIENT,
        script, str(job), str(folder), "--epochs", str(epochs), "--share", str(share),
    ]  # fmt: skip


def _runs(node: Process) -> bool:
    """Whether it is there, or has ended with nothing left to do."""
    return node.wanted and node.child is not None and node.child.poll() in (None, 0)


def _reported(path: Path) -> dict[int, float]:
    """Accuracy by epoch, as far as any run has come; an epoch that was done again counts once."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {int(row["epoch"]): float(row["accuracy"]) for row in map(json.loads, lines)}
