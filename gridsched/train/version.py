"""A model version as a file: what a round starts from, and what it merges into.

Tensors have the names of the owner's ``module.state_dict()``. The outer optimizer's state is a file of its own (`gridsched.train.outer`).
Where the step from one version to the next travels rounded, the next version *is* the one before plus that step: a node that holds
the one makes the other from a fraction of the bytes, bit by bit what the merger wrote.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from gridsched.core.errors import InvalidInput
from gridsched.train.codec import PIECE, EncodedUpdate
from gridsched.train.graph import Program, model_tensors
from gridsched.train.tensors import Array, Source, allocate, open_tensors, strict_json, tensors_to_bytes

__all__ = ["Version", "advanced", "initial_version", "owner_tensors", "read_version", "wide"]

_OUTER = "outer/"
_KEY = "gridsched.version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """``tensors`` by state-dict name; ``buffers`` are averaged but never momentum-stepped.

    ``outer`` is the momentum that versions of release 0.1 brought along; it is read, and no longer written.
    """

    tensors: Mapping[str, Array]
    outer: Mapping[str, Array] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.tensors or not self.buffers <= set(self.tensors) or not set(self.outer) <= set(self.tensors):
            raise InvalidInput("a version's buffers and outer momentum must belong to its tensors")

    def to_bytes(self) -> bytes:
        """Canonical bytes; their sha256 is the version's digest."""
        return tensors_to_bytes(self.tensors, self._metadata())

    def next(self) -> tuple[memoryview, dict[str, Array]]:
        """The file of a version of the same names, dtypes and shapes, and its tensors, which are still to be filled in."""
        return allocate({name: (array.dtype, array.shape) for name, array in self.tensors.items()}, self._metadata())

    def _metadata(self) -> dict[str, str]:
        return {_KEY: json.dumps({"buffers": sorted(self.buffers)}, separators=(",", ":"))}


def initial_version(program: Program, tensors: Mapping[str, Array]) -> Version:
    """Version 0: the module as it was exported."""
    return Version(tensors={name: tensors[name] for name in model_tensors(program)}, buffers=frozenset(program.names("buffer")))


def read_version(source: Source) -> Version:
    """Read a version from bytes, or mapped from a file. Raises InvalidInput for anything else."""
    tensors, metadata = open_tensors(source)
    about = strict_json(metadata.get(_KEY, "null"))
    if not isinstance(about, dict) or set(about) != {"buffers"} or not isinstance(about["buffers"], list):
        raise InvalidInput("this file is not a model version; its metadata must hold gridsched.version")
    return Version(
        tensors={name: array for name, array in tensors.items() if not name.startswith(_OUTER)},
        outer={name.removeprefix(_OUTER): array for name, array in tensors.items() if name.startswith(_OUTER)},
        buffers=frozenset(map(str, about["buffers"])),
    )


def wide(dtype: "np.dtype[np.generic]") -> "np.dtype[np.generic]":
    """What sums over a tensor's changes are computed in: float32 for floats of up to 32 bits, float64 for others and for integers."""
    return np.dtype(np.float32 if dtype in (np.float16, np.float32) else np.float64)


def advanced(base: Source, steps: Sequence[Source]) -> memoryview:
    """The bytes of the version that lies ``steps`` (the oldest first) after ``base``.

    Whether they are the right ones, only their digest tells. Raises InvalidInput for a step that does not fit the version.
    """
    version, updates = read_version(base), [EncodedUpdate(step) for step in steps]
    data, made = version.next()
    for name, array in version.tensors.items():
        if array.dtype == np.bool_:
            made[name][...] = array
            continue
        for update in updates:
            if name not in update.names or update.shape(name) != array.shape:
                raise InvalidInput(f"the step does not fit tensor {name!r} of the version")
        _advance(array.reshape(-1), name, updates, made[name].reshape(-1))
    return data


def _advance(base: Array, name: str, updates: Sequence[EncodedUpdate], out: Array) -> None:
    spare = np.empty(min(PIECE, base.size), wide(base.dtype) if np.issubdtype(base.dtype, np.floating) else base.dtype)
    for start in range(0, base.size, PIECE):
        stop = min(start + PIECE, base.size)
        out[start:stop] = base[start:stop]
        for update in updates:
            step = spare[: stop - start]
            update.read_into(name, start, stop, step)
            np.add(out[start:stop], step, out=out[start:stop], casting="same_kind")


def owner_tensors(program: Program, version: Version) -> dict[str, Array]:
    """What the model owner loads: every name of ``module.state_dict()``, tied weights under all their names."""
    return dict(version.tensors) | {alias: version.tensors[name] for alias, name in program.aliases.items()}
