"""A model owner's commands against a real daemon: evaluate, predict, compare, and an ensemble followed as one."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.job import Job, JobState
from gridsched.core.round import Epoch, Version
from gridsched.core.settings import Web
from gridsched.owner import Submission, submit
from gridsched.ports import Tx
from gridsched.remote import Operator
from gridsched.train.version import Version as Model
from gridsched.train.version import read_version
from tests.cli.conftest import never
from tests.train.test_members import prepared
from tests.web.conftest import ZONE, House

Run = Callable[..., Any]
"""``gridsched job ...`` against the daemon."""


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    made = House(tmp_path_factory.mktemp("house"), Web(port=0))
    yield made
    made.close()


@pytest.fixture
def run(house: House) -> Run:
    def invoke(*words: object, code: int = 0) -> str:
        result = CliRunner().invoke(app, ["job", *map(str, words), "--url", house.url, "--token", "operator"])
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def trained(house: House, made: Submission, weights: Callable[[int], np.ndarray]) -> str:
    """The submission as if it had been trained: version 1 of member m has these weights, and its only epoch has ended."""
    made = replace(made, specs=tuple(replace(spec, zone=ZONE) for spec in made.specs))
    operator = Operator(house.url, "operator")
    submit(operator, made)
    for member, spec in enumerate(made.specs):
        old = read_version(made.blobs[spec.initial])
        new = Model(tensors={"weight": weights(member), "bias": np.zeros(3, np.float32)}, buffers=old.buffers).to_bytes()
        house.do(_version_of(spec.job_id, operator.put_blob(new), len(new), accuracy=0.4 + member / 10))
    operator.close()
    return made.name


def _version_of(job_id: str, digest: str, size: int, *, accuracy: float) -> Callable[[Tx, datetime], Any]:
    def verb(tx: Tx, now: datetime) -> list[Any]:
        job = tx.must(Job, job_id)
        row = Version(
            job_id=job_id,
            number=1,
            digest=digest,
            parent=job.spec.initial,
            round_id=None,
            epoch=0,
            updates=(),
            size_bytes=size,
            made_at=now,
        )
        tx.insert(replace(row, accuracy=accuracy, loss=0.5))
        tx.put(replace(job, version=1))
        epoch = Epoch(job_id=job_id, number=0, started_at=now, ended_at=now, useful_j=3600.0, wasted_j=360.0, accuracy=accuracy, loss=0.5)
        tx.put(epoch)
        return []

    return verb


def sure_of(label: int) -> np.ndarray:
    """Weights of a member that knows samples of ``label`` only: x is the label's unit vector."""
    made = np.zeros((3, 4), np.float32)
    made[label, label] = 9.0
    return made


