"""Who, and in which of the next slots: nodes with budgets and price floors under a cap for each zone and slot.

A node runs a slot at its whole power or not at all. Sought is the timetable with the most useful work:

    maximise    sum_it merit_i worth_t power_i slot_s runs_it            runs in {0, 1}
    so that     sum over a zone's nodes of power_i runs_it <= cap_t       in every zone and slot
                sum_t runs_it <= what the node's budget allows, in whole slots
                runs_it = 0 where the slot's reward is below the node's floor

Taking the best nodes slot by slot spends budgets where others could have served (92 to 96 % of the bound). So:

1. Nodes are sorted into *classes* of like ones (slots open to them, slots their budget allows, merit). A class counts as one divisible
   node, and a zone's classes against its slots make a transport problem of some 300 rows and 96 columns: a small linear programme,
   solved by what is handed in (``gridsched.solver``; without one all is left to step 4).
2. Each class's watts are dealt out to its nodes: the slots lie one behind the other on a line, as long as their watts, and a node that
   may run u slots stands on it at u evenly spaced points.
3. Classes are not quite of like nodes. So each node moves a turn to where it gains most at the programme's prices, a few times over.
4. What exceeds a cap is taken back, and what is left under it goes to the best nodes that may still run, dearest slot first.

The programme's prices bound what any timetable can do (``bound``). Everything is vectorised over nodes; the loops are over zones and slots.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from gridsched.core.errors import InvalidInput

__all__ = ["Horizon", "SolveTransport", "Timetable", "Transport", "bound", "plan_horizon"]

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.intp]
Mask: TypeAlias = NDArray[np.bool_]

_SLACK = 1e-9
_GOLDEN, _SILVER = 0.6180339887498949, 0.7548776662466927
_CHUNK = 8192
_TRADES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """n nodes as columns of length n; z zones over t slots of ``slot_s`` seconds as tables [z, t].

    ``zone`` [n] number of each node's zone; ``power_w`` [n]; ``merit`` [n] useful work per joule x reliability; ``budget_j`` [n] energy its
    consent leaves (infinity: no limit); ``floor`` [n] the least reward it works for. ``cap_w`` [z, t] what may be drawn; ``reward`` [z, t]
    in the unit of ``floor``; ``worth`` [z, t] what work in that slot counts for (1 where all slots are alike).
    """

    zone: NDArray[np.intp]
    power_w: Floats
    merit: Floats
    budget_j: Floats
    floor: Floats
    cap_w: Floats
    reward: Floats
    worth: Floats
    slot_s: float

    def __post_init__(self) -> None:
        columns = (self.zone, self.power_w, self.merit, self.budget_j, self.floor)
        if len({column.shape for column in columns}) != 1 or self.zone.ndim != 1:
            raise InvalidInput(f"a horizon's columns must be of one length, got {[column.shape for column in columns]}")
        if self.cap_w.ndim != 2 or not self.cap_w.shape == self.reward.shape == self.worth.shape:
            raise InvalidInput("a horizon's caps, rewards and worths must be tables of one shape, zones by slots")
        if len(self.zone) and not 0 <= int(self.zone.min()) <= int(self.zone.max()) < len(self.cap_w):
            raise InvalidInput(f"a node's zone must be one of 0 to {len(self.cap_w) - 1}, as many as there are rows of caps")
        if not (np.isfinite(self.power_w).all() and (self.power_w > 0).all() and self.slot_s > 0):
            raise InvalidInput("a node's power must be above 0 W and finite, and a slot longer than 0 s")
        for name, table in (("merit", self.merit), ("cap", self.cap_w), ("worth", self.worth)):
            if not (np.isfinite(table).all() and (table >= 0).all()):
                raise InvalidInput(f"every {name} must be 0 or more and finite")
        if not (self.budget_j >= 0).all() or np.isnan(self.floor).any() or np.isnan(self.reward).any():
            raise InvalidInput("a budget must be 0 J or more, and floors and rewards must be numbers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    """``runs`` [t, n] bool; ``value`` in units of work; ``price`` [z, t] work per joule that one more watt of cap would bring, or zeros."""

    runs: Mask
    value: float
    price: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Transport:
    """Maximise sum value * y over y [c, t] with 0 <= y <= ``most``, row sums <= ``supply`` [c] and column sums <= ``cap`` [t]."""

    value: Floats
    most: Floats
    supply: Floats
    cap: Floats


SolveTransport: TypeAlias = Callable[[Transport], tuple[Floats, Floats]]
"""Solves a transport problem: y [c, t] and the price [t] >= 0 of each column's cap."""


