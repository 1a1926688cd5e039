"""The way to the daemon over real sockets: errors by name, uploads and downloads that go on where they were cut."""

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gridsched.core.errors import (
    BlobCorrupt,
    Busy,
    DuplicateIdentity,
    GridschedError,
    InvalidInput,
    LeaseLost,
    NotFound,
    StorageFull,
    Unauthorized,
    Unreachable,
    UpdateRefused,
)
from gridsched.node import client as client_module
from gridsched.node.cache import BlobCache
from gridsched.node.client import Client, error_from
from gridsched.wire import Hello, Problem, encode
from tests.node.fake_daemon import TOKEN, FakeDaemon, Fault

HELLO = Hello(instance="i1", runtime="r")


@pytest.fixture
def client(daemon: FakeDaemon) -> Iterator[Client]:
    made = Client(daemon.url, TOKEN)
    yield made
    made.close()


@pytest.mark.parametrize("error", [LeaseLost("gone"), DuplicateIdentity("two of you"), Busy("later"), StorageFull("no room")])
def test_the_daemons_error_is_raised_here_under_its_name(daemon: FakeDaemon, client: Client, error: GridschedError) -> None:
    daemon.faults.append(Fault("/v1/node/hello", error))
    with pytest.raises(type(error), match=str(error)):
        client.hello(HELLO)
    assert client.hello(HELLO).node_id == "n1"


def test_a_refused_update_keeps_its_reason() -> None:
    problem = encode(Problem(error="UpdateRefused", detail="NaN in w", reason="not_finite"))
    error = error_from(422, problem, what="POST")
    assert isinstance(error, UpdateRefused)
    assert error.reason == "not_finite"


@pytest.mark.parametrize(("status", "kind"), [(404, NotFound), (502, Unreachable), (503, Busy), (507, StorageFull)])
def test_an_answer_of_something_else_than_a_daemon_has_an_error_too(status: int, kind: type[GridschedError]) -> None:
    assert isinstance(error_from(status, b"<html>proxy</html>", what="POST http://x"), kind)


@pytest.mark.parametrize("body", [b"", b"<html>sign in</html>", b'{"detail": "no"}'])
@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 409, 413, 422])
def test_nobody_but_the_daemon_itself_refuses(status: int, body: bytes) -> None:
    error = error_from(status, body, what="POST http://x/v1/node/sync")
    assert type(error) is Unreachable
    assert f"POST http://x/v1/node/sync is answered with HTTP {status}" in str(error)
    assert "proxy" in str(error) or "login page" in str(error)


@pytest.mark.parametrize("kind", ["drop", "lose_answer"])
def test_no_answer_is_unreachable(daemon: FakeDaemon, client: Client, kind: str) -> None:
    daemon.faults.append(Fault("/v1/node/hello", kind))
    with pytest.raises(Unreachable, match="does not answer"):
        client.hello(HELLO)


def test_a_daemon_that_is_not_there_is_unreachable(daemon: FakeDaemon, client: Client) -> None:
    daemon.stop()
    with pytest.raises(Unreachable, match="is the daemon running"):
        client.hello(HELLO)
    daemon.start()


