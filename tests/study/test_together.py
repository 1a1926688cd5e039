"""Studies of data, members and rules: trained by the product's own units and merges in one process."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.errors import InvalidInput
from gridsched.plugins import shipped
from gridsched.study.alone import Bench, bench
from gridsched.study.quality_tables import combination_told, data_told, members_told
from gridsched.study.together import Combination, Members, Share
from gridsched.train.partition import Partition

JOB = shipped("examples") / "tabular_mlp.py"
CNN = shipped("examples") / "image_cnn.py"
RULES = {"product": 0.9, "sum": 0.92, "max": 0.8, "min": 0.7, "median": 0.92, "majority": 0.85, "confidence": 0.8}


@pytest.fixture(scope="module")
def small() -> Bench:
    return bench(JOB, epochs=1, samples=100, seed=3)


def test_the_first_samples_are_those_of_the_whole(small: Bench) -> None:
    whole = bench(JOB, epochs=1, samples=None, seed=3).dataset()
    assert small.spec.samples == small.dataset().samples == 100
    some = np.array([0, 7, 99])
    assert all((small.dataset().batch(some)[name] == array).all() for name, array in whole.batch(some).items())


def test_parts_hold_what_the_partition_says(small: Bench) -> None:
    parted = small.parted(Partition(by="label", parts=3, labels=1, field="y"))
    labels = parted.dataset().batch(np.arange(parted.spec.samples))["y"]
    for stretch in np.split(labels, np.cumsum(parted.spec.parts)[:-1]):
        assert len(set(stretch.tolist())) == 1


def test_training_alone_twice_gives_the_same_model_and_learns(small: Bench) -> None:
    first, again = small.train(), small.train()
    assert all((array == again.state()[name]).all() for name, array in first.state().items())
    assert small.accuracy([first]) == small.accuracy([again]) > 0.5


def test_a_job_whose_result_depends_on_who_is_there_is_refused(small: Bench) -> None:
    with pytest.raises(InvalidInput, match="cannot be trained alone"):
        small.train(replace(small.spec, method=replace(small.spec.method, grace_s=5.0)))


def test_the_rule_to_use_is_the_best_and_the_simplest_of_several() -> None:
    assert Combination(case="alike", by_rule=RULES, mean_alone=0.5).best == "sum"


def test_documents_rows_and_panels_agree() -> None:
    shares = data_told([Share(samples=10, accuracy=0.5, as_many_steps=0.6), Share(samples=100, accuracy=0.9, as_many_steps=0.9)], "x")
    assert [line.y for line in shares.panels[0].lines] == [[0.5, 0.9], [0.6, 0.9]]
    counts = members_told([Members(count=3, shares=0.9, one_share=0.8, bags=0.95, one_bag=0.93)], "x")
    assert counts.rows[0]["one bag"] == "93.00%"
    rules = combination_told([Combination(case="alike", by_rule=RULES, mean_alone=0.5)], "x")
    assert (rules.rows[0]["use"], rules.rows[0]["median"], rules.panels[0].ticks[0]) == ("sum", "92.00%", "product")


@pytest.mark.long
@pytest.mark.parametrize("study", ["data", "members", "combination"])
def test_a_study_writes_its_table_figures_and_picture(tmp_path: Path, study: str) -> None:
    answer = CliRunner().invoke(app, ["evaluate", study, str(tmp_path / "out"), "--job", str(CNN), "--epochs", "1", "--samples", "320"])
    assert answer.exit_code == 0, answer.output
    document = json.loads((tmp_path / "out" / f"{study}.json").read_text())
    assert len(document["runs"]) >= 3
    assert (tmp_path / "out" / f"{study}.png").read_bytes()[:4] == b"\x89PNG"
    again = CliRunner().invoke(app, ["evaluate", study, str(tmp_path / "out"), "--job", str(JOB)])
    assert again.exit_code == 1
    assert "is not empty" in again.stderr