@pytest.fixture(scope="module")
def single(house: House, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("single")
    return trained(house, prepared(folder, {"epochs": 1}, seed=1), lambda _: 9 * np.eye(3, 4, dtype=np.float32))


@pytest.fixture(scope="module")
def ensemble(house: House, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ensemble")
    return trained(house, prepared(folder, {"name": "ensemble-bagging", "members": 3}), sure_of)


@pytest.fixture(scope="module")
def one_class(house: House, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The toy's score is minus the squared length of what the weights make of x: member m's let its own label through as nothing."""
    folder = tmp_path_factory.mktemp("one")
    made = prepared(folder, {"name": "ensemble-one-class"}, score=True)
    return trained(house, made, lambda member: np.float32(1) - np.eye(4, dtype=np.float32)[[member] * 3])


def test_evaluate_tells_accuracy_loss_and_each_label(run: Run, single: str) -> None:
    told = run("evaluate", single)
    assert re.search(rf"{single}, version 1, on 7 samples, loss 0.000", told)
    assert re.search(r"2 .* 3 .* 100.00%", told), "label, answers, recognised"
    assert "accuracy 100.00%" in told
    found = json.loads(run("evaluate", single, "--version", 0, "--json"))
    assert found["versions"] == [0]
    assert found["by_rule"]["single"]["accuracy"] < 1
    assert "has no version 9; it has 0 to 1" in run("evaluate", single, "--version", 9, code=1)


def test_evaluate_tries_every_rule_on_an_ensemble_and_names_one(run: Run, ensemble: str) -> None:
    found = json.loads(run("evaluate", ensemble, "--json"))
    assert set(found["by_rule"]) == {"product", "sum", "max", "min", "median", "majority", "confidence"}
    assert found["by_rule"]["sum"]["accuracy"] == 1.0
    assert found["by_rule"]["median"]["accuracy"] < 1.0, "the two that know nothing outvote the one that does"
    assert found["best"] == min(found["by_rule"], key=lambda rule: (-found["by_rule"][rule]["accuracy"], found["by_rule"][rule]["loss"]))
    told = run("evaluate", ensemble, "--rule", "median")
    assert f"the one to use, judged by these samples: {found['best']}" in told
    assert re.search(r"accuracy 28.57% by median", told)


def test_one_class_members_answer_together_and_not_alone(run: Run, one_class: str, tmp_path: Path) -> None:
    found = json.loads(run("evaluate", one_class, "--json"))
    assert found["samples"] == 7, "the members' own test samples, each once"
    assert found["by_rule"]["confidence"]["accuracy"] == 1.0
    assert "not combined by sum" in run("evaluate", one_class, "--rule", "sum", code=1).replace("\n", " ")
    alone = run("predict", f"{one_class}-m0", "-i", tmp_path / "x", "-o", tmp_path / "y.csv", code=1)
    assert f"knows one class only; ask its ensemble {one_class}" in alone.replace("\n", " ")


def test_evaluate_on_other_samples(run: Run, single: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", x=np.eye(4, dtype=np.float32)[[0, 0, 1]], y=np.array([0, 1, 1]))
    found = json.loads(run("evaluate", single, "--data", tmp_path / "mine.npz", "--json"))
    assert (found["samples"], round(found["by_rule"]["single"]["accuracy"], 3)) == (3, 0.667)


@pytest.mark.parametrize("kind", ["npz", "csv"])
def test_predict_is_a_batch_in_and_probabilities_out(run: Run, ensemble: str, tmp_path: Path, kind: str) -> None:
    rows = np.eye(4, dtype=np.float32)[[2, 0]]
    if kind == "npz":
        np.savez(tmp_path / "in.npz", x=rows)
    else:
        np.savetxt(tmp_path / "in.csv", rows, delimiter=",", header="a,b,c,d", comments="")
    told = run("predict", ensemble, "--input", tmp_path / f"in.{kind}", "--output", tmp_path / f"out.{kind}", "--rule", "max")
    assert "2 answers by 3 members combined by max" in told
    if kind == "npz":
        with np.load(tmp_path / "out.npz") as made:
            assert made["labels"].tolist() == [2, 0]
            assert np.allclose(made["probabilities"].sum(1), 1)
    else:
        lines = (tmp_path / "out.csv").read_text().splitlines()
        assert lines[0] == "label,p0,p1,p2"
        assert [line.split(",")[0] for line in lines[1:]] == ["2", "0"]


def test_predict_says_what_does_not_fit(run: Run, single: str, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("a,b\n1,2\n")
    told = run("predict", single, "-i", tmp_path / "in.csv", "-o", tmp_path / "out.csv", code=1).replace("\n", " ")
    assert "has 2 columns; field 'x' of shape (4,) needs 4" in told
    np.savez(tmp_path / "in.npz", x=np.zeros((1, 4)))
    told = run("predict", single, "-i", tmp_path / "in.npz", "-o", tmp_path / "out.txt", code=1).replace("\n", " ")
    assert "must end in .npz or .csv" in told
    told = run("predict", single, "-i", tmp_path / "in.npz", "-o", tmp_path / "out.npz", "--rule", "sum", code=1).replace("\n", " ")
    assert "a single model has nothing to combine; leave the rule out" in told


def test_answers_that_could_not_be_kept_are_not_computed(run: Run, single: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gridsched.trained.download", never)
    (tmp_path / "old.csv").mkdir()
    for output, said in (("none/x.csv", "there is no folder"), ("x.txt", "must end in .npz or .csv"), ("old.csv", "it is a folder")):
        assert said in run("predict", single, "-i", tmp_path / "in.npz", "-o", tmp_path / output, code=1)


def test_compare_puts_jobs_side_by_side(run: Run, single: str, ensemble: str, tmp_path: Path) -> None:
    picture = tmp_path / "both.png"
    told = run("compare", single, ensemble, "--out", picture)
    assert re.search(r"useful Wh per epoch.* 1.000 .* 3.000", told)
    assert re.search(r"final accuracy .* 40.00% .* 100.00%", told), "an ensemble is tried by its rules"
    assert f"at equal energy, 1.100 Wh: {single} 40.00%, {ensemble} nothing yet; better: {single}" in told
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 1000
    found = json.loads(run("compare", single, ensemble, "--json"))
    assert found["at_equal_energy"] == {"energy_wh": pytest.approx(1.1), "better": single}
    assert [course["rule"] for course in found["courses"]] == ["", found["courses"][1]["rule"]]
    assert found["courses"][1]["points"][0]["energy_wh"] == pytest.approx(3.3)
    assert "name two different jobs" in run("compare", single, single, code=1)


@pytest.mark.usefixtures("bare")
def test_jobs_are_not_compared_for_a_picture_that_cannot_be_drawn(
    run: Run, single: str, ensemble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridsched.compared.course", never)
    assert "pip install 'gridsched[report]'" in run("compare", single, ensemble, "--out", tmp_path / "x.png", code=1)


def test_nodes_are_asked_and_waited_for_no_longer_than_said(run: Run, single: str, ensemble: str) -> None:
    assert f"{single}, version 1, on 0 samples: loss 0.5000, accuracy 40.00%" in run("evaluate", single, "--on-nodes")
    told = run("evaluate", single, "--on-nodes", "--version", 0, "--wait", 1, code=1).replace("\n", " ")
    assert "no node has evaluated version 0 in 1 s; it stays asked for" in told
    assert f"is an ensemble; ask for a member, such as {ensemble}-m0" in run("evaluate", ensemble, "--on-nodes", code=1).replace("\n", " ")
    assert "leave out --data and --rule" in run("evaluate", single, "--on-nodes", "--rule", "sum", code=1).replace("\n", " ")


def test_a_name_that_nobody_has_is_told(run: Run) -> None:
    assert "there is no job and no ensemble nobody" in run("evaluate", "nobody", code=1)


def test_an_ensemble_is_fetched_as_a_folder(run: Run, ensemble: str, tmp_path: Path) -> None:
    run("fetch", ensemble, "--output", tmp_path / "mine")
    about = json.loads((tmp_path / "mine" / "ensemble.json").read_text())
    assert (about["ensemble"], about["method"]) == (ensemble, "ensemble-bagging")
    assert [(row["member"], row["number"]) for row in about["members"]] == [(0, 1), (1, 1), (2, 1)]
    assert all((tmp_path / "mine" / row["file"]).stat().st_size > 50 for row in about["members"])


def test_weights_are_not_fetched_where_they_could_not_be_kept(
    run: Run, single: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gridsched.trained.fetch", never)
    (tmp_path / "config.json").write_text('{"hidden": 8}')
    for output, said in (
        ("none/x.safetensors", "there is no folder"),
        ("model.json", "model.safetensors"),
        ("config.safetensors", "config.json is there already"),
        ("", "it is a folder"),
    ):
        assert said in run("fetch", single, "-o", tmp_path / output, code=1)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert (tmp_path / "config.json").read_text() == '{"hidden": 8}'


def test_weights_are_fetched_again_over_those_of_an_earlier_fetch(run: Run, single: str, tmp_path: Path) -> None:
    for version in (0, 1):
        run("fetch", single, "-o", tmp_path / "x.safetensors", "--version", version)
        assert json.loads((tmp_path / "x.json").read_text())["number"] == version


def test_an_ensemble_spares_what_others_have_left_in_its_folder(
    run: Run, ensemble: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        run("fetch", ensemble, "-o", tmp_path)
    monkeypatch.setattr("gridsched.trained.fetch", never)
    assert "cannot be written" in run("fetch", ensemble, "-o", tmp_path / "notes.txt", code=1)
    (tmp_path / "ensemble.json").write_text("{}")
    assert "member-0.safetensors is there already" in run("fetch", ensemble, "-o", tmp_path, code=1)
    (tmp_path / "ensemble.json").unlink()
    assert "member-0.safetensors is there already" in run("fetch", ensemble, "-o", tmp_path, code=1)


def test_submitting_an_ensemble_names_it_and_twice_is_once(run: Run, house: House, tmp_path: Path) -> None:
    prepared(tmp_path, {"name": "ensemble-bagging", "partition": {"by": "iid", "parts": 4}})
    told = [run("submit", tmp_path / "toy.py", "--zone", ZONE) for _ in range(2)]
    assert told[0].splitlines()[-1] == told[1].splitlines()[-1]
    name = re.search(r"ensemble (toy-[0-9a-f]{6}): 4 members, 10 epochs, a part each: 15, 15, 15, 15", told[0])
    assert name, told[0]
    members = [job for job in house.get("/v1/jobs") if job["spec"]["ensemble"] == name[1]]
    assert len(members) == 4
    assert f"all 4 members of {name[1]} are cancelled" in run("cancel", name[1])
    watched = run("watch", name[1], code=1)
    assert watched.count("is cancelled") == 8, "a line as each member ends, and one for each at the end"


def test_submitting_parts_says_how_many_and_how_large(run: Run, tmp_path: Path) -> None:
    prepared(tmp_path, {"name": "fedavg", "units_per_round": 0, "partition": {"by": "label", "parts": 3}})
    assert "3 of 3 parts in a round; their samples: 20, 20, 20" in run("submit", tmp_path / "toy.py", "--zone", ZONE)


def test_submitting_over_nodes_own_data_says_that_units_follow_from_the_nodes(run: Run, tmp_path: Path) -> None:
    prepared(tmp_path, {"name": "fedavg", "local": "steps"})
    assert "10 epochs, a unit on each node that holds data steps" in run("submit", tmp_path / "toy.py", "--zone", ZONE)
    prepared(tmp_path, {"name": "ensemble-bagging", "members": 2, "local": "steps"})
    assert "each node's data steps, drawn with replacement" in run("submit", tmp_path / "toy.py", "--zone", ZONE)


def test_what_has_ended_is_not_said_to_be_cancelled(run: Run, house: House, tmp_path: Path) -> None:
    prepared(tmp_path, {"name": "ensemble-bagging", "members": 3})
    name = re.search(r"ensemble (toy-[0-9a-f]{6})", run("submit", tmp_path / "toy.py", "--zone", ZONE, "--seed", 9))
    assert name
    _ended(house, f"{name[1]}-m1")
    assert "2 of 3 members" in run("cancel", name[1])
    assert f"job {name[1]}-m1 is done already; there is nothing to cancel" in run("cancel", f"{name[1]}-m1")
    assert f"job {name[1]}-m0 is cancelled" in run("cancel", f"{name[1]}-m0")


def _ended(house: House, job_id: str) -> None:
    def verb(tx: Tx, now: datetime) -> list[Any]:
        tx.put(replace(tx.must(Job, job_id), state=JobState.DONE))
        return []

    house.do(verb)
