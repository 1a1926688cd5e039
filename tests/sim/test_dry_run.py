"""A dry run decides and explains as ever, and grants nothing; what was granted before is paused."""

from datetime import timedelta
from pathlib import Path

from gridsched.core.facts import Fact, LeaseOffered, LeaseResumed, PolicyDecided
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.policy import Decision
from gridsched.core.signal import SignalKind
from gridsched.daemon import Daemon
from gridsched.testing import ManualClock, Simulation
from gridsched.web import views


def dry(sim: Simulation) -> Daemon:
    """The site's daemon started again, dry."""
    sim.daemon.close()
    clock = ManualClock(sim.clock.now())
    daemon = Daemon(sim.settings, clock=clock, executor=sim.heavy, dry_run=True)
    daemon.start()
    return daemon


def test_nothing_is_granted_and_decisions_say_so(folder: Path) -> None:
    sim = Simulation(folder)
    sim.add_node("pc", power_w=100.0, steps_per_s=0.1)
    sim.add_node("old", power_w=100.0, steps_per_s=0.1)
    sim.add_job()
    for _ in range(3):
        sim.run_once(150.0)
    with sim.daemon.store.read() as tx:
        assert [lease.state for lease in tx.find(Lease, state=LIVE)] == [LeaseState.ACTIVE], "150 W are for one of them"
    sim.clock.advance(timedelta(minutes=2))
    sim.signal(SignalKind.SURPLUS, 1000.0)
    daemon = dry(sim)
    heard: list[Fact] = []
    daemon.writer.on_commit = heard.extend
    for task in daemon.timetable():
        if task.name.startswith(("plan", "control", "drain", "sweep", "merge")):
            task.call()
    with daemon.store.read() as tx:
        [last] = tx.find(Decision, order="-decided_at", limit=1)
        assert last.target_w == 1000.0
        assert last.detail.startswith("dry run, nothing is granted: ")
        assert [lease.state for lease in tx.find(Lease, state=LIVE)] == [LeaseState.PAUSED]
        told = views.status(tx, daemon.policies.by_zone.values(), now=daemon.clock.now(), speed=1.0, dry_run=daemon.rules.dry_run)
    assert told["dry_run"] is True
    assert not [fact for fact in heard if isinstance(fact, (LeaseOffered, LeaseResumed))]
    assert [fact.detail[:7] for fact in heard if isinstance(fact, PolicyDecided)] == ["dry run"]
    daemon.close()
