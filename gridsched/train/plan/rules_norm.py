"""Rules for normalisation: over a batch, a layer, groups of channels."""

import math
from collections.abc import Sequence

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_math import add, multiply
from gridsched.train.plan.rules_reduce import mean
from gridsched.train.plan.rules_unary import unary
from gridsched.train.plan.tape import Argument, Gradients, Tape, Value

__all__ = ["batch_norm"]


def _record(
    tape: Tape, kernel: str, values: tuple[Value, Value | None, Value | None], y: Value, kept: tuple[Value, Value], sizes: Sequence[int]
) -> Value:
    """Write down the gradient of a normalisation of x by weight and bias; ``kept`` are the means and reciprocal deviations."""
    x, weight, _ = values

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        found = [tape.like(value) if value is not None and value.follows else None for value in values]
        arguments: list[Argument] = [dy, x, weight, *kept, *found, *sizes]
        tape.call(kernel, *arguments)
        for value, gradient in zip(values, found, strict=True):
            if value is not None and gradient is not None:
                tape.give(value, gradient)

    tape.record([y], values, back)
    return y


@covers("batch_norm.default")
def batch_norm(
    tape: Tape, x: Value, weight: Value | None, bias: Value | None, running_mean: Value | None, running_var: Value | None, training: bool,
    momentum: Number, eps: Number, _fast: bool = False,
) -> Value:  # fmt: skip
    """Each channel of x [n, c, ...] with the batch's mean and variance in training, with the running ones otherwise."""
    expect(x.rank >= 2 and x.dtype == "float32", f"a tensor of {x.dtype} {x.shape}")
    n, c = x.shape[:2]
    _check_sizes(c, weight, bias, running_mean, running_var)
    sizes = (n, c, math.prod(x.shape[2:]))
    if not training:
        return _with_running(tape, x, weight, bias, running_mean, running_var, sizes, float(eps))
    expect(isinstance(momentum, int | float), "momentum=None")
    y, kept = tape.like(x), (tape.new((c,)), tape.new((c,)))
    tape.call("batch_norm", x, weight, bias, y, *kept, running_mean, running_var, *sizes, float(momentum), float(eps))
    return _record(tape, "batch_norm_grad", (x, weight, bias), y, kept, sizes)


def _with_running(
    tape: Tape, x: Value, weight: Value | None, bias: Value | None, running_mean: Value | None, running_var: Value | None,
    sizes: Sequence[int], eps: float,
) -> Value:  # fmt: skip
    expect(running_mean is not None and running_var is not None, "evaluation without running statistics")
    follows = tape.training and any(value is not None and value.follows for value in (x, weight, bias))
    expect(not follows, "training=False in a training graph where a gradient flows")
    y = tape.like(x)
    tape.call("batch_norm_evaluate", x, weight, bias, y, running_mean, running_var, *sizes, eps)
    return y


def _check_sizes(c: int, *values: Value | None) -> None:
    for value in values:
        expect(value is None or (value.shape == (c,) and value.dtype == "float32"), f"weights or statistics that are not {c} float32")


@covers("layer_norm.default")
def layer_norm(
    tape: Tape, x: Value, shape: Sequence[int], weight: Value | None = None, bias: Value | None = None, eps: Number = 1e-5,
    _fast: bool = True,
) -> Value:  # fmt: skip
    """Over the last axes, of ``shape``."""
    columns = math.prod(shape)
    expect(x.shape[x.rank - len(shape) :] == tuple(shape), f"normalized_shape {tuple(shape)} of {x.shape}")
    expect(all(value is None or value.shape == tuple(shape) for value in (weight, bias)), "weights of another shape")
    sizes = (x.count // columns, columns)
    y, kept = tape.like(x), (tape.new((sizes[0],)), tape.new((sizes[0],)))
    tape.call("layer_norm", x, weight, bias, y, *kept, *sizes, float(eps))
    return _record(tape, "layer_norm_grad", (x, weight, bias), y, kept, sizes)


@covers("group_norm.default")
def group_norm(
    tape: Tape, x: Value, groups: int, weight: Value | None = None, bias: Value | None = None, eps: Number = 1e-5, _fast: bool = True
) -> Value:
    """Over groups of channels of each sample of x [n, c, ...]."""
    n, c = x.shape[:2]
    expect(groups > 0 and c % groups == 0, f"{c} channels in {groups} groups")
    _check_sizes(c, weight, bias)
    sizes = (n, c, math.prod(x.shape[2:]), groups)
    y, kept = tape.like(x), (tape.new((n, groups)), tape.new((n, groups)))
    tape.call("group_norm", x, weight, bias, y, *kept, *sizes, float(eps))
    return _record(tape, "group_norm_grad", (x, weight, bias), y, kept, sizes)


@covers("instance_norm.default")
def instance_norm(
    tape: Tape, x: Value, weight: Value | None, bias: Value | None, running_mean: Value | None, running_var: Value | None,
    use_input_stats: bool, _momentum: Number, eps: Number, _fast: bool = False,
) -> Value:  # fmt: skip
    """Each channel of each sample by itself: as many groups as channels."""
    expect(use_input_stats and running_mean is None and running_var is None, "running statistics")
    return group_norm(tape, x, x.shape[1], weight, bias, eps)


@covers("rms_norm.default")
def rms_norm(tape: Tape, x: Value, shape: Sequence[int], weight: Value | None = None, eps: Number | None = None) -> Value:
    """Divided by the root of the mean square over the last axes (Zhang and Sennrich 2019, arXiv:1910.07467)."""
    expect(x.shape[x.rank - len(shape) :] == tuple(shape), f"normalized_shape {tuple(shape)} of {x.shape}")
    axes = range(x.rank - len(shape), x.rank)
    square = mean(tape, unary(tape, "square", x), list(axes), True)
    y = multiply(tape, x, unary(tape, "rsqrt", add(tape, square, 2.0**-23 if eps is None else eps)))
    return y if weight is None else multiply(tape, y, weight)
