"""Runs a program with PyTorch, at native speed, one exact step at a time.

The graph becomes a ``torch.fx.GraphModule`` and trains with autograd; the optimizers are plain tensor operations, bit for
bit those of ``torch.optim`` (which would import ``torch._dynamo`` and cost a second at every start). Every random draw
of a step comes from the seed handed to that step. Equal inputs give equal bits within one ``hardware_class``.
"""

# ruff: noqa: SLF001 - torch's fused list operations (_foreach_*) are private by name only; torch.optim is built on them.

import operator
import platform
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from gridsched.core.errors import DatasetError, ProgramError, UnsupportedOperator
from gridsched.core.method import InnerOptimizer
from gridsched.train.graph import Graph, Named, Program, Ref, TensorSpec, Value, model_tensors, references
from gridsched.train.operators import ALLOWED
from gridsched.train.tensors import Array
from gridsched.train.unit import Evaluation

__all__ = ["TorchRuntime", "hardware_class", "load_version", "pick_device"]

_SIZE_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "getitem": operator.getitem,
    "sym.add": operator.add,
    "sym.sub": operator.sub,
    "sym.mul": operator.mul,
    "sym.floordiv": operator.floordiv,
    "sym.mod": operator.mod,
    "sym.neg": operator.neg,
}


def pick_device(wanted: str = "cpu") -> torch.device:
    """The device to train on: ``cpu``, ``cuda``, ``mps``, or ``auto`` for the fastest that is there."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ProgramError("this machine has no usable CUDA device; use cpu")
    if wanted == "mps" and not torch.backends.mps.is_available():
        raise ProgramError("this machine has no usable MPS device; use cpu")
    return torch.device(wanted)


def hardware_class(device: str = "cpu", threads: int = 1) -> str:
    """Within one class equal work gives equal bits: torch version, machine, instruction set, device, thread count."""
    version = torch.__version__.split("+")[0]
    if device == "cuda":
        return f"torch-{version}-cuda{torch.version.cuda}-{torch.cuda.get_device_name().lower().replace(' ', '_')}"
    if device == "mps":
        return f"torch-{version}-mps-{platform.machine()}"
    capability = torch.backends.cpu.get_cpu_capability().lower().replace(" ", "_")
    return f"torch-{version}-{platform.machine().lower()}-{capability}-cpu-{threads}t"


def load_version(module: nn.Module, tensors: Mapping[str, Array]) -> None:
    """Load a fetched model version into the owner's own module; names are those of ``module.state_dict()``.

    Outer optimizer state is skipped and tied weights follow the one they are tied to. Raises ProgramError where names or shapes differ.
    """
    own = module.state_dict()
    found = {name: torch.tensor(array) for name, array in tensors.items() if not name.startswith("outer/")}
    shared = {own[name].data_ptr() for name in found if name in own}
    missing = [name for name, tensor in own.items() if name not in found and tensor.data_ptr() not in shared]
    if missing or found.keys() - own.keys():
        raise ProgramError(f"this version does not fit the module: missing {missing[:3]}, unknown {sorted(found.keys() - own.keys())[:3]}")
    for name, tensor in found.items():
        if own[name].shape != tensor.shape:
            raise ProgramError(f"{name} has shape {tuple(tensor.shape)} in this version and {tuple(own[name].shape)} in the module")
    module.load_state_dict(found, strict=False)


class TorchRuntime:
    """One program on one device: load a version, start an optimizer, then step, or evaluate.

    ``tensors`` holds at least the program's constants; model tensors in it are loaded, others start at zero until ``load``.
    """

    def __init__(self, program: Program, tensors: Mapping[str, Array], *, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.program = program
        self.device = pick_device(device)
        self.hardware_class = hardware_class(self.device.type, threads)
        self._root = _root(program, self.device)
        self._tensors = _named_tensors(self._root)
        self._train = _rebuild(self._root, program, program.train, self.device)
        self._evaluate = _rebuild(self._root, program, program.evaluate, self.device)
        self._forward_train = self._train.forward
        self._forward_evaluate = self._evaluate.forward
        self._trained = [(name, self._tensors[name]) for name in program.names("parameter")]
        self._generator = _generator(self.device)
        self._fields = [(item.name, np.dtype(item.dtype), item.shape) for item in program.fields]
        self._optimizer: _Optimizer = _Sgd(InnerOptimizer())
        self._copy_in({name: array for name, array in tensors.items() if name in self._tensors})

    def module(self, *, training: bool = True) -> fx.GraphModule:
        """The rebuilt graph ``forward(*fields) -> (loss, outputs)``; both graphs share this runtime's tensors."""
        return self._train if training else self._evaluate

    def load(self, tensors: Mapping[str, Array]) -> None:
        """Put a model version's tensors in place. Names that no model tensor has (outer state) are skipped."""
        wanted = model_tensors(self.program)
        if missing := [name for name in wanted if name not in tensors]:
            raise ProgramError(f"the version lacks {missing[0]!r} and {len(missing) - 1} more tensors of the program")
        self._copy_in({name: tensors[name] for name in wanted})

    def _copy_in(self, tensors: Mapping[str, Array]) -> None:
        with torch.no_grad():
            for name, array in tensors.items():
                own = self._tensors[name]
                if tuple(own.shape) != array.shape or _torch_dtype(array.dtype.name) != own.dtype:
                    raise ProgramError(
                        f"tensor {name!r} should be {own.dtype} of shape {tuple(own.shape)}, got {array.dtype} of {array.shape}"
                    )
                own.copy_(torch.from_numpy(array if array.flags.writeable else array.copy()))

    def state(self) -> dict[str, Array]:
        """A copy of all model tensors."""
        return {name: _to_numpy(self._tensors[name]) for name in model_tensors(self.program)}

    def start(self, inner: InnerOptimizer) -> None:
        """Begin with a fresh optimizer."""
        self._optimizer = _Sgd(inner) if inner.name == "sgd" else _AdamW(inner)

    def optimizer_state(self) -> dict[str, Array]:
        """A copy of the optimizer's tensors, empty before the first step."""
        state = {}
        for slot, tensors in self._optimizer.slots.items():
            for (name, _), tensor in zip(self._trained, tensors, strict=True):
                state[f"{slot}/{name}"] = _to_numpy(tensor)
        return state

    def load_optimizer(self, tensors: Mapping[str, Array], step: int) -> None:
        """Go on from ``optimizer_state()`` as it was after ``step`` steps."""
        optimizer = self._optimizer
        optimizer.step_count = step
        if step == 0:
            return
        for slot in optimizer.slot_names:
            held = []
            for name, parameter in self._trained:
                array = tensors.get(f"{slot}/{name}")
                if array is None or array.shape != tuple(parameter.shape):
                    raise ProgramError(f"the continuation lacks {slot} of {name!r} in shape {tuple(parameter.shape)}")
                held.append(torch.empty_like(parameter, requires_grad=False).copy_(torch.from_numpy(array.copy())))
            optimizer.slots[slot] = held

    def train_step(self, batch: Mapping[str, Array], seed: int) -> float:
        """One optimizer step on one batch; all its random draws come from ``seed``. Returns the loss before the step."""
        self._generator.manual_seed(seed)
        loss, _ = self._forward_train(*self._inputs(batch))
        parameters = [parameter for _, parameter in self._trained]
        grads = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            self._optimizer.apply(parameters, grads)
        return float(loss.item())

    def evaluate(self, batch: Mapping[str, Array]) -> Evaluation:
        """Mean loss and, where the program has a target, the number of correct answers; changes nothing."""
        with torch.no_grad():
            inputs = self._inputs(batch)
            loss, outputs = self._forward_evaluate(*inputs)
            if self.program.target is None:
                return Evaluation(loss=float(loss.item()), correct=0, count=0)
            wanted = inputs[[name for name, _, _ in self._fields].index(self.program.target)]
            correct = int((outputs.argmax(-1) == wanted).sum().item())
        return Evaluation(loss=float(loss.item()), correct=correct, count=wanted.numel())

    def _inputs(self, batch: Mapping[str, Array]) -> list[Tensor]:
        inputs = []
        for name, dtype, shape in self._fields:
            array = batch.get(name)
            if array is None or array.dtype != dtype or array.shape[1:] != shape:
                got = "nothing" if array is None else f"{array.dtype} of shape {array.shape[1:]}"
                raise DatasetError(f"the program needs field {name!r} as {dtype} of shape {shape} per sample; the dataset has {got}")
            # A copy on purpose: torch's own memory is aligned to 64 bytes, numpy's to 16, and matrix kernels may pick their
            # order of summation by alignment, which differs from process to process.
            inputs.append(torch.from_numpy(array).to(self.device, copy=True))
        return inputs


