"""From an ``nn.Module`` to a ``Program``: the only way a model enters the grid.

``torch.export`` traces the module with its loss, once for training and once for evaluation, because an exported graph cannot
change its mode later. Parameters appear by the names of ``module.state_dict()``, the batch size stays open, and whatever is
not in the allow-list is refused here by name, before anything is submitted.
"""

import inspect
import operator
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.export
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gridsched.core.errors import ProgramError, UnsupportedOperator
from gridsched.core.method import Method
from gridsched.train.graph import FieldSpec, Graph, Named, Node, Program, Ref, TensorSpec, Value
from gridsched.train.operators import ALLOWED
from gridsched.train.tensors import DTYPES, Array
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import READ_AHEAD

__all__ = ["Loss", "breaks_alone", "call_module", "export", "unit_bytes"]

Loss = Callable[[Tensor, Mapping[str, Tensor]], Tensor]

_PREFIX = "module."
# Checks and hints that torch.export leaves in a graph; they compute nothing.
_NO_OPERATION = ("_assert_", "sym_constrain_", "_guards_fn", "_assert_tensor_metadata")
_SIZE_FUNCTIONS = {
    operator.getitem: "getitem",
    operator.add: "sym.add",
    operator.sub: "sym.sub",
    operator.mul: "sym.mul",
    operator.floordiv: "sym.floordiv",
    operator.mod: "sym.mod",
    operator.neg: "sym.neg",
}
# Placement is the runtime's business.
_DROPPED = ("device", "pin_memory")


