"""From samples to probabilities: what is asked of a caller, what members may answer, and how good answers are."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from gridsched.core.errors import DatasetError, InvalidInput, ProgramError
from gridsched.train.ensemble import Rule
from gridsched.train.graph import FieldSpec, Graph, Node, Program, Ref, TensorSpec
from gridsched.train.predict import Prediction, Predictor, asked_fields, best_of, quality
from gridsched.train.tensors import Array

X, Y, WEIGHT = Ref("field", "x"), Ref("field", "y"), Ref("field", "weight")


def program(*, target: str | None = "y", dtype: str = "float32", update: bool = False) -> Program:
    """Outputs are x; the loss takes labels and weights. With ``update``, something that holds a weight is written in place."""
    written = (Node(name="made", op="aten.add_.Tensor", args=(Ref("node", "answer"), WEIGHT), kwargs={}),) if update else ()
    graph = Graph(
        nodes=(
            Node(name="answer", op="aten.clone.default", args=(X,), kwargs={}),
            *written,
            Node(name="loss", op="aten.cross_entropy_loss.default", args=(Ref("node", "answer"), Y, WEIGHT), kwargs={}),
        ),
        loss=Ref("node", "loss"),
        outputs=Ref("node", "answer"),
    )
    return Program(
        train=graph,
        evaluate=graph,
        tensors=(TensorSpec(name="w", dtype="float32", shape=(1,), role="parameter"),),
        fields=(
            FieldSpec(name="x", dtype=dtype, shape=(3,)),
            FieldSpec(name="y", dtype="int64", shape=()),
            FieldSpec(name="weight", dtype="float32", shape=()),
        ),
        target=target,
        aliases={},
    )


class Member:
    """Answers with ``scale`` times x, or with what ``says`` makes of it; keeps what it was asked."""

    def __init__(self, scale: float = 1.0, says: Any = None, **about: Any) -> None:
        self.program = program(**about)
        self.asked: list[Mapping[str, Array]] = []
        self._says = says or (lambda x: scale * x)

    def answer(self, batch: Mapping[str, Array]) -> tuple[float, Array]:
        self.asked.append(batch)
        return 0.0, self._says(batch["x"])


def samples(count: int) -> dict[str, Array]:
    return {"x": np.random.default_rng(count).normal(size=(count, 3)).astype(np.float32)}


def test_only_what_answers_depend_on_is_asked_for() -> None:
    assert [field.name for field in asked_fields(program())] == ["x"]
    assert [field.name for field in asked_fields(program(update=True))] == ["x", "weight"]


@pytest.mark.parametrize("count", [1, 2, 256, 257, 600])
def test_any_number_of_samples_is_answered_in_batches_of_two_or_more(count: int) -> None:
    member = Member()
    made = Predictor([member]).predict(samples(count))
    given = samples(count)["x"].astype(np.float64)
    assert np.allclose(made.probabilities, np.exp(given) / np.exp(given).sum(-1, keepdims=True))
    assert np.array_equal(made.labels, given.argmax(-1))
    assert all(2 <= len(batch["x"]) <= 256 for batch in member.asked)
    assert all(batch["y"].shape == (len(batch["x"]),) and not batch["y"].any() for batch in member.asked)


def test_members_are_combined_by_the_rule_of_the_call() -> None:
    predictor = Predictor([Member(5.0), Member(-1.0), Member(-1.0)])
    given = {"x": np.array([[2.0, 0.0, 1.0]], np.float32)}
    assert predictor.predict(given, Rule.PRODUCT).labels.tolist() == [0]
    assert predictor.predict(given, Rule.MAJORITY).labels.tolist() == [1]
    assert predictor.predict(given).probabilities.tolist() == predictor.predict(given, Rule.SUM).probabilities.tolist()


def test_one_class_members_answer_with_scores() -> None:
    members = [Member(says=lambda x, c=c: x[:, c], target=None) for c in range(2)] + [Member(says=lambda x: x[:, 2:], target=None)]
    predictor = Predictor(members, score=True)
    given = samples(9)
    assert np.array_equal(predictor.predict(given).labels, given["x"].argmax(-1))
    assert predictor.rules == (Rule.CONFIDENCE,)
    with pytest.raises(InvalidInput, match="confidence alone, not by sum"):
        predictor.predict(given, Rule.SUM)


def test_a_single_model_is_asked_for_no_rule() -> None:
    with pytest.raises(InvalidInput, match="nothing to combine"):
        Predictor([Member(1.0)]).rule(Rule.SUM)


def test_a_model_without_classes_is_refused() -> None:
    with pytest.raises(ProgramError, match="does not answer with classes"):
        Predictor([Member(target=None)])
    with pytest.raises(ProgramError, match=r"one score per sample, got shape \(3,\)"):
        Predictor([Member(target=None)] * 2, score=True).predict(samples(3))
    with pytest.raises(InvalidInput, match="at least one member"):
        Predictor([])
    with pytest.raises(InvalidInput, match="scores that are not numbers"):
        Predictor([Member(says=lambda x: x[:, 0] * np.nan, target=None)] * 2, score=True).predict(samples(3))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "field 'x' as float32 of shape \\(3,\\) per sample; given are none"),
        ({"x": np.zeros((2, 4))}, "given is float64 of shape \\(4,\\)"),
        ({"x": np.zeros((0, 3))}, "at least one, got \\[0\\]"),
        ({"x": np.full((2, 3), np.nan)}, "not such numbers"),
        ({"x": np.full((2, 3), 1e300)}, "not such numbers"),
        ({"x": np.full((2, 3), "1")}, "given is <U1"),
    ],
)
def test_samples_that_do_not_fit_are_named(given: dict[str, Array], said: str) -> None:
    with pytest.raises(DatasetError, match=said):
        Predictor([Member()]).predict(given)


@pytest.mark.parametrize(("value", "fits"), [(255, True), (256, False), (-1, False), (1.5, False), (7.0, True)])
def test_numbers_are_taken_in_the_model_s_dtype_if_nothing_is_lost(value: float, fits: bool) -> None:
    predictor = Predictor([Member(dtype="uint8", says=lambda x: x.astype(np.float32))])
    given = {"x": np.full((2, 3), value)}
    if fits:
        assert predictor.predict(given).probabilities.shape == (2, 3)
    else:
        with pytest.raises(DatasetError, match="not such numbers"):
            predictor.predict(given)


def test_quality_counts_what_is_right_by_label() -> None:
    made = Prediction(probabilities=np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [1.0, 0.0]]), labels=np.array([0, 0, 1, 0]))
    found = quality(made, np.array([0, 1, 1, 1]))
    assert (found.samples, found.accuracy) == (4, 0.5)
    assert [(label, answers, round(accuracy, 3)) for label, answers, accuracy in found.by_label] == [(0, 1, 1.0), (1, 3, 0.333)]
    assert found.loss == pytest.approx(-np.log([0.8, 0.4, 0.9, 1e-12]).mean())
    with pytest.raises(DatasetError, match="do not belong to answers over 2 classes"):
        quality(made, np.array([0, 1, 2, 1]))


def test_the_rule_to_use_is_the_most_accurate_then_the_least_surprised() -> None:
    right = Prediction(probabilities=np.array([[0.9, 0.1]]), labels=np.array([0]))
    sure = Prediction(probabilities=np.array([[0.99, 0.01]]), labels=np.array([0]))
    wrong = Prediction(probabilities=np.array([[0.1, 0.9]]), labels=np.array([1]))
    found = {rule: quality(made, np.array([0])) for rule, made in ((Rule.SUM, right), (Rule.MAX, wrong), (Rule.PRODUCT, sure))}
    assert best_of(found) is Rule.PRODUCT
