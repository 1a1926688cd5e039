"""Merging: one result whatever the order of arrival, and what may not be merged."""

import tracemalloc
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput, UpdateRefused
from gridsched.core.method import Codec, MergeRule, Method, OuterOptimizer
from gridsched.core.work import Refusal
from gridsched.train import merge
from gridsched.train.codec import BLOCK, encode
from gridsched.train.merge import Merged, check_update, merge_version, tensor_spec
from gridsched.train.tensors import Array, Source, open_tensors, tensors_to_bytes, version_digest
from gridsched.train.version import Version, advanced, read_version

FEDAVG = Method()
DILOCO = Method(outer=OuterOptimizer(name="nesterov", lr=0.7, momentum=0.9))
FEDAVGM = Method(outer=OuterOptimizer(momentum=0.9, lr=0.5))
FEDADAM = Method(outer=OuterOptimizer(name="adam", lr=0.1, beta1=0.9, beta2=0.99, eps=1e-3))
OUTERS = {"fedavg": FEDAVG, "diloco": DILOCO, "fedavgm": FEDAVGM, "fedadam": FEDADAM}
# More than one piece of the streaming merge, and not a whole number of blocks.
LARGE = 128 * BLOCK + 77


def model(seed: int = 0) -> dict[str, Array]:
    draw = np.random.default_rng(seed)
    return {
        "big": draw.normal(size=LARGE).astype(np.float32),
        "wide": draw.normal(size=(3, 5)),
        "running_var": draw.random(4).astype(np.float32),
        "tracked": np.array(10 + seed, np.int64),
        "mask": np.array([True, False]),
    }


def delta(seed: int) -> dict[str, Array]:
    draw = np.random.default_rng(1000 + seed)
    return {
        "big": draw.normal(size=LARGE).astype(np.float32) * 1e-2,
        "wide": draw.normal(size=(3, 5)),
        "running_var": draw.random(4).astype(np.float32),
        "tracked": np.array(seed + 1, np.int64),
    }


def updates(count: int, codec: Codec = Codec.RAW) -> list[tuple[str, float, bytes]]:
    return [(f"u{index:03}", float(10 + 3 * index), encode(delta(index), codec)) for index in range(count)]


def mean_delta(name: str, count: int) -> Array:
    """The plain formula, in float64."""
    weights = np.array([10.0 + 3 * index for index in range(count)])
    stacked = np.stack([delta(index)[name].astype(np.float64) for index in range(count)])
    mean: Array = np.tensordot(weights / weights.sum(), stacked, axes=1)
    return mean


def bits(tensors: Mapping[str, Array]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in tensors.items()}


def version(tensors: Mapping[str, Array] | None = None) -> bytes:
    return Version(tensors=tensors or model(), buffers=frozenset({"running_var"})).to_bytes()


def merged(method: Method, count: int = 3, base: Source | None = None, outer: Source | None = None) -> Merged:
    return merge_version(version() if base is None else base, updates(count, method.codec), method, outer)


def test_federated_averaging_is_the_weighted_mean() -> None:
    made = merged(FEDAVG, 5)
    assert made.outer is made.step is None
    tensors = read_version(made.version).tensors
    for name in ("big", "wide", "running_var"):
        np.testing.assert_allclose(tensors[name], model()[name] + mean_delta(name, 5), rtol=1e-6, atol=1e-6)
    assert tensors["tracked"] == 10 + round(float(mean_delta("tracked", 5)))
    assert tensors["mask"].tolist() == [True, False]
    assert {name: array.dtype for name, array in tensors.items()} == {name: array.dtype for name, array in model().items()}


class PlainOuter:
    """The papers' formulas in float64."""

    def __init__(self, outer: OuterOptimizer) -> None:
        self.outer = outer
        self.first: Array = np.zeros(())
        self.second: Array = np.full((), outer.eps**2)

    def step(self, delta: Array) -> Array:
        outer, step = self.outer, delta
        if outer.name == "adam":
            self.first = outer.beta1 * self.first + (1 - outer.beta1) * delta
            self.second = outer.beta2 * self.second + (1 - outer.beta2) * delta**2
            step = self.first / (np.sqrt(self.second) + outer.eps)
        else:
            self.first = outer.momentum * self.first + delta
            step = delta + outer.momentum * self.first if outer.name == "nesterov" else self.first
        return step * outer.lr