class _Optimizer:
    """Optimizer state as lists of tensors by slot, parallel to the parameters."""

    slot_names: tuple[str, ...] = ()

    def __init__(self, settings: InnerOptimizer) -> None:
        self.settings = settings
        self.slots: dict[str, list[Tensor]] = {}
        self.step_count = 0

    def apply(self, parameters: list[Tensor], grads: tuple[Tensor | None, ...]) -> None:
        """One step. A parameter the loss does not depend on has no gradient and stays as it is, as in ``torch.optim``."""
        used = [index for index, grad in enumerate(grads) if grad is not None]
        if self.step_count == 0:
            self._begin(parameters)
        self.step_count += 1
        slots = {slot: [tensors[index] for index in used] for slot, tensors in self.slots.items()}
        self._step([parameters[index] for index in used], [cast(Tensor, grads[index]) for index in used], slots)

    def _begin(self, parameters: list[Tensor]) -> None:
        self.slots = {slot: [torch.zeros_like(parameter, requires_grad=False) for parameter in parameters] for slot in self.slot_names}

    def _step(self, parameters: list[Tensor], grads: list[Tensor], slots: Mapping[str, list[Tensor]]) -> None:
        raise NotImplementedError


class _Sgd(_Optimizer):
    """``torch.optim.SGD`` without dampening or Nesterov (torch/optim/sgd.py, ``_single_tensor_sgd``)."""

    def __init__(self, settings: InnerOptimizer) -> None:
        super().__init__(settings)
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


