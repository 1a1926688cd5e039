"""Updates into the next version.

The merge is elementwise and runs in one canonical order (sorted unit ids), so neither arrival order, nor batching, nor the size of its
pieces, nor how many threads share them changes a bit; numpy's elementwise arithmetic is IEEE exact, so neither does the machine. It
reads all updates piece by piece from their files and writes the next version's file in place: about one model of memory, however many
there are.

Parameters take the outer step; buffers (running statistics) take the plain combined change, because momentum could make a
variance negative; integer tensors take it rounded half to even; booleans stay.
"""

import math
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridsched.core.errors import InvalidInput, UpdateRefused
from gridsched.core.method import Codec, Method
from gridsched.core.work import Refusal
from gridsched.train.codec import PIECE, EncodedUpdate, UpdateWriter
from gridsched.train.outer import OuterState, advance
from gridsched.train.robust import Combine, Weighted, combiner, piece_size
from gridsched.train.tensors import Array, Layout, Source
from gridsched.train.version import Version, read_version, wide

__all__ = ["Merged", "check_update", "merge_version", "tensor_spec"]

_Piece = tuple[str, int, int]
"""A tensor's name, and from where to where in it, flattened."""
_CORES = min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8)
_WORTH_THREADS = 1 << 22
"""So many values of all updates; with fewer, threads take longer to start than they save."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What a round came to, as files: the next ``version``, the ``outer`` optimizer's state, and the ``step`` by which it travels down.

    ``outer`` is None where the optimizer remembers nothing, ``step`` where the method's ``down`` is raw.
    """

    version: memoryview
    outer: memoryview | None
    step: memoryview | None


def merge_version(base: Source, updates: Sequence[tuple[str, float, Source]], method: Method, outer: Source | None = None) -> Merged:
    """Version v+1 from version v, the ``outer`` state that was written with it, and one round's ``(unit_id, weight, update)``.

    Weights are normalised, so sample counts serve. Raises InvalidInput for no update, a unit twice, a weight that is not above 0,
    or a state that does not belong to this version.
    """
    version = read_version(base)
    parameters = _parameters(version)
    ordered = _canonical(updates)
    lossy = method.down is not Codec.RAW
    state = OuterState(method.outer, parameters, residual=lossy, before=outer, momentum=version.outer)
    step = UpdateWriter(_step_spec(version), method.down, exact=set(version.tensors) - set(parameters)) if lossy else None
    combine = combiner(method.merge, method.bad_share, ordered, parameters)
    data, made = version.next()
    merge = _Merge(version=version, made=made, parameters=parameters, method=method, combine=combine, state=state, step=step)
    values = sum(array.size for array in version.tensors.values())
    threads = _CORES if values * len(ordered) >= _WORTH_THREADS else 1
    size, pieces = piece_size(method.merge, len(ordered), values, threads=threads), list[_Piece]()
    for name, array in version.tensors.items():
        if array.dtype == np.bool_:
            made[name][...] = array
        else:
            pieces += [(name, start, min(start + size, array.size)) for start in range(0, array.size, size)]
    _shared_out(merge.pieces, pieces, threads=threads)
    return Merged(version=data, outer=None if state.empty else state.data, step=step.data if step else None)


