"""Datasets: content-addressed, checked, and visited in one order."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridsched.core.errors import DatasetError
from gridsched.train import draws
from gridsched.train.dataset import Dataset, DatasetManifest, order, pass_order, stretch_order, write_dataset
from gridsched.train.tensors import Array, tensors_to_bytes, version_digest

FIELDS: dict[str, Array] = {"x": np.arange(60, dtype=np.float32).reshape(20, 3), "y": np.arange(20)}


def stored(folder: Path, fields: dict[str, Array] = FIELDS, *, shard_samples: int = 6) -> DatasetManifest:
    def put(data: bytes) -> str:
        (folder / version_digest(data)).write_bytes(data)
        return version_digest(data)

    return write_dataset(fields, name="numbers", shard_samples=shard_samples, put=put, attribution="nobody, CC0")


@given(st.lists(st.integers(0, 19), max_size=30), st.integers(1, 25))
def test_any_positions_come_back_in_the_order_asked(
    tmp_path_factory: pytest.TempPathFactory, wanted: list[int], shard_samples: int
) -> None:
    folder = tmp_path_factory.mktemp("shards")
    dataset = Dataset(stored(folder, shard_samples=shard_samples), lambda digest: folder / digest)
    batch = dataset.batch(np.array(wanted, np.int64))
    assert batch["y"].tolist() == wanted
    assert batch["x"].tobytes() == FIELDS["x"][wanted].tobytes()


def test_a_shard_is_asked_for_once_and_only_when_needed(tmp_path: Path) -> None:
    asked: list[str] = []
    manifest = stored(tmp_path)

    def get(digest: str) -> Path:
        asked.append(digest)
        return tmp_path / digest

    dataset = Dataset(manifest, get)
    dataset.batch(np.array([7, 8]))
    dataset.batch(np.array([6, 11]))
    assert asked == [manifest.shards[1].digest]


def test_a_manifest_survives_the_round_trip(tmp_path: Path) -> None:
    manifest = stored(tmp_path)
    assert DatasetManifest.from_bytes(manifest.to_bytes()) == manifest
    assert (manifest.samples, [shard.samples for shard in manifest.shards]) == (20, [6, 6, 6, 2])


def test_a_tampered_shard_is_refused_by_name(tmp_path: Path) -> None:
    manifest = stored(tmp_path)
    path = tmp_path / manifest.shards[2].digest
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    dataset = Dataset(manifest, lambda digest: tmp_path / digest)
    dataset.batch(np.array([0]))
    with pytest.raises(DatasetError, match=f"shard 2 .{manifest.shards[2].digest[:12]}.* does not match its digest"):
        dataset.batch(np.array([13]))


def test_a_shard_that_does_not_hold_what_the_manifest_says_is_refused(tmp_path: Path) -> None:
    data = tensors_to_bytes({"x": np.zeros((6, 4), np.float32), "y": np.zeros(6, np.int64)})
    about = json.loads(stored(tmp_path).to_bytes())
    about["shards"][0][0] = version_digest(data)
    dataset = Dataset(DatasetManifest.from_bytes(json.dumps(about).encode()), lambda _: data)
    with pytest.raises(DatasetError, match="fields its manifest says"):
        dataset.batch(np.array([0]))


@pytest.mark.parametrize("position", [-1, 20])
def test_a_position_outside_the_dataset_is_refused(tmp_path: Path, position: int) -> None:
    with pytest.raises(DatasetError, match="positions 0 to 19"):
        Dataset(stored(tmp_path), lambda digest: tmp_path / digest).batch(np.array([3, position]))


@pytest.mark.parametrize(
    "fields", [{}, {"x": np.zeros(0)}, {"x": np.zeros(3), "y": np.zeros(4)}, {"x": np.float64(1)}, {"x": np.array([1 + 1j])}]
)
def test_fields_that_make_no_dataset_are_refused(tmp_path: Path, fields: dict[str, Array]) -> None:
    with pytest.raises(ValueError, match=r"same number of samples|dtype complex128|all fields"):
        stored(tmp_path, fields)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"extra": 1},
        {"name": "../../etc"},
        {"fields": []},
        {"fields": [{"name": "x", "dtype": "object", "shape": []}]},
        {"fields": [{"name": "x", "dtype": "float32", "shape": [-1]}]},
        {"fields": 3},
        {"shards": []},
        {"shards": [["../../etc/passwd", 3]]},
        {"shards": [["0" * 64, 0]]},
        {"shards": [["0" * 64]]},
        {"shards": 1},
        {"attribution": 5},
    ],
)
def test_a_manifest_from_the_network_is_read_strictly(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(DatasetError):
        DatasetManifest.from_bytes(json.dumps(json.loads(stored(tmp_path).to_bytes()) | change).encode())


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_dataset_error(data: bytes) -> None:
    with pytest.raises(DatasetError):
        DatasetManifest.from_bytes(data)


def test_draws_are_those_of_the_published_splitmix64() -> None:
    # The first outputs for seed 1234567, as listed at https://rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert draws._splitmix64(1234567, 5).tolist() == expected


def test_the_order_is_pinned_for_ever() -> None:
    assert order(7, 1, 10).tolist() == [3, 7, 2, 1, 5, 4, 6, 8, 9, 0]
    assert pass_order(7, 1, 0, 1, 10).tolist() == [8, 6, 9, 0, 4, 7, 1, 3, 5, 2]


@given(st.integers(0, 2**63), st.integers(0, 100), st.integers(1, 500))
def test_an_epoch_visits_every_sample_once(seed: int, epoch: int, count: int) -> None:
    assert sorted(order(seed, epoch, count).tolist()) == list(range(count))


def test_orders_differ_by_seed_epoch_and_pass() -> None:
    orders = [order(0, 0, 50), order(1, 0, 50), order(0, 1, 50), pass_order(0, 0, 0, 1, 50), pass_order(0, 0, 0, 2, 50)]
    assert len({tuple(found.tolist()) for found in orders}) == 5
    assert pass_order(0, 0, 0, 0, 5).tolist() == [0, 1, 2, 3, 4]


def test_an_order_looks_drawn_at_random() -> None:
    count = 20_000
    found = order(3, 0, count)
    assert abs(np.corrcoef(found, np.arange(count))[0, 1]) < 0.03
    assert abs(np.corrcoef(found[1:], found[:-1])[0, 1]) < 0.03


def test_a_stretch_is_visited_whole_and_a_bag_draws_with_replacement() -> None:
    assert sorted(stretch_order(7, 0, first=30, of=12).tolist()) == list(range(30, 42))
    bags = [stretch_order(7, epoch, first=30, of=400, bag=bag) for epoch, bag in ((0, 0), (1, 0), (0, 1))]
    assert all(bag.min() >= 30 and bag.max() < 430 for bag in bags)
    assert 0.6 < len(set(bags[0].tolist())) / 400 < 0.66  # 1 - 1/e
    assert sorted(bags[0].tolist()) == sorted(bags[1].tolist()) != sorted(bags[2].tolist())
    assert bags[0].tolist() != bags[1].tolist()
