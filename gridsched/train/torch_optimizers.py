"""What a node's optimizer does with gradients: plain tensor operations, bit for bit those of ``torch.optim``.

``torch.optim`` itself would import ``torch._dynamo`` and cost a second at every start.
"""

# ruff: noqa: SLF001 - torch's fused list operations (_foreach_*) are private by name only; torch.optim is built on them.

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor

from gridsched.core.method import InnerOptimizer

__all__ = ["AdamW", "Grads", "Optimizer", "Sgd"]

Grads = tuple[Tensor | None, ...]


class Optimizer:
    """Optimizer state as lists of tensors by slot, parallel to the parameters.

    With ``prox``, the parameters as they are now are the anchors that every step pulls back to.
    """

    slot_names: tuple[str, ...] = ()

    def __init__(self, settings: InnerOptimizer, parameters: list[Tensor]) -> None:
        self.settings = settings
        self.slots: dict[str, list[Tensor]] = {}
        self.step_count = 0
        self._parameters = parameters
        self._anchors = [parameter.detach().clone() for parameter in parameters] if settings.prox else []

    def apply(self, grads: Grads) -> None:
        """One step. A parameter the loss does not depend on has no gradient and stays as it is, as in ``torch.optim``."""
        used = [index for index, grad in enumerate(grads) if grad is not None]
        if self.step_count == 0:
            self._begin(self._parameters)
        self.step_count += 1
        parameters = [self._parameters[index] for index in used]
        found = [cast(Tensor, grads[index]) for index in used]
        if self._anchors:
            moved = torch._foreach_sub(parameters, [self._anchors[index] for index in used])
            found = list(torch._foreach_add(found, moved, alpha=self.settings.prox))
        self._step(parameters, found, {slot: [tensors[index] for index in used] for slot, tensors in self.slots.items()})

    def _begin(self, parameters: list[Tensor]) -> None:
        self.slots = {slot: [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters] for slot in self.slot_names}

    def _step(self, parameters: list[Tensor], grads: list[Tensor], slots: Mapping[str, list[Tensor]]) -> None:
        raise NotImplementedError


class Sgd(Optimizer):
    """``torch.optim.SGD`` without dampening or Nesterov (torch/optim/sgd.py, ``_single_tensor_sgd``)."""

    def __init__(self, settings: InnerOptimizer, parameters: list[Tensor]) -> None:
        super().__init__(settings, parameters)
        self.slot_names = ("momentum",) if settings.momentum else ()

    def _begin(self, parameters: list[Tensor]) -> None:
        # torch starts from a copy of the first gradient; minus zero is the one start that adds nothing to any bit of it.
        self.slots = {slot: [torch.full_like(parameter, -0.0, requires_grad=False) for parameter in parameters] for slot in self.slot_names}

    def _step(self, parameters: list[Tensor], grads: list[Tensor], slots: Mapping[str, list[Tensor]]) -> None:
        settings = self.settings
        if settings.weight_decay:
            grads = list(torch._foreach_add(grads, parameters, alpha=settings.weight_decay))
        if settings.momentum:
            moved = slots["momentum"]
            torch._foreach_mul_(moved, settings.momentum)
            torch._foreach_add_(moved, grads)
            grads = moved
        torch._foreach_add_(parameters, grads, alpha=-settings.lr)


class AdamW(Optimizer):
    """``torch.optim.AdamW`` (torch/optim/adam.py, ``_single_tensor_adam`` with decoupled weight decay)."""

    slot_names = ("exp_avg", "exp_avg_sq")

    def _step(self, parameters: list[Tensor], grads: list[Tensor], slots: Mapping[str, list[Tensor]]) -> None:
        settings, step = self.settings, self.step_count
        mean, square = slots["exp_avg"], slots["exp_avg_sq"]
        if settings.weight_decay:
            torch._foreach_mul_(parameters, 1 - settings.lr * settings.weight_decay)
        torch._foreach_lerp_(mean, grads, 1 - settings.beta1)
        torch._foreach_mul_(square, settings.beta2)
        torch._foreach_addcmul_(square, grads, grads, 1 - settings.beta2)
        correction1 = 1 - settings.beta1**step
        correction2 = 1 - settings.beta2**step
        scale = torch._foreach_sqrt(square)
        torch._foreach_div_(scale, correction2**0.5)
        torch._foreach_add_(scale, settings.eps)
        torch._foreach_addcdiv_(parameters, mean, scale, -(settings.lr / correction1))
