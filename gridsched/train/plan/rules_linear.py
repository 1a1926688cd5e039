"""Rules for matrix products, and attention, which is made of them."""

import math
from collections.abc import Sequence

from gridsched.train.plan.rules import Number, covers, expect
from gridsched.train.plan.rules_cast import dropout
from gridsched.train.plan.rules_choose import logical_not, masked_fill
from gridsched.train.plan.rules_math import add
from gridsched.train.plan.rules_reduce import softmax
from gridsched.train.plan.rules_shape import expand, permute, reshape, unsqueeze
from gridsched.train.plan.rules_unary import times_number
from gridsched.train.plan.strides import broadcast
from gridsched.train.plan.tape import Gradients, Tape, Value

__all__ = ["linear", "matmul", "multiplied"]


def multiplied(
    tape: Tape, a: Value, b: Value, y: Value, sizes: tuple[int, int, int], *, flip_a: bool = False, flip_b: bool = False
) -> Value:
    """``y`` [m, n] = a b over k, with ``sizes`` (m, n, k); a flipped one lies the other way round. No gradient is written down."""
    tape.call("gemm", a, b, y, *sizes, int(flip_a), int(flip_b), 0)
    return y


@covers("linear.default")
def linear(tape: Tape, x: Value, weight: Value, bias: Value | None = None) -> Value:
    """``x`` [..., k] times weight [n, k], plus bias [n]."""
    n, k = weight.shape
    expect(x.shape[-1] == k and {x.dtype, weight.dtype} == {"float32"}, f"x of {x.dtype} {x.shape} and a weight of {weight.shape}")
    rows = x.count // k
    y = multiplied(tape, x, weight, tape.new((*x.shape[:-1], n)), (rows, n, k), flip_b=True)
    if bias is not None:
        expect(bias.shape == (n,), f"a bias of shape {bias.shape}")
        tape.call("add_to_rows", bias, y, rows, n)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        if x.follows:
            tape.give(x, multiplied(tape, dy, weight, tape.like(x), (rows, k, n)))
        if weight.follows:
            tape.give(weight, multiplied(tape, dy, x, tape.like(weight), (n, k, rows), flip_a=True))
        if bias is not None and bias.follows:
            dbias = tape.like(bias)
            tape.call("sum_of_rows", dy, dbias, rows, n, 0)
            tape.give(bias, dbias)

    tape.record([y], [x, weight, bias], back)
    return y


@covers("mm.default")
def mm(tape: Tape, a: Value, b: Value) -> Value:
    """``a`` [m, k] times b [k, n]."""
    (m, k), (other, n) = a.shape, b.shape
    expect(k == other and {a.dtype, b.dtype} == {"float32"}, f"{a.dtype} {a.shape} times {b.dtype} {b.shape}")
    y = multiplied(tape, a, b, tape.new((m, n)), (m, n, k))

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        if a.follows:
            tape.give(a, multiplied(tape, dy, b, tape.like(a), (m, k, n), flip_b=True))
        if b.follows:
            tape.give(b, multiplied(tape, a, dy, tape.like(b), (k, n, m), flip_a=True))

    tape.record([y], [a, b], back)
    return y


def _batched(tape: Tape, a: Value, b: Value, y: Value, sizes: tuple[int, int, int], flip_a: bool = False, flip_b: bool = False) -> Value:
    m, n, k = sizes
    batch = y.count // (m * n)
    tape.call("gemm_batched", a, b, y, m, n, k, int(flip_a), int(flip_b), 0, batch, m * k, k * n, m * n)
    return y


def _bmm(tape: Tape, a: Value, b: Value, *, flip_b: bool = False) -> Value:
    """``a`` [..., m, k] times b [..., k, n], or b [..., n, k] flipped; as many matrices each."""
    (m, k), (other, n) = a.shape[-2:], b.shape[:-3:-1] if flip_b else b.shape[-2:]
    expect(
        k == other and a.shape[:-2] == b.shape[:-2] and {a.dtype, b.dtype} == {"float32"}, f"{a.dtype} {a.shape} times {b.dtype} {b.shape}"
    )
    y = _batched(tape, a, b, tape.new((*a.shape[:-2], m, n)), (m, n, k), flip_b=flip_b)

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        if a.follows:
            tape.give(a, _batched(tape, dy, b, tape.like(a), (m, k, n), flip_b=not flip_b))
        if b.follows and flip_b:
            tape.give(b, _batched(tape, dy, a, tape.like(b), (n, k, m), flip_a=True))
        elif b.follows:
            tape.give(b, _batched(tape, a, dy, tape.like(b), (k, n, m), flip_a=True))

    tape.record([y], [a, b], back)
    return y


@covers("bmm.default")
def bmm(tape: Tape, a: Value, b: Value) -> Value:
    """``a`` [batch, m, k] times b [batch, k, n]."""
    return _bmm(tape, a, b)


