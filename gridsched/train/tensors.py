"""Named arrays as safetensors bytes, written canonically and read strictly.

Equal arrays and metadata give equal bytes on every machine, so the sha256 of a model version names its content. The
format is Hugging Face's safetensors (https://github.com/huggingface/safetensors, "Format"): eight bytes of little-endian
header length, a JSON header, then the raw data without gaps. It is read here, not by the library, because a file from the
network must be refused with the reason (cut short, overlapping, unknown dtype), and because the daemon maps files
without copying them. Nothing here can run code.
"""

import hashlib
import json
import math
import mmap
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import InvalidInput

__all__ = [
    "DTYPES",
    "Array",
    "Layout",
    "Source",
    "allocate",
    "dtype_name",
    "element_count",
    "file_digest",
    "open_tensors",
    "strict_json",
    "tensor_chunks",
    "tensors_from_bytes",
    "tensors_to_bytes",
    "version_digest",
]

Array = npt.NDArray[Any]
Layout = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Dtype and shape by name."""
Source = bytes | memoryview | Path
"""A file, or what is in one."""

DTYPES: Mapping[str, np.dtype[Any]] = MappingProxyType(
    {
        name: np.dtype(name)
        for name in ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
    }
)
_CODES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
_BY_CODE = {code: DTYPES[name] for name, code in _CODES.items()}
_MAX_HEADER_BYTES = 32 << 20
_MAX_RANK = 16
_MAX_NAME = 512


def dtype_name(dtype: np.dtype[Any]) -> str:
    """The name of ``dtype`` in programs, manifests and messages, ``float32`` for example."""
    if dtype.name not in DTYPES:
        raise InvalidInput(f"dtype {dtype.name} is not supported; use one of {', '.join(DTYPES)}")
    return dtype.name


def element_count(shape: Iterable[int]) -> int:
    """Number of elements; exact where numpy's product would overflow."""
    return math.prod(shape)


def strict_json(text: str | bytes) -> Any:
    """``json.loads`` that refuses doubled keys, NaN, deep nesting and bytes that are not UTF-8."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"not valid JSON: {error}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not a number here")


def _ordered(layout: Layout) -> list[str]:
    # Widest elements first keeps every array aligned to its own element size; names make the order total.
    return sorted(layout, key=lambda name: (-layout[name][0].itemsize, name))


def _head(layout: Layout, metadata: Mapping[str, str] | None) -> tuple[bytes, dict[str, tuple[int, int]]]:
    """The file's first bytes, and where in the file each array begins and ends."""
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))} if metadata else {}
    spans: dict[str, tuple[int, int]] = {}
    offset = 0
    for name in _ordered(layout):
        dtype, shape = layout[name]
        spans[name] = offset, offset + element_count(shape) * dtype.itemsize
        header[name] = {"dtype": _CODES[dtype_name(dtype)], "shape": list(shape), "data_offsets": list(spans[name])}
        offset = spans[name][1]
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: (len(head) + begin, len(head) + end) for name, (begin, end) in spans.items()}


def allocate(layout: Layout, metadata: Mapping[str, str] | None = None) -> tuple[memoryview, dict[str, Array]]:
    """A canonical file whose arrays are still to be filled in, and those arrays: writable views into it, so that nothing is held twice."""
    head, spans = _head(layout, metadata)
    data = np.empty(max((end for _, end in spans.values()), default=len(head)), np.uint8)
    data[: len(head)] = np.frombuffer(head, np.uint8)
    views = {name: data[begin:end].view(layout[name][0].newbyteorder("<")).reshape(layout[name][1]) for name, (begin, end) in spans.items()}
    return data.data, views


