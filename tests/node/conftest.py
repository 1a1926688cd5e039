"""What a node is tested against: a daemon on a real socket that can be told to fail, and the folder of a node that has joined it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gridsched.node.state import Home
from tests.node.builders import joined
from tests.node.fake_daemon import FakeDaemon


@pytest.fixture
def daemon() -> Iterator[FakeDaemon]:
    with FakeDaemon() as fake:
        yield fake


@pytest.fixture
def home(daemon: FakeDaemon, tmp_path: Path) -> Home:
    return joined(tmp_path, daemon)
