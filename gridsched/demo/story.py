"""The scripted day: who opts out, who is killed, and when, counted in work done rather than in time.

`next_cues` is pure: the same script and the same scene give the same cues. The seed moves the incidents about; what the training
ends in must not depend on it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from gridsched.demo.scene import NodeRow, Scene

__all__ = ["Act", "Cue", "Incident", "next_cues", "write_story"]


class Act(StrEnum):
    """What is done to a node, or to the daemon, from outside."""

    OPT_OUT = "opt_out"
    OPT_IN = "opt_in"
    KILL = "kill"
    REVIVE = "revive"
    KILL_DAEMON = "kill_daemon"


@dataclass(frozen=True, slots=True, kw_only=True)
class Incident:
    """``act`` happens once ``after_units`` training units are accepted and ``node`` is past ``share`` of one; ``back`` undoes it.

    It is undone once ``away_units`` further units are accepted, or after ``away_longest`` of the replayed day: a node that is
    missed must not keep a round open. ``node`` is empty for the daemon, which is back by itself.
    """

    act: Act
    after_units: int
    node: str = ""
    share: float = 0.0
    back: Act | None = None
    away_units: int = 0
    away_longest: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cue:
    """``act`` on ``node`` now; ``incident`` is its place in the script, ``units`` and ``at`` when it was given."""

    incident: int
    act: Act
    node: str
    units: int
    at: datetime


def write_story(nodes: Sequence[str], units: int, *, seed: int, kill_daemon: bool = False) -> tuple[Incident, ...]:
    """Two incidents for two different ``nodes`` of a job of ``units`` training units; a third one for the daemon if asked for.

    ``nodes`` are given the fastest first, which is left alone: its units are over too soon to be struck in the middle.
    """
    chance = random.Random(seed)  # noqa: S311 - a script, not a secret
    leaver, victim = chance.sample(list(nodes[1:]), 2)
    script = [
        Incident(
            act=Act.OPT_OUT,
            node=leaver,
            after_units=_about(chance, units, 0.12),
            share=chance.uniform(0.15, 0.4),
            back=Act.OPT_IN,
            away_units=max(units // 8, 1),
            away_longest=timedelta(hours=2),
        ),
        Incident(
            act=Act.KILL,
            node=victim,
            after_units=_about(chance, units, 0.4),
            share=chance.uniform(0.15, 0.4),
            back=Act.REVIVE,
            away_units=max(units // 8, 1),
            away_longest=timedelta(hours=3),
        ),
    ]
    if kill_daemon:
        script.append(Incident(act=Act.KILL_DAEMON, after_units=_about(chance, units, 0.28)))
    return tuple(script)


def next_cues(script: Sequence[Incident], given: Mapping[int, Sequence[Cue]], scene: Scene) -> list[Cue]:
    """What is due now. ``given`` are the cues so far by incident; each incident has at most two, its act and its way back."""
    due = []
    for number, incident in enumerate(script):
        before = given.get(number, ())
        act = _due(incident, before, scene)
        if act is not None:
            due.append(Cue(incident=number, act=act, node=incident.node, units=scene.units, at=scene.now))
    return due


def _due(incident: Incident, before: Sequence[Cue], scene: Scene) -> Act | None:
    if not before:
        return incident.act if _ripe(incident, scene) else None
    if incident.back is None or len(before) > 1:
        return None
    begun = before[0]
    enough = scene.units >= begun.units + incident.away_units or scene.now >= begun.at + incident.away_longest
    return incident.back if enough or scene.job_state != "running" else None


def _ripe(incident: Incident, scene: Scene) -> bool:
    if scene.units < incident.after_units or scene.job_state != "running":
        return False
    if not incident.node:
        return True
    row = scene.node(incident.node)
    return row is not None and _in_the_middle(row, incident.share)


def _in_the_middle(row: NodeRow, share: float) -> bool:
    """Far enough into a unit, but not so near its end that it would be over before anyone acts."""
    return row.training and share <= row.step / row.steps <= 0.7


def _about(chance: random.Random, units: int, share: float) -> int:
    return max(round(units * (share + chance.uniform(-0.04, 0.04))), 1)