@covers("matmul.default")
def matmul(tape: Tape, a: Value, b: Value) -> Value:
    """What numpy calls ``@``: vectors, matrices, and any number of them."""
    if a.rank == 1:
        y = matmul(tape, unsqueeze(tape, a, 0), b)
        return reshape(tape, y, y.shape[:-1] if b.rank == 1 else (*y.shape[:-2], y.shape[-1]))
    if b.rank == 1:
        y = matmul(tape, a, unsqueeze(tape, b, 1))
        return reshape(tape, y, y.shape[:-1])
    if b.rank == 2:
        y = mm(tape, reshape(tape, a, (a.count // a.shape[-1], a.shape[-1])), b)
        return reshape(tape, y, (*a.shape[:-1], b.shape[1]))
    batch = broadcast(a.shape[:-2], b.shape[:-2])
    return _bmm(tape, expand(tape, a, (*batch, *a.shape[-2:])), expand(tape, b, (*batch, *b.shape[-2:])))


@covers("dot.default", "mv.default")
def product_with_vector(tape: Tape, a: Value, b: Value) -> Value:
    """A matrix or vector times a vector."""
    return matmul(tape, a, b)


@covers("outer.default")
def outer(tape: Tape, a: Value, b: Value) -> Value:
    """Every product of two vectors' elements."""
    return mm(tape, unsqueeze(tape, a, 1), unsqueeze(tape, b, 0))


@covers("addmm.default", "baddbmm.default")
def addmm(tape: Tape, c: Value, a: Value, b: Value, *, beta: Number = 1, alpha: Number = 1) -> Value:
    """``beta`` c + alpha a b."""
    return add(tape, times_number(tape, c, beta), times_number(tape, matmul(tape, a, b), alpha))


@covers("scaled_dot_product_attention.default")
def attention(
    tape: Tape, query: Value, key: Value, value: Value, mask: Value | None = None, share: Number = 0.0, is_causal: bool = False,
    *, scale: Number | None = None, enable_gqa: bool = False,
) -> Value:  # fmt: skip
    """softmax(query key^T scale) value, by heads [..., length, width] (Vaswani et al. 2017, arXiv:1706.03762)."""
    expect(not enable_gqa, "enable_gqa")
    batch = broadcast(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    query, key, value = (expand(tape, x, (*batch, *x.shape[-2:])) for x in (query, key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = _bmm(tape, query, key, flip_b=True)
    if mask is None:
        shares = _attention_softmax(tape, scores, float(scale), is_causal)
    else:
        expect(not is_causal, "a mask together with is_causal")
        shares = softmax(tape, _masked(tape, times_number(tape, scores, scale), mask), -1)
    return _bmm(tape, dropout(tape, shares, share, True), value)


def _masked(tape: Tape, scores: Value, mask: Value) -> Value:
    if mask.dtype == "bool":
        return masked_fill(tape, scores, logical_not(tape, mask), -math.inf)
    return add(tape, scores, mask)


def _attention_softmax(tape: Tape, scores: Value, scale: float, causal: bool) -> Value:
    y = tape.like(scores)
    rows, columns = scores.shape[-2:]
    matrices = scores.count // (rows * columns)
    tape.call("attention_softmax", scores, y, matrices, rows, columns, scale, int(causal))

    def back(gradients: Gradients) -> None:
        (dy,) = gradients
        assert dy is not None
        dscores = tape.like(scores)
        tape.call("attention_softmax_grad", dy, y, dscores, matrices, rows, columns, scale)
        tape.give(scores, dscores)

    tape.record([y], [scores], back)
    return y


@covers("einsum.default")
def einsum(tape: Tape, equation: str, tensors: Sequence[Value], *, path: None = None) -> Value:
    """A product of two tensors whose letters are in both and in the result (batch), in both only (summed up), or in one and the result."""
    expect(path is None, "path")
    expect(len(tensors) == 2 and "." not in equation and "->" in equation, f"equation {equation!r}; write it with two tensors and ->")
    inputs, _, result = equation.replace(" ", "").partition("->")
    left, _, right = inputs.partition(",")
    a, b = tensors
    plain = all(len(set(letters)) == len(letters) for letters in (left, right, result))
    expect(plain and len(left) == a.rank and len(right) == b.rank, f"equation {equation!r}")
    sizes = dict(zip(left, a.shape, strict=True)) | dict(zip(right, b.shape, strict=True))
    both = [letter for letter in left if letter in right and letter in result]
    summed = [letter for letter in left if letter in right and letter not in result]
    of_a = [letter for letter in left if letter not in right]
    of_b = [letter for letter in right if letter not in left]
    expect(sorted([*both, *of_a, *of_b]) == sorted(result), f"equation {equation!r}, where a letter of one tensor is summed up")

    def sized(*groups: Sequence[str]) -> list[int]:
        return [math.prod(sizes[letter] for letter in group) for group in groups]

    a = reshape(tape, permute(tape, a, [left.index(letter) for letter in (*both, *of_a, *summed)]), sized(both, of_a, summed))
    b = reshape(tape, permute(tape, b, [right.index(letter) for letter in (*both, *summed, *of_b)]), sized(both, summed, of_b))
    order = [*both, *of_a, *of_b]
    y = reshape(tape, _bmm(tape, a, b), [sizes[letter] for letter in order])
    return permute(tape, y, [order.index(letter) for letter in result])
