"""What switching nodes off and on does to a training: its model, its time and its energy, against peace and against one node alone."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gridsched import owner
from gridsched.core.cut import total_rounds
from gridsched.core.errors import GridschedError
from gridsched.study.fleet import Fleet, share_of
from gridsched.study.switching import How, Switching

__all__ = ["Arm", "Outcome", "arms", "carry_out", "outcome", "per_epoch"]

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

    Energies are all that was drawn, also in an epoch that time ran out in, as `per_epoch` spreads it over the ``ended`` ones, in joules;
    what a unit under way has drawn is in no epoch's books yet. ``audit_j`` is the part of ``wasted_j`` that went into units of nodes not
    yet trusted, done again elsewhere and compared. ``cuts`` counts the times that a node lost its power.
    """

    arm: str
    nodes: int
    every_s: float | None
    how: str
    accuracy: float | None
    digest: str
    done: float
    ended: int
    wall_s: float
    useful_j: float
    wasted_j: float
    idle_j: float
    cuts: int
    audit_j: float = 0.0

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
        wall_s = time.monotonic() - began
        epochs, versions = _books(arm, fleet, job_id)
        return outcome(arm, epochs, versions, rounds=total_rounds(job.spec), wall_s=wall_s, cuts=fleet.cuts)


def _switch(fleet: Fleet, switching: Switching | None, elapsed_s: float) -> None:
    for number, name in enumerate(fleet.names):
        if switching is None:
            continue
        on = switching.on(number, elapsed_s)
        if switching.how is How.OPT_OUT:
            fleet.opt(name, into=on)
        else:
            fleet.power(name, on=on)


def _books(arm: Arm, fleet: Fleet, job_id: str) -> tuple[Sequence[dict[str, Any]], Sequence[dict[str, Any]]]:
    """The job's epochs and versions."""
    state, epochs, versions = fleet.job(job_id)
    if state["state"] not in ("running", "done"):
        raise GridschedError(f"{arm.name}: the job is {state['state']}: {state['reason']}; the logs are in {fleet.stage.folder / 'logs'}")
    return epochs, versions


def outcome(
    arm: Arm, epochs: Sequence[Mapping[str, Any]], versions: Sequence[Mapping[str, Any]], *, rounds: int, wall_s: float, cuts: int
) -> Outcome:
    """What the daemon tells of a job's ``epochs`` and ``versions``, as an outcome."""
    ended = [epoch for epoch in epochs if epoch["ended_at"]]
    newest = max(versions, key=lambda version: int(version["number"]))
    evaluated = [epoch["accuracy"] for epoch in ended if epoch["accuracy"] is not None]

    def drawn(use: str) -> float:
        return per_epoch(sum(epoch[use] for epoch in epochs), len(ended))

    return Outcome(
        arm=arm.name,
        nodes=arm.nodes,
        every_s=arm.switching.every_s if arm.switching else None,
        how=arm.switching.how.value if arm.switching else "",
        accuracy=evaluated[-1] if evaluated else None,
        digest=str(newest["digest"]),
        done=int(newest["number"]) / rounds,
        ended=len(ended),
        wall_s=wall_s,
        useful_j=drawn("useful_j"),
        wasted_j=drawn("wasted_j"),
        idle_j=drawn("idle_j"),
        audit_j=drawn("audit_j"),
        cuts=cuts,
    )


def per_epoch(energy_j: float, ended: int) -> float:
    """All the energy of a run over the epochs that ended, and all of it where none has: the same rule for ours and for every peer's."""
    return energy_j / max(ended, 1)
