"""Merging 16 updates of 25 million float32 parameters from files: seconds and memory, against Flower and the read limit, side by side.

    python benchmarks/train_merge.py [--rounds 5] [--flower VENV/bin/python]

Each round measures, one after another: reading all updates once (every byte through memory, nothing else), our merge of raw updates,
our merge of the same ones as int8 blocks, and Flower's own ``aggregate_arrayrecords`` of the same values, run in the environment
that ``--flower`` (or ``FLOWER_PYTHON``) names; without one it is not measured. All begin with files, which are in the page cache, and
end with the merged model in memory; for Flower that is reading the files into its messages and aggregating them. Memory is the peak
of what is private to the process (RssAnon) above what it was before; pages of mapped files are the page cache's. Ours is measured in
a process of its own. The robust rules and the digest of all updates are timed once. The last line is one JSON object.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from gridsched.core.method import Codec, MergeRule, Method, OuterOptimizer  # noqa: E402 - after the path, so that it runs from a checkout
from gridsched.train.codec import encode  # noqa: E402
from gridsched.train.merge import merge_version  # noqa: E402
from gridsched.train.tensors import open_tensors  # noqa: E402
from gridsched.train.version import Version  # noqa: E402

GOAL, MEMORY_GOAL = 15.0, 1.2
UPDATES, PARAMETERS, LAYERS = 16, 25_000_000, 10
MODEL_BYTES = 4 * PARAMETERS
METHODS = {
    "raw": Method(),
    "int8": Method(codec=Codec.INT8),
    "nesterov, int8 down": Method(outer=OuterOptimizer(name="nesterov", lr=0.7, momentum=0.9), codec=Codec.INT8, down=Codec.INT8),
    **{rule.value: Method(merge=rule) for rule in MergeRule if rule is not MergeRule.MEAN},
}


def write_files(folder: Path) -> None:
    """The base and the updates: raw, as int8, and as Flower's messages carry them."""
    draw = np.random.default_rng(0)
    size = PARAMETERS // LAYERS
    names = [f"layer{index}" for index in range(LAYERS)]
    (folder / "flower").mkdir()
    (folder / "flower" / "shapes.json").write_text(json.dumps({name: [size] for name in names}))
    (folder / "base").write_bytes(Version(tensors={name: draw.normal(size=size).astype(np.float32) for name in names}).to_bytes())
    for update in range(UPDATES):
        delta = {name: draw.standard_normal(size, np.float32) * np.float32(1e-3) for name in names}
        for codec in (Codec.RAW, Codec.INT8):
            (folder / f"{codec}{update:02}").write_bytes(encode(delta, codec))
        (folder / "flower" / f"u{update:02}").mkdir()
        for name, values in delta.items():
            np.save(folder / "flower" / f"u{update:02}" / f"{name}.npy", values)


def files(folder: Path, codec: Codec) -> list[tuple[str, float, Path]]:
    """The updates as the merge takes them."""
    return [(f"u{update:02}", 1.0, folder / f"{codec}{update:02}") for update in range(UPDATES)]


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def read_all(folder: Path) -> None:
    """Every byte of the raw updates through the processor, once."""
    for _, _, path in files(folder, Codec.RAW):
        for array in open_tensors(path)[0].values():
            np.add.reduce(array)


def digest_all(folder: Path) -> None:
    """What holding the updates against their digests takes, where they were not just written."""
    for _, _, path in files(folder, Codec.RAW):
        with path.open("rb") as file:
            hashlib.file_digest(file, "sha256")


def private_bytes() -> int:
    """Memory of this process that is no file's (Linux: RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def once(folder: Path, name: str) -> None:
    """One merge, watched; what it took as JSON."""
    method = METHODS[name]
    before, peak, done = private_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], private_bytes())

    threading.Thread(target=watch, daemon=True).start()
    took_s = seconds(lambda: merge_version(folder / "base", files(folder, method.codec), method))
    done.set()
    print(json.dumps({"seconds": took_s, "extra_bytes": peak[0] - before}))


def ours(folder: Path, name: str) -> dict[str, float]:
    """One merge in a process of its own."""
    command = [sys.executable, __file__, "--once", name, "--folder", str(folder)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def flower(python: str, folder: Path) -> dict[str, float] | None:
    """Flower's turn; None where it is not installed."""
    if not python:
        return None
    command = [python, str(Path(__file__).with_name("flower_merge.py")), str(folder / "flower")]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found: dict[str, float] = json.loads(answer.splitlines()[-1])
    return found


def main() -> None:
    """Time the rounds and print the verdict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--flower", default=os.environ.get("FLOWER_PYTHON", ""), help="the Python that has Flower installed")
    parser.add_argument("--once", choices=METHODS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.folder, options.once)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_files(folder)
        report(folder, options.rounds, options.flower)


def report(folder: Path, rounds: int, python: str) -> None:
    """Every round's seconds, and what they come to."""
    times: dict[str, list[float]] = {"read": [], "raw": [], "int8": [], "flower": []}
    memory: dict[str, float] = {}
    version = "not measured"
    for turn in range(rounds):
        times["read"].append(seconds(lambda: read_all(folder)))
        for name in ("raw", "int8"):
            took = ours(folder, name)
            times[name].append(took["seconds"])
            memory[name] = max(memory.get(name, 0.0), took["extra_bytes"] / MODEL_BYTES)
        if theirs := flower(python, folder):
            times["flower"].append(theirs["read_s"] + theirs["aggregate_s"])
            memory["flower"] = max(memory.get("flower", 0.0), theirs["extra_bytes"] / MODEL_BYTES)
            version = f"Flower {theirs['version']}"
        shown = ", ".join(f"{name} {values[-1]:.3f} s" for name, values in times.items() if values)
        print(f"round {turn + 1}/{rounds}: {shown}; load {os.getloadavg()[0]:.1f}", flush=True)
    others = {name: ours(folder, name) for name in METHODS if name not in times}
    for name, took in others.items():
        print(f"{name}: {took['seconds']:.2f} s, {took['extra_bytes'] / MODEL_BYTES:.2f} models", flush=True)
        memory[name] = took["extra_bytes"] / MODEL_BYTES
    digests_s = seconds(lambda: digest_all(folder))
    print(f"sha256 of all updates: {digests_s:.2f} s", flush=True)
    middle = {name: statistics.median(values) for name, values in times.items() if values}
    ratio = middle["flower"] / middle["raw"] if "flower" in middle else None
    int8_ratio = middle["int8"] / middle["raw"]
    reached = ratio is not None and ratio >= GOAL and max(memory["raw"], memory["int8"]) <= MEMORY_GOAL and int8_ratio <= 1
    print(
        json.dumps(
            {
                "name": "train_merge",
                "value": None if ratio is None else round(ratio, 1),
                "unit": "times as fast as Flower",
                "goal": GOAL,
                "reached": reached,
                "seconds": {name: round(value, 3) for name, value in middle.items()},
                "int8_to_raw": round(int8_ratio, 3),
                "models_of_memory": {name: round(value, 2) for name, value in memory.items()},
                "once_s": {name: round(took["seconds"], 2) for name, took in others.items()} | {"sha256": round(digests_s, 2)},
                "peers": {version: middle.get("flower", "not measured")},
                "load": os.getloadavg()[0],
                "runs": {name: [round(value, 3) for value in values] for name, values in times.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
