"""Merging: one result whatever the order of arrival, and what may not be merged."""

import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput, UpdateRefused
from gridsched.core.method import Codec, OuterOptimizer
from gridsched.core.work import Refusal
from gridsched.train.codec import BLOCK, EncodedUpdate, decode, encode
from gridsched.train.merge import check_update, merge, merge_version, tensor_spec
from gridsched.train.tensors import Array, tensors_from_bytes, tensors_to_bytes, version_digest
from gridsched.train.version import Version, read_version

FEDAVG = OuterOptimizer()
DILOCO = OuterOptimizer(name="nesterov", lr=0.7, momentum=0.9)
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


def test_federated_averaging_is_the_weighted_mean() -> None:
    merged, state = merge(model(), updates(5), FEDAVG, buffers={"running_var"})
    assert state == {}
    for name in ("big", "wide", "running_var"):
        np.testing.assert_allclose(merged[name], model()[name] + mean_delta(name, 5), rtol=1e-6, atol=1e-6)
    assert merged["tracked"] == 10 + round(float(mean_delta("tracked", 5)))
    assert merged["mask"].tolist() == [True, False]
    assert {name: array.dtype for name, array in merged.items()} == {name: array.dtype for name, array in model().items()}


def test_the_outer_step_of_diloco_is_nesterovs_over_two_rounds() -> None:
    base, held = model(), {name: np.zeros_like(array, np.float64) for name, array in model().items()}
    state: dict[str, Array] = {}
    expected = {name: base[name].astype(np.float64) for name in ("big", "wide")}
    for _ in range(2):
        base, state = merge(base, updates(3), DILOCO, state, buffers={"running_var"})
        for name, value in expected.items():
            step = mean_delta(name, 3)
            held[name] = 0.9 * held[name] + step
            expected[name] = value + 0.7 * (step + 0.9 * held[name])
    for name, value in expected.items():
        np.testing.assert_allclose(base[name], value, rtol=1e-5, atol=1e-5)
    assert set(state) == {"big", "wide"}


def test_buffers_take_the_plain_mean_whatever_the_outer_step() -> None:
    merged, _ = merge(model(), updates(3), DILOCO, buffers={"running_var"})
    np.testing.assert_allclose(merged["running_var"], model()["running_var"] + mean_delta("running_var", 3), rtol=1e-6)


@given(st.permutations(range(6)), st.sampled_from([FEDAVG, DILOCO]), st.sampled_from(list(Codec)))
def test_arrival_order_changes_no_bit(arrival: list[int], outer: OuterOptimizer, codec: Codec) -> None:
    sent = updates(6, codec)
    base = Version(tensors=model(), buffers=frozenset({"running_var"})).to_bytes()
    assert merge_version(base, [sent[index] for index in arrival], outer) == merge_version(base, sent, outer)


@given(st.lists(st.sampled_from(["big", "wide", "running_var", "tracked", "mask"]), unique=True))
def test_spreading_names_over_processes_changes_no_bit(names: list[str]) -> None:
    whole, whole_state = merge(model(), updates(3), DILOCO)
    rest = [name for name in model() if name not in names]
    parts = [merge(model(), updates(3), DILOCO, names=part) for part in (names, rest)]
    assert bits(parts[0][0] | parts[1][0]) == bits(whole)
    assert bits(parts[0][1] | parts[1][1]) == bits(whole_state)


def test_files_and_bytes_merge_to_the_same_version(tmp_path: Path) -> None:
    base = Version(tensors=model(), buffers=frozenset({"running_var"})).to_bytes()
    sent = updates(4)
    paths = []
    for unit_id, weight, data in [*sent, ("base", 0.0, base)]:
        (tmp_path / unit_id).write_bytes(data)
        paths.append((unit_id, weight, tmp_path / unit_id))
    assert merge_version(tmp_path / "base", paths[:-1], DILOCO) == merge_version(base, sent, DILOCO)


def test_a_journal_replayed_from_version_0_gives_every_digest_again() -> None:
    def replay() -> list[str]:
        version, digests = Version(tensors=model(), buffers=frozenset({"running_var"})).to_bytes(), []
        for count in (2, 4, 3):
            version = merge_version(version, updates(count), DILOCO)
            digests.append(version_digest(version))
        return digests

    first = replay()
    assert len(set(first)) == 3
    assert replay() == first


def test_merging_many_updates_takes_about_two_models_of_memory(tmp_path: Path) -> None:
    base = {"w": np.zeros(1 << 20, np.float32)}
    sent = []
    for index in range(12):
        (tmp_path / str(index)).write_bytes(encode({"w": np.full(1 << 20, index, np.float32)}, Codec.RAW))
        sent.append((str(index), 1.0, tmp_path / str(index)))
    tracemalloc.start()
    merge(base, sent, FEDAVG)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * base["w"].nbytes


@pytest.mark.parametrize(("sent", "reason"), [([], "at least one"), (["u1", "u1"], "each unit once")])
def test_a_merge_of_nothing_or_of_a_unit_twice_is_refused(sent: list[str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        merge(model(), [(unit_id, 1.0, encode(delta(0), Codec.RAW)) for unit_id in sent], FEDAVG)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("nan"), float("inf")])
def test_a_weight_that_is_no_positive_number_is_refused(weight: float) -> None:
    with pytest.raises(InvalidInput, match="weight"):
        merge(model(), [("u1", weight, encode(delta(0), Codec.RAW))], FEDAVG)


# What may be merged.


