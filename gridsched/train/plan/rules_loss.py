"""Rules for losses; ``reduction`` is torch's number: 0 each sample's, 1 the mean, 2 the sum."""

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.rules_choose import choose, compared, number
from gridsched.train.plan.rules_index import gather
from gridsched.train.plan.rules_math import add, divide, maximum, multiply, subtract
from gridsched.train.plan.rules_reduce import log_softmax, mean, total
from gridsched.train.plan.rules_shape import permute, reshape, unsqueeze
from gridsched.train.plan.rules_unary import clamp, negative, times_number, unary
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["cross_entropy"]

_MEAN, _SUM = 1, 2


def _reduced(tape: Tape, each: Value, reduction: int) -> Value:
    return mean(tape, each) if reduction == _MEAN else total(tape, each) if reduction == _SUM else each


def _classes_last(tape: Tape, x: Value) -> Value:
    """[n, c, ...] with the classes as its last axis; [c] as it is."""
    return permute(tape, x, [0, *range(2, x.rank), 1]) if x.rank > 2 else x


@covers("cross_entropy_loss.default")
def cross_entropy(
    tape: Tape, x: Value, target: Value, weight: Value | None = None, reduction: int = _MEAN, ignore: int = -100, smoothing: Number = 0.0
) -> Value:
    """-log softmax of x [n, c, ...] at the target, a class or a distribution."""
    expect(weight is None, "weight")
    if target.dtype == "float32":
        expect(smoothing == 0, "label_smoothing with a target distribution")
        return _against_distribution(tape, x, target, reduction)
    if reduction == _MEAN and smoothing == 0:
        return _mean_cross_entropy(tape, _classes_last(tape, x), target, ignore)
    return _smooth(tape, log_softmax(tape, x, 1 if x.rank > 1 else 0), target, reduction, ignore, smoothing)


def _mean_cross_entropy(tape: Tape, x: Value, target: Value, ignore: int) -> Value:
    columns = x.shape[-1]
    rows = x.count // columns
    target = cast(tape, target, "int64")
    expect(target.count == rows, f"a target of shape {target.shape} for {x.shape}")
    kept, loss = tape.like(x), tape.new(())
    tape.call("cross_entropy", x, target, kept, loss, rows, columns, ignore)

    def back(gradients: Gradients) -> None:
        (dloss,) = gradients
        assert dloss is not None
        dx = tape.like(x)
        tape.call("cross_entropy_grad", dloss, kept, target, dx, rows, columns, ignore)
        tape.give(x, dx)

    tape.record([loss], [x], back)
    return loss


def _against_distribution(tape: Tape, x: Value, target: Value, reduction: int) -> Value:
    axis = 1 if x.rank > 1 else 0
    each = negative(tape, total(tape, multiply(tape, log_softmax(tape, x, axis), target), axis))
    return _reduced(tape, each, reduction)


def _smooth(tape: Tape, x: Value, target: Value, reduction: int, ignore: int, smoothing: Number) -> Value:
    """From log probabilities, the target's and, by ``smoothing``, the mean of all."""
    axis = 1 if x.rank > 1 else 0
    chosen = nll(tape, x, target, None, 0, ignore)
    if smoothing:
        all_classes = negative(tape, mean(tape, x, axis))
        zero = number(tape, 0)
        spread = choose(tape, compared(tape, "ne", cast(tape, target, "int64"), ignore), all_classes, zero)
        chosen = add(tape, times_number(tape, chosen, 1 - smoothing), times_number(tape, spread, smoothing))
    return _mean_of_counted(tape, chosen, target, ignore) if reduction == _MEAN else _reduced(tape, chosen, reduction)


def _mean_of_counted(tape: Tape, each: Value, target: Value, ignore: int) -> Value:
    counted = compared(tape, "ne", cast(tape, target, "int64"), ignore)
    return divide(tape, total(tape, each), total(tape, cast(tape, counted, "float32")))