def plan_horizon(horizon: Horizon, *, solve: SolveTransport | None = None, classes: int | None = None) -> Timetable:
    """A timetable near the best one; with ``solve``, from a linear programme over at most about ``classes`` classes in each zone.

    ``classes`` None: 320, or 640 where there are one or two zones and so time for it.
    No cap, budget or floor is ever broken. The order of the nodes does not matter (equal ones are interchangeable).
    """
    runs = np.zeros((horizon.cap_w.shape[1], len(horizon.zone)), dtype=bool)
    price = np.zeros_like(horizon.cap_w)
    value = 0.0
    classes = classes or (640 if len(horizon.cap_w) <= 2 else 320)
    for number in range(len(horizon.cap_w)):
        zone = _Zone.of(horizon, number)
        if not len(zone.nodes):
            continue
        dealt = np.zeros((len(zone.cap_w), len(zone.nodes)), dtype=bool)
        if solve is not None:
            kind = _classes(zone, classes)
            problem = _transport(zone, kind)
            quota_w, price[number] = solve(problem)
            _deal(zone, kind, np.clip(quota_w, 0.0, problem.most), out=dealt)
            for _ in range(_TRADES):
                _trade(zone, dealt, price[number])
        _settle(zone, dealt, price[number])
        work_w = zone.power_w * zone.merit
        for slot, row in enumerate(dealt):
            runs[slot, zone.nodes] = row
            value += float(zone.worth[slot] * work_w[row].sum()) * horizon.slot_s
    return Timetable(runs=runs, value=value, price=price)


def bound(horizon: Horizon, price: Floats) -> float:
    """What no timetable can exceed, given any prices [z, t] >= 0; tight at those of the linear programme over single nodes.

    Every node takes its best slots at these prices, as if there were no caps, and the caps are sold at them (Lagrange).
    """
    total = 0.0
    for number in range(len(horizon.cap_w)):
        zone = _Zone.of(horizon, number)
        total += float(price[number] @ zone.cap_w)
        for start in range(0, len(zone.nodes), _CHUNK):
            part = slice(start, start + _CHUNK)
            gain = np.maximum(zone.merit[part, None] * zone.worth - price[number], 0.0)
            gain[(zone.open[part, None] < zone.rank) | (zone.cap_w <= 0)] = 0.0
            gain = -np.sort(-gain, axis=1)
            counts = np.arange(gain.shape[1]) < zone.turns[part, None]
            total += float(zone.power_w[part] @ (gain * counts).sum(axis=1))
    return total * horizon.slot_s


