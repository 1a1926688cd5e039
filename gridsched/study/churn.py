"""What switching nodes off and on does to a training: its model, its time and its energy, against peace and against one node alone."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gridsched import owner
from gridsched.core.cut import total_rounds
from gridsched.core.errors import GridschedError
from gridsched.study.fleet import Fleet, share_of
from gridsched.study.switching import How, Switching

__all__ = ["Arm", "Outcome", "arms", "carry_out"]

_LOOK_S = 0.1
_ASK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One run: ``nodes`` nodes, switched or (None) in peace."""

    name: str
    nodes: int
    switching: Switching | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What an arm came to. ``digest`` is the final version's; ``done`` is the share of rounds merged when time was up (1: all).

    Energies are means over the epochs that ended, in joules; ``cuts`` counts the times that a node lost its power.
    """

    arm: str
    nodes: int
    every_s: float | None
    how: str
    accuracy: float | None
    digest: str
    done: float
    wall_s: float
    useful_j: float
    wasted_j: float
    idle_j: float
    cuts: int

    def as_dict(self) -> dict[str, Any]:
        """Its fields by name."""
        return asdict(self)


def arms(nodes: int, *, opt_outs_s: Sequence[float], power_cuts_s: Sequence[float]) -> list[Arm]:
    """One node in peace, all of them in peace, and all of them switched every so many seconds, in either way."""
    made = [Arm(name="one node, in peace", nodes=1), Arm(name=f"{nodes} nodes, in peace", nodes=nodes)]
    for how, seconds, words in ((How.OPT_OUT, opt_outs_s, "opting out and in"), (How.POWER_CUT, power_cuts_s, "without power and with")):
        for every_s in seconds:
            switching = Switching(nodes=nodes, every_s=every_s, how=how)
            made.append(Arm(name=f"{nodes} nodes, {words} every {every_s:g} s", nodes=nodes, switching=switching))
    return made


def carry_out(arm: Arm, job: owner.Submission, folder: Path, *, fleet_size: int, at_most_s: float, told: Callable[[str], None]) -> Outcome:
    """Run ``arm`` in ``folder``. One that is not done after ``at_most_s`` is ended there and says how far it came.

    Every node is held to what it may use among ``fleet_size``, so that one node alone is no faster than as one of many.
    """
    with Fleet(folder, nodes=arm.nodes, share=share_of(fleet_size)) as fleet:
        if arm.switching is None or arm.switching.how is How.POWER_CUT:
            for name in fleet.names:
                fleet.opt(name, into=True)
        job_id = fleet.submit(job)
        began, asked = time.monotonic(), 0.0
        while True:
            elapsed = time.monotonic() - began
            _switch(fleet, arm.switching, elapsed)
            if time.monotonic() - asked >= _ASK_S:
                asked = time.monotonic()
                state, epochs, _ = fleet.job(job_id)
                ended = sum(1 for epoch in epochs if epoch["ended_at"])
                told(f"{arm.name}: {ended} of {job.spec.method.epochs} epochs, {elapsed:.0f} s")
                if state["state"] != "running" or elapsed > at_most_s:
                    break
            time.sleep(_LOOK_S)
        return _outcome(arm, fleet, job_id, rounds=total_rounds(job.spec), wall_s=time.monotonic() - began)


def _switch(fleet: Fleet, switching: Switching | None, elapsed_s: float) -> None:
    for number, name in enumerate(fleet.names):
        if switching is None:
            continue
        on = switching.on(number, elapsed_s)
        if switching.how is How.OPT_OUT:
            fleet.opt(name, into=on)
        else:
            fleet.power(name, on=on)


def _outcome(arm: Arm, fleet: Fleet, job_id: str, *, rounds: int, wall_s: float) -> Outcome:
    state, epochs, versions = fleet.job(job_id)
    if state["state"] not in ("running", "done"):
        raise GridschedError(f"{arm.name}: the job is {state['state']}: {state['reason']}; the logs are in {fleet.stage.folder / 'logs'}")
    ended = [epoch for epoch in epochs if epoch["ended_at"]]
    newest = max(versions, key=lambda version: int(version["number"]))
    evaluated = [epoch["accuracy"] for epoch in ended if epoch["accuracy"] is not None]

    def mean(use: str) -> float:
        return sum(epoch[use] for epoch in ended) / len(ended) if ended else 0.0

    return Outcome(
        arm=arm.name,
        nodes=arm.nodes,
        every_s=arm.switching.every_s if arm.switching else None,
        how=arm.switching.how.value if arm.switching else "",
        accuracy=evaluated[-1] if evaluated else None,
        digest=str(newest["digest"]),
        done=int(newest["number"]) / rounds,
        wall_s=wall_s,
        useful_j=mean("useful_j"),
        wasted_j=mean("wasted_j"),
        idle_j=mean("idle_j"),
        cuts=fleet.cuts,
    )