@pytest.mark.parametrize("method", OUTERS.values(), ids=OUTERS)
def test_the_outer_step_is_the_papers_over_three_rounds(method: Method) -> None:
    expected = {name: (model()[name].astype(np.float64), PlainOuter(method.outer)) for name in ("big", "wide")}
    base: Source = version()
    outer: Source | None = None
    for _ in range(3):
        made = merged(method, base=base, outer=outer)
        base, outer = made.version, made.outer
        expected = {name: (value + plain.step(mean_delta(name, 3)), plain) for name, (value, plain) in expected.items()}
    for name, (value, _) in expected.items():
        np.testing.assert_allclose(read_version(base).tensors[name], value, rtol=1e-5, atol=1e-5)


def test_one_step_per_unit_and_outer_momentum_are_sgd_with_momentum_on_a_batch_as_large_as_all() -> None:
    """The preset ``sync``: units of one step of plain sgd, whose mean an outer momentum adds up."""
    torch = pytest.importorskip("torch")
    draw = np.random.default_rng(3)
    x, y = draw.normal(size=(12, 4, 8, 5)).astype(np.float32), draw.normal(size=(12, 4, 8, 1)).astype(np.float32)
    start = draw.normal(size=(5, 1)).astype(np.float32)

    def gradient(weights: Array, inputs: Array, targets: Array) -> Array:
        found: Array = (2 * inputs.T @ (inputs @ weights - targets) / len(inputs)).astype(np.float32)
        return found

    theirs = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = torch.optim.SGD([theirs], lr=0.05, momentum=0.9)
    method = Method(inner=replace(FEDAVG.inner, lr=0.05), outer=OuterOptimizer(momentum=0.9))
    base: Source = Version(tensors={"w": start}).to_bytes()
    outer: Source | None = None
    for step in range(12):
        theirs.grad = torch.from_numpy(gradient(theirs.detach().numpy(), x[step].reshape(-1, 5), y[step].reshape(-1, 1)))
        optimizer.step()
        ours = read_version(base).tensors["w"]
        moved = [np.float32(-0.05) * gradient(ours, x[step][unit], y[step][unit]) for unit in range(4)]
        made = merge_version(base, [(f"u{unit}", 8.0, encode({"w": w}, Codec.RAW)) for unit, w in enumerate(moved)], method, outer)
        base, outer = made.version, made.outer
    np.testing.assert_allclose(read_version(base).tensors["w"], theirs.detach().numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(theirs.detach().numpy() - start).max() > 0.3


@pytest.mark.parametrize("method", OUTERS.values(), ids=OUTERS)
def test_buffers_take_the_plain_mean_whatever_the_outer_step(method: Method) -> None:
    tensors = read_version(merged(method).version).tensors
    np.testing.assert_allclose(tensors["running_var"], model()["running_var"] + mean_delta("running_var", 3), rtol=1e-6)


def test_the_version_holds_tensors_alone_and_the_outer_state_is_a_file_of_its_own() -> None:
    plain, made = merged(FEDAVG), merged(DILOCO)
    assert len(made.version) == len(plain.version)
    assert made.outer is not None
    tensors, _ = open_tensors(made.outer)
    assert set(tensors) == {"momentum/big", "momentum/wide"}


def test_the_momentum_that_a_version_of_the_first_release_brought_along_is_taken_over() -> None:
    first = merged(DILOCO)
    assert first.outer is not None
    tensors, metadata = open_tensors(first.version)
    momentum, _ = open_tensors(first.outer)
    old = tensors_to_bytes(tensors | {f"outer/{name.removeprefix('momentum/')}": array for name, array in momentum.items()}, metadata)
    assert merged(DILOCO, base=old).version == merged(DILOCO, base=first.version, outer=first.outer).version


@pytest.mark.parametrize(("of", "used"), [(DILOCO, FEDADAM), (FEDAVGM, DILOCO)])
def test_the_state_of_another_optimizer_is_refused(of: Method, used: Method) -> None:
    with pytest.raises(InvalidInput, match="does not belong"):
        merged(used, outer=merged(of).outer)


def test_the_state_of_another_model_is_refused() -> None:
    other = merge_version(version({"big": model()["big"], "running_var": model()["running_var"]}), OTHER, DILOCO)
    with pytest.raises(InvalidInput, match="does not belong"):
        merged(DILOCO, outer=other.outer)


OTHER = [("u0", 1.0, encode({name: delta(0)[name] for name in ("big", "running_var")}, Codec.RAW))]
METHODS = [
    *OUTERS.values(),
    *(replace(FEDAVG, merge=rule) for rule in MergeRule),
    *(replace(DILOCO, codec=codec, down=codec) for codec in Codec),
]


@given(st.permutations(range(6)), st.sampled_from(METHODS))
def test_arrival_order_changes_no_bit(arrival: list[int], method: Method) -> None:
    sent = updates(6, method.codec)
    first, again = merge_version(version(), sent, method), merge_version(version(), [sent[index] for index in arrival], method)
    assert (first.version, first.outer, first.step) == (again.version, again.outer, again.step)


@given(st.lists(st.sampled_from(["big", "wide", "tracked", "mask"]), unique=True), st.sampled_from([FEDAVG, DILOCO, FEDADAM]))
def test_tensors_merge_apart_to_the_bits_they_have_together(names: list[str], method: Method) -> None:
    """What lets a merge be spread over processes, tensor by tensor."""
    whole = bits(read_version(merged(method).version).tensors)
    parts: dict[str, bytes] = {}
    for part in (names, [name for name in model() if name not in names]):
        base = Version(tensors={name: model()[name] for name in part}, buffers=frozenset({"running_var"} & set(part))) if part else None
        if base is not None:
            sent = [(f"u{i:03}", 10.0 + 3 * i, encode({n: delta(i)[n] for n in part if n != "mask"}, Codec.RAW)) for i in range(3)]
            parts |= bits(read_version(merge_version(base.to_bytes(), sent, method).version).tensors)
    assert parts == whole


def test_files_and_bytes_merge_to_the_same_version(tmp_path: Path) -> None:
    sent = updates(4)
    paths = []
    for unit_id, weight, data in [*sent, ("base", 0.0, version())]:
        (tmp_path / unit_id).write_bytes(data)
        paths.append((unit_id, weight, tmp_path / unit_id))
    assert merge_version(tmp_path / "base", paths[:-1], DILOCO).version == merge_version(version(), sent, DILOCO).version


def test_a_weight_may_be_any_share_of_a_sample() -> None:
    """Updates of older versions are weighed down, so weights are not whole numbers."""
    base = Version(tensors={"w": np.zeros(3, np.float32)}).to_bytes()
    sent = [(f"u{index}", weight, encode({"w": np.full(3, value, np.float32)}, Codec.RAW)) for index, (weight, value) in enumerate(STALE)]
    (values,) = read_version(merge_version(base, sent, FEDAVG).version).tensors.values()
    np.testing.assert_allclose(values, (10.0 * 1 + 10 * 2**-0.5 * 2 + 0.001 * 3) / (10 + 10 * 2**-0.5 + 0.001), rtol=1e-6)


STALE = [(10.0, 1.0), (10 * 2**-0.5, 2.0), (0.001, 3.0)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: f"{method.outer.name}-{method.merge}-{method.down}")
def test_a_journal_replayed_from_version_0_gives_every_digest_again(method: Method) -> None:
    def replay() -> list[str]:
        base: Source = version()
        outer: Source | None = None
        digests = []
        for count in (3, 4, 3):
            made = merged(method, count, base, outer)
            base, outer = made.version, made.outer
            digests += [version_digest(data) for data in (made.version, made.outer, made.step) if data is not None]
        return digests

    first = replay()
    assert len(set(first)) == len(first) >= 3
    assert replay() == first


# The step down.


@pytest.mark.parametrize("outer", OUTERS)
@pytest.mark.parametrize("down", [Codec.HALF, Codec.INT8, Codec.INT4])
def test_versions_are_remade_from_steps_bit_by_bit(outer: str, down: Codec) -> None:
    method = replace(OUTERS[outer], down=down)
    first = merged(method)
    second = merged(method, base=first.version, outer=first.outer)
    assert first.step is not None
    assert second.step is not None
    assert advanced(version(), [first.step]) == first.version
    assert advanced(first.version, [second.step]) == second.version
    assert advanced(version(), [first.step, second.step]) == second.version


def test_versions_of_half_precision_are_remade_too() -> None:
    base = Version(tensors={"w": np.linspace(-3, 3, 700).astype(np.float16), "n": np.array(3)}).to_bytes()
    sent = [("u", 1.0, encode({"w": np.full(700, 0.01, np.float16), "n": np.array(2)}, Codec.RAW))]
    first = merge_version(base, sent, replace(DILOCO, down=Codec.INT8))
    second = merge_version(first.version, sent, replace(DILOCO, down=Codec.INT8), first.outer)
    assert first.step is not None
    assert second.step is not None
    assert advanced(base, [first.step, second.step]) == second.version


@pytest.mark.parametrize(("down", "share"), [(Codec.HALF, 0.51), (Codec.INT8, 0.27), (Codec.INT4, 0.15)])
def test_a_step_is_a_fraction_of_the_version(down: Codec, share: float) -> None:
    made = merged(replace(FEDAVG, down=down))
    assert made.step is not None
    assert len(made.step) < share * len(made.version)


@pytest.mark.parametrize("down", [Codec.HALF, Codec.INT8, Codec.INT4])
def test_what_rounding_loses_on_the_way_down_comes_with_a_later_step(down: Codec) -> None:
    """Error feedback: after many rounds the version is within a step or two of the one that travelled whole."""
    exact: Source = version()
    rounded: Source = version()
    outer: Source | None = None
    for _ in range(12):
        exact = merged(FEDAVG, base=exact).version
        made = merged(replace(FEDAVG, down=down), base=rounded, outer=outer)
        rounded, outer = made.version, made.outer
    off = np.abs(read_version(exact).tensors["big"] - read_version(rounded).tensors["big"]).max()
    level = np.abs(mean_delta("big", 3)).max() / {Codec.HALF: 2**11, Codec.INT8: 127, Codec.INT4: 7}[down]
    assert 0 < off < 1.5 * level


@pytest.mark.parametrize("name", ["running_var", "tracked"])
def test_buffers_and_counters_travel_down_exactly(name: str) -> None:
    exact, rounded = merged(FEDAVG), merged(replace(FEDAVG, down=Codec.INT4))
    assert read_version(rounded.version).tensors[name].tobytes() == read_version(exact.version).tensors[name].tobytes()


def test_a_step_to_another_model_is_refused() -> None:
    made = merge_version(version({"big": model()["big"], "running_var": model()["running_var"]}), OTHER, replace(FEDAVG, down=Codec.INT8))
    assert made.step is not None
    with pytest.raises(InvalidInput, match="does not fit"):
        advanced(version(), [made.step])


@pytest.mark.parametrize("rule", [MergeRule.MEAN, MergeRule.NORM_BOUND, MergeRule.TRIMMED_MEAN])
@pytest.mark.parametrize("codec", [Codec.RAW, Codec.INT8, Codec.INT4])
def test_threads_change_no_bit(rule: MergeRule, codec: Codec, monkeypatch: pytest.MonkeyPatch) -> None:
    method = replace(FEDAVG, merge=rule, codec=codec, down=codec, outer=OuterOptimizer(name="nesterov", lr=0.7, momentum=0.9))
    made = {}
    for threads in (1, 2, 5):
        monkeypatch.setattr(merge, "_WORTH_THREADS", 0)
        monkeypatch.setattr(merge, "_CORES", threads)
        monkeypatch.setattr(merge, "piece_size", lambda *_, **__: BLOCK)  # many pieces, so that each thread has some
        once = merged(method, count=5)
        made[threads] = [bytes(part) for part in (once.version, once.outer, once.step) if part is not None]
    assert len(made[1]) == 2 + (codec is not Codec.RAW)
    assert made[1] == made[2] == made[5]


def test_an_error_in_a_thread_is_the_merges_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge, "_WORTH_THREADS", 0)
    monkeypatch.setattr(merge, "_CORES", 2)
    monkeypatch.setattr(merge, "piece_size", lambda *_, **__: BLOCK)

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(merge, "advance", broken)
    with pytest.raises(MemoryError, match="no room"):
        merged(FEDAVG)


