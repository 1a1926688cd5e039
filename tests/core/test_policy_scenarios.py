"""Every shipped policy through a few hours, drawn as a curve.

A row is one moment: what each signal is from then until the next row (``-``: nobody said), and then the target and the reason.
"""

from datetime import UTC, datetime, timedelta

import pytest

from gridsched.core.policy import PolicyState, evaluate
from gridsched.core.signal import Quality, Reading, SignalKind, snapshot
from gridsched.plugins import load_policy, shipped

DAY = datetime(2026, 6, 1, tzinfo=UTC)

SCENARIOS = {
    "surplus-first": """
        time   surplus  price    target  reason
        10:00        0     40         0  no_surplus
        10:05      800     30         0  waiting_start_delay   # above 500 W, but not yet for two minutes
        10:10     1000     30       900  surplus               # nine tenths of it
        10:15     3000     20      2700  surplus
        10:20     9000      1      5000  surplus               # the cap
        10:25      300      1       270  surplus               # below the start, above the stop: it goes on
        10:30      100      1       150  surplus               # below the stop, five minutes to go: the minimum
        10:35      100      1         0  no_surplus
        10:40      100     -1       150  price                 # negative: a little is drawn at once
        10:45      100      1       150  price                 # not above 2 EUR yet
        10:50      100      2         0  no_surplus
        10:55        -     50         0  no_surplus            # ten minutes old, still fresh
        11:15        -     50         0  stale_signal
        11:20     2000     50         0  waiting_start_delay
        11:25     2000     50      1800  surplus
    """,
    "price-cap": """
        time   price    target  reason
        00:00     80         0  no_surplus
        00:15     20         0  no_surplus          # the cap itself is not below the cap
        00:30     19      2000  price
        00:45     24      2000  price               # up to 25 it goes on
        01:00     25         0  no_surplus
        01:15      0      2000  price
        01:30   -500      2000  price
        01:45      -         0  stale_signal        # a price does not outlive its quarter of an hour
        02:00     10      2000  price
        02:15   4000         0  no_surplus
    """,
    "cheapest-hours": """
        time   price    target  reason
        00:00     40         0  no_surplus
        00:15      0         0  no_surplus          # nothing is not below nothing
        00:30     -1      2000  price
        00:45   -500      2000  price
        01:00      1         0  no_surplus
        01:15      -         0  stale_signal
    """,
    "low-carbon": """
        time   carbon  renewable_share    target  reason
        00:00     200                -         0  unknown_signal       # the share could say yes: say what is missing
        00:30     200             0.50         0  no_surplus
        01:00      79             0.50         0  waiting_start_delay
        01:30      79             0.50      1000  low_carbon
        02:00      99             0.50      1000  low_carbon           # up to 100 it goes on
        02:30     110             0.50      1000  low_carbon           # ten minutes to go
        03:00     110             0.50         0  no_surplus
        03:30     110             0.81         0  waiting_start_delay
        04:00     110             0.81      1000  renewables
        04:30     110             0.74      1000  renewables
        05:00     110             0.74         0  no_surplus
        05:30       -                -         0  no_surplus
        06:30       -                -         0  stale_signal
    """,
    "curtailment-only": """
        time   curtailment  price  alarm  renewable_share    target  reason
        10:00            0     30      0             0.50         0  no_surplus
        10:15      2000000     30      0             0.50         0  waiting_start_delay
        10:30      2000000     30      0             0.50     20000  curtailment          # half of it, under the cap
        10:45        30000     30      0             0.50     15000  curtailment          # five minutes to go
        11:00        30000     30      0             0.50         0  no_surplus
        11:15      2000000     60      0             0.70         0  waiting_start_delay
        11:30      2000000     60      0             0.70     20000  curtailment          # dear, but green
        11:45      2000000     60      0             0.50         0  no_surplus           # dear and not green
        12:00      2000000     30      0             0.50     20000  curtailment
        12:15      2000000     30      1             0.50         0  alarm                # at once
        12:30      2000000     30      0             0.50         0  alarm                # not clear for long enough
        12:45      2000000     30      0             0.50     20000  curtailment
        13:00            -     30      0             0.50         0  stale_signal
        14:00      2000000     30      -             0.50         0  waiting_start_delay
        14:15      2000000     30      -             0.50     20000  curtailment          # the alarm's last word is 15 minutes old
        14:20      2000000     30      -             0.50         0  stale_signal         # nobody speaks for the alarm any more
    """,
}


def _curve(text: str) -> tuple[list[str], list[list[str]]]:
    head, *rows = [line.partition("#")[0].split() for line in text.strip().splitlines()]
    return head[1:-2], rows


def _moment(clock: str) -> datetime:
    hours, minutes = clock.split(":")
    return DAY + timedelta(hours=int(hours), minutes=int(minutes))


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_shipped_policy_follows_its_curve(name: str) -> None:
    policy = load_policy(shipped("policies") / f"{name}.toml")
    signals, rows = _curve(SCENARIOS[name])
    times = [_moment(row[0]) for row in rows]
    readings: list[Reading] = []
    drawn, state = [], PolicyState()
    for row, now, until in zip(rows, times, [*times[1:], times[-1] + timedelta(minutes=15)], strict=True):
        values = zip(signals, row[1:-2], strict=True)
        readings += [
            Reading(
                zone=policy.zone,
                signal=SignalKind(signal),
                start=now,
                end=until,
                value=float(value),
                quality=Quality.MEASURED,
                source="scenario",
                known_at=now,
            )
            for signal, value in values
            if value != "-"
        ]
        decision, state = evaluate(policy, state, snapshot(policy.zone, now, readings, policy.stale_limits), now)
        drawn.append([row[0], f"{decision.target_w:.0f}", decision.reason.value])
    assert drawn == [[row[0], row[-2], row[-1]] for row in rows]


def test_every_shipped_policy_has_a_curve() -> None:
    assert {path.stem for path in shipped("policies").glob("*.toml")} == set(SCENARIOS)
