"""How long one federated round takes, on nodes that are real processes, durable and authenticated; and what they hold in memory.

    python benchmarks/train_round.py [--nodes 4 10] [--rounds 12] [--flower VENV] [--trace]

A perceptron of 199,210 parameters, 4,000 samples of Fashion-MNIST shared equally, one local epoch of SGD 0.05/0.9 in batches of 50,
federated averaging (`fashion_mlp.py`). Ours: a daemon on SQLite with full sync, nodes with tokens, every update synced on the node and
again at the daemon before it counts. The time of a round is the time between two versions in the journal. Memory is the proportional
set size after the last timed round. A node without torch is its agent without the training child: that is what a node would hold
besides its runtime if it ran programs in WebAssembly, which gridsched does not do yet.

Beside it in the same run: a plain loop that trains the same shards one after another and averages them, the least that the
arithmetic can take on one core; and Flower's deployment (`flower_round.py`), where ``--flower`` names an environment with flwr, torch
and numpy. ``--trace`` prints where the time of a round goes.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import fleet
import numpy as np
import torch
from fashion_mlp import BATCH, LR, MOMENTUM, dataset, loss, model
from flower_round import deploy

from gridsched import owner
from tests.e2e.site_process import Site

GOAL_S: Mapping[int, float] = {4: 0.5, 10: 1.0}
TORCH_MB, AGENT_MB = 300.0, 60.0
_EXTRA = 6
"""Rounds behind the timed ones, in which memory is looked at."""

_STEPS = (
    ("offered -> its agent starts it", "offered", "start>"),
    ("started -> first step", "start>", "step>"),
    ("first step -> last step", "step>", "step."),
    ("last step -> update written, on its way", "step.", "upload>"),
    ("update sent and stored", "upload>", "upload."),
    ("stored -> notice answered, durable", "upload.", "notice."),
)


def ours(nodes: int, rounds: int, trace: Path | None) -> dict[str, Any]:
    """Seconds of each round, and megabytes."""
    job = fleet.submission(rounds=rounds + _EXTRA, units=nodes)
    if trace is not None:
        os.environ["GRIDSCHED_TRACE"] = str(trace)
        os.environ["PYTHONPATH"] = os.pathsep.join([str(fleet.ROOT / "benchmarks" / "tracing"), os.environ.get("PYTHONPATH", "")])
    with tempfile.TemporaryDirectory() as folder, Site(Path(folder) / "site") as site:
        site.join(*(f"n{number}" for number in range(nodes)), cpu_share=1.0, save_every="1m")
        began_s = time.time()
        owner.submit(site.operator, job)
        job_id = job.spec.job_id
        while site.job(job_id)["version"] < rounds:
            time.sleep(0.5)
        found = memory(site)
        site.finish(job_id)
        at_s = fleet.moments(site, job_id)[: rounds + 1]
        digests = fleet.must_hold(site, job_id)
        if trace is not None:
            told(trace, site, at_s)
    seconds = list(np.diff(at_s))
    return {"first_s": at_s[1] - began_s, "seconds": seconds, "median_s": statistics.median(seconds[1:]), **found, "digest": digests[-1]}


def memory(site: Site) -> dict[str, float]:
    """Megabytes of all processes, and of the largest node."""
    processes = {name: [fleet.memory_mb(p) for p in fleet.family(node.process)] for name, node in site.nodes.items()}
    daemon_mb = sum(map(fleet.memory_mb, fleet.family(site.daemon)))
    return {
        "all_mb": daemon_mb + sum(map(sum, processes.values())),
        "daemon_mb": daemon_mb,
        "torch_node_mb": max(map(sum, processes.values())),
        "agent_mb": max(mb[0] for mb in processes.values()),
    }


def told(trace: Path, site: Site, at_s: list[float]) -> None:
    """Where the time goes: the median over nodes and rounds of each step, and of the two that are the daemon's alone."""
    facts = [(fact["kind"], fact.get("node_id", ""), _seconds(fact["at"])) for fact in site.facts("lease_offered", "unit_accepted")]
    spans: dict[str, list[float]] = {}
    for begin, end in pairwise(at_s[2:]):
        for name in site.nodes:
            seen = marks(trace, name, begin, end)
            seen["offered"] = min(
                (at for kind, node, at in facts if kind == "lease_offered" and node == name and begin <= at < end), default=0.0
            )
            for step, first, last in _STEPS:
                if seen.get(first) and seen.get(last):
                    spans.setdefault(step, []).append(seen[last] - seen[first])
        accepted = max(at for kind, _, at in facts if kind == "unit_accepted" and begin < at <= end)
        offered = min((at for kind, _, at in facts if kind == "lease_offered" and at >= end), default=end)
        spans.setdefault("last update accepted -> merged and journalled", []).append(end - accepted)
        spans.setdefault("journalled -> next units offered", []).append(offered - end)
    for step, found in spans.items():
        print(f"    {step:46} {1000 * statistics.median(found):7.1f} ms", flush=True)


