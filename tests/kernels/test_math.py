"""exp, log, tanh, erf and the logistic function over all exponents of float32, and as many mantissas as are quick."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from gridsched.train.plan.rules_unary import UNARY
from tests.kernels.closeness import Array, as_tensor, empty
from tests.kernels.host import Host


def through(host: Host, name: str, x: Array) -> Array:
    y = empty(*x.shape)
    host.call("unary", x, y, x.size, list(UNARY).index(name), 0.0, 0.0)
    return y


def every_exponent(count: int = 1 << 17) -> Array:
    """Both signs, subnormal to greatest."""
    bits = np.random.default_rng(1).integers(0, 1 << 32, count, dtype=np.uint32)
    x = bits.view(np.float32)
    return np.ascontiguousarray(x[np.isfinite(x)])


def ulps(found: Array, wanted: Array) -> float:
    """The greatest distance in units of the last place of ``wanted``, subnormal ones of one size."""
    unit = np.spacing(np.maximum(np.abs(wanted), np.finfo(np.float32).tiny).astype(np.float32)).astype(np.float64)
    return float((np.abs(found.astype(np.float64) - wanted) / unit).max())


@pytest.mark.parametrize(
    ("name", "function", "spread", "limit"),
    [
        ("exp", np.exp, 87.0, 2.0),
        ("tanh", np.tanh, 9.0, 3.0),
        ("sigmoid", lambda x: 1 / (1 + np.exp(-x)), 80.0, 4.0),
        ("erf", np.vectorize(math.erf), 4.0, 4.0),
    ],
)
def test_a_function_is_right_to_a_few_ulps(host: Host, name: str, function: Callable[[Array], Array], spread: float, limit: float) -> None:
    x = np.concatenate([np.linspace(-spread, spread, 200_001, dtype=np.float32), every_exponent()])
    x = x[np.abs(x) <= spread]
    assert ulps(through(host, name, x), function(x.astype(np.float64))) < limit


def test_log_is_right_to_two_ulps(host: Host) -> None:
    x = np.concatenate([np.abs(every_exponent()), np.linspace(0.5, 2.0, 200_001, dtype=np.float32)])
    x = x[x > 0]
    assert ulps(through(host, "log", x), np.log(x.astype(np.float64))) < 2.0


def test_what_lies_beyond_the_range_of_numbers(host: Host) -> None:
    inf, nan = math.inf, math.nan
    x = as_tensor(0.0, -0.0, inf, -inf, nan, 1000.0, -1000.0, -1.0)
    for name, wanted in {
        "exp": (1, 1, inf, 0, nan, inf, 0, math.exp(-1)),
        "log": (-inf, -inf, inf, nan, nan, math.log(1000), nan, nan),
        "tanh": (0, 0, 1, -1, nan, 1, -1, math.tanh(-1)),
        "sigmoid": (0.5, 0.5, 1, 0, nan, 1, 0, 1 / (1 + math.e)),
        "erf": (0, 0, 1, -1, nan, 1, -1, math.erf(-1)),
    }.items():
        np.testing.assert_allclose(through(host, name, x), as_tensor(*wanted), rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf"])
def test_a_value_has_the_same_bits_in_every_lane_and_in_a_row_that_is_not_full(host: Host, name: str) -> None:
    x = np.abs(every_exponent(1000))
    whole = through(host, name, x)
    for begin in range(1, 9):
        assert through(host, name, x[begin:-begin].copy()).tobytes() == whole[begin:-begin].tobytes()
