"""How a round's updates become one: the weighted mean, and rules that withstand a share of lying units.

Every rule reads the encoded updates piece by piece and works element by element in canonical order (sorted unit ids), so it holds one
piece of all updates at most, and neither machine nor batching changes a bit. No update is NaN or infinite: such are refused before.

The guarantees of ``median``, ``trimmed_mean`` and ``krum`` count units, not samples: they leave the weights aside; ``norm_bound`` keeps
them. What is no parameter (running statistics, counters) has no norm to go by: under ``norm_bound`` it takes the median.
"""

import math
from collections.abc import Callable, Collection, Sequence
from functools import cache
from statistics import median

import numpy as np

from gridsched.core.method import MergeRule
from gridsched.train.codec import BLOCK, PIECE, EncodedUpdate
from gridsched.train.tensors import Array

__all__ = ["Combine", "Weighted", "bad_units", "combiner", "piece_size"]

Weighted = Sequence[tuple[float, EncodedUpdate]]
Combine = Callable[[str, int, int, Array, Array], None]
"""``combine(name, start, stop, out, spare)`` puts one piece of the combined delta into ``out``."""

# Values of all updates held at once by a rule that compares them.
_ROWS = 1 << 17
_SHARE, _LONGEST = 40, 16
"""Of a model, a piece's share: a thread holds two. And how many times ``PIECE`` a piece is at the most."""


