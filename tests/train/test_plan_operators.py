"""Every operator the plans cover, against torch: outputs and gradients, over drawn shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.train.graph import Value
from gridsched.train.tensors import Array
from tests.train.operator_cases import assert_agree, call, dtype, floats, node, tensor

A, B, C = tensor("a"), tensor("b"), tensor("c")
few = settings(max_examples=6, deadline=None)
shapes = st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple)


def broadcast_pair(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    whole = draw(shapes)
    first, second = (tuple(1 if draw(st.booleans()) else size for size in whole) for _ in range(2))
    return first, second[draw(st.integers(0, len(second))) :]


pairs = st.composite(broadcast_pair)()

UNARY: dict[str, tuple[list[Value], float, float]] = {
    "relu.default": ([], -2, 2), "exp.default": ([], -5, 5), "log.default": ([], 0.1, 9), "sqrt.default": ([], 0.1, 9),
    "rsqrt.default": ([], 0.1, 9), "tanh.default": ([], -4, 4), "sigmoid.default": ([], -9, 9), "silu.default": ([], -6, 6),
    "abs.default": ([], -2, 2), "square.default": ([], -3, 3), "reciprocal.default": ([], 0.3, 5), "erf.default": ([], -3, 3),
    "sign.default": ([], -2, 2), "sin.default": ([], -9, 9), "cos.default": ([], -9, 9), "floor.default": ([], -4, 4),
    "ceil.default": ([], -4, 4), "round.default": ([], -4.1, 4), "log1p.default": ([], -0.9, 5), "expm1.default": ([], -4, 4),
    "hardsigmoid.default": ([], -5, 5), "hardswish.default": ([], -5, 5), "mish.default": ([], -6, 6), "neg.default": ([], -2, 2),
    "gelu.default": ([], -5, 5), "elu.default": ([1.3], -4, 4), "selu.default": ([], -4, 4), "leaky_relu.default": ([0.2], -2, 2),
    "softplus.default": ([2.0, 5.0], -4, 4), "log_sigmoid.default": ([], -9, 9), "clamp.default": ([-0.6, 1.1], -2, 2),
    "hardtanh.default": ([], -2, 2), "clamp_min.default": ([0.3], -2, 2), "clamp_max.default": ([0.3], -2, 2), "relu6.default": ([], -3, 9),
    "add.Tensor": ([3], -2, 2), "sub.Tensor": ([0.5], -2, 2), "rsub.Scalar": ([1.5, 2], -2, 2), "mul.Tensor": ([0.3], -2, 2),
    "div.Tensor": ([16], -2, 2), "clone.default": ([], -2, 2), "contiguous.default": ([], -2, 2),
}  # fmt: skip


@pytest.mark.parametrize("operator", UNARY)
@few
@given(shape=shapes)
def test_functions_of_one_number(operator: str, shape: tuple[int, ...]) -> None:
    more, low, high = UNARY[operator]
    assert_agree([call("y", operator, A, *more)], {"a": floats(*shape, low=low, high=high)})


@pytest.mark.parametrize("exponent", [2, 3, -1, -2, 0, 0.5, -0.5, 1.7, -2.3])
def test_powers(exponent: float) -> None:
    assert_agree([call("y", "pow.Tensor_Scalar", A, exponent)], {"a": floats(3, 7, low=0.2, high=3)}, ulps=64)


def test_whole_powers_of_negative_numbers_and_powers_of_a_number() -> None:
    assert_agree([call("y", "pow.Tensor_Scalar", A, 3)], {"a": floats(9)})
    assert_agree([call("y", "pow.Scalar", 2.5, A)], {"a": floats(9)})


def test_gelu_by_tanh() -> None:
    assert_agree([call("y", "gelu.default", A, approximate="tanh")], {"a": floats(40, low=-5, high=5)})


@pytest.mark.parametrize("operator", ["add.Tensor", "sub.Tensor", "mul.Tensor", "div.Tensor", "maximum.default", "minimum.default"])
@few
@given(pair=pairs)
def test_two_tensors_repeated_to_fit(operator: str, pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    arrays = {"a": floats(*pair[0]), "b": floats(*pair[1], seed=1, low=0.4, high=3)}
    assert_agree([call("y", operator, A, B)], arrays, ulps=128)


def test_equals_share_the_gradient_of_the_greater() -> None:
    same = floats(5)
    for operator in ("maximum.default", "minimum.default"):
        assert_agree([call("y", operator, A, B)], {"a": same, "b": same.copy()})


def test_a_multiple_of_the_second() -> None:
    assert_agree([call("y", "add.Tensor", A, B, alpha=3)], {"a": floats(2, 3), "b": floats(3, seed=1)})
    assert_agree([call("y", "rsub.Tensor", A, B, alpha=2)], {"a": floats(2, 3), "b": floats(3, seed=1)})


@pytest.mark.parametrize("operator", ["eq", "ne", "lt", "le", "gt", "ge"])
@few
@given(pair=pairs)
def test_comparisons_choose(operator: str, pair: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    arrays = {"a": np.array(np.round(floats(*pair[0]))), "b": np.array(np.round(floats(*pair[1], seed=1)))}
    assert_agree([call("holds", f"{operator}.Tensor", A, B), call("y", "where.self", node("holds"), A, B)], arrays)
    assert_agree([call("holds", f"{operator}.Scalar", A, 1), call("y", "where.ScalarOther", node("holds"), A, 0.5)], {"a": arrays["a"]})


def test_logic_of_conditions() -> None:
    arrays: dict[str, Array] = {"a": floats(12), "m": np.arange(12) % 2 == 0, "n": np.arange(12) % 3 == 0}
    m, n = tensor("m"), tensor("n")
    for operator in ("logical_and.default", "logical_or.default", "bitwise_and.Tensor", "bitwise_or.Tensor"):
        assert_agree([call("both", operator, m, n), call("y", "masked_fill.Scalar", A, node("both"), -3.0)], arrays)
    for operator in ("logical_not.default", "bitwise_not.default"):
        assert_agree([call("other", operator, m), call("y", "masked_fill.Scalar", A, node("other"), -3.0)], arrays)


@st.composite
def permuted(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5).map(tuple))
    return shape, tuple(draw(st.permutations(range(len(shape)))))


@few
@given(drawn=permuted())
def test_axes_in_another_order(drawn: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, order = drawn
    assert_agree([call("y", "permute.default", A, order)], {"a": floats(*shape)})
    assert_agree([call("y", "transpose.int", A, order[0], -1)], {"a": floats(*shape)})
    assert_agree([call("y", "movedim.int", A, order[0], order[-1])], {"a": floats(*shape)})


def test_other_shapes_of_the_same_elements() -> None:
    a = {"a": floats(2, 3, 1, 4)}
    for item in (
        call("y", "view.default", A, (6, -1)), call("y", "reshape.default", A, (-1,)), call("y", "flatten.using_ints", A, 1, 2),
        call("y", "flatten.using_ints", A), call("y", "unflatten.int", A, 3, (2, -1)), call("y", "unsqueeze.default", A, -1),
        call("y", "squeeze.default", A), call("y", "squeeze.dim", A, 2), call("y", "squeeze.dim", A, 1),
        call("y", "squeeze.dims", A, (0, 2)), call("y", "expand.default", A, (5, 2, 3, 7, -1)), call("y", "swapaxes.default", A, 0, 1),
        call("y", "repeat.default", A, (2, 1, 3, 1)), call("y", "repeat.default", A, (3, 1, 2, 1, 2)),
    ):  # fmt: skip
        assert_agree([item], a)
    assert_agree([call("y", "t.default", A)], {"a": floats(3, 4)})


@few
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple), data=st.data())
def test_slices(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    start = data.draw(st.integers(0, shape[axis] - 1))
    end = data.draw(st.one_of(st.none(), st.integers(start + 1, 9)))
    step = data.draw(st.integers(1, 3))
    assert_agree([call("y", "slice.Tensor", A, axis, start, end, step)], {"a": floats(*shape)})
    assert_agree([call("y", "select.int", A, axis, start)], {"a": floats(*shape)})


@few
@given(sizes=st.lists(st.integers(1, 3), min_size=1, max_size=4), axis=st.integers(-3, 2))
def test_pieces_and_what_is_made_of_them(sizes: list[int], axis: int) -> None:
    shape = [2, 3, 2]
    shape[axis] = sum(sizes)
    pieces = [call(f"p{index}", "getitem", node("pieces"), index) for index in range(len(sizes))]
    joined = call("y", "cat.default", tuple(node(piece.name) for piece in reversed(pieces)), axis)
    assert_agree([call("pieces", "split_with_sizes.default", A, tuple(sizes), axis), *pieces, joined], {"a": floats(*shape)})
    one = [call("pieces", "split.Tensor", A, 2, axis), call("y", "getitem", node("pieces"), 0)]
    assert_agree(one, {"a": floats(*shape)})
    assert_agree([call("pieces", "unbind.int", A, axis), call("y", "getitem", node("pieces"), -1)], {"a": floats(*shape)})
    assert_agree([call("pieces", "chunk.default", A, 2, axis), call("y", "getitem", node("pieces"), 0)], {"a": floats(*shape)})
    assert_agree([call("y", "stack.default", (A, B), axis)], {"a": floats(*shape), "b": floats(*shape, seed=1)})


def test_borders() -> None:
    assert_agree([call("y", "constant_pad_nd.default", A, (1, 2, 0, 3), 0.5)], {"a": floats(2, 3, 4)})
    assert_agree([call("y", "constant_pad_nd.default", A, (-1, 2))], {"a": floats(2, 4)})
    assert_agree([call("y", "pad.default", A, (2, 1), "constant", 1.5)], {"a": floats(2, 4)})


@pytest.mark.parametrize(
    "operator", ["sum.dim_IntList", "mean.dim", "amax.default", "amin.default", "logsumexp.default", "var.dim", "std.dim"]
)
@few
@given(shape=st.lists(st.integers(2, 5), min_size=1, max_size=4).map(tuple), data=st.data())
def test_along_axes(operator: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1), min_size=1)))
    more: list[Value] = [True] if operator in ("var.dim", "std.dim") else []
    assert_agree([call("y", operator, A, axes, *more, data.draw(st.booleans()))], {"a": floats(*shape, low=0.5, high=3)}, ulps=64)


def test_of_all() -> None:
    for operator in ("sum.default", "mean.default", "max.default", "min.default", "var.default", "std.default"):
        assert_agree([call("y", operator, A)], {"a": floats(3, 50, low=0.5, high=3)}, ulps=64)
    assert_agree([call("y", "var.correction", A, (1,), correction=0, keepdim=True)], {"a": floats(3, 5)})
    assert_agree([call("y", "linalg_vector_norm.default", A, 2, (1,))], {"a": floats(3, 5)})
    assert_agree([call("y", "cosine_similarity.default", A, B)], {"a": floats(3, 5), "b": floats(3, 5, seed=1)})


@few
@given(shape=st.lists(st.integers(1, 5), min_size=1, max_size=3).map(tuple), data=st.data())
def test_extremes_and_where_they_are(shape: tuple[int, ...], data: st.DataObject) -> None:
    axis, keep = data.draw(st.integers(-len(shape), len(shape) - 1)), data.draw(st.booleans())
    a = {"a": floats(*shape)}
    for operator in ("max.dim", "min.dim"):
        assert_agree([call("both", operator, A, axis, keep), call("y", "getitem", node("both"), 0)], a)
    for operator in ("argmax.default", "argmin.default"):
        where = call("where", operator, A, axis, keep)
        moved = [where, call("at", "to.dtype", node("where"), dtype("float32")), call("y", "add.Tensor", node("at"), B)]
        assert_agree(moved, a | {"b": floats(1)}, ulps=128)


@pytest.mark.parametrize("operator", ["softmax.int", "log_softmax.int"])
@few
@given(shape=st.lists(st.integers(1, 6), min_size=1, max_size=4).map(tuple), data=st.data())
def test_softmax_along_an_axis(operator: str, shape: tuple[int, ...], data: st.DataObject) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    assert_agree([call("y", operator, A, axis)], {"a": floats(*shape, low=-6, high=6)}, ulps=64)
