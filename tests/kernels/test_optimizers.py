"""The optimizers against gridsched/train/torch_optimizers.py, several steps in a row."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from gridsched.core.method import InnerOptimizer
from gridsched.train.torch_optimizers import AdamW, Optimizer, Sgd
from tests.kernels.closeness import Array, assert_close, normal, seeds
from tests.kernels.host import Host

STEPS = 5


def with_torch(
    settings_: InnerOptimizer, kind: Callable[[InnerOptimizer, list[Tensor]], Optimizer], start: Array, grads: list[Array]
) -> Array:
    parameter = torch.from_numpy(start.copy())
    optimizer = kind(settings_, [parameter])
    for grad in grads:
        optimizer.apply((torch.from_numpy(grad),))
    return parameter.numpy()


@settings(max_examples=15)
@given(n=st.integers(1, 21), momentum=st.sampled_from([0.0, 0.9]), weight_decay=st.sampled_from([0.0, 0.01]), seed=seeds)
def test_sgd_steps_as_torch_does(host: Host, n: int, momentum: float, weight_decay: float, seed: int) -> None:
    start, grads = normal(seed, n), [normal(seed + 1 + step, n) for step in range(STEPS)]
    inner = InnerOptimizer(name="sgd", lr=0.05, momentum=momentum, weight_decay=weight_decay)
    parameter, buffer = start.copy(), np.full(n, -0.0, np.float32)
    for grad in grads:
        host.call("sgd", parameter, grad, buffer if momentum else None, n, 0.05, momentum, weight_decay)
    assert_close(parameter, with_torch(inner, Sgd, start, grads), ulps=8)


@settings(max_examples=15)
@given(n=st.integers(1, 21), weight_decay=st.sampled_from([0.0, 0.1]), seed=seeds)
def test_adamw_steps_as_torch_does(host: Host, n: int, weight_decay: float, seed: int) -> None:
    start, grads = normal(seed, n), [normal(seed + 1 + step, n) for step in range(STEPS)]
    inner = InnerOptimizer(name="adamw", lr=0.01, weight_decay=weight_decay)
    parameter, mean, square = start.copy(), np.zeros(n, np.float32), np.zeros(n, np.float32)
    for step, grad in enumerate(grads, start=1):
        numbers = (0.01, inner.beta1, inner.beta2, inner.eps, weight_decay)
        host.call("adamw", parameter, grad, mean, square, np.array([step], np.int32), n, *numbers)
    assert_close(parameter, with_torch(inner, AdamW, start, grads), ulps=8)


def test_the_mean_square_takes_as_much_of_a_gradient_as_torch_does(host: Host) -> None:
    square, beta2 = np.zeros(1, np.float32), 0.999
    ones = np.ones(1, np.float32)
    host.call("adamw", ones.copy(), ones, np.zeros(1, np.float32), square, np.array([1], np.int32), 1, 0.01, 0.9, beta2, 1e-8, 0.0)
    assert square[0] == np.float32(1 - beta2)


@pytest.mark.parametrize("n", [1, 7, 16])
def test_the_pull_towards_an_anchor_is_added_to_the_gradient(host: Host, n: int) -> None:
    gradient, parameter, anchor = normal(1, n), normal(2, n), normal(3, n)
    wanted = gradient + np.float32(0.5) * (parameter - anchor)
    host.call("pull_back", gradient, parameter, anchor, n, 0.5)
    np.testing.assert_array_equal(gradient, wanted)
