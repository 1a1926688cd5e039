"""Stored files that are gone or damaged when a round is merged: the work is done again, or the job says why it ends. Nobody else waits."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gridsched.core.errors import NotFound, StorageFull
from gridsched.core.facts import JobEnded, RoundMerged, UpdateRejected
from gridsched.core.job import Job, JobState
from gridsched.core.method import Codec, Method, OuterOptimizer
from gridsched.core.round import Version
from gridsched.core.settings import Trust
from gridsched.core.work import UnitState, WorkUnit
from gridsched.flow import admit, advance
from gridsched.merging import Merger
from gridsched.testing import Simulation, check_invariants
from gridsched.train.merge import merge_version
from gridsched.train.tensors import Source, version_digest
from gridsched.train.version import advanced

TICKS = 300
PLAIN: dict[str, Any] = {"epochs": 2, "batch_size": 8, "samples_per_unit": 64, "units_per_round": 2}
DILOCO: dict[str, Any] = {"outer": OuterOptimizer(name="nesterov", lr=0.7, momentum=0.9), "codec": Codec.INT8, "down": Codec.INT8}


def site(folder: Path, **method: Any) -> Simulation:
    sim = Simulation(folder)
    sim.add_node("pc", power_w=180.0, steps_per_s=0.20)
    sim.add_node("old", power_w=110.0, steps_per_s=0.20)
    sim.add_job(samples=128, test_samples=0, method=Method(**PLAIN | method))
    return sim


def until_complete(sim: Simulation, round_id: str = "sim.r0") -> list[str]:
    """Tick until the round waits for its merge, which is held back; the updates' digests."""
    for _ in range(TICKS):
        with sim.daemon._merging:
            sim.run_once(1000.0)
        with sim.daemon.store.read() as tx:
            ready = [rnd.round_id for rnd in advance.ready_to_merge(tx)]
            if round_id in ready:
                return [unit.update or "" for unit in tx.find(WorkUnit, round_id=round_id)]
        if ready:
            sim.daemon.merge()
    raise AssertionError(f"round {round_id} did not become complete")


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


@pytest.mark.parametrize("harm", [lose, flip])
def test_a_job_whose_outer_state_is_gone_ends_and_says_so(folder: Path, harm: Callable[[Path], None]) -> None:
    sim = site(folder, **DILOCO)
    until_complete(sim, "sim.r1")
    with sim.daemon.store.read() as tx:
        harm(sim.daemon.blobs.path(tx.must(Version, "sim", 1).outer or ""))
    sim.daemon.merge()
    (ended,) = [fact for fact in sim.facts if isinstance(fact, JobEnded)]
    assert (ended.job_id, ended.state) == ("sim", "failed")
    assert "sim.r1" in ended.reason
    with sim.daemon.store.read() as tx:
        check_invariants(tx)
    sim.close()


def test_a_lost_step_ends_nothing(folder: Path) -> None:
    sim = site(folder, **DILOCO)
    until_complete(sim, "sim.r1")
    with sim.daemon.store.read() as tx:
        lose(sim.daemon.blobs.path(tx.must(Version, "sim", 1).step or ""))
    sim.run(ticks=TICKS, surplus_w=lambda _: 1000.0)
    with sim.daemon.store.read() as tx:
        assert tx.must(Job, "sim").state is JobState.DONE
    sim.close()


@pytest.mark.parametrize("outer", [OuterOptimizer(), OuterOptimizer(momentum=0.9), OuterOptimizer(name="adam"), DILOCO["outer"]])
def test_every_version_its_outer_state_and_its_step_follow_from_the_journal(folder: Path, outer: OuterOptimizer) -> None:
    """The audit: from version 0 and the updates that each row names, merged again somewhere else."""
    sim = site(folder, **DILOCO | {"outer": outer})
    sim.run(ticks=TICKS, surplus_w=lambda _: 1000.0)
    blobs = sim.daemon.blobs
    with sim.daemon.store.read() as tx:
        job, rows = tx.must(Job, "sim"), tx.find(Version, job_id="sim")
    version: Source = blobs.path(job.spec.initial)
    state: Source | None = None
    for row in rows[1:]:
        updates = [(unit_id, float(samples), blobs.path(update)) for unit_id, update, samples in row.updates]
        made = merge_version(version, updates, job.spec.method, state)
        assert made.step is not None
        assert made.outer is not None
        assert (version_digest(made.version), version_digest(made.outer)) == (row.digest, row.outer)
        assert (version_digest(made.step), len(made.step)) == (row.step, row.step_bytes)
        assert advanced(version, [made.step]) == made.version
        version, state = made.version, made.outer
    assert len(rows) == 3
    sim.close()


def test_a_merge_without_room_waits_and_the_daemon_starts_all_the_same(folder: Path, quiet: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = site(folder)
    until_complete(sim)

    def full(data: bytes | memoryview) -> str:
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


def cut(file: Path) -> None:
    """As a crash or a bad disk may leave it."""
    file.write_bytes(file.read_bytes()[:-100])


@pytest.mark.parametrize("harm", [lose, cut, flip])
def test_a_version_that_the_daemon_has_lost_is_no_fault_of_the_update_and_ends_the_job(folder: Path, harm: Callable[[Path], None]) -> None:
    sim = site(folder)
    update = until_complete(sim)[0]
    with sim.daemon.store.read() as tx:
        unit = tx.find(WorkUnit, round_id="sim.r0")[0]
    harm(sim.daemon.blobs.path(unit.spec.base))
    sim.daemon.merger._specs.clear()  # as after a restart
    with pytest.raises(NotFound, match="version 0 of job sim is lost"):
        sim.daemon.merger.check(unit, update)
    with sim.daemon.store.read() as tx:
        job = tx.must(Job, "sim")
    assert job.state is JobState.FAILED
    assert unit.spec.base in job.reason
    sim.close()


@pytest.mark.parametrize("harm", [lose, cut])
def test_an_update_that_was_merged_long_ago_is_needed_by_nobody(folder: Path, harm: Callable[[Path], None]) -> None:
    sim = Simulation(folder, trust=Trust(audits=True, share=0.0, probation=0))
    for name in ("pc", "old"):
        sim.add_node(name, power_w=100.0, steps_per_s=0.2)
    sim.add_job(samples=128, test_samples=0, method=Method(**PLAIN))
    old = until_complete(sim)[0]
    sim.daemon.merge()
    harm(sim.daemon.blobs.path(old))
    assert sim.daemon.merger.screen is not None
    sim.daemon.merger.screen._traces.clear()  # as after a restart
    sim.run(ticks=TICKS, surplus_w=lambda _: 1000.0)
    with sim.daemon.store.read() as tx:
        assert tx.must(Job, "sim").state is JobState.DONE
    sim.close()


def test_a_round_completed_while_another_is_merged_does_not_wait_for_the_timetable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = site(folder)
    looks: list[int] = []

    def ready(_: Merger) -> list[str]:
        looks.append(len(looks))
        if len(looks) == 1:
            sim.daemon.merge()  # a commit that comes after this look
        return []

    monkeypatch.setattr(Merger, "merge_ready", ready)
    sim.daemon.merge()
    assert looks == [0, 1]
    sim.close()
