"""Cells of recurrent networks against float64; their gradients against differences."""

from collections.abc import Callable

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.closeness import Array, assert_close, empty, normal, seeds
from tests.kernels.host import Host

ULPS = 16
STEP = 1e-6

n_of = st.integers(1, 4)
width_of = st.integers(1, 11)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def slope(value: Callable[[Array], Array], at: Array, along: Array) -> Array:
    """The gradient of sum(value * along), by differences in float64."""
    at = at.astype(np.float64)
    found = np.zeros(at.shape)
    for place in np.ndindex(at.shape):
        step = np.zeros(at.shape)
        step[place] = STEP
        found[place] = ((value(at + step) - value(at - step)) * along).sum() / (2 * STEP)
    return found


def gru(input_gates: Array, hidden_gates: Array, hidden: Array) -> Array:
    (ir, iz, fresh), (hr, hz, of_hidden) = np.split(input_gates, 3, axis=1), np.split(hidden_gates, 3, axis=1)
    z = sigmoid(iz + hz)
    return np.asarray((1 - z) * np.tanh(fresh + sigmoid(ir + hr) * of_hidden) + z * hidden)


@settings(max_examples=15)
@given(n=n_of, width=width_of, seed=seeds)
def test_a_gated_unit_and_its_gradients(host: Host, n: int, width: int, seed: int) -> None:
    gates, other, hidden = normal(seed, n, 3 * width), normal(seed + 1, n, 3 * width), normal(seed + 2, n, width)
    dy, y, saved = normal(seed + 3, n, width), empty(n, width), empty(n, 4 * width)
    host.call("gru_cell", gates, other, hidden, y, saved, n, width)
    assert_close(y, gru(*(one.astype(np.float64) for one in (gates, other, hidden))), ulps=ULPS)
    dgates, dother, dhidden = empty(n, 3 * width), empty(n, 3 * width), empty(n, width)
    host.call("gru_cell_grad", dy, hidden, saved, dgates, dother, dhidden, n, width)
    np.testing.assert_allclose(dgates, slope(lambda at: gru(at, other, hidden), gates, dy), atol=2e-6)
    np.testing.assert_allclose(dother, slope(lambda at: gru(gates, at, hidden), other, dy), atol=2e-6)
    np.testing.assert_allclose(dhidden, slope(lambda at: gru(gates, other, at), hidden, dy), atol=2e-6)


def lstm(gates: Array, cell: Array) -> tuple[Array, Array]:
    i, f, g, o = np.split(gates, 4, axis=1)
    state = sigmoid(f) * cell + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(state), state


@settings(max_examples=15)
@given(n=n_of, width=width_of, seed=seeds, ends=st.sampled_from(["both", "y", "cell"]))
def test_a_long_short_term_cell_and_its_gradients(host: Host, n: int, width: int, seed: int, ends: str) -> None:
    gates, other, cell = normal(seed, n, 4 * width), normal(seed + 1, n, 4 * width), normal(seed + 2, n, width)
    dy, dstate = normal(seed + 3, n, width), normal(seed + 4, n, width)
    y, state, saved = empty(n, width), empty(n, width), empty(n, 5 * width)
    host.call("lstm_cell", gates, other, cell, y, state, saved, n, width)
    wanted_y, wanted_state = lstm(gates.astype(np.float64) + other, cell)
    assert_close(y, wanted_y, ulps=ULPS)
    assert_close(state, wanted_state, ulps=ULPS)
    dgates, dcell = empty(n, 4 * width), empty(n, width)
    given_dy, given_dstate = dy if ends != "cell" else None, dstate if ends != "y" else None
    host.call("lstm_cell_grad", given_dy, given_dstate, cell, saved, dgates, dcell, n, width)
    along = np.stack([dy * (ends != "cell"), dstate * (ends != "y")])
    whole = gates.astype(np.float64) + other
    np.testing.assert_allclose(dgates, slope(lambda at: np.stack(lstm(at, cell)), whole, along), atol=4e-6)
    np.testing.assert_allclose(dcell, slope(lambda at: np.stack(lstm(whole, at)), cell, along), atol=4e-6)
