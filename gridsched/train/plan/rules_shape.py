"""Rules that move elements and change none: other shapes of the same bytes, and strided copies."""

from collections.abc import Callable, Sequence

from gridsched.train.plan.rules import covers, expect
from gridsched.train.plan.strides import axis_of, broadcast, merged, row_major, shape_of, steps_within
from gridsched.train.plan.tape import ITEM_BYTES, Gradients, Tape, Value

__all__ = ["expand", "permute", "picked", "reshape", "strided", "sum_axes", "sum_to", "unsqueeze", "zeros_like"]


def reshape(tape: Tape, x: Value, shape: Sequence[int]) -> Value:
    """The same bytes in another shape."""
    y = Value(x.buffer, tuple(shape), x.dtype, x.offset, copied_from=x.copied_from)
    assert y.count == x.count
    tape.record([y], [x], lambda gradients: _give(tape, x, gradients, lambda dy: reshape(tape, dy, x.shape)))
    return y


def _give(tape: Tape, x: Value, gradients: Gradients, back: Callable[[Value], Value]) -> None:
    (dy,) = gradients
    assert dy is not None
    tape.give(x, back(dy))


def strided(
    tape: Tape,
    x: Value,
    y: Value,
    shape: Sequence[int],
    x_steps: Sequence[int],
    y_steps: Sequence[int],
    *,
    x_first: int = 0,
    y_first: int = 0,
) -> None:
    """Copy ``shape`` elements from ``x`` to ``y``, each walked by its own steps from its own first element."""
    item = ITEM_BYTES[x.dtype]
    source = Value(x.buffer, (1,), x.dtype, x.offset + x_first * item)
    goal = Value(y.buffer, (1,), y.dtype, y.offset + y_first * item)
    tape.call("copy", source, goal, item, *merged(shape, x_steps, y_steps))


def zeros_like(tape: Tape, x: Value) -> Value:
    """A new float32 tensor of zeros in ``x``'s shape."""
    y = tape.new(x.shape)
    tape.call("fill", y, y.count, 0.0)
    return y


def picked(tape: Tape, x: Value, shape: Sequence[int], steps: Sequence[int], first: int) -> Value:
    """The elements of ``x`` that these steps meet, each once: a permutation or a slice, that torch would make a view."""
    y = tape.new(shape, x.dtype)
    y.copied_from = x.buffer
    strided(tape, x, y, shape, steps, row_major(shape), x_first=first)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = zeros_like(tape, x) if y.count < x.count else tape.like(x)
        strided(tape, dy, dx, shape, row_major(shape), steps, y_first=first)
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


@covers("permute.default")
def permute(tape: Tape, x: Value, axes: Sequence[int]) -> Value:
    """Axes in another order; no copy where only axes of size 1 move."""
    order = [axis_of(axis, x.rank) for axis in axes]
    expect(sorted(order) == list(range(x.rank)), f"axes {tuple(axes)} of a tensor with {x.rank}")
    shape = tuple(x.shape[axis] for axis in order)
    long_axes = [axis for axis in order if x.shape[axis] > 1]
    if long_axes == sorted(long_axes):
        return reshape(tape, x, shape)
    steps = row_major(x.shape)
    return picked(tape, x, shape, [steps[axis] for axis in order], 0)


@covers("transpose.int", "swapaxes.default")
def transpose(tape: Tape, x: Value, first: int, second: int) -> Value:
    """Two axes change places."""
    order = list(range(x.rank))
    if order:
        first, second = axis_of(first, x.rank), axis_of(second, x.rank)
        order[first], order[second] = second, first
    return permute(tape, x, order)


@covers("t.default", "numpy_T.default")
def transposed(tape: Tape, x: Value) -> Value:
    """All axes in reverse order."""
    return permute(tape, x, list(range(x.rank))[::-1])


@covers("movedim.int")
def movedim(tape: Tape, x: Value, source: int, destination: int) -> Value:
    """One axis moves to another place."""
    order = list(range(x.rank))
    moved = order.pop(axis_of(source, x.rank))
    order.insert(axis_of(destination, x.rank), moved)
    return permute(tape, x, order)


@covers("view.default", "reshape.default")
def view(tape: Tape, x: Value, sizes: Sequence[int]) -> Value:
    """Another shape, of which one size may be -1."""
    return reshape(tape, x, shape_of(sizes, x.count))


@covers("view_as.default")
def view_as(tape: Tape, x: Value, other: Value) -> Value:
    """The shape of ``other``."""
    return reshape(tape, x, shape_of(other.shape, x.count))


@covers("flatten.using_ints")
def flatten(tape: Tape, x: Value, start: int = 0, end: int = -1) -> Value:
    """Axes ``start`` to ``end`` become one."""
    start, end = axis_of(start, x.rank), axis_of(end, x.rank)
    expect(start <= end, f"flattening from axis {start} to {end}")
    middle = 1
    for size in x.shape[start : end + 1]:
        middle *= size
    return reshape(tape, x, (*x.shape[:start], middle, *x.shape[end + 1 :]))


