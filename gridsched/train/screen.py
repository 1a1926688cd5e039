"""Cheap looks at updates before they are merged: which ones are so odd that they should be done again elsewhere.

A screen accuses nobody. It compares an update with the others of its round and of the rounds before: its size (lazy, free-riding and
scaled updates), its direction (flipped and random ones), and whether it is nearly another one (copied and replayed ones). What is usual is
told by medians, which a third of liars cannot move far (Rousseeuw and Croux 1993, "Alternatives to the median absolute deviation").

A few thousand values of each update are looked at, at places that a secret draws; its norm is known already. So a look costs a
fraction of a merge's one reading, and nobody can be honest only where it is looked.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gridsched.core.trust import AuditReason
from gridsched.train.codec import BLOCK, EncodedUpdate

__all__ = ["MOST_TRACES", "Trace", "differ", "suspicions", "trace"]

MOST_TRACES = 32
"""Updates of earlier rounds that are compared with: more say nothing new."""

_BLOCKS = 64
_PIECE = 256 * BLOCK
_ODD = 4.5
"""Deviations from the usual beyond which an update is odd: of 100,000 normally distributed ones, less than one."""

_LEAST_SIZE, _LEAST_DIRECTION = 0.04, 0.03
"""The least deviations (of the logarithm of a norm, of a cosine) that count as one, however alike the others are."""

_NEARER = 0.1
"""A copy is ten times as near to another update as updates usually are to their nearest."""

_FEW = 4

_Values = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """What is looked at of one update: the ``steps`` of its unit in round ``number``, its ``norm``, and a ``sample`` [k] of its values.

    The sample has length 1, or is 0 where the update is.
    """

    unit_id: str
    number: int
    steps: int
    norm: float
    sample: NDArray[np.float32]


def trace(source: bytes | Path, *, unit_id: str, number: int, steps: int, norm: float, buffers: Collection[str], seed: int) -> Trace:
    """The trace of a stored update; updates to one model and with one ``seed`` are looked at in the same places."""
    update = EncodedUpdate(source)
    floats = [name for name in update.names if name not in buffers and np.issubdtype(update.dtype(name), np.floating)]
    places = [(name, start) for name in floats for start in range(0, update.size(name), BLOCK)]
    if len(places) > _BLOCKS:
        places = [places[place] for place in sorted(np.random.default_rng(seed).permutation(len(places))[:_BLOCKS])]
    pieces = [_piece(update, name, start, BLOCK) for name, start in places]
    sample = np.concatenate(pieces, dtype=np.float32) if pieces else np.zeros(1, np.float32)
    length = float(np.linalg.norm(sample))
    return Trace(unit_id=unit_id, number=number, steps=steps, norm=norm, sample=sample / length if length > 0 else sample)


def differ(one: bytes | Path, other: bytes | Path, *, buffers: Collection[str]) -> float:
    """How far two updates to one model lie apart: the L2 norm of their difference, relative to that of ``one``. Read piece by piece."""
    a, b = EncodedUpdate(one), EncodedUpdate(other)
    apart = whole = 0.0
    for name in a.names:
        if name in buffers or not np.issubdtype(a.dtype(name), np.floating):
            continue
        for start in range(0, a.size(name), _PIECE):
            left, right = (_piece(update, name, start, _PIECE).astype(np.float64) for update in (a, b))
            apart += float(np.dot(left - right, left - right))
            whole += float(np.dot(left, left))
    return math.sqrt(apart / whole) if whole else math.inf


def _piece(update: EncodedUpdate, name: str, start: int, length: int) -> NDArray[np.float32]:
    stop = min(start + length, update.size(name))
    out = np.empty(stop - start, np.float32)
    update.read_into(name, start, stop, out)
    return out


def suspicions(of_round: Sequence[Trace], before: Sequence[Trace]) -> dict[str, AuditReason]:
    """Which updates of a round are odd, and how; the oddest first.

    ``of_round`` is in the order of acceptance: of two that are nearly one, the later is the copy. ``before`` are updates of earlier
    rounds, oldest first. Where there is too little to compare with, nothing is odd.
    """
    traces = [*before, *of_round]
    if len(traces) < 3:
        return {}
    samples = np.stack([one.sample for one in traces])
    first = len(before)
    oddness = {
        AuditReason.COPY: _copied(samples, first),
        AuditReason.SIZE: _deviations(_sizes(traces), least=_LEAST_SIZE)[first:],
        AuditReason.DIRECTION: np.maximum(-_deviations(_directions(traces, samples), least=_LEAST_DIRECTION)[first:], 0.0),
    }
    found = []
    for place, one in enumerate(of_round):
        how, much = max(((reason, abs(float(values[place]))) for reason, values in oddness.items()), key=lambda item: item[1])
        if much > _ODD:
            found.append((much, one.unit_id, how))
    return {unit_id: how for _, unit_id, how in sorted(found, key=lambda item: -item[0])}


def _sizes(traces: Sequence[Trace]) -> _Values:
    """How far the logarithm of each norm per step lies from that of the others of its round and the one before."""
    logs = np.array([math.log(max(one.norm, 1e-30) / one.steps) for one in traces])
    return np.array([_from_others(logs, near, place) for place, near in enumerate(_near(traces))])


def _from_others(values: _Values, near: Sequence[int], place: int) -> float:
    others = [values[other] for other in near if other != place and np.isfinite(values[other])]
    return float(values[place] - np.median(others)) if others else math.nan


def _directions(traces: Sequence[Trace], samples: NDArray[np.float32]) -> _Values:
    """The cosine of each update with the mean of the others of its round and the one before, less what it is for those others."""
    alike = (samples @ samples.T).astype(np.float64)
    cosines = np.full(len(traces), np.nan)
    for place, near in enumerate(_near(traces)):
        others = [other for other in near if other != place]
        length = math.sqrt(max(alike[np.ix_(others, others)].sum(), 0.0))
        if len(others) > 1 and length > 0:
            cosines[place] = alike[place, others].sum() / length
    return np.array([_from_others(cosines, near, place) for place, near in enumerate(_near(traces))])


def _near(traces: Sequence[Trace]) -> list[list[int]]:
    """For each update, the places of those of its round and of the round before, or of a few where those are fewer."""
    lists: list[list[int]] = []
    earlier = 0
    for _, group in groupby(range(len(traces)), key=lambda place: traces[place].number):
        own = list(group)
        lists += [list(range(max(min(earlier, own[0] - _FEW), 0), own[-1] + 1))] * len(own)
        earlier = own[0]
    return lists


def _deviations(values: _Values, *, least: float) -> _Values:
    """How many usual deviations each value lies from the usual value; 0 where it is not known."""
    known = values[np.isfinite(values)]
    if len(known) < 3:
        return np.zeros(len(values))
    usual = np.median(known)
    width = max(1.4826 * float(np.median(np.abs(known - usual))), least)
    found: _Values = np.nan_to_num((values - usual) / width, nan=0.0)
    return found


def _copied(samples: NDArray[np.float32], first: int) -> _Values:
    """Infinite for each of the updates from ``first`` on that is nearly an earlier one, 0 for the others."""
    distances = 1 - samples @ samples.T
    nearest = np.array([distances[place, :place].min() if place else np.inf for place in range(len(samples))])
    usual = float(np.median(nearest[1:]))
    return np.where(nearest[first:] < min(_NEARER * usual, 0.1), np.inf, 0.0)
