"""Runs a program with PyTorch, at native speed, one exact step at a time.

The graph becomes a function that ``torch.fx`` writes and autograd trains. Every random draw of a step comes from the seed
handed to that step. Equal inputs give equal bits within one ``hardware_class``.
"""

# ruff: noqa: SLF001 - torch's fused list operations (_foreach_*) and what it knows of a processor are private by name only.

import operator
import platform
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, fx, nn

from gridsched.core.errors import DatasetError, GridschedError, OutOfMemory, ProgramError, UnsupportedOperator
from gridsched.core.method import InnerOptimizer, Precision
from gridsched.train.draws import draw_key
from gridsched.train.graph import Graph, Named, Program, Ref, TensorSpec, Value, model_of, model_tensors, references
from gridsched.train.micro_batch import refuse_micro_batches
from gridsched.train.operators import ALLOWED
from gridsched.train.tensors import Array
from gridsched.train.torch_optimizers import AdamW, Grads, Optimizer, Sgd
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
_EVALUATION_SEED = 0
"""What evaluations draw from, batch by batch, as on the kernels: training before them leaves no trace in their figures."""


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
    # Matrix units for bfloat16 sum in an order of their own; torch's word for the instruction set does not tell them.
    units = "_amx" if torch.cpu._is_amx_tile_supported() else "_bf16" if torch.cpu._is_avx512_bf16_supported() else ""
    return f"torch-{version}-{platform.machine().lower()}-{capability}{units}-cpu-{threads}t"


