"""Plans: their bytes, their memory, what they refuse, and how far they are the same for one program."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gridsched.core.errors import InvalidInput, OutOfMemory, ProgramError, UnsupportedOperator
from gridsched.core.method import InnerOptimizer
from gridsched.train.graph import FieldSpec, Graph, Node, Program, Ref, TensorSpec, Value
from gridsched.train.operators import ALLOWED
from gridsched.train.plan import Plan, lacks, plan_of, tape
from gridsched.train.plan.arena import ALIGNMENT, Life, aligned, lives, place
from gridsched.train.plan.kernels import HEAP, KERNELS
from gridsched.train.plan.rules import RULES
from gridsched.train.plan.tape import Buffer, Call
from gridsched.train.plan.tape import Value as Placed
from gridsched.train.tensors import tensors_from_bytes, tensors_to_bytes
from tests.train.builders import exported_example, hard_net
from tests.train.operator_cases import assert_agree, call, dtype, floats, node, tensor

SGD = InnerOptimizer(lr=0.1, momentum=0.9)
KINDS = ("train", "accumulate", "apply", "evaluate")


def plan(kind: str = "train", batch: int = 8, inner: InnerOptimizer = SGD) -> Plan:
    return plan_of(hard_net()[0], kind=kind, batch=batch, inner=inner)


@pytest.mark.parametrize("kind", KINDS)
def test_plans_survive_the_round_trip(kind: str) -> None:
    written = plan(kind).to_bytes()
    read = Plan.from_bytes(written)
    assert read.to_bytes() == written == plan(kind).to_bytes()
    assert read.code.tobytes() == plan(kind).code.tobytes()
    assert replace(read, code=read.code[:0]).tensors == plan(kind).tensors


def changed(**changes: object) -> bytes:
    tensors, metadata = tensors_from_bytes(plan().to_bytes())
    about = json.loads(metadata["gridsched.plan"])
    for key, value in changes.items():
        if value is ...:
            del about[key]
        else:
            about[key] = value
    return tensors_to_bytes(tensors, {"gridsched.plan": json.dumps(about)})


@pytest.mark.parametrize("changes", [
    {"format": 2}, {"kernels": "0" * 64}, {"kind": "other"}, {"kind": ["train"]}, {"batch": -1}, {"batch": 8.0}, {"batch": True},
    {"more": 1}, {"seed": ...}, {"memory_bytes": 1 << 33}, {"memory_bytes": HEAP}, {"code_at": 0}, {"loss": HEAP - 4}, {"step": 1 << 31},
    {"correct": []}, {"correct": 4}, {"outputs": [HEAP, "float32"]}, {"outputs": [HEAP, "float16", [2]]},
    {"outputs": [HEAP, "float32", [1 << 40]]}, {"outputs": [HEAP, "float32", [-1]]},
    {"tensors": []}, {"tensors": {"a": 7}}, {"fields": {"x": [16, "float32", [2]]}},
])  # fmt: skip
def test_anything_else_is_refused(changes: dict[str, object]) -> None:
    assert Plan.from_bytes(changed()).kind == "train"
    with pytest.raises(InvalidInput):
        Plan.from_bytes(changed(**changes))


def test_what_is_no_plan_file_is_refused() -> None:
    whole = plan().to_bytes()
    for data in (b"", whole[:-4], whole + b"1234", tensors_to_bytes({"code": np.zeros(2, np.int32)})):
        with pytest.raises(InvalidInput):
            Plan.from_bytes(data)
    code = {"code": np.zeros((2, 2), np.int32)}, {"code": np.zeros(2, np.int64)}
    for tensors in code:
        with pytest.raises(InvalidInput):
            Plan.from_bytes(tensors_to_bytes(tensors, tensors_from_bytes(whole)[1]))


def test_equal_programs_give_equal_plans_and_batches_share_their_tensors() -> None:
    first, other = plan(batch=8), plan(batch=5)
    assert first.to_bytes() == plan(batch=8).to_bytes() != other.to_bytes()
    for kind in KINDS:
        same = plan(kind, batch=3)
        assert (same.tensors, same.slots, same.anchors, same.seed, same.step) == (
            first.tensors, first.slots, first.anchors, first.seed, first.step,
        )  # fmt: skip
    assert plan(inner=InnerOptimizer(name="adamw")).tensors == first.tensors


def test_slots_are_those_of_torchs_optimizers() -> None:
    names = hard_net()[0].names("parameter")
    assert set(plan().slots) == {f"momentum/{name}" for name in names}
    assert set(plan(inner=InnerOptimizer(name="adamw")).slots) == {f"{slot}/{name}" for slot in ("exp_avg", "exp_avg_sq") for name in names}
    assert not plan(inner=InnerOptimizer()).slots
    assert set(plan(inner=InnerOptimizer(prox=0.1)).anchors) == set(names)


def test_only_known_kinds_and_real_batches_are_planned() -> None:
    for kind, batch in (("other", 1), ("train", 0), ("train", True)):
        with pytest.raises(InvalidInput):
            plan_of(hard_net()[0], kind=kind, batch=batch, inner=SGD)


def program_of(*nodes: Node, shape: tuple[int, ...] = (4, 3)) -> Program:
    """``nodes`` on parameter a and field x; the last but for its sum is the result."""
    graph = Graph(nodes=(*nodes, call("loss", "sum.default", node(nodes[-1].name))), loss=node("loss"), outputs=node(nodes[-1].name))
    specs = (TensorSpec(name="a", dtype="float32", shape=shape, role="parameter"),)
    return Program(train=graph, evaluate=graph, tensors=specs, fields=(FieldSpec(name="x", dtype="float32", shape=(3,)),), aliases={})


A, X = tensor("a"), Ref("field", "x")


@pytest.mark.parametrize(("item", "words"), [
    (call("y", "cumsum.default", A, 0), "this operator"),
    (call("y", "max_pool2d.default", A, (1, 1), (), 0, (2, 2)), "dilation"),
    (call("y", "scaled_dot_product_attention.default", A, A, A, enable_gqa=True), "enable_gqa"),
    (call("y", "to.dtype", A, dtype("float64")), "float64"),
    (call("y", "cat.default", (A, X), 1), "do not fit"),
    (call("y", "slice.Tensor", A, 7), "axis 7"),
    (call("y", "slice.Tensor", A, 0, 2, 2), "no elements"),
    (call("y", "permute.default", A, (0, 0)), "axes"),
])  # fmt: skip
def test_what_is_not_covered_is_refused_by_node_operator_and_argument(item: Node, words: str) -> None:
    program = program_of(item)
    with pytest.raises(UnsupportedOperator) as raised:
        plan_of(program, kind="train", batch=5, inner=SGD)
    for word in ("train graph", "node y", item.op, words):
        assert word in str(raised.value)
    assert words in lacks(program)
    assert lacks(hard_net()[0]) == ""


@pytest.mark.parametrize(("shape", "nodes", "words"), [
    ((1, 1, 4, 4), [call("y", "max_pool2d.default", A, (2, 2), (2, 2), 2)], "padding=2"),
    ((1, 1, 4, 4), [call("y", "avg_pool2d.default", A, (2, 2), (2, 2), 2)], "padding=2"),
    ((4, 3), [call("n", "arange.default", 3), call("y", "layer_norm.default", node("n"), (3,))], "int64 where layer_norm reads x"),
    ((3, 2, 2), [
        call("start", "slice.Tensor", A, 0, 0, 1),
        call("hidden", "view.default", A, (6, 2)),
        call("input", "slice.Tensor", node("hidden"), 0, 0, 3),
        call("y", "gru.input", A, node("start"), (node("input"), node("hidden")), False, 1, 0.0, True, False, False),
    ], "weights of (3, 2) and (6, 2)"),
])  # fmt: skip
def test_no_kernel_is_called_that_would_read_or_write_beyond_its_tensors(shape: tuple[int, ...], nodes: list[Node], words: str) -> None:
    with pytest.raises(UnsupportedOperator) as raised:
        plan_of(program_of(*nodes, shape=shape), kind="train", batch=5, inner=SGD)
    assert words in str(raised.value)


@pytest.mark.parametrize(
    "item", [call("y", "dropout.default", A, 0.5, True), call("y", "scaled_dot_product_attention.default", A, A, A, None, 0.5)]
)
def test_an_evaluation_that_would_draw_is_left_to_torch(item: Node) -> None:
    program = program_of(item)
    assert plan_of(program, kind="train", batch=5, inner=SGD).code.size
    assert "random draws in an evaluation" in lacks(program)


def test_a_program_that_takes_too_long_to_plan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = [call("n0", "mul.Tensor", A, A), *(call(f"n{i}", "mul.Tensor", node(f"n{i - 1}"), A) for i in range(1, 60))]
    assert lacks(program_of(*chain)) == ""
    monkeypatch.setattr(tape, "_MAX_WORDS", 1000)
    assert "longer than" in lacks(program_of(*chain))


@pytest.mark.parametrize("args", [(), (3,), (A, A, A, A, A), ("a",), ((),), (None,), (node("x1"),)])
@pytest.mark.parametrize(
    "op", ["relu.default", "linear.default", "conv2d.default", "sum.dim_IntList", "gru.input", "view.default", "cat.default"]
)
def test_arguments_that_make_no_sense_are_errors_of_the_program(op: str, args: tuple[Value, ...]) -> None:
    program = program_of(call("x1", "sym_size.int", A, 0), call("y", op, *args))
    with pytest.raises(ProgramError, match="node y"):
        plan_of(program, kind="train", batch=4, inner=SGD)


def test_a_loss_of_no_parameter_and_one_that_is_no_number_are_refused() -> None:
    with pytest.raises(ProgramError, match="nothing to train"):
        plan_of(program_of(call("y", "relu.default", X)), kind="train", batch=4, inner=SGD)
    whole = program_of(call("y", "relu.default", A))
    wide = Graph(nodes=whole.train.nodes, loss=node("y"), outputs=node("y"))
    with pytest.raises(ProgramError, match="one element"):
        plan_of(replace(whole, train=wide), kind="train", batch=4, inner=SGD)


def test_dtypes_without_kernels_are_refused() -> None:
    program = program_of(call("y", "relu.default", A))
    specs = (*program.tensors, TensorSpec(name="b", dtype="float64", shape=(), role="buffer"))
    assert "float64" in lacks(replace(program, tensors=specs))


def test_more_than_four_gibibytes_are_refused_while_planning() -> None:
    with pytest.raises(OutOfMemory, match="micro_batch"):
        plan_of(program_of(call("y", "expand.default", A, (1 << 30, 4, 3))), kind="train", batch=1, inner=SGD)
    wide = [call(f"y{at}", "exp.default", tensor("a") if at == 0 else node(f"y{at - 1}")) for at in range(9)]
    with pytest.raises(OutOfMemory, match="GiB"):
        plan_of(program_of(*wide, shape=(1 << 28,)), kind="train", batch=1, inner=InnerOptimizer())


def test_writes_in_place_are_seen_under_every_name() -> None:
    nodes = [call("m", "mul.Tensor", A, 2), call("v", "view.default", node("m"), (-1,)), call("i", "relu_.default", node("m"))]
    arrays = {"a": floats(4, 3)}
    for ending in (
        call("y", "mul.Tensor", node("m"), node("m")),
        call("y", "mul.Tensor", node("i"), node("m")),
        call("y", "exp.default", node("v")),
    ):
        assert_agree([*nodes, ending], arrays)


@pytest.mark.parametrize(
    "part", [call("p", "select.int", node("m"), 0, 1), call("p", "t.default", node("m")), call("p", "slice.Tensor", node("m"), 1, 1)]
)
def test_writes_through_a_part_that_is_a_copy_here_are_refused(part: Node) -> None:
    first = call("m", "mul.Tensor", A, 2)
    through = program_of(first, part, call("w", "relu_.default", node("p")), call("y", "exp.default", node("m")))
    under = program_of(first, part, call("w", "relu_.default", node("m")), call("y", "exp.default", node("p")))
    for program in (through, under):
        with pytest.raises(UnsupportedOperator, match="part"):
            plan_of(program, kind="train", batch=2, inner=SGD)


def test_every_rule_is_for_an_operator_that_programs_may_use() -> None:
    assert set(RULES) <= set(ALLOWED)


# The arena.

ADD, BINARY = KERNELS["add"], KERNELS["binary"]  # the first may write over what it reads, the second may not


@st.composite
def tapes(draw: st.DrawFn) -> tuple[list[Call], list[Buffer]]:
    """Calls that each read two buffers of before and write a new one; some buffers are kept."""
    buffers = [Buffer(draw(st.integers(1, 5)) * 40) for _ in range(3)]
    calls: list[Call] = []
    for _ in range(draw(st.integers(1, 25))):
        a, b = (buffers[draw(st.integers(0, len(buffers) - 1))] for _ in range(2))
        y = Buffer(draw(st.sampled_from([a.size, b.size, 40, 200])))
        calls.append(Call(draw(st.sampled_from([ADD, BINARY])), (Placed(a, ()), Placed(b, ()), Placed(y, ()), 1)))
        buffers.append(y)
    return calls, draw(st.lists(st.sampled_from(buffers), max_size=3))


def contents(calls: list[Call], kept: list[Buffer]) -> list[int]:
    """What the kept buffers hold after calls that mark every byte they write, each call's marks by its number."""
    memory: dict[int, object] = {}

    def read(buffer: Buffer) -> list[object]:
        assert buffer.address is not None
        return [memory.get(buffer.address + at, ("first", at)) for at in range(0, buffer.size, 40)]

    for index, item in enumerate(calls):
        a, b, y = (value.buffer for value in item.arguments[:3] if isinstance(value, Placed))
        found = hash((index, tuple(read(a)), tuple(read(b))))
        assert y.address is not None
        for at in range(0, y.size, 40):
            memory[y.address + at] = hash((found, at))
    return [hash(tuple(read(buffer))) for buffer in kept]