def spec() -> dict[str, tuple[str, tuple[int, ...]]]:
    return tensor_spec(model())


@pytest.mark.parametrize("codec", Codec)
def test_an_honest_update_passes_with_its_norm(codec: Codec) -> None:
    sent = delta(0)
    expected = np.sqrt(sum(float(np.sum(sent[name].astype(np.float64) ** 2)) for name in ("big", "wide")))
    assert check_update(encode(sent, codec), spec(), buffers={"running_var"}) == pytest.approx(expected, rel=0.01)


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


# Codecs.


@pytest.mark.parametrize("codec", Codec)
def test_an_update_comes_back_with_names_shapes_and_dtypes(codec: Codec) -> None:
    back = decode(encode(delta(1), codec))
    assert {name: (array.dtype, array.shape) for name, array in back.items()} == {
        name: (array.dtype, array.shape) for name, array in delta(1).items()
    }
    assert back["tracked"] == delta(1)["tracked"]


def test_raw_is_exact() -> None:
    assert bits(decode(encode(delta(1), Codec.RAW))) == bits(delta(1))


@given(st.integers(1, 3 * BLOCK + 5), st.floats(1e-3, 1e3), st.integers(0, 9))
def test_int8_is_within_half_a_level_of_its_block(size: int, scale: float, seed: int) -> None:
    values = (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)
    back = decode(encode({"w": values}, Codec.INT8))["w"]
    for start in range(0, size, BLOCK):
        block = values[start : start + BLOCK]
        assert np.abs(back[start : start + BLOCK] - block).max() <= np.abs(block).max() / 127 * 0.501


@given(st.integers(0, 9))
def test_half_is_within_its_precision(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=300).astype(np.float32)
    np.testing.assert_allclose(decode(encode({"w": values}, Codec.HALF))["w"], values, rtol=2**-11, atol=1e-7)


def test_half_saturates_large_values_so_that_one_does_not_cost_the_update() -> None:
    assert decode(encode({"w": np.array([1e6, -1e6], np.float32)}, Codec.HALF))["w"].tolist() == [65504.0, -65504.0]


def test_int8_travels_in_about_a_quarter_of_the_bytes() -> None:
    sent = {"w": np.random.default_rng(0).normal(size=100_000).astype(np.float32)}
    assert len(encode(sent, Codec.INT8)) < 0.26 * len(encode(sent, Codec.RAW))


@pytest.mark.parametrize("codec", [Codec.HALF, Codec.INT8])
def test_error_feedback_keeps_the_sum_of_many_updates_within_one_rounding(codec: Codec) -> None:
    draw = np.random.default_rng(0)
    total, arrived, residual = np.zeros(500), np.zeros(500), dict[str, Array]()
    for _ in range(30):
        values = draw.normal(size=500).astype(np.float32)
        total += values
        arrived += decode(encode({"w": values}, codec, residual))["w"]
    np.testing.assert_allclose(arrived + residual["w"], total, atol=1e-4)
    assert np.abs(arrived - total).max() < 0.05


@pytest.mark.parametrize("codec", Codec)
def test_ranges_read_one_by_one_are_the_whole(codec: Codec) -> None:
    update = EncodedUpdate(encode(delta(2), codec))
    pieces = [update.read("big", start, min(start + BLOCK, LARGE)) for start in range(0, LARGE, BLOCK)]
    assert np.concatenate(pieces).astype(np.float32).tobytes() == decode(encode(delta(2), codec))["big"].tobytes()


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, "its codec"),
        ({"gridsched.codec": "zip", "gridsched.dtypes": "{}"}, "its codec"),
        ({"gridsched.codec": "half", "gridsched.dtypes": "{"}, "JSON"),
        ({"gridsched.codec": "half", "gridsched.dtypes": '{"v": "float32"}'}, "does not hold"),
        ({"gridsched.codec": "half", "gridsched.dtypes": '{"w": "object"}'}, "float dtype"),
        ({"gridsched.codec": "half", "gridsched.dtypes": '{"w": "float32"}'}, "float dtype"),
        ({"gridsched.codec": "half", "gridsched.dtypes": '{"w": []}'}, "float dtype"),
        ({"gridsched.codec": "int8", "gridsched.dtypes": '{"w": "float32"}'}, "float dtype"),
    ],
)
def test_an_update_that_lies_about_its_codec_is_refused(metadata: dict[str, str], reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        EncodedUpdate(tensors_to_bytes({"w": np.zeros(3, np.float32)}, metadata))


def test_int8_without_its_scales_is_refused() -> None:
    tensors, metadata = tensors_from_bytes(encode({"w": np.ones(600, np.float32)}, Codec.INT8))
    with pytest.raises(InvalidInput, match="scales"):
        EncodedUpdate(tensors_to_bytes({"w": tensors["w"]}, metadata))
    with pytest.raises(InvalidInput, match="3 float32"):
        EncodedUpdate(tensors_to_bytes(tensors | {"w#scale": np.ones(2, np.float32)}, metadata))


# Versions.


def test_a_version_survives_the_round_trip() -> None:
    version = Version(tensors=model(), outer={"big": model()["big"]}, buffers=frozenset({"running_var"}))
    again = read_version(version.to_bytes())
    assert (bits(again.tensors), bits(again.outer), again.buffers) == (bits(version.tensors), bits(version.outer), version.buffers)
    assert again.to_bytes() == version.to_bytes()


def test_a_file_that_is_no_version_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not a model version"):
        read_version(encode(delta(0), Codec.RAW))
