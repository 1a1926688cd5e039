"""Who, when every node needs at least so much energy and each domain has only so much: node selection for one slot.

A round wants a number of nodes. A node is worth taking only if it can do its least work in the slot, can use no more than its most, and
draws on the energy of its own domain (a solar plant, a feeder). Sought is the choice with the greatest value:

    maximise    sum_i value_i x_i
    so that     least_i b_i <= x_i <= most_i b_i,   b_i in {0, 1}          x in joules
                sum over a domain's nodes of x_i <= the domain's energy
                fewest <= sum_i b_i <= most

This is the selection of FedZero (Wiesner et al., e-Energy '24, https://doi.org/10.1145/3632775.3639589) for one time step, where ``fewest``
equals ``most``; there a commercial solver does it. Here it falls apart into domains that only share the number of nodes:

1. Within a domain and for a given set of nodes the rest is a sort: each gets its least, what is left goes to the most valuable first.
2. A price on the domain's energy ranks its nodes. The best k at that price are a good set of k, and the price also bounds the value of
   every set of k (Lagrange). A ladder of prices gives a domain's *curve*: the best set found and a bound for each k. Where no price
   ranks a good set of k first, one of k - 1 and the best node that fits beside it is better, or one of k + 1 without its worst.
3. The curves meet in a small dynamic programme over the number of nodes, once for the sets and once for the bounds.

The k nodes with the least needs fit whenever any k nodes do, so a choice is found exactly where one exists; and the bound says how far
it can be from the best one. Where that is too far an exact solver (``gridsched.solver``) may be handed in.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gridsched.core.errors import InvalidInput

__all__ = ["ExactSelection", "Mask", "Selection", "Slot", "select"]

Floats: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

_SLACK = 1e-9
_PRICES = 48
_SWAP = 24
_SWAP_ROUNDS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """The nodes that may work in one slot, as columns of length n, and the energy of d domains.

    ``domain`` [n] number of each node's domain; ``least_j`` [n] joules of its least work and ``most_j`` [n] of its most;
    ``value_per_j`` [n] what a joule there is worth (work per joule x reliability, or x the utility of its data);
    ``energy_j`` [d] what each domain has in the slot (watts x seconds); ``fewest``, ``most``: how many nodes are wanted.
    """

    domain: NDArray[np.intp]
    least_j: Floats
    most_j: Floats
    value_per_j: Floats
    energy_j: Floats
    fewest: int
    most: int

    def __post_init__(self) -> None:
        columns = (self.domain, self.least_j, self.most_j, self.value_per_j)
        if len({column.shape for column in columns}) != 1 or self.domain.ndim != 1:
            raise InvalidInput(f"a slot's columns must be of one length, got {[column.shape for column in columns]}")
        if len(self.domain) and not 0 <= int(self.domain.min()) <= int(self.domain.max()) < len(self.energy_j):
            raise InvalidInput(f"a node's domain must be one of 0 to {len(self.energy_j) - 1}, as many as energies were given")
        if not (np.isfinite(self.most_j).all() and (self.least_j >= 0).all() and (self.least_j <= self.most_j).all()):
            raise InvalidInput("a node's least energy must be 0 J or more and at most its most, which must be finite")
        if not (np.isfinite(self.value_per_j).all() and (self.value_per_j >= 0).all()):
            raise InvalidInput("what a joule is worth must be 0 or more and finite; leave out nodes that must not work")
        if not (np.isfinite(self.energy_j).all() and (self.energy_j >= 0).all()):
            raise InvalidInput("a domain's energy must be 0 J or more and finite")
        if not 0 <= self.fewest <= self.most:
            raise InvalidInput(f"the number of nodes wanted must run from 0 or more upwards, got {self.fewest} to {self.most}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """``chosen`` [n] bool and ``energy_j`` [n], 0 where not chosen. No choice is worth more than ``bound``; this one is worth ``value``."""

    chosen: Mask
    energy_j: Floats
    value: float
    bound: float


ExactSelection: TypeAlias = Callable[[Slot], Mask | None]
"""An exact solver: the best set [n] bool for a slot, or None where it did not find one."""


def select(slot: Slot, *, exact: ExactSelection | None = None, good_enough: float = 0.99) -> Selection | None:
    """The best choice found for ``slot``, or None where there is none at all.

    ``exact`` is asked only where the choice is not known to reach ``good_enough`` of the best one. The outcome does not depend on the
    order of the nodes (equal ones are interchangeable) and is the same every time.
    """
    order = np.lexsort((slot.most_j, slot.least_j, -slot.value_per_j, slot.domain))
    starts = np.searchsorted(slot.domain[order], np.arange(len(slot.energy_j) + 1))
    domains = [_Domain.of(slot, order[a:b], float(e)) for a, b, e in zip(starts[:-1], starts[1:], slot.energy_j, strict=True)]
    curves = [_curve(domain, min(slot.most, domain.room)) for domain in domains]
    counts = _share_out([curve.value for curve in curves], slot.fewest, slot.most)
    if counts is None:
        return None
    bound = float(_totals([curve.bound for curve in curves])[-1][slot.fewest : slot.most + 1].max())
    chosen = np.zeros(len(order), dtype=bool)
    for domain, curve, count in zip(domains, curves, counts, strict=True):
        chosen[domain.nodes] = _exchange(domain, curve.sets[count])
    found = _selection(domains, chosen, bound)
    if exact is None or found.value >= good_enough * bound:
        return found
    better = exact(slot)
    if better is None or not _obeys(slot, better):
        return found
    return max(found, _selection(domains, better, bound), key=lambda one: one.value)


@dataclass(frozen=True, slots=True)
class _Domain:
    """One domain's m nodes that can work at all, the most valuable joule first: ``nodes`` [m] their places; ``room`` how many fit."""

    nodes: NDArray[np.intp]
    least_j: Floats
    most_j: Floats
    worth: Floats
    energy_j: float
    room: int

    @classmethod
    def of(cls, slot: Slot, nodes: NDArray[np.intp], energy_j: float) -> "_Domain":
        """Of ``nodes``, those that fit if no other does; their most is no more than all there is, which sharpens the bounds."""
        nodes = nodes[slot.least_j[nodes] <= energy_j * (1 + _SLACK)]
        least_j = slot.least_j[nodes]
        most_j = np.maximum(least_j, np.minimum(slot.most_j[nodes], energy_j))
        room = int(np.searchsorted(np.cumsum(np.sort(least_j)), energy_j * (1 + _SLACK), side="right"))
        return cls(nodes, least_j, most_j, slot.value_per_j[nodes], energy_j, room)

    def given_j(self, sets: Mask) -> Floats:
        """Joules for each node of each set [..., m]: its least, then what is left to the most valuable first."""
        least = np.where(sets, self.least_j, 0.0)
        more = np.where(sets, self.most_j - self.least_j, 0.0)
        before = np.cumsum(more, axis=-1) - more
        left = self.energy_j - least.sum(axis=-1, keepdims=True)
        given: Floats = least + np.clip(left - before, 0.0, more)
        return given

    def value(self, sets: Mask) -> Floats:
        """What each set [..., m] is worth; minus infinity where its least needs do not fit."""
        fits = np.where(sets, self.least_j, 0.0).sum(axis=-1) <= self.energy_j * (1 + _SLACK)
        worth: Floats = np.where(fits, self.given_j(sets) @ self.worth, -np.inf)
        return worth


