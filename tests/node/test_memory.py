"""What a node offers to units, and when one does not fit."""

import os

import psutil
import pytest

from gridsched.node import memory
from gridsched.node.memory import Memory

GB = 10**9


def test_it_offers_what_is_free_within_the_limit_less_the_runtime() -> None:
    assert Memory(2 * GB, GB // 4, free=lambda: 8 * GB).offered() == 2 * GB - GB // 4
    assert Memory(8 * GB, GB // 4, free=lambda: 2 * GB).offered() == 2 * GB - GB // 4
    assert Memory(GB // 8, GB // 4, free=lambda: 2 * GB).offered() == 0


def test_without_a_limit_it_offers_half_of_the_machine() -> None:
    total = psutil.virtual_memory().total
    assert Memory(None, 0, free=lambda: 2 * total).offered() == total // 2


@pytest.mark.parametrize(
    ("needed", "free", "limit", "fits"),
    [
        (GB, 2 * GB, 2 * GB, True),
        (GB, GB, 2 * GB, False),
        (GB, 4 * GB, GB, False),
        (GB, 4 * GB, None, True),
        (0, 0, None, False),
        (GB, GB + GB // 4, GB + GB // 4, True),
    ],
)
def test_a_unit_fits_beside_the_runtime_or_is_refused(needed: int, free: int, limit: int | None, fits: bool) -> None:
    why = Memory(limit, GB // 4, free=lambda: free).lacks(needed, child=None)
    assert (why == "") is fits, why
    assert fits or "MB are free" in why


def test_the_room_of_the_training_process_that_runs_counts() -> None:
    resident = psutil.Process(os.getpid()).memory_info().rss
    small = Memory(None, 0, free=lambda: 0)
    assert small.lacks(resident // 2, child=os.getpid()) == ""
    assert small.lacks(resident // 2, child=None) != ""


def test_a_container_s_own_limit_counts(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from pathlib import Path

    folder = Path(str(tmp_path))
    (folder / "memory.max").write_text("100000000\n")
    (folder / "memory.current").write_text("40000000\n")
    monkeypatch.setattr(memory, "_CONTAINER", folder)
    assert Memory(10**12, 0).offered() == 60_000_000
    (folder / "memory.max").write_text("max\n")
    assert Memory(10**12, 0).offered() > 60_000_000
