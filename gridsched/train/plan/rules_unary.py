"""Rules for functions of one number. ``UNARY`` is in the order of the enumeration in kernels/simple_unary.c."""

import math

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["UNARY", "clamp", "negative", "shifted", "times_number", "unary"]

# Each with the value its slope is taken from: x, y (so that x may go), or neither.
UNARY = {
    "scale": "", "shift": "", "divide": "", "relu": "y", "exp": "y", "log": "x", "sqrt": "y", "rsqrt": "y", "tanh": "y", "sigmoid": "y",
    "gelu": "x", "gelu_tanh": "x", "silu": "x", "elu": "x", "leaky_relu": "x", "softplus": "x", "clamp": "x", "abs": "x",
    "square": "x", "reciprocal": "y", "pow": "x", "erf": "x", "sign": "0", "sin": "x", "cos": "x", "floor": "0", "ceil": "0",
    "round": "0", "log1p": "x", "expm1": "y", "hardsigmoid": "x", "hardswish": "x", "mish": "x", "hardtanh": "y",
}  # fmt: skip
_NUMBERS = {name: number for number, name in enumerate(UNARY)}


def unary(tape: Tape, what: str, x: Value, a: Number = 0.0, b: Number = 0.0) -> Value:
    """A function of one number; its slope is written down with it."""
    x = cast(tape, x, "float32")
    y = tape.like(x)
    number, a, b = _NUMBERS[what], float(a), float(b)
    tape.call("unary", x, y, x.count, number, a, b)
    needs = UNARY[what]

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        if needs == "0":
            return
        dx = tape.like(x)
        if what == "shift":
            dx = dy
        elif needs:
            tape.call("unary_grad", dy, x if needs == "x" else None, y if needs == "y" else None, dx, x.count, number, a, b)
        else:
            tape.call("unary", dy, dx, x.count, number, a, b)  # a multiple, and so is its gradient
        tape.give(x, dx)

    tape.record([y], [x], back)
    return y


def _plain(operator: str, what: str) -> None:
    def rule(tape: Tape, x: Value) -> Value:
        return unary(tape, what, x)

    covers(operator)(rule)


_PLAIN = """
    relu exp log sqrt rsqrt tanh sigmoid silu abs square reciprocal erf sign sin cos floor ceil round log1p expm1 hardsigmoid hardswish mish
"""
for _name in _PLAIN.split():
    _plain(f"{_name}.default", _name)


@covers("neg.default")
def negative(tape: Tape, x: Value) -> Value:
    """-x."""
    return times_number(tape, x, -1)


@covers("gelu.default")
def gelu(tape: Tape, x: Value, *, approximate: str = "none") -> Value:
    """``x`` times the normal distribution's share below x (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""
    expect(approximate in ("none", "tanh"), f"approximate={approximate!r}")
    return unary(tape, "gelu" if approximate == "none" else "gelu_tanh", x)


@covers("elu.default")
def elu(tape: Tape, x: Value, alpha: Number = 1.0, scale: Number = 1.0, input_scale: Number = 1.0) -> Value:
    """x, or alpha (e^x - 1) below 0."""
    expect(scale == input_scale == 1, f"scale {scale} or input_scale {input_scale}")
    return unary(tape, "elu", x, alpha)


@covers("selu.default")
def selu(tape: Tape, x: Value) -> Value:
    """Klambauer et al. 2017, arXiv:1706.02515, with its two constants."""
    return times_number(tape, unary(tape, "elu", x, 1.6732632423543772), 1.0507009873554805)


@covers("leaky_relu.default")
def leaky_relu(tape: Tape, x: Value, slope: Number = 0.01) -> Value:
    """x, or ``slope`` x below 0."""
    return unary(tape, "leaky_relu", x, slope)


@covers("softplus.default")
def softplus(tape: Tape, x: Value, beta: Number = 1.0, threshold: Number = 20.0) -> Value:
    """log(1 + e^(beta x)) / beta, and x where beta x is above the threshold."""
    return unary(tape, "softplus", x, beta, threshold)


@covers("log_sigmoid.default")
def log_sigmoid(tape: Tape, x: Value) -> Value:
    """-log(1 + e^-x)."""
    return negative(tape, unary(tape, "softplus", negative(tape, x), 1.0, math.inf))


@covers("clamp.default")
def clamp(tape: Tape, x: Value, low: Number | None = None, high: Number | None = None) -> Value:
    """Between ``low`` and ``high``; None is no bound."""
    return unary(tape, "clamp", x, -math.inf if low is None else low, math.inf if high is None else high)


@covers("hardtanh.default")
def hardtanh(tape: Tape, x: Value, low: Number = -1, high: Number = 1) -> Value:
    """Between ``low`` and ``high``, with no slope at these themselves, where ``clamp`` has one."""
    return unary(tape, "hardtanh", x, low, high)


@covers("clamp_min.default")
def clamp_min(tape: Tape, x: Value, low: Number) -> Value:
    """At least ``low``."""
    return clamp(tape, x, low)


@covers("clamp_max.default")
def clamp_max(tape: Tape, x: Value, high: Number) -> Value:
    """At most ``high``."""
    return clamp(tape, x, None, high)


@covers("relu6.default")
def relu6(tape: Tape, x: Value) -> Value:
    """Between 0 and 6."""
    return hardtanh(tape, x, 0, 6)


@covers("pow.Tensor_Scalar")
def power(tape: Tape, x: Value, exponent: Number) -> Value:
    """``x`` to a power; squares and roots by their own kernels."""
    named = {2: "square", 0.5: "sqrt", -0.5: "rsqrt", -1: "reciprocal"}.get(exponent)
    return unary(tape, named, x) if named else unary(tape, "pow", x, exponent)


@covers("pow.Scalar")
def power_of_number(tape: Tape, base: Number, x: Value) -> Value:
    """A number to the power of x."""
    expect(base > 0, f"base {base}")
    return unary(tape, "exp", times_number(tape, x, math.log(base)))


def times_number(tape: Tape, x: Value, value: Number) -> Value:
    """``x`` times a number; whole stays whole."""
    if x.dtype == "int64" and type(value) is int:
        return _affine(tape, x, value, 0)
    return x if value == 1 and x.dtype == "float32" else unary(tape, "scale", x, value)


def _affine(tape: Tape, x: Value, scale: int, offset: int) -> Value:
    expect(-(2**31) <= scale < 2**31 and -(2**31) <= offset < 2**31, f"the numbers {scale} and {offset}, which have more than 32 bits")
    y = tape.like(x)
    tape.call("affine_i64", x, y, x.count, scale, offset)
    return y


def shifted(tape: Tape, x: Value, value: Number) -> Value:
    """``x`` plus a number; whole stays whole."""
    if x.dtype == "int64" and type(value) is int:
        return _affine(tape, x, 1, value)
    return unary(tape, "shift", x, value)
