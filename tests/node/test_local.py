"""The owner's own datasets on a node: kept, found by digest, and gone when they are removed."""

from pathlib import Path

import numpy as np
import pytest

from gridsched.core.errors import Conflict, InvalidInput, NotFound, StorageFull
from gridsched.node.files import write_durable
from gridsched.node.local import LocalStore
from gridsched.train.dataset import Dataset, DatasetManifest
from gridsched.train.tensors import Array

FIELDS: dict[str, Array] = {"x": np.arange(12, dtype=np.float32).reshape(6, 2), "y": np.arange(6, dtype=np.int64)}


def test_what_is_added_can_be_trained_on(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "local")
    made = store.add("steps", FIELDS)
    assert store.all() == {"steps": made}
    assert made.samples == 6
    manifest = store.path(made.digest)
    assert manifest is not None
    dataset = Dataset(DatasetManifest.from_bytes(manifest.read_bytes()), lambda digest: store.path(digest) or Path())
    assert dataset.batch(np.array([4, 0]))["y"].tolist() == [4, 0]


def test_adding_the_same_again_changes_nothing_and_other_data_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    first = store.add("steps", FIELDS)
    assert store.add("steps", FIELDS) == first
    with pytest.raises(Conflict, match="gridsched node data remove steps"):
        store.add("steps", {"x": FIELDS["x"] + 1, "y": FIELDS["y"]})
    assert store.all() == {"steps": first}


def test_removed_data_is_off_the_disk(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    made = store.add("steps", FIELDS)
    before = store.stamp()
    store.remove("steps")
    assert (store.all(), store.path(made.digest), list(tmp_path.iterdir())) == ({}, None, [])
    assert store.stamp() != before
    with pytest.raises(NotFound, match="data list"):
        store.remove("steps")
    with pytest.raises(NotFound):
        store.remove("../steps")


def test_a_disk_that_fills_up_leaves_no_half_dataset(tmp_path: Path) -> None:
    full = [False]

    def write(path: Path, data: bytes) -> None:
        if full[0] or path.name == "dataset.json":
            raise StorageFull(f"no room to write {path}")
        write_durable(path, data)

    store = LocalStore(tmp_path, write=write)
    with pytest.raises(StorageFull):
        store.add("steps", FIELDS)
    assert (store.all(), store.stamp()) == ({}, ())
    assert LocalStore(tmp_path).add("steps", FIELDS).samples == 6


@pytest.mark.parametrize("name", ["", "Steps", "../x", "a b"])
def test_a_name_that_is_no_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidInput, match="dataset name"):
        LocalStore(tmp_path).add(name, FIELDS)


def test_a_damaged_card_is_named(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.add("steps", FIELDS)
    (tmp_path / "steps" / "dataset.json").write_text("{")
    with pytest.raises(InvalidInput, match="damaged"):
        store.all()
