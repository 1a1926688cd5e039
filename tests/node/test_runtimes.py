"""A node without PyTorch: it trains with the small runtime, says so, and is told what to install where it has neither."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gridsched import wire
from gridsched.config import environment_with
from gridsched.core.errors import ConfigError, InvalidInput
from gridsched.core.work import UnitSpec
from gridsched.node import runtimes
from gridsched.node.runtimes import choose
from gridsched.node.settings import NodeSettings, parse_settings
from gridsched.node.start import probe_runtime
from gridsched.node.state import Home
from gridsched.train import codec
from gridsched.train.unit import run
from gridsched.train.version import initial_version
from gridsched.train.wasm_runtime import WasmRuntime, hardware_class
from tests.node.builders import joined, order, quiet, unit
from tests.node.fake_daemon import FakeDaemon
from tests.train.builders import dataset_of, hard_net, samples

MISSING = "raise ModuleNotFoundError(\"No module named '{name}'\", name='{name}')\n"


def without(folder: Path, *names: str) -> dict[str, str]:
    """An environment in which importing these packages fails as if they were not installed."""
    for name in names:
        (folder / name).mkdir(parents=True)
        (folder / name / "__init__.py").write_text(MISSING.format(name=name))
    return environment_with({"PYTHONPATH": str(folder)})


def absent(name: str) -> Any:
    def refuse(*_: object, **__: object) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    return refuse


def wasm_update(spec: UnitSpec) -> bytes:
    """The bytes of the update of a run in this process."""
    program, tensors = hard_net()
    outcome = run(spec, WasmRuntime(program, tensors), dataset_of(samples()), initial_version(program, tensors).tensors)
    return codec.encode(outcome.delta, spec.codec)


def test_a_node_without_pytorch_trains_a_unit_to_the_bits_of_the_small_runtime(daemon: FakeDaemon, tmp_path: Path) -> None:
    home = joined(tmp_path / "home", daemon)
    spec = unit(daemon)
    daemon.order = order(spec)
    code = "import sys; from gridsched.cli.node import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", code, "run", "--runtime", "wasm", "--home", str(home.folder)]
    agent = subprocess.Popen(command, env=without(tmp_path / "none", "torch"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        daemon.wait(lambda: bool(daemon.of(wire.UpdateNotice)))
    finally:
        agent.terminate()
        words, _ = agent.communicate(timeout=20)
    assert {hello.runtime for hello in daemon.of(wire.Hello)} == {hardware_class()}, words
    (notice,) = daemon.of(wire.UpdateNotice)
    assert notice.update is not None
    assert daemon.blobs[notice.update] == wasm_update(spec)


def test_where_pytorch_is_not_installed_the_small_runtime_is_found_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.make()
    monkeypatch.setenv("PYTHONPATH", without(tmp_path / "none", "torch")["PYTHONPATH"])
    found = probe_runtime(home, quiet())
    assert found.runtime == hardware_class()
    assert found.resident_bytes > 0
    with pytest.raises(ConfigError, match=r"gridsched\[train\].*--runtime wasm"):
        probe_runtime(home, NodeSettings(runtime="torch"))


def test_where_neither_is_installed_both_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Home(tmp_path)
    home.make()
    monkeypatch.setenv("PYTHONPATH", without(tmp_path / "none", "torch", "wasmtime")["PYTHONPATH"])
    with pytest.raises(ConfigError, match=r"gridsched\[wasm\].*gridsched\[train\]"):
        probe_runtime(home, quiet())
    with pytest.raises(ConfigError, match=r"wasmtime is not installed: pip install 'gridsched\[wasm\]'"):
        probe_runtime(home, NodeSettings(runtime="wasm"))


def test_what_a_runtime_itself_lacks_is_not_taken_for_its_absence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "_torch", absent("numpy"))
    for wanted in ("auto", "torch"):
        with pytest.raises(ModuleNotFoundError):
            choose(wanted, device="cpu", threads=1)


def test_the_small_runtime_computes_on_the_processor_alone() -> None:
    assert choose("wasm", device="auto", threads=4).hardware_class == hardware_class()
    with pytest.raises(ConfigError, match='runtime = "torch" for cuda'):
        choose("wasm", device="cuda", threads=1)


def test_a_runtime_that_is_not_known_is_refused_by_name() -> None:
    assert parse_settings('runtime = "wasm"').runtime == "wasm"
    with pytest.raises(ConfigError, match="runtime 'jax' is none of auto, torch, wasm"):
        parse_settings('runtime = "jax"')
    with pytest.raises(InvalidInput):
        NodeSettings(runtime="")
