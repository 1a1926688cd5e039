"""A daemon that was away: what it does by its own rules when it is back."""

from datetime import timedelta
from pathlib import Path

import pytest

from gridsched.core.policy import Decision, Reason
from gridsched.core.settings import Control
from gridsched.testing import Simulation
from gridsched.testing.simulation import POLICY

PATIENT = POLICY.replace("stop = 0", 'stop = 0, for = "10m"')


@pytest.mark.parametrize(("hand_over_after", "reason"), [(10, Reason.WAITING_START_DELAY), (180, Reason.SURPLUS)])
def test_how_long_it_may_be_away_and_still_know_follows_from_its_settings(folder: Path, hand_over_after: int, reason: Reason) -> None:
    sim = Simulation(folder, policy=PATIENT, control=Control(hand_over_after=timedelta(minutes=hand_over_after)))
    sim.run_once(500.0)
    sim.clock.advance(timedelta(hours=2))
    sim.run_once(500.0)
    with sim.daemon.store.read() as tx:
        (last,) = tx.find(Decision, order="-decided_at", limit=1)
    assert last.reason is reason
    sim.close()
