"""Codecs: what comes back of what was sent, and what is not taken for an update."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput
from gridsched.core.method import Codec
from gridsched.train.codec import BLOCK, EncodedUpdate, UpdateWriter, decode, encode, encode_update
from gridsched.train.tensors import tensors_from_bytes, tensors_to_bytes
from tests.train.builders import unit_spec
from tests.train.test_merge import LARGE, bits, delta

TOP = {Codec.INT8: 127, Codec.INT4: 7}


@pytest.mark.parametrize("codec", Codec)
def test_an_update_comes_back_with_names_shapes_and_dtypes(codec: Codec) -> None:
    back = decode(encode(delta(1), codec))
    assert {name: (array.dtype, array.shape) for name, array in back.items()} == {
        name: (array.dtype, array.shape) for name, array in delta(1).items()
    }
    assert back["tracked"] == delta(1)["tracked"]


def test_raw_is_exact() -> None:
    assert bits(decode(encode(delta(1), Codec.RAW))) == bits(delta(1))


@given(st.integers(1, 3 * BLOCK + 5), st.floats(1e-3, 1e3), st.integers(0, 9), st.sampled_from([Codec.INT8, Codec.INT4]))
def test_blocks_of_integers_are_within_half_a_level(size: int, scale: float, seed: int, codec: Codec) -> None:
    values = (np.random.default_rng(seed).normal(size=size) * scale).astype(np.float32)
    nearest, random = (decode(encode({"w": values}, codec, seed=draw))["w"] for draw in (None, seed))
    for start in range(0, size, BLOCK):
        block = values[start : start + BLOCK]
        level = np.abs(block).max() / TOP[codec]
        assert np.abs(nearest[start : start + BLOCK] - block).max() <= level * 0.501
        assert np.abs(random[start : start + BLOCK] - block).max() <= level * 1.001


@given(st.integers(0, 9))
def test_half_is_within_its_precision(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=300).astype(np.float32)
    np.testing.assert_allclose(decode(encode({"w": values}, Codec.HALF))["w"], values, rtol=2**-11, atol=1e-7)


def test_half_saturates_large_values_so_that_one_does_not_cost_the_update() -> None:
    assert decode(encode({"w": np.array([1e6, -1e6], np.float32)}, Codec.HALF))["w"].tolist() == [65504.0, -65504.0]


@pytest.mark.parametrize(("codec", "share"), [(Codec.INT8, 0.255), (Codec.INT4, 0.13)])
def test_blocks_of_integers_travel_in_their_share_of_the_bytes(codec: Codec, share: float) -> None:
    sent = {"w": np.random.default_rng(0).normal(size=100_000).astype(np.float32)}
    assert len(encode(sent, codec)) < share * len(encode(sent, Codec.RAW))


@pytest.mark.parametrize("codec", [Codec.INT8, Codec.INT4])
def test_rounded_at_random_the_mean_of_many_is_exact(codec: Codec) -> None:
    values = {"w": np.random.default_rng(0).normal(size=600).astype(np.float32)}
    mean = np.mean([decode(encode(values, codec, seed=seed))["w"] for seed in range(400)], axis=0)
    level = np.abs(values["w"]).max() / TOP[codec]
    assert np.abs(mean - values["w"]).max() < 4 * level / 2 / 400**0.5
    assert np.abs(decode(encode(values, codec))["w"] - values["w"]).max() > 4 * level / 2 / 400**0.5


@pytest.mark.parametrize("codec", [Codec.INT8, Codec.INT4])
def test_random_rounding_follows_from_the_seed_alone(codec: Codec) -> None:
    sent = {name: delta(1)[name] for name in ("big", "wide")}
    assert encode(sent, codec, seed=7) == encode(dict(reversed(sent.items())), codec, seed=7)
    assert len({encode(sent, codec, seed=seed) for seed in (7, 8)} | {encode(sent, codec)}) == 3


def test_two_tensors_of_equal_values_are_rounded_by_draws_of_their_own() -> None:
    values = np.random.default_rng(0).normal(size=300).astype(np.float32)
    back = decode(encode({"a": values, "b": values}, Codec.INT4, seed=1))
    assert not np.array_equal(back["a"], back["b"])


@pytest.mark.parametrize(
    ("change", "same"), [({}, True), ({"seed": 8}, False), ({"epoch": 1}, False), ({"start": 8}, False), ({"first": 8}, False)]
)
def test_a_unit_rounds_by_draws_of_its_own_whoever_runs_it(change: dict[str, int], same: bool) -> None:
    sent = {"w": np.random.default_rng(0).normal(size=600).astype(np.float32)}
    own: dict[str, Any] = {"codec": Codec.INT4, "seed": 7, "epoch": 0, "start": 0}
    spec, again = unit_spec(**own), unit_spec(**own | {"unit_id": "another"} | change)
    assert (encode_update(sent, spec, buffers=()) == encode_update(sent, again, buffers=())) is same


def test_eight_bits_are_rounded_to_nearest() -> None:
    sent = {"w": np.random.default_rng(0).normal(size=600).astype(np.float32)}
    assert encode_update(sent, unit_spec(codec=Codec.INT8), buffers=()) == encode(sent, Codec.INT8)


@pytest.mark.parametrize("codec", Codec)
def test_an_update_written_piece_by_piece_is_the_one_encoded_at_once(codec: Codec) -> None:
    whole = encode(delta(2), codec, seed=3)
    names = {name: (array.dtype.name, array.shape) for name, array in delta(2).items()}
    writer = UpdateWriter(names, codec, exact={"tracked"}, seed=3)
    for name, array in delta(2).items():
        for start in range(0, array.size, 3 * BLOCK):
            writer.write(name, start, array.reshape(-1)[start : start + 3 * BLOCK])
    assert writer.data == whole


@pytest.mark.parametrize("codec", Codec)
def test_ranges_read_one_by_one_are_the_whole(codec: Codec) -> None:
    update = EncodedUpdate(encode(delta(2), codec))
    whole = np.empty(LARGE, np.float32)
    for start in range(0, LARGE, BLOCK):
        stop = min(start + BLOCK, LARGE)
        update.read_into("big", start, stop, whole[start:stop])
    assert whole.tobytes() == decode(encode(delta(2), codec))["big"].tobytes()


@pytest.mark.parametrize("codec", Codec)
def test_values_are_read_times_a_weight(codec: Codec) -> None:
    update = EncodedUpdate(encode(delta(2), codec))
    plain, weighed = np.empty((2, LARGE), np.float32)
    update.read_into("big", 0, LARGE, plain)
    update.read_into("big", 0, LARGE, weighed, 0.3)
    np.testing.assert_allclose(weighed, 0.3 * plain, rtol=1e-6)


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
        ({"gridsched.codec": "raw", "gridsched.dtypes": '{"w": "float32"}'}, "float dtype"),
        ({"gridsched.codec": "int4", "gridsched.dtypes": "{}"}, "shapes"),
        ({"gridsched.codec": "raw", "gridsched.dtypes": "{}", "gridsched.shapes": "{}"}, "shapes"),
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


@pytest.mark.parametrize(
    ("shapes", "reason"),
    [
        ("{}", "do not belong"),
        ("[]", "do not belong"),
        ('{"w": [600], "v": [2]}', "do not belong"),
        ('{"w": "600"}', "impossible shape"),
        ('{"w": [-600]}', "impossible shape"),
        ('{"w": [600.0]}', "impossible shape"),
        ('{"w": [602]}', "does not fit"),
        ('{"w": [6000000000]}', "does not fit"),
    ],
)
def test_packed_values_must_fit_the_shape_they_claim(shapes: str, reason: str) -> None:
    tensors, metadata = tensors_from_bytes(encode({"w": np.ones(600, np.float32)}, Codec.INT4))
    with pytest.raises(InvalidInput, match=reason):
        EncodedUpdate(tensors_to_bytes(tensors, metadata | {"gridsched.shapes": shapes}))


@pytest.mark.parametrize("size", [1, 2, 255, 257])
def test_an_odd_number_of_half_bytes_comes_back(size: int) -> None:
    values = np.linspace(-7, 7, size).round().astype(np.float32)
    values[0] = 7
    assert decode(encode({"w": values}, Codec.INT4))["w"].tolist() == values.tolist()
