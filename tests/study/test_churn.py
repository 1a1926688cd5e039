"""The churn study: which runs it makes, what it says of them, and one real run from end to end."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.errors import InvalidInput
from gridsched.plugins import shipped
from gridsched.report.study import markdown, write
from gridsched.study.churn import Arm, Outcome, arms, outcome
from gridsched.study.flower import with_flower
from gridsched.study.peers import with_torch
from gridsched.study.switching import How, Switching
from gridsched.study.tables import churn_document, churn_panels, churn_rows, peers_document, peers_panels, peers_rows

PEACE = Outcome(
    arm="2 nodes, in peace", nodes=2, every_s=None, how="", accuracy=0.9, digest="a" * 64, done=1.0, ended=4, wall_s=10.0, useful_j=3600.0,
    wasted_j=0.0, idle_j=0.0, cuts=0,
)  # fmt: skip
ALONE = replace(PEACE, arm="one node, in peace", nodes=1, wall_s=20.0)
SWITCHED = replace(PEACE, arm="2 nodes, opting out and in every 5 s", every_s=5.0, how=How.OPT_OUT.value, wall_s=21.0, wasted_j=360.0)
CUT = replace(SWITCHED, arm="cut", how=How.POWER_CUT.value, done=0.25, digest="b" * 64, accuracy=None, cuts=7)


def test_one_run_alone_one_in_peace_and_one_for_each_way_and_time() -> None:
    planned = arms(3, opt_outs_s=[2, 5], power_cuts_s=[30])
    assert [(arm.nodes, arm.switching and (arm.switching.how.value, arm.switching.every_s)) for arm in planned] == [
        (1, None), (3, None), (3, ("opt-out", 2)), (3, ("opt-out", 5)), (3, ("power-cut", 30)),
    ]  # fmt: skip


def epoch(*, ended: bool, useful_j: float, wasted_j: float) -> dict[str, Any]:
    at = "2026-01-28T02:00:00+00:00" if ended else None
    return {
        "ended_at": at,
        "accuracy": 0.5 if ended else None,
        "useful_j": useful_j,
        "wasted_j": wasted_j,
        "idle_j": 1.0,
        "audit_j": wasted_j / 5,
    }


def test_what_was_drawn_in_the_epoch_that_time_ran_out_in_counts_like_the_rest() -> None:
    versions = [{"number": number, "digest": f"d{number}"} for number in range(4)]
    books = [epoch(ended=True, useful_j=100.0, wasted_j=5.0), epoch(ended=False, useful_j=60.0, wasted_j=40.0)]
    found = outcome(Arm(name="cut", nodes=2), books, versions, rounds=4, wall_s=9.0, cuts=3)
    assert (found.ended, found.done, found.accuracy, found.digest) == (1, 0.75, 0.5, "d3")
    assert (found.useful_j, found.wasted_j, found.idle_j, found.audit_j) == (160.0, 45.0, 2.0, 9.0)
    twice = outcome(Arm(name="cut", nodes=2), [*books, books[0]], versions, rounds=4, wall_s=9.0, cuts=3)
    assert (twice.useful_j, twice.wasted_j) == (130.0, 25.0)


def test_a_run_in_which_no_epoch_ended_has_no_energy_per_epoch() -> None:
    books = [epoch(ended=False, useful_j=60.0, wasted_j=40.0)]
    none = outcome(Arm(name="cut", nodes=2), books, [{"number": 1, "digest": "d1"}], rounds=4, wall_s=9.0, cuts=3)
    assert (none.ended, none.useful_j) == (0, 60.0)
    rows = churn_rows([ALONE, PEACE, none])
    assert (rows[2]["useful Wh/epoch"], rows[2]["wasted Wh/epoch"], rows[2]["energy"]) == ("no epoch", "no epoch", "")
    assert [row["Wh/epoch"] for row in peers_rows([PEACE, none])] == ["1.000", "no epoch"]


def test_bits_are_compared_among_the_runs_that_came_to_their_end() -> None:
    assert churn_document([ALONE, PEACE, SWITCHED, CUT], "j")["same_bits"] is True
    assert churn_document([ALONE, PEACE, replace(SWITCHED, digest="c" * 64)], "j")["same_bits"] is False
    rows = churn_rows([ALONE, PEACE, SWITCHED, CUT, replace(SWITCHED, digest="c" * 64)])
    assert [row["final bits"] for row in rows] == ["aaaaaaaa", "aaaaaaaa", "aaaaaaaa", "(not done)", "cccccccc DIFFERENT"]


def test_times_and_energies_stand_against_peace() -> None:
    rows = churn_rows([ALONE, PEACE, SWITCHED, CUT])
    assert (rows[2]["time"], rows[2]["energy"], rows[3]["time"]) == ("21 s (2.10 x)", "1.100 x", "25% done in 21 s")


def test_a_run_that_was_not_done_is_a_gap_in_the_picture() -> None:
    accuracy = churn_panels([ALONE, PEACE, SWITCHED, CUT])[0]
    assert [(line.x, line.y) for line in accuracy.lines] == [([5.0], [0.9]), ([5.0], [None]), ((), [0.9]), ((), [0.9])]


def test_a_table_a_document_and_a_picture_are_written(tmp_path: Path) -> None:
    found = [ALONE, PEACE, SWITCHED, CUT]
    table, figures, picture = write(tmp_path / "new", "churn", churn_document(found, "j"), churn_rows(found), churn_panels(found))
    assert markdown(churn_rows(found)) in table.read_text()
    assert len(json.loads(figures.read_text())["runs"]) == 4
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_the_peer_s_runs_stand_beside_ours(tmp_path: Path) -> None:
    theirs = [replace(one, arm=f"torch.distributed: {one.arm}", digest="") for one in (PEACE, CUT)]
    found = [ALONE, PEACE, replace(CUT, done=1.0, accuracy=0.9), *theirs]
    done, accuracy, time, _ = peers_panels(found)
    assert [(line.name, line.y) for line in done.lines] == [
        ("gridsched", [1.0]), ("torch.distributed", [0.25]), ("gridsched, in peace", [1.0]), ("torch.distributed, in peace", [1.0]),
    ]  # fmt: skip
    assert [line.y for line in accuracy.lines[:2]] == [[0.9], [None]], "of a run that did not end none is told"
    assert [line.y for line in time.lines[:2]] == [[21.0], [None]]
    assert [row["done"] for row in peers_rows(found)] == ["100%", "100%", "100%", "100%", "25%"]
    assert write(tmp_path, "peers", peers_document(found, "j"), peers_rows(found), peers_panels(found))[2].exists()


def test_every_peer_is_a_side_of_its_own() -> None:
    theirs = [replace(one, arm=f"{peer}: {one.arm}", digest="") for peer in ("torch.distributed", "Flower") for one in (PEACE, CUT)]
    done, *_ = peers_panels([ALONE, PEACE, CUT, *theirs])
    assert [line.name for line in done.lines[:3]] == ["gridsched", "torch.distributed", "Flower"]
    assert [line.y for line in done.lines[:3]] == [[0.25]] * 3


def test_an_environment_without_flower_is_refused_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"has no Flower; make an environment with: python -m venv .*; .*/bin/pip install flwr torch"):
        with_flower(
            Arm(name="peace", nodes=2), tmp_path / "job.py", tmp_path / "out", tmp_path, epochs=1, fleet_size=2, at_most_s=1, told=print
        )
    assert not (tmp_path / "out").exists()


def test_what_is_no_list_of_seconds_is_refused(tmp_path: Path) -> None:
    for option in ("--every", "--power-cuts"):
        answer = CliRunner().invoke(app, ["evaluate", "churn", str(tmp_path / "x"), option, "2,soon"])
        assert answer.exit_code == 1
        assert "is not a list of numbers" in answer.stderr
    assert not (tmp_path / "x").exists()


@pytest.mark.long
def test_switched_nodes_come_to_the_bits_of_peace(tmp_path: Path) -> None:
    job = shipped("examples") / "image_cnn.py"
    command = ["evaluate", "churn", str(tmp_path / "out"), "--every", "3", "--power-cuts", "12", "--nodes", "2", "--epochs", "2"]
    answer = CliRunner().invoke(app, [*command, "--job", str(job), "--at-most", "240"])
    assert answer.exit_code == 0, answer.output
    document = json.loads((tmp_path / "out" / "churn.json").read_text())
    assert document["same_bits"] is True
    assert [run["done"] for run in document["runs"]] == [1.0] * 4
    assert all(run["useful_j"] > 0 for run in document["runs"])


@pytest.mark.long
def test_the_same_job_under_torch_distributed_learns_in_peace_and_gets_nowhere_when_cut_often(tmp_path: Path) -> None:
    job = shipped("examples") / "image_cnn.py"

    def run(arm: Arm, *, at_most_s: float) -> Outcome:
        return with_torch(arm, job, tmp_path / arm.name, epochs=3, fleet_size=2, at_most_s=at_most_s, told=lambda _: None)

    quiet = run(Arm(name="peace", nodes=2), at_most_s=200)
    assert (quiet.done, quiet.cuts) == (1.0, 0)
    assert quiet.accuracy is not None
    assert quiet.accuracy > 0.9
    assert quiet.useful_j > 0
    cut = run(Arm(name="cut", nodes=2, switching=Switching(nodes=2, every_s=4, how=How.POWER_CUT)), at_most_s=20)
    assert cut.cuts >= 4
    assert cut.wall_s >= 20, "no time to begin, let alone to end an epoch"