@dataclass(frozen=True, slots=True)
class _Zone:
    """One zone's m nodes, best merit first, and its t slots.

    ``nodes`` [m] their places in the horizon; ``open`` [m] how many slots pay enough for it; ``turns`` [m] how many it may run;
    ``rank`` [t] how many slots pay at least as much as this one: node i may run slot t where ``rank[t] <= open[i]``.
    """

    nodes: Ints
    power_w: Floats
    merit: Floats
    open: Ints
    turns: Ints
    cap_w: Floats
    rank: Ints
    worth: Floats

    @classmethod
    def of(cls, horizon: Horizon, number: int) -> "_Zone":
        nodes = np.flatnonzero(horizon.zone == number)
        paid = np.sort(horizon.reward[number])
        open_ = len(paid) - np.searchsorted(paid, horizon.floor[nodes])
        allowed = np.floor(horizon.budget_j[nodes] / (horizon.power_w[nodes] * horizon.slot_s) * (1 + _SLACK))
        fits = horizon.power_w[nodes] <= horizon.cap_w[number].max(initial=0.0)
        turns = np.where(fits, np.minimum(allowed, open_), 0).astype(np.intp)
        order = np.lexsort((turns, open_, horizon.power_w[nodes], -horizon.merit[nodes]))
        nodes, rank = nodes[order], len(paid) - np.searchsorted(paid, horizon.reward[number])
        rows = (horizon.power_w[nodes], horizon.merit[nodes], open_[order], turns[order])
        return cls(nodes, *rows, horizon.cap_w[number], rank, horizon.worth[number])


def _classes(zone: _Zone, most: int) -> Ints:
    """A class [m] for each node: parts of equal count by merit, within such parts by turns, within such parts by open slots."""
    kind = np.zeros(len(zone.nodes), dtype=np.intp)
    if len(kind) <= most:
        return np.arange(len(kind))
    parts = np.cbrt(most / 8)  # finest where unlike nodes in one class cost most: measured, not derived
    for key, share in ((zone.open, 4), (zone.turns, 2), (-zone.merit, 1)):
        count = max(1, int(share * parts + 0.5))
        order = np.lexsort((key, kind))
        size = np.bincount(kind)
        place = np.arange(len(kind)) - np.repeat(np.cumsum(size) - size, size)
        split = np.empty_like(kind)
        split[order] = kind[order] * count + place * count // size[kind[order]]
        kind = np.unique(split, return_inverse=True)[1]
    return kind


def _transport(zone: _Zone, kind: Ints) -> Transport:
    """The zone as a transport problem of watts from classes to slots."""
    classes, slots = int(kind.max()) + 1, len(zone.cap_w)
    by_open = np.bincount(kind * (slots + 1) + zone.open, zone.power_w, classes * (slots + 1)).reshape(classes, slots + 1)
    at_least = by_open[:, ::-1].cumsum(axis=1)[:, ::-1]
    power_w = np.bincount(kind, zone.power_w)
    return Transport(
        value=(np.bincount(kind, zone.power_w * zone.merit) / power_w)[:, None] * zone.worth,
        most=at_least[:, zone.rank] * (zone.cap_w > 0),
        supply=np.bincount(kind, zone.power_w * zone.turns).astype(np.float64),
        cap=zone.cap_w,
    )


def _deal(zone: _Zone, kind: Ints, quota_w: Floats, *, out: Mask) -> None:
    """Deal each class's watts [c, t] to its nodes, written into ``out`` [t, m]; never more turns than a node has."""
    supply = np.bincount(kind, zone.power_w * zone.turns)
    total = quota_w.sum(axis=1)
    share = np.divide(total, supply, out=np.zeros(len(total)), where=supply > 0)
    nodes = np.argsort(kind, kind="stable")
    kind, size = kind[nodes], np.bincount(kind)
    place = np.arange(len(kind)) - np.repeat(np.cumsum(size) - size, size)
    # Two irrational steps spread starting points and roundings evenly over a class's nodes.
    wanted = np.floor(zone.turns[nodes] * share[kind] + place * _SILVER % 1 + _SLACK)
    turns = np.minimum(wanted, zone.turns[nodes]).astype(np.intp)
    step = total[kind] / np.maximum(turns, 1)
    first = (np.cumsum(total) - total)[kind] + place * _GOLDEN % 1 * step
    turn = np.arange(turns.sum()) - np.repeat(np.cumsum(turns) - turns, turns)
    at = np.repeat(first, turns) + turn * np.repeat(step, turns)
    slots = quota_w.shape[1]
    slot = np.searchsorted(np.cumsum(quota_w), at, side="right") - np.repeat(kind * slots, turns)
    slot = np.clip(slot, 0, slots - 1)
    node = np.repeat(nodes, turns)
    out[slot, node] = zone.rank[slot] <= zone.open[node]