def marks(trace: Path, node: str, begin_s: float, end_s: float) -> dict[str, float]:
    """The first beginning and the last end of each marked call of a node within a round."""
    seen: dict[str, float] = {}
    for file in trace.glob(f"{node}.*"):
        for line in file.read_text(encoding="ascii").splitlines():
            name, at = line.split()
            if begin_s <= float(at) < end_s + 0.05 and not (name.endswith(">") and name in seen):
                seen[name] = float(at)
    return seen


def _seconds(at: str) -> float:
    return fleet.datetime.fromisoformat(at).timestamp()


def plain_loop(nodes: int, rounds: int) -> float:
    """Seconds of a round where one process trains every shard in turn and averages: the median."""
    torch.set_num_threads(1)
    fields = {name: torch.from_numpy(array) for name, array in dataset()[0].items()}
    shards = torch.arange(len(fields["y"])).chunk(nodes)
    net, mean = model(), {name: tensor.clone() for name, tensor in model().state_dict().items()}
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        total = {name: torch.zeros_like(tensor) for name, tensor in mean.items()}
        for shard in shards:
            net.load_state_dict(mean)
            optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)
            for chosen in shard[torch.randperm(len(shard))].split(BATCH):
                optimizer.zero_grad()
                loss(net(fields["input"][chosen]), {"y": fields["y"][chosen]}).backward()
                optimizer.step()
            for name, tensor in net.state_dict().items():
                total[name] += tensor * (len(shard) / len(fields["y"]))
        mean = total
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def compared(nodes: int, options: argparse.Namespace) -> dict[str, Any]:
    """One size of fleet: the loop, ours, Flower."""
    loop_s = plain_loop(nodes, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        found = ours(nodes, options.rounds, Path(folder) if options.trace else None)
    print(f"{nodes} nodes: {found['median_s']:.3f} s a round (first {found['first_s']:.1f} s), a plain loop {loop_s:.3f} s", flush=True)
    print(
        f"    {found['all_mb']:.0f} MB in all, daemon {found['daemon_mb']:.0f} MB, "
        f"a node with torch {found['torch_node_mb']:.0f} MB, its agent alone {found['agent_mb']:.0f} MB",
        flush=True,
    )
    flower = deploy(options.flower, nodes, options.flower_rounds) if options.flower else None
    if flower is not None:
        print(f"    Flower {flower['version']}: {flower['median_s']:.1f} s a round, {flower['all_mb']:.0f} MB in all", flush=True)
    else:
        print("    Flower was not measured: name an environment that has it with --flower", flush=True)
    rounded = {name: round(value, 3) if isinstance(value, float) else value for name, value in found.items() if name != "seconds"}
    runs = [round(value, 3) for value in found["seconds"]]
    return {
        "nodes": nodes,
        "goal_s": GOAL_S.get(nodes),
        **rounded,
        "loop_s": round(loop_s, 3),
        "times_loop": round(found["median_s"] / loop_s, 2),
        "flower": flower,
        "runs": runs,
    }


def main() -> None:
    """Measure each size and print the verdict."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", type=int, nargs="+", default=[4, 10])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--flower", type=Path)
    parser.add_argument("--flower-rounds", type=int, default=4)
    parser.add_argument("--trace", action="store_true")
    options = parser.parse_args()
    sizes = [compared(nodes, options) for nodes in options.nodes]
    fleet.tell(
        "train_round",
        value=sizes[0]["median_s"],
        unit=f"s a round, {sizes[0]['nodes']} nodes",
        goal=sizes[0]["goal_s"],
        reached=all(size["goal_s"] is None or size["median_s"] <= size["goal_s"] for size in sizes),
        memory_reached=all(size["torch_node_mb"] <= TORCH_MB and size["agent_mb"] <= AGENT_MB for size in sizes),
        sizes=sizes,
    )


if __name__ == "__main__":
    main()