def bad_units(share: float, count: int) -> int:
    """How many of ``count`` units may lie: ``share`` of them, rounded up, but always a minority."""
    return min(math.ceil(round(share * count, 9)), (count - 1) // 2)


def piece_size(rule: MergeRule, count: int, values: int = 0, *, threads: int = 1) -> int:
    """Values per piece, for ``count`` updates to a model of ``values``: a multiple of ``BLOCK`` whatever the numbers.

    Long pieces let threads go side by side: between two of them they wait for one another. What all hold of them stays within a
    twentieth of the model, or where that is less, within a few hundred kilobytes.
    """
    if rule is MergeRule.MEAN:
        return min(max(values // (_SHARE * threads) // PIECE, 1), _LONGEST) * PIECE
    count *= threads
    return max(min(PIECE, _ROWS // count) // BLOCK * BLOCK, BLOCK)


def combiner(rule: MergeRule, bad_share: float, updates: Weighted, parameters: Collection[str]) -> Combine:
    """How to combine ``updates``, whose weights sum to 1. ``norm_bound`` and ``krum`` read the ``parameters`` of all updates for it.

    ``norm_bound``: every update whose norm is above the median norm is scaled down to it (Sun et al. 2019, arXiv:1911.07963).
    ``median`` and ``trimmed_mean``: per coordinate, the middle, or the mean without the `bad_units` lowest and highest (Yin et al. 2018,
    arXiv:1803.01498). ``krum``: the one update whose nearest ``n - f - 2`` others are nearest (Blanchard et al. 2017, arXiv:1703.02757); of
    equally good ones the first.
    """
    bad = bad_units(bad_share, len(updates))
    if rule is MergeRule.MEDIAN:
        return _ranked(updates, *_middle(len(updates)))
    if rule is MergeRule.TRIMMED_MEAN:
        return _ranked(updates, bad, len(updates) - bad)
    if rule is MergeRule.KRUM:
        return _weighted([(1.0, updates[_krum(updates, sorted(parameters), bad)][1])])
    if rule is MergeRule.NORM_BOUND:
        clipped, middle = _weighted(_clipped(updates, sorted(parameters))), _ranked(updates, *_middle(len(updates)))
        return lambda name, *piece: (clipped if name in parameters else middle)(name, *piece)
    return _weighted(updates)


def _middle(count: int) -> tuple[int, int]:
    """The places whose mean is the median."""
    return (count - 1) // 2, count // 2 + 1


def _weighted(updates: Weighted) -> Combine:
    def combine(name: str, start: int, stop: int, out: Array, spare: Array) -> None:
        out.fill(0)
        for weight, update in updates:
            update.read_into(name, start, stop, spare, weight)
            np.add(out, spare, out=out)

    return combine


# Coordinate by coordinate.


def _ranked(updates: Weighted, first: int, last: int) -> Combine:
    """Per coordinate, the mean of the values that stand at places ``first`` to ``last`` (not included) when sorted over the updates."""
    network = _network(len(updates), first, last)

    def combine(name: str, start: int, stop: int, out: Array, spare: Array) -> None:
        rows = _rows(updates, name, start, stop, out.dtype)
        for low, high in network:
            np.minimum(rows[low], rows[high], out=spare)
            np.maximum(rows[low], rows[high], out=rows[high])
            rows[low], spare = spare, rows[low]
        out[...] = rows[first]
        for row in rows[first + 1 : last]:
            np.add(out, row, out=out)
        np.divide(out, out.dtype.type(last - first), out=out)

    return combine


def _rows(updates: Weighted, name: str, start: int, stop: int, dtype: "np.dtype[np.generic]") -> list[Array]:
    rows = list(np.empty((len(updates), stop - start), dtype))
    for row, (_, update) in zip(rows, updates, strict=True):
        update.read_into(name, start, stop, row)
        np.add(row, 0, out=row)  # -0.0 becomes 0.0: which of the two is the lesser differs between machines
    return rows


@cache
def _network(count: int, first: int, last: int) -> tuple[tuple[int, int], ...]:
    """Places to compare and swap, in order, that bring the right values to places ``first`` to ``last`` of any ``count``.

    Batcher's merge exchange (Knuth, volume 3, algorithm 5.2.2M) without what does not touch those places.
    """
    pairs: list[tuple[int, int]] = []
    top = 1 << max((count - 1).bit_length() - 1, 0)
    width = top
    while width > 0:
        reach, phase, distance = top, 0, width
        while True:
            pairs += [(low, low + distance) for low in range(count - distance) if low & width == phase]
            if reach == width:
                break
            distance, reach, phase = reach - width, reach // 2, width
        width //= 2
    wanted, needed = set(range(first, last)), []
    for pair in reversed(pairs):
        if wanted & set(pair):
            wanted |= set(pair)
            needed.append(pair)
    return tuple(reversed(needed))


# Whole updates.


def _pieces(update: EncodedUpdate, name: str, size: int) -> list[tuple[int, int]]:
    whole = update.size(name)
    return [(start, min(start + size, whole)) for start in range(0, whole, size)]


def _wide(update: EncodedUpdate, name: str) -> "np.dtype[np.generic]":
    return np.dtype(np.float64 if update.dtype(name) == np.float64 else np.float32)


def _clipped(updates: Weighted, names: Sequence[str]) -> Weighted:
    norms = [_norm(update, names) for _, update in updates]
    bound = median(norms)
    return [(weight * min(1.0, bound / norm) if norm else weight, update) for norm, (weight, update) in zip(norms, updates, strict=True)]


def _norm(update: EncodedUpdate, names: Sequence[str]) -> float:
    squares = []
    for name in names:
        for start, stop in _pieces(update, name, PIECE):
            values = np.empty(stop - start, np.float64)
            update.read_into(name, start, stop, values)
            squares.append(float(np.add.reduce(values * values)))
    return math.sqrt(math.fsum(squares))


def _krum(updates: Weighted, names: Sequence[str], bad: int) -> int:
    """The place of the update nearest to its neighbours."""
    count, size = len(updates), piece_size(MergeRule.KRUM, len(updates))
    apart = [[0.0] * count for _ in range(count)]
    for name in names:
        dtype = _wide(updates[0][1], name)
        for start, stop in _pieces(updates[0][1], name, size):
            rows, spare = _rows(updates, name, start, stop, dtype), np.empty(stop - start, dtype)
            for one in range(count):
                for other in range(one):
                    square = _square_distance(rows[one], rows[other], spare)
                    apart[one][other] += square
                    apart[other][one] += square
    near = max(count - bad - 2, 1)
    scores = [math.fsum(sorted(apart[one][other] for other in range(count) if other != one)[:near]) for one in range(count)]
    return scores.index(min(scores))


def _square_distance(one: Array, other: Array, spare: Array) -> float:
    with np.errstate(over="ignore"):  # too far apart for float32 is infinitely far
        np.subtract(one, other, out=spare)
        np.multiply(spare, spare, out=spare)
        return float(np.add.reduce(spare))
