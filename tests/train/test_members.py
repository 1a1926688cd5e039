"""From a job file to parts and members: what is submitted, under which names, and that the same thing twice is the same."""

from pathlib import Path

import numpy as np
import pytest

from gridsched.core.errors import DatasetError, ProgramError
from gridsched.owner import Submission, prepare
from gridsched.train.dataset import Dataset, DatasetManifest

JOB = """
import numpy as np
import torch
from torch.nn import functional

class Model(torch.nn.Linear):
    def forward(self, x):
        return {forward}

def model():
    torch.manual_seed(0)
    return Model(4, 3)

def loss(outputs, batch):
    return {loss}

def example_batch():
    return {{"x": torch.zeros(2, 4), "y": torch.zeros(2, dtype=torch.int64)}}

def dataset():
    y = np.arange(60) % 3
    fields = {{"x": np.eye(4, dtype=np.float32)[y], "y": y, "who": np.arange(60) // 20 % 2}}
    test = {{"x": np.eye(4, dtype=np.float32)[{test}], "y": np.array({test})}}
    return fields, test

def method():
    return {method}
"""
LABELS = [0, 1, 2, 0, 1, 2, 2]


def prepared(
    folder: Path, method: dict[str, object], *, seed: int = 0, score: bool = False, test: list[int] = LABELS, more: str = ""
) -> Submission:
    forward = "-super().forward(x).square().sum(-1, keepdim=True)" if score else "super().forward(x)"
    loss = "-outputs.mean()" if score else "functional.cross_entropy(outputs, batch['y'])"
    path = folder / "toy.py"
    path.write_text(JOB.format(method=method, forward=forward, loss=loss, test=test) + more)
    return prepare(path, zone="de", seed=seed)


def stored(made: Submission, digest: str | None) -> dict[str, np.ndarray]:
    assert digest is not None
    dataset = Dataset(DatasetManifest.from_bytes(made.blobs[digest]), made.blobs.__getitem__)
    return dataset.batch(np.arange(dataset.samples))


NORMED = """
def model():
    return torch.nn.Sequential(torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 3))

def example_batch():
    return {"input": torch.zeros(2, 4), "y": torch.zeros(2, dtype=torch.int64)}

def dataset():
    return {"input": np.eye(4, dtype=np.float32)[np.arange(33) % 4], "y": np.arange(33) % 3}, {}
"""


def test_a_lone_last_sample_that_cannot_be_normalised_is_refused_with_the_numbers(tmp_path: Path) -> None:
    method: dict[str, object] = {"batch_size": 32, "units_per_round": 1}
    with pytest.raises(ProgramError, match=r"33 samples in batches of 32 ends in a batch of one.*: 0\.running_var would become NaN"):
        prepared(tmp_path, method, more=NORMED)
    assert prepared(tmp_path, method | {"not_finite": "skip"}, more=NORMED).spec.samples == 33


def test_a_job_file_without_ensemble_is_one_job(tmp_path: Path) -> None:
    made = prepared(tmp_path, {"epochs": 2})
    assert len(made.specs) == 1
    assert made.name == made.spec.job_id
    assert (made.spec.parts, made.spec.ensemble, made.spec.part, made.spec.bag) == ((), "", -1, -1)


def test_a_partition_puts_parts_next_to_one_another(tmp_path: Path) -> None:
    made = prepared(tmp_path, {"name": "fedavg", "units_per_round": 0, "partition": {"by": "label", "parts": 3}})
    assert made.spec.parts == (20, 20, 20)
    assert stored(made, made.spec.dataset)["y"].tolist() == [0] * 20 + [1] * 20 + [2] * 20
    assert prepared(tmp_path, {"name": "fedavg", "units_per_round": 0}, more="\ndef partition(train): return [[2, 0], [1]]").spec.parts == (
        2,
        1,
    )


def test_whose_a_sample_is_does_not_leave_the_owner(tmp_path: Path) -> None:
    made = prepared(tmp_path, {"name": "fedavg", "units_per_round": 0, "partition": {"by": "owner", "field": "who"}})
    assert made.spec.parts == (40, 20)
    assert set(stored(made, made.spec.dataset)) == {"x", "y"}


def test_members_by_bagging_draw_apart_from_one_dataset(tmp_path: Path) -> None:
    made = prepared(tmp_path, {"name": "ensemble-bagging", "members": 3})
    assert [(spec.member, spec.bag, spec.part) for spec in made.specs] == [(0, 0, -1), (1, 1, -1), (2, 2, -1)]
    assert {spec.ensemble for spec in made.specs} == {made.name}
    assert [spec.job_id for spec in made.specs] == [f"{made.name}-m{member}" for member in range(3)]
    assert len({spec.dataset for spec in made.specs}) == len({spec.initial for spec in made.specs}) == 1
    assert len({spec.seed for spec in made.specs}) == 3


def test_more_members_go_on_from_those_that_are_there(tmp_path: Path) -> None:
    three, four = (prepared(tmp_path, {"name": "ensemble-bagging", "members": members}) for members in (3, 4))
    assert four.specs[:3] == three.specs
    assert prepared(tmp_path, {"name": "ensemble-bagging", "members": 3}, seed=1).name != three.name


def test_an_ensemble_over_parts_has_a_member_for_each(tmp_path: Path) -> None:
    made = prepared(tmp_path, {"name": "ensemble-bagging", "partition": {"by": "iid", "parts": 4}})
    assert [(spec.part, spec.bag, spec.epoch_samples) for spec in made.specs] == [(part, -1, 15) for part in range(4)]


def test_a_one_class_member_learns_and_is_tried_on_its_own_label(tmp_path: Path) -> None:
    made = prepared(tmp_path, {"name": "ensemble-one-class"}, score=True)
    assert [spec.part for spec in made.specs] == [0, 1, 2]
    y = stored(made, made.spec.dataset)["y"]
    for spec in made.specs:
        first = sum(spec.parts[: spec.part])
        assert set(y[first : first + spec.epoch_samples]) == {spec.member}
        assert stored(made, spec.test_dataset)["y"].tolist() == [spec.member] * spec.test_samples
    assert [spec.test_samples for spec in made.specs] == [2, 2, 3]


def test_a_score_is_not_taken_for_a_choice_of_classes(tmp_path: Path) -> None:
    from gridsched.train.program import from_bytes

    made = prepared(tmp_path, {"name": "ensemble-one-class"}, score=True)
    assert from_bytes(made.blobs[made.spec.program])[0].target is None


@pytest.mark.parametrize(("test", "said"), [([0, 1], "training samples have 3 labels and the test 2"), ([0, 2, 2], "labels from 0")])
def test_labels_of_one_class_members_go_from_zero_and_are_the_same_in_the_test(tmp_path: Path, test: list[int], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        prepared(tmp_path, {"name": "ensemble-one-class"}, score=True, test=test)