@dataclass(frozen=True, slots=True)
class _Curve:
    """For k = 0, 1, ..., room nodes: the best set found [k, m], its ``value`` [k], and the ``bound`` [k] that no set of k exceeds."""

    sets: Mask
    value: Floats
    bound: Floats


def _curve(domain: _Domain, most: int) -> _Curve:
    counts = np.arange(most + 1)
    best = np.zeros((most + 1, len(domain.nodes)), dtype=bool)
    best[:] = _first(np.argsort(domain.least_j, kind="stable"), counts)
    value, bound = domain.value(best), np.full(most + 1, np.inf)
    for price in _prices(domain):
        gain = np.maximum((domain.worth - price) * domain.least_j, (domain.worth - price) * domain.most_j)
        ranked = np.argsort(-gain, kind="stable")
        total = np.concatenate([[0.0], np.cumsum(gain[ranked])])[: most + 1]
        bound = np.minimum(bound, price * domain.energy_j + total)
        sets = _first(ranked, counts)
        worth = domain.value(sets)
        better = worth > value
        best[better], value[better] = sets[better], worth[better]
    for count in range(1, most + 1):
        _improve(domain, best, value, count, _one_more(domain, best[count - 1]))
    for count in range(most - 1, -1, -1):
        _improve(domain, best, value, count, _one_less(best[count + 1]))
    return _Curve(best, value, np.maximum(bound, value))


def _improve(domain: _Domain, best: Mask, value: Floats, count: int, sets: Mask) -> None:
    """Take the best of ``sets`` [a, m] for ``best[count]`` where it is worth more."""
    if len(sets) and (worth := domain.value(sets)).max() > value[count]:
        best[count], value[count] = sets[worth.argmax()], worth.max()


