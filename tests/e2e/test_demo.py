"""The whole demo in real processes: whatever is killed and whoever leaves, the weights come out the same."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
_LONGEST_S = 540.0
_EPOCH = {"useful_j", "wasted_j", "idle_j", "reward_micro", "accuracy"}


def start(folder: Path, *options: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "gridsched", "demo", "--plain", "--out", str(folder), *options]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True)


def left_behind(folder: Path) -> list[str]:
    """Command lines that name the demo's folder: the demo itself, its daemon, its agents and their workers."""
    lines = (" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"]))
    return [line for line in lines if str(folder) in line]


def demo(folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    """Its summary, and what it printed."""
    running = start(folder, *options)
    try:
        told, _ = running.communicate(timeout=_LONGEST_S)
    finally:
        running.kill()
    assert running.returncode == 0, told
    summary: dict[str, Any] = json.loads((folder / "demo-summary.json").read_text())
    return summary, told


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return demo(tmp_path_factory.mktemp("quiet") / "site", "--no-kill")[0]


@pytest.fixture(scope="module")
def stormy(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], str, Path]:
    folder = tmp_path_factory.mktemp("stormy") / "site"
    return *demo(folder, "--seed", "3", "--kill-daemon"), folder


def test_the_weights_are_the_same_with_and_without_incidents(quiet: dict[str, Any], stormy: tuple[dict[str, Any], str, Path]) -> None:
    assert stormy[0]["final_digest"] == quiet["final_digest"]
    assert len(quiet["final_digest"]) == 64
    assert [e["accuracy"] for e in stormy[0]["epochs"]] == [e["accuracy"] for e in quiet["epochs"]]


def test_nothing_happens_on_a_quiet_day(quiet: dict[str, Any]) -> None:
    assert quiet["crashes"] == 0
    assert "opted_out" not in quiet["lease_reasons"]


def test_on_a_stormy_day_a_node_and_the_daemon_are_killed_and_a_unit_is_handed_over(stormy: tuple[dict[str, Any], str, Path]) -> None:
    summary, told, _ = stormy
    assert summary["crashes"] == 2
    assert summary["crashed"]["daemon"] == 1
    assert summary["hand_overs"] >= 1
    assert summary["pauses"] >= 1
    for words in ("opts out in the middle of unit", "loses its power in the middle of a unit", "has power again", "is started again"):
        assert words in told, words


def test_the_summary_accounts_for_every_epoch_and_every_cent(stormy: tuple[dict[str, Any], str, Path]) -> None:
    summary, _, _ = stormy
    assert summary["accuracy"] > 0.95
    assert len(summary["epochs"]) == 8
    assert all(epoch.keys() >= _EPOCH for epoch in summary["epochs"])
    assert all(epoch["useful_j"] > 0 and epoch["reward_micro"] > 0 for epoch in summary["epochs"])
    assert summary["ledger_balanced"]
    assert summary["chain_ok"]
    assert summary["reasons"]["surplus"] > summary["reasons"].get("unknown_signal", 0)


def test_it_leaves_a_picture_and_no_process_behind(stormy: tuple[dict[str, Any], str, Path]) -> None:
    _, _, folder = stormy
    assert (folder / "day.png").read_bytes()[:4] == b"\x89PNG"
    assert left_behind(folder) == []


def test_an_interrupt_ends_every_process(tmp_path: Path) -> None:
    with start(tmp_path / "site") as running:
        assert running.stdout is not None
        told = next(line for line in running.stdout if line.startswith("daemon http"))
        assert len(left_behind(tmp_path)) >= 5, told  # the demo, its daemon and three agents
        running.send_signal(signal.SIGINT)
        assert "all processes are ended" in running.stdout.read()
        assert running.wait(timeout=60) == 130
    assert left_behind(tmp_path) == []
