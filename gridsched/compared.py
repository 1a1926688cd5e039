"""Jobs and ensembles side by side: what they reached, and what it took. From the daemon's own books, by epoch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gridsched.core.units import MICRO, kwh
from gridsched.remote import Operator
from gridsched.trained import download, evaluate, held_out, jobs_of

__all__ = ["Course", "Point", "at_equal_energy", "course"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Where a training stood at the end of an epoch: all energy drawn so far, useful or not, and the hours since it was submitted."""

    epoch: int
    energy_wh: float
    hours: float
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """A training from its submission on. ``points`` are its ended epochs; energies are sums over these and over all members.

    ``down_bytes`` is what a node that takes part in every round fetches: each version, or the step to it where that is smaller.
    ``rule`` is how an ensemble's last accuracy was found; before it there is none.
    """

    name: str
    method: str
    members: int
    state: str
    versions: int
    points: tuple[Point, ...]
    useful_wh: float
    wasted_wh: float
    idle_wh: float
    reward_eur: float
    cost_eur: float
    down_bytes: int
    rule: str = ""

    @property
    def best_accuracy(self) -> float | None:
        """The highest of all epochs, None where nothing was evaluated."""
        return max((point.accuracy for point in self.points if point.accuracy is not None), default=None)

    @property
    def final(self) -> Point | None:
        """The last ended epoch."""
        return self.points[-1] if self.points else None

    def accuracy_within(self, energy_wh: float) -> float | None:
        """The highest accuracy reached on no more energy than that."""
        within = [point.accuracy for point in self.points if point.accuracy is not None and point.energy_wh <= energy_wh]
        return max(within, default=None)


def course(operator: Operator, name: str, *, device: str = "cpu") -> Course:
    """Read a job's course. An ensemble's last accuracy is tried on this machine, by every rule, and the best one counts: needs torch."""
    jobs = jobs_of(operator, name)
    epochs = [operator.get(f"/v1/jobs/{job['job_id']}/epochs") for job in jobs]
    versions = [operator.get(f"/v1/jobs/{job['job_id']}/versions") for job in jobs]
    ended = [row for rows in epochs for row in rows if row["ended_at"] is not None]
    alone = jobs[0]["job_id"] == name
    begun = min(datetime.fromisoformat(job["submitted_at"]) for job in jobs)
    found = Course(
        name=name,
        method=jobs[0]["spec"]["method"]["name"] or "own settings",
        members=len(jobs),
        state=", ".join(sorted({job["state"] for job in jobs})),
        versions=sum(job["version"] for job in jobs),
        points=_points(ended, begun, alone=alone),
        useful_wh=_wh(ended, "useful_j"),
        wasted_wh=_wh(ended, "wasted_j"),
        idle_wh=_wh(ended, "idle_j"),
        reward_eur=sum(row["reward_micro"] for row in ended) / MICRO,
        cost_eur=sum(row["cost_micro"] for row in ended) / MICRO,
        down_bytes=sum(row["step_bytes"] or row["size_bytes"] for rows in versions for row in rows),
    )
    return found if alone or not found.points else _tried(operator, found, device)


def _tried(operator: Operator, found: Course, device: str) -> Course:
    model = download(operator, found.name, device=device)
    tried = evaluate(model, held_out(operator, model.jobs))
    made = tried.by_rule[tried.best]
    last = replace(found.points[-1], accuracy=made.accuracy, loss=made.loss)
    return replace(found, points=(*found.points[:-1], last), rule=tried.best)


def _points(ended: Sequence[Json], begun: datetime, *, alone: bool) -> tuple[Point, ...]:
    """By epoch; an ensemble's ends when its last member's does."""
    points: list[Point] = []
    energy_wh = 0.0
    for number in sorted({row["number"] for row in ended}):
        rows = [row for row in ended if row["number"] == number]
        energy_wh += sum(_wh(rows, use) for use in ("useful_j", "wasted_j", "idle_j"))
        hours = max((datetime.fromisoformat(row["ended_at"]) - begun).total_seconds() for row in rows) / 3600
        accuracy, loss = (rows[0]["accuracy"], rows[0]["loss"]) if alone else (None, None)
        points.append(Point(epoch=number, energy_wh=energy_wh, hours=hours, accuracy=accuracy, loss=loss))
    return tuple(points)


def _wh(rows: Sequence[Json], use: str) -> float:
    return 1000 * kwh(sum(row[use] for row in rows))


def at_equal_energy(courses: Sequence[Course]) -> tuple[float, str] | None:
    """The energy that all of them had, in Wh, and the one that was most accurate on it; None where one was not metered or evaluated."""
    lasts = [one.final for one in courses if one.best_accuracy is not None]
    energy_wh = min((last.energy_wh for last in lasts if last is not None), default=0.0)
    if len(lasts) < len(courses) or energy_wh <= 0:
        return None
    return energy_wh, max(courses, key=lambda one: one.accuracy_within(energy_wh) or 0.0).name
