"""Stored files that are gone or damaged when a round is merged: the work is done again, or the job says why it ends. Nobody else waits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from gridsched.core.errors import StorageFull
from gridsched.core.facts import JobEnded, RoundMerged, UpdateRejected
from gridsched.core.job import Job, JobState
from gridsched.core.method import Method
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import admit, advance
from gridsched.testing import Simulation, check_invariants

TICKS = 300


def site(folder: Path) -> Simulation:
    sim = Simulation(folder)
    sim.add_node("pc", power_w=180.0, steps_per_s=0.20)
    sim.add_node("old", power_w=110.0, steps_per_s=0.20)
    sim.add_job(samples=128, test_samples=0, method=Method(epochs=2, batch_size=8, samples_per_unit=64, units_per_round=2))
    return sim


def until_complete(sim: Simulation) -> list[str]:
    """Tick until the first round waits for its merge, which is held back; the updates' digests."""
    with sim.daemon._merging:
        for _ in range(TICKS):
            sim.run_once(1000.0)
            with sim.daemon.store.read() as tx:
                if any(rnd.round_id == "sim.r0" for rnd in advance.ready_to_merge(tx)):
                    return [unit.update or "" for unit in tx.find(WorkUnit, round_id="sim.r0")]
    raise AssertionError("the first round did not become complete")


def lose(file: Path) -> None:
    file.unlink()


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


@pytest.fixture
def quiet(tmp_path: Path) -> str:
    sim = site(tmp_path / "quiet")
    sim.run(ticks=TICKS, surplus_w=lambda _: 1000.0)
    digest = sim.final_digest()
    sim.close()
    return digest


@pytest.mark.parametrize("harm", [lose, flip])
def test_an_update_that_is_gone_or_damaged_is_trained_again(folder: Path, quiet: str, harm: Callable[[Path], None]) -> None:
    sim = site(folder)
    harm(sim.daemon.blobs.path(until_complete(sim)[0]))
    sim.run(ticks=TICKS, surplus_w=lambda _: 1000.0)
    (told,) = [fact for fact in sim.facts if isinstance(fact, UpdateRejected)]
    assert told.reason == "unreadable"
    assert sim.final_digest() == quiet
    with sim.daemon.store.read() as tx:
        check_invariants(tx)
    sim.close()


@pytest.mark.parametrize("harm", [lose, flip])
def test_a_job_whose_version_is_gone_ends_and_says_so_and_no_other_job_waits_for_it(folder: Path, harm: Callable[[Path], None]) -> None:
    sim = site(folder)
    method = Method(epochs=4, batch_size=8, samples_per_unit=64, units_per_round=4)
    other = sim.add_job(job_id="other", samples=256, test_samples=0, seed=2, method=method)
    until_complete(sim)
    with sim.daemon.store.read() as tx:
        harm(sim.daemon.blobs.path(tx.must(Job, "sim").spec.initial))
    sim.daemon.merge()
    (ended,) = [fact for fact in sim.facts if isinstance(fact, JobEnded)]
    assert (ended.job_id, ended.state) == ("sim", "failed")
    assert "sim.r0" in ended.reason
    sim.run(other.job_id, ticks=TICKS, surplus_w=lambda _: 1000.0)
    with sim.daemon.store.read() as tx:
        assert tx.must(Job, "other").state is JobState.DONE
        assert not tx.find(WorkUnit, job_id="sim", state=(UnitState.OPEN, UnitState.LEASED))
        check_invariants(tx)
    sim.close()


def test_a_merge_without_room_waits_and_the_daemon_starts_all_the_same(folder: Path, quiet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = site(folder)
    until_complete(sim)

    def full(data: bytes) -> str:
        raise StorageFull("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(sim.daemon.blobs, "put", full)
        sim.daemon.merge()
        sim.daemon.start()
        assert not [fact for fact in sim.facts if isinstance(fact, RoundMerged | JobEnded)]
    sim.run(ticks=TICKS, surplus_w=lambda _: 1000.0)
    assert sim.final_digest() == quiet
    sim.close()


def test_cancelled_in_the_middle_of_a_merge_a_job_stays_cancelled(folder: Path) -> None:
    """The merge has read its units; then the owner cancels; then the merge is written down."""
    sim = site(folder)
    until_complete(sim)
    with sim.daemon.store.read() as tx:
        (rnd,) = advance.ready_to_merge(tx)
    sim.call(partial(admit.cancel, job_id="sim"))
    sim.daemon.merger.merge(rnd)
    sim.daemon.merge()
    with sim.daemon.store.read() as tx:
        assert (tx.must(Job, "sim").state, tx.must(Job, "sim").version) == (JobState.CANCELLED, 0)
        check_invariants(tx)
    sim.close()
