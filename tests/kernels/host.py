"""Calls single kernels of the built module, over arrays that are copied into its memory and back."""

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import wasmtime

from gridsched.train.plan.kernels import HEAP, KERNELS

__all__ = ["Argument", "Array", "Host"]

_PAGE_BYTES = 1 << 16
_ALIGNMENT_BYTES = 16
_CODE_BYTES = 4096
_UNTOUCHED = 0xA5
"""What the bytes between arrays hold; a kernel that writes there is caught."""

Array = np.ndarray[Any, np.dtype[Any]]
Argument = Array | int | float | None


@dataclass
class Host:
    """One instance of the module. A plan's code lies at ``HEAP``, the arrays of a call behind it."""

    store: wasmtime.Store
    memory: wasmtime.Memory
    function: wasmtime.Func

    @classmethod
    def of(cls, module: bytes) -> "Host":
        """An instance of ``module``, with nothing imported."""
        engine = wasmtime.Engine()
        store = wasmtime.Store(engine)
        exports = wasmtime.Instance(store, wasmtime.Module(engine, module), []).exports(store)
        memory, function = exports["memory"], exports["run"]
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(function, wasmtime.Func)
        return cls(store=store, memory=memory, function=function)

    def run(self, words: list[int], *, count: int | None = None) -> int:
        """What ``run`` says to this code, ``count`` words of it."""
        code = struct.pack(f"<{len(words)}I", *(word & 0xFFFFFFFF for word in words))
        self._reach(HEAP + _CODE_BYTES)
        assert len(code) <= _CODE_BYTES
        self.memory.write(self.store, code, HEAP)
        answer = self.function(self.store, HEAP, len(words) if count is None else count)
        assert isinstance(answer, int)
        return answer

    def call(self, kernel: str, *arguments: Argument, shift_bytes: int = 0) -> None:
        """Call a kernel; its arrays are changed in place. ``shift_bytes`` moves them off their alignment.

        An array given twice lies in memory once. None is the address 0.
        """
        words, places = self.prepared(kernel, *arguments, shift_bytes=shift_bytes)
        assert self.run(words) == 0
        for place, array in places.items():
            found = bytes(self.memory.read(self.store, place, place + array.nbytes + _ALIGNMENT_BYTES))
            array[...] = np.frombuffer(found[: array.nbytes], array.dtype).reshape(array.shape)
            assert set(found[array.nbytes :]) == {_UNTOUCHED}, f"{kernel} wrote behind an array"

    def prepared(self, kernel: str, *arguments: Argument, shift_bytes: int = 0) -> tuple[list[int], dict[int, Array]]:
        """The words of a call whose arrays have been copied into the memory, and where each of them lies."""
        row = KERNELS[kernel]
        assert len(arguments) == len(row.arguments), f"{kernel} takes {[name for _, name in row.arguments]}"
        address: dict[int, int] = {}
        places: dict[int, Array] = {}
        end = HEAP + _CODE_BYTES + shift_bytes
        for array in arguments:
            if not isinstance(array, np.ndarray) or id(array) in address:
                continue
            address[id(array)], places[end] = end, array
            self._place(array, end)
            end += -(-(array.nbytes + _ALIGNMENT_BYTES) // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES
        words = [word for (letter, _), one in zip(row.arguments, arguments, strict=True) for word in self._words(letter, one, address)]
        return [row.number, *words], places

    def _reach(self, end: int) -> None:
        missing = end - self.memory.data_len(self.store)
        if missing > 0:
            self.memory.grow(self.store, -(-missing // _PAGE_BYTES))

    def _place(self, array: Array, at: int) -> None:
        assert array.flags["C_CONTIGUOUS"]
        self._reach(at + array.nbytes + _ALIGNMENT_BYTES)
        self.memory.write(self.store, array.tobytes() + bytes([_UNTOUCHED]) * _ALIGNMENT_BYTES, at)

    @staticmethod
    def _words(letter: str, argument: Argument, address: dict[int, int]) -> tuple[int, ...]:
        if isinstance(argument, np.ndarray) or argument is None:
            assert letter == "p"
            return (0 if argument is None else address[id(argument)],)
        if letter in "fd":
            return struct.unpack("<I", struct.pack("<f", argument)) if letter == "f" else struct.unpack("<2I", struct.pack("<d", argument))
        assert letter == "i"
        return (int(argument),)
