"""The journal makes every version again from version 0; what was tampered with or lost is named, on the command line too."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gridsched.cli import app
from gridsched.core.errors import NotFound
from gridsched.core.method import Codec, Method, OuterOptimizer
from gridsched.core.round import Version
from gridsched.replay import Outcome, replay
from gridsched.sites import make_site
from gridsched.testing import Simulation
from tests.sim.conftest import fast_folder

METHOD = Method(
    epochs=2,
    batch_size=8,
    samples_per_unit=64,
    units_per_round=2,
    codec=Codec.INT8,
    down=Codec.INT8,
    outer=OuterOptimizer(name="adam", lr=0.1),
)
VERSIONS = 8


@pytest.fixture(scope="module")
def finished() -> Iterator[Path]:
    """The data of a site whose job is done: two nodes, eight versions, an outer state and encoded steps with each."""
    folder = fast_folder()
    sim = Simulation(folder)
    for node_id in ("pc", "old"):
        sim.add_node(node_id, power_w=100.0, steps_per_s=0.2)
    sim.add_job(samples=512, test_samples=0, method=METHOD)
    sim.run(ticks=300, surplus_w=always)
    sim.close()
    yield folder / "data"
    shutil.rmtree(folder)


@pytest.fixture
def sim(finished: Path, folder: Path) -> Iterator[Simulation]:
    """A site of its own with that data."""
    shutil.copytree(finished, folder / "data")
    made = Simulation(folder)
    yield made
    made.close()


def always(_: datetime) -> float:
    return 1000.0


def outcomes(sim: Simulation) -> list[tuple[int, Outcome]]:
    return [(made.number, made.outcome) for made in replay(sim.daemon.store, sim.daemon.blobs, "sim")]


def version(sim: Simulation, number: int) -> Version:
    with sim.daemon.store.read() as tx:
        return tx.must(Version, "sim", number)


def change(sim: Simulation, row: Version) -> None:
    with sim.daemon.store.write() as tx:
        tx.put(row)


def lose(sim: Simulation, digest: str) -> None:
    sim.daemon.blobs.path(digest).unlink()


def test_every_version_is_made_again_with_its_outer_state_and_its_step(sim: Simulation) -> None:
    assert outcomes(sim) == [(number, Outcome.SAME) for number in range(1, VERSIONS + 1)]
    assert all(version(sim, n).outer and version(sim, n).step for n in range(1, VERSIONS + 1)), "there was something to compare"


@pytest.mark.parametrize("what", ["a weight", "a staleness", "an update", "the digest", "the outer state", "the step"])
def test_the_first_version_whose_row_was_tampered_with_differs_and_none_after_it_is_looked_at(sim: Simulation, what: str) -> None:
    row = version(sim, 3)
    (first, update, _), second = row.updates
    change(
        sim,
        {
            "a weight": replace(row, updates=((first, update, 1000), second)),
            "a staleness": replace(row, staleness=(3, 0)),
            "an update": replace(row, updates=((first, second[1], 64), second)),
            "the digest": replace(row, digest=version(sim, 2).digest),
            "the outer state": replace(row, outer=None),
            "the step": replace(row, step=None),
        }[what],
    )
    assert outcomes(sim) == [(1, Outcome.SAME), (2, Outcome.SAME), (3, Outcome.DIFFERS)]


def test_a_version_whose_updates_are_gone_is_said_to_be_lost_and_the_stored_one_is_gone_on_from(sim: Simulation) -> None:
    lose(sim, version(sim, 3).updates[0][1])
    made = list(replay(sim.daemon.store, sim.daemon.blobs, "sim"))
    assert [m.outcome for m in made] == [Outcome.SAME] * 2 + [Outcome.LOST] + [Outcome.SAME] * (VERSIONS - 3)
    assert version(sim, 3).updates[0][1] in made[2].detail


def test_the_files_of_the_versions_themselves_are_not_needed(sim: Simulation) -> None:
    for number in range(1, VERSIONS + 1):
        lose(sim, version(sim, number).digest)
    assert {outcome for _, outcome in outcomes(sim)} == {Outcome.SAME}


def test_a_damaged_update_is_not_believed(sim: Simulation) -> None:
    digest = version(sim, 2).updates[1][1]
    path = sim.daemon.blobs.path(digest)
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert outcomes(sim)[1] == (2, Outcome.LOST)


def test_a_job_that_is_not_there_is_named(sim: Simulation) -> None:
    with pytest.raises(NotFound, match="no job nobody; see gridsched job list"):
        list(replay(sim.daemon.store, sim.daemon.blobs, "nobody"))


@pytest.mark.parametrize("whole", [True, False])
def test_the_command_counts_what_agrees_and_fails_where_something_does_not(finished: Path, folder: Path, whole: bool) -> None:
    site = folder / "site"
    make_site(site)
    shutil.copytree(finished, site / "data", dirs_exist_ok=True)
    if not whole:
        sim = Simulation(site)
        change(sim, replace(version(sim, 3), digest=version(sim, 2).digest))
        sim.close()
    (site / "data" / "site.sqlite").rename(site / "data" / "gridsched.sqlite")
    ran = CliRunner().invoke(app, ["job", "replay", "sim", "--site", str(site)])
    assert ran.exit_code == (0 if whole else 1)
    counted = "8 of 8" if whole else "2 of 3"
    assert f"{counted} versions made again with the digests of the journal" in ran.output
    assert ("version 3 differs from the journal" in ran.output) != whole
