"""One training step on the WebAssembly kernels, in wasmtime, Node and Chromium, against PyTorch with one thread, side by side in one run.

    python benchmarks/browser_step.py [--rounds 9] [--only NAME ...] [--hosts wasmtime node chromium]

Five networks: the reference convolutional net (3x3 convolutions 3-16 and 16-32 with ReLU and pooling, one dense layer; 25,578 parameters,
32 images of 32x32x3), examples/image_cnn.py, the perceptron of fashion_mlp.py, and the recurrent and the attention network of examples/.
Every host runs the same unit through its own unit loop (`train/unit.py`, `browser/src/trainer`): reading the batch, forward, backward,
optimizer. In every round each host runs the unit once, one after another; a ratio is between neighbours in time, and the median over the
rounds counts. The hosts' updates must be the same bytes, all but PyTorch's. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS), str(BENCHMARKS.parent)]
os.environ.setdefault("OMP_NUM_THREADS", "1")

import fashion_mlp  # noqa: E402 - after the path, so that it runs from a checkout
import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from gridsched.core.method import Codec, InnerOptimizer  # noqa: E402
from gridsched.core.work import UnitKind, UnitSpec  # noqa: E402
from gridsched.train.codec import encode_update  # noqa: E402
from gridsched.train.dataset import Dataset, DatasetManifest  # noqa: E402
from gridsched.train.export import export  # noqa: E402
from gridsched.train.jobfile import load_jobfile  # noqa: E402
from gridsched.train.program import constants  # noqa: E402
from gridsched.train.torch_runtime import TorchRuntime  # noqa: E402
from gridsched.train.unit import Runtime, UnitRun  # noqa: E402
from gridsched.train.version import initial_version  # noqa: E402
from gridsched.train.wasm_runtime import WasmRuntime  # noqa: E402
from tests.browser.hosts import Host, chromium_host, node_host, spec_json  # noqa: E402
from tests.browser.units import Case, case_of, plans  # noqa: E402

STEPS = 12
GOALS = {"reference": {"wasmtime": 1.3, "node": 1.5, "chromium": 1.5}}
OTHER_GOAL = 2.0
PEERS = {"tfjs 4.22 wasm with a convolution gradient of one's own (recorded)": "9-12", "convnetjs 0.3 (recorded)": "45-60"}
Timed = Callable[[], tuple[float, bytes]]


@dataclass(frozen=True)
class Net:
    """A network, its loss, some samples, and how it is trained."""

    name: str
    module: nn.Module
    loss: Callable[..., torch.Tensor]
    example: Mapping[str, torch.Tensor]
    fields: Mapping[str, np.ndarray]
    batch_size: int
    inner: InnerOptimizer


def reference() -> Net:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(2048, 10),
    )  # fmt: skip
    draws = np.random.default_rng(0)
    fields = {
        "input": draws.standard_normal((32 * STEPS, 3, 32, 32), dtype=np.float32),
        "y": draws.integers(0, 10, 32 * STEPS),
    }
    example = {"input": torch.zeros(2, 3, 32, 32), "y": torch.zeros(2, dtype=torch.int64)}
    return Net("reference", module, _classify, example, fields, 32, InnerOptimizer(lr=0.01, momentum=0.9))


def perceptron() -> Net:
    return Net(
        "perceptron", fashion_mlp.model(), fashion_mlp.loss, fashion_mlp.example_batch(), fashion_mlp.dataset()[0], 50,
        InnerOptimizer(lr=0.05, momentum=0.9),
    )  # fmt: skip


def example(name: str) -> Net:
    job = load_jobfile(BENCHMARKS.parent / "examples" / f"{name}.py")
    return Net(name, job.model(), job.loss, job.example_batch(), job.dataset()[0], job.method.batch_size, job.method.inner)


NETS: dict[str, Callable[[], Net]] = {
    "reference": reference,
    "image_cnn": lambda: example("image_cnn"),
    "perceptron": perceptron,
    "text_gru": lambda: example("text_gru"),
    "transformer": lambda: example("transformer"),
}


def _classify(outputs: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    return functional.cross_entropy(outputs, batch["y"])


def case(net: Net) -> Case:
    """A unit of `STEPS` full batches, without digests in between."""
    program, tensors = export(net.module, net.example, net.loss)
    fields = {name: array[: STEPS * net.batch_size] for name, array in net.fields.items()}
    spec = UnitSpec(
        unit_id="j.r0.u0", job_id="j", kind=UnitKind.TRAIN, program="", dataset="", base="", version=0, epoch=0, start=0,
        stop=min(map(len, fields.values())), batch_size=net.batch_size, passes=1, seed=1, inner=net.inner, codec=Codec.RAW,
        digest_every=1000,
    )  # fmt: skip
    return case_of(program, tensors, fields, spec)


def in_python(unit: Case, runtime: Runtime) -> Timed:
    dataset = Dataset(DatasetManifest.from_bytes(unit.blobs[unit.spec.dataset]), unit.blobs.__getitem__)
    base = initial_version(unit.program, unit.tensors).tensors

    def once() -> tuple[float, bytes]:
        run = UnitRun(unit.spec, runtime, dataset, base)
        began = time.perf_counter()
        while not run.done:
            run.step()
        took = (time.perf_counter() - began) / unit.spec.steps
        return took * 1e3, encode_update(run.delta(), unit.spec, buffers=())

    return once


def in_trainer(unit: Case, host: Host) -> Timed:
    files = dict(unit.blobs) | plans(unit)

    def once() -> tuple[float, bytes]:
        answer, made = host.perform("unit", files, spec=spec_json(unit.spec), stop=unit.spec.steps)
        return answer["step_ms"], made["update"]

    return once


def measure(unit: Case, hosts: Mapping[str, Host | None], rounds: int) -> dict[str, Any]:
    """Milliseconds a step and ratios to PyTorch by host, medians over the rounds; whether all hosts gave the same bytes."""
    held = constants(unit.program, unit.tensors)
    sides = {
        name: in_python(unit, WasmRuntime(unit.program, held)) if host is None else in_trainer(unit, host) for name, host in hosts.items()
    }
    torch_side = in_python(unit, TorchRuntime(unit.program, held))
    for side in (torch_side, *sides.values()):
        side()  # compiled, cached, warm
    times: dict[str, list[float]] = {name: [] for name in sides}
    ratios: dict[str, list[float]] = {name: [] for name in sides}
    theirs: list[float] = []
    updates: set[bytes] = set()
    for _ in range(rounds):
        for name, side in sides.items():
            before, _ = torch_side()
            took, update = side()
            after, _ = torch_side()
            theirs += [before, after]
            times[name].append(took)
            ratios[name].append(took / ((before + after) / 2))
            updates.add(update)
    return {
        "torch_ms": round(statistics.median(theirs), 3),
        "ms": {name: round(statistics.median(found), 3) for name, found in times.items()},
        "ratio": {name: round(statistics.median(found), 2) for name, found in ratios.items()},
        "same_bits": len(updates) == 1,
    }


def _goal(name: str, host: str) -> float:
    return GOALS.get(name, {}).get(host, OTHER_GOAL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--hosts", nargs="+", choices=["wasmtime", "node", "chromium"], default=["wasmtime", "node", "chromium"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        makers = {"node": node_host, "chromium": chromium_host}
        hosts: dict[str, Host | None] = {}
        for name in options.hosts:
            (folder / name).mkdir()
            hosts[name] = None if name == "wasmtime" else stack.enter_context(makers[name](folder / name))
        for name in options.only:
            found[name] = measure(case(NETS[name]()), hosts, options.rounds)
            print(
                f"{name}: torch {found[name]['torch_ms']} ms; " + ", ".join(f"{h} {r} x" for h, r in found[name]["ratio"].items()),
                flush=True,
            )
    reached = {name: all(ratio <= _goal(name, host) for host, ratio in row["ratio"].items()) for name, row in found.items()}
    print(
        json.dumps(
            {
                "name": "browser_step",
                "unit": "times PyTorch's own time for one training step, one thread",
                "value": {name: row["ratio"] for name, row in found.items()},
                "goal": {**GOALS, "others": OTHER_GOAL},
                "reached": all(reached.values()) and all(row["same_bits"] for row in found.values()),
                "by_network": reached,
                "networks": found,
                "peers": PEERS,
                "load": os.getloadavg(),
            }
        )
    )


if __name__ == "__main__":
    main()
