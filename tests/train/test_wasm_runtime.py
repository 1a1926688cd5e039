"""Programs on the WebAssembly kernels: they train as torch does, and a unit ends in the same bits however it was interrupted."""

import functools
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from gridsched.core.errors import DatasetError, OutOfMemory, ProgramError
from gridsched.core.method import InnerOptimizer, Precision
from gridsched.core.work import UnitKind
from gridsched.train.graph import FieldSpec, Graph, Program, Ref, TensorSpec, model_tensors
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import Continuation, Evaluation, Runtime, run
from gridsched.train.wasm_runtime import WasmRuntime
from tests.train.builders import dataset_of, example, exported_example, hard_net, outcome_bits, samples, unit_spec
from tests.train.operator_cases import call, node, tensor

SGD = InnerOptimizer(lr=0.05, momentum=0.9, weight_decay=1e-3)
EXAMPLES = ("tabular_mlp", "image_cnn", "text_gru", "graph_gcn", "transformer")
FASHION = ("fashion_cnn", "one_class")


def hard_wasm() -> WasmRuntime:
    return WasmRuntime(*hard_net())


def without_dropout(program: Program) -> Program:
    """The program with its evaluation's dropout in training, which is none: torch and the kernels draw differently."""
    nodes = tuple(
        item if item.op != "aten.dropout.default" else call(item.name, "dropout.default", *item.args[:2], False)
        for item in program.train.nodes
    )
    return replace(program, train=replace(program.train, nodes=nodes))


@functools.cache
def plain() -> tuple[Program, dict[str, Array]]:
    """The tabular example without its batch norm, whose weights the loss then does not depend on: no optimizer may touch them."""
    program, tensors = exported_example("tabular_mlp")
    into = {Ref("node", "batch_norm"): Ref("field", "input")}
    nodes = [item for item in program.train.nodes if item.name not in ("add_", "batch_norm")]
    nodes = [replace(item, args=tuple(into.get(arg, arg) if isinstance(arg, Ref) else arg for arg in item.args)) for item in nodes]
    graph = replace(program.train, nodes=tuple(nodes))
    return replace(program, train=graph, evaluate=graph), tensors


def steps_of_plain(count: int) -> list[dict[str, Array]]:
    steps = batches(example("tabular_mlp").dataset()[0], 20, count)
    return [{"input": batch["input"] / 100, "y": batch["y"]} for batch in steps]


def batches(data: Mapping[str, Array], size: int, count: int) -> list[dict[str, Array]]:
    whole = len(next(iter(data.values())))
    order = [np.arange(step * size, (step + 1) * size) % whole for step in range(count)]
    return [{name: array[chosen] for name, array in data.items()} for chosen in order]


def trained(
    runtime: Runtime, tensors: Mapping[str, Array], steps: list[dict[str, Array]], inner: InnerOptimizer, micro_batch: int = 0
) -> list[float]:
    runtime.load(tensors)
    runtime.start(inner, micro_batch=micro_batch)
    return [runtime.train_step(batch, seed) for seed, batch in enumerate(steps)]


def assert_as_torch(
    program: Program, tensors: Mapping[str, Array], steps: list[dict[str, Array]], inner: InnerOptimizer, micro_batch: int = 0
) -> None:
    """Losses within 1e-5 and, relative to how far they went, tensors within 1e-3 of torch's after these steps."""
    torch, wasm = TorchRuntime(program, tensors), WasmRuntime(program, tensors)
    losses = [trained(runtime, tensors, steps, inner, micro_batch) for runtime in (torch, wasm)]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    wanted, own = torch.state(), wasm.state()
    assert own.keys() == wanted.keys()
    floats = [name for name, array in wanted.items() if array.dtype == np.float32]
    moved = math.sqrt(sum(float(np.square(wanted[name] - tensors[name]).sum()) for name in floats))
    apart = math.sqrt(sum(float(np.square(wanted[name] - own[name]).sum()) for name in floats))
    assert moved > 0
    assert apart <= 1e-3 * moved
    for name in wanted.keys() - set(floats):
        np.testing.assert_array_equal(own[name], wanted[name])
    torch.load(own)
    assert_evaluates_as(torch.evaluate(steps[0]), wasm.evaluate(steps[0]))


def assert_evaluates_as(wanted: Evaluation, own: Evaluation) -> None:
    assert own.loss == pytest.approx(wanted.loss, rel=1e-5)
    assert (own.correct, own.count) == (wanted.correct, wanted.count)


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_train_as_in_torch(name: str) -> None:
    program, tensors = exported_example(name)
    # SGD: where a gradient is nearly nothing, Adam makes a whole step of its sign, which is rounding's.
    steps = batches(example(name).dataset()[0], 12, 3)
    assert_as_torch(without_dropout(program), tensors, steps, SGD)


