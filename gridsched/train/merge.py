"""Updates into the next version.

The merge is elementwise and runs in one canonical order (sorted unit ids), so neither arrival order, nor batching, nor how
names are spread over processes changes a bit; numpy's elementwise arithmetic is IEEE exact, so neither does the machine. It
reads all updates block by block from their files into one accumulator: about two models of memory, however many there are.

Parameters take the outer step; buffers (running statistics) take the plain weighted mean, because momentum could make a
variance negative; integer tensors take the weighted mean of their changes, rounded half to even; booleans stay.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gridsched.core.errors import InvalidInput, UpdateRefused
from gridsched.core.method import OuterOptimizer
from gridsched.core.work import Refusal
from gridsched.train.codec import BLOCK, EncodedUpdate
from gridsched.train.tensors import Array
from gridsched.train.version import Version, read_version

__all__ = ["Source", "check_update", "merge", "merge_version", "tensor_spec"]

Source = bytes | memoryview | Path
_Weighted = Sequence[tuple[float, EncodedUpdate]]

# Elements per block: accumulator, scratch and one piece of an update together stay inside a core's cache.
_PIECE = 128 * BLOCK


def merge_version(base: Source, updates: Sequence[tuple[str, float, Source]], outer: OuterOptimizer) -> bytes:
    """The bytes of version v+1 from those of version v and one round's ``(unit_id, weight, update)``."""
    version = read_version(base)
    tensors, momentum = merge(version.tensors, updates, outer, version.outer, buffers=version.buffers)
    return Version(tensors=tensors, outer=momentum, buffers=version.buffers).to_bytes()


def merge(
    base: Mapping[str, Array],
    updates: Sequence[tuple[str, float, Source]],
    outer: OuterOptimizer,
    outer_state: Mapping[str, Array] | None = None,
    *,
    buffers: Collection[str] = frozenset(),
    names: Collection[str] | None = None,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """``(tensors, outer_state)`` after one round; both only for ``names`` where given, to spread a merge over processes.

    Each update is ``(unit_id, weight, encoded delta)``; weights are normalised, so sample counts serve. ``sgd`` with lr 1 is
    federated averaging (McMahan et al. 2017); ``nesterov`` is the outer step of DiLoCo (Douillard et al. 2023):
    ``m = momentum * m + d``, ``x += lr * (d + momentum * m)`` with ``d`` the mean delta.
    """
    ordered = _canonical(updates)
    chosen = sorted(base if names is None else names)
    tensors: dict[str, Array] = {}
    state: dict[str, Array] = {}
    for name in chosen:
        if base[name].dtype == np.bool_:
            tensors[name] = base[name].copy()
        elif not np.issubdtype(base[name].dtype, np.floating):
            tensors[name] = _merge_integers(base[name], name, ordered)
        else:
            stepped = name not in buffers
            momentum = _momentum(base[name], (outer_state or {}).get(name)) if stepped and outer.name == "nesterov" else None
            tensors[name] = _merge_floats(base[name], name, ordered, outer if stepped else OuterOptimizer(), momentum)
            if momentum is not None:
                state[name] = momentum
    return tensors, state


def _canonical(updates: Sequence[tuple[str, float, Source]]) -> _Weighted:
    ordered = sorted(updates, key=lambda update: update[0])
    ids = [unit_id for unit_id, _, _ in ordered]
    if not ids or len(set(ids)) != len(ids):
        raise InvalidInput(f"a merge needs at least one update and each unit once, got {ids[:20]}")
    total = math.fsum(weight for _, weight, _ in ordered)
    if not all(weight > 0 and math.isfinite(weight) for _, weight, _ in ordered):
        raise InvalidInput("the weight of every update must be above 0")
    return [(weight / total, EncodedUpdate(source)) for _, weight, source in ordered]


def _momentum(like: Array, held: Array | None) -> Array:
    return np.zeros(like.shape, like.dtype) if held is None else held.copy()


def _merge_floats(base: Array, name: str, updates: _Weighted, outer: OuterOptimizer, momentum: Array | None) -> Array:
    wide = np.dtype(np.float64 if base.dtype == np.float64 else np.float32)
    flat, merged = base.reshape(-1), np.empty(base.size, base.dtype)
    mean, scratch = np.empty(min(_PIECE, base.size), wide), np.empty(min(_PIECE, base.size), wide)
    for start in range(0, base.size, _PIECE):
        stop = min(start + _PIECE, base.size)
        step, spare = mean[: stop - start], scratch[: stop - start]
        _weighted_mean(name, start, stop, updates, step, spare)
        if momentum is not None:
            held = momentum.reshape(-1)[start:stop]
            np.multiply(held, wide.type(outer.momentum), out=spare)
            np.add(spare, step, out=spare)
            held[...] = spare
            np.multiply(spare, wide.type(outer.momentum), out=spare)
            np.add(step, spare, out=step)
        if outer.lr != 1.0:
            np.multiply(step, wide.type(outer.lr), out=step)
        np.add(flat[start:stop], step, out=merged[start:stop], casting="same_kind")
    return merged.reshape(base.shape)


def _weighted_mean(name: str, start: int, stop: int, updates: _Weighted, out: Array, scratch: Array) -> None:
    out.fill(0)
    for weight, update in updates:
        np.multiply(update.read(name, start, stop), out.dtype.type(weight), out=scratch, casting="same_kind")
        np.add(out, scratch, out=out)


def _merge_integers(base: Array, name: str, updates: _Weighted) -> Array:
    mean = np.zeros(base.size, np.float64)
    for weight, update in updates:
        mean += update.read(name, 0, base.size) * np.float64(weight)
    merged: Array = base + np.rint(mean).astype(base.dtype).reshape(base.shape)
    return merged


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
    for start in range(0, update.size(name), _PIECE):
        piece: Any = update.read(name, start, min(start + _PIECE, update.size(name))).astype(np.float64)
        total += float(np.dot(piece, piece))
    if not math.isfinite(total):
        raise UpdateRefused(f"tensor {name!r} of the update holds NaN or infinity", reason=Refusal.NOT_FINITE)
    return total
