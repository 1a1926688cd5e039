"""Combination rules: small cases worked by hand, and what holds for any members."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gridsched.core.errors import InvalidInput
from gridsched.train.ensemble import Rule, by_scores, combine, labels_of, log_softmax

# Three members, three classes. Worked by hand below; no two rules that can differ agree on all of it.
MEMBERS = np.array([[0.50, 0.40, 0.10], [0.45, 0.50, 0.05], [0.05, 0.40, 0.55]])


def logits(shape: tuple[int, ...]) -> st.SearchStrategy[np.ndarray]:
    return arrays.arrays(np.float32, shape, elements=st.floats(-40, 40, width=32))


MANY = logits((4, 6, 3))


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule.SUM, [1.00 / 3, 1.30 / 3, 0.70 / 3]),
        (Rule.PRODUCT, [0.01125 / 0.094, 0.08 / 0.094, 0.00275 / 0.094]),
        (Rule.MAX, [0.50 / 1.55, 0.50 / 1.55, 0.55 / 1.55]),
        (Rule.MIN, [0.05 / 0.50, 0.40 / 0.50, 0.05 / 0.50]),
        (Rule.MEDIAN, [0.45 / 0.95, 0.40 / 0.95, 0.10 / 0.95]),
        (Rule.MAJORITY, [1 / 3, 1 / 3, 1 / 3]),
        (Rule.CONFIDENCE, [0.05, 0.40, 0.55]),
    ],
)
def test_rules_as_worked_by_hand(rule: Rule, expected: list[float]) -> None:
    members = MEMBERS if rule is not Rule.CONFIDENCE else np.array([[0.4, 0.4, 0.2], [0.3, 0.4, 0.3], [0.05, 0.40, 0.55]])
    assert np.allclose(combine(np.log(members), rule), expected)


@given(outputs=MANY, rule=st.sampled_from(Rule), order=st.permutations(range(4)))
def test_the_order_of_members_changes_no_bit(outputs: np.ndarray, rule: Rule, order: list[int]) -> None:
    logs = log_softmax(outputs)
    assert np.array_equal(combine(logs, rule), combine(logs[order], rule))


@given(outputs=MANY, rule=st.sampled_from(Rule))
def test_every_answer_is_a_distribution(outputs: np.ndarray, rule: Rule) -> None:
    made = combine(log_softmax(outputs), rule)
    assert made.shape == (6, 3)
    assert (made >= 0).all()
    assert np.allclose(made.sum(-1), 1)


@given(outputs=logits((1, 5, 4)), rule=st.sampled_from(Rule))
def test_one_member_is_itself(outputs: np.ndarray, rule: Rule) -> None:
    logs = log_softmax(outputs)
    made = combine(logs, rule)
    if rule is Rule.MAJORITY:
        assert np.array_equal(labels_of(made), labels_of(logs[0]))
    else:
        assert np.allclose(made, np.exp(logs[0]))


@given(outputs=logits((1, 5, 4)), rule=st.sampled_from(Rule))
def test_members_that_agree_answer_what_they_agree_on(outputs: np.ndarray, rule: Rule) -> None:
    logs = log_softmax(np.repeat(outputs, 3, axis=0))
    assert np.array_equal(labels_of(np.round(combine(logs, rule), 12)), labels_of(np.round(combine(logs[:1], rule), 12)))


def test_one_veto_rules_products_and_minima_and_not_sums() -> None:
    members = np.array([[0.9, 0.1], [0.9, 0.1], [1e-9, 1 - 1e-9]])
    labels = {rule: int(labels_of(combine(np.log(members), rule))) for rule in Rule}
    assert {rule for rule, label in labels.items() if label == 0} == {Rule.SUM, Rule.MEDIAN, Rule.MAJORITY}


def test_a_product_over_many_members_does_not_underflow() -> None:
    logs = np.log(np.tile([[1e-300, 1e-301, 1.0]], (50, 1)))
    logs[0] = np.log([1.0, 1e-300, 1e-320])
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        assert np.allclose(combine(logs[1:], Rule.PRODUCT), [0, 0, 1])
        assert np.isfinite(combine(logs, Rule.PRODUCT)).all()


def test_where_every_class_is_impossible_all_are_as_probable() -> None:
    with np.errstate(divide="ignore"):
        logs = np.log(np.array([[1.0, 0.0], [0.0, 1.0]]))
    for rule in (Rule.PRODUCT, Rule.MIN, Rule.MEDIAN, Rule.CONFIDENCE):
        assert combine(logs, rule).tolist() == [0.5, 0.5], rule
    three = np.log(np.array([[1.0, 1e-320, 1e-320], [1e-320, 1.0, 1e-320], [1e-320, 1e-320, 1.0]]))
    assert np.allclose(combine(three, Rule.MEDIAN), 1 / 3)


def test_ties_go_to_the_lowest_label() -> None:
    votes = np.log(np.array([[0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]))
    assert labels_of(combine(votes, Rule.MAJORITY)).tolist() == 1


def test_scores_of_one_class_members_are_compared_as_they_are() -> None:
    scores = np.array([[-3.0, -9.0], [-5.0, -2.0], [-4.0, -2.0]])
    made = by_scores(scores)
    assert made.shape == (2, 3)
    assert labels_of(made).tolist() == [0, 1]
    assert np.allclose(made[0], np.exp([-3, -5, -4]) / np.exp([-3, -5, -4]).sum())


@given(scores=logits((4, 5)), order=st.permutations(range(4)))
def test_classes_follow_their_members(scores: np.ndarray, order: list[int]) -> None:
    assert np.allclose(by_scores(scores[order]), by_scores(scores)[:, order])


@given(outputs=logits((5, 3)), shift=st.floats(-50, 50))
def test_log_softmax_does_not_see_a_shift(outputs: np.ndarray, shift: float) -> None:
    assert np.allclose(log_softmax(outputs.astype(np.float64) + shift), log_softmax(outputs), atol=1e-9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_answers_that_are_not_numbers_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput, match="not numbers"):
        log_softmax(np.array([[0.0, value]]))


@pytest.mark.parametrize("shape", [(3,), (0, 2, 3), (2, 3, 0)])
def test_shapes_that_are_no_ensemble_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="members, "):
        combine(np.zeros(shape), Rule.SUM)
