"""``gridsched node data``: what a consumer keeps to itself and lets jobs learn from, at home."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from gridsched.cli import app
from gridsched.node.state import Home, Identity


@pytest.fixture
def home(tmp_path: Path) -> Path:
    node = Home(tmp_path / "home")
    node.make()
    identity = Identity(url="http://127.0.0.1:1", node_id="n1", token="t", zone="z", power_w=1.0, runtime="torch-x", clock_speed=1.0)
    node.set_identity(identity)
    return node.folder


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "steps.npz"
    np.savez(path, x=np.zeros((7, 2), np.float32), y=np.arange(7))
    return path


def run(home: Path, *words: str | Path) -> Result:
    return CliRunner().invoke(app, ["node", "data", *map(str, words), "--home", str(home)])


def test_data_is_added_listed_and_removed(home: Path, table: Path) -> None:
    assert "none; add some" in run(home, "list").output
    assert "7 samples" in run(home, "add", "steps", table).output
    assert "steps: 7 samples, manifest " in run(home, "list").output
    assert "is removed" in run(home, "remove", "steps").output
    assert "none; add some" in run(home, "list").output


def test_what_cannot_be_done_is_one_line_with_a_remedy(home: Path, table: Path, tmp_path: Path) -> None:
    for words, said in (
        (("remove", "steps"), "gridsched node data list"),
        (("add", "Steps!", table), "lower-case"),
        (("add", "steps", tmp_path / "none.csv"), "no file"),
    ):
        answer = run(home, *words)
        assert answer.exit_code == 1
        assert said in answer.stderr
    stranger = run(tmp_path / "nobody", "add", "steps", table)
    assert stranger.exit_code == 1
    assert "join first" in stranger.stderr