def _one_more(domain: _Domain, chosen: Mask) -> Mask:
    """Sets [a, m]: ``chosen`` [m] and one more node that fits beside it, for the most valuable of them."""
    left_j = domain.energy_j * (1 + _SLACK) - domain.least_j[chosen].sum()
    come = np.flatnonzero(~chosen & (domain.least_j <= left_j))[:_SWAP]
    sets = np.repeat(chosen[None], len(come), axis=0)
    sets[np.arange(len(come)), come] = True
    return sets


def _one_less(chosen: Mask) -> Mask:
    """Sets [a, m]: ``chosen`` [m] without one of its nodes, for the least valuable of them."""
    gone = np.flatnonzero(chosen)[-_SWAP:]
    sets = np.repeat(chosen[None], len(gone), axis=0)
    sets[np.arange(len(gone)), gone] = False
    return sets


def _prices(domain: _Domain) -> Floats:
    """Prices of a joule worth trying: what the nodes' joules are worth, and above that, where only the least needs count."""
    if len(domain.nodes) == 0:
        return np.zeros(1)
    within = np.quantile(domain.worth, np.linspace(0, 1, _PRICES))
    return np.unique(np.concatenate([[0.0], within, domain.worth[0] * np.geomspace(1, 64, _PRICES // 2)]))


def _first(ranked: NDArray[np.intp], counts: NDArray[np.intp]) -> Mask:
    """Sets [k, m]: the first ``counts[k]`` of ``ranked`` [m]."""
    place = np.empty(len(ranked), dtype=np.intp)
    place[ranked] = np.arange(len(ranked))
    return place < counts[:, None]


def _exchange(domain: _Domain, chosen: Mask) -> Mask:
    """``chosen`` [m] after swaps of one node for another, the best first, until none helps."""
    for _ in range(_SWAP_ROUNDS):
        inside, outside = np.flatnonzero(chosen), np.flatnonzero(~chosen)
        if not (len(inside) and len(outside)):
            break
        gone, come = (grid.ravel() for grid in np.meshgrid(inside[-_SWAP:], outside[:_SWAP], indexing="ij"))
        sets = np.repeat(chosen[None], len(gone), axis=0)
        rows = np.arange(len(gone))
        sets[rows, gone], sets[rows, come] = False, True
        worth = domain.value(sets)
        best = int(np.argmax(worth))
        if not worth[best] > domain.value(chosen) * (1 + _SLACK):
            break
        chosen = sets[best]
    return chosen


def _totals(curves: list[Floats]) -> list[Floats]:
    """After each domain: the greatest sum for every number of nodes so far."""
    totals = [np.zeros(1)]
    for curve in curves:
        so_far = totals[-1]
        merged = np.full(len(so_far) + len(curve) - 1, -np.inf)
        for count, value in enumerate(curve):
            part = merged[count : count + len(so_far)]
            np.maximum(part, so_far + value, out=part)
        totals.append(merged)
    return totals


def _share_out(curves: list[Floats], fewest: int, most: int) -> list[int] | None:
    """How many nodes each domain takes, for the greatest sum with ``fewest`` to ``most`` nodes in all; None where so many do not fit."""
    totals = _totals(curves)
    if len(totals[-1]) <= fewest:
        return None
    left = fewest + int(np.argmax(totals[-1][fewest : most + 1]))
    counts: list[int] = []
    for curve, so_far in zip(reversed(curves), reversed(totals[:-1]), strict=True):
        possible = np.arange(max(0, left - len(so_far) + 1), min(len(curve) - 1, left) + 1)
        counts.append(int(possible[np.argmax(curve[possible] + so_far[left - possible])]))
        left -= counts[-1]
    return counts[::-1]


def _obeys(slot: Slot, chosen: Mask) -> bool:
    """Whether an exact solver's set is one in truth and not only within its tolerances."""
    needed_j = np.bincount(slot.domain[chosen], slot.least_j[chosen], len(slot.energy_j))
    return slot.fewest <= int(chosen.sum()) <= slot.most and bool((needed_j <= slot.energy_j * (1 + _SLACK)).all())


def _selection(domains: Sequence[_Domain], chosen: Mask, bound: float) -> Selection:
    """The selection that takes ``chosen`` [n], each domain's energy shared out as well as can be."""
    energy_j, value = np.zeros(len(chosen)), 0.0
    for domain in domains:
        given_j = domain.given_j(chosen[domain.nodes])
        energy_j[domain.nodes] = given_j
        value += float(given_j @ domain.worth)
    return Selection(chosen=chosen, energy_j=energy_j, value=value, bound=max(bound, value))
