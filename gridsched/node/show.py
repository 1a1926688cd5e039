"""What the agent shows of itself, for ``gridsched node status``."""

import os
from dataclasses import replace

from gridsched.node.contact import Contact
from gridsched.node.decide import Phase
from gridsched.node.device import Device
from gridsched.node.held import Held
from gridsched.node.returns import Returns
from gridsched.node.state import Status
from gridsched.ports import Register

__all__ = ["describe"]


def describe(
    node_id: str, phase: Phase, reason: str, *, contact: Contact, held: Held | None, register: Register, device: Device, returns: Returns
) -> Status:
    """All of it in one record; a full disk is named before any other reason."""
    status = Status(
        node_id=node_id,
        phase=phase.value,
        reason=device.trouble or reason,
        connected=contact.connected,
        last_contact=contact.last_contact,
        device=device.state.value,
        power_w=register.power_w,
        energy_j=register.energy_j,
        opted_in=contact.opted_in,
        waiting_updates=returns.waiting,
        finished_units=returns.accepted,
        pid=os.getpid(),
    )
    if held is not None:
        unit, speed = held.order.unit, held.report(speed=contact.speed).speed
        status = replace(status, job_id=unit.job_id, unit_id=unit.unit_id, step=held.step, steps=unit.steps, speed=speed)
    if contact.orders is not None:
        orders, consent = contact.orders, contact.orders.consent
        status = replace(
            status,
            node_reason=orders.node_reason,
            earned_micro=orders.earned_micro,
            consent_left_s=consent.left_s,
            max_w=consent.max_w,
            min_reward_micro_per_kwh=consent.min_reward_micro_per_kwh,
            notice=orders.notice,
        )
    return status