@covers("nll_loss.default", "nll_loss_nd.default")
def nll(tape: Tape, x: Value, target: Value, weight: Value | None = None, reduction: int = _MEAN, ignore: int = -100) -> Value:
    """-x at the target, of log probabilities x [n, c, ...]; 0 where the target is to be ignored."""
    expect(weight is None, "weight")
    axis = 1 if x.rank > 1 else 0
    target = cast(tape, target, "int64")
    counted = compared(tape, "ne", target, ignore)
    safe = multiply(tape, target, cast(tape, counted, "int64"))  # class 0 where it does not count
    each = negative(tape, reshape(tape, gather(tape, x, axis, unsqueeze(tape, safe, axis)), target.shape))
    each = choose(tape, counted, each, number(tape, 0))
    return _mean_of_counted(tape, each, target, ignore) if reduction == _MEAN else _reduced(tape, each, reduction)


@covers("mse_loss.default")
def mse(tape: Tape, x: Value, target: Value, reduction: int = _MEAN) -> Value:
    """Squares of the differences."""
    return _reduced(tape, unary(tape, "square", subtract(tape, x, target)), reduction)


@covers("l1_loss.default")
def l1(tape: Tape, x: Value, target: Value, reduction: int = _MEAN) -> Value:
    """Absolute differences."""
    return _reduced(tape, unary(tape, "abs", subtract(tape, x, target)), reduction)


def _bent(tape: Tape, x: Value, target: Value, delta: float) -> Value:
    """``c`` (|d| - c/2) with c = min(|d|, delta): half the square of a small difference, and straight beyond."""
    size = unary(tape, "abs", subtract(tape, x, target))
    low = clamp(tape, size, 0, delta)
    return multiply(tape, low, subtract(tape, size, times_number(tape, low, 0.5)))


@covers("huber_loss.default")
def huber(tape: Tape, x: Value, target: Value, reduction: int = _MEAN, delta: Number = 1.0) -> Value:
    """Squares, and absolute differences beyond ``delta`` (Huber 1964)."""
    return _reduced(tape, _bent(tape, x, target, float(delta)), reduction)


@covers("smooth_l1_loss.default")
def smooth_l1(tape: Tape, x: Value, target: Value, reduction: int = _MEAN, beta: Number = 1.0) -> Value:
    """Huber's loss divided by its bend."""
    if beta == 0:
        return l1(tape, x, target, reduction)
    return _reduced(tape, times_number(tape, _bent(tape, x, target, float(beta)), 1 / beta), reduction)


@covers("binary_cross_entropy_with_logits.default")
def bce_with_logits(
    tape: Tape, x: Value, target: Value, weight: Value | None = None, pos_weight: Value | None = None, reduction: int = _MEAN
) -> Value:
    """(1 - t) x + softplus(-x), weighted."""
    target = cast(tape, target, "float32")
    miss = unary(tape, "softplus", negative(tape, x), 1.0, 1e30)
    if pos_weight is not None:
        share = add(tape, multiply(tape, target, add(tape, pos_weight, -1)), 1)
        miss = multiply(tape, share, miss)
    each = add(tape, multiply(tape, add(tape, negative(tape, target), 1), x), miss)
    return _reduced(tape, each if weight is None else multiply(tape, each, weight), reduction)


@covers("binary_cross_entropy.default")
def bce(tape: Tape, x: Value, target: Value, weight: Value | None = None, reduction: int = _MEAN) -> Value:
    """-t log x - (1 - t) log(1 - x), the logarithms not below -100, as in torch."""
    target = cast(tape, target, "float32")
    low = number(tape, -100)
    yes = maximum(tape, unary(tape, "log", x), low)
    no = maximum(tape, unary(tape, "log1p", negative(tape, x)), low)
    both = add(tape, multiply(tape, target, yes), multiply(tape, add(tape, negative(tape, target), 1), no))
    each = negative(tape, both)
    return _reduced(tape, each if weight is None else multiply(tape, each, weight), reduction)


@covers("kl_div.default")
def kl_div(tape: Tape, x: Value, target: Value, reduction: int = _MEAN, *, log_target: bool = False) -> Value:
    """``t`` (log t - x) of log probabilities x."""
    expect(log_target, "a target that is not given as log probabilities")
    each = multiply(tape, unary(tape, "exp", target), subtract(tape, target, x))
    return _reduced(tape, each, reduction)
