"""The same job, machines and power cuts under Flower, as its own deployment guide has it: one SuperLink, a SuperNode on each node.

The SuperLink is never struck, a round takes whoever is there, and a SuperNode that gives up is started again. Flower lives in an
environment of its own, which needs torch and numpy beside it; the app is ``examples/peers/flower_fedavg.py``.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import gridsched
from gridsched.core.errors import GridschedError, InvalidInput
from gridsched.demo.stage import Process, free_port
from gridsched.plugins import shipped
from gridsched.study.churn import Arm, Outcome
from gridsched.study.fleet import share_of
from gridsched.study.peers import Race, run

__all__ = ["with_flower"]

_LINK_S = 60.0
_CONFIG = """
[superlink]
default = "study"

[superlink.study]
address = "127.0.0.1:{port}"
insecure = true
"""
_PROJECT = """
[project]
name = "study"
version = "1.0.0"
dependencies = ["flwr"]

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "study"

[tool.flwr.app.components]
serverapp = "flower_fedavg:server_app"
clientapp = "flower_fedavg:client_app"

[tool.flwr.app.config]
num-server-rounds = {rounds}
nodes = {nodes}
share = {share}
job = "{job}"
report = "{report}"
"""
_IN_VENV = """
export PATH="$0/bin:$PATH" FLWR_HOME="$1" PYTHONPATH="$1/path" FLWR_TELEMETRY_ENABLED=0 OMP_NUM_THREADS=1
cd "$1/app" && shift && exec "$@"
"""


def with_flower(
    arm: Arm, job: Path, folder: Path, venv: Path, *, epochs: int, fleet_size: int, at_most_s: float, told: Callable[[str], None]
) -> Outcome:
    """Run ``arm`` (switched by power cuts, or in peace) with the Flower of ``venv``, as `churn.carry_out` does with gridsched.

    An epoch is a round of one pass. Raises InvalidInput where ``venv`` has no Flower.
    """
    if not (venv / "bin" / "flower-superlink").exists():
        raise InvalidInput(
            f"{venv} has no Flower; make an environment with: python -m venv {venv}; {venv}/bin/pip install flwr torch numpy"
        )
    folder, venv = folder.resolve(), venv.resolve()
    share, port, report = share_of(fleet_size), free_port(), folder / "epochs.jsonl"
    _lay_out(folder, job.resolve(), port, report, epochs=epochs, nodes=arm.nodes, share=share)

    def process(name: str, *command: str) -> Process:
        return Process(name=name, command=["sh", "-c", _IN_VENV, str(venv), str(folder), *command], log=folder / f"{name}.log")

    link = process("superlink", "flower-superlink", "--insecure", "--disable-runtime-dependency-installation", "--port", str(port))
    nodes = [
        process(
            f"node-{n + 1}", "flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}",
            "--port", str(free_port()), "--node-config", f"partition-id={n}",
        )
        for n in range(arm.nodes)
    ]  # fmt: skip
    link.start()
    try:
        _await(port, link)
        submit = process("submit", "flwr", "run", ".", "study")
        race = Race(peer="Flower", nodes=nodes, others=[submit], report=report)
        return run(race, arm, epochs=epochs, share=share, at_most_s=at_most_s, told=told)
    finally:
        link.kill()


def _await(port: int, link: Process) -> None:
    """Until somebody listens there: the app is handed in once, and not again."""
    until = time.monotonic() + _LINK_S
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise GridschedError(f"Flower's SuperLink did not listen within {_LINK_S:.0f} s; see {link.log}")


def _lay_out(folder: Path, job: Path, port: int, report: Path, *, epochs: int, nodes: int, share: float) -> None:
    """Flower's home: its configuration, the app, and a path on which nothing but gridsched itself is found."""
    app, path = folder / "app", folder / "path"
    app.mkdir(parents=True)
    path.mkdir()
    (path / "gridsched").symlink_to(Path(gridsched.__file__).parent)
    (folder / "config.toml").write_text(_CONFIG.format(port=port), encoding="utf-8")
    project = _PROJECT.format(rounds=epochs, nodes=nodes, share=share, job=job, report=report)
    (app / "pyproject.toml").write_text(project, encoding="utf-8")
    name = "flower_fedavg.py"
    (app / name).write_bytes((shipped("examples") / "peers" / name).read_bytes())
