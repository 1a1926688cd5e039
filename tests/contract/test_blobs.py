"""Files by their digest: whole or not there, whatever happens while they are written."""

import errno
import hashlib
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gridsched.core.errors import BlobCorrupt, Conflict, InvalidInput, NotFound, StorageFull, TooLarge
from gridsched.store import blobs as module
from gridsched.store.blobs import FileBlobs

NOON = datetime(2018, 1, 28, 12, tzinfo=UTC)
QUOTA = 10_000


class HandClock:
    speed = 1.0

    def __init__(self) -> None:
        self.moment = NOON

    def now(self) -> datetime:
        return self.moment

    def sleep(self, seconds: float) -> None:
        self.moment += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def blobs(tmp_path: Path, clock: HandClock) -> FileBlobs:
    return FileBlobs(tmp_path / "blobs", quota_bytes=QUOTA, clock=clock)


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def again(blobs: FileBlobs) -> FileBlobs:
    """The same folder after a restart."""
    return FileBlobs(blobs._root, quota_bytes=QUOTA, clock=blobs._clock)


def files(blobs: FileBlobs) -> list[Path]:
    return [path for path in blobs._root.rglob("*") if path.is_file()]


def test_what_is_put_comes_back_under_its_digest(blobs: FileBlobs) -> None:
    digest = blobs.put(b"weights")
    assert digest == digest_of(b"weights")
    assert blobs.has(digest)
    assert blobs.get(digest) == b"weights"
    assert blobs.size(digest) == 7
    assert blobs.path(digest).read_bytes() == b"weights"
    assert list(again(blobs).digests()) == [digest]


def test_the_same_bytes_are_kept_once(blobs: FileBlobs) -> None:
    assert blobs.put(b"weights") == blobs.put(b"weights")
    assert len(files(blobs)) == 1
    assert blobs.used_bytes == again(blobs).used_bytes == 7


def test_what_is_not_there_is_named(blobs: FileBlobs) -> None:
    for ask in (blobs.get, blobs.path, blobs.size):
        with pytest.raises(NotFound, match="there is no blob 00000000"):
            ask("0" * 64)
    assert not blobs.has("0" * 64)
    assert blobs.offset("0" * 64) == 0


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "0" * 63, "A" * 64, "0" * 63 + "\n", "0" * 64 + "/x"])
def test_only_a_digest_names_a_blob(blobs: FileBlobs, name: str) -> None:
    for ask in (blobs.get, blobs.path, blobs.has, blobs.offset):
        with pytest.raises(InvalidInput, match="sha256"):
            ask(name)
    with pytest.raises(InvalidInput):
        blobs.append(name, b"x", offset=0, total=1)
    assert files(blobs) == []