def call_module(module: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Call ``module`` with those fields of ``batch`` that its ``forward`` names as arguments."""
    wanted = [name for name in inspect.signature(module.forward).parameters if name in batch]
    if not wanted:
        raise ProgramError(
            f"{type(module).__name__}.forward takes none of the batch's fields {', '.join(batch)}; name its arguments like them"
        )
    outputs = module(**{name: batch[name] for name in wanted})
    if not isinstance(outputs, Tensor):
        raise ProgramError(f"{type(module).__name__}.forward must return one tensor, got {type(outputs).__name__}")
    return outputs


class _WithLoss(nn.Module):
    """The module and its loss as one, so that both are traced."""

    def __init__(self, module: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.module = module
        self._loss = loss

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        outputs = call_module(self.module, batch)
        return self._loss(outputs, batch), outputs


def export(module: nn.Module, example_batch: Mapping[str, Tensor], loss: Loss, *, target: str = "y") -> tuple[Program, dict[str, Array]]:
    """Trace ``module`` and ``loss(outputs, batch) -> scalar`` into a program and its tensors.

    ``example_batch`` maps field names to tensors whose first axis is the batch, of two samples or more; ``module.forward``
    gets the fields that its arguments are named after. If ``outputs`` has the shape of field ``target`` plus one axis of
    classes, evaluation counts correct answers. The module is left in the mode it was in.

    Raises ProgramError for what cannot be traced, UnsupportedOperator for an operator outside the allow-list.
    """
    batch = dict(example_batch)
    if not batch or any(field.dim() < 1 or len(field) < 2 for field in batch.values()):
        raise ProgramError("the example batch needs at least one field, each with a first axis of two or more samples")
    names = _Names(module)
    was_training = module.training
    try:
        train = _trace(module.train(), loss, batch, names, "train")
        evaluate = _trace(module.eval(), loss, batch, names, "evaluate")
    finally:
        module.train(was_training)
    program = Program(
        train=train,
        evaluate=evaluate,
        tensors=tuple(names.specs.values()),
        fields=tuple(FieldSpec(name=name, dtype=_dtype(field), shape=tuple(field.shape[1:])) for name, field in batch.items()),
        target=_target(module, batch, target),
        aliases=names.aliases,
    )
    return program, names.arrays


class _Names:
    """All tensors of a module under their first ``state_dict`` name; shared ones once, with aliases."""

    def __init__(self, module: nn.Module) -> None:
        self.specs: dict[str, TensorSpec] = {}
        self.arrays: dict[str, Array] = {}
        self.aliases: dict[str, str] = {}
        self._module = module
        first: dict[int, str] = {}
        parameters = dict(module.named_parameters(remove_duplicate=False))
        buffers = dict(module.named_buffers(remove_duplicate=False))
        for name in module.state_dict():
            tensor = parameters[name] if name in parameters else buffers[name]
            if (stored := first.setdefault(id(tensor), name)) != name:
                self.aliases[name] = stored
            elif name in parameters:
                self._add(name, tensor, "parameter" if tensor.requires_grad else "frozen")
            else:
                self._add(name, tensor, "buffer")

    def _add(self, name: str, tensor: Tensor, role: str) -> None:
        self.specs[name], self.arrays[name] = _spec(name, tensor, role), _array(tensor)

    def resolve(self, target: str, holder: nn.Module) -> Ref:
        """The stored tensor that a traced attribute stands for; a tensor the model made up becomes a constant."""
        name = target.removeprefix(_PREFIX)
        name = self.aliases.get(name, name)
        if name not in self.specs or self.specs[name].role == "constant":
            tensor: Any = holder
            for part in target.split("."):
                tensor = getattr(tensor, part)
            name = self._constant(name, tensor)
        return Ref("tensor", name)

    def _constant(self, name: str, tensor: Tensor) -> str:
        """What the constant is stored under: each trace numbers its own anew, so where another has ``name`` it is ``name.2``, and so on."""
        wanted, number = name, 1
        while name in self.specs and not self._holds(name, tensor):
            number += 1
            name = f"{wanted}.{number}"
        if name not in self.specs:
            self._add(name, tensor, "constant")
        return name

    def _holds(self, name: str, tensor: Tensor) -> bool:
        return self.specs[name] == _spec(name, tensor, "constant") and self.arrays[name].tobytes() == _array(tensor).tobytes()


def _spec(name: str, tensor: Tensor, role: str) -> TensorSpec:
    channels_last = tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    layout = "channels_last" if channels_last else "contiguous"
    return TensorSpec(name=name, dtype=_dtype(tensor), shape=tuple(tensor.shape), role=role, layout=layout)


def _array(tensor: Tensor) -> Array:
    return tensor.detach().cpu().contiguous().clone().numpy()


def _trace(module: nn.Module, loss: Loss, batch: dict[str, Tensor], names: _Names, label: str) -> Graph:
    open_batch = {name: {0: torch.export.Dim.DYNAMIC} for name in batch}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # recurrent layers reassign their flat weights while being traced; harmless, and loud
        try:
            exported = torch.export.export(_WithLoss(module, loss), (batch,), dynamic_shapes=(open_batch,))
        except ProgramError:
            raise
        except Exception as error:  # torch.export raises whatever the model or its tracer raises
            if "specialized it to be a constant" in str(error):
                raise ProgramError(f"the model fixes its batch size; write it for any batch size. torch.export says: {error}") from error
            raise ProgramError(f"the {label} graph cannot be traced by torch.export: {error}") from error
        traced = exported.module()
    assert isinstance(traced, fx.GraphModule)
    return _convert(traced, list(batch), names, label)


def _convert(traced: fx.GraphModule, fields: Sequence[str], names: _Names, label: str) -> Graph:
    refs: dict[fx.Node, Ref] = {}
    nodes: list[Node] = []
    open_fields = iter(fields)
    result: tuple[Ref, Ref] | None = None
    for node in traced.graph.nodes:
        if node.op == "placeholder":
            refs[node] = Ref("field", next(open_fields))
        elif node.op == "get_attr":
            refs[node] = names.resolve(node.target, traced)
        elif node.op == "output":
            loss, outputs = node.args[0]
            result = refs[loss], refs[outputs]
            if loss.meta["val"].dim() != 0:
                raise ProgramError(f"the loss must be a scalar, got shape {tuple(loss.meta['val'].shape)}; take its mean")
        elif not str(_operator(node)).removeprefix("aten.").startswith(_NO_OPERATION):
            nodes.append(_node(node, refs, label))
            refs[node] = Ref("node", node.name)
    assert result is not None
    return Graph(nodes=tuple(nodes), loss=result[0], outputs=result[1])


def _operator(node: fx.Node) -> str:
    return _SIZE_FUNCTIONS.get(node.target, str(node.target)) if callable(node.target) else str(node.target)


def _node(node: fx.Node, refs: Mapping[fx.Node, Ref], label: str) -> Node:
    name = _operator(node)
    if name not in ALLOWED:
        raise UnsupportedOperator(
            f"the {label} graph uses operator {name} (node {node.name}), which is not in the allow-list of gridsched.train.program; "
            "write that part of the model with other operators"
        )
    where = f"{label} graph, {node.name}"
    args = tuple(_value(argument, refs, where) for argument in node.args)
    kwargs = {key: _value(argument, refs, where) for key, argument in node.kwargs.items() if key not in _DROPPED}
    return Node(name=node.name, op=name, args=args, kwargs=kwargs)


def _value(argument: Any, refs: Mapping[fx.Node, Ref], where: str) -> Value:
    if isinstance(argument, fx.Node):
        return refs[argument]
    if isinstance(argument, list | tuple):
        return tuple(_value(item, refs, where) for item in argument)
    if argument is None or isinstance(argument, bool | int | float | str):
        return argument
    for kind, of_torch in (("dtype", torch.dtype), ("memory_format", torch.memory_format), ("layout", torch.layout)):
        if isinstance(argument, of_torch):
            return Named(kind, str(argument).removeprefix("torch."))
    raise ProgramError(f"{where}: an argument of type {type(argument).__name__} cannot be written down")


def _dtype(tensor: Tensor) -> str:
    name = str(tensor.dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise ProgramError(f"dtype {name} is not supported; use one of {', '.join(DTYPES)}")
    return name


def _target(module: nn.Module, batch: Mapping[str, Tensor], target: str) -> str | None:
    if target not in batch or batch[target].is_floating_point():
        return None
    was_training = module.training
    with torch.no_grad():
        outputs = call_module(module.eval(), batch)
    module.train(was_training)
    return target if outputs.shape[:-1] == batch[target].shape else None


def unit_bytes(program: Program, tensors: Mapping[str, Array], batch: Mapping[str, Array], method: Method) -> int:
    """Bytes that a node needs for a unit of batches like ``batch``, beyond those of the runtime itself; measured on one real step.

    To the most that was alive in the step (activations, gradients, optimizer) come the model itself, the version it began with, a
    continuation of it with its optimizer, a copy to be hashed, the update and its encoding, and the batches that are read ahead.
    Raises ProgramError where the program cannot be trained in the method's micro-batches or precision.
    """
    runtime = TorchRuntime(program, tensors)
    runtime.start(method.inner, micro_batch=method.micro_batch, precision=method.precision)
    with _Alive() as alive:
        runtime.train_step(batch, seed=0)
    model = sum(array.nbytes for array in runtime.state().values())
    slots = sum(array.nbytes for array in runtime.optimizer_state().values())
    return int(alive.peak_bytes) + 6 * model + slots + READ_AHEAD * sum(array.nbytes for array in batch.values())


def breaks_alone(program: Program, tensors: Mapping[str, Array], batch: Mapping[str, Array]) -> str:
    """The buffer that a training step on the first sample of ``batch`` makes NaN, and one on all of it does not; "" where there is none.

    Of one value there is no variance: batch normalisation divides nothing by nothing.
    """
    alone = _broken(program, tensors, {name: array[:1] for name, array in batch.items()})
    return min(alone - _broken(program, tensors, batch), default="") if alone else ""


def _broken(program: Program, tensors: Mapping[str, Array], batch: Mapping[str, Array]) -> set[str]:
    """The buffers that are not finite after a training step."""
    runtime = TorchRuntime(program, tensors)
    runtime.train_step(batch, seed=0)
    state = runtime.state()
    return {name for name in program.names("buffer") if not np.isfinite(state[name]).all()}


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Counts the bytes of all storages that operators have made and that are still referred to."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = 0
        self._now_bytes = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()  # noqa: SLF001 - the storage's identity; its Python object may be made anew
        if key not in self._known:
            self._known.add(key)
            self._now_bytes += size
            self.peak_bytes = max(self.peak_bytes, self._now_bytes)
            weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now_bytes -= size