@settings(max_examples=150, deadline=None)
@given(drawn=tapes())
def test_buffers_alive_at_once_never_overlap_and_results_are_as_if_each_had_its_own_place(drawn: tuple[list[Call], list[Buffer]]) -> None:
    calls, kept = drawn
    written = {value.buffer for item in calls for value in item.arguments[2:3] if isinstance(value, Placed)}
    kept = [buffer for buffer in kept if buffer in written]
    own = dict(lives(calls, kept))
    start = HEAP
    for buffer in own:  # first, a place for each
        buffer.address, start = start, start + buffer.size
    apart = contents(calls, kept)
    first_reads = {buffer for buffer in own if buffer not in written}
    for buffer in own:
        buffer.address = None if buffer not in first_reads else buffer.address
    start = aligned(start)
    end = place(calls, kept, start)
    assert contents(calls, kept) == apart
    assert all(buffer.address is not None and buffer.address + buffer.size <= max(end, start) for buffer in own)
    moved = [buffer for buffer in own if buffer not in first_reads]
    assert all(buffer.address is not None and buffer.address % ALIGNMENT == 0 for buffer in moved)
    for one in moved:
        for other in moved:
            lasting = own[one].first <= own[other].last and own[other].first <= own[one].last
            assert one is other or not lasting or apart_from(one, other) or written_over(calls, own, one, other)


