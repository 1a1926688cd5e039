"""The node's home: where the middles of units lie, and which of them are kept."""

import os
from pathlib import Path

import pytest

from gridsched.node.state import Finished, Home
from gridsched.train.checkpoint import save_numbered


@pytest.mark.parametrize("odd", ["", "..", ".hidden", "a/b", "a b", "torch-2.13\n", "x" * 101, "kärnten"])
def test_the_middles_of_each_hardware_class_have_a_folder_of_their_own_whatever_its_name(tmp_path: Path, odd: str) -> None:
    home = Home(tmp_path)
    plain = home.middles("job.r0.u0", "torch-2.13.0+cpu-x86_64-4t")
    assert plain == home.unit_folder("job.r0.u0") / "torch-2.13.0+cpu-x86_64-4t"
    other = home.middles("job.r0.u0", odd)
    assert other.parent == plain.parent
    assert other.name.isalnum()
    assert other != home.middles("job.r0.u0", odd + " ")


def test_the_units_last_worked_on_are_kept_whichever_was_begun_first(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for at in range(6):
        home.middles(f"u{at}", "wasm-1").mkdir(parents=True)
        os.utime(home.unit_folder(f"u{at}"), (at, at))
        os.utime(home.middles(f"u{at}", "wasm-1"), (at, at))
    save_numbered(home.middles("u0", "wasm-1"), 7, b"the middle")
    home.prune()
    assert sorted(folder.name for folder in home.work.iterdir()) == ["unit-u0", "unit-u3", "unit-u4", "unit-u5"]
    home.forget("u0")
    assert not home.unit_folder("u0").exists()


def test_a_unit_done_under_two_leases_keeps_its_file_until_both_are_answered(tmp_path: Path) -> None:
    home = Home(tmp_path)
    home.make()
    digest = "d" * 64
    twice = [
        Finished(lease_id=f"u.l{n}", generation=n, unit_id="u", update=digest, steps_executed=8, metrics={}, digests=[]) for n in (1, 2)
    ]
    for finished in twice:
        home.post(finished)
    home.update_path(digest).write_bytes(b"the update")
    save_numbered(home.middles("u", "wasm-1"), 7, b"the middle")
    home.unpost(twice[0])
    assert home.update_path(digest).exists()
    assert home.unit_folder("u").exists()
    home.unpost(twice[1])
    assert not home.update_path(digest).exists()
    assert not home.unit_folder("u").exists()