@pytest.mark.fashion_mnist
@pytest.mark.parametrize("name", FASHION)
def test_examples_on_pictures_train_as_in_torch(name: str) -> None:
    program, tensors = exported_example(name)
    steps = batches(example(name).dataset()[0], 12, 3)
    steps = [{field.name: batch[field.name] for field in program.fields} for batch in steps]
    assert_as_torch(program, tensors, steps, InnerOptimizer(lr=1e-4))


@pytest.mark.long
@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_learn_with_their_own_method(name: str) -> None:
    job = example(name)
    program, tensors = exported_example(name)
    runtime = WasmRuntime(program, tensors)
    losses = trained(runtime, tensors, batches(job.dataset()[0], job.method.batch_size, 60), job.method.inner)
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])


@pytest.mark.parametrize("inner", [
    InnerOptimizer(lr=0.05), SGD, InnerOptimizer(lr=0.05, momentum=0.5, prox=0.3), InnerOptimizer(name="adamw", lr=1e-3, weight_decay=0.1),
    InnerOptimizer(name="adamw", lr=1e-3, prox=0.3),
])  # fmt: skip
def test_optimizers_step_as_in_torch(inner: InnerOptimizer) -> None:
    assert_as_torch(*plain(), steps_of_plain(5), inner)


def test_momentum_begins_at_minus_zero_and_adam_at_zero() -> None:
    runtime = hard_wasm()
    runtime.start(SGD)
    assert runtime.optimizer_state() == {}
    held = [runtime._memory.get(place) for place in runtime._slots.values()]
    assert all(np.signbit(array).all() and not array.any() for array in held)
    runtime.start(InnerOptimizer(name="adamw"))
    assert not any(np.signbit(runtime._memory.get(place)).any() for place in runtime._slots.values())


@pytest.mark.parametrize("kind", [UnitKind.TRAIN, UnitKind.EVALUATE])
@pytest.mark.parametrize("inner", [SGD, InnerOptimizer(name="adamw", lr=0.01)])
def test_a_unit_interrupted_anywhere_ends_in_the_same_bits(kind: UnitKind, inner: InnerOptimizer) -> None:
    tensors, data = hard_net()[1], dataset_of(samples())
    spec = unit_spec(kind=kind, inner=inner, stop=45)
    whole = run(spec, hard_wasm(), data, tensors)
    for stop in range(spec.steps):
        left = iter([True] * stop + [False])
        paused = run(spec, hard_wasm(), data, tensors, may_go_on=functools.partial(next, left)).continuation
        assert paused is not None
        saved = Continuation.from_bytes(paused.to_bytes())
        assert outcome_bits(run(spec, hard_wasm(), data, tensors, continuation=saved)) == outcome_bits(whole)


@pytest.mark.parametrize("inner", [SGD, InnerOptimizer(name="adamw", lr=0.01)])
def test_torch_goes_on_from_wasm_and_wasm_from_torch(inner: InnerOptimizer) -> None:
    (program, tensors), steps = plain(), steps_of_plain(6)
    whole = TorchRuntime(program, tensors)
    trained(whole, tensors, steps, inner)
    for first, second in ((TorchRuntime, WasmRuntime), (WasmRuntime, TorchRuntime)):
        begun, ended = first(program, tensors), second(program, tensors)
        trained(begun, tensors, steps[:3], inner)
        ended.load(begun.state())
        ended.start(inner)
        ended.load_optimizer(begun.optimizer_state(), 3)
        for batch in steps[3:]:
            ended.train_step(batch, 0)
        for name, array in whole.state().items():
            np.testing.assert_allclose(ended.state()[name], array, atol=2e-5)


def test_prox_pulls_back_to_what_was_loaded_though_the_unit_went_on_from_its_middle() -> None:
    tensors, data = hard_net()[1], dataset_of(samples())
    spec = unit_spec(inner=InnerOptimizer(lr=0.05, prox=0.5))
    whole = run(spec, hard_wasm(), data, tensors)
    left = iter([True] * 4 + [False])
    paused = run(spec, hard_wasm(), data, tensors, may_go_on=functools.partial(next, left)).continuation
    assert outcome_bits(run(spec, hard_wasm(), data, tensors, continuation=paused)) == outcome_bits(whole)