@given(st.binary(max_size=200), st.lists(st.integers(1, 60), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_an_upload_in_any_pieces_with_restarts_between_is_the_same_blob(blobs: FileBlobs, data: bytes, pieces: list[int]) -> None:
    digest, here = digest_of(data), blobs
    if here.has(digest):
        here.sweep(set(), older_than=NOON + timedelta(days=1))
    for size in [*pieces, 200, 200]:
        offset = here.offset(digest)
        if here.append(digest, data[offset : offset + size], offset=offset, total=len(data)):
            break
        assert not here.has(digest), "a part is not visible"
        here = again(here)
    assert here.get(digest) == data
    assert here.offset(digest) == 0
    assert not any((here._root / "incoming").iterdir())


def test_a_piece_at_another_offset_is_told_where_to_go_on(blobs: FileBlobs) -> None:
    digest = digest_of(b"weights")
    assert not blobs.append(digest, b"wei", offset=0, total=7)
    for offset in (0, 2, 4):
        with pytest.raises(Conflict, match="go on at 3"):
            blobs.append(digest, b"gh", offset=offset, total=7)
    assert blobs.append(digest, b"ghts", offset=3, total=7)


def test_a_piece_of_what_is_here_already_is_fine(blobs: FileBlobs) -> None:
    digest = blobs.put(b"weights")
    assert blobs.append(digest, b"wei", offset=0, total=7)
    assert blobs.used_bytes == 7


def test_what_others_send_of_a_blob_touches_nobody_else_s_upload(blobs: FileBlobs) -> None:
    digest = digest_of(b"weights")
    assert not blobs.append(digest, b"weights?", offset=0, total=9, by="node:longer")
    assert not blobs.append(digest, b"wrong!", offset=0, total=7, by="node:wrong")
    assert blobs.offset(digest, by="node:pc") == 0
    assert not blobs.append(digest, b"wei", offset=0, total=7, by="node:pc")
    assert again(blobs).offset(digest, by="node:pc") == 3
    assert blobs.append(digest, b"ghts", offset=3, total=7, by="node:pc")
    assert blobs.get(digest) == b"weights"


def test_more_than_was_announced_is_too_large(blobs: FileBlobs) -> None:
    digest = digest_of(b"weights")
    blobs.append(digest, b"wei", offset=0, total=7)
    with pytest.raises(TooLarge, match="beyond the 7"):
        blobs.append(digest, b"ghts and more", offset=3, total=7)
    assert blobs.offset(digest) == 3


def test_bytes_that_do_not_match_are_dropped_and_can_be_sent_again(blobs: FileBlobs) -> None:
    digest = digest_of(b"weights")
    with pytest.raises(BlobCorrupt, match="send it again"):
        blobs.append(digest, b"wrights", offset=0, total=7)
    assert not blobs.has(digest)
    assert blobs.used_bytes == 0
    assert blobs.append(digest, b"weights", offset=0, total=7)


def test_a_file_that_changed_on_disk_is_noticed_and_set_aside(blobs: FileBlobs) -> None:
    digest = blobs.put(b"weights")
    blobs.path(digest).write_bytes(b"wrights")
    with pytest.raises(BlobCorrupt, match="has changed on disk"):
        blobs.get(digest)
    assert not blobs.has(digest)
    assert blobs.put(b"weights") == digest
    assert blobs.get(digest) == b"weights"


def test_files_are_counted_the_unfinished_and_the_damaged_too(blobs: FileBlobs, clock: HandClock) -> None:
    digest, update = blobs.put(b"weights"), digest_of(b"update")
    for by in ("a", "b"):
        blobs.append(update, b"upd", offset=0, total=6, by=by)
    assert blobs.files == again(blobs).files == 3
    blobs.append(update, b"ate", offset=3, total=6, by="a")
    assert blobs.files == 3, "it has its name now"
    with pytest.raises(BlobCorrupt):
        blobs.append(digest_of(b"!"), b"?", offset=0, total=1)
    for _ in range(2):
        blobs.path(digest).write_bytes(b"wrights")
        with pytest.raises(BlobCorrupt):
            blobs.get(digest)
        blobs.put(b"weights")
    assert blobs.files == again(blobs).files == len(files(blobs)) == 4
    assert blobs.used_bytes == again(blobs).used_bytes
    blobs.sweep(set(), older_than=NOON + timedelta(days=1))
    assert blobs.files == again(blobs).files == len(files(blobs)) < 4


@pytest.fixture
def read_through(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were read to be held against their digest."""
    names: list[str] = []
    real = hashlib.file_digest

    def counted(file: Any, name: str) -> Any:
        names.append(Path(file.name).name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    return names


def test_what_was_just_written_is_not_read_again_to_be_verified(blobs: FileBlobs, read_through: list[str]) -> None:
    digest = blobs.put(b"weights")
    assert blobs.verified(digest).read_bytes() == b"weights"
    assert read_through == []
    assert again(blobs).verified(digest) == blobs.path(digest)
    assert read_through == [digest[2:]]


def test_a_file_that_somebody_touched_is_read_again(blobs: FileBlobs, read_through: list[str]) -> None:
    digest = blobs.put(b"weights")
    os.utime(blobs.path(digest))
    for _ in range(2):
        blobs.verified(digest)
    assert read_through == [digest[2:]]


@pytest.mark.parametrize("restarted", [False, True])
def test_a_file_changed_on_disk_is_not_verified_but_set_aside(blobs: FileBlobs, restarted: bool) -> None:
    digest = blobs.put(b"weights")
    blobs.path(digest).write_bytes(b"wrights")
    with pytest.raises(BlobCorrupt, match="has changed on disk"):
        (again(blobs) if restarted else blobs).verified(digest)
    assert not blobs.has(digest)
    with pytest.raises(NotFound):
        blobs.verified(digest)


def test_damage_that_leaves_no_trace_is_noticed_once_the_memory_of_the_file_is_old(
    blobs: FileBlobs, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_touched", lambda file: (1, 7, 0, 0))
    digest = blobs.put(b"weights")
    blobs.path(digest).write_bytes(b"wrights")
    clock.sleep(601)
    with pytest.raises(BlobCorrupt):
        blobs.verified(digest)


def test_of_so_many_files_none_is_remembered_for_ever(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 3)
    for number in range(10):
        assert blobs.verified(blobs.put(bytes([number]))).is_file()
        assert len(blobs._seen) <= 3


def test_the_quota_is_never_exceeded_and_parts_count(blobs: FileBlobs) -> None:
    blobs.put(b"a" * 6000)
    part = digest_of(b"b" * 5000)
    blobs.append(part, b"b" * 3000, offset=0, total=5000)
    with pytest.raises(StorageFull, match="quota"):
        blobs.append(part, b"b" * 2000, offset=3000, total=5000)
    with pytest.raises(StorageFull, match="quota"):
        blobs.put(b"c" * 1001)
    assert blobs.offset(part) == 3000
    assert sum(file.stat().st_size for file in files(blobs)) == blobs.used_bytes == 9000
    blobs.put(b"c" * 1000)
    with pytest.raises(StorageFull):
        again(blobs).put(b"d")


@pytest.mark.parametrize("offset", [0, 3])
def test_a_disk_that_fills_up_leaves_nothing_half_written(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch, offset: int) -> None:
    digest = digest_of(b"weights")
    if offset:
        blobs.append(digest, b"weights"[:offset], offset=0, total=7)
    monkeypatch.setattr(Path, "open", _fills_up(Path.open, after=2))
    with pytest.raises(StorageFull, match=r"disk of .* is full"):
        blobs.append(digest, b"weights"[offset:], offset=offset, total=7)
    with pytest.raises(StorageFull):
        blobs.put(b"another")
    monkeypatch.undo()
    assert list(blobs.digests()) == []
    assert blobs.offset(digest) == offset
    assert blobs.used_bytes == again(blobs).used_bytes == offset
    assert blobs.files == again(blobs).files
    assert blobs.append(digest, b"weights"[offset:], offset=offset, total=7)


def _fills_up(opens: Any, *, after: int) -> Any:
    """Files that take ``after`` bytes, then report a full disk."""

    def opened(path: Path, mode: str = "r", **options: Any) -> Any:
        file = opens(path, mode, **options)
        if "a" not in mode:
            return file
        write = file.write

        class Full:
            def __enter__(self) -> "Full":
                return self

            def __exit__(self, *_: object) -> None:
                file.close()

            def write(self, data: bytes) -> int:
                write(data[:after])
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    return opened


def test_a_disk_that_fills_up_at_the_sync_publishes_nothing(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "_sync", full)
    with pytest.raises(StorageFull):
        blobs.put(b"weights")
    monkeypatch.undo()
    assert list(blobs.digests()) == []
    assert blobs.put(b"weights") == digest_of(b"weights")
    assert blobs.used_bytes == 7


def test_a_name_appears_only_after_its_bytes_are_synced(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, rename = os.fsync, Path.rename

    def syncs(descriptor: int) -> None:
        steps.append("sync")
        fsync(descriptor)

    def renames(path: Path, target: Path) -> Path:
        steps.append("rename")
        return rename(path, target)

    monkeypatch.setattr(os, "fsync", syncs)
    monkeypatch.setattr(Path, "rename", renames)
    blobs.put(b"weights")
    assert steps[-3:] == ["sync", "rename", "sync"]


def test_sweeping_removes_what_is_old_and_unnamed(blobs: FileBlobs, clock: HandClock) -> None:
    named, unnamed = blobs.put(b"named"), blobs.put(b"unnamed")
    blobs.append(digest_of(b"weights"), b"wei", offset=0, total=7)
    clock.sleep(3600)
    young = blobs.put(b"young")
    assert blobs.sweep({named}, older_than=NOON) == 0
    assert blobs.sweep({named}, older_than=NOON + timedelta(minutes=1)) == len(b"unnamed") + 3
    assert sorted(blobs.digests()) == sorted([named, young])
    assert not blobs.has(unnamed)
    assert blobs.offset(digest_of(b"weights")) == 0
    assert blobs.used_bytes == again(blobs).used_bytes


def test_what_is_sent_again_is_young_again(blobs: FileBlobs, clock: HandClock) -> None:
    digest = blobs.put(b"weights")
    clock.sleep(3600)
    blobs.append(digest, b"weights", offset=0, total=7)
    assert blobs.sweep(set(), older_than=NOON + timedelta(minutes=1)) == 0
    assert blobs.has(digest)


def test_many_threads_with_the_same_blobs_leave_each_whole_and_once(blobs: FileBlobs) -> None:
    contents = [bytes([number]) * 100 for number in range(20)]
    start = threading.Barrier(4)

    def send() -> None:
        start.wait()
        for data in contents:
            blobs.put(data)

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(blobs.get(digest) for digest in blobs.digests()) == sorted(contents)
    assert blobs.used_bytes == again(blobs).used_bytes == 2000
    assert blobs.files == 20
