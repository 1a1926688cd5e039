"""A plan: all that a host must know to run a program's steps at one batch size, with no arithmetic of its own.

It travels as one safetensors file: the code, and JSON that says where everything lies. Reading is strict, because a host writes
to the addresses it finds here.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import InvalidInput
from gridsched.train.plan.kernels import HEAP, KERNELS
from gridsched.train.plan.tape import ITEM_BYTES
from gridsched.train.tensors import element_count, strict_json, tensors_from_bytes, tensors_to_bytes

__all__ = ["FORMAT", "KINDS", "MAX_BYTES", "Place", "Plan", "kernels_digest"]

FORMAT = 1
KINDS = ("train", "accumulate", "apply", "evaluate")
MAX_BYTES = (1 << 32) - (1 << 16)
_KEY = "gridsched.plan"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A tensor in memory: byte address, dtype, shape."""

    address: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """In bytes."""
        return element_count(self.shape) * ITEM_BYTES[self.dtype]

    def __post_init__(self) -> None:
        whole = (self.address, *self.shape)
        if self.dtype not in ITEM_BYTES or not all(map(_is_size, whole)):
            raise InvalidInput(f"a plan's place needs an address, one of {', '.join(ITEM_BYTES)} and a shape, got {self}"[:200])


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """``code`` [words] int32 is to lie at address ``code_at`` when it is run; all else says where a host puts and finds things.

    ``kind``: ``train`` is a whole step; ``accumulate`` adds the gradients of a micro-batch, times the float32 at ``share``, to ``sums``
    (which the host clears before the first), and ``apply`` is the optimizer's step on those; ``evaluate`` changes nothing but its own
    memory. ``tensors``, ``slots`` and ``anchors`` lie at the same addresses in all plans of one program and inner optimizer.
    ``seed`` is an int64 and ``step`` an int32 that the host sets before each step; ``loss`` a float32 to be read after it; ``correct``
    an int32, None where nothing is classified, of ``count`` answers.
    """

    kind: str
    batch: int
    memory_bytes: int
    code: npt.NDArray[np.int32]
    code_at: int
    tensors: Mapping[str, Place]
    slots: Mapping[str, Place]
    anchors: Mapping[str, Place]
    fields: Mapping[str, Place]
    sums: Mapping[str, Place]
    seed: int
    step: int
    share: int
    loss: int
    outputs: Place | None
    correct: int | None
    count: int

    def __post_init__(self) -> None:
        numbers: tuple[object, ...] = (self.batch, self.memory_bytes, self.code_at, self.seed, self.step, self.share, self.loss, self.count)
        numbers += () if self.correct is None else (self.correct,)
        if self.kind not in KINDS or not all(_is_size(number) for number in numbers):
            raise InvalidInput("a plan needs a known kind, and whole numbers from 0 for sizes and addresses")
        if self.code.dtype != np.int32 or self.code.ndim != 1 or not HEAP <= self.memory_bytes <= MAX_BYTES:
            raise InvalidInput("a plan needs code of 32-bit words and a memory of 2 MiB to 4 GiB")
        if any(address < HEAP or address + size > self.memory_bytes for address, size in _spans(self)):
            raise InvalidInput(f"a plan's addresses must lie between {HEAP} and its end at {self.memory_bytes}")

    def to_bytes(self) -> bytes:
        """As one safetensors file; equal plans give equal bytes."""
        about = {
            "format": FORMAT,
            "kernels": kernels_digest(),
            **{name: getattr(self, name) for name in _NUMBERS},
            **{name: {key: _json(place) for key, place in getattr(self, name).items()} for name in _PLACES},
            "outputs": None if self.outputs is None else _json(self.outputs),
        }
        return tensors_to_bytes({"code": self.code}, {_KEY: json.dumps(about, separators=(",", ":"), allow_nan=False)})

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> "Plan":
        """Read what ``to_bytes`` wrote; InvalidInput for everything else, a plan for other kernels included."""
        tensors, metadata = tensors_from_bytes(data)
        if set(tensors) != {"code"} or set(metadata) != {_KEY}:
            raise InvalidInput("this is not a plan: it needs code and what it is about, and nothing else")
        about = strict_json(metadata[_KEY])
        if not isinstance(about, dict) or set(about) != {"format", "kernels", "outputs", *_NUMBERS, *_PLACES}:
            raise InvalidInput("this is not a plan: keys are missing or unknown")
        if about.pop("format") != FORMAT or about.pop("kernels") != kernels_digest():
            raise InvalidInput("this plan is for other kernels; ask for it again with the same release as the daemon's")
        places: dict[str, Any] = {name: _read_places(about.pop(name)) for name in _PLACES}
        outputs = about.pop("outputs")
        return cls(code=tensors["code"], **places, outputs=None if outputs is None else _read_place(outputs), **about)


_NUMBERS = ("kind", "batch", "memory_bytes", "code_at", "seed", "step", "share", "loss", "correct", "count")
_PLACES = ("tensors", "slots", "anchors", "fields", "sums")


def kernels_digest() -> str:
    """The sha256 of the table of kernels: code written for another table must not run."""
    rows = [[kernel.number, kernel.name, kernel.arguments] for kernel in KERNELS.values()]
    return hashlib.sha256(json.dumps(rows, separators=(",", ":")).encode()).hexdigest()


def _is_size(number: object) -> bool:
    return type(number) is int and number >= 0


def _spans(plan: Plan) -> Iterator[tuple[int, int]]:
    for name in _PLACES:
        for held in getattr(plan, name).values():
            yield held.address, held.size
    if plan.outputs is not None:
        yield plan.outputs.address, plan.outputs.size
    if plan.correct is not None:
        yield plan.correct, 4
    yield from ((plan.code_at, plan.code.nbytes), (plan.seed, 8), (plan.step, 4), (plan.share, 4), (plan.loss, 4))


def _json(place: Place) -> list[Any]:
    return [place.address, place.dtype, list(place.shape)]


def _read_place(data: Any) -> Place:
    if not isinstance(data, list) or len(data) != 3 or not isinstance(data[1], str) or not isinstance(data[2], list):
        raise InvalidInput(f"a plan's place is an address, a dtype and a shape, got {str(data)[:80]}")
    return Place(address=data[0], dtype=data[1], shape=tuple(data[2]))


def _read_places(data: Any) -> dict[str, Place]:
    if not isinstance(data, dict):
        raise InvalidInput("a plan's places must be an object by name")
    return {name: _read_place(item) for name, item in data.items()}
