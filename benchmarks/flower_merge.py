"""Flower's own aggregation of updates from files, run by ``train_merge.py`` in the environment that Flower is installed in.

    python flower_merge.py FOLDER

``FOLDER/UPDATE/LAYER.npy`` are the layers of each update, in the bytes in which Flower's messages carry them. Prints one JSON object.
"""

import importlib.metadata
import json
import sys
import threading
import time
from pathlib import Path

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords


def private_bytes() -> int:
    """Memory of this process that is no file's (Linux: RssAnon)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def read(folder: Path, shapes: dict[str, list[int]]) -> RecordDict:
    """One reply as it arrives."""
    arrays = {
        name: Array(dtype="float32", shape=tuple(shape), stype="numpy.ndarray", data=(folder / f"{name}.npy").read_bytes())
        for name, shape in shapes.items()
    }
    return RecordDict({"arrays": ArrayRecord(arrays), "metrics": MetricRecord({"num-examples": 1.0})})


def main() -> None:
    """Read and aggregate once, watching the memory."""
    folder = Path(sys.argv[1])
    shapes = json.loads((folder / "shapes.json").read_text())
    before, peak, done = private_bytes(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], private_bytes())

    threading.Thread(target=watch, daemon=True).start()
    began = time.perf_counter()
    replies = [read(update, shapes) for update in sorted(folder.iterdir()) if update.is_dir()]
    arrived = time.perf_counter()
    aggregate_arrayrecords(replies, "num-examples")
    ended = time.perf_counter()
    done.set()
    print(
        json.dumps(
            {
                "version": importlib.metadata.version("flwr"),
                "read_s": arrived - began,
                "aggregate_s": ended - arrived,
                "extra_bytes": peak[0] - before,
            }
        )
    )


if __name__ == "__main__":
    main()
