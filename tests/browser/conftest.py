"""One Node process and one Chromium for all tests of the pages' trainer."""

from collections.abc import Iterator

import pytest

from tests.browser.hosts import Host, chromium_host, node_host


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The trainer in Node."""
    with node_host(tmp_path_factory.mktemp("node")) as host:
        yield host


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The trainer in a Web Worker in Chromium."""
    with chromium_host(tmp_path_factory.mktemp("chromium")) as host:
        yield host
