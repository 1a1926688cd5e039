"""The tape: what a graph does with one batch, written down as kernel calls on buffers, first forward and then backward.

A ``Value`` is a contiguous tensor somewhere in a ``Buffer``; several values may share one (a reshaped tensor is the same bytes).
Rules append calls and, where a gradient will be asked for, record how it flows back; ``backward`` then walks the records in
reverse (Griewank and Walther 2008, chapter 3, doi 10.1137/1.9780898717761). Gradients of a value used several times are
summed in that fixed order. Nothing is computed here: the tape is all that a host needs to do it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gridsched.core.errors import OutOfMemory, ProgramError, UnsupportedOperator
from gridsched.train.plan.kernels import KERNELS, Kernel

__all__ = ["ITEM_BYTES", "Argument", "Buffer", "Call", "Gradients", "Tape", "Value"]

ITEM_BYTES = {"float32": 4, "int32": 4, "int64": 8, "uint8": 1, "bool": 1}
"""The dtypes that kernels know."""

_MAX_WORDS = 1 << 20
"""Of code: what a daemon plans in a minute, and some ten thousand times of a recurrent layer."""
_MAX_BYTES = 1 << 32


_ANY = ("cast", "copy")
"""Kernels that are told what their tensors hold."""


def _held(name: str) -> tuple[str, ...]:
    """The dtypes that a kernel's argument of that name may have; its suffix tells."""
    suffix = name.rpartition("_")[2]
    return {"i64": ("int64",), "i32": ("int32",), "u8": ("bool", "uint8")}.get(suffix, ("float32",))


@dataclass(eq=False, slots=True)
class Buffer:
    """``size`` bytes of memory; at ``address``, or wherever the arena puts it."""

    size: int
    address: int | None = None


@dataclass(eq=False, slots=True)
class Value:
    """A contiguous tensor, ``offset`` bytes into its buffer. ``follows``: whether a gradient is to flow back to it.

    ``copied_from`` is the buffer that torch would make this a view of; here it is a copy, which must not be written through.
    """

    buffer: Buffer
    shape: tuple[int, ...]
    dtype: str = "float32"
    offset: int = 0
    follows: bool = False
    copied_from: Buffer | None = None

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)


Argument = Value | int | float | None


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a kernel, its arguments in the order of the table."""

    kernel: Kernel
    arguments: tuple[Argument, ...]


Gradients = Sequence[Value | None]


@dataclass(frozen=True, slots=True)
class _Record:
    outputs: tuple[Value, ...]
    backward: Callable[[Gradients], None]


@dataclass(slots=True)
class Tape:
    """Calls in order. ``training``: whether gradients are wanted and random operators draw."""

    training: bool
    seed: Value
    calls: list[Call] = field(default_factory=list)
    streams: int = 0
    """Random draws so far; each has a stream of numbers of its own."""
    words: int = 0
    """Of code, when written."""
    _records: list[_Record] = field(default_factory=list)
    _gradients: dict[int, Value] = field(default_factory=dict)

    def new(self, shape: Sequence[int], dtype: str = "float32") -> Value:
        """A tensor in a buffer of its own, with nothing in it yet."""
        if dtype not in ITEM_BYTES:
            raise UnsupportedOperator(f"dtype {dtype} is not covered; use one of {', '.join(ITEM_BYTES)}")
        if any(size < 1 for size in shape):
            raise UnsupportedOperator(f"a tensor of shape {tuple(shape)} has no elements, which is not covered")
        size = math.prod(shape) * ITEM_BYTES[dtype]
        if size >= _MAX_BYTES:
            raise OutOfMemory(f"a tensor of shape {tuple(shape)} needs {size / 2**30:.1f} GiB, and there are 4 at most; set micro_batch")
        return Value(Buffer(size), tuple(shape), dtype)

    def like(self, value: Value) -> Value:
        """A new tensor of the same shape and dtype."""
        return self.new(value.shape, value.dtype)

    def call(self, name: str, *arguments: Argument) -> None:
        """Append a call of kernel ``name``."""
        kernel = KERNELS[name]
        for (letter, what), argument in zip(kernel.arguments, arguments, strict=True):
            number = isinstance(argument, float)
            fits = {"p": isinstance(argument, Value | None), "i": type(argument) is int, "f": number, "d": number}
            assert fits[letter], f"{name}: {what} got {argument!r}"
            if isinstance(argument, Value) and name not in _ANY and what != "scratch" and argument.dtype not in _held(what):
                raise UnsupportedOperator(f"{argument.dtype} where {name} reads {what} as {_held(what)[0]}")
        self.words += kernel.words
        if self.words > _MAX_WORDS:
            raise UnsupportedOperator(f"the code is longer than {_MAX_WORDS} words; use shorter sequences")
        self.calls.append(Call(kernel, arguments))

    def stream(self) -> int:
        """The next stream of random numbers."""
        self.streams += 1
        return self.streams - 1

    def record(self, outputs: Sequence[Value], inputs: Sequence[Value | None], backward: Callable[[Gradients], None]) -> None:
        """Say how gradients of ``outputs`` flow back to ``inputs``: ``backward`` gets them, None for an output nobody used."""
        if self.training and any(value is not None and value.follows for value in inputs):
            for value in outputs:
                value.follows = True
            self._records.append(_Record(tuple(outputs), backward))

    def give(self, value: Value, gradient: Value) -> None:
        """Add ``gradient`` to what flows back to ``value``."""
        assert value.shape == gradient.shape, (value.shape, gradient.shape)
        if not value.follows:
            return
        held = self._gradients.get(id(value))
        if held is not None:
            total = self.like(gradient)
            self.call("add", held, gradient, total, gradient.count)
            gradient = total
        self._gradients[id(value)] = gradient

    def backward(self, loss: Value) -> None:
        """Append the backward pass; afterwards ``gradient`` tells what flowed back."""
        if not loss.follows:
            raise ProgramError("the loss depends on no parameter; there is nothing to train")
        one = self.like(loss)
        self.call("fill", one, 1, 1.0)
        self.give(loss, one)
        for record in reversed(self._records):
            found = [self._gradients.pop(id(value), None) for value in record.outputs]
            if any(gradient is not None for gradient in found):
                record.backward(found)

    def gradient(self, value: Value) -> Value | None:
        """What flowed back to ``value``; None where the loss does not depend on it."""
        return self._gradients.get(id(value))
