"""Is it worth it? What a run's energy cost, what it would have cost at once, and what storage would have made of it.

Everything is computed from control ticks (`ZoneObserved`) and `Epoch` records, nothing is assumed about what the trained model
is worth. Between two ticks power and price are those of the earlier one; a tick without a price has an unknown cost,
which is reported as such and never counted as zero.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from types import MappingProxyType

from gridsched.core.facts import ZoneObserved
from gridsched.core.round import Epoch
from gridsched.core.units import J_PER_MWH

__all__ = ["STORAGE", "Drawn", "Storage", "Worth", "drawn", "worth"]

LONGEST_STEP = timedelta(minutes=30)
"""A longer silence between two ticks is a daemon that was down: nothing is known of it, so nothing is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """What comes back of stored energy (shares of 1, lowest and highest of its kind), and what a MWh through it costs, if known."""

    name: str
    low: float
    high: float
    cost_usd_mwh: float | None = None


STORAGE: Mapping[str, Storage] = MappingProxyType(
    {
        s.name: s
        for s in (
            Storage(name="battery", low=0.82, high=0.90, cost_usd_mwh=65.0),
            Storage(name="pumped hydro", low=0.79, high=0.79),
            Storage(name="compressed air", low=0.42, high=0.54),
            Storage(name="power to gas to power", low=0.25, high=0.45),
        )
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """Energy over a sequence of ticks in joules: all of it, the part drawn while a target above 0 allowed it, and with a known price."""

    energy_j: float
    allowed_j: float
    priced_j: float
    cost_eur: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """A run's energy against its alternatives; None where nothing was drawn, or some price is not known.

    ``cost_eur``: at the prices of its hours. ``at_once_eur``: as much energy from the first tick on without pausing, at the highest
    power leased. ``avoided_eur``: the difference. ``stored_kwh``: what each kind of storage would have given back of it (low, high).
    ``battery_gain_eur``: what the best battery would have earned with it, selling at the highest price of the time, after the
    energy's and the battery's own cost. A verdict on the energy alone: what the model is worth is its owner's to judge.
    """

    useful_kwh: float
    drawn_kwh: float
    cost_eur: float | None
    at_once_eur: float | None
    avoided_eur: float | None
    stored_kwh: Mapping[str, tuple[float, float]]
    battery_gain_eur: float | None

    @property
    def battery_better(self) -> bool | None:
        """Whether a battery would have made money of this energy; below that, every cent the model is worth is a gain."""
        return None if self.battery_gain_eur is None else self.battery_gain_eur > 0


def drawn(observed: Sequence[ZoneObserved]) -> Drawn:
    """Sums over one zone's ticks in order of time: energy = power x time to the next tick; cost = energy x price."""
    energy_j = allowed_j = priced_j = cost_eur = 0.0
    for tick, seconds in _steps(observed):
        joules = tick.drawn_w * seconds
        energy_j += joules
        allowed_j += joules if tick.target_w > 0 else 0.0
        if (price := tick.signals.get("price")) is not None:
            priced_j += joules
            cost_eur += joules / J_PER_MWH * price
    return Drawn(energy_j=energy_j, allowed_j=allowed_j, priced_j=priced_j, cost_eur=cost_eur)


def worth(observed: Sequence[ZoneObserved], epochs: Sequence[Epoch], *, usd_per_eur: float = 1.1) -> Worth:
    """What the energy of ``epochs`` was worth, given the ticks of its zone over the same time.

    `STORAGE` holds usual figures for whole round trips, as planners use them; they are assumptions, not measurements of ours.
    """
    power = drawn(observed)
    known = power.energy_j > 0 and power.priced_j == power.energy_j
    cost_eur = power.cost_eur if known else None
    at_once_eur = _at_once_eur(observed, power.energy_j) if known else None
    battery = STORAGE["battery"]
    drawn_mwh = power.energy_j / J_PER_MWH
    gain_eur = None
    if known and battery.cost_usd_mwh is not None:
        best = max(tick.signals["price"] for tick in observed if "price" in tick.signals)
        gain_eur = drawn_mwh * battery.high * (best - battery.cost_usd_mwh / usd_per_eur) - power.cost_eur
    return Worth(
        useful_kwh=sum(e.useful_j for e in epochs) / 3.6e6,
        drawn_kwh=power.energy_j / 3.6e6,
        cost_eur=cost_eur,
        at_once_eur=at_once_eur,
        avoided_eur=None if at_once_eur is None or cost_eur is None else at_once_eur - cost_eur,
        stored_kwh={s.name: (power.energy_j / 3.6e6 * s.low, power.energy_j / 3.6e6 * s.high) for s in STORAGE.values()},
        battery_gain_eur=gain_eur,
    )


def _at_once_eur(observed: Sequence[ZoneObserved], energy_j: float) -> float | None:
    """Cost of ``energy_j`` drawn from the first tick on at the highest leased power; None where a price is missing on the way."""
    full_w = max((tick.leased_w for tick in observed), default=0.0)
    left_j, cost_eur = energy_j, 0.0
    for tick, seconds in _steps(observed):
        if left_j <= 0 or full_w <= 0:
            break
        joules = min(full_w * seconds, left_j)
        price = tick.signals.get("price")
        if price is None:
            return None
        cost_eur += joules / J_PER_MWH * price
        left_j -= joules
    return cost_eur if left_j <= 1e-6 * energy_j else None


def _steps(observed: Sequence[ZoneObserved]) -> list[tuple[ZoneObserved, float]]:
    """Each tick with the seconds until the next one."""
    spans = ((a, b.at - a.at) for a, b in pairwise(observed))
    return [(tick, span.total_seconds()) for tick, span in spans if timedelta(0) < span <= LONGEST_STEP]
