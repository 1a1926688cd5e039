"""The module that ``make setup`` has built, translated to machine code once for all tests here. test_build.py holds it to its sources."""

import pytest

from kernels.build import TARGET
from tests.kernels.host import Host


@pytest.fixture(scope="session")
def module() -> bytes:
    if not TARGET.exists():
        pytest.fail(f"{TARGET} is not there: make setup")
    return TARGET.read_bytes()


@pytest.fixture(scope="session")
def host(module: bytes) -> Host:
    return Host.of(module)