def _exact_cuda() -> None:
    """Make equal work give equal bits on CUDA, and full float32 where that is asked for.

    cuBLAS wants CUBLAS_WORKSPACE_CONFIG in the environment for it, which the node sets for its training process.
    """
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False


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
    What torch itself refuses in the middle of a step is a ProgramError, and OutOfMemory where it lacked memory.
    """

    def __init__(self, program: Program, tensors: Mapping[str, Array], *, device: str = "cpu", threads: int = 1) -> None:
        torch.set_num_threads(threads)
        self.program = program
        self.device = pick_device(device)
        if self.device.type == "cuda":
            _exact_cuda()
        self.hardware_class = hardware_class(self.device.type, threads)
        self._fields = [(item.name, np.dtype(item.dtype), item.shape) for item in program.fields]
        self._generator = _generator(self.device)
        try:
            self._tensors = {spec.name: _zeros(spec, self.device) for spec in program.tensors}
            self._copy_in({name: array for name, array in tensors.items() if name in self._tensors})
        except (RuntimeError, MemoryError) as error:
            raise _failure(error, "holding this program") from error
        self._parameters = [self._tensors[name] for name in program.names("parameter")]
        self._train = _Compiled(program, program.train, self._tensors, self.device)
        self._evaluate = _Compiled(program, program.evaluate, self._tensors, self.device)
        self.start(InnerOptimizer())

    def load(self, tensors: Mapping[str, Array], *, frozen: bool = True) -> None:
        """Put a model version's tensors in place; with ``frozen`` False, frozen parameters stay as they are.

        Names that no model tensor has (outer state) are skipped.
        """
        self._copy_in(model_of(self.program, tensors, frozen=frozen))

    def _copy_in(self, tensors: Mapping[str, Array]) -> None:
        with torch.no_grad():
            for name, array in tensors.items():
                own = self._tensors[name]
                if tuple(own.shape) != array.shape or _torch_dtype(array.dtype.name) != own.dtype:
                    raise ProgramError(
                        f"tensor {name!r} should be {own.dtype} of shape {tuple(own.shape)}, got {array.dtype} of {array.shape}"
                    )
                own.copy_(torch.from_numpy(array if array.flags.writeable else array.copy()))

    def state(self, *, frozen: bool = True) -> dict[str, Array]:
        """A copy of all model tensors; with ``frozen`` False, without the parameters that are not trained."""
        return {name: _to_numpy(self._tensors[name]) for name in model_tensors(self.program, frozen=frozen)}

    def start(self, inner: InnerOptimizer, *, micro_batch: int = 0, precision: Precision = Precision.FLOAT32) -> None:
        """Begin with a fresh optimizer; the version loaded last is what ``inner.prox`` pulls back to.

        Batches are computed ``micro_batch`` samples at a time (0: at once); ProgramError where that would train another model.
        """
        if micro_batch:
            refuse_micro_batches(self.program)
        self._micro_batch = micro_batch
        mixed = partial(torch.autocast, self.device.type, dtype=torch.bfloat16)
        self._precision: Callable[[], AbstractContextManager[Any]] = mixed if precision is Precision.MIXED else nullcontext
        self._optimizer: Optimizer = (Sgd if inner.name == "sgd" else AdamW)(inner, self._parameters)

    def optimizer_state(self) -> dict[str, Array]:
        """A copy of the optimizer's tensors, empty before the first step."""
        state = {}
        for slot, tensors in self._optimizer.slots.items():
            for name, tensor in zip(self.program.names("parameter"), tensors, strict=True):
                state[f"{slot}/{name}"] = _to_numpy(tensor)
        return state

    def load_optimizer(self, tensors: Mapping[str, Array], step: int) -> None:
        """Go on from ``optimizer_state()`` as it was after ``step`` steps."""
        optimizer = self._optimizer
        optimizer.step_count = step
        if step == 0:
            optimizer.slots = {}
            return
        for slot in optimizer.slot_names:
            held = []
            for name, parameter in zip(self.program.names("parameter"), self._parameters, strict=True):
                array = tensors.get(f"{slot}/{name}")
                if array is None or array.shape != tuple(parameter.shape):
                    raise ProgramError(f"the continuation lacks {slot} of {name!r} in shape {tuple(parameter.shape)}")
                held.append(torch.empty_like(parameter, requires_grad=False).copy_(torch.from_numpy(array.copy())))
            optimizer.slots[slot] = held

    def train_step(self, batch: Mapping[str, Array], seed: int) -> float:
        """One optimizer step on one batch; all its random draws come from ``seed``. Returns the loss before the step."""
        try:
            loss, grads = self._gradients(batch, seed)
            with torch.no_grad():
                self._optimizer.apply(grads)
            return float(loss.item())
        except (RuntimeError, MemoryError) as error:
            raise _failure(error, f"a training step on {_length(batch)} samples") from error

    def evaluate(self, batch: Mapping[str, Array]) -> Evaluation:
        """Mean loss and, where the program has a target, the number of correct answers; changes nothing."""
        loss, correct, count = 0.0, 0, 0
        try:
            for part, share in self._parts(batch):
                found = self._evaluate_part(part)
                loss += found.loss * share
                correct, count = correct + found.correct, count + found.count
        except (RuntimeError, MemoryError) as error:
            raise _failure(error, f"an evaluation of {_length(batch)} samples") from error
        return Evaluation(loss=loss, correct=correct, count=count)

    def answer(self, batch: Mapping[str, Array]) -> tuple[float, Array]:
        """Mean loss and the model's outputs [batch, ...] in float32; changes nothing."""
        loss, outputs = self._evaluated(self._inputs(batch))
        return float(loss.item()), _to_numpy(outputs.float())

    def _evaluated(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and outputs, whatever was drawn before."""
        self._generator.manual_seed(_EVALUATION_SEED)
        with torch.no_grad(), self._precision():
            return self._evaluate(inputs)

    def _evaluate_part(self, batch: Mapping[str, Array]) -> Evaluation:
        with torch.no_grad():
            inputs = self._inputs(batch)
            loss, outputs = self._evaluated(inputs)
            if self.program.target is None:
                return Evaluation(loss=float(loss.item()), correct=0, count=0)
            wanted = inputs[[name for name, _, _ in self._fields].index(self.program.target)]
            correct = int((outputs.argmax(-1) == wanted).sum().item())
        return Evaluation(loss=float(loss.item()), correct=correct, count=wanted.numel())

    def _gradients(self, batch: Mapping[str, Array], seed: int) -> tuple[Tensor, Grads]:
        """The batch's mean loss and its gradients, summed up over micro-batches, each by its share of the samples."""
        parts = self._parts(batch)
        if len(parts) == 1:
            return self._pass(batch, seed)
        total: Tensor | None = None
        sums: Grads = ()
        for index, (part, share) in enumerate(parts):
            loss, grads = self._pass(part, draw_key("micro", seed, index))
            used = [grad for grad in grads if grad is not None]
            if total is None:
                total = torch.zeros_like(loss)
                sums = tuple(None if grad is None else torch.zeros_like(grad) for grad in grads)
            total.add_(loss, alpha=share)
            torch._foreach_add_([grad for grad in sums if grad is not None], used, alpha=share)
        assert total is not None
        return total, sums

    def _pass(self, batch: Mapping[str, Array], seed: int) -> tuple[Tensor, Grads]:
        """Forward and backward over one batch."""
        self._generator.manual_seed(seed)
        inputs = self._inputs(batch)
        with self._precision():
            loss, _ = self._train(inputs)
        grads = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        return loss.detach(), grads

    def _parts(self, batch: Mapping[str, Array]) -> list[tuple[Mapping[str, Array], float]]:
        """The micro-batches, each with its share of the samples."""
        size, step = _length(batch), self._micro_batch
        if not 0 < step < size:
            return [(batch, 1.0)]
        cuts = [slice(start, min(start + step, size)) for start in range(0, size, step)]
        return [({name: array[cut] for name, array in batch.items()}, (cut.stop - cut.start) / size) for cut in cuts]

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


class _Compiled:
    """A graph as one Python function of the batch; the program's tensors are handed to it, so that no step looks them up by name."""

    def __init__(self, program: Program, graph: Graph, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        used = {ref.name: ref for node in graph.nodes for ref in references((*node.args, *node.kwargs.values())) if ref.kind == "tensor"}
        used |= {ref.name: ref for ref in (graph.loss, graph.outputs) if ref.kind == "tensor"}
        self._tensors = [tensors[name] for name in used]
        built = fx.Graph()
        # fx turns these names into Python source; the program's own come from the network.
        values = {Ref("field", item.name): built.placeholder(f"field_{index}") for index, item in enumerate(program.fields)}
        values |= {ref: built.placeholder(f"tensor_{index}") for index, ref in enumerate(used.values())}
        for node in graph.nodes:
            kwargs = {key: _argument(value, values) for key, value in node.kwargs.items()}
            if ALLOWED[node.op] == "factory" and device.type != "cpu":
                kwargs["device"] = device
            args = tuple(_argument(value, values) for value in node.args)
            values[Ref("node", node.name)] = built.create_node("call_function", _function(node.op), args, kwargs, node.name)
        built.output((values[graph.loss], values[graph.outputs]))
        self._forward = fx.GraphModule(nn.Module(), built).forward

    def __call__(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and outputs of one batch, its fields in the program's order."""
        loss, outputs = self._forward(*inputs, *self._tensors)
        return loss, outputs


def _zeros(spec: TensorSpec, device: torch.device) -> Tensor:
    memory_format = torch.channels_last if spec.layout == "channels_last" else torch.contiguous_format
    tensor = torch.zeros(spec.shape, dtype=_torch_dtype(spec.dtype), device=device).contiguous(memory_format=memory_format)
    return tensor.requires_grad_(spec.role == "parameter")


def _length(batch: Mapping[str, Array]) -> int:
    return len(next(iter(batch.values())))


def _failure(error: Exception, doing: str) -> GridschedError:
    """What torch could not do, by its own words: lack of memory is the machine's, everything else the program's."""
    words = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in words or "not enough memory" in words:
        return OutOfMemory(f"{doing} needs more memory than there is ({words}); set micro_batch in the job's method, or use a larger node")
    return ProgramError(f"{doing} failed in torch {torch.__version__}: {words}")


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
