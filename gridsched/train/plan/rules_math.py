"""Rules for arithmetic on two tensors, element by element. ``BINARY`` is in the order of the enumeration in kernels/simple_binary.c."""

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.rules_choose import COMPARE, choose, number, of_two
from gridsched.train.plan.rules_pieces import chunk
from gridsched.train.plan.rules_shape import sum_to
from gridsched.train.plan.rules_unary import shifted, times_number, unary
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["BINARY", "add", "binary", "divide", "maximum", "multiply", "subtract"]

BINARY = ("add", "sub", "mul", "div", "maximum", "minimum")


def binary(tape: Tape, what: str, a: Value, b: Value) -> Value:
    """Two tensors element by element, each repeated where it has one element only. Whole ones stay whole, but for division."""
    if a.dtype == b.dtype == "int64" and what in ("add", "sub", "mul"):
        return of_two(tape, "binary_i64", BINARY.index(what), a, b, "int64")
    a, b = cast(tape, a, "float32"), cast(tape, b, "float32")
    if what == "add" and a.shape == b.shape:
        y = tape.like(a)
        tape.call("add", a, b, y, y.count)
    else:
        y = _plainly(tape, what, a, b)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        if a.follows:
            tape.give(a, sum_to(tape, _to_first(tape, what, dy, a, b), a.shape))
        if b.follows:
            tape.give(b, sum_to(tape, _to_second(tape, what, dy, a, b, y), b.shape))

    tape.record([y], [a, b], back)
    return y


def _plainly(tape: Tape, what: str, a: Value, b: Value) -> Value:
    return of_two(tape, "binary", BINARY.index(what), a, b, "float32")


def _to_first(tape: Tape, what: str, dy: Value, a: Value, b: Value) -> Value:
    """What flows back to the first of two."""
    if what in ("mul", "div"):
        return _plainly(tape, what, dy, b)
    if what in _GREATER:
        return _shared(tape, _GREATER[what], a, b, dy)
    return dy


def _to_second(tape: Tape, what: str, dy: Value, a: Value, b: Value, y: Value) -> Value:
    """What flows back to the second of two."""
    if what == "mul":
        return _plainly(tape, "mul", dy, a)
    if what == "div":
        return times_number(tape, _plainly(tape, "div", _plainly(tape, "mul", dy, y), b), -1)
    if what in _GREATER:
        return _shared(tape, _GREATER[what], b, a, dy)
    return times_number(tape, dy, -1) if what == "sub" else dy


_GREATER = {"maximum": ("gt", "ge"), "minimum": ("lt", "le")}


def _shared(tape: Tape, comparisons: tuple[str, str], a: Value, b: Value, dy: Value) -> Value:
    """``dy`` where ``a`` is the chosen one, and half of it where both are, as in torch."""
    half, zero = times_number(tape, dy, 0.5), number(tape, 0)
    one, other = (choose(tape, of_two(tape, "compare", COMPARE.index(what), a, b, "bool"), half, zero) for what in comparisons)
    y = tape.like(dy)
    tape.call("add", one, other, y, y.count)
    return y


@covers("add.Tensor", "add.Scalar")
def add(tape: Tape, a: Value, b: Value | Number, alpha: Number = 1) -> Value:
    """``a`` + alpha b."""
    if isinstance(b, Value):
        return binary(tape, "add", a, times_number(tape, b, alpha))
    return shifted(tape, a, b * alpha)


@covers("sub.Tensor", "sub.Scalar")
def subtract(tape: Tape, a: Value, b: Value | Number, alpha: Number = 1) -> Value:
    """``a`` - alpha b."""
    if isinstance(b, Value):
        return binary(tape, "sub", a, times_number(tape, b, alpha))
    return add(tape, a, -b, alpha)


@covers("rsub.Tensor", "rsub.Scalar")
def subtract_from(tape: Tape, a: Value, b: Value | Number, alpha: Number = 1) -> Value:
    """``b`` - alpha a."""
    if isinstance(b, Value):
        return subtract(tape, b, a, alpha)
    return add(tape, times_number(tape, a, -alpha), b)


@covers("mul.Tensor", "mul.Scalar")
def multiply(tape: Tape, a: Value, b: Value | Number) -> Value:
    """``a`` b."""
    return binary(tape, "mul", a, b) if isinstance(b, Value) else times_number(tape, a, b)


@covers("div.Tensor", "div.Scalar")
def divide(tape: Tape, a: Value, b: Value | Number) -> Value:
    """``a`` / b."""
    return binary(tape, "div", a, b) if isinstance(b, Value) else unary(tape, "divide", a, b)


@covers("maximum.default")
def maximum(tape: Tape, a: Value, b: Value) -> Value:
    """The greater of two."""
    return binary(tape, "maximum", a, b)


@covers("minimum.default")
def minimum(tape: Tape, a: Value, b: Value) -> Value:
    """The smaller of two."""
    return binary(tape, "minimum", a, b)


@covers("lerp.Scalar")
def lerp(tape: Tape, a: Value, b: Value, weight: Number) -> Value:
    """``a`` + weight (b - a)."""
    return add(tape, a, times_number(tape, subtract(tape, b, a), weight))


@covers("glu.default")
def glu(tape: Tape, x: Value, axis: int = -1) -> Value:
    """The first half along an axis times the logistic function of the second (Dauphin et al. 2017, arXiv:1612.08083)."""
    expect(x.shape[axis] % 2 == 0, f"{x.shape[axis]} along axis {axis}, which is odd")
    first, second = chunk(tape, x, 2, axis)
    return multiply(tape, first, unary(tape, "sigmoid", second))
