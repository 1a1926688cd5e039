"""``gridsched report epochs``: what a small job took is not rounded away."""

from rich.console import Console

from gridsched.cli.report import epoch_table
from gridsched.core.round import Epoch
from gridsched.testing.clock import ManualClock


def test_a_small_job_s_energy_and_reward_are_told_as_exactly_as_they_are_booked() -> None:
    epoch = Epoch(
        job_id="j", number=0, started_at=ManualClock().now(), useful_j=97.2, wasted_j=10.8, idle_j=3.6, reward_micro=8, cost_micro=1
    )
    console = Console(width=120, record=True)
    console.print(epoch_table([epoch]))
    told = console.export_text()
    assert all(figure in told for figure in ("0.027", "0.003", "0.001", "0.000008", "0.000001"))
