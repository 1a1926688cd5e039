"""Short hands for policy tests: a policy over one or two leaves, and a snapshot from plain values."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from gridsched.core.policy import AnyOf, Comparison, Draw, Leaf, Policy
from gridsched.core.signal import Quality, Reading, SignalKind, Snapshot, snapshot

START = datetime(2026, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)

SURPLUS = Leaf(
    signal=SignalKind.SURPLUS,
    comparison=Comparison.ABOVE,
    start=1000.0,
    stop=500.0,
    start_delay=2 * MINUTE,
    stop_delay=3 * MINUTE,
)
CHEAP = Leaf(signal=SignalKind.PRICE, comparison=Comparison.BELOW, start=0.0, stop=5.0)


def policy(*leaves: Leaf, **changes: object) -> Policy:
    """A policy of zone ``demo`` that draws 80 % of the surplus, up to 5 kW, while any of ``leaves`` holds."""
    fields: dict[str, object] = {
        "name": "test",
        "zone": "demo",
        "when": AnyOf(leaves or (SURPLUS,)),
        "draw": Draw(share_of=SignalKind.SURPLUS, share=0.8, max_w=5000.0),
        **changes,
    }
    return Policy(**fields)  # type: ignore[arg-type]


def reading(kind: SignalKind, value: float, start: datetime, *, length: timedelta = MINUTE) -> Reading:
    return Reading(
        zone="demo",
        signal=kind,
        start=start,
        end=start + length,
        value=value,
        quality=Quality.MEASURED,
        source="test",
        known_at=start,
    )


def seen(now: datetime, values: Mapping[SignalKind, float]) -> Snapshot:
    """A snapshot in which exactly ``values`` are known, each for the slot that begins now."""
    return snapshot("demo", now, [reading(kind, value, now) for kind, value in values.items()])
