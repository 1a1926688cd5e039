"""Rules that compare, and choose by what holds. The tables are in the order of the enumerations in kernels/simple_binary.c."""

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.rules_shape import sum_to
from gridsched.train.plan.strides import broadcast, merged, steps_within
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["COMPARE", "choose", "compared", "logical_not", "masked_fill", "number", "of_two"]

COMPARE = ("eq", "ne", "lt", "le", "gt", "ge")
_LOGIC = ("and", "or", "xor")


def of_two(tape: Tape, kernel: str, number: int, a: Value, b: Value, dtype: str) -> Value:
    """A kernel of two tensors, each repeated where it has one element only; no gradient is written down."""
    shape = broadcast(a.shape, b.shape)
    y = tape.new(shape, dtype)
    tape.call(kernel, a, b, y, number, *merged(shape, steps_within(a.shape, shape), steps_within(b.shape, shape)))
    return y


def choose(tape: Tape, condition: Value, a: Value, b: Value) -> Value:
    """``a`` where the condition holds, else ``b``; with gradients."""
    a, b = cast(tape, a, "float32"), cast(tape, b, "float32")
    condition = cast(tape, condition, "bool")
    shape = broadcast(condition.shape, a.shape, b.shape)
    y = tape.new(shape)
    steps = [steps_within(x.shape, shape) for x in (condition, a, b)]
    tape.call("choose", condition, a, b, y, *merged(shape, *steps))

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        zero = tape.new((1,))
        tape.call("fill", zero, 1, 0.0)
        for x, first, second in ((a, dy, zero), (b, zero, dy)):
            if x.follows:
                tape.give(x, sum_to(tape, choose(tape, condition, first, second), x.shape))

    tape.record([y], [a, b], back)
    return y


def number(tape: Tape, value: Number) -> Value:
    """A number as a tensor without axes."""
    y = tape.new(())
    tape.call("fill", y, 1, float(value))
    return y


def compared(tape: Tape, what: str, a: Value, b: Value | Number) -> Value:
    """Whether ``a`` compares so to ``b``, element by element; whole numbers as such."""
    other = b if isinstance(b, Value) else _constant(tape, a, b)
    if a.dtype == other.dtype == "int64":
        return of_two(tape, "compare_i64", COMPARE.index(what), a, other, "bool")
    return of_two(tape, "compare", COMPARE.index(what), cast(tape, a, "float32"), cast(tape, other, "float32"), "bool")


def _comparison(what: str) -> None:
    def rule(tape: Tape, a: Value, b: Value | Number) -> Value:
        return compared(tape, what, a, b)

    covers(f"{what}.Tensor", f"{what}.Scalar")(rule)


def _constant(tape: Tape, like: Value, value: Number) -> Value:
    if like.dtype == "int64" and type(value) is int and -(2**31) <= value < 2**31:
        y = tape.new((), "int64")
        tape.call("fill_i64", y, 1, value)
        return y
    return number(tape, value)


for _name in COMPARE:
    _comparison(_name)


def _logic(operator: str, what: str) -> None:
    def rule(tape: Tape, a: Value, b: Value) -> Value:
        a, b = cast(tape, a, "bool"), cast(tape, b, "bool")
        return of_two(tape, "logic", _LOGIC.index(what), a, b, "bool")

    covers(operator)(rule)


_logic("logical_and.default", "and")
_logic("logical_or.default", "or")


@covers("bitwise_and.Tensor")
def bitwise_and(tape: Tape, a: Value, b: Value) -> Value:
    """Both of two conditions."""
    expect(a.dtype == b.dtype == "bool", f"dtypes {a.dtype} and {b.dtype}")
    return of_two(tape, "logic", 0, a, b, "bool")


@covers("bitwise_or.Tensor")
def bitwise_or(tape: Tape, a: Value, b: Value) -> Value:
    """Either of two conditions."""
    expect(a.dtype == b.dtype == "bool", f"dtypes {a.dtype} and {b.dtype}")
    return of_two(tape, "logic", 1, a, b, "bool")


@covers("logical_not.default")
def logical_not(tape: Tape, a: Value) -> Value:
    """The opposite of a condition."""
    a = cast(tape, a, "bool")
    one = tape.new((), "bool")
    tape.call("fill_u8", one, 1, 1)
    return of_two(tape, "logic", 2, a, one, "bool")


@covers("bitwise_not.default")
def bitwise_not(tape: Tape, a: Value) -> Value:
    """The opposite of a condition."""
    expect(a.dtype == "bool", f"dtype {a.dtype}")
    return logical_not(tape, a)


@covers("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def where(tape: Tape, condition: Value, a: Value | Number, b: Value | Number) -> Value:
    """``a`` where the condition holds, else b."""
    return choose(tape, condition, *(x if isinstance(x, Value) else number(tape, x) for x in (a, b)))


@covers("masked_fill.Scalar", "masked_fill.Tensor")
def masked_fill(tape: Tape, x: Value, mask: Value, value: Value | Number) -> Value:
    """``value`` where the mask holds, else x."""
    return choose(tape, mask, value if isinstance(value, Value) else number(tape, value), x)
