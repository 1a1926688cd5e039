"""Real agents with real training children: killed, cut off, opted out; the unit always ends in the same bits."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from gridsched import wire
from gridsched.cli.node import app
from gridsched.core.errors import Conflict, LeaseLost
from gridsched.node.pipe import Gate, Ready
from gridsched.node.start import run_agent
from gridsched.node.state import Home, HomeLock
from gridsched.train.torch_runtime import hardware_class
from tests.node.builders import joined, order, peaceful_update, start_agent, unit
from tests.node.fake_daemon import FakeDaemon, Fault

LONG = 60
"""Passes of the unit: a few seconds of training, enough to be interrupted in."""


class Agents:
    """Starts agents and leaves none behind."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._all: list[subprocess.Popen[str]] = []

    def start(self) -> "subprocess.Popen[str]":
        agent = start_agent(self.home)
        self._all.append(agent)
        return agent

    def close(self) -> None:
        for agent in self._all:
            with suppress(psutil.NoSuchProcess):
                for child in psutil.Process(agent.pid).children():
                    child.kill()
            agent.kill()
            agent.communicate()


@pytest.fixture
def agents(home: Home) -> Iterator[Agents]:
    made = Agents(home)
    yield made
    made.close()


def at_step(daemon: FakeDaemon, step: int) -> None:
    daemon.wait(lambda: (report := daemon.last_report()) is not None and report.step >= step)


def child_of(agent: "subprocess.Popen[str]") -> psutil.Process:
    return psutil.Process(agent.pid).children()[0]


def test_a_unit_ends_in_the_same_bits_though_child_agent_and_daemon_go_down_in_its_middle(
    daemon: FakeDaemon, home: Home, agents: Agents
) -> None:
    spec = unit(daemon, passes=LONG)
    daemon.order = order(spec)
    agent = agents.start()
    at_step(daemon, 30)
    child_of(agent).kill()
    daemon.wait(lambda: (report := daemon.last_report()) is not None and report.state == "starting")
    daemon.wait(lambda: (report := daemon.last_report()) is not None and report.state == "running" and report.step >= 80)
    orphan = child_of(agent)
    agent.kill()
    agent.wait()
    with suppress(psutil.NoSuchProcess):
        orphan.wait(timeout=10)
    assert not orphan.is_running(), "a child without its agent saves and ends"
    assert list(home.middles(spec.unit_id, hardware_class()).iterdir()), "its work is on disk"
    syncs = len(daemon.of(wire.Sync))
    agents.start()
    daemon.wait(lambda: len(daemon.of(wire.Sync)) > syncs and (report := daemon.last_report()) is not None and report.step >= 110)
    daemon.faults += [Fault("/v1/blobs/", "cut", method="PUT"), Fault("/v1/node/update", "drop")]
    daemon.stop()
    daemon.start()
    daemon.wait(lambda: bool(daemon.of(wire.UpdateNotice)))
    notice = daemon.of(wire.UpdateNotice)[0]
    assert notice.update is not None
    assert daemon.blobs[notice.update] == peaceful_update(spec)
    assert notice.steps_executed >= spec.steps
    registers = [sync.meter.register_j for sync in daemon.of(wire.Sync) if sync.meter is not None]
    assert registers == sorted(registers), "the meter's register never ran backwards"
    assert all(fault.times == 0 for fault in daemon.faults)


