"""Rules that take tensors apart and put them together: slices, pieces, stacks, borders."""

from collections.abc import Sequence

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_shape import expand, picked, reshape, strided, unsqueeze
from gridsched.train.plan.strides import axis_of, row_major
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["cat", "chunk", "select", "sliced", "split_with_sizes", "stack"]


@covers("slice.Tensor")
def sliced(tape: Tape, x: Value, axis: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Value:
    """Every ``step``-th from ``start`` to before ``end`` along one axis."""
    axis = axis_of(axis, x.rank)
    expect(type(step) is int and step > 0, f"step {step}")
    chosen = range(x.shape[axis])[slice(start, end, step)]
    if len(chosen) == x.shape[axis]:
        return reshape(tape, x, x.shape)
    steps = list(row_major(x.shape))
    first = chosen.start * steps[axis]
    steps[axis] *= step
    return picked(tape, x, (*x.shape[:axis], len(chosen), *x.shape[axis + 1 :]), steps, first)


@covers("select.int")
def select(tape: Tape, x: Value, axis: int, index: int) -> Value:
    """One along an axis, which goes."""
    axis = axis_of(axis, x.rank)
    expect(-x.shape[axis] <= index < x.shape[axis], f"index {index} of an axis of {x.shape[axis]}")
    index %= x.shape[axis]
    return reshape(tape, sliced(tape, x, axis, index, index + 1), (*x.shape[:axis], *x.shape[axis + 1 :]))


@covers("split_with_sizes.default")
def split_with_sizes(tape: Tape, x: Value, sizes: Sequence[int], axis: int = 0) -> tuple[Value, ...]:
    """Pieces of these sizes along one axis."""
    axis = axis_of(axis, x.rank)
    expect(sum(sizes) == x.shape[axis], f"pieces of {tuple(sizes)} from {x.shape[axis]}")
    starts = [sum(sizes[:index]) for index in range(len(sizes))]
    pieces = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    steps = row_major(x.shape)
    outputs = []
    for start, shape in zip(starts, pieces, strict=True):
        y = tape.new(shape, x.dtype)
        y.copied_from = x.buffer
        strided(tape, x, y, shape, steps, row_major(shape), x_first=start * steps[axis])
        outputs.append(y)

    def back(gradients: Gradients) -> None:
        # One tensor for all pieces, not a sum of as many; a piece that nobody used has no gradient.
        dx = tape.like(x)
        if any(dy is None for dy in gradients):
            tape.call("fill", dx, dx.count, 0.0)
        for start, shape, dy in zip(starts, pieces, gradients, strict=True):
            if dy is not None:
                strided(tape, dy, dx, shape, row_major(shape), steps, y_first=start * steps[axis])
        tape.give(x, dx)

    tape.record(outputs, [x], back)
    return tuple(outputs)


@covers("split.Tensor")
def split(tape: Tape, x: Value, size: int, axis: int = 0) -> tuple[Value, ...]:
    """Pieces of ``size`` along one axis; the last may be shorter."""
    whole = x.shape[axis_of(axis, x.rank)]
    return split_with_sizes(tape, x, [min(size, whole - start) for start in range(0, whole, size)], axis)


@covers("chunk.default")
def chunk(tape: Tape, x: Value, chunks: int, axis: int = 0) -> tuple[Value, ...]:
    """About ``chunks`` pieces of one size."""
    whole = x.shape[axis_of(axis, x.rank)]
    return split(tape, x, -(-whole // chunks), axis)


@covers("unbind.int")
def unbind(tape: Tape, x: Value, axis: int = 0) -> tuple[Value, ...]:
    """Each along an axis, which goes."""
    axis = axis_of(axis, x.rank)
    pieces = split_with_sizes(tape, x, [1] * x.shape[axis], axis)
    return tuple(reshape(tape, piece, (*x.shape[:axis], *x.shape[axis + 1 :])) for piece in pieces)


@covers("cat.default", "concat.default")
def cat(tape: Tape, tensors: Sequence[Value], axis: int = 0) -> Value:
    """One after the other along an axis."""
    axis = axis_of(axis, tensors[0].rank)
    expect(len({x.dtype for x in tensors}) == 1, "tensors of different dtypes")
    rest = {(*x.shape[:axis], *x.shape[axis + 1 :]) for x in tensors}
    expect(len(rest) == 1, f"shapes {', '.join(str(x.shape) for x in tensors)} that do not fit each other")
    shape = (*tensors[0].shape[:axis], sum(x.shape[axis] for x in tensors), *tensors[0].shape[axis + 1 :])
    y = tape.new(shape, tensors[0].dtype)
    steps = row_major(shape)
    starts = [sum(x.shape[axis] for x in tensors[:index]) * steps[axis] for index in range(len(tensors))]
    for x, start in zip(tensors, starts, strict=True):
        strided(tape, x, y, x.shape, row_major(x.shape), steps, y_first=start)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        for x, start in zip(tensors, starts, strict=True):
            if x.follows:
                dx = tape.like(x)
                strided(tape, dy, dx, x.shape, steps, row_major(x.shape), x_first=start)
                tape.give(x, dx)

    tape.record([y], tensors, back)
    return y


@covers("stack.default")
def stack(tape: Tape, tensors: Sequence[Value], axis: int = 0) -> Value:
    """Along a new axis."""
    return cat(tape, [unsqueeze(tape, x, axis) for x in tensors], axis_of(axis, tensors[0].rank + 1))


@covers("repeat.default", "tile.default")
def repeat(tape: Tape, x: Value, times: Sequence[int]) -> Value:
    """The whole tensor so many times along each axis."""
    times = (1,) * (x.rank - len(times)) + tuple(times)
    held = (1,) * (len(times) - x.rank) + x.shape
    doubled = [size for own in held for size in (1, own)]
    wide = [size for often, own in zip(times, held, strict=True) for size in (often, own)]
    whole = expand(tape, reshape(tape, x, doubled), wide)
    return reshape(tape, whole, [often * own for often, own in zip(times, held, strict=True)])


@covers("constant_pad_nd.default", "pad.default")
def pad(tape: Tape, x: Value, sizes: Sequence[int], mode: str | Number = "constant", value: Number | None = None) -> Value:
    """``value`` before and after each axis, the last axis' sizes first; negative sizes cut."""
    number = value if isinstance(mode, str) else mode  # constant_pad_nd has no mode
    expect(mode in ("constant", number) and x.dtype == "float32", f"mode {mode} for {x.dtype}")
    for index in range(len(sizes) // 2):
        before, after = sizes[2 * index], sizes[2 * index + 1]
        axis = x.rank - 1 - index
        x = sliced(tape, x, axis, max(-before, 0), x.shape[axis] - max(-after, 0))
        parts = [x]
        for count, front in ((before, True), (after, False)):
            if count > 0:
                edge = tape.new((*x.shape[:axis], count, *x.shape[axis + 1 :]))
                tape.call("fill", edge, edge.count, float(number or 0))
                parts = [edge, *parts] if front else [*parts, edge]
        x = cat(tape, parts, axis) if len(parts) > 1 else x
    return x
