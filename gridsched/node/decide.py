"""What the agent does next: a pure function of the daemon's order and of what is true on the node.

Orders say what should be, never what to do, so the agent compares and takes one step; asking again after that step is
harmless, and so are orders that arrive twice, late or out of turn.

What the owner and the device say comes before what the daemon says; silence of the daemon comes last: work that nobody
counts on any more is paused, never lost.
"""

from dataclasses import dataclass
from enum import StrEnum

from gridsched.core.fleet import DeviceState
from gridsched.wire import Order

__all__ = ["Action", "Local", "Move", "Phase", "next_action"]


class Phase(StrEnum):
    """Where the node is with its lease. ``shelved`` is paused with its memory freed; ``finished`` waits in the outbox."""

    NONE = "none"
    STARTING = "starting"
    RUNNING = "running"
    PAUSED = "paused"
    SHELVED = "shelved"
    HANDING_OVER = "handing_over"
    FINISHED = "finished"
    REFUSED = "refused"


class Move(StrEnum):
    """What the agent can do about its lease; ``adopt``: go on with the unit at hand under a newer lease."""

    NOTHING = "nothing"
    START = "start"
    GO_ON = "go_on"
    PAUSE = "pause"
    SHELVE = "shelve"
    ADOPT = "adopt"
    HAND_OVER = "hand_over"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One step and why; the reason is shown to the owner and sent along with a hand-over."""

    move: Move
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What is true here.

    ``opted_in`` is the owner's newest choice; ``silent``: the lease's time to live has passed without an answer; ``waited``: the
    start's delay is over; ``paused_s`` is in clock seconds; ``may_go_on`` is what the child is told now; ``saved``: it rests and what
    it has done is on disk.
    """

    phase: Phase = Phase.NONE
    lease_id: str = ""
    generation: int = 0
    unit_id: str = ""
    may_go_on: bool = False
    saved: bool = False
    opted_in: bool = True
    consent_ended: bool = False
    device: DeviceState = DeviceState.FREE
    silent: bool = False
    waited: bool = True
    leaving: bool = False
    paused_s: float = 0.0
    shelve_after_s: float = 600.0


_BUSY = (Phase.STARTING, Phase.RUNNING, Phase.PAUSED)


def next_action(order: Order | None, local: Local) -> Action:
    """The one step that brings the node nearer to ``order`` (None: no lease), and the reason for it."""
    if order is None:
        # A finished unit's lease is over only when the daemon has answered the update itself.
        idle = local.phase in (Phase.NONE, Phase.FINISHED)
        return Action(move=Move.NOTHING if idle else Move.DROP, reason="no_lease")
    if local.phase is not Phase.NONE and (order.lease_id, order.generation) != (local.lease_id, local.generation):
        return _other_lease(order, local)
    if local.phase in (Phase.HANDING_OVER, Phase.FINISHED, Phase.REFUSED):
        return Action(move=Move.DROP if order.desired == "stop" else Move.NOTHING, reason=order.reason)
    if order.desired == "stop":
        return Action(move=Move.NOTHING if local.phase is Phase.NONE else Move.DROP, reason=order.reason)
    if back := _give_back(order, local):
        return Action(move=Move.HAND_OVER, reason=back)
    if why_not := _hold(order, local):
        return _at_rest(local, why_not)
    return _at_work(order, local)


def _other_lease(order: Order, local: Local) -> Action:
    """A newer lease on the very unit at hand takes over the work already done: a unit does not depend on who leases it."""
    same_unit = order.unit.unit_id == local.unit_id and local.phase in (*_BUSY, Phase.SHELVED)
    return Action(move=Move.ADOPT if same_unit else Move.DROP, reason="superseded")


def _give_back(order: Order, local: Local) -> str | None:
    """Why the unit goes back to the daemon, or None."""
    if not local.opted_in:
        return "opted_out"
    if local.leaving:
        return "node_left"
    return order.reason if order.desired == "hand_over" else None


def _hold(order: Order, local: Local) -> str | None:
    """Why the worker rests though the unit stays, or None."""
    if local.consent_ended:
        return "consent_ended"
    if local.device is not DeviceState.FREE:
        return {"user_active": "device_busy", "hot": "device_hot"}.get(local.device.value, local.device.value)
    if order.desired != "run":
        return order.reason
    return "daemon_silent" if local.silent else None


def _at_rest(local: Local, reason: str) -> Action:
    if local.phase in _BUSY and local.may_go_on:
        return Action(move=Move.PAUSE, reason=reason)
    if local.phase is Phase.PAUSED and local.saved and local.paused_s >= local.shelve_after_s:
        return Action(move=Move.SHELVE, reason=reason)
    return Action(move=Move.NOTHING, reason=reason)


def _at_work(order: Order, local: Local) -> Action:
    if not local.waited:
        return Action(move=Move.NOTHING, reason="start_delayed")
    if local.phase in (Phase.NONE, Phase.SHELVED):
        return Action(move=Move.START, reason=order.reason)
    if local.phase in _BUSY and not local.may_go_on:
        return Action(move=Move.GO_ON, reason=order.reason)
    return Action(move=Move.NOTHING, reason=order.reason)