def _trade(zone: _Zone, runs: Mask, price: Floats) -> None:
    """Let every node move one turn to where it gains most at these ``price``s [t], as far as there is room; who gained least stays out.

    A turn it has left over counts as one that gains nothing, and so does not running at all.
    """
    parts = [slice(start, start + _CHUNK) for start in range(0, len(zone.nodes), _CHUNK)]
    wishes = [_wishes(zone, runs, price, part) for part in parts]
    gain, leave, enter = (np.concatenate(column) for column in zip(*wishes, strict=True))
    movers = np.flatnonzero(gain > _SLACK * zone.merit)
    movers = movers[np.argsort(-gain[movers], kind="stable")]
    away = movers[leave[movers] >= 0]
    runs[leave[away], away] = False
    stayed = _enter(zone, runs, movers, enter[movers])
    _enter(zone, runs, stayed, leave[stayed])


def _wishes(zone: _Zone, runs: Mask, price: Floats, part: slice) -> tuple[Floats, Ints, Ints]:
    """For a part of the nodes: what the best move would gain, and the slots it leaves and enters, -1 for none."""
    merit, open_ = zone.merit[part], zone.open[part]
    best, enter = np.zeros(len(merit)), np.full(len(merit), -1)
    worst, leave = np.where(zone.turns[part] > runs[:, part].sum(axis=0), 0.0, np.inf), np.full(len(merit), -1)
    for slot in np.flatnonzero(zone.cap_w > 0):
        gain, row = merit * zone.worth[slot] - price[slot], runs[slot, part]
        worse = row & (gain < worst)
        better = ~row & (gain > best) & (open_ >= zone.rank[slot])
        np.copyto(worst, gain, where=worse)
        np.copyto(leave, slot, where=worse)
        np.copyto(best, gain, where=better)
        np.copyto(enter, slot, where=better)
    return best - worst, leave, enter


def _enter(zone: _Zone, runs: Mask, movers: Ints, enter: Ints) -> Ints:
    """Let ``movers`` run their slots ``enter`` (-1: none) while there is room, the first ones first; returns who did not fit."""
    order = np.argsort(enter, kind="stable")
    starts = np.searchsorted(enter[order], np.arange(len(runs) + 1))
    outside = [movers[:0]]
    for slot, row in enumerate(runs):
        mine = movers[order[starts[slot] : starts[slot + 1]]]
        if len(mine):
            fits = np.cumsum(zone.power_w[mine]) <= zone.cap_w[slot] - zone.power_w[row].sum()
            row[mine[fits]] = True
            outside.append(mine[~fits])
    return np.concatenate(outside)


def _settle(zone: _Zone, runs: Mask, price: Floats) -> None:
    """Take back what exceeds a cap, the least worthy first, then fill each slot with the best nodes that may still run."""
    left = zone.turns.copy()
    for slot, row in enumerate(runs):
        on = np.flatnonzero(row)
        row[on[np.cumsum(zone.power_w[on]) > zone.cap_w[slot]]] = False
        left -= row
    for slot in np.lexsort((np.arange(len(price)), zone.rank, -price)):
        row = runs[slot]
        left_w = float(zone.cap_w[slot] - zone.power_w[row].sum())
        waiting = np.flatnonzero(~row & (left > 0) & (zone.open >= zone.rank[slot]) & (zone.power_w <= left_w))
        while len(waiting):
            fits = int(np.searchsorted(np.cumsum(zone.power_w[waiting]), left_w, side="right"))
            row[waiting[:fits]] = True
            left[waiting[:fits]] -= 1
            left_w -= float(zone.power_w[waiting[:fits]].sum())
            waiting = waiting[fits:]
            waiting = waiting[zone.power_w[waiting] <= left_w]
