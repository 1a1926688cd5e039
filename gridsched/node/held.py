"""The lease a node holds, and what has been done under it."""

from dataclasses import dataclass

from gridsched.node.channel import backoff_s
from gridsched.node.decide import Phase
from gridsched.node.pipe import Done, Progress, Train
from gridsched.wire import LeaseReport, Order

__all__ = ["Held"]

_DEATHS = 5


@dataclass(slots=True, kw_only=True)
class Held:
    """Changes as work goes on; ``since_s`` is when ``phase`` began, by the agent's monotonic clock.

    ``executed_before`` counts the steps of earlier runs under this lease, ``executed`` those of the present run less the
    ones that an earlier lease on the same unit was told of. ``saved``: the child rests and its middle is on disk.
    """

    order: Order
    run: int
    phase: Phase
    since_s: float
    reason: str = ""
    may_go_on: bool = False
    step: int = 0
    saved_step: int = 0
    executed: int = 0
    executed_before: int = 0
    worked_s: float = 0.0
    deaths: int = 0
    not_before_s: float = 0.0
    saved: bool = False

    @property
    def ready(self) -> bool:
        """Whether the unit can be handed over now: its middle is saved, or as much of it as ever will be."""
        return self.phase is Phase.HANDING_OVER and self.saved

    @property
    def steps_executed(self) -> int:
        """Steps run under this lease, repeated ones too."""
        return self.executed_before + self.executed

    def is_of(self, lease_id: str, generation: int) -> bool:
        """Whether this is that lease, in that generation."""
        return (self.order.lease_id, self.order.generation) == (lease_id, generation)

    def turn(self, phase: Phase, now_s: float, reason: str = "") -> None:
        """Be in ``phase`` from ``now_s`` on."""
        if phase is not self.phase:
            self.phase, self.since_s = phase, now_s
        self.reason = reason or self.reason

    def progress(self, event: Progress, now_s: float) -> None:
        """Take note of the child's word."""
        if event.executed > self.executed:
            self.deaths = 0
        self.step, self.executed, self.worked_s = event.step, event.executed, event.worked_s
        self.saved_step = max(self.saved_step, event.saved_step)
        self.saved = event.paused and not event.stuck
        if self.phase in (Phase.STARTING, Phase.RUNNING, Phase.PAUSED):
            self.turn(Phase.PAUSED if event.paused else Phase.RUNNING, now_s)

    def done(self, event: Done, now_s: float) -> None:
        """The unit is finished."""
        self.step, self.executed = self.order.unit.steps, event.executed
        self.turn(Phase.FINISHED, now_s)

    def rest(self, reason: str) -> None:
        """The child is told to rest."""
        self.may_go_on, self.reason = False, reason

    def go_on(self) -> None:
        """The child is told to go on; what it does from now on is not saved yet."""
        self.may_go_on, self.saved = True, False

    def died(self, now_s: float, words: str) -> None:
        """The child died unasked: another begins, at once the first time and then later each time, and none in the end."""
        self.deaths += 1
        self.may_go_on = False
        self.not_before_s = now_s + (backoff_s(self.deaths - 2) if self.deaths > 1 else 0.0)
        self.turn(Phase.REFUSED if self.deaths >= _DEATHS else Phase.SHELVED, now_s, words)

    def new_run(self, run: int, now_s: float) -> None:
        """A run begins anew, after the memory was freed or the child died."""
        self.executed_before += self.executed
        self.executed, self.worked_s, self.run = 0, 0.0, run
        self.may_go_on, self.saved = True, False
        self.turn(Phase.STARTING, now_s)

    def train(self, *, save_every_s: float, share: float) -> Train:
        """What the child is asked for in this run."""
        return Train(
            run=self.run,
            unit=self.order.unit,
            continuation=self.order.continuation,
            continuation_step=self.order.continuation_step,
            save_every_s=save_every_s,
            share=share,
        )

    def adopt(self, order: Order) -> None:
        """The same unit under a newer lease, which starts to count from here."""
        self.order = order
        self.executed_before = -self.executed

    def report(self, *, speed: float) -> LeaseReport:
        """What the daemon is told; ``speed`` is clock seconds per real second."""
        words = {Phase.STARTING: "starting", Phase.REFUSED: "refused"}
        resting = self.phase is not Phase.FINISHED and not self.may_go_on
        return LeaseReport(
            lease_id=self.order.lease_id,
            generation=self.order.generation,
            state=words.get(self.phase, "paused" if resting else "running"),
            step=self.step,
            steps_executed=self.steps_executed,
            saved_step=self.saved_step,
            speed=self.executed / (self.worked_s * speed) if self.worked_s > 0 else 0.0,
            reason=self.reason[:500],
        )
