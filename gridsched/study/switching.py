"""When each node is on, in a study where all of them are switched off and on again and again."""

from dataclasses import dataclass
from enum import StrEnum

from gridsched.core.errors import InvalidInput

__all__ = ["How", "Switching"]


class How(StrEnum):
    """``opt-out``: its owner opts out and in again, as with the switch on a page. ``power-cut``: all its processes get ``kill -9``."""

    OPT_OUT = "opt-out"
    POWER_CUT = "power-cut"


@dataclass(frozen=True, slots=True, kw_only=True)
class Switching:
    """Each of ``nodes`` is on for ``every_s`` seconds and off for as long, in turns spread evenly: about half are on at any time."""

    nodes: int
    every_s: float
    how: How = How.OPT_OUT

    def __post_init__(self) -> None:
        if not self.every_s > 0:
            raise InvalidInput(f"switching every {self.every_s} s is no time; give a number above 0")

    def on(self, node: int, elapsed_s: float) -> bool:
        """Whether node number ``node`` (from 0) is on ``elapsed_s`` seconds after the beginning."""
        phase_s = 2 * self.every_s * node / self.nodes
        return (elapsed_s + phase_s) % (2 * self.every_s) < self.every_s
