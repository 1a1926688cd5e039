"""Files that survive whatever happens to the writer."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from gridsched.core.errors import BlobCorrupt, StorageFull
from gridsched.train.checkpoint import latest_file, load_continuation, save_continuation, save_numbered, write_durably
from gridsched.train.unit import Continuation, Metrics


def continuation(step: int) -> Continuation:
    return Continuation(
        unit_id="u1", step=step, hardware_class="none", tensors={"model/w": np.full(100, step, np.float32)}, metrics=Metrics(samples=step)
    )


def test_the_newest_state_is_read_back_and_only_one_older_is_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3):
        save_continuation(tmp_path / "u1", continuation(step))
    loaded = load_continuation(tmp_path / "u1")
    assert loaded is not None
    assert loaded.to_bytes() == continuation(3).to_bytes()
    assert len(list((tmp_path / "u1").iterdir())) == 2


def test_nothing_stored_is_none(tmp_path: Path) -> None:
    assert load_continuation(tmp_path / "never") is None


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_damaged_newest_file_is_passed_over_for_the_one_before(tmp_path: Path, damage: str) -> None:
    save_continuation(tmp_path, continuation(1))
    newest = save_continuation(tmp_path, continuation(2))
    _damage(newest, damage)
    loaded = load_continuation(tmp_path)
    assert loaded is not None
    assert loaded.step == 1


def test_after_damage_to_all_the_states_begun_anew_are_kept_and_not_the_damaged_ones(tmp_path: Path) -> None:
    for step in (40, 50):
        _damage(save_continuation(tmp_path, continuation(step)), "flip")
    stored = [save_continuation(tmp_path, continuation(step)) for step in (10, 20)]
    assert sorted(tmp_path.iterdir()) == stored
    loaded = load_continuation(tmp_path)
    assert loaded is not None
    assert loaded.step == 20


def _damage(path: Path, how: str) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[: len(data) // 2]), "empty": b""}[how])


def test_when_all_are_damaged_the_error_names_the_newest_file(tmp_path: Path) -> None:
    stored = [save_continuation(tmp_path, continuation(step)) for step in (1, 2)]
    for path in stored:
        _damage(path, "cut")
    with pytest.raises(BlobCorrupt, match=stored[-1].name):
        load_continuation(tmp_path)


def test_a_file_that_is_intact_but_no_continuation_is_corrupt(tmp_path: Path) -> None:
    stored = save_numbered(tmp_path, 1, b"something else")
    with pytest.raises(BlobCorrupt, match=stored.name):
        load_continuation(tmp_path)


def test_a_file_left_half_written_by_a_crash_is_not_looked_at(tmp_path: Path) -> None:
    save_continuation(tmp_path, continuation(1))
    (tmp_path / ".aside-crashed").write_bytes(b"half")
    assert latest_file(tmp_path) is not None
    assert load_continuation(tmp_path) is not None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_state_intact_and_no_rubbish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, call: str
) -> None:
    save_continuation(tmp_path, continuation(1))

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full) if call == "fsync" else patch.setattr(Path, "replace", full)
        with pytest.raises(StorageFull, match="no room to write"):
            save_continuation(tmp_path, continuation(2))
    assert len(list(tmp_path.iterdir())) == 1
    loaded = load_continuation(tmp_path)
    assert loaded is not None
    assert loaded.step == 1


def test_the_file_is_synced_before_it_is_renamed_and_the_folder_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, Path.replace

    def watched_sync(handle: int) -> None:
        calls.append("sync")
        sync(handle)

    def watched_replace(path: Path, goal: Path) -> Path:
        calls.append("rename")
        return replace(path, goal)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    write_durably(tmp_path / "a", [b"1", b"2"])
    assert calls == ["sync", "rename", "sync"]
    assert (tmp_path / "a").read_bytes() == b"12"
