"""One call, one set of bits: again, in a fresh instance, and with tensors off their alignment."""

import numpy as np
import pytest

from tests.kernels.closeness import Array, empty, normal
from tests.kernels.host import Argument, Host

CONV = (2, 4, 9, 7, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1)
STRIDED = (2, 4, 9, 7, 8, 3, 3, 2, 1, 1, 1, 1, 1, 1)
FIVE = (2, 4, 9, 7, 8, 5, 5, 1, 1, 2, 2, 1, 1, 1)

Call = tuple[str, tuple[Argument, ...]]


def calls() -> list[Call]:
    """One of every way a kernel sums, over sizes that fill no vector."""
    scratch, x, dy = empty(1 << 17), normal(1, 2, 4, 9, 7), normal(2, 2, 8, 9, 7)
    three, five, rows = normal(3, 8, 4, 3, 3), normal(4, 8, 4, 5, 5), normal(5, 13, 27)
    labels = np.arange(13) * 2
    return [
        ("gemm", (normal(6, 37, 300), normal(7, 300, 21), empty(37, 21), 37, 21, 300, 0, 0, 0)),
        ("sum_of_rows", (normal(6, 200, 7), empty(7), 200, 7, 0)),
        ("conv2d", (x, three, normal(8, 8), empty(2, 8, 9, 7), scratch, *CONV)),
        ("conv2d", (x, three, None, empty(2, 8, 5, 7), scratch, *STRIDED)),
        ("conv2d", (x, five, None, empty(2, 8, 9, 7), scratch, *FIVE)),
        ("conv2d_grad_input", (dy, three, empty(2, 4, 9, 7), scratch, *CONV)),
        ("conv2d_grad_input", (dy, five, empty(2, 4, 9, 7), scratch, *FIVE)),
        ("conv2d_grad_weight", (dy, x, empty(8, 4, 3, 3), empty(8), scratch, *CONV)),
        ("conv2d_grad_weight", (dy, x, empty(8, 4, 5, 5), empty(8), scratch, *FIVE)),
        ("batch_norm", (x, None, None, empty(2, 4, 9, 7), empty(4), empty(4), None, None, 2, 4, 63, 0.1, 1e-5)),
        ("layer_norm", (rows, None, None, empty(13, 27), empty(13), empty(13), 13, 27, 1e-5)),
        ("softmax", (rows, empty(13, 27), 13, 27)),
        ("cross_entropy", (rows, labels, empty(13, 27), empty(1), 13, 27, -100)),
        ("gru_cell", (normal(6, 3, 21), normal(7, 3, 21), normal(8, 3, 7), empty(3, 7), empty(3, 28), 3, 7)),
        ("dropout", (rows, empty(13, 27), np.array([9], np.uint64), 2, 351, 0.4)),
        ("max_pool2d", (x, empty(8, 4, 3), np.zeros((8, 4, 3), np.int32), 8, 9, 7, 2, 2, 2, 2, 0, 0, 4, 3)),
    ]


def bits(host: Host, call: Call, shift_bytes: int = 0) -> list[bytes]:
    kernel, arguments = call
    arguments = tuple(one.copy() if isinstance(one, np.ndarray) else one for one in arguments)
    host.call(kernel, *arguments, shift_bytes=shift_bytes)
    arrays: list[Array] = [one for one in arguments if isinstance(one, np.ndarray) and one.size < 1 << 16]
    return [array.tobytes() for array in arrays]


@pytest.mark.parametrize("number", range(len(calls())))
def test_a_call_has_one_result(host: Host, fresh: Host, number: int) -> None:
    call = calls()[number]
    first = bits(host, call)
    assert bits(host, call) == first
    assert bits(fresh, call) == first
    for shift_bytes in (4, 8, 12):
        assert bits(host, call, shift_bytes) == first


@pytest.fixture(scope="module")
def fresh(module: bytes) -> Host:
    return Host.of(module)
