"""A house that has run for a day, for the console to show: three nodes, a job, prices and surplus, pauses, one node in quarantine."""

import math
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

from gridsched.core.facts import Fact
from gridsched.core.job import Job
from gridsched.core.lease import LIVE, Lease, LeaseState
from gridsched.core.round import Epoch, Version
from gridsched.core.signal import Quality, Reading, SignalKind
from gridsched.core.timing import JobSchedule, Timing
from gridsched.flow import ingest, quarantine
from gridsched.ports import Tx
from tests.web.conftest import LIMITS, ZONE, House, build

__all__ = ["NODES", "RULE", "a_day_later"]

NODES = ("attic-pc", "kitchen-tablet", "old-desktop")
RULE = f"""about = "Draw most of the surplus while there is some, and a little whenever the price is negative."
zone = "{ZONE}"
timezone = "Europe/Berlin"

[when]
any = [
    {{ signal = "surplus", above = "500 W", for = "2m", stop = "200 W", stop_for = "5m" }},
    {{ signal = "price", below = "0 EUR/MWh", stop = "2 EUR/MWh" }},
]

[draw]
share_of_surplus = 0.9
min_watts = 150
max_watts = "1 kW"

[reward]
per_kwh_eur = 0.25
per_unit_eur = 0.0005
"""
_STEP = timedelta(minutes=15)
_DAY = timedelta(days=1)


def a_day_later() -> Iterator[House]:
    """The house when a day has passed in it."""
    for house in build(replace(LIMITS, calls_per_s=10_000.0)):
        house.daemon.settings.zones[0].policy.write_text(RULE, encoding="utf-8")
        house.job("digits")
        house.do(partial(ingest.store, readings=prices(house.clock.now()), source="exchange"))
        tokens = [house.join(name) for name in NODES]
        meter_j = 0.0
        for step in range(int(_DAY / _STEP)):
            house.surplus(surplus_w(step))
            house.tick()
            meter_j += 12_000.0
            for name, token in zip(NODES, tokens, strict=True):
                report(house, name, token, meter_j)
            house.clock.sleep(_STEP.total_seconds())
        house.surplus(1200.0)
        house.tick()
        for name, token in zip(NODES, tokens, strict=True):
            report(house, name, token, meter_j + 1_000.0)
        why = "its update of digits.r0.u1 differs from the one done again elsewhere"
        house.do(partial(quarantine.quarantine, node_id="old-desktop", unit_id="digits.r0.u1", why=why))
        house.do(trained)
        yield house


def surplus_w(step: int) -> float:
    """Sun by day, wind at night, a lull in between."""
    return round(max(0.0, 1500.0 * math.sin(step / 96 * 4 * math.pi)), 1)


def prices(begins: datetime) -> list[Reading]:
    """Hourly prices from the day before to the end of the day after tomorrow; below zero at noon."""
    start = begins.replace(hour=0, minute=0) - _DAY
    return [
        Reading(
            zone=ZONE, signal=SignalKind.PRICE, start=start + timedelta(hours=n), end=start + timedelta(hours=n + 1),
            value=round(40.0 - 55.0 * math.exp(-((n % 24 - 12) ** 2) / 8), 2), quality=Quality.MEASURED, source="exchange", known_at=begins,
        )
        for n in range(96)
    ]  # fmt: skip


def report(house: House, name: str, token: str, register_j: float) -> None:
    """A node's sync: it does what its lease says, and its meter tells."""
    with house.daemon.store.read() as tx:
        found = tx.find(Lease, node_id=name, state=LIVE)
    works = bool(found) and found[0].state is not LeaseState.PAUSED
    told: dict[str, object] = {
        "instance": "one",
        "meter": {"register_j": register_j, "age_s": 0.0, "power_w": 80.0 if works else 2.0, "method": "estimated"},
    }
    if found:
        told["lease"] = {
            "lease_id": found[0].lease_id,
            "generation": found[0].generation,
            "state": "running" if works else "paused",
            "step": min(found[0].step + works, 7),
            "steps_executed": min(found[0].step + works, 7),
        }
    answer = house.post("/v1/node/sync", told, token=token)
    assert answer.status_code == 200, answer.text


def trained(tx: Tx, now: datetime) -> list[Fact]:
    """Some epochs and versions, as rounds would have left them."""
    job = tx.must(Job, "digits")
    first = tx.must(Version, "digits", 0)
    for number in range(1, 9):
        accuracy = 0.93 - 0.6 / number
        tx.put(
            replace(first, number=number, parent=first.digest, epoch=number // 2, accuracy=accuracy, loss=2.3 / number, test_samples=360)
        )
    for number in range(4):
        share = number / 4
        tx.put(
            Epoch(
                job_id="digits", number=number, started_at=now - (4 - number) * _STEP,
                ended_at=now - (3 - number) * _STEP if number < 3 else None,
                useful_j=52_000.0 - 9_000 * share, wasted_j=4_000.0 * share, idle_j=6_000.0, reward_micro=3_650 + number, cost_micro=412.0,
                units=2, loss=2.3 / (number + 1), accuracy=0.5 + share / 2,
            )
        )  # fmt: skip
    hours = ((now + timedelta(hours=10), now + timedelta(hours=13)),)
    tx.put(
        replace(job, version=8),
        JobSchedule(
            job_id="digits", zone=ZONE, timing=Timing.PLANNED, why="the cheapest hours", objective=SignalKind.PRICE, deadline=now + _DAY,
            computed_at=now, digest="", hours=hours,
        ),
    )  # fmt: skip
    return []
