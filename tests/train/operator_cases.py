"""One operator, or a few, run by torch and by the kernels: outputs and gradients side by side."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from gridsched.train.graph import FieldSpec, Graph, Named, Node, Program, Ref, TensorSpec, Value
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import _argument, _function
from gridsched.train.wasm_runtime import WasmRuntime

BATCH: Mapping[str, Array] = {"batch": np.zeros(2, np.float32)}


def tensor(name: str) -> Ref:
    return Ref("tensor", name)


def node(name: str) -> Ref:
    return Ref("node", name)


def dtype(name: str) -> Named:
    return Named("dtype", name)


def call(name: str, op: str, *args: Value, **kwargs: Value) -> Node:
    return Node(name=name, op=op if op == "getitem" else f"aten.{op}", args=args, kwargs=kwargs)


def floats(*shape: int, seed: int = 0, low: float = -2, high: float = 2) -> Array:
    """Numbers apart from each other and from 0, so that no slope jumps between torch's rounding and ours."""
    count = int(np.prod(shape))
    spread = np.linspace(low, high, count + 1, dtype=np.float32)[:-1] + (high - low) / (2 * count + 2)
    return np.random.default_rng(seed).permutation(spread.astype(np.float32)).reshape(shape)


def one_operator(nodes: Sequence[Node], arrays: Mapping[str, Array], result: str) -> tuple[Program, dict[str, Array]]:
    """A program whose loss is the sum of ``result``, weighed differently at every place; float32 ``arrays`` are its parameters."""
    shape = _torch_result(nodes, arrays, result).shape
    weights = floats(*shape, seed=9) if shape else np.array(0.7, np.float32)
    held = {**arrays, "weights": weights}
    roles = {name: "parameter" if array.dtype == np.float32 and name != "weights" else "buffer" for name, array in held.items()}
    ending = [call("weighed", "mul.Tensor", node(result), tensor("weights")), call("loss", "sum.default", node("weighed"))]
    graph = Graph(nodes=(*nodes, *ending), loss=node("loss"), outputs=node(result))
    specs = tuple(TensorSpec(name=name, dtype=array.dtype.name, shape=array.shape, role=roles[name]) for name, array in held.items())
    field = FieldSpec(name="batch", dtype="float32", shape=())
    return Program(train=graph, evaluate=graph, tensors=specs, fields=(field,), aliases={}), held


def _torch_values(nodes: Sequence[Node], tensors: Mapping[str, torch.Tensor]) -> dict[Ref, Any]:
    values: dict[Ref, Any] = {tensor(name): value for name, value in tensors.items()}
    for item in nodes:
        args = [_argument(argument, values) for argument in item.args]
        kwargs = {key: _argument(argument, values) for key, argument in item.kwargs.items()}
        values[node(item.name)] = _function(item.op)(*args, **kwargs)
    return values


def _torch_result(nodes: Sequence[Node], arrays: Mapping[str, Array], result: str) -> torch.Tensor:
    found = _torch_values(nodes, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})[node(result)]
    assert isinstance(found, torch.Tensor)
    return found


def torch_answers(program: Program, held: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Outputs, and gradients by name, in torch."""
    tensors = {name: torch.from_numpy(array.copy()) for name, array in held.items()}
    for name in program.names("parameter"):
        tensors[name].requires_grad_()
    values = _torch_values(program.train.nodes, tensors)
    values[program.train.loss].backward()
    grads = {name: tensors[name].grad for name in program.names("parameter")}
    outputs = values[program.train.outputs].detach().numpy()
    return outputs, {name: grad.numpy() for name, grad in grads.items() if grad is not None}


def wasm_answers(program: Program, held: Mapping[str, Array]) -> tuple[Array, dict[str, Array]]:
    """Outputs, and gradients by name, from the kernels; outputs in their own dtype."""
    runtime = WasmRuntime(program, held)
    runtime._run("accumulate", BATCH, share=1.0, clear=True)
    plan = runtime._plan("accumulate", 2)
    assert plan.outputs is not None
    return runtime._memory.get(plan.outputs), {name: runtime._memory.get(place) for name, place in plan.sums.items()}


def assert_agree(nodes: Sequence[Node], arrays: Mapping[str, Array], *, result: str = "y", ulps: int = 32) -> None:
    """Outputs and gradients differ by at most ``ulps`` units in the last place of the greatest element of each, but at least of 0.1."""
    program, held = one_operator(nodes, arrays, result)
    outputs, gradients = torch_answers(program, held)
    own_outputs, own_gradients = wasm_answers(program, held)
    assert own_outputs.dtype == outputs.dtype
    assert_close("outputs", own_outputs, outputs, ulps)
    for name, gradient in gradients.items():
        assert_close(f"gradient of {name}", own_gradients[name], gradient, ulps)


def assert_close(what: str, own: Array, wanted: Array, ulps: int) -> None:
    assert own.shape == wanted.shape, what
    if wanted.dtype != np.float32:
        np.testing.assert_array_equal(own, wanted, err_msg=what)
        return
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(own[~finite], wanted[~finite], err_msg=what)
    scale = float(np.abs(wanted[finite]).max(initial=0.1))
    worst = float(np.abs(own[finite].astype(np.float64) - wanted[finite]).max(initial=0.0)) / (scale * 2.0**-23)
    assert worst <= ulps, f"{what}: off by {worst:.1f} units in the last place of {scale}"
