"""Sites of real processes: one for a test of its own, and one on which a job has been trained in peace."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.databases import DATABASES, empty_database
from tests.e2e.site_process import Site

__all__ = ["DATABASES", "empty_database"]

EPOCHS, PASSES = 3, 60
"""Nine units of 180 steps: long enough to be struck in the middle, three times."""


@dataclass(frozen=True)
class Peace:
    """A site with two nodes, and a job that nothing has disturbed: what others must come to."""

    site: Site
    job_id: str
    digest: str


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """A site of this test's own, served, without nodes."""
    with Site(tmp_path / "site") as made:
        yield made


@pytest.fixture(scope="session")
def peace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Peace]:
    """Trained once for all tests of a run; daemon and nodes stay up."""
    with Site(tmp_path_factory.mktemp("peace") / "site") as made:
        made.join("n1", "n2", cpu_share=1.0)
        job_id = made.submit(epochs=EPOCHS, passes=PASSES)
        yield Peace(made, job_id, made.finish(job_id)["digest"])
