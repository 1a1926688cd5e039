"""Versions made from the one a node holds and the steps since: a fraction of the bytes, the same file, and never a hang."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from gridsched.core.errors import GridschedError, Unreachable
from gridsched.core.method import Codec, Method
from gridsched.node.cache import BlobCache
from gridsched.node.client import Client
from gridsched.node.line import Line
from gridsched.node.supply import Supply
from gridsched.train.codec import encode
from gridsched.train.merge import merge_version
from gridsched.train.version import Version
from tests.node.fake_daemon import TOKEN, FakeDaemon, Fault

ROUNDS = 3


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    made = Client(daemon.url, TOKEN)
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path) -> BlobCache:
    return BlobCache(tmp_path / "cache", limit_bytes=10**9)


def history(daemon: FakeDaemon) -> tuple[list[str], list[tuple[str, str]]]:
    """The digests of a job's versions, and its steps; the daemon has all the files."""
    draw = np.random.default_rng(0)
    versions = [daemon.put(Version(tensors={"w": draw.normal(size=5000).astype(np.float32)}).to_bytes())]
    steps, outer = [], None
    for _ in range(ROUNDS):
        update = encode({"w": draw.normal(size=5000).astype(np.float32) * np.float32(1e-2)}, Codec.INT8)
        made = merge_version(daemon.blobs[versions[-1]], [("u", 1.0, update)], Method(down=Codec.INT8), outer)
        assert made.step is not None
        outer = made.outer
        steps.append((versions[-1], daemon.put(bytes(made.step))))
        versions.append(daemon.put(bytes(made.version)))
    return versions, steps


def asked(daemon: FakeDaemon) -> list[str]:
    return [path.removeprefix("/v1/blobs/") for method, path in daemon.calls if method == "GET"]


@pytest.mark.parametrize("behind", range(1, ROUNDS + 1))
def test_a_node_downloads_only_the_steps_since_the_version_it_holds(
    daemon: FakeDaemon, client: Client, cache: BlobCache, behind: int
) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[-1 - behind], client)
    daemon.calls.clear()
    path = cache.fetch(versions[-1], client, steps=steps)
    assert path.read_bytes() == daemon.blobs[versions[-1]]
    assert asked(daemon) == [step for _, step in steps[-behind:]]


def test_a_node_that_holds_none_of_the_versions_downloads_the_last_one_whole(daemon: FakeDaemon, client: Client, cache: BlobCache) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[-1], client, steps=steps)
    assert asked(daemon) == [versions[-1]]


def test_a_step_the_daemon_no_longer_has_costs_a_whole_download_and_no_more(daemon: FakeDaemon, client: Client, cache: BlobCache) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[0], client)
    del daemon.blobs[steps[1][1]]
    assert cache.fetch(versions[-1], client, steps=steps).read_bytes() == daemon.blobs[versions[-1]]


def test_steps_that_do_not_lead_to_the_version_cost_a_whole_download_and_no_more(
    daemon: FakeDaemon, client: Client, cache: BlobCache
) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[0], client)
    swapped = [steps[0], (steps[1][0], steps[2][1])]
    assert cache.fetch(versions[2], client, steps=swapped).read_bytes() == daemon.blobs[versions[2]]


@pytest.mark.parametrize("damage", ["version", "step"])
def test_a_file_that_is_none_costs_a_whole_download_and_no_more(daemon: FakeDaemon, client: Client, cache: BlobCache, damage: str) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[-2], client)
    if damage == "version":
        cache.path(versions[-2]).write_bytes(b"not a version")
    else:
        steps[-1] = (steps[-1][0], daemon.put(b"not a step"))
    assert cache.fetch(versions[-1], client, steps=steps).read_bytes() == daemon.blobs[versions[-1]]


def test_a_line_that_breaks_at_a_step_is_no_reason_to_download_the_version_whole(
    daemon: FakeDaemon, client: Client, cache: BlobCache
) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[-2], client)
    daemon.faults.append(Fault("/v1/blobs/", "cut"))
    with pytest.raises(Unreachable):
        cache.fetch(versions[-1], client, steps=steps)
    daemon.calls.clear()
    cache.fetch(versions[-1], client, steps=steps)
    assert asked(daemon) == [steps[-1][1]]


def test_a_version_half_downloaded_is_downloaded_to_its_end(daemon: FakeDaemon, client: Client, cache: BlobCache) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[-2], client)
    daemon.faults.append(Fault("/v1/blobs/", "cut"))
    with pytest.raises(Unreachable):
        cache.fetch(versions[-1], client)
    daemon.calls.clear()
    assert cache.fetch(versions[-1], client, steps=steps).read_bytes() == daemon.blobs[versions[-1]]
    assert asked(daemon) == [versions[-1]]


def test_room_for_a_step_is_not_made_at_the_cost_of_the_version_it_starts_from(daemon: FakeDaemon, client: Client, tmp_path: Path) -> None:
    versions, steps = history(daemon)
    cache = BlobCache(tmp_path / "small", limit_bytes=len(daemon.blobs[versions[0]]) + len(daemon.blobs[steps[0][1]]) - 1)
    cache.fetch(versions[0], client)
    daemon.calls.clear()
    assert cache.fetch(versions[-1], client, steps=steps).read_bytes() == daemon.blobs[versions[-1]]
    assert asked(daemon) == [step for _, step in steps], "the version itself is not downloaded"


class AtOnce:
    """A line that does what it is asked to while one waits."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def call(self, work: Callable[[Client], Path], done: Callable[[Path], None], failed: Callable[[GridschedError], None]) -> None:
        done(work(self.client))


def never(digest: str, error: GridschedError) -> None:
    raise AssertionError(f"blob {digest} is lost: {error}")


def test_what_an_offer_tells_of_steps_is_used_when_the_child_asks_too(daemon: FakeDaemon, client: Client, cache: BlobCache) -> None:
    versions, steps = history(daemon)
    cache.fetch(versions[0], client)
    daemon.calls.clear()
    got: list[str] = []
    supply = Supply(cache, cast("Line", AtOnce(client)), got=got.append, lost=never, stuck=lambda *_: None)
    supply.foresee(versions[-1], steps)
    supply.order(versions[-1])
    supply.turn(0.0)
    assert (asked(daemon), got) == ([step for _, step in steps], [versions[-1]])


def test_steps_lead_to_their_own_version_alone(daemon: FakeDaemon, client: Client, cache: BlobCache) -> None:
    versions, steps = history(daemon)
    other = daemon.put(b"a shard")
    cache.fetch(versions[0], client)
    daemon.calls.clear()
    supply = Supply(cache, cast("Line", AtOnce(client)), got=lambda _: None, lost=never, stuck=lambda *_: None)
    supply.order(other)
    supply.foresee(versions[-1], steps)
    supply.turn(0.0)
    assert asked(daemon) == [other]
