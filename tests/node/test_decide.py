"""The agent's decisions, as a table: what is ordered and what is true here, against the one next move and its reason."""

from dataclasses import replace

import pytest

from gridsched.core.fleet import DeviceState
from gridsched.core.method import InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.node.decide import Local, Move, Phase, next_action
from gridsched.wire import Order

SPEC = UnitSpec(
    unit_id="u1",
    job_id="j",
    kind=UnitKind.TRAIN,
    program="p",
    dataset="d",
    base="b",
    version=0,
    epoch=0,
    start=0,
    stop=8,
    batch_size=2,
    passes=1,
    seed=1,
    inner=InnerOptimizer(),
)


def order(desired: str = "run", *, generation: int = 1, unit_id: str = "u1") -> Order:
    return Order(
        lease_id=f"{unit_id}.l{generation}",
        generation=generation,
        desired=desired,
        reason="because",
        power_w=100.0,
        ttl_s=90.0,
        wait_s=0.0,
        unit=replace(SPEC, unit_id=unit_id),
    )


NOTHING_HELD = Local()
RUNNING = Local(phase=Phase.RUNNING, lease_id="u1.l1", generation=1, unit_id="u1", may_go_on=True)
PAUSED = replace(RUNNING, phase=Phase.PAUSED, may_go_on=False, saved=True)
SHELVED = replace(PAUSED, phase=Phase.SHELVED)
FINISHED = replace(RUNNING, phase=Phase.FINISHED)
HANDING_OVER = replace(PAUSED, phase=Phase.HANDING_OVER)
REFUSED = replace(PAUSED, phase=Phase.REFUSED)

TABLE = [
    # What the daemon wants.
    (None, NOTHING_HELD, Move.NOTHING, "no_lease"),
    (None, RUNNING, Move.DROP, "no_lease"),
    (None, REFUSED, Move.DROP, "no_lease"),
    (None, FINISHED, Move.NOTHING, "no_lease"),
    (order(), NOTHING_HELD, Move.START, "because"),
    (order(), replace(NOTHING_HELD, waited=False), Move.NOTHING, "start_delayed"),
    (order("pause"), NOTHING_HELD, Move.NOTHING, "because"),
    (order("stop"), NOTHING_HELD, Move.NOTHING, "because"),
    (order(), RUNNING, Move.NOTHING, "because"),
    (order("pause"), RUNNING, Move.PAUSE, "because"),
    (order("pause"), replace(RUNNING, phase=Phase.STARTING), Move.PAUSE, "because"),
    (order("pause"), replace(RUNNING, may_go_on=False), Move.NOTHING, "because"),
    (order("pause"), replace(PAUSED, paused_s=599.0), Move.NOTHING, "because"),
    (order("pause"), replace(PAUSED, paused_s=600.0), Move.SHELVE, "because"),
    (order("pause"), replace(PAUSED, paused_s=9000.0, saved=False), Move.NOTHING, "because"),
    (order("pause"), replace(SHELVED, paused_s=9000.0), Move.NOTHING, "because"),
    (order(), PAUSED, Move.GO_ON, "because"),
    (order(), SHELVED, Move.START, "because"),
    (order(), replace(SHELVED, waited=False), Move.NOTHING, "start_delayed"),
    (order("stop"), RUNNING, Move.DROP, "because"),
    (order("hand_over"), RUNNING, Move.HAND_OVER, "because"),
    (order("hand_over"), SHELVED, Move.HAND_OVER, "because"),
    (order("hand_over"), NOTHING_HELD, Move.HAND_OVER, "because"),
    (order("hand_over"), HANDING_OVER, Move.NOTHING, "because"),
    (order(), HANDING_OVER, Move.NOTHING, "because"),
    (order(), FINISHED, Move.NOTHING, "because"),
    (order("hand_over"), FINISHED, Move.NOTHING, "because"),
    (order(), REFUSED, Move.NOTHING, "because"),
    # Another lease.
    (order(generation=2), RUNNING, Move.ADOPT, "superseded"),
    (order(generation=2), SHELVED, Move.ADOPT, "superseded"),
    (order(generation=2), FINISHED, Move.DROP, "superseded"),
    (order(generation=2), HANDING_OVER, Move.DROP, "superseded"),
    (order(unit_id="u2"), RUNNING, Move.DROP, "superseded"),
    # What the owner wants comes first.
    (order(), replace(RUNNING, opted_in=False), Move.HAND_OVER, "opted_out"),
    (order("pause"), replace(PAUSED, opted_in=False), Move.HAND_OVER, "opted_out"),
    (order(), replace(NOTHING_HELD, opted_in=False), Move.HAND_OVER, "opted_out"),
    (order(), replace(RUNNING, opted_in=False, silent=True, device=DeviceState.HOT), Move.HAND_OVER, "opted_out"),
    (order(), replace(RUNNING, leaving=True), Move.HAND_OVER, "node_left"),
    (order(), replace(RUNNING, consent_ended=True), Move.PAUSE, "consent_ended"),
    (order(), replace(NOTHING_HELD, consent_ended=True), Move.NOTHING, "consent_ended"),
    # Then what the device can bear.
    (order(), replace(RUNNING, device=DeviceState.USER_ACTIVE), Move.PAUSE, "device_busy"),
    (order(), replace(RUNNING, device=DeviceState.HOT), Move.PAUSE, "device_hot"),
    (order(), replace(RUNNING, device=DeviceState.ON_BATTERY), Move.PAUSE, "on_battery"),
    (order(), replace(NOTHING_HELD, device=DeviceState.DISK_FULL), Move.NOTHING, "disk_full"),
    (order(), replace(PAUSED, device=DeviceState.DISK_FULL, saved=False, paused_s=9000.0), Move.NOTHING, "disk_full"),
    # Silence of the daemon comes last.
    (order(), replace(RUNNING, silent=True), Move.PAUSE, "daemon_silent"),
    (order(), replace(PAUSED, silent=True), Move.NOTHING, "daemon_silent"),
    (order(), replace(NOTHING_HELD, silent=True), Move.NOTHING, "daemon_silent"),
]


@pytest.mark.parametrize(("given", "local", "move", "reason"), TABLE)
def test_one_move_and_its_reason(given: Order | None, local: Local, move: Move, reason: str) -> None:
    action = next_action(given, local)
    assert (action.move, action.reason) == (move, reason)


@pytest.mark.parametrize("device", [state for state in DeviceState if state is not DeviceState.FREE])
@pytest.mark.parametrize("desired", ["run", "pause"])
def test_no_order_makes_a_device_that_is_not_free_work(device: DeviceState, desired: str) -> None:
    for phase in Phase:
        action = next_action(order(desired), replace(PAUSED, phase=phase, device=device))
        assert action.move not in (Move.START, Move.GO_ON)


def test_nothing_makes_an_opted_out_node_work() -> None:
    for phase in Phase:
        for desired in ("run", "pause", "hand_over", "stop"):
            for generation in (1, 2):
                action = next_action(order(desired, generation=generation), replace(PAUSED, phase=phase, opted_in=False))
                assert action.move not in (Move.START, Move.GO_ON)
