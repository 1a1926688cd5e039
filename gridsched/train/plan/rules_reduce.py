"""Rules for sums, means, extremes and softmax along axes. ``REDUCE`` is in the order of the enumeration in kernels/simple_reduce.c."""

import math
from collections.abc import Sequence

from gridsched.train.graph import Named
from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.rules_choose import choose, compared, number
from gridsched.train.plan.rules_math import add, binary, divide, multiply, subtract
from gridsched.train.plan.rules_shape import expand, permute, reshape, sum_axes, zeros_like
from gridsched.train.plan.rules_unary import clamp, unary
from gridsched.train.plan.strides import axis_of
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["REDUCE", "log_softmax", "mean", "softmax", "total"]

REDUCE = ("sum", "product", "max", "min")
_Axes = int | Sequence[int] | None


def _axes(x: Value, axes: _Axes) -> list[int]:
    chosen = [axes] if isinstance(axes, int) else list(axes or range(x.rank))
    return sorted({axis_of(axis, x.rank) for axis in chosen}) if x.rank else []


def _dropped(tape: Tape, y: Value, axes: Sequence[int], keep: bool) -> Value:
    return y if keep else reshape(tape, y, [size for axis, size in enumerate(y.shape) if axis not in axes])


def _summed(tape: Tape, x: Value, axes: Sequence[int]) -> Value:
    """Sums along ``axes``, which stay as size 1, with gradients."""
    y = sum_axes(tape, x, axes)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        tape.give(x, expand(tape, dy, x.shape))

    if y.shape == x.shape:
        return reshape(tape, x, x.shape)
    tape.record([y], [x], back)
    return y


@covers("sum.default", "sum.dim_IntList")
def total(tape: Tape, x: Value, axes: _Axes = None, keep: bool = False, *, dtype: Named | None = None) -> Value:
    """The sum along axes, or of all."""
    expect(dtype is None or dtype.name == "float32", f"dtype {dtype}")
    expect(x.dtype in ("float32", "bool") or dtype is not None, f"a sum of {x.dtype}")
    x = cast(tape, x, "float32")
    chosen = _axes(x, axes)
    return _dropped(tape, _summed(tape, x, chosen), chosen, keep)


@covers("mean.default", "mean.dim")
def mean(tape: Tape, x: Value, axes: _Axes = None, keep: bool = False, *, dtype: Named | None = None) -> Value:
    """The mean along axes, or of all."""
    x = cast(tape, x, "float32" if dtype is None else dtype.name)
    chosen = _axes(x, axes)
    count = math.prod(x.shape[axis] for axis in chosen)
    return divide(tape, _dropped(tape, _summed(tape, x, chosen), chosen, keep), count)


def _variance(tape: Tape, x: Value, axes: _Axes, correction: Number, keep: bool) -> Value:
    chosen = _axes(x, axes)
    count = math.prod(x.shape[axis] for axis in chosen)
    away = subtract(tape, x, mean(tape, x, chosen, True)) if chosen else zeros_like(tape, x)
    squares = _summed(tape, unary(tape, "square", away), chosen)
    return _dropped(tape, divide(tape, squares, max(count - correction, 0)), chosen, keep)


@covers("var.correction")
def variance(tape: Tape, x: Value, axes: _Axes = None, *, correction: Number | None = None, keepdim: bool = False) -> Value:
    """Squares about the mean, divided by their number less ``correction``."""
    return _variance(tape, x, axes, 1 if correction is None else correction, keepdim)


@covers("var.default")
def variance_of_all(tape: Tape, x: Value, unbiased: bool = True) -> Value:
    """The variance of all."""
    return _variance(tape, x, None, int(unbiased), keep=False)


@covers("var.dim")
def variance_along(tape: Tape, x: Value, axes: _Axes, unbiased: bool = True, keep: bool = False) -> Value:
    """The variance along axes."""
    return _variance(tape, x, axes, int(unbiased), keep)


@covers("std.correction")
def deviation(tape: Tape, x: Value, axes: _Axes = None, *, correction: Number | None = None, keepdim: bool = False) -> Value:
    """The root of the variance."""
    return unary(tape, "sqrt", variance(tape, x, axes, correction=correction, keepdim=keepdim))


@covers("std.default")
def deviation_of_all(tape: Tape, x: Value, unbiased: bool = True) -> Value:
    """The root of the variance of all."""
    return unary(tape, "sqrt", variance_of_all(tape, x, unbiased))


@covers("std.dim")
def deviation_along(tape: Tape, x: Value, axes: _Axes, unbiased: bool = True, keep: bool = False) -> Value:
    """The root of the variance along axes."""
    return unary(tape, "sqrt", variance_along(tape, x, axes, unbiased, keep))


def _around(x: Value, axis: int) -> tuple[int, int, int]:
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def _extreme(tape: Tape, x: Value, axis: int, what: str, keep: bool) -> tuple[Value, Value]:
    """The extreme along an axis and where it is; the first of equals gets the gradient, as in torch."""
    axis = axis_of(axis, x.rank)
    if x.rank == 0:
        index = tape.new((), "int64")
        tape.call("fill_i64", index, 1, 0)
        return reshape(tape, x, ()), index
    x = cast(tape, x, "float32")
    outer, n, inner = _around(x, axis)
    shape = (*x.shape[:axis], 1, *x.shape[axis + 1 :])
    index, y = tape.new(shape, "int64"), tape.new(shape)
    tape.call("reduce_index", x, index, outer, n, inner, REDUCE.index(what))
    tape.call("gather", x, index, y, outer, n, 1, inner)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = zeros_like(tape, x)
        tape.call("gather_add", dy, index, dx, outer, n, 1, inner)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return _dropped(tape, y, [axis], keep), _dropped(tape, index, [axis], keep)


