"""The members of examples/one_class.py, each of one label only: that together they tell what none of them has compared."""

import functools

import numpy as np
import pytest

from gridsched.train.ensemble import by_scores, labels_of
from gridsched.train.export import export
from gridsched.train.images import Fields, fashion_mnist
from gridsched.train.jobfile import load_jobfile
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import run
from tests.train.builders import EXAMPLES, dataset_of, unit_spec

pytestmark = pytest.mark.fashion_mnist

LABELS = (0, 1, 5, 8)
SAMPLES = 320
KIND = ("t-shirt", "trousers", "sandal", "bag")


@functools.cache
def pictures() -> tuple[Fields, Fields]:
    return fashion_mnist(scaled=False)


@functools.cache
def member_scores() -> Array:
    """[members, samples]: of members trained on 320 pictures each, for the test pictures of all their labels."""
    file = load_jobfile(EXAMPLES / "one_class.py")
    program, tensors = export(file.model(), file.example_batch(), file.loss)
    runtime = TorchRuntime(program, tensors)
    train, test = pictures()
    asked = test["x"][np.isin(test["y"], LABELS)]
    scores = []
    for label in LABELS:
        own = dataset_of({"x": train["x"][train["y"] == label][:SAMPLES]})
        run(unit_spec(stop=SAMPLES, batch_size=32, passes=5, inner=file.method.inner), runtime, own, tensors)
        scores.append(runtime.answer({"x": asked})[1])
    return np.stack(scores)


def truth() -> Array:
    labels = pictures()[1]["y"]
    return np.searchsorted(LABELS, labels[np.isin(labels, LABELS)])


def test_members_that_saw_one_label_each_tell_the_labels_apart() -> None:
    assert (labels_of(by_scores(member_scores())) == truth()).mean() > 0.9


@pytest.mark.parametrize("member", range(len(LABELS)), ids=KIND)
def test_each_member_knows_its_own_label_best(member: int) -> None:
    scores, own = member_scores()[member], truth() == member
    assert np.median(scores[own]) > max(np.quantile(scores[truth() == other], 0.75) for other in range(len(LABELS)) if other != member)


def test_scores_are_log_densities_that_may_be_read_as_probabilities() -> None:
    probabilities = by_scores(member_scores())
    assert (member_scores() < 0).all()
    sure = probabilities.max(axis=1)
    right = labels_of(probabilities) == truth()
    assert right[sure > 0.99].mean() > right[sure < 0.9].mean()
