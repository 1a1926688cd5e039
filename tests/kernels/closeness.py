"""Random tensors, and how far a kernel's float32 may be from the same sum in float64."""

from typing import Any

import numpy as np
from hypothesis import strategies

__all__ = ["EPS", "Array", "as_tensor", "assert_close", "empty", "normal", "seeds"]

EPS = 2.0**-23
"""One unit in the last place of 1."""

Array = np.ndarray[Any, np.dtype[Any]]

seeds = strategies.integers(0, 2**32 - 1)


def normal(seed: int, *shape: int) -> Array:
    """Standard normal draws, float32."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def empty(*shape: int) -> Array:
    """Where a kernel writes: no number, so that what it leaves out is seen."""
    return np.full(shape, np.nan, np.float32)


def as_tensor(*values: float) -> Array:
    """These values, float32."""
    return np.array(values, np.float32)


def assert_close(found: Array, wanted: Array, *, ulps: float) -> None:
    """No element is further from ``wanted`` than ``ulps`` units in the last place of its greatest element."""
    assert found.shape == wanted.shape
    if wanted.size:
        error = float(np.abs(found.astype(np.float64) - wanted).max())
        assert error <= ulps * EPS * float(np.abs(wanted).max()) + 1e-37, f"{error / (EPS * float(np.abs(wanted).max()) + 1e-300):.1f} ulps"
