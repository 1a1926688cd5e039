"""How an update travels: exact, as half precision, or as blocks of small integers with one scale each.

An update is a safetensors file again. Integer tensors and running statistics always travel exactly. ``int8`` and ``int4`` round each
block of 256 values to whole multiples of ``max|block| / 127`` or ``/ 7`` (block-wise quantisation, Dettmers et al. 2022,
arXiv:2110.02861); four bits go two to a byte. An update is written and read in ranges, so a merge never holds a decoded one.

Rounding is to nearest, or, with a ``seed``, up or down at random so that the mean is exact (Alistarh et al. 2017, "QSGD",
arXiv:1610.02132). The draws follow from the seed and the place alone: whoever encodes the same values sends the same bytes.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from gridsched.core.errors import InvalidInput
from gridsched.core.method import Codec
from gridsched.core.work import UnitSpec
from gridsched.train.draws import draw_key, uniform_floats
from gridsched.train.tensors import DTYPES, Array, Source, allocate, element_count, open_tensors, strict_json

__all__ = ["BLOCK", "PIECE", "EncodedUpdate", "UpdateWriter", "decode", "encode", "encode_update"]

BLOCK = 256
PIECE = 128 * BLOCK
"""Values treated at once: a few arrays of so many stay inside a core's cache."""

_SCALE = "#scale"
_CODEC, _DTYPES, _SHAPES = "gridsched.codec", "gridsched.dtypes", "gridsched.shapes"
_HALF_MAX = float(np.finfo(np.float16).max)
_TRAVELLING: Mapping[Codec, np.dtype[Any]] = {
    Codec.HALF: np.dtype(np.float16),
    Codec.INT8: np.dtype(np.int8),
    Codec.INT4: np.dtype(np.uint8),
}
_TOP = {Codec.INT8: 127, Codec.INT4: 7}
# Both values of a byte of two 4-bit levels, low half first, by the byte.
_PAIRS = np.stack([np.arange(256) & 15, np.arange(256) >> 4], axis=1).astype(np.float32) - np.float32(8)
_Spec = Mapping[str, tuple[str, tuple[int, ...]]]


def encode(delta: Mapping[str, Array], codec: Codec, *, seed: int | None = None, exact: Collection[str] = ()) -> bytes:
    """``delta`` as bytes; with ``seed``, rounded at random. What is whole, and the ``exact`` ones, is not rounded."""
    kept = {name for name, array in delta.items() if name in exact or not np.issubdtype(array.dtype, np.floating)}
    writer = UpdateWriter({name: (array.dtype.name, array.shape) for name, array in delta.items()}, codec, exact=kept, seed=seed)
    for name, array in delta.items():
        flat = np.ascontiguousarray(array).reshape(-1)
        for start in range(0, flat.size, PIECE):
            writer.write(name, start, flat[start : start + PIECE])
    return bytes(writer.data)


def encode_update(delta: Mapping[str, Array], spec: UnitSpec, *, buffers: Collection[str]) -> bytes:
    """What a finished unit sends. Where there are few levels it is rounded at random, by draws of its own.

    To nearest, what is always small in its block would never arrive; with the 255 levels of ``int8`` that measures as no difference.
    The version's ``buffers`` are not rounded: beside one of another scale a variance would become negative.
    """
    seed = draw_key("update", spec.seed, spec.epoch, spec.first + spec.start) if spec.codec is Codec.INT4 else None
    return encode(delta, spec.codec, seed=seed, exact=buffers if spec.exact_buffers else ())


