"""What a node without PyTorch keeps in memory while it trains, beside the same node with PyTorch, one after the other in one run.

    python benchmarks/browser_node_memory.py

A real agent (``gridsched node run --runtime wasm``) and its training child work on examples/image_cnn.py for a fake daemon in this
process; once a hundred steps are done, both processes are measured. What the child adds to the machine is its share of pages
(PSS: what is mapped by both counts half for each); what it holds by itself if nothing else ran is its resident size (RSS), which
counts the interpreter and numpy again though the agent has them too. Linux only. The last line is one JSON object.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import psutil  # noqa: E402 - after the path, so that it runs from a checkout

from gridsched.core.method import InnerOptimizer  # noqa: E402
from gridsched.core.work import UnitSpec  # noqa: E402
from gridsched.train.dataset import write_dataset  # noqa: E402
from gridsched.train.program import constants, to_bytes  # noqa: E402
from gridsched.train.version import initial_version  # noqa: E402
from tests.node.builders import joined, order, unit  # noqa: E402
from tests.node.fake_daemon import FakeDaemon  # noqa: E402
from tests.train.builders import example, exported_example  # noqa: E402

GOAL_MB = 60.0
STEPS = 100
LONGEST_S = 120.0
AGENT = "import sys; from gridsched.cli.node import app; app(sys.argv[1:])"


def work(daemon: FakeDaemon) -> UnitSpec:
    """A unit of the example that lasts longer than the measurement."""
    train, _ = example("image_cnn").dataset()
    program, tensors = exported_example("image_cnn")
    manifest = write_dataset(train, name="digits", shard_samples=4096, put=daemon.put)
    return replace(
        unit(daemon),
        program=daemon.put(to_bytes(program, constants(program, tensors))),
        dataset=daemon.put(manifest.to_bytes()),
        base=daemon.put(initial_version(program, tensors).to_bytes()),
        stop=manifest.samples,
        batch_size=32,
        passes=100_000,
        digest_every=20,
        inner=InnerOptimizer(lr=0.01, momentum=0.9),
    )


def measure(runtime: str) -> dict[str, float]:
    """Megabytes of agent and child in the middle of training."""
    with FakeDaemon() as daemon, tempfile.TemporaryDirectory() as folder:
        home = joined(Path(folder), daemon)
        daemon.order = order(work(daemon))
        command = [sys.executable, "-c", AGENT, "run", "--runtime", runtime, "--home", str(home.folder)]
        agent = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            daemon.wait(lambda: (report := daemon.last_report()) is not None and report.step >= STEPS, LONGEST_S)
            process = psutil.Process(agent.pid)
            (child,) = process.children()
            seen = {"agent": process.memory_full_info(), "child": child.memory_full_info()}
        finally:
            agent.terminate()
            agent.wait(20)
    return {f"{who}_{kind}_mb": round(getattr(memory, kind) / 1e6, 1) for who, memory in seen.items() for kind in ("rss", "pss")}


def main() -> None:
    found = {}
    for runtime in ("wasm", "torch"):
        found[runtime] = measure(runtime)
        print(f"{runtime}: {found[runtime]}", flush=True)
        time.sleep(1)
    added = found["wasm"]["child_pss_mb"]
    print(
        json.dumps(
            {
                "name": "browser_node_memory",
                "unit": "MB that the training child adds to its agent, its share of pages",
                "value": added,
                "goal": GOAL_MB,
                "reached": added <= GOAL_MB,
                "resident_mb": found["wasm"]["child_rss_mb"],
                "found": found,
                "load": os.getloadavg(),
            }
        )
    )


if __name__ == "__main__":
    main()
