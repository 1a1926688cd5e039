"""One Node process and one Chromium for all tests of the pages' trainer."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.browser.hosts import Host, chromium_host, headless, node_host

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The trainer in Node."""
    with node_host(tmp_path_factory.mktemp("node")) as host:
        yield host


@pytest.fixture(scope="session")
def browser() -> Iterator["Browser"]:
    """The one Chromium of all tests."""
    with headless() as found:
        yield found


@pytest.fixture(scope="session")
def chromium(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The trainer in a Web Worker in Chromium."""
    with chromium_host(tmp_path_factory.mktemp("chromium"), browser) as host:
        yield host