def test_a_wrong_token_is_told_apart_and_never_shown(daemon: FakeDaemon, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    stranger = Client(daemon.url, "secret-token-value")
    with pytest.raises(Unauthorized) as caught:
        stranger.hello(HELLO)
    stranger.close()
    assert "secret-token-value" not in caplog.text + str(caught.value) + repr(vars(stranger))


def test_an_address_without_a_scheme_is_refused() -> None:
    with pytest.raises(InvalidInput, match="write it like"):
        Client("localhost:8080")


def test_an_upload_cut_in_the_middle_goes_on_from_there(
    daemon: FakeDaemon, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "PIECE_BYTES", 1000)
    monkeypatch.setattr(client_module, "SMALL_BYTES", 1000)
    data = bytes(range(256)) * 20
    digest = daemon.put(data)
    del daemon.blobs[digest]
    file = tmp_path / "blob"
    file.write_bytes(data)
    daemon.faults.append(Fault("/v1/blobs/", "cut", method="PUT"))
    with pytest.raises(Unreachable):
        client.upload(digest, file)
    assert len(daemon.parts[digest]) == 500
    client.upload(digest, file)
    assert daemon.blobs[digest] == data


def test_what_is_stored_already_is_not_sent_again(
    daemon: FakeDaemon, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SMALL_BYTES", 4)
    file = tmp_path / "blob"
    file.write_bytes(b"known")
    client.upload(daemon.put(b"known"), file)
    assert [method for method, _ in daemon.calls] == ["HEAD"]


@pytest.mark.parametrize("fault", [Fault("/v1/blobs/", 200), *(Fault("/v1/blobs/", status, method="PUT") for status in (200, 202, 302))])
def test_only_a_file_that_is_said_to_be_stored_is(
    daemon: FakeDaemon, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault
) -> None:
    monkeypatch.setattr(client_module, "SMALL_BYTES", 4)
    file = tmp_path / "blob"
    file.write_bytes(b"an update")
    digest = daemon.put(b"an update")
    del daemon.blobs[digest]
    daemon.faults.append(replace(fault))
    with suppress(Unreachable):
        client.upload(digest, file)
        assert digest in daemon.blobs, "it was said to be stored"
    client.upload(digest, file)
    assert daemon.blobs[digest] == b"an update"


def test_a_wrong_token_is_named_where_the_first_question_cannot_say_so(
    daemon: FakeDaemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SMALL_BYTES", 4)
    file = tmp_path / "blob"
    file.write_bytes(b"an update")
    stranger = Client(daemon.url, "another token")
    with pytest.raises(Unauthorized):
        stranger.upload("0" * 64, file)
    stranger.close()


def test_a_small_file_is_one_request_and_one_that_was_cut_is_sent_again(daemon: FakeDaemon, client: Client, tmp_path: Path) -> None:
    file = tmp_path / "blob"
    file.write_bytes(b"an update")
    digest = daemon.put(b"an update")
    del daemon.blobs[digest]
    daemon.faults.append(Fault("/v1/blobs/", "cut", method="PUT"))
    with pytest.raises(Unreachable):
        client.upload(digest, file)
    client.upload(digest, file)
    assert daemon.blobs[digest] == b"an update"
    assert [method for method, _ in daemon.calls] == ["PUT", "PUT"]


def test_a_download_cut_in_the_middle_goes_on_from_there(daemon: FakeDaemon, client: Client, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    digest = daemon.put(data)
    cache = BlobCache(tmp_path, limit_bytes=10**9)
    daemon.faults.append(Fault("/v1/blobs/", "cut"))
    with pytest.raises(Unreachable):
        cache.fetch(digest, client)
    had = (tmp_path / f"{digest}.part").stat().st_size
    assert 0 < had < len(data)
    assert cache.fetch(digest, client).read_bytes() == data
    assert cache.fetch(digest, client).read_bytes() == data
    assert [method for method, _ in daemon.calls] == ["GET", "GET"]


def test_a_blob_that_does_not_match_its_digest_is_not_kept(daemon: FakeDaemon, client: Client, tmp_path: Path) -> None:
    digest = daemon.put(b"true")
    daemon.blobs[digest] = b"lies"
    cache = BlobCache(tmp_path, limit_bytes=10**9)
    with pytest.raises(BlobCorrupt, match=digest[:12]):
        cache.fetch(digest, client)
    daemon.blobs[digest] = b"true"
    assert cache.fetch(digest, client).read_bytes() == b"true"


def test_the_cache_forgets_what_was_used_longest_ago(daemon: FakeDaemon, client: Client, tmp_path: Path) -> None:
    cache = BlobCache(tmp_path, limit_bytes=250)
    first, second, third = (daemon.put(bytes([n]) * 100) for n in range(3))
    for age, digest in enumerate((first, second)):
        path = cache.fetch(digest, client)
        os.utime(path, (1000 + age, 1000 + age))
    cache.fetch(third, client)
    assert {path.name for path in tmp_path.iterdir()} == {second, third}


def test_a_digest_that_is_a_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BlobCorrupt, match="not a sha256"):
        BlobCache(tmp_path, limit_bytes=1).path("../../etc/passwd")
