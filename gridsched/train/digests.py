"""Parameter digests: what two nodes' work is compared by, hashed beside the training."""

import hashlib
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from gridsched.train.tensors import Array

__all__ = ["DigestTrail", "state_digest"]


def state_digest(tensors: Mapping[str, Array]) -> str:
    """A sha256 over names and values, for comparing two nodes' work at a step."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode() + b"\0")
        digest.update(np.ascontiguousarray(tensors[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


class DigestTrail:
    """Digests in the order they were asked for. Hashing lets go of the interpreter, so training goes on meanwhile.

    At most one copy of the model waits to be hashed: where hashing is slower than training, training waits for it.
    """

    def __init__(self, known: tuple[str, ...] = ()) -> None:
        self._known = known
        self._hashing: Future[str] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def add(self, tensors: Mapping[str, Array]) -> None:
        """Hash ``tensors``, which are from now on the trail's own."""
        self._settle()
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="digests")
        self._hashing = self._thread.submit(state_digest, tensors)

    @property
    def all(self) -> tuple[str, ...]:
        """Every digest so far; waits for the one being made."""
        self._settle()
        return self._known

    def _settle(self) -> None:
        if self._hashing is not None:
            self._known = (*self._known, self._hashing.result())
            self._hashing = None