def test_seeds_decide_what_is_dropped_and_nothing_else_does() -> None:
    batch = batches(samples(), 8, 1)[0]
    first, again, other = (trained_from(seed, batch) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def trained_from(seed: int, batch: Mapping[str, Array]) -> bytes:
    runtime = hard_wasm()
    runtime.train_step(batch, seed)
    return runtime.state()["out.weight"].tobytes()


def dropping(share: float) -> tuple[Program, dict[str, Array]]:
    """A parameter, dropped out twice; loss is the sum."""
    nodes = [call(f"y{at}", "dropout.default", tensor("a"), share, True) for at in (1, 2)]
    nodes += [call("y", "stack.default", (node("y1"), node("y2"))), call("loss", "sum.default", node("y"))]
    graph = Graph(nodes=tuple(nodes), loss=node("loss"), outputs=node("y"))
    specs = (TensorSpec(name="a", dtype="float32", shape=(4000,), role="parameter"),)
    fields = (FieldSpec(name="batch", dtype="float32", shape=()),)
    return Program(train=graph, evaluate=graph, tensors=specs, fields=fields, aliases={}), {"a": np.ones(4000, np.float32)}


def test_dropout_keeps_its_share_grown_in_turn_and_drops_the_same_on_the_way_back() -> None:
    program, held = dropping(0.25)
    runtime = WasmRuntime(program, held)
    runtime._run("accumulate", {"batch": np.zeros(2, np.float32)}, seed=7, share=1.0, clear=True)
    plan = runtime._plan("accumulate", 2)
    assert plan.outputs is not None
    outputs, gradient = runtime._memory.get(plan.outputs), runtime._memory.get(plan.sums["a"])
    assert set(np.unique(outputs)) == {np.float32(0), np.float32(1) / np.float32(0.75)}
    assert abs((outputs > 0).mean() - 0.75) < 0.02
    assert 0.5 < (outputs[0] > 0)[outputs[1] > 0].mean() < 0.8  # two layers draw apart from each other
    np.testing.assert_array_equal(gradient, outputs.sum(0))


def test_micro_batches_add_up_as_in_torch() -> None:
    for inner in (SGD, InnerOptimizer(lr=0.1, prox=0.2), InnerOptimizer(name="adamw", lr=1e-3, weight_decay=0.3)):
        assert_as_torch(*plain(), steps_of_plain(3), inner, micro_batch=8)


def test_micro_batches_of_batch_norm_and_mixed_precision_are_refused() -> None:
    with pytest.raises(ProgramError, match="norm"):
        hard_wasm().start(SGD, micro_batch=4)
    with pytest.raises(ProgramError, match="float32"):
        hard_wasm().start(SGD, precision=Precision.MIXED)


def test_answers_are_torchs() -> None:
    program, tensors = hard_net()
    batch = batches(samples(), 9, 1)[0]
    wanted, own = TorchRuntime(program, tensors).answer(batch), WasmRuntime(program, tensors).answer(batch)
    assert own[0] == pytest.approx(wanted[0], rel=1e-5)
    np.testing.assert_allclose(own[1], wanted[1], atol=1e-5)


def test_evaluation_changes_nothing() -> None:
    runtime = hard_wasm()
    runtime.start(SGD)
    batch = batches(samples(), 8, 1)[0]
    runtime.train_step(batch, 1)
    before = (runtime.state(), runtime.optimizer_state())
    runtime.evaluate(batches(samples(), 23, 1)[0])
    after = (runtime.state(), runtime.optimizer_state())
    assert all(b[name].tobytes() == a[name].tobytes() for b, a in zip(before, after, strict=True) for name in b)


def test_what_does_not_fit_is_refused_by_name() -> None:
    runtime, tensors = hard_wasm(), hard_net()[1]
    batch = batches(samples(), 4, 1)[0]
    with pytest.raises(DatasetError, match="'x'"):
        runtime.train_step({"y": batch["y"]}, 0)
    with pytest.raises(DatasetError, match="'y'"):
        runtime.train_step({"x": batch["x"], "y": batch["y"].astype(np.int32)}, 0)
    with pytest.raises(ProgramError, match="lacks 'conv"):
        runtime.load({})
    with pytest.raises(ProgramError, match=r"out\.bias"):
        runtime.load(tensors | {"out.bias": np.zeros(4, np.float32)})
    runtime.start(SGD)
    with pytest.raises(ProgramError, match="momentum"):
        runtime.load_optimizer({}, 2)


def test_an_index_outside_its_table_is_an_error_and_not_a_write_elsewhere() -> None:
    nodes = (call("y", "index_select.default", tensor("a"), 0, Ref("field", "i")), call("loss", "sum.default", node("y")))
    graph = Graph(nodes=nodes, loss=node("loss"), outputs=node("y"))
    specs = (TensorSpec(name="a", dtype="float32", shape=(3, 2), role="parameter"),)
    program = Program(train=graph, evaluate=graph, tensors=specs, fields=(FieldSpec(name="i", dtype="int64", shape=()),), aliases={})
    with pytest.raises(ProgramError, match="index"):
        WasmRuntime(program, {"a": np.zeros((3, 2), np.float32)}).train_step({"i": np.array([0, 3])}, 0)


def test_memory_that_cannot_be_had_is_said_so() -> None:
    with pytest.raises(OutOfMemory, match="micro_batch"):
        hard_wasm()._memory.grow(1 << 33)


def test_frozen_parameters_and_constants_stay_where_they_were() -> None:
    program, tensors = exported_example("tabular_mlp")
    runtime = WasmRuntime(program, tensors)
    assert set(runtime.state()) == set(model_tensors(program))
    moved = {name: array + 1 for name, array in tensors.items()}
    runtime.load(moved, frozen=False)
    for name, array in runtime.state().items():
        np.testing.assert_array_equal(array, moved[name])
