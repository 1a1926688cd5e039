"""The outer optimizer: how a round's mean delta becomes the step to the next version.

What it remembers is a file of its own, beside the version and read by the merger alone: nodes never download it. It holds one
tensor per parameter and slot (``momentum``, ``second`` moments), and the ``residual`` of a step that travels rounded: what
rounding lost goes into the next step (error feedback, Seide et al. 2014, "1-Bit Stochastic Gradient Descent").
"""

from collections.abc import Mapping, Sequence

import numpy as np

from gridsched.core.errors import InvalidInput
from gridsched.core.method import OuterOptimizer
from gridsched.train.tensors import Array, Layout, Source, allocate, open_tensors

__all__ = ["RESIDUAL", "OuterState", "advance", "slots"]

RESIDUAL = "residual"
_KEY = "gridsched.outer"


def slots(outer: OuterOptimizer) -> tuple[str, ...]:
    """What the optimizer remembers of each parameter."""
    if outer.name == "adam":
        return ("momentum", "second")
    return ("momentum",) if outer.name == "nesterov" or outer.momentum else ()


def advance(outer: OuterOptimizer, step: Array, held: Sequence[Array], spare: Array) -> None:
    """Turn one piece of the mean delta ``step`` into what is added to the version; ``held`` are its slots' pieces. All in place.

    ``sgd``: ``m = momentum * m + d``, ``x += lr * m`` (FedAvgM, Hsu et al. 2019, arXiv:1909.06335; without momentum it is federated
    averaging, McMahan et al. 2017). ``nesterov``: the same ``m``, ``x += lr * (d + momentum * m)`` (DiLoCo, Douillard et al. 2023).
    ``adam``: ``m = beta1 * m + (1 - beta1) * d``, ``v = beta2 * v + (1 - beta2) * d**2``, ``x += lr * m / (sqrt(v) + eps)``; ``v`` starts
    at ``eps**2`` and no bias is corrected, as in FedAdam (Reddi et al. 2021, algorithm 2).
    """
    real = step.dtype.type
    if outer.name == "adam":
        momentum, second = held
        _blend(momentum, step, outer.beta1, spare)
        np.multiply(step, step, out=step)
        _blend(second, step, outer.beta2, spare)
        np.sqrt(second, out=spare)
        np.add(spare, real(outer.eps), out=spare)
        np.divide(momentum, spare, out=step)
    elif held:
        (momentum,) = held
        np.multiply(momentum, real(outer.momentum), out=momentum)
        np.add(momentum, step, out=momentum)
        if outer.name == "nesterov":
            np.multiply(momentum, real(outer.momentum), out=spare)
            np.add(step, spare, out=step)
        else:
            step[...] = momentum
    if outer.lr != 1.0:
        np.multiply(step, real(outer.lr), out=step)


def _blend(held: Array, new: Array, share: float, spare: Array) -> None:
    np.multiply(held, held.dtype.type(share), out=held)
    np.multiply(new, held.dtype.type(1.0 - share), out=spare)
    np.add(held, spare, out=held)


class OuterState:
    """The slots of every parameter, from one round to the next: read from ``before``, written in place, ``data`` in the end.

    ``shapes`` are the parameters' dtypes (those the merge computes in) and shapes. Where ``before`` is None, the optimizer starts, with
    the ``momentum`` that a version of release 0.1 brought along, if it did. Raises InvalidInput for a file that does not belong here.
    """

    def __init__(
        self, outer: OuterOptimizer, shapes: Layout, *, residual: bool, before: Source | None, momentum: Mapping[str, Array] | None = None
    ) -> None:
        self._slots = slots(outer) + ((RESIDUAL,) if residual else ())
        layout = {f"{slot}/{name}": kind for slot in self._slots for name, kind in shapes.items()}
        self.data, self._tensors = allocate(layout, {_KEY: outer.name})
        if before is None:
            self._begin(outer, momentum or {})
            return
        held, metadata = open_tensors(before)
        if metadata != {_KEY: outer.name} or {name: (array.dtype, array.shape) for name, array in held.items()} != layout:
            raise InvalidInput(f"the {outer.name} optimizer's state does not belong to this version")
        for name, array in held.items():
            self._tensors[name][...] = array

    def _begin(self, outer: OuterOptimizer, momentum: Mapping[str, Array]) -> None:
        for key, array in self._tensors.items():
            slot, _, name = key.partition("/")
            array.fill(outer.eps**2 if slot == "second" else 0.0)
            if slot == "momentum" and name in momentum:
                array[...] = momentum[name]

    def pieces(self, name: str, start: int, stop: int) -> list[Array]:
        """A parameter's slots as `slots` names them, and its residual last where steps are rounded."""
        return [self._tensors[f"{slot}/{name}"].reshape(-1)[start:stop] for slot in self._slots]

    @property
    def empty(self) -> bool:
        """Whether nothing is remembered, so that no file is needed."""
        return not self._slots
