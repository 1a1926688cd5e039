"""Flower's side of train_round.py: its deployment of one SuperLink and some SuperNodes on this machine, as its documentation has it.

`deploy` runs it from an environment of its own. The same file is the app that Flower runs there: a server that averages and writes down
when each round was over, and a client that trains its share of the samples.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
_PATIENCE_S = 420.0
_CONFIG = """
[superlink]
default = "bench"

[superlink.bench]
address = "127.0.0.1:{port}"
insecure = true
"""
_PROJECT = """
[project]
name = "round"
version = "1.0.0"
dependencies = ["flwr"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "bench"

[tool.flwr.app.components]
serverapp = "flower_app:server_app"
clientapp = "flower_app:client_app"

[tool.flwr.app.config]
num-server-rounds = {rounds}
nodes = {nodes}
stamps = "{stamps}"
"""


def deploy(venv: Path, nodes: int, rounds: int) -> dict[str, Any]:
    """Seconds of each round (the median leaves out the first), and the most megabytes seen. Raises RuntimeError with its last words."""
    import fleet
    import psutil

    from gridsched.demo.stage import free_port

    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        folder, port = Path(text), free_port()
        stamps, app = folder / "stamps", folder / "app"
        app.mkdir()
        (folder / "config.toml").write_text(_CONFIG.format(port=port), encoding="utf-8")
        (app / "pyproject.toml").write_text(_PROJECT.format(rounds=rounds, nodes=nodes, stamps=stamps), encoding="utf-8")
        for name in ("fashion_mlp.py", "flower_app.py"):
            (app / name).write_bytes((_HERE / name).read_bytes())
        environment = {**os.environ, "FLWR_HOME": str(folder), "PATH": f"{venv}/bin:{os.environ['PATH']}", "FLWR_TELEMETRY_ENABLED": "0"}
        log = stack.enter_context((folder / "log").open("wb"))

        def start(program: str, *arguments: str) -> "subprocess.Popen[bytes]":
            command = [str(venv / "bin" / program), *arguments]
            child = subprocess.Popen(command, env=environment, cwd=app, stdout=log, stderr=log, start_new_session=True)
            stack.callback(_end, child)
            return child

        link = start("flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(port))
        time.sleep(5.0)
        for number in range(nodes):
            config = f"partition-id={number}"
            start("flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--port", str(free_port()), "--node-config", config)
        began_s = time.time()
        start("flwr", "run", ".", "bench")
        most_mb = 0.0
        while time.time() - began_s < _PATIENCE_S and link.poll() is None:
            time.sleep(2.0)
            ours = [p for p in psutil.Process().children(recursive=True) if str(venv) in " ".join(_command(p))]
            most_mb = max(most_mb, sum(map(fleet.memory_mb, ours)))
            if stamps.exists() and len(stamps.read_text(encoding="ascii").splitlines()) > rounds:
                break
        else:
            words = (folder / "log").read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"Flower did not end {rounds} rounds of {nodes} nodes in {_PATIENCE_S:.0f} s:\n{words}")
        at_s = [float(line) for line in stamps.read_text(encoding="ascii").splitlines()]
    seconds = [after - before for before, after in pairwise(at_s)]
    return {
        "version": _version(venv),
        "first_s": round(at_s[1] - began_s, 1),
        "median_s": round(statistics.median(seconds[1:] or seconds), 2),
        "all_mb": round(most_mb),
        "runs": [round(value, 2) for value in seconds],
    }


def _command(process: Any) -> list[str]:
    import psutil

    try:
        found: list[str] = process.cmdline()
    except psutil.Error:
        return []
    return found


def _version(venv: Path) -> str:
    told = subprocess.run([venv / "bin" / "flwr", "--version"], capture_output=True, text=True, check=False).stdout
    return told.strip().rsplit(" ", 1)[-1]


def _end(child: "subprocess.Popen[bytes]") -> None:
    """End a process and all it has started: Flower's own children outlive it otherwise."""
    import psutil

    try:
        head = psutil.Process(child.pid)
        below = [head, *head.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in below:
        try:
            process.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    child.wait()


if __name__ == "__main__":
    print(deploy(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
