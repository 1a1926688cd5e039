"""Matrix products and sums over rows, over shapes that fill no block and many."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.closeness import EPS, empty, normal, seeds
from tests.kernels.host import Host

sizes = st.one_of(st.integers(0, 20), st.sampled_from([64, 65, 257]))


@given(m=sizes, n=sizes, k=sizes, transpose_a=st.booleans(), transpose_b=st.booleans(), accumulate=st.booleans(), seed=seeds)
def test_a_product_is_within_the_bound_of_its_roundings(
    host: Host, m: int, n: int, k: int, transpose_a: bool, transpose_b: bool, accumulate: bool, seed: int
) -> None:
    a, b, c = normal(seed, m, k), normal(seed + 1, k, n), normal(seed + 2, m, n) if accumulate else empty(m, n)
    before = c.astype(np.float64) if accumulate else np.zeros((m, n))
    stored_a, stored_b = (np.ascontiguousarray(one.T) if turned else one for one, turned in ((a, transpose_a), (b, transpose_b)))
    host.call("gemm", stored_a, stored_b, c, m, n, k, transpose_a, transpose_b, accumulate)
    # Higham, Accuracy and Stability of Numerical Algorithms, 2002, section 3.1.
    bound = (k + 2) * EPS / 2 * (np.abs(a).astype(np.float64) @ np.abs(b) + np.abs(before))
    assert np.all(np.abs(c - (before + a.astype(np.float64) @ b)) <= bound)


@given(m=st.integers(1, 70), n=st.integers(1, 30), k=st.integers(1, 300), seed=seeds)
def test_an_element_has_the_same_bits_wherever_it_lies(host: Host, m: int, n: int, k: int, seed: int) -> None:
    a, b, whole, alone = normal(seed, m, k), normal(seed + 1, k, n), empty(m, n), empty(1, 1)
    host.call("gemm", a, b, whole, m, n, k, 0, 0, 0)
    host.call("gemm", a[-1:].copy(), b[:, -1:].copy(), alone, 1, 1, k, 0, 0, 0)
    assert alone[0, 0].tobytes() == whole[-1, -1].tobytes()


@pytest.mark.parametrize("step_b", [0, 6])
def test_batched_products_step_through_their_matrices(host: Host, step_b: int) -> None:
    a, b, c = normal(1, 5, 4, 3), normal(2, 5, 3, 2), empty(5, 4, 2)
    host.call("gemm_batched", a, b, c, 4, 2, 3, 0, 0, 0, 5, 12, step_b, 8)
    np.testing.assert_allclose(c, a @ (b if step_b else b[0]), rtol=1e-5, atol=1e-6)


@given(rows=st.integers(0, 200), columns=st.integers(1, 20), accumulate=st.booleans(), seed=seeds)
def test_a_bias_is_added_to_rows_and_its_gradient_is_their_sum(host: Host, rows: int, columns: int, accumulate: bool, seed: int) -> None:
    x, bias = normal(seed, rows, columns), normal(seed + 1, columns)
    wanted = x + bias
    found = x.copy()
    host.call("add_to_rows", bias, found, rows, columns)
    np.testing.assert_array_equal(found, wanted)
    total = bias.copy() if accumulate else empty(columns)
    host.call("sum_of_rows", x, total, rows, columns, accumulate)
    exact = x.astype(np.float64).sum(axis=0) + (bias if accumulate else 0.0)
    assert np.all(np.abs(total - exact) <= 70 * EPS / 2 * (np.abs(x).sum(axis=0) + np.abs(bias)))