def tensor_chunks(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> Iterator[bytes | memoryview]:
    """The file's bytes piece by piece: the header, then each array without a copy where it is already contiguous."""
    layout = {name: (array.dtype, array.shape) for name, array in tensors.items()}
    yield _head(layout, metadata)[0]
    for name in _ordered(layout):
        array = np.ascontiguousarray(tensors[name]).reshape(-1)
        yield array.astype(array.dtype.newbyteorder("<"), copy=False).view(np.uint8).data


def tensors_to_bytes(tensors: Mapping[str, Array], metadata: Mapping[str, str] | None = None) -> bytes:
    """``tensors`` and ``metadata`` as one canonical safetensors file: the same input always gives the same bytes."""
    return b"".join(tensor_chunks(tensors, metadata))


def tensors_from_bytes(data: bytes | bytearray | memoryview | mmap.mmap) -> tuple[dict[str, Array], dict[str, str]]:
    """Arrays and metadata of a safetensors file; the arrays are read-only views into ``data``.

    Raises InvalidInput for anything that is not exactly one well-formed file: cut short, bytes left over, offsets with
    gaps or overlaps, an unknown dtype, a size that does not fit its shape.
    """
    view = memoryview(data).cast("B").toreadonly()
    entries, metadata, base = _header(view)
    spans: list[tuple[int, int]] = []
    tensors: dict[str, Array] = {}
    for name, entry in entries.items():
        dtype, shape, begin, end = _entry(name, entry, len(view) - base)
        spans.append((begin, end))
        tensors[name] = np.frombuffer(view[base + begin : base + end], dtype).reshape(shape)
    _check_cover(spans, len(view) - base)
    return tensors, metadata


def _header(view: memoryview) -> tuple[dict[str, Any], dict[str, str], int]:
    if len(view) < 8:
        raise InvalidInput(f"a safetensors file needs at least 8 bytes, got {len(view)}; it was cut short")
    length = int.from_bytes(view[:8], "little")
    if length > _MAX_HEADER_BYTES:
        raise InvalidInput(f"header length {length} is over {_MAX_HEADER_BYTES} bytes; this is not a safetensors file")
    if length + 8 > len(view):
        raise InvalidInput(f"header length {length} is longer than the file of {len(view)} bytes; it was cut short")
    header = strict_json(bytes(view[8 : 8 + length]))
    if not isinstance(header, dict):
        raise InvalidInput("the safetensors header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise InvalidInput("the safetensors metadata must map text to text")
    return header, metadata, 8 + length


def _entry(name: str, entry: Any, room: int) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    if len(name) > _MAX_NAME or not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidInput(f"tensor {name[:80]!r} needs exactly dtype, shape and data_offsets")
    dtype, shape, offsets = _BY_CODE.get(str(entry["dtype"])), entry["shape"], entry["data_offsets"]
    if dtype is None:
        raise InvalidInput(f"tensor {name!r} has unknown dtype {entry['dtype']!r}; known are {', '.join(_BY_CODE)}")
    if not _naturals(shape) or len(shape) > _MAX_RANK:
        raise InvalidInput(f"tensor {name!r} has an impossible shape {str(shape)[:80]}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[1] < offsets[0]:
        raise InvalidInput(f"tensor {name!r} has impossible offsets {str(offsets)[:80]}")
    begin, end = offsets
    if end > room:
        raise InvalidInput(f"tensor {name!r} ends at byte {end} but only {room} bytes of data are there; the file was cut short")
    if element_count(shape) * dtype.itemsize != end - begin:
        raise InvalidInput(f"tensor {name!r} of shape {shape} does not fit its {end - begin} bytes")
    if _extent(shape) * dtype.itemsize > sys.maxsize:
        raise InvalidInput(f"tensor {name!r} has an impossible shape {str(shape)[:80]}")
    return dtype, tuple(shape), begin, end


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)


def _extent(shape: list[int]) -> int:
    """The number of elements, axes of length 0 left out: an array without any still needs a shape that numpy can count."""
    return element_count(max(length, 1) for length in shape)


def _check_cover(spans: list[tuple[int, int]], room: int) -> None:
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise InvalidInput(f"the data has a gap or an overlap at byte {min(begin, position)}")
        position = end
    if position != room:
        raise InvalidInput(f"the file has {room - position} bytes after its last tensor")


def open_tensors(source: Source) -> tuple[dict[str, Array], dict[str, str]]:
    """The arrays of a file, memory mapped: nothing is read until it is touched; or those in bytes. InvalidInput names the file."""
    if not isinstance(source, Path):
        return tensors_from_bytes(source)
    try:
        if source.stat().st_size == 0:
            return tensors_from_bytes(b"")  # nothing to map; refused as cut short
        with source.open("rb") as file:
            return tensors_from_bytes(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except InvalidInput as error:
        raise InvalidInput(f"{source}: {error}") from error


def version_digest(data: bytes | memoryview) -> str:
    """The sha256 in hexadecimal that names these bytes. Canonical bytes make it the name of the model itself."""
    return hashlib.sha256(data).hexdigest()


def file_digest(path: Path) -> str:
    """The sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
