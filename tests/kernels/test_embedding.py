"""Rows by number, and the sums that come back to them."""

import numpy as np
import pytest
import wasmtime
from hypothesis import given
from hypothesis import strategies as st

from tests.kernels.closeness import empty, normal, seeds
from tests.kernels.host import Host


@given(n=st.integers(0, 20), rows=st.integers(1, 6), width=st.integers(1, 9), padding=st.integers(-1, 5), seed=seeds)
def test_rows_are_looked_up_and_get_the_sum_of_their_uses(host: Host, n: int, rows: int, width: int, padding: int, seed: int) -> None:
    weight, dy, index = normal(seed, rows, width), normal(seed + 1, n, width), np.random.default_rng(seed).integers(0, rows, n)
    y, dweight = empty(n, width), empty(rows, width)
    host.call("embedding", weight, index, y, n, width, rows)
    np.testing.assert_array_equal(y, weight[index])
    wanted = np.zeros((rows, width), np.float32)
    np.add.at(wanted, index[index != padding], dy[index != padding])
    host.call("embedding_grad", dy, index, dweight, n, width, rows, padding)
    np.testing.assert_array_equal(dweight, wanted)


def test_a_number_that_is_no_row_gets_nothing(host: Host) -> None:
    dweight = empty(2, 3)
    host.call("embedding_grad", normal(1, 3, 3), np.array([-1, 2, 1 << 40]), dweight, 3, 3, 2, -1)
    np.testing.assert_array_equal(dweight, np.zeros((2, 3)))


@pytest.mark.parametrize("number", [-1, 2, 1 << 32])
def test_a_number_that_is_no_row_is_never_read(host: Host, number: int) -> None:
    with pytest.raises(wasmtime.Trap):
        host.call("embedding", normal(1, 2, 3), np.array([0, number]), empty(2, 3), 2, 3, 2)
