"""The timetable keeps its pace whatever a provider does, and tidying looks at what it must and nothing more."""

import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from gridsched.daemon import Daemon
from gridsched.testing import ManualClock, Simulation


def test_providers_that_sleep_hold_up_no_control_tick(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sim = Simulation(folder)
    wake, ticked = threading.Event(), threading.Semaphore(0)
    asleep = [SimpleNamespace(name=f"s{n}", every=sim.step, poll=lambda *_: wake.wait(30)) for n in range(24)]
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
