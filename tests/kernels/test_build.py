"""The module is what its sources make of it, and its dispatcher refuses what it does not know."""

import shutil
import subprocess
from pathlib import Path

import pytest
import wasmtime

from gridsched.train.plan.kernels import HEAP, KERNELS
from kernels.build import compiled
from tests.kernels.closeness import as_tensor, empty
from tests.kernels.host import Host

UNKNOWN = len(KERNELS)


@pytest.fixture
def sources(repository: Path, tmp_path: Path) -> Path:
    """A copy of the sources, in another folder."""
    folder = tmp_path / "elsewhere"
    shutil.copytree(repository / "kernels", folder)
    return folder


def test_the_same_sources_make_the_same_bytes_in_another_folder(module: bytes, sources: Path) -> None:
    assert compiled(sources) == module


@pytest.mark.parametrize(("room_bytes", "fits"), [(HEAP // 2, True), (HEAP, False)])
def test_a_module_that_reaches_into_the_memory_of_plans_is_not_linked(
    repository: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], room_bytes: int, fits: bool
) -> None:
    shutil.copy(repository / "kernels" / "module.h", tmp_path)
    fill = "void fill(void *y, int32_t n, float value) { room[n] = *(char *)y + (char)value; }"
    (tmp_path / "fill.c").write_text(f'#include "module.h"\nchar room[{room_bytes}];\n{fill}\n', encoding="utf-8")
    if fits:
        assert compiled(tmp_path, [KERNELS["fill"]])
        return
    with pytest.raises(subprocess.CalledProcessError):
        compiled(tmp_path, [KERNELS["fill"]])
    assert "initial memory too small" in capfd.readouterr().err


def test_the_module_needs_nothing_from_its_host_and_begins_with_the_memory_below_the_heap(module: bytes) -> None:
    engine = wasmtime.Engine()
    parsed = wasmtime.Module(engine, module)
    assert parsed.imports == []
    exported = {one.name: one.type for one in parsed.exports}
    memory = exported["memory"]
    assert isinstance(memory, wasmtime.MemoryType)
    assert memory.limits.min * 65536 == HEAP
    assert isinstance(exported["run"], wasmtime.FuncType)


def test_rows_are_numbered_in_their_order() -> None:
    assert [kernel.number for kernel in KERNELS.values()] == list(range(len(KERNELS)))


def test_no_code_is_done_at_once(host: Host) -> None:
    assert host.run([]) == 0


@pytest.mark.parametrize("number", [UNKNOWN, -1, 1 << 30])
def test_a_call_that_is_unknown_is_named_and_what_lies_before_it_is_done(host: Host, number: int) -> None:
    y = empty(3)
    fill, places = host.prepared("fill", y, 3, 2.0)
    assert host.run([*fill, number, 1, 2, 3]) == 1 + len(fill)
    (at,) = places
    assert bytes(host.memory.read(host.store, at, at + 12)) == as_tensor(2.0, 2.0, 2.0).tobytes()


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_call_that_is_cut_off_is_not_begun(host: Host, kernel: str) -> None:
    row = KERNELS[kernel]
    assert host.run([row.number, *([0] * (row.words - 2))]) == 1


def test_calls_follow_one_another(host: Host) -> None:
    y = empty(4)
    words, places = host.prepared("fill", y, 4, 1.0)
    twice, _ = host.prepared("add_to_rows", y, y, 1, 4)
    assert host.run([*words, *twice, *twice]) == 0
    (at,) = places
    assert bytes(host.memory.read(host.store, at, at + 16)) == as_tensor(4.0, 4.0, 4.0, 4.0).tobytes()