def _shared_out(work: Callable[[Sequence[_Piece]], None], pieces: Sequence[_Piece], *, threads: int) -> None:
    """``work`` on all ``pieces``, a run of neighbours for each thread: numpy lets go of the interpreter for as long as a piece takes."""
    share = max(-(-len(pieces) // threads), 1)
    shares = [pieces[start : start + share] for start in range(0, len(pieces), share)]
    if len(shares) <= 1:
        work(pieces)
        return
    with ThreadPoolExecutor(len(shares), thread_name_prefix="merge") as pool:
        for done in [pool.submit(work, some) for some in shares]:
            done.result()


def _canonical(updates: Sequence[tuple[str, float, Source]]) -> Weighted:
    ordered = sorted(updates, key=lambda update: update[0])
    ids = [unit_id for unit_id, _, _ in ordered]
    if not ids or len(set(ids)) != len(ids):
        raise InvalidInput(f"a merge needs at least one update and each unit once, got {ids[:20]}")
    if not all(weight > 0 and math.isfinite(weight) for _, weight, _ in ordered):
        raise InvalidInput("the weight of every update must be above 0")
    total = math.fsum(weight for _, weight, _ in ordered)
    return [(weight / total, EncodedUpdate(source)) for _, weight, source in ordered]


def _parameters(version: Version) -> Layout:
    """The tensors that take an outer step, with the dtypes it is computed in."""
    return {
        name: (wide(array.dtype), array.shape)
        for name, array in version.tensors.items()
        if name not in version.buffers and np.issubdtype(array.dtype, np.floating)
    }


def _step_spec(version: Version) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Steps of floats have the dtype they are added in; counters travel as what they count in."""
    return {
        name: (wide(array.dtype).name if np.issubdtype(array.dtype, np.floating) else array.dtype.name, array.shape)
        for name, array in version.tensors.items()
        if array.dtype != np.bool_
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merge:
    """Where the pieces of one merge go."""

    version: Version
    made: Mapping[str, Array]
    parameters: Collection[str]
    method: Method
    combine: Combine
    state: OuterState
    step: UpdateWriter | None

    def pieces(self, pieces: Sequence[_Piece]) -> None:
        """Make these pieces of the next version. Threads may do so side by side: no two pieces share a value that is written."""
        longest = max((stop - start for _, start, stop in pieces), default=0)
        room: dict[np.dtype[Any], Array] = {}
        for name, start, stop in pieces:
            dtype = wide(self.version.tensors[name].dtype)
            if dtype not in room:
                room[dtype] = np.empty((2, longest), dtype)
            delta, spare = room[dtype][:, : stop - start]
            self.combine(name, start, stop, delta, spare)
            self._add(name, start, stop, delta, spare, stepped=name in self.parameters)

    def _add(self, name: str, start: int, stop: int, delta: Array, spare: Array, *, stepped: bool) -> None:
        """Add one piece of the combined ``delta`` to the version, by way of the outer optimizer where ``stepped``."""
        before, after = (tensors[name].reshape(-1)[start:stop] for tensors in (self.version.tensors, self.made))
        if stepped:
            held = self.state.pieces(name, start, stop)
            advance(self.method.outer, delta, held[: len(held) - (self.step is not None)], spare)
            if self.step is not None:
                self._round(self.step, name, start, delta, spare, residual=held[-1])
        else:
            change = delta if np.issubdtype(before.dtype, np.floating) else np.rint(delta).astype(before.dtype)
            if self.step is not None:
                self.step.write(name, start, change)
            delta = change
        np.add(before, delta, out=after, casting="same_kind")

    def _round(self, step: UpdateWriter, name: str, start: int, delta: Array, spare: Array, *, residual: Array) -> None:
        """Make ``delta`` what travels of it and of what did not travel before."""
        np.add(delta, residual, out=spare)
        step.write(name, start, spare)
        step.read_into(name, start, start + len(delta), delta)
        np.subtract(spare, delta, out=residual)


def tensor_spec(tensors: Mapping[str, Array]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """What an update to ``tensors`` must look like: dtype and shape by name; booleans do not travel."""
    return {name: (array.dtype.name, array.shape) for name, array in tensors.items() if array.dtype != np.bool_}


def check_update(
    data: Source,
    base_spec: Mapping[str, tuple[str, tuple[int, ...]]],
    max_norm: float | None = None,
    *,
    buffers: Collection[str] = frozenset(),
) -> float:
    """The L2 norm over the update's parameters, if it may be merged into a version of ``base_spec``.

    ``buffers`` must be finite but do not count in the norm: a running variance has the scale of the data, not of a step.

    Raises UpdateRefused with the reason: unreadable, wrong_shape (names, dtypes or shapes), not_finite, or norm_bound where
    the norm is above ``max_norm``.
    """
    try:
        update = EncodedUpdate(data)
    except InvalidInput as error:
        raise UpdateRefused(f"the update cannot be read: {error}", reason=Refusal.UNREADABLE) from error
    if difference := set(update.names) ^ set(base_spec):
        what = "lacks" if min(difference) in base_spec else "has an unknown"
        raise UpdateRefused(f"the update {what} tensor {min(difference)!r}", reason=Refusal.WRONG_SHAPE)
    for name, (dtype, shape) in base_spec.items():
        if update.shape(name) != shape or update.dtype(name).name != dtype:
            raise UpdateRefused(
                f"tensor {name!r} of the update is {update.dtype(name).name} of {update.shape(name)}, the version has {dtype} of {shape}",
                reason=Refusal.WRONG_SHAPE,
            )
    squares = {name: _square_norm(update, name) for name in update.names}
    norm = math.sqrt(math.fsum(square for name, square in squares.items() if name not in buffers))
    if max_norm is not None and norm > max_norm:
        raise UpdateRefused(f"the update's norm {norm:.6g} is above the bound {max_norm:.6g}", reason=Refusal.NORM_BOUND)
    return norm


def _square_norm(update: EncodedUpdate, name: str) -> float:
    if not np.issubdtype(update.dtype(name), np.floating):
        return 0.0
    total = 0.0
    for start in range(0, update.size(name), PIECE):
        stop = min(start + PIECE, update.size(name))
        piece = np.empty(stop - start, np.float64)
        update.read_into(name, start, stop, piece)
        total += float(np.dot(piece, piece))
    if not math.isfinite(total):
        raise UpdateRefused(f"tensor {name!r} of the update holds NaN or infinity", reason=Refusal.NOT_FINITE)
    return total
