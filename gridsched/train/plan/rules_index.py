"""Rules that pick rows and elements by index, and put them back."""

import math

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.rules_shape import clone, reshape, zeros_like
from gridsched.train.plan.rules_unary import times_number
from gridsched.train.plan.strides import axis_of
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["gather", "index_select"]


def _index(tape: Tape, index: Value) -> Value:
    expect(index.dtype in ("int64", "int32"), f"an index of {index.dtype}")
    return cast(tape, index, "int64")


@covers("embedding.default")
def embedding(tape: Tape, weight: Value, index: Value, padding: int = -1, scale_by_frequency: bool = False, sparse: bool = False) -> Value:
    """Rows of a table [rows, width]."""
    expect(not scale_by_frequency and not sparse, "scale_grad_by_freq or sparse")
    expect(weight.rank == 2 and weight.dtype == "float32", f"a table of {weight.dtype} {weight.shape}")
    rows, width = weight.shape
    index = _index(tape, index)
    y = tape.new((*index.shape, width))
    tape.call("embedding", weight, index, y, index.count, width, rows)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dweight = tape.like(weight)
        tape.call("embedding_grad", dy, index, dweight, index.count, width, rows, padding)
        tape.give(weight, dweight)

    tape.record([y], [weight], back)
    return y


@covers("index_select.default")
def index_select(tape: Tape, x: Value, axis: int, index: Value) -> Value:
    """Those along an axis that a vector of indices names."""
    axis = axis_of(axis, x.rank)
    expect(index.rank <= 1 and x.dtype == "float32" and x.rank > 0, f"an index of shape {index.shape} into {x.dtype} {x.shape}")
    index = _index(tape, index)
    outer, rows, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    y = tape.new((*x.shape[:axis], index.count, *x.shape[axis + 1 :]))
    tape.call("index_select", x, index, y, outer, rows, index.count, inner)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = zeros_like(tape, x)
        tape.call("index_add", dy, index, dx, outer, rows, index.count, inner)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


@covers("index.Tensor")
def index_tensor(tape: Tape, x: Value, indices: tuple[Value | None, ...]) -> Value:
    """One tensor of indices along one axis; its axes take that one's place."""
    chosen = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    expect(len(chosen) == 1, f"{len(chosen)} tensors of indices at once")
    axis, index = chosen[0]
    expect(index.dtype != "bool", "a mask as an index")
    flat = index_select(tape, x, axis, reshape(tape, index, (index.count,)))
    return reshape(tape, flat, (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]))


@covers("index_add.default")
def index_add(tape: Tape, x: Value, axis: int, index: Value, source: Value, *, alpha: Number = 1) -> Value:
    """x, and ``source`` added at the rows of ``index``, in their order."""
    axis = axis_of(axis, x.rank)
    index = _index(tape, index)
    wanted = (*x.shape[:axis], index.count, *x.shape[axis + 1 :])
    expect(source.shape == wanted and x.dtype == source.dtype == "float32", f"a source of {source.dtype} {source.shape}, not {wanted}")
    source = times_number(tape, source, alpha)
    outer, rows, inner = math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])
    y = clone(tape, detached(x))
    tape.call("index_add", source, index, y, outer, rows, index.count, inner)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        tape.give(x, dy)
        if source.follows:
            dsource = tape.like(source)
            tape.call("index_select", dy, index, dsource, outer, rows, index.count, inner)
            tape.give(source, dsource)

    tape.record([y], [x, source], back)
    return y


def detached(x: Value) -> Value:
    """The same bytes, without a way back."""
    return Value(x.buffer, x.shape, x.dtype, x.offset)


def _check_gather(x: Value, index: Value, axis: int) -> tuple[int, int, int, int]:
    same = all(own == other for place, (own, other) in enumerate(zip(x.shape, index.shape, strict=True)) if place != axis)
    expect(same and x.dtype == "float32", f"an index of shape {index.shape} into {x.dtype} {x.shape}")
    return math.prod(x.shape[:axis]), x.shape[axis], index.shape[axis], math.prod(x.shape[axis + 1 :])


@covers("gather.default", "take_along_dim.default")
def gather(tape: Tape, x: Value, axis: int | Value, index: Value | int, *, sparse_grad: bool = False) -> Value:
    """For every place the element along an axis that ``index`` names there; both orders of arguments."""
    if isinstance(axis, Value):
        axis, index = index, axis
    assert isinstance(axis, int)
    assert isinstance(index, Value)
    expect(not sparse_grad, "sparse_grad")
    axis = axis_of(axis, x.rank)
    index = _index(tape, index)
    sizes = _check_gather(x, index, axis)
    y = tape.new(index.shape)
    tape.call("gather", x, index, y, *sizes)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = zeros_like(tape, x)
        tape.call("gather_add", dy, index, dx, *sizes)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


@covers("scatter_add.default")
def scatter_add(tape: Tape, x: Value, axis: int, index: Value, source: Value) -> Value:
    """x, and ``source`` added at the places that ``index`` names along an axis."""
    axis = axis_of(axis, x.rank)
    index = _index(tape, index)
    sizes = _check_gather(x, index, axis)
    expect(source.shape == index.shape, f"a source of shape {source.shape} for an index of {index.shape}")
    y = clone(tape, detached(x))
    tape.call("gather_add", source, index, y, *sizes)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        tape.give(x, dy)
        if source.follows:
            dsource = tape.like(source)
            tape.call("gather", dy, index, dsource, *sizes)
            tape.give(source, dsource)

    tape.record([y], [x, source], back)
    return y


@covers("one_hot.default")
def one_hot(tape: Tape, index: Value, classes: int = -1) -> Value:
    """1 at the class that ``index`` names, 0 elsewhere, in a new last axis."""
    expect(classes > 0, "num_classes=-1; say how many")
    index = _index(tape, index)
    y = tape.new((*index.shape, classes), "int64")
    tape.call("one_hot", index, y, index.count, classes)
    return y