def test_opting_out_from_the_command_line_gives_the_middle_back_and_another_node_ends_in_the_same_bits(
    daemon: FakeDaemon, home: Home, agents: Agents, tmp_path: Path
) -> None:
    spec = unit(daemon, passes=LONG)
    daemon.order = order(spec)
    agent = agents.start()
    at_step(daemon, 50)
    assert cli("opt-out", "--home", str(home.folder)).startswith("opted out")
    daemon.wait(lambda: bool(daemon.of(wire.HandOver)))
    handed = daemon.of(wire.HandOver)[0]
    assert handed.reason == "opted_out"
    assert handed.continuation is not None
    assert handed.step >= 50
    shown = json.loads(cli("status", "--json", "--home", str(home.folder)))
    assert (shown["running"], shown["opted_in"]) == (True, False)
    agent.send_signal(signal.SIGTERM)
    words, _ = agent.communicate(timeout=20)
    assert agent.returncode == 0, words
    # Another machine, another home.
    daemon.opted_in = True
    daemon.order = order(spec, generation=2, continuation=handed.continuation, continuation_step=handed.step)
    other = Agents(joined(tmp_path / "other", daemon))
    other.start()
    daemon.wait(lambda: bool(daemon.of(wire.UpdateNotice)))
    notice = daemon.of(wire.UpdateNotice)[0]
    other.close()
    assert notice.update is not None
    assert daemon.blobs[notice.update] == peaceful_update(spec)
    assert notice.steps_executed == spec.steps - handed.step


def test_ctrl_c_saves_hands_over_and_ends_well_and_a_second_agent_on_one_home_is_refused(
    daemon: FakeDaemon, home: Home, agents: Agents
) -> None:
    daemon.order = order(unit(daemon, passes=10 * LONG))
    agent = agents.start()
    at_step(daemon, 20)
    second = CliRunner().invoke(app, ["run", "--home", str(home.folder)])
    assert second.exit_code == 1
    assert "already runs" in second.output
    agent.send_signal(signal.SIGINT)
    words, _ = agent.communicate(timeout=20)
    assert agent.returncode == 0, words
    assert "everything is saved" in words
    assert [message.reason for message in daemon.of(wire.HandOver)] == ["node_left"]


def test_joining_keeps_the_token_to_its_owner_and_is_done_once(daemon: FakeDaemon, tmp_path: Path) -> None:
    folder = tmp_path / "node"
    said = cli("join", daemon.url, "--code", "abc", "--name", "n1", "--power", "0.12 kW", "--home", str(folder))
    assert "joined zone z as node n1" in said
    asked = daemon.of(wire.Join)[0]
    assert (asked.code, asked.power_w, asked.meter) == ("abc", 120.0, "meters/estimate.py")
    assert asked.runtime.startswith("torch-")
    assert (folder / "identity.json").stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    again = CliRunner().invoke(app, ["join", daemon.url, "--code", "abc", "--home", str(folder)])
    assert again.exit_code == 1
    assert "already node n1" in again.output


def test_a_code_that_is_refused_leaves_nothing_behind(daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.node.start.probe_runtime", lambda *_: Ready(runtime="torch-x", resident_bytes=10**8))
    daemon.faults.append(Fault("/v1/join", LeaseLost("this code was used already; ask for a new one")))
    refused = CliRunner().invoke(app, ["join", daemon.url, "--code", "abc", "--home", str(tmp_path / "node")])
    assert refused.exit_code == 1
    assert "ask for a new one" in refused.output
    assert not (tmp_path / "node" / "identity.json").exists()


def test_a_home_without_a_node_says_how_to_join(tmp_path: Path) -> None:
    for command in (["run"], ["status"], ["opt-out"]):
        shown = CliRunner().invoke(app, [*command, "--home", str(tmp_path)])
        assert shown.exit_code == 1
        assert "gridsched node join" in shown.output


def test_the_agent_never_imports_torch() -> None:
    code = "import sys, gridsched.node.start, gridsched.cli.node; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_lock_is_freed_by_death_alone(tmp_path: Path) -> None:
    with HomeLock(tmp_path):
        assert HomeLock(tmp_path).held()
    assert not HomeLock(tmp_path).held()
    assert (tmp_path / "lock").exists()


def test_a_second_agent_on_a_home_leaves_the_gate_of_the_first_open(home: Home) -> None:
    with HomeLock(home.folder), Gate(home.gate, owner=True) as gate:
        gate.let()
        with pytest.raises(Conflict, match="an agent already runs"):
            run_agent(home, runtime="wasm")
        assert gate.open


def cli(*arguments: str) -> str:
    shown = CliRunner().invoke(app, list(arguments))
    assert shown.exit_code == 0, shown.output
    return str(shown.output)
