"""Rules for dtypes and for tensors made from nothing. ``_DTYPES`` is in the order of the enumeration in kernels/simple.c."""

from collections.abc import Sequence

from gridsched.train.graph import Named
from gridsched.train.plan.rules import Number, covers, expect, refuse
from gridsched.train.plan.rules_shape import reshape
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["cast", "filled"]

_DTYPES = ("float32", "int64", "int32", "uint8", "bool")


def cast(tape: Tape, x: Value, dtype: str) -> Value:
    """``x`` as ``dtype``; itself where it is that already."""
    if x.dtype == dtype:
        return x
    expect(dtype in _DTYPES, f"dtype {dtype}")
    if (x.dtype, dtype) == ("bool", "uint8"):
        return Value(x.buffer, x.shape, dtype, x.offset, copied_from=x.copied_from)
    y = tape.new(x.shape, dtype)
    tape.call("cast", x, y, x.count, _DTYPES.index(x.dtype), _DTYPES.index(dtype))
    return y


@covers("to.dtype", "_to_copy.default", "to.dtype_layout")
def to_dtype(tape: Tape, x: Value, dtype: Named | None = None, *_hints: object) -> Value:
    """Another dtype, or the same tensor."""
    y = cast(tape, x, x.dtype if dtype is None else dtype.name)
    return reshape(tape, x, x.shape) if y is x else y


@covers("type_as.default")
def type_as(tape: Tape, x: Value, other: Value) -> Value:
    """The dtype of ``other``."""
    return cast(tape, x, other.dtype)


def filled(tape: Tape, shape: Sequence[int], value: Number, dtype: str) -> Value:
    """A tensor of one number."""
    y = tape.new(shape, dtype)
    if dtype == "float32":
        tape.call("fill", y, y.count, float(value))
    elif dtype == "int64":
        expect(-(2**31) <= value < 2**31, f"the number {value}, which has more than 32 bits")
        tape.call("fill_i64", y, y.count, int(value))
    elif dtype in ("uint8", "bool"):
        tape.call("fill_u8", y, y.count, int(value != 0) if dtype == "bool" else int(value) & 255)
    else:
        refuse(f"dtype {dtype}")
    return y


def _dtype(dtype: Named | None, otherwise: str) -> str:
    return otherwise if dtype is None else dtype.name


@covers("zeros.default")
def zeros(tape: Tape, sizes: Sequence[int], *, dtype: Named | None = None) -> Value:
    """Zeros."""
    return filled(tape, sizes, 0, _dtype(dtype, "float32"))


@covers("ones.default")
def ones(tape: Tape, sizes: Sequence[int], *, dtype: Named | None = None) -> Value:
    """Ones."""
    return filled(tape, sizes, 1, _dtype(dtype, "float32"))


@covers("full.default")
def full(tape: Tape, sizes: Sequence[int], value: Number, *, dtype: Named | None = None) -> Value:
    """One number everywhere; its own kind is the dtype, if none is given."""
    return filled(tape, sizes, value, _dtype(dtype, _kind(value)))


def _kind(value: Number) -> str:
    return "bool" if isinstance(value, bool) else "int64" if isinstance(value, int) else "float32"


@covers("zeros_like.default", "empty_like.default")
def zeros_as(tape: Tape, x: Value, *, dtype: Named | None = None) -> Value:
    """Zeros in the shape of ``x``."""
    return filled(tape, x.shape, 0, _dtype(dtype, x.dtype))


@covers("ones_like.default")
def ones_as(tape: Tape, x: Value, *, dtype: Named | None = None) -> Value:
    """Ones in the shape of ``x``."""
    return filled(tape, x.shape, 1, _dtype(dtype, x.dtype))


@covers("full_like.default")
def full_as(tape: Tape, x: Value, value: Number, *, dtype: Named | None = None) -> Value:
    """One number in the shape of ``x``."""
    return filled(tape, x.shape, value, _dtype(dtype, x.dtype))


@covers("new_zeros.default")
def new_zeros(tape: Tape, x: Value, sizes: Sequence[int], *, dtype: Named | None = None) -> Value:
    """Zeros with the dtype of ``x``."""
    return filled(tape, sizes, 0, _dtype(dtype, x.dtype))


@covers("new_ones.default")
def new_ones(tape: Tape, x: Value, sizes: Sequence[int], *, dtype: Named | None = None) -> Value:
    """Ones with the dtype of ``x``."""
    return filled(tape, sizes, 1, _dtype(dtype, x.dtype))


@covers("new_full.default")
def new_full(tape: Tape, x: Value, sizes: Sequence[int], value: Number, *, dtype: Named | None = None) -> Value:
    """One number with the dtype of ``x``."""
    return filled(tape, sizes, value, _dtype(dtype, x.dtype))


@covers("scalar_tensor.default")
def scalar_tensor(tape: Tape, value: Number, *, dtype: Named | None = None) -> Value:
    """A number as a tensor without axes."""
    return filled(tape, (), value, _dtype(dtype, "float32"))


@covers("arange.default")
def arange(tape: Tape, end: Number, *, dtype: Named | None = None) -> Value:
    """Whole numbers from 0 to before ``end``."""
    return arange_step(tape, 0, end, 1, dtype=dtype)


@covers("arange.start")
def arange_start(tape: Tape, start: Number, end: Number, *, dtype: Named | None = None) -> Value:
    """Whole numbers from ``start`` to before ``end``."""
    return arange_step(tape, start, end, 1, dtype=dtype)


@covers("arange.start_step")
def arange_step(tape: Tape, start: Number, end: Number, step: Number = 1, *, dtype: Named | None = None) -> Value:
    """Every ``step``-th from ``start`` to before ``end``."""
    expect(all(type(word) is int and -(2**31) <= word < 2**31 for word in (start, end, step)), "arange of numbers that are not whole")
    chosen = range(int(start), int(end), int(step))
    y = tape.new((len(chosen),), "int64")
    tape.call("arange_i64", y, y.count, chosen.start, chosen.step)
    return cast(tape, y, _dtype(dtype, "int64"))


@covers("dropout.default")
def dropout(tape: Tape, x: Value, share: Number, train: bool) -> Value:
    """Elements become 0 with probability ``share``, and the others grow in turn; which, is a function of seed, stream and place."""
    if not train or share == 0:
        return reshape(tape, x, x.shape)
    expect(0 < share < 1, f"p={share}")
    expect(tape.training, "random draws in an evaluation; switch dropout off there")
    y, stream = tape.like(x), tape.stream()
    tape.call("dropout", x, y, tape.seed, stream, x.count, float(share))

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dx = tape.like(x)
        tape.call("dropout", dy, dx, tape.seed, stream, x.count, float(share))
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y
