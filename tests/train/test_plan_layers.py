"""Layers, losses and indexing as the plans have them, against torch: outputs and gradients, over drawn shapes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.train.graph import Value
from gridsched.train.tensors import Array
from tests.train.operator_cases import assert_agree, call, dtype, floats, node, tensor

A, B, C, D = tensor("a"), tensor("b"), tensor("c"), tensor("d")
few = settings(max_examples=6, deadline=None)
sizes = st.integers(1, 6)


@few
@given(batch=st.lists(st.integers(1, 3), max_size=2).map(tuple), m=sizes, n=sizes, k=sizes)
def test_products_of_matrices(batch: tuple[int, ...], m: int, n: int, k: int) -> None:
    a, b = {"a": floats(*batch, m, k)}, {"b": floats(*batch, k, n, seed=1)}
    assert_agree([call("y", "linear.default", A, B, C)], a | {"b": floats(n, k, seed=1), "c": floats(n, seed=2)}, ulps=128)
    assert_agree([call("y", "linear.default", A, B)], a | {"b": floats(n, k, seed=1)}, ulps=128)
    assert_agree([call("y", "matmul.default", A, B)], a | b, ulps=128)
    assert_agree([call("y", "matmul.default", A, B)], a | {"b": floats(k, n, seed=1)}, ulps=128)
    assert_agree([call("y", "matmul.default", A, B)], a | {"b": floats(k, seed=1)}, ulps=128)
    assert_agree([call("y", "matmul.default", A, B)], {"a": floats(k)} | b, ulps=128)
    assert_agree([call("y", "matmul.default", A, B)], {"a": floats(2, 1, m, k), "b": floats(3, k, n)}, ulps=128)


def test_products_by_their_other_names() -> None:
    a, b, c = floats(3, 4), floats(4, 5, seed=1), floats(5, seed=2)
    assert_agree([call("y", "mm.default", A, B)], {"a": a, "b": b})
    assert_agree([call("y", "mv.default", B, C)], {"b": b, "c": c})
    assert_agree([call("y", "outer.default", C, C)], {"c": c})
    assert_agree([call("y", "addmm.default", C, A, B, beta=0.5, alpha=2)], {"a": a, "b": b, "c": c}, ulps=64)
    assert_agree([call("y", "bmm.default", A, B)], {"a": floats(2, 3, 4), "b": floats(2, 4, 5)}, ulps=64)
    for equation in ("bij,bkj->bik", "bij,bjk->kbi", "bij,bik->bjk"):
        letters = {"b": 2, "i": 3, "j": 4, "k": 5}
        left, right = equation.split("->")[0].split(",")
        arrays = {"a": floats(*(letters[x] for x in left)), "b": floats(*(letters[x] for x in right), seed=1)}
        assert_agree([call("y", "einsum.default", equation, (A, B))], arrays, ulps=64)


@pytest.mark.parametrize("causal", [True, False])
@few
@given(batch=st.integers(1, 2), heads=st.integers(1, 3), length=sizes, width=sizes)
def test_attention(causal: bool, batch: int, heads: int, length: int, width: int) -> None:
    arrays = {name: floats(batch, heads, length, width, seed=seed) for seed, name in enumerate("abc")}
    assert_agree([call("y", "scaled_dot_product_attention.default", A, B, C, None, 0.0, causal)], arrays, ulps=128)


def test_attention_with_a_mask() -> None:
    arrays: dict[str, Array] = {name: floats(2, 3, 4, 5, seed=seed) for seed, name in enumerate("abc")}
    nodes = [call("y", "scaled_dot_product_attention.default", A, B, C, D, scale=0.3)]
    assert_agree(nodes, arrays | {"d": np.tri(4, dtype=np.bool_)}, ulps=128)
    assert_agree(nodes, arrays | {"d": floats(4, 4, seed=5)}, ulps=128)


@st.composite
def convolution(draw: st.DrawFn) -> tuple[list[Value], dict[str, Array]]:
    groups = draw(st.sampled_from([1, 1, 2]))
    n, c, o = draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3))
    (h, w), (kh, kw) = (draw(st.integers(5, 9)) for _ in "hw"), (draw(st.integers(1, 3)) for _ in "hw")
    more = [(draw(st.integers(1, 2)), draw(st.integers(1, 2))), (draw(st.integers(0, 2)), draw(st.integers(0, 2)))]
    more.append((draw(st.integers(1, 2)), draw(st.integers(1, 2))))
    arrays = {"a": floats(n, c, h, w), "b": floats(o, c // groups, kh, kw, seed=1), "c": floats(o, seed=2)}
    return [*more, groups], arrays


@settings(max_examples=15, deadline=None)
@given(drawn=convolution())
def test_convolutions(drawn: tuple[list[Value], dict[str, Array]]) -> None:
    more, arrays = drawn
    assert_agree([call("y", "conv2d.default", A, B, C, *more)], arrays, ulps=256)


def test_convolutions_by_their_other_names() -> None:
    one = {"a": floats(2, 3, 9), "b": floats(4, 3, 3, seed=1), "c": floats(4, seed=2)}
    assert_agree([call("y", "conv1d.default", A, B, C, (2,), (1,), (2,))], one, ulps=128)
    assert_agree([call("y", "conv1d.padding", A, B, None, (1,), "same")], {"a": one["a"], "b": one["b"]}, ulps=128)
    two = {"a": floats(2, 3, 6, 5), "b": floats(4, 3, 3, 5, seed=1)}
    for padding in ("same", "valid"):
        assert_agree([call("y", "conv2d.padding", A, B, None, (1, 1), padding)], two, ulps=128)


@st.composite
def pool(draw: st.DrawFn) -> tuple[list[Value], Array]:
    window = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride = draw(st.sampled_from([(), (1, 1), (2, 3), (3, 2)]))
    padding = (draw(st.integers(0, window[0] // 2)), draw(st.integers(0, window[1] // 2)))
    return [window, stride, padding], floats(draw(st.integers(1, 2)), 3, draw(st.integers(4, 8)), draw(st.integers(4, 8)))


@settings(max_examples=10, deadline=None)
@given(drawn=pool(), ceil=st.booleans(), count=st.booleans())
def test_pools(drawn: tuple[list[Value], Array], ceil: bool, count: bool) -> None:
    more, a = drawn
    assert_agree([call("y", "max_pool2d.default", A, *more, (1, 1), ceil)], {"a": a}, ulps=64)
    assert_agree([call("y", "avg_pool2d.default", A, *more, ceil, count)], {"a": a}, ulps=64)


def test_pools_by_their_other_names() -> None:
    assert_agree([call("y", "max_pool1d.default", A, (2,))], {"a": floats(2, 3, 9)})
    assert_agree([call("y", "avg_pool1d.default", A, (3,), (2,))], {"a": floats(2, 3, 9)})
    assert_agree([call("y", "adaptive_avg_pool2d.default", A, (1, 1))], {"a": floats(2, 3, 6, 4)})
    assert_agree([call("y", "adaptive_avg_pool2d.default", A, (3, 4))], {"a": floats(2, 3, 6, 4)})
    assert_agree([call("y", "adaptive_avg_pool1d.default", A, (2,))], {"a": floats(2, 3, 6)})
    both = [call("both", "adaptive_max_pool2d.default", A, (3, 2)), call("y", "getitem", node("both"), 0)]
    assert_agree(both, {"a": floats(2, 3, 6, 4)})


@few
@given(n=st.integers(2, 4), c=st.integers(1, 4), inner=st.sampled_from([(), (3,), (2, 5)]))
def test_normalisation(n: int, c: int, inner: tuple[int, ...]) -> None:
    arrays = {"a": floats(n, c, *inner), "b": floats(c, seed=1, low=0.5), "c": floats(c, seed=2)}
    batch = call("y", "batch_norm.default", A, B, C, None, None, True, 0.1, 1e-5, False)
    assert_agree([batch], arrays, ulps=1024)
    assert_agree([call("y", "batch_norm.default", A, None, None, None, None, True, 0.1, 1e-5, False)], {"a": arrays["a"]}, ulps=1024)
    if c % 2 == 0 and inner:
        assert_agree([call("y", "group_norm.default", A, 2, B, C, 1e-5, False)], arrays, ulps=1024)
        assert_agree([call("y", "group_norm.default", A, 2)], {"a": arrays["a"]}, ulps=1024)
    last = {"a": floats(n, 3, 7), "b": floats(7, seed=1, low=0.5), "c": floats(7, seed=2)}
    assert_agree([call("y", "layer_norm.default", A, (7,), B, C, 1e-5, False)], last, ulps=1024)
    assert_agree([call("y", "layer_norm.default", A, (3, 7))], {"a": last["a"]}, ulps=1024)
    assert_agree([call("y", "rms_norm.default", A, (7,), B, 1e-6)], {"a": last["a"], "b": last["b"]}, ulps=256)
    assert_agree([call("y", "instance_norm.default", A, None, None, None, None, True, 0.1, 1e-5, False)], {"a": last["a"]}, ulps=1024)


LABELS = np.array([2, 0, 1, 2, 1, 0])


@pytest.mark.parametrize("reduction", [0, 1, 2])
def test_cross_entropy(reduction: int) -> None:
    arrays: dict[str, Array] = {"a": floats(6, 3, low=-4, high=4), "t": LABELS, "u": np.array([2, -100, 1, 2, -100, 0])}
    for target in ("t", "u"):
        for smoothing in (0.0, 0.2):
            more: list[Value] = [None, reduction, -100, smoothing]
            assert_agree([call("y", "cross_entropy_loss.default", A, tensor(target), *more)], arrays, ulps=64)
        log = call("log", "log_softmax.int", A, 1)
        assert_agree([log, call("y", "nll_loss_nd.default", node("log"), tensor(target), None, reduction)], arrays, ulps=64)
    share = np.abs(floats(6, 3, seed=3))
    assert_agree([call("y", "cross_entropy_loss.default", A, B, None, reduction)], {"a": arrays["a"], "b": share}, ulps=64)
    image = {"a": floats(2, 3, 2, 2), "t": LABELS[:4].repeat(2).reshape(2, 2, 2)}
    assert_agree([call("y", "cross_entropy_loss.default", A, tensor("t"), None, reduction)], image, ulps=64)


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize("operator", ["mse_loss", "l1_loss", "huber_loss", "smooth_l1_loss", "binary_cross_entropy_with_logits"])
def test_losses(operator: str, reduction: int) -> None:
    arrays: dict[str, Array] = {
        "a": floats(4, 5),
        "t": np.linspace(0.05, 0.95, 20, dtype=np.float32).reshape(4, 5).astype(np.float64) > 0.5,
    }
    arrays["t"] = arrays["t"].astype(np.int64)
    target = [call("target", "to.dtype", tensor("t"), dtype("float32"))]
    more: list[Value] = [None, None, reduction] if operator.startswith("binary") else [reduction]
    more += [0.7] if operator in ("huber_loss", "smooth_l1_loss") else []
    assert_agree([*target, call("y", f"{operator}.default", A, node("target"), *more)], arrays, ulps=64)


def test_losses_of_probabilities() -> None:
    arrays = {"a": floats(4, 5, low=0.05, high=0.95), "b": floats(4, 5, seed=1, low=0.05, high=0.95)}
    assert_agree([call("y", "binary_cross_entropy.default", A, B)], arrays, ulps=64)
    assert_agree([call("y", "kl_div.default", A, B, 2, log_target=True)], arrays, ulps=64)
    weights = [call("w", "to.dtype", tensor("t"), dtype("float32"))]
    weighted = call("y", "binary_cross_entropy_with_logits.default", A, B, None, node("w"))
    assert_agree([*weights, weighted], {"a": arrays["a"], "b": arrays["b"], "t": np.arange(1, 6)}, ulps=64)


@few
@given(rows=st.integers(1, 6), width=sizes, axis=st.integers(0, 2), data=st.data())
def test_rows_by_index(rows: int, width: int, axis: int, data: st.DataObject) -> None:
    picks = np.array(data.draw(st.lists(st.integers(0, rows - 1), min_size=1, max_size=8)))
    i = tensor("i")
    assert_agree([call("y", "embedding.default", A, i, 0)], {"a": floats(rows, width), "i": picks.reshape(1, -1)})
    shape = [2, 3, 4]
    shape[axis] = rows
    assert_agree([call("y", "index_select.default", A, axis, i)], {"a": floats(*shape), "i": picks})
    assert_agree([call("y", "index.Tensor", A, (*[None] * axis, i))], {"a": floats(*shape), "i": np.stack([picks, picks])})
    source = list(shape)
    source[axis] = len(picks)
    arrays = {"a": floats(*shape), "b": floats(*source, seed=1), "i": picks}
    assert_agree([call("y", "index_add.default", A, axis, i, B, alpha=2)], arrays)
    chosen = np.random.default_rng(1).integers(0, rows, source)
    assert_agree([call("y", "gather.default", A, axis, tensor("j"))], {"a": floats(*shape), "j": chosen})
    assert_agree([call("y", "scatter_add.default", A, axis, tensor("j"), B)], arrays | {"j": chosen})


def test_whole_numbers() -> None:
    a = {"a": floats(3, 4), "i": np.array([[0], [2], [1]])}
    i, f = tensor("i"), dtype("float32")
    hot = [call("hot", "one_hot.default", i, 4), call("flat", "squeeze.dim", node("hot"), 1), call("w", "to.dtype", node("flat"), f)]
    assert_agree([*hot, call("y", "mul.Tensor", A, node("w"))], a)
    count = [
        call("n", "arange.start_step", 1, 9, 2),
        call("more", "add.Tensor", node("n"), 3),
        call("twice", "mul.Tensor", node("more"), 2),
    ]
    assert_agree([*count, call("y", "mul.Tensor", A, node("twice"))], a)
    both = [call("n", "arange.default", 4), call("sum", "add.Tensor", i, node("n")), call("holds", "lt.Scalar", node("sum"), 3)]
    assert_agree([*both, call("y", "where.ScalarOther", node("holds"), A, 0)], a)
    made = [call("m", "full.default", (3, 1), 2.5), call("o", "ones_like.default", A), call("z", "new_zeros.default", A, (4,))]
    sums = [call("s", "add.Tensor", node("m"), node("o")), call("u", "add.Tensor", node("s"), node("z"))]
    assert_agree([*made, *sums, call("y", "mul.Tensor", A, node("u"))], a)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
@pytest.mark.parametrize(("layers", "both_ways", "batch_first"), [(1, False, True), (2, False, False), (1, True, False), (2, True, True)])
def test_recurrent_layers(kind: str, layers: int, both_ways: bool, batch_first: bool) -> None:
    times, n, inputs, width, ways = 4, 3, 5, 6, 1 + both_ways
    gates = {"gru": 3, "lstm": 4}[kind] * width
    arrays = {"a": floats(*((n, times) if batch_first else (times, n)), inputs), "h": floats(layers * ways, n, width, seed=1)}
    arrays["k"] = floats(layers * ways, n, width, seed=2)
    params: list[Value] = []
    for depth in range(layers):
        for way in range(ways):
            shapes = [(gates, inputs if depth == 0 else width * ways), (gates, width), (gates,), (gates,)]
            for index, shape in enumerate(shapes):
                name = f"w{depth}{way}{index}"
                arrays[name] = floats(*shape, seed=len(params) + 5) / 4
                params.append(tensor(name))
    starts: Value = tensor("h") if kind == "gru" else (tensor("h"), tensor("k"))
    layer = call("all", f"{kind}.input", A, starts, tuple(params), True, layers, 0.0, True, both_ways, batch_first)
    parts = [call(name, "getitem", node("all"), index) for index, name in enumerate(["out", "end", "cell"][: 2 + (kind == "lstm")])]
    flat = [call(f"{part.name}_f", "flatten.using_ints", node(part.name)) for part in parts]
    joined = call("y", "cat.default", tuple(node(part.name) for part in flat))
    assert_agree([layer, *parts, *flat, joined], arrays, ulps=256)
    assert_agree([layer, parts[1], call("y", "mul.Tensor", node("end"), 2.0)], arrays, ulps=256)
