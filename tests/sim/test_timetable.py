"""The timetable keeps its pace whatever a provider does, and tidying looks at what it must and nothing more."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from gridsched.core.errors import Busy, ConfigError
from gridsched.core.facts import LeaseOffered
from gridsched.core.lease import Lease
from gridsched.core.settings import Replay, Settings, Site
from gridsched.core.signal import SignalKind
from gridsched.core.timing import JobSchedule
from gridsched.daemon import Daemon, open_clock
from gridsched.testing import ManualClock, Simulation


def test_providers_that_sleep_hold_up_no_control_tick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(folder)
    wake, ticked = threading.Event(), threading.Semaphore(0)
    asleep = [SimpleNamespace(name=f"s{n}", pace=sim.step, poll=lambda *_: wake.wait(30)) for n in range(24)]
    monkeypatch.setattr(sim.daemon, "sources", asleep)
    monkeypatch.setattr(Daemon, "control", lambda *_: ticked.release())
    sim.daemon.clock = ManualClock(speed=600.0)  # a tick every 0.1 s
    scheduler = sim.daemon._schedule()
    try:
        assert all(ticked.acquire(timeout=10) for _ in range(3))
    finally:
        wake.set()
        scheduler.shutdown(wait=True)
        sim.close()


def test_tidying_opens_manifests_alone(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions and updates may be many gigabytes; none of them names other files."""
    sim = Simulation(folder)
    spec = sim.add_job()
    read: list[str] = []
    get = sim.daemon.blobs.get

    def counted(digest: str) -> bytes:
        read.append(digest)
        return get(digest)

    monkeypatch.setattr(sim.daemon.blobs, "get", counted)
    sim.daemon.tidy()
    assert sorted(read) == sorted({spec.dataset, str(spec.test_dataset)})
    sim.close()


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_bytes(b"{}")], ids=["gone", "damaged"])
def test_while_a_manifest_cannot_be_read_the_shards_it_may_name_stay(
    folder: Path, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    sim = Simulation(folder)
    spec = sim.add_job()
    sim.daemon.blobs.put(b"a shard, which the manifest alone names")
    stored = set(sim.daemon.blobs.digests())
    damage(sim.daemon.blobs.path(spec.dataset))
    sim.clock.advance(sim.daemon.settings.blobs.keep + timedelta(days=1))
    for _ in range(2):
        sim.daemon.tidy()
    assert set(sim.daemon.blobs.digests()) == stored - {spec.dataset}
    assert spec.dataset in caplog.text
    sim.close()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"replay_from": "x"}'])
def test_a_damaged_anchor_of_a_replay_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    replay = Replay(replay_from=datetime(2018, 1, 28, tzinfo=UTC), speed=60.0)
    settings = Settings(folder=tmp_path, site=Site(data=tmp_path / "data"), clock=replay)
    anchor = settings.site.data / "replay.json"
    open_clock(settings)
    anchor.write_text(text)
    with pytest.raises(ConfigError, match=r"replay\.json is damaged .*; delete it"):
        open_clock(settings)


def test_new_work_and_a_new_hand_do_not_wait_for_the_next_tick(folder: Path) -> None:
    sim = Simulation(folder)
    sim.add_node("pc", power_w=100.0, steps_per_s=0.1)
    sim.signal(SignalKind.SURPLUS, 500.0)
    sim.tick()
    sim.add_job()
    sim.call(lambda tx, now: [])  # the writer takes its turn in order: planning has been done before this
    assert [o.node_id for o in sim.facts if isinstance(o, LeaseOffered)] == ["pc"]
    late = sim.add_node("old", power_w=100.0, steps_per_s=0.1, opt_in=False)
    sim.tick()
    assert [o.node_id for o in sim.facts if isinstance(o, LeaseOffered)] == ["pc"]
    sim._choose(late, opted_in=True)
    sim.call(lambda tx, now: [])
    assert [o.node_id for o in sim.facts if isinstance(o, LeaseOffered)] == ["pc", "old"]
    sim.close()


def test_a_plan_that_the_database_fails_or_the_queue_has_no_room_for_is_not_the_last_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = Simulation(folder)
    sim.add_node("pc", power_w=100.0, steps_per_s=0.1)
    sim.signal(SignalKind.SURPLUS, 500.0)
    sim.tick()

    def fails(*_: object) -> Any:
        raise Busy("the database does not answer")

    for part, name in ((sim.daemon.store, "write"), (sim.daemon.writer, "submit")):
        with monkeypatch.context() as trouble:
            trouble.setattr(part, name, fails)
            sim.daemon._plan_now()
            with pytest.raises(Busy):
                sim.call(lambda tx, now: [])  # what was asked for before is over
    sim.add_job()
    for _ in range(2):  # the first one comes after the news of the job, the second after the plan
        sim.call(lambda tx, now: [])
    with sim.daemon.store.read() as tx:
        assert [lease.node_id for lease in tx.find(Lease)] == ["pc"]
    sim.close()


def test_polls_are_spread_by_a_tenth_of_their_pace_on_the_clock_they_run_by(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(folder)
    monkeypatch.setattr(sim.daemon, "sources", [SimpleNamespace(name="s", pace=timedelta(minutes=5), poll=lambda *_: None)])
    sim.daemon.clock = ManualClock(speed=10.0)
    scheduler = sim.daemon._schedule()
    try:
        jitter = {job.id: job.trigger.jitter for job in scheduler.get_jobs()}
        assert jitter["poll s"] == pytest.approx(3.0)
        assert jitter["sweep"] == 0.0
    finally:
        scheduler.shutdown(wait=True)
        sim.close()


def test_a_new_job_s_hours_are_chosen_at_once(folder: Path) -> None:
    sim = Simulation(folder)
    sim.add_job(deadline=sim.clock.now() + timedelta(hours=5))
    sim.heavy.run_all()
    with sim.daemon.store.read() as tx:
        assert [schedule.job_id for schedule in tx.find(JobSchedule)] == ["sim"]
    sim.close()
