"""Datasets as content-addressed shards, and the one order in which an epoch visits their samples.

A dataset is a manifest (JSON) naming shards by sha256; a shard is a safetensors file with one array per field, the first
axis being the samples. Shards are fetched when first needed, checked against their digest, and mapped, not read.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import DatasetError, InvalidInput
from gridsched.core.job import is_digest, is_name
from gridsched.train.draws import draw_key, permutation, uniform_ints
from gridsched.train.tensors import (
    DTYPES,
    Array,
    dtype_name,
    file_digest,
    open_tensors,
    strict_json,
    tensors_from_bytes,
    tensors_to_bytes,
    version_digest,
)

__all__ = ["Dataset", "DatasetManifest", "Field", "Shard", "order", "pass_order", "stretch_order", "write_dataset"]

_FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One named field; ``shape`` is that of a single sample."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES or len(self.shape) > 8 or any(size < 0 for size in self.shape):
            raise DatasetError(f"field {self.name!r} has an unusable dtype {self.dtype!r} or shape {self.shape}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A file of ``samples`` consecutive samples, named by its sha256."""

    digest: str
    samples: int

    def __post_init__(self) -> None:
        if not is_digest(self.digest) or self.samples < 1:
            raise DatasetError(f"a shard needs a sha256 digest and at least one sample, got {self.digest[:80]!r} and {self.samples}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetManifest:
    """What a dataset holds and where. ``attribution`` is the credit its licence asks for, shown wherever it is used."""

    name: str
    fields: tuple[Field, ...]
    shards: tuple[Shard, ...]
    attribution: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise DatasetError(f"dataset name {self.name[:80]!r} must be lower-case letters, digits, - and _, at most 63")
        if not self.fields or len({field.name for field in self.fields}) != len(self.fields):
            raise DatasetError(f"dataset {self.name} needs at least one field, each with a name of its own")
        if not self.shards:
            raise DatasetError(f"dataset {self.name} has no samples")

    @property
    def samples(self) -> int:
        """Number of samples in all shards."""
        return sum(shard.samples for shard in self.shards)

    def to_bytes(self) -> bytes:
        """Canonical JSON; its sha256 names the dataset."""
        data = {
            "format": _FORMAT,
            "name": self.name,
            "attribution": self.attribution,
            "fields": [{"name": field.name, "dtype": field.dtype, "shape": list(field.shape)} for field in self.fields],
            "shards": [[shard.digest, shard.samples] for shard in self.shards],
        }
        return json.dumps(data, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> "DatasetManifest":
        """Read a manifest strictly; DatasetError says what is wrong with it."""
        try:
            return _read_manifest(strict_json(data))
        except DatasetError:
            raise
        except (InvalidInput, TypeError, ValueError, KeyError, AttributeError) as error:
            raise DatasetError(f"this is not a dataset manifest: {error}") from error


def _read_manifest(data: Any) -> DatasetManifest:
    if not isinstance(data, dict) or set(data) != {"format", "name", "attribution", "fields", "shards"}:
        raise DatasetError("a dataset manifest has exactly the keys format, name, attribution, fields and shards")
    if data["format"] != _FORMAT:
        raise DatasetError(f"dataset format {data['format']!r} is not known here (this is {_FORMAT}); update gridsched")
    if not isinstance(data["name"], str) or not isinstance(data["attribution"], str):
        raise DatasetError("name and attribution of a dataset must be text")
    return DatasetManifest(
        name=data["name"],
        attribution=data["attribution"],
        fields=tuple(_read_field(item) for item in data["fields"]),
        shards=tuple(Shard(digest=str(digest), samples=_whole(samples)) for digest, samples in data["shards"]),
    )


def _read_field(item: Any) -> Field:
    if set(item) != {"name", "dtype", "shape"} or not isinstance(item["name"], str):
        raise DatasetError("a field has exactly name, dtype and shape")
    return Field(name=item["name"], dtype=str(item["dtype"]), shape=tuple(_whole(size) for size in item["shape"]))


def _whole(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << 40:
        raise DatasetError(f"{str(value)[:40]} is not a count")
    return value


def write_dataset(
    fields: Mapping[str, Array], *, name: str, shard_samples: int, put: Callable[[bytes], str], attribution: str = ""
) -> DatasetManifest:
    """Cut ``fields`` (arrays of equal length, samples first) into shards and store each through ``put(bytes) -> digest``.

    The manifest itself is not stored; ``put(manifest.to_bytes())`` gives the digest a job names.
    """
    lengths = {len(array) for array in fields.values() if array.ndim}
    if len(lengths) != 1 or not all(array.ndim for array in fields.values()) or 0 in lengths:
        raise DatasetError(f"all fields of dataset {name} must have the same number of samples, at least one, got {sorted(lengths)}")
    if shard_samples < 1:
        raise DatasetError(f"shard_samples must be at least 1, got {shard_samples}")
    (samples,) = lengths
    described = tuple(Field(name=key, dtype=dtype_name(array.dtype), shape=array.shape[1:]) for key, array in sorted(fields.items()))
    shards = []
    for start in range(0, samples, shard_samples):
        cut = {key: array[start : start + shard_samples] for key, array in fields.items()}
        shards.append(Shard(digest=put(tensors_to_bytes(cut)), samples=min(shard_samples, samples - start)))
    return DatasetManifest(name=name, fields=described, shards=tuple(shards), attribution=attribution)


def order(seed: int, epoch: int, samples: int) -> npt.NDArray[np.int64]:
    """The order in which epoch ``epoch`` visits the samples: the same on every machine and in every release."""
    return permutation(draw_key("order", seed, epoch), samples)


def stretch_order(seed: int, epoch: int, *, first: int, of: int, bag: int = -1) -> npt.NDArray[np.int64]:
    """The order in which an epoch visits the stretch ``[first, first + of)``; with ``bag`` 0 or more, ``of`` draws with replacement.

    A bag's draws are the same in every epoch (they are its dataset), and every epoch visits them in an order of its own.
    """
    if bag < 0:
        return first + permutation(draw_key("order", seed, epoch, "of", first, of), of)
    draws = first + uniform_ints(draw_key("bag", seed, bag, first, of), of)
    return draws[permutation(draw_key("order", seed, epoch, "bag", bag, first, of), of)]


def pass_order(seed: int, epoch: int, start: int, which: int, samples: int) -> npt.NDArray[np.int64]:
    """The order in which a unit starting at ``start`` visits its own samples in pass ``which``; pass 0 keeps the epoch's."""
    if which == 0:
        return np.arange(samples, dtype=np.int64)
    return permutation(draw_key("pass", seed, epoch, start, which), samples)


class Dataset:
    """Samples by position. ``get(digest)`` returns a shard's bytes or the path of a file that holds them.

    A shard is asked for when one of its samples is first needed; DatasetError names it if its bytes do not match its
    digest or the manifest.
    """

    def __init__(self, manifest: DatasetManifest, get: Callable[[str], bytes | Path]) -> None:
        self.manifest = manifest
        self.samples = manifest.samples
        self._get = get
        self._starts = np.cumsum([0] + [shard.samples for shard in manifest.shards])
        self._loaded: dict[int, dict[str, Array]] = {}

    def batch(self, positions: npt.NDArray[np.int64]) -> dict[str, Array]:
        """New arrays ``[len(positions), ...]`` per field, in the order of ``positions``."""
        if len(positions) and (positions.min() < 0 or positions.max() >= self.samples):
            asked = f"{positions.min()} to {positions.max()}"
            raise DatasetError(f"dataset {self.manifest.name} has positions 0 to {self.samples - 1}, asked for {asked}")
        if len(self._starts) == 2:
            return {name: array.take(positions, axis=0) for name, array in self._shard(0).items()}
        return self._gather(positions)

    def _gather(self, positions: npt.NDArray[np.int64]) -> dict[str, Array]:
        where = np.searchsorted(self._starts, positions, side="right") - 1
        out = {field.name: np.empty((len(positions), *field.shape), DTYPES[field.dtype]) for field in self.manifest.fields}
        for index in np.unique(where):
            chosen = where == index
            local = positions[chosen] - self._starts[index]
            for name, array in self._shard(int(index)).items():
                out[name][chosen] = array[local]
        return out

    def _shard(self, index: int) -> dict[str, Array]:
        if index not in self._loaded:
            self._loaded[index] = self._open(index)
        return self._loaded[index]

    def _open(self, index: int) -> dict[str, Array]:
        shard = self.manifest.shards[index]
        source = self._get(shard.digest)
        digest = file_digest(source) if isinstance(source, Path) else version_digest(source)
        what = f"shard {index} ({shard.digest[:12]}) of dataset {self.manifest.name}"
        if digest != shard.digest:
            raise DatasetError(f"{what} does not match its digest; fetch it again")
        try:
            tensors, _ = open_tensors(source) if isinstance(source, Path) else tensors_from_bytes(source)
        except InvalidInput as error:
            raise DatasetError(f"{what} cannot be read: {error}") from error
        found = {(name, array.dtype.name, array.shape) for name, array in tensors.items()}
        if found != {(field.name, field.dtype, (shard.samples, *field.shape)) for field in self.manifest.fields}:
            raise DatasetError(f"{what} does not hold the fields its manifest says")
        return tensors
