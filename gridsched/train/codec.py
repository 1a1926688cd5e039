"""How an update travels: exact, as half precision, or as int8 blocks with one scale each.

An update is a safetensors file again. Integer tensors always travel exactly. ``int8`` rounds each block of 256 values to
whole multiples of ``max|block| / 127`` (block-wise quantisation, Dettmers et al. 2022, arXiv:2110.02861); what rounding loses
can be carried to the sender's next update as error feedback (Seide et al. 2014, "1-Bit Stochastic Gradient Descent").
An update is read in ranges, so a merge never holds a decoded one.
"""

import json
from collections.abc import Iterator, Mapping, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np

from gridsched.core.errors import InvalidInput
from gridsched.core.method import Codec
from gridsched.train.tensors import DTYPES, Array, element_count, open_tensors, strict_json, tensors_from_bytes, tensors_to_bytes

__all__ = ["BLOCK", "EncodedUpdate", "decode", "encode"]

BLOCK = 256
_SCALE = "#scale"
_CODEC, _DTYPES = "gridsched.codec", "gridsched.dtypes"
_HALF_MAX = float(np.finfo(np.float16).max)


def encode(delta: Mapping[str, Array], codec: Codec, residual: MutableMapping[str, Array] | None = None) -> bytes:
    """``delta`` as bytes. With ``residual``, what it held is added first and what rounding loses now is put there."""
    tensors: dict[str, Array] = {}
    dtypes: dict[str, str] = {}
    for name, array in delta.items():
        if codec is Codec.RAW or not np.issubdtype(array.dtype, np.floating):
            tensors[name] = array
            continue
        wanted = array if residual is None or name not in residual else array + residual[name]
        dtypes[name] = array.dtype.name
        tensors |= _half(name, wanted) if codec is Codec.HALF else _int8(name, wanted)
        if residual is not None:
            sent = _decoded(codec, tensors, name, 0, array.size).astype(array.dtype)
            residual[name] = wanted - sent.reshape(array.shape)
    return tensors_to_bytes(tensors, {_CODEC: codec.value, _DTYPES: json.dumps(dtypes, sort_keys=True)})


def _half(name: str, array: Array) -> dict[str, Array]:
    # Large values saturate, or one of them would have the whole update refused; NaN and infinity stay, and are refused.
    return {name: np.where(np.isfinite(array), np.clip(array, -_HALF_MAX, _HALF_MAX), array).astype(np.float16)}


def _int8(name: str, array: Array) -> dict[str, Array]:
    flat = np.ascontiguousarray(array, np.float32).reshape(-1)
    padded = np.zeros((-(-flat.size // BLOCK), BLOCK), np.float32)
    padded.reshape(-1)[: flat.size] = flat
    scale = np.abs(padded).max(axis=1) / np.float32(127)
    with np.errstate(invalid="ignore"):
        levels = np.rint(padded / np.where(scale > 0, scale, 1)[:, None])
    # Where the scale is NaN or infinite the levels mean nothing; the scale tells the receiver.
    levels = np.nan_to_num(levels, nan=0.0, posinf=0.0, neginf=0.0).clip(-127, 127).astype(np.int8)
    return {name: levels.reshape(-1)[: flat.size].reshape(array.shape), name + _SCALE: scale}


def _decoded(codec: Codec, tensors: Mapping[str, Array], name: str, start: int, stop: int) -> Array:
    values = tensors[name].reshape(-1)[start:stop]
    if codec is not Codec.INT8:
        return values
    out = values.astype(np.float32)
    scale = tensors[name + _SCALE][start // BLOCK : -(-stop // BLOCK)]
    whole = len(out) // BLOCK
    with np.errstate(invalid="ignore"):  # zero times an infinite scale is NaN, which is for the receiver to refuse
        out[: whole * BLOCK].reshape(whole, BLOCK)[...] *= scale[:whole, None]
        out[whole * BLOCK :] *= scale[whole:].sum(dtype=np.float32)  # the last, partial block, if there is one
    return out


class EncodedUpdate:
    """An update as it travelled, decoded range by range. Raises InvalidInput for anything that is not one."""

    def __init__(self, source: bytes | memoryview | Path) -> None:
        self._tensors, metadata = open_tensors(source) if isinstance(source, Path) else tensors_from_bytes(source)
        if set(metadata) != {_CODEC, _DTYPES} or metadata[_CODEC] not in list(Codec):
            raise InvalidInput(f"an update's metadata must say its codec ({', '.join(Codec)}) and dtypes")
        self.codec = Codec(metadata[_CODEC])
        self._dtypes = strict_json(metadata[_DTYPES])
        self.names = tuple(sorted(name for name in self._tensors if not self._is_scale(name)))
        self._check()

    def _is_scale(self, name: str) -> bool:
        return self.codec is Codec.INT8 and name.endswith(_SCALE)

    def _check(self) -> None:
        if not isinstance(self._dtypes, dict) or not set(self._dtypes) <= set(self.names):
            raise InvalidInput("the update names dtypes of tensors it does not hold")
        travelling = np.dtype(np.int8 if self.codec is Codec.INT8 else np.float16)
        for name, dtype in self._dtypes.items():
            if self.codec is Codec.RAW or dtype not in ("float16", "float32", "float64") or self._tensors[name].dtype != travelling:
                raise InvalidInput(f"tensor {name!r} of the update is not {self.codec} of a float dtype")
        scales = {name + _SCALE: -(-self._tensors[name].size // BLOCK) for name in self._dtypes if self.codec is Codec.INT8}
        if {name for name in self._tensors if self._is_scale(name)} != set(scales):
            raise InvalidInput("the update's scales do not belong to its tensors")
        for name, blocks in scales.items():
            if self._tensors[name].dtype != np.float32 or self._tensors[name].shape != (blocks,):
                raise InvalidInput(f"{name!r} must be {blocks} float32 values")

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype the tensor had before it was encoded."""
        return DTYPES[self._dtypes[name]] if name in self._dtypes else self._tensors[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return self._tensors[name].shape

    def size(self, name: str) -> int:
        """The tensor's number of elements."""
        return element_count(self.shape(name))

    def read(self, name: str, start: int, stop: int) -> Array:
        """Values ``start`` to ``stop`` of the flattened tensor, as numbers; ``start`` is a multiple of ``BLOCK``."""
        codec = self.codec if name in self._dtypes else Codec.RAW
        return _decoded(codec, self._tensors, name, start, stop)

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        for name in self.names:
            yield name, self.read(name, 0, self.size(name)).astype(self.dtype(name), copy=False).reshape(self.shape(name))


def decode(data: bytes | memoryview | Path) -> dict[str, Array]:
    """All tensors of an update, decoded. Raises InvalidInput for anything that is not an update."""
    return dict(EncodedUpdate(data))
