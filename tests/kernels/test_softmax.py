"""Softmax, cross entropy and attention against float64."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.closeness import EPS, Array, as_tensor, assert_close, empty, normal, seeds
from tests.kernels.host import Host

ULPS = 16
GRADIENT = 4e-6
"""Of what is left of gradients of about 1."""

rows_of = st.integers(1, 9)
columns_of = st.integers(1, 70)


def exact(x: Array) -> Array:
    powers = np.exp(x.astype(np.float64) - x.max(axis=-1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


@given(rows=rows_of, columns=columns_of, seed=seeds)
def test_softmax_and_its_logarithm_with_their_gradients(host: Host, rows: int, columns: int, seed: int) -> None:
    x, dy, y, dx = normal(seed, rows, columns) * 5, normal(seed + 1, rows, columns), empty(rows, columns), empty(rows, columns)
    p = exact(x)
    host.call("softmax", x, y, rows, columns)
    assert_close(y, p, ulps=ULPS)
    host.call("softmax_grad", dy, y, dx, rows, columns)
    np.testing.assert_allclose(dx, p * (dy - (dy * p).sum(axis=1, keepdims=True)), atol=GRADIENT)
    host.call("log_softmax", x, y, rows, columns)
    assert_close(y, np.log(p), ulps=ULPS)
    host.call("log_softmax_grad", dy, y, dx, rows, columns)
    np.testing.assert_allclose(dx, dy - p * dy.sum(axis=1, keepdims=True), atol=2 * GRADIENT)


def test_softmax_does_not_overflow(host: Host) -> None:
    x, y = as_tensor(3e38, 3e38, -3e38), empty(3)
    host.call("softmax", x, y, 1, 3)
    np.testing.assert_array_equal(y, as_tensor(0.5, 0.5, 0.0))


@given(matrices=st.integers(1, 3), rows=st.integers(1, 12), columns=st.integers(1, 12), causal=st.booleans(), seed=seeds)
def test_attention_sees_no_column_past_its_row_where_it_is_causal(
    host: Host, matrices: int, rows: int, columns: int, causal: bool, seed: int
) -> None:
    shape = (matrices, rows, columns)
    scores, dy, y, dx = normal(seed, *shape), normal(seed + 1, *shape), empty(*shape), empty(*shape)
    hidden = np.triu(np.ones((rows, columns), bool), 1) & causal
    p = exact(np.where(hidden, -np.inf, scores.astype(np.float64) * 0.25))
    host.call("attention_softmax", scores, y, *shape, 0.25, causal)
    assert_close(y, p, ulps=ULPS)
    assert np.all(y[np.broadcast_to(hidden, shape)] == 0)
    host.call("attention_softmax_grad", dy, y, dx, *shape, 0.25)
    np.testing.assert_allclose(dx, 0.25 * p * (dy - (dy * p).sum(axis=-1, keepdims=True)), atol=2e-6)


@given(rows=rows_of, columns=st.integers(2, 70), seed=seeds)
def test_cross_entropy_is_the_mean_over_rows_that_count(host: Host, rows: int, columns: int, seed: int) -> None:
    x = normal(seed, rows, columns) * 3
    target = np.random.default_rng(seed).integers(0, columns, rows)
    target[rows // 2 + 1 :: 2] = -100
    seen = target != -100
    log_p, loss, dx, dloss = empty(rows, columns), empty(1), empty(rows, columns), as_tensor(2.0)
    host.call("cross_entropy", x, target, log_p, loss, rows, columns, -100)
    p = exact(x)
    np.testing.assert_allclose(loss, -np.log(p[seen, target[seen]]).mean(), rtol=ULPS * EPS, atol=GRADIENT)
    host.call("cross_entropy_grad", dloss, log_p, target, dx, rows, columns, -100)
    hot = np.zeros((rows, columns))
    hot[seen, target[seen]] = 1
    np.testing.assert_allclose(dx, np.where(seen[:, None], (p - hot) * 2 / seen.sum(), 0), atol=2e-6)


@pytest.mark.parametrize("target", [[-1], [3], [-100]])
def test_no_loss_comes_of_a_target_that_is_no_class(host: Host, target: list[int]) -> None:
    classes, log_p, loss, dx = np.array(target), empty(1, 3), empty(1), empty(1, 3)
    host.call("cross_entropy", normal(1, 1, 3), classes, log_p, loss, 1, 3, -100)
    host.call("cross_entropy_grad", as_tensor(1.0), log_p, classes, dx, 1, 3, -100)
    assert np.isnan(loss[0])


def test_correct_counts_rows_whose_first_greatest_output_is_the_target(host: Host) -> None:
    outputs, count = as_tensor(1, 3, 2, 5, 5, 0, 0, 0, 9).reshape(3, 3), np.array([-1], np.int32)
    host.call("correct", outputs, np.array([1, 1, 2]), count, 3, 3)
    assert count[0] == 2
