"""The module is compiled from its sources once for all tests here, and translated to machine code once."""

import pytest

from kernels.build import compiled
from tests.kernels.host import Host


@pytest.fixture(scope="session")
def module() -> bytes:
    return compiled()


@pytest.fixture(scope="session")
def host(module: bytes) -> Host:
    return Host.of(module)
