"""Where buffers lie: two that are alive at the same time never share a byte, and one that dies may become the next.

First calls that may write over what they read for the last time do so; then buffers are placed from the largest down, each into
the smallest gap that is free for its whole life (greedy by size: Pisarchyk and Lee 2020, arXiv:2001.03288).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridsched.train.plan.tape import Buffer, Call, Value

__all__ = ["ALIGNMENT", "Life", "aligned", "lives", "place", "useful"]

ALIGNMENT = 64
_NEVER = np.iinfo(np.int64).max
_IN_PLACE: Mapping[str, tuple[tuple[int, ...], int]] = {
    # Kernel: the places of the inputs it may write over, element by element, and of its output.
    "add": ((0, 1), 2),
    "dropout": ((0,), 1),
    "unary": ((0,), 1),
    "unary_grad": ((0, 1, 2), 3),
}

# Where the simple kernels write, which is all that they do.
_WRITES = {"add": 2, "binary": 2, "cast": 1, "choose": 3, "copy": 1, "fill": 0, "fill_i64": 0, "fill_u8": 0, "unary": 1, "unary_grad": 3}


@dataclass(slots=True)
class Life:
    """From the first to the last call that names a buffer; ``size`` in bytes."""

    first: int
    last: int
    size: int


def aligned(address: int) -> int:
    """The next address that a buffer may begin at."""
    return -(-address // ALIGNMENT) * ALIGNMENT


def useful(calls: Sequence[Call], kept: Iterable[Buffer]) -> list[Call]:
    """The calls without those that write what nobody reads, such as a recurrent layer's last state where only its outputs are used."""
    read = set(kept)
    found = []
    for call in reversed(calls):
        written = call.arguments[_WRITES[call.kernel.name]] if call.kernel.name in _WRITES else None
        if isinstance(written, Value) and written.buffer.address is None and written.buffer not in read:
            continue
        found.append(call)
        read.update(value.buffer for value in call.arguments if isinstance(value, Value))
    return found[::-1]


def lives(calls: Sequence[Call], kept: Iterable[Buffer]) -> dict[Buffer, Life]:
    """When each buffer without an address is in use; those ``kept`` live until the end."""
    found: dict[Buffer, Life] = {}
    for index, call in enumerate(calls):
        for value in call.arguments:
            if isinstance(value, Value) and value.buffer.address is None:
                found.setdefault(value.buffer, Life(index, index, value.buffer.size)).last = index
    for buffer in kept:
        if buffer.address is None:
            found.setdefault(buffer, Life(0, 0, buffer.size)).last = len(calls)
    return found


def place(calls: Sequence[Call], kept: Iterable[Buffer], start: int) -> int:
    """Give every buffer without an address one at ``start`` or above; returns the first byte after them all."""
    found = lives(calls, kept)
    groups = _share(calls, found)
    placed = np.empty((4, len(groups)), np.int64)  # of each: where it begins, the next address behind it, its first and its last call
    end = start
    ordered = sorted(((leader, found[leader]) for leader in groups), key=lambda item: (-item[1].size, item[1].first))
    for count, (leader, life) in enumerate(ordered):
        address = _smallest_gap(placed[:, :count], life, start)
        placed[:, count] = address, aligned(address + life.size), life.first, life.last
        end = max(end, address + life.size)
        for buffer in groups[leader]:
            buffer.address = address
    return end


def _share(calls: Sequence[Call], found: dict[Buffer, Life]) -> dict[Buffer, list[Buffer]]:
    """Buffers that lie in one place because a call writes over what it read; by the first of them, whose life becomes theirs."""
    leader = {buffer: buffer for buffer in found}
    groups = {buffer: [buffer] for buffer in found}
    for index, call in enumerate(calls):
        inputs, output = _IN_PLACE.get(call.kernel.name, ((), 0))
        for where in inputs:
            if _may_share(index, call.arguments[where], call.arguments[output], found, leader):
                old, new = leader[_buffer(call.arguments[where])], _buffer(call.arguments[output])
                groups[old] += groups.pop(new)
                leader[new] = old
                found[old].last = found[new].last
                break
    return groups


def _buffer(argument: object) -> Buffer:
    assert isinstance(argument, Value)
    return argument.buffer


def _may_share(index: int, old: object, new: object, found: Mapping[Buffer, Life], leader: Mapping[Buffer, Buffer]) -> bool:
    if not (isinstance(old, Value) and isinstance(new, Value) and old.buffer in found and new.buffer in found):
        return False
    whole = old.offset == new.offset == 0 and old.buffer.size == new.buffer.size
    life = found[leader[old.buffer]]
    return whole and life.last == index and found[new.buffer].first == index and leader[new.buffer] is new.buffer


def _smallest_gap(placed: npt.NDArray[np.int64], life: Life, start: int) -> int:
    """The start of the smallest gap that is free while ``life`` lasts."""
    begins, ends, firsts, lasts = placed
    others = np.flatnonzero((firsts <= life.last) & (lasts >= life.first))
    others = others[np.argsort(begins[others])]
    free_from = np.maximum.accumulate(np.concatenate(([start], ends[others])))
    rooms = begins[others] - free_from[:-1]
    rooms[rooms < life.size] = _NEVER
    best = int(np.argmin(rooms)) if len(rooms) and rooms.min() < _NEVER else -1
    return int(free_from[best])
