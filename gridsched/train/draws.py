"""Random draws as functions of what they are for, never of who draws or when.

Every draw comes from a key: the sha256 of the words that name it, ``("order", seed, epoch)`` for example. Permutations sort
the outputs of SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195) run as a counter. Both are pinned by
their definitions and take a few lines in any language; ``numpy.random.Generator`` may change its streams between
releases (NEP 19), and then a resumed job would see another sample order.
"""

import hashlib

import numpy as np
import numpy.typing as npt

__all__ = ["draw_key", "permutation", "uniform_floats", "uniform_ints"]


def draw_key(*words: str | int) -> int:
    """A key in [0, 2**63) for the draw that ``words`` name."""
    digest = hashlib.sha256("/".join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def permutation(key: int, count: int) -> npt.NDArray[np.int64]:
    """A permutation of ``range(count)`` that depends on ``key`` and ``count`` alone."""
    return np.argsort(_splitmix64(key, count), kind="stable").astype(np.int64, copy=False)


def uniform_ints(key: int, count: int) -> npt.NDArray[np.int64]:
    """``count`` draws from ``range(count)`` with replacement, which depend on ``key`` and ``count`` alone."""
    high = _splitmix64(key, count) >> np.uint64(32)
    return ((high * np.uint64(count)) >> np.uint64(32)).astype(np.int64)  # Lemire's multiply-shift; exact for counts below 2**32


def uniform_floats(key: int, start: int, stop: int) -> npt.NDArray[np.float32]:
    """Draws ``start`` to ``stop`` of the key's sequence of multiples of 2**-24 in [0, 1)."""
    return (_splitmix64(key, stop - start, after=start) >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


def _splitmix64(key: int, count: int, *, after: int = 0) -> npt.NDArray[np.uint64]:
    # Unsigned arithmetic wraps on purpose: it is modulo 2**64.
    z = np.arange(after + 1, after + count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