class _AdamW(_Optimizer):
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


def _root(program: Program, device: torch.device) -> nn.Module:
    root = nn.Module()
    for spec in program.tensors:
        try:
            _register(root, spec, _zeros(spec, device))
        except (KeyError, TypeError) as error:  # a name that a torch module keeps for itself, or that is also a folder of names
            raise ProgramError(f"tensor {spec.name!r} cannot be held by a torch module: {error}; rename it in the model") from error
    return root


def _register(root: nn.Module, spec: TensorSpec, tensor: Tensor) -> None:
    *path, leaf = spec.name.split(".")
    holder = root
    for part in path:
        if part not in holder._modules:
            holder.add_module(part, nn.Module())
        holder = cast(nn.Module, holder._modules[part])
    if spec.role in ("parameter", "frozen"):
        holder.register_parameter(leaf, nn.Parameter(tensor, requires_grad=spec.role == "parameter"))
    else:
        holder.register_buffer(leaf, tensor)


def _zeros(spec: TensorSpec, device: torch.device) -> Tensor:
    memory_format = torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
    return torch.zeros(spec.shape, dtype=_torch_dtype(spec.dtype), device=device).contiguous(memory_format=memory_format)


def _named_tensors(root: nn.Module) -> dict[str, Tensor]:
    return dict(root.named_parameters()) | dict(root.named_buffers())


def _rebuild(root: nn.Module, program: Program, graph: Graph, device: torch.device) -> fx.GraphModule:
    built = fx.Graph()
    values: dict[Ref, fx.Node] = {}
    for index, item in enumerate(program.fields):
        # fx turns this name into Python source; the field's own name comes from the network.
        values[Ref("field", item.name)] = built.placeholder(f"field_{index}")
    for node in graph.nodes:
        for ref in references((*node.args, *node.kwargs.values())):
            if ref.kind == "tensor" and ref not in values:
                values[ref] = built.get_attr(ref.name)
        kwargs = {key: _argument(value, values) for key, value in node.kwargs.items()}
        if ALLOWED[node.op] == "factory" and device.type != "cpu":
            kwargs["device"] = device
        args = tuple(_argument(value, values) for value in node.args)
        values[Ref("node", node.name)] = built.create_node("call_function", _function(node.op), args, kwargs, node.name)
    built.output((values[graph.loss], values[graph.outputs]))
    return fx.GraphModule(root, built)


def _function(op: str) -> Callable[..., Any]:
    if op in _SIZE_FUNCTIONS:
        return _SIZE_FUNCTIONS[op]
    _, name, overload = op.split(".")
    found = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if found is None:
        raise UnsupportedOperator(f"torch {torch.__version__} has no operator {op}; use the torch version of the node class")
    return cast(Callable[..., Any], found)


def _argument(value: Value, values: Mapping[Ref, fx.Node]) -> Any:
    if isinstance(value, Ref):
        return values[value]
    if isinstance(value, Named):
        return getattr(torch, value.name)
    if isinstance(value, tuple):
        return [_argument(item, values) for item in value]
    return value


def _torch_dtype(name: str) -> torch.dtype:
    return cast(torch.dtype, getattr(torch, name))


def _to_numpy(tensor: Tensor) -> Array:
    return tensor.detach().to("cpu", copy=True).contiguous().numpy()


def _generator(device: torch.device) -> torch.Generator:
    # Operators like dropout draw from their device's default generator and from no other.
    if device.type == "cuda":
        return torch.cuda.default_generators[torch.cuda.current_device()]
    return torch.mps._get_default_mps_generator() if device.type == "mps" else torch.default_generator