class UpdateWriter:
    """An encoded update in the making: allocated at once, then written piece by piece. ``exact`` tensors travel as they are."""

    def __init__(self, spec: _Spec, codec: Codec, *, exact: Collection[str], seed: int | None = None) -> None:
        self._codec, self._seed = codec, seed
        coded = {name: dtype for name, (dtype, _) in spec.items() if codec is not Codec.RAW and name not in exact}
        layout: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
        for name, (dtype, shape) in spec.items():
            layout[name] = (DTYPES[dtype] if name not in coded else _TRAVELLING[codec]), shape
            if name in coded and codec in _TOP:
                layout[name + _SCALE] = np.dtype(np.float32), (-(-element_count(shape) // BLOCK),)
            if name in coded and codec is Codec.INT4:
                layout[name] = _TRAVELLING[codec], (-(-element_count(shape) // 2),)
        about = {_CODEC: codec.value, _DTYPES: json.dumps(coded, sort_keys=True)}
        if codec is Codec.INT4:
            about[_SHAPES] = json.dumps({name: list(spec[name][1]) for name in coded}, sort_keys=True)
        self.data, self._tensors = allocate(layout, about)
        self._coded = frozenset(coded)

    def write(self, name: str, start: int, values: Array) -> None:
        """``values`` from place ``start`` of the flattened tensor on, in whole blocks: only the last piece may end in part of one."""
        codec = self._codec if name in self._coded else Codec.RAW
        held, stop = self._tensors[name].reshape(-1), start + len(values)
        if codec in _TOP:
            dither = None if self._seed is None else uniform_floats(draw_key("codec", self._seed, name), start, stop)
            levels, scales = _levels(values, _TOP[codec], dither)
            self._tensors[name + _SCALE][start // BLOCK : -(-stop // BLOCK)] = scales
            if codec is Codec.INT8:
                held[start:stop] = levels
            else:
                held[start // 2 : -(-stop // 2)] = _packed(levels)
        else:
            held[start:stop] = _half(values) if codec is Codec.HALF else values

    def read_into(self, name: str, start: int, stop: int, out: Array) -> None:
        """What a receiver will read there."""
        _read_into(self._codec if name in self._coded else Codec.RAW, self._tensors, name, start, stop, out, 1.0)


def _half(values: Array) -> Array:
    # Large values saturate, or one of them would have the whole update refused; NaN and infinity stay, and are refused.
    return np.where(np.isfinite(values), np.clip(values, -_HALF_MAX, _HALF_MAX), values).astype(np.float16)


def _levels(values: Array, top: int, dither: Array | None) -> tuple[Array, Array]:
    """Whole multiples of each block's scale as int8, and the scales."""
    padded = np.zeros((-(-len(values) // BLOCK), BLOCK), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        padded.reshape(-1)[: len(values)] = values
        scales = np.abs(padded).max(axis=1) / np.float32(top)
        padded /= np.where(scales > 0, scales, 1)[:, None]
        flat = padded.reshape(-1)[: len(values)]
        flat = np.rint(flat, out=flat) if dither is None else np.floor(np.add(flat, dither, out=flat), out=flat)
        # Where the scale is NaN or infinite the levels mean nothing; the scale tells the receiver.
        return np.nan_to_num(flat, nan=0.0, posinf=0.0, neginf=0.0).clip(-top, top).astype(np.int8), scales


def _packed(levels: Array) -> Array:
    shifted = np.full(len(levels) + len(levels) % 2, 8, np.uint8)
    shifted[: len(levels)] = levels + np.int8(8)
    packed: Array = shifted[0::2] | (shifted[1::2] << np.uint8(4))
    return packed


def _read_into(codec: Codec, tensors: Mapping[str, Array], name: str, start: int, stop: int, out: Array, weight: float) -> None:
    """``weight`` times the values, in the dtype of ``out``; one rounding for the scale times the weight, and one for each value."""
    values = tensors[name].reshape(-1)
    if codec not in _TOP:
        np.multiply(values[start:stop], out.dtype.type(weight), out=out, casting="same_kind")
        return
    if codec is Codec.INT8:
        np.copyto(out, values[start:stop])
    else:
        out[...] = _PAIRS.take(values[start // 2 : -(-stop // 2)], axis=0).reshape(-1)[: stop - start]
    scales = tensors[name + _SCALE][start // BLOCK : -(-stop // BLOCK)] * out.dtype.type(weight)
    whole = len(out) // BLOCK
    blocks, rest = out[: whole * BLOCK].reshape(whole, BLOCK), out[whole * BLOCK :]
    with np.errstate(invalid="ignore"):  # zero times an infinite scale is NaN, which is for the receiver to refuse
        np.multiply(blocks, scales[:whole, None], out=blocks)
        np.multiply(rest, scales[whole:].repeat(len(rest)), out=rest)


class EncodedUpdate:
    """An update as it travelled, decoded range by range. Raises InvalidInput for anything that is not one."""

    def __init__(self, source: Source) -> None:
        self._tensors, metadata = open_tensors(source)
        if metadata.get(_CODEC) not in list(Codec):
            raise InvalidInput(f"an update's metadata must say its codec ({', '.join(Codec)}) and dtypes")
        self.codec = Codec(metadata[_CODEC])
        if set(metadata) != {_CODEC, _DTYPES} | ({_SHAPES} if self.codec is Codec.INT4 else set()):
            raise InvalidInput(
                f"the metadata of an {self.codec} update must say its codec and dtypes, and the shapes where bits are packed"
            )
        self._dtypes = strict_json(metadata[_DTYPES])
        self._shapes = strict_json(metadata.get(_SHAPES, "{}"))
        self.names = tuple(sorted(name for name in self._tensors if not self._is_scale(name)))
        self._check()

    def _is_scale(self, name: str) -> bool:
        return self.codec in _TOP and name.endswith(_SCALE)

    def _check(self) -> None:
        if not isinstance(self._dtypes, dict) or not set(self._dtypes) <= set(self.names):
            raise InvalidInput("the update names dtypes of tensors it does not hold")
        for name, dtype in self._dtypes.items():
            if dtype not in ("float16", "float32", "float64") or self._tensors[name].dtype != _TRAVELLING.get(self.codec):
                raise InvalidInput(f"tensor {name!r} of the update is not {self.codec} of a float dtype")
        self._check_shapes()
        scales = {name + _SCALE: -(-self.size(name) // BLOCK) for name in self._dtypes if self.codec in _TOP}
        if {name for name in self._tensors if self._is_scale(name)} != set(scales):
            raise InvalidInput("the update's scales do not belong to its tensors")
        for name, blocks in scales.items():
            if self._tensors[name].dtype != np.float32 or self._tensors[name].shape != (blocks,):
                raise InvalidInput(f"{name!r} must be {blocks} float32 values")

    def _check_shapes(self) -> None:
        """Packed tensors are rows of bytes that have the room their shapes ask for."""
        if self.codec is not Codec.INT4:
            return
        if not isinstance(self._shapes, dict) or set(self._shapes) != set(self._dtypes):
            raise InvalidInput("the update's shapes do not belong to its packed tensors")
        for name, shape in self._shapes.items():
            if not isinstance(shape, list) or not all(type(length) is int and length >= 0 for length in shape):
                raise InvalidInput(f"tensor {name!r} of the update has an impossible shape {str(shape)[:80]}")
            if self._tensors[name].shape != (-(-element_count(shape) // 2),):
                raise InvalidInput(f"tensor {name!r} of the update does not fit its shape {shape}")

    def dtype(self, name: str) -> np.dtype[Any]:
        """The dtype the tensor had before it was encoded."""
        return DTYPES[self._dtypes[name]] if name in self._dtypes else self._tensors[name].dtype

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape."""
        return tuple(self._shapes[name]) if name in self._shapes else self._tensors[name].shape

    def size(self, name: str) -> int:
        """The tensor's number of elements."""
        return element_count(self.shape(name))

    def read_into(self, name: str, start: int, stop: int, out: Array, weight: float = 1.0) -> None:
        """``weight`` times the values ``start`` to ``stop`` of the flattened tensor; ``start`` is a multiple of ``BLOCK``."""
        _read_into(self.codec if name in self._dtypes else Codec.RAW, self._tensors, name, start, stop, out, weight)

    def __iter__(self) -> Iterator[tuple[str, Array]]:
        for name in self.names:
            if name not in self._dtypes:
                yield name, self._tensors[name]
                continue
            values = np.empty(self.size(name), np.float32)
            self.read_into(name, 0, len(values), values)
            yield name, values.astype(self.dtype(name), copy=False).reshape(self.shape(name))


def decode(data: Source) -> dict[str, Array]:
    """All tensors of an update, decoded. Raises InvalidInput for anything that is not an update."""
    return dict(EncodedUpdate(data))