# Bounds.


@pytest.mark.parametrize("rule", [MergeRule.MEAN, MergeRule.MEDIAN, MergeRule.KRUM])
@pytest.mark.parametrize("count", [4, 24])
def test_merging_takes_one_model_of_memory_and_a_little_however_many_updates(tmp_path: Path, rule: MergeRule, count: int) -> None:
    size = 1 << 20
    (tmp_path / "base").write_bytes(Version(tensors={"w": np.zeros(size, np.float32)}).to_bytes())
    sent = []
    for index in range(count):
        (tmp_path / str(index)).write_bytes(encode({"w": np.full(size, index, np.float32)}, Codec.RAW))
        sent.append((str(index), 1.0, tmp_path / str(index)))
    tracemalloc.start()
    merge_version(tmp_path / "base", sent, Method(merge=rule))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.2 * 4 * size


@pytest.mark.parametrize(("sent", "reason"), [([], "at least one"), (["u1", "u1"], "each unit once")])
def test_a_merge_of_nothing_or_of_a_unit_twice_is_refused(sent: list[str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        merge_version(version(), [(unit_id, 1.0, encode(delta(0), Codec.RAW)) for unit_id in sent], FEDAVG)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_positive_number_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="weight"):
        merge_version(version(), [("u1", weight, encode(delta(0), Codec.RAW))], FEDAVG)


# What may be merged.


def spec() -> dict[str, tuple[str, tuple[int, ...]]]:
    return tensor_spec(model())


@pytest.mark.parametrize("codec", Codec)
def test_an_honest_update_passes_with_its_norm(codec: Codec) -> None:
    sent = delta(0)
    expected = np.sqrt(sum(float(np.sum(sent[name].astype(np.float64) ** 2)) for name in ("big", "wide")))
    rounding = 0.05 if codec is Codec.INT4 else 0.01
    assert check_update(encode(sent, codec), spec(), buffers={"running_var"}) == pytest.approx(expected, rel=rounding)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_in_every_codec(codec: Codec, value: float) -> None:
    sent = delta(0)
    sent["big"][LARGE - 3] = value
    with pytest.raises(UpdateRefused, match="'big'") as caught:
        check_update(encode(sent, codec), spec())
    assert caught.value.reason == Refusal.NOT_FINITE


def test_a_buffer_must_be_finite_though_it_has_no_part_in_the_norm() -> None:
    sent = delta(0) | {"running_var": np.full(4, np.nan, np.float32)}
    with pytest.raises(UpdateRefused, match="running_var"):
        check_update(encode(sent, Codec.RAW), spec(), buffers={"running_var"})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"wide": np.zeros((5, 3))}, "'wide'"),
        ({"wide": np.zeros((3, 5), np.float32)}, "'wide'"),
        ({"extra": np.zeros(1)}, "unknown tensor 'extra'"),
    ],
)
def test_a_wrong_shape_dtype_or_name_is_refused(change: dict[str, Array], named: str) -> None:
    with pytest.raises(UpdateRefused, match=named) as caught:
        check_update(encode(delta(0) | change, Codec.RAW), spec())
    assert caught.value.reason == Refusal.WRONG_SHAPE


def test_a_missing_tensor_is_refused() -> None:
    sent = delta(0)
    del sent["wide"]
    with pytest.raises(UpdateRefused, match="lacks tensor 'wide'"):
        check_update(encode(sent, Codec.RAW), spec())


def test_an_update_over_the_norm_bound_is_refused() -> None:
    data = encode(delta(0), Codec.RAW)
    norm = check_update(data, spec())
    assert check_update(data, spec(), norm) == norm
    with pytest.raises(UpdateRefused) as caught:
        check_update(data, spec(), norm * 0.999)
    assert caught.value.reason == Refusal.NORM_BOUND


@given(st.data(), st.sampled_from(list(Codec)))
def test_an_update_cut_anywhere_is_unreadable(data: st.DataObject, codec: Codec) -> None:
    sent = encode({"w": np.ones(300, np.float32)}, codec)
    with pytest.raises(UpdateRefused) as caught:
        check_update(sent[: data.draw(st.integers(0, len(sent) - 1))], {"w": ("float32", (300,))})
    assert caught.value.reason == Refusal.UNREADABLE