@covers("unflatten.int")
def unflatten(tape: Tape, x: Value, axis: int, sizes: Sequence[int]) -> Value:
    """One axis becomes several."""
    axis = axis_of(axis, x.rank)
    return reshape(tape, x, (*x.shape[:axis], *shape_of(sizes, x.shape[axis]), *x.shape[axis + 1 :]))


@covers("unsqueeze.default")
def unsqueeze(tape: Tape, x: Value, axis: int) -> Value:
    """A new axis of size 1."""
    axis = axis_of(axis, x.rank + 1)
    return reshape(tape, x, (*x.shape[:axis], 1, *x.shape[axis:]))


@covers("squeeze.default", "squeeze.dim", "squeeze.dims")
def squeeze(tape: Tape, x: Value, axes: int | Sequence[int] | None = None) -> Value:
    """Without these axes, or all, where their size is 1."""
    chosen = range(x.rank) if axes is None else [axes] if isinstance(axes, int) else axes
    dropped = {axis_of(axis, x.rank) for axis in chosen}
    return reshape(tape, x, [size for axis, size in enumerate(x.shape) if size != 1 or axis not in dropped])


@covers("contiguous.default", "alias.default")
def same(tape: Tape, x: Value) -> Value:
    """The same tensor; all are contiguous here."""
    return reshape(tape, x, x.shape)


@covers("clone.default")
def clone(tape: Tape, x: Value) -> Value:
    """A copy, which later writes to ``x`` leave alone."""
    y = tape.like(x)
    strided(tape, x, y, (x.count,), (1,), (1,))
    tape.record([y], [x], lambda gradients: _give(tape, x, gradients, lambda dy: dy))
    return y


@covers("detach.default")
def detach(_: Tape, x: Value) -> Value:
    """The same tensor, through which no gradient flows."""
    return Value(x.buffer, x.shape, x.dtype, x.offset, copied_from=x.copied_from)


@covers("expand.default")
def expand(tape: Tape, x: Value, sizes: Sequence[int], *, implicit: bool = False) -> Value:
    """Repeated along axes of size 1 and new ones in front."""
    expect(not implicit, "implicit")
    held = (1,) * (len(sizes) - x.rank) + x.shape
    whole = tuple(own if size == -1 else size for size, own in zip(sizes, held, strict=True))
    expect(broadcast(held, whole) == whole, f"expanding {x.shape} to {whole}")
    if whole == held:
        return reshape(tape, x, whole)
    y = tape.new(whole, x.dtype)
    y.copied_from = x.buffer
    strided(tape, x, y, whole, steps_within(held, whole), row_major(whole))
    tape.record([y], [x], lambda gradients: _give(tape, x, gradients, lambda dy: sum_to(tape, dy, x.shape)))
    return y


@covers("expand_as.default")
def expand_as(tape: Tape, x: Value, other: Value) -> Value:
    """Repeated to the shape of ``other``."""
    return expand(tape, x, other.shape)


@covers("broadcast_tensors.default")
def broadcast_tensors(tape: Tape, tensors: Sequence[Value]) -> tuple[Value, ...]:
    """All in their common shape."""
    whole = broadcast(*(x.shape for x in tensors))
    return tuple(expand(tape, x, whole) for x in tensors)


def sum_to(tape: Tape, dy: Value, shape: Sequence[int]) -> Value:
    """What flows back to a tensor of ``shape`` that was repeated to ``dy``'s: sums along the repeated axes, from the last to the first."""
    missing = dy.rank - len(shape)
    held = (1,) * missing + tuple(shape)
    axes = [axis for axis in range(dy.rank) if held[axis] != dy.shape[axis]]
    return reshape(tape, sum_axes(tape, dy, axes), shape)


def sum_axes(tape: Tape, x: Value, axes: Sequence[int], what: int = 0) -> Value:
    """``x`` summed along ``axes`` (or reduced otherwise), which stay as size 1; neighbours at once, the last first."""
    left = sorted(axes)
    shape = list(x.shape)
    while left:
        last = left.pop()
        first = last
        while left and left[-1] == first - 1:
            first = left.pop()
        x, shape = _reduced(tape, x, shape, first, last, what)
    return reshape(tape, x, shape)


def _reduced(tape: Tape, x: Value, shape: list[int], first: int, last: int, what: int) -> tuple[Value, list[int]]:
    outer, n, inner = (_product(part) for part in (shape[:first], shape[first : last + 1], shape[last + 1 :]))
    left = [*shape[:first], *[1] * (last + 1 - first), *shape[last + 1 :]]
    y = tape.new(left)
    if outer == 1 and inner > 1 and what == 0:
        tape.call("sum_of_rows", x, y, n, inner, 0)
    else:
        tape.call("reduce", x, y, outer, n, inner, what)
    return y, left


def _product(sizes: Sequence[int]) -> int:
    found = 1
    for size in sizes:
        found *= size
    return found
