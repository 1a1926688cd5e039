"""A model version as a file: what a round starts from, and what it merges into.

Tensors have the names of the owner's ``module.state_dict()``; the outer optimizer's momentum travels with them under
``outer/``, so the next version is a function of this file and of the round's journal row alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gridsched.core.errors import InvalidInput
from gridsched.train.graph import Program, model_tensors
from gridsched.train.tensors import Array, open_tensors, strict_json, tensors_from_bytes, tensors_to_bytes

__all__ = ["Version", "initial_version", "owner_tensors", "read_version"]

_OUTER = "outer/"
_KEY = "gridsched.version"


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """``tensors`` by state-dict name; ``outer`` momentum by the same names; ``buffers`` are averaged but never momentum-stepped."""

    tensors: Mapping[str, Array]
    outer: Mapping[str, Array] = field(default_factory=dict)
    buffers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if not self.tensors or not self.buffers <= set(self.tensors) or not set(self.outer) <= set(self.tensors):
            raise InvalidInput("a version's buffers and outer momentum must belong to its tensors")

    def to_bytes(self) -> bytes:
        """Canonical bytes; their sha256 is the version's digest."""
        tensors = dict(self.tensors) | {_OUTER + name: array for name, array in self.outer.items()}
        return tensors_to_bytes(tensors, {_KEY: json.dumps({"buffers": sorted(self.buffers)}, separators=(",", ":"))})


def initial_version(program: Program, tensors: Mapping[str, Array]) -> Version:
    """Version 0: the module as it was exported."""
    return Version(tensors={name: tensors[name] for name in model_tensors(program)}, buffers=frozenset(program.names("buffer")))


def read_version(source: bytes | memoryview | Path) -> Version:
    """Read a version from bytes, or mapped from a file. Raises InvalidInput for anything else."""
    tensors, metadata = open_tensors(source) if isinstance(source, Path) else tensors_from_bytes(source)
    about = strict_json(metadata.get(_KEY, "null"))
    if not isinstance(about, dict) or set(about) != {"buffers"} or not isinstance(about["buffers"], list):
        raise InvalidInput("this file is not a model version; its metadata must hold gridsched.version")
    return Version(
        tensors={name: array for name, array in tensors.items() if not name.startswith(_OUTER)},
        outer={name.removeprefix(_OUTER): array for name, array in tensors.items() if name.startswith(_OUTER)},
        buffers=frozenset(map(str, about["buffers"])),
    )


def owner_tensors(program: Program, version: Version) -> dict[str, Array]:
    """What the model owner loads: every name of ``module.state_dict()``, tied weights under all their names."""
    return dict(version.tensors) | {alias: version.tensors[name] for alias, name in program.aliases.items()}
