"""Downloads that were broken off at awkward places: each is brought to its end, or begun again, and none blocks the cache for ever."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from gridsched.core.errors import BlobCorrupt, TooLarge
from gridsched.node.cache import BlobCache
from gridsched.node.client import Client, error_from

DATA = bytes(range(256)) * 20
DIGEST = hashlib.sha256(DATA).hexdigest()


class Store:
    """A daemon of one blob, which refuses ranges that begin beyond its end as web servers do."""

    url = "http://daemon"

    def __init__(self) -> None:
        self.asked: list[int] = []

    @contextmanager
    def blob(self, digest: str, *, offset: int = 0) -> Iterator[tuple[int, Iterator[bytes]]]:
        self.asked.append(offset)
        if offset >= len(DATA):
            raise error_from(416, b"", what=f"GET {self.url}/v1/blobs/{digest}")
        yield offset, iter([DATA[offset:]])


@pytest.fixture
def store() -> Store:
    return Store()


def fetch(folder: Path, store: Store, *, part: bytes, limit_bytes: int = 10**9) -> bytes:
    cache = BlobCache(folder, limit_bytes=limit_bytes)
    (folder / f"{DIGEST}.part").write_bytes(part)
    return cache.fetch(DIGEST, cast("Client", store)).read_bytes()


@pytest.mark.parametrize("had", [0, 1, 2, len(DATA) - 1, len(DATA)])
def test_a_part_of_any_length_is_brought_to_its_end(tmp_path: Path, store: Store, had: int) -> None:
    assert fetch(tmp_path, store, part=DATA[:had]) == DATA
    assert store.asked == [max(had - 1, 0)], "next to nothing comes twice"
    assert [path.name for path in tmp_path.iterdir()] == [DIGEST]


def test_a_part_longer_than_the_blob_is_begun_again(tmp_path: Path, store: Store) -> None:
    assert fetch(tmp_path, store, part=b"<html>" + DATA) == DATA
    assert store.asked[1:] == [0]


def test_a_whole_part_of_other_bytes_is_thrown_away_and_begun_again(tmp_path: Path, store: Store) -> None:
    with pytest.raises(BlobCorrupt):
        fetch(tmp_path, store, part=bytes(len(DATA)))
    assert BlobCache(tmp_path, limit_bytes=10**9).fetch(DIGEST, cast("Client", store)).read_bytes() == DATA


def test_a_blob_larger_than_the_cache_leaves_nothing_behind(tmp_path: Path, store: Store) -> None:
    with pytest.raises(TooLarge, match="raise cache_size"):
        fetch(tmp_path, store, part=DATA[:10], limit_bytes=1000)
    assert list(tmp_path.iterdir()) == []
