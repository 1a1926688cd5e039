"""Simulations write thousands of small durable commits; on a memory file system they take a quarter of the time."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

_MEMORY = Path("/dev/shm")


def fast_folder() -> Path:
    """A new folder, in memory where the machine has room for that."""
    return Path(tempfile.mkdtemp(prefix="gridsched-sim-", dir=_MEMORY if _MEMORY.is_dir() else None))


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder of its own for one simulated site."""
    made = fast_folder()
    yield made
    shutil.rmtree(made)