@covers("max.dim")
def max_along(tape: Tape, x: Value, axis: int, keep: bool = False) -> tuple[Value, Value]:
    """The greatest along an axis, and where it is."""
    return _extreme(tape, x, axis, "max", keep)


@covers("min.dim")
def min_along(tape: Tape, x: Value, axis: int, keep: bool = False) -> tuple[Value, Value]:
    """The smallest along an axis, and where it is."""
    return _extreme(tape, x, axis, "min", keep)


@covers("argmax.default")
def argmax(tape: Tape, x: Value, axis: int | None = None, keep: bool = False) -> Value:
    """Where the greatest is."""
    expect(axis is not None or not keep, "keepdim without dim")
    flat = reshape(tape, x, (x.count,)) if axis is None else x
    return _extreme(tape, flat, axis or 0, "max", keep)[1]


@covers("argmin.default")
def argmin(tape: Tape, x: Value, axis: int | None = None, keep: bool = False) -> Value:
    """Where the smallest is."""
    expect(axis is not None or not keep, "keepdim without dim")
    flat = reshape(tape, x, (x.count,)) if axis is None else x
    return _extreme(tape, flat, axis or 0, "min", keep)[1]


def _amax(tape: Tape, x: Value, axes: _Axes, what: str, keep: bool) -> Value:
    """Extremes along axes; equals share the gradient, as in torch."""
    chosen = _axes(x, axes)
    y = sum_axes(tape, x, chosen, REDUCE.index(what))

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        at = compared(tape, "eq", x, y)
        count = sum_axes(tape, cast(tape, at, "float32"), chosen)
        share = binary(tape, "div", dy, count)
        tape.give(x, choose(tape, at, expand(tape, share, x.shape), number(tape, 0)))

    tape.record([y], [x], back)
    return _dropped(tape, y, chosen, keep)


@covers("amax.default", "max.default")
def amax(tape: Tape, x: Value, axes: _Axes = None, keep: bool = False) -> Value:
    """The greatest along axes, or of all."""
    return _amax(tape, x, axes, "max", keep)


@covers("amin.default", "min.default")
def amin(tape: Tape, x: Value, axes: _Axes = None, keep: bool = False) -> Value:
    """The smallest along axes, or of all."""
    return _amax(tape, x, axes, "min", keep)


def _by_rows(tape: Tape, kernel: str, x: Value, axis: int) -> Value:
    """A kernel of rows along any axis; the axis goes last and comes back."""
    axis = axis_of(axis, x.rank)
    if axis != max(x.rank - 1, 0):
        order = [*range(axis), *range(axis + 1, x.rank), axis]
        y = _by_rows(tape, kernel, permute(tape, x, order), -1)
        return permute(tape, y, [order.index(place) for place in range(x.rank)])
    y = tape.like(x)
    columns = x.shape[-1] if x.rank else 1
    tape.call(kernel, x, y, x.count // columns, columns)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = tape.like(x)
        tape.call(f"{kernel}_grad", dy, y, dx, x.count // columns, columns)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


@covers("softmax.int")
def softmax(tape: Tape, x: Value, axis: int, dtype: Named | None = None) -> Value:
    """e^x over its sum along an axis."""
    return _by_rows(tape, "softmax", cast(tape, x, "float32" if dtype is None else dtype.name), axis)


@covers("log_softmax.int")
def log_softmax(tape: Tape, x: Value, axis: int, dtype: Named | None = None) -> Value:
    """The logarithm of softmax."""
    return _by_rows(tape, "log_softmax", cast(tape, x, "float32" if dtype is None else dtype.name), axis)


@covers("logsumexp.default")
def logsumexp(tape: Tape, x: Value, axes: _Axes, keep: bool = False) -> Value:
    """``log`` of the sum of e^x along axes: about the greatest, which takes no gradient of its own."""
    chosen = _axes(x, axes)
    greatest = sum_axes(tape, x, chosen, REDUCE.index("max"))
    sums = _summed(tape, unary(tape, "exp", subtract(tape, x, greatest)), chosen)
    return _dropped(tape, add(tape, unary(tape, "log", sums), greatest), chosen, keep)


@covers("linalg_vector_norm.default", "norm.ScalarOpt_dim")
def vector_norm(tape: Tape, x: Value, order: Number | None = 2, axes: _Axes = None, keep: bool = False, *, dtype: object = None) -> Value:
    """The root of the sum of squares, or the sum of absolute values."""
    expect(order in (None, 1, 2) and dtype is None, f"norm of order {order}")
    if order == 1:
        return total(tape, unary(tape, "abs", x), axes, keep)
    return unary(tape, "sqrt", total(tape, unary(tape, "square", x), axes, keep))


@covers("cosine_similarity.default")
def cosine_similarity(tape: Tape, a: Value, b: Value, axis: int = 1, eps: Number = 1e-8) -> Value:
    """The cosine of the angle between vectors along an axis."""
    lengths = [clamp(tape, vector_norm(tape, x, 2, [axis], True), eps) for x in (a, b)]
    return total(tape, multiply(tape, divide(tape, a, lengths[0]), divide(tape, b, lengths[1])), [axis])
