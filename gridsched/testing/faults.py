"""Faults as values keyed by logical time: which node, at which step of which unit, which message. Each is counted.

``FaultPlan().crash("pc", step=40).drop("update", node="pi", round=3).kill_daemon(call=17)``; `assert_all_fired` closes the test.
"""

import random
from dataclasses import dataclass, field, replace

__all__ = ["Fault", "FaultPlan"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """``what`` is crash, drop, repeat, delay, opt_out, kill_daemon or spoil; None fields match anything. Fires ``times`` times."""

    what: str
    node: str | None = None
    message: str | None = None
    round: int | None = None
    step: int | None = None
    call: int | None = None
    times: int = 1

    def matches(self, **seen: object) -> bool:
        """Whether everything this fault names is as seen; ``step`` and ``call`` match from there on."""
        for name in ("node", "message", "round"):
            wanted = getattr(self, name)
            if wanted is not None and seen.get(name) != wanted:
                return False
        return all(getattr(self, name) is None or _at_least(seen.get(name), getattr(self, name)) for name in ("step", "call"))


def _at_least(seen: object, wanted: int) -> bool:
    return isinstance(seen, int) and seen >= wanted


@dataclass(slots=True)
class FaultPlan:
    """The faults of one run, in the order they were named, and what has fired so far."""

    seed: int = 0
    faults: list[Fault] = field(default_factory=list)
    fired: list[Fault] = field(default_factory=list)

    def add(self, fault: Fault) -> "FaultPlan":
        """One more fault."""
        self.faults.append(fault)
        return self

    def crash(self, node: str, *, step: int, round: int | None = None) -> "FaultPlan":  # noqa: A002 - the vocabulary's word
        """The node's agent and worker die once they have reached ``step`` of a unit (of ``round``)."""
        return self.add(Fault(what="crash", node=node, step=step, round=round))

    def opt_out(self, node: str, *, step: int, round: int | None = None) -> "FaultPlan":  # noqa: A002 - the vocabulary's word
        """The consumer opts out at ``step`` of a unit, and back in later."""
        return self.add(Fault(what="opt_out", node=node, step=step, round=round))

    def drop(self, message: str, *, node: str, round: int | None = None, times: int = 1) -> "FaultPlan":  # noqa: A002
        """The daemon never hears ``message`` (sync, update, hand_over) of the node."""
        return self.add(Fault(what="drop", message=message, node=node, round=round, times=times))

    def lose_answer(self, message: str, *, node: str, times: int = 1) -> "FaultPlan":
        """The daemon hears and acts, but the node never gets the answer, so it sends the message again."""
        return self.add(Fault(what="lose_answer", message=message, node=node, times=times))

    def kill_daemon(self, *, call: int) -> "FaultPlan":
        """The daemon dies before its ``call``-th verb and is started again."""
        return self.add(Fault(what="kill_daemon", call=call))

    def fires(self, what: str, **seen: object) -> bool:
        """Whether a fault of this kind is due now; it is used up by saying so."""
        for place, fault in enumerate(self.faults):
            if fault.what == what and fault.matches(**seen):
                self.fired.append(fault)
                if fault.times <= 1:
                    del self.faults[place]
                else:
                    self.faults[place] = replace(fault, times=fault.times - 1)
                return True
        return False

    def assert_all_fired(self) -> None:
        """Fail where a fault was never reached: the test did not test what it says."""
        assert not self.faults, f"these faults never fired: {self.faults}"

    @classmethod
    def random(cls, seed: int, *, nodes: list[str], steps: int, rounds: int, calls: int, faults: int = 8) -> "FaultPlan":
        """A seeded mix of all kinds of fault. Some may not be reached: use `fired` to see which were."""
        draw = random.Random(seed)  # noqa: S311 - a test plan, not a secret
        plan = cls(seed=seed)
        for _ in range(faults):
            node, step, number = draw.choice(nodes), draw.randrange(steps), draw.randrange(rounds)
            kind = draw.choice(["crash", "opt_out", "drop", "lose_answer", "kill_daemon"])
            if kind == "crash":
                plan.crash(node, step=step, round=number)
            elif kind == "opt_out":
                plan.opt_out(node, step=step, round=number)
            elif kind == "drop":
                plan.drop(draw.choice(["sync", "update", "hand_over"]), node=node, times=draw.randrange(1, 4))
            elif kind == "lose_answer":
                plan.lose_answer(draw.choice(["update", "hand_over"]), node=node)
            else:
                plan.kill_daemon(call=draw.randrange(calls))
        return plan