def apart_from(one: Buffer, other: Buffer) -> bool:
    assert one.address is not None
    assert other.address is not None
    return one.address + one.size <= other.address or other.address + other.size <= one.address


def written_over(calls: list[Call], own: dict[Buffer, Life], one: Buffer, other: Buffer) -> bool:
    """One is written in the other's place by the very call that reads that last, and may."""
    first, second = sorted((one, other), key=lambda buffer: own[buffer].first)
    touching = own[first].last == own[second].first and calls[own[second].first].kernel is ADD
    return touching and first.address == second.address and first.size == second.size


def test_what_nobody_reads_is_not_computed() -> None:
    unread = call("unread", "exp.default", A), call("more", "mul.Tensor", node("unread"), 2)
    with_it, without = program_of(*unread, call("y", "relu.default", A)), program_of(call("y", "relu.default", A))
    plans = [plan_of(program, kind="train", batch=2, inner=SGD) for program in (with_it, without)]
    assert plans[0].code.tobytes() == plans[1].code.tobytes()


def test_the_memory_of_a_step_is_far_below_the_sum_of_its_buffers() -> None:
    program = exported_example("transformer")[0]
    plans = {kind: plan_of(program, kind=kind, batch=32, inner=SGD) for kind in ("train", "evaluate")}
    assert plans["evaluate"].memory_bytes - HEAP < (plans["train"].memory_bytes - HEAP) / 3
