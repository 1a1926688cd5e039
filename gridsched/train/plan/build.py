"""From a program and a batch size to a plan: memory laid out, code written."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import InvalidInput, OutOfMemory, ProgramError, UnsupportedOperator
from gridsched.core.method import InnerOptimizer
from gridsched.train.graph import Program, Ref
from gridsched.train.plan.arena import aligned, place, useful
from gridsched.train.plan.format import KINDS, MAX_BYTES, Plan
from gridsched.train.plan.layout import Layout, address_of, place_of, places_of
from gridsched.train.plan.rules_cast import cast
from gridsched.train.plan.tape import Argument, Call, Tape, Value
from gridsched.train.plan.walk import walk

__all__ = ["lacks", "plan_of"]

_Gradients = Mapping[str, Value | None]
_PAGE_BYTES = 1 << 16


def plan_of(program: Program, *, kind: str, batch: int, inner: InnerOptimizer) -> Plan:
    """The plan of one step of ``program`` on ``batch`` samples; equal arguments give equal plans.

    ``kind`` is one of KINDS. Raises UnsupportedOperator naming what is not covered, ProgramError where the program does not fit
    together, OutOfMemory where it needs over 4 GiB.
    """
    if kind not in KINDS or type(batch) is not int or batch < 1:
        raise InvalidInput(f"a plan is one of {', '.join(KINDS)} for a batch of 1 or more, got {kind!r} for {batch}")
    layout = Layout(program, inner)
    if kind in ("accumulate", "apply"):
        layout.add_sums()
    layout.add_fields(program, batch)
    if kind == "evaluate":
        return _evaluation(program, batch, layout)
    if kind == "apply":
        return _application(program, batch, layout, inner)
    tape, loss, outputs, gradients = _backward(program, layout)
    if kind == "train":
        _optimize(tape, inner, layout, gradients)
    else:
        _accumulate(tape, gradients, layout)
    return _finished(tape, layout, kind, batch, loss, outputs)


def lacks(program: Program) -> str:
    """What of ``program`` the wasm runtime does not cover, in one sentence; "" if it can be trained and evaluated."""
    try:
        for kind in ("train", "evaluate"):
            plan_of(program, kind=kind, batch=2, inner=InnerOptimizer())
    except (ProgramError, OutOfMemory) as error:
        return str(error)
    return ""


def _forward(program: Program, layout: Layout, *, training: bool) -> tuple[Tape, Value, Value]:
    tape = Tape(training=training, seed=layout.seed)
    known = {Ref("tensor", name): value for name, value in layout.tensors.items()}
    known |= {Ref("field", name): value for name, value in layout.fields.items()}
    label, graph = ("train", program.train) if training else ("evaluate", program.evaluate)
    loss, outputs = walk(tape, graph, known, label)
    return tape, loss, outputs


def _backward(program: Program, layout: Layout) -> tuple[Tape, Value, Value, _Gradients]:
    tape, loss, outputs = _forward(program, layout, training=True)
    tape.backward(loss)
    return tape, loss, outputs, {name: tape.gradient(layout.tensors[name]) for name in program.names("parameter")}


def _evaluation(program: Program, batch: int, layout: Layout) -> Plan:
    tape, loss, outputs = _forward(program, layout, training=False)
    if program.target is None:
        return _finished(tape, layout, "evaluate", batch, loss, outputs)
    target = layout.fields[program.target]
    if outputs.dtype != "float32" or outputs.shape[:-1] != target.shape:
        raise UnsupportedOperator(f"outputs of {outputs.dtype} {outputs.shape} cannot be compared with a target of shape {target.shape}")
    correct = tape.new((), "int32")
    tape.call("correct", outputs, cast(tape, target, "int64"), correct, target.count, outputs.shape[-1])
    return _finished(tape, layout, "evaluate", batch, loss, outputs, correct, target.count)


def _application(program: Program, batch: int, layout: Layout, inner: InnerOptimizer) -> Plan:
    """The optimizer alone, for those parameters that a step finds gradients for."""
    gradients = _backward(program, layout)[-1]
    tape = Tape(training=True, seed=layout.seed)
    _optimize(tape, inner, layout, {name: None if gradient is None else layout.sums[name] for name, gradient in gradients.items()})
    return _finished(tape, layout, "apply", batch, layout.loss, None)


def _optimize(tape: Tape, inner: InnerOptimizer, layout: Layout, gradients: _Gradients) -> None:
    """One step of the optimizer; a parameter that the loss does not depend on stays as it is."""
    for name, gradient in gradients.items():
        if gradient is None:
            continue
        parameter, n = layout.tensors[name], gradient.count
        if inner.prox:
            tape.call("pull_back", gradient, parameter, layout.anchors[name], n, float(inner.prox))
        if inner.name == "adamw":
            slots = layout.slots[f"exp_avg/{name}"], layout.slots[f"exp_avg_sq/{name}"]
            settings = (inner.lr, inner.beta1, inner.beta2, inner.eps, inner.weight_decay)
            tape.call("adamw", parameter, gradient, *slots, layout.step, n, *map(float, settings))
        else:
            slot = layout.slots.get(f"momentum/{name}")
            tape.call("sgd", parameter, gradient, slot, n, *map(float, (inner.lr, inner.momentum, inner.weight_decay)))


def _accumulate(tape: Tape, gradients: _Gradients, layout: Layout) -> None:
    for name, gradient in gradients.items():
        if gradient is not None:
            tape.call("add_scaled", gradient, layout.sums[name], layout.share, gradient.count)


def _finished(
    tape: Tape, layout: Layout, kind: str, batch: int, loss: Value, outputs: Value | None, correct: Value | None = None, count: int = 0
) -> Plan:
    """Buffers placed, code written behind them."""
    kept = [value.buffer for value in (loss, outputs, correct) if value is not None]
    calls = useful(tape.calls, kept)
    code_at = aligned(place(calls, kept, layout.end))
    size = code_at + 4 * sum(call.kernel.words for call in calls)
    memory_bytes = -(-size // _PAGE_BYTES) * _PAGE_BYTES
    if memory_bytes > MAX_BYTES:
        raise OutOfMemory(
            f"a step on {batch} samples needs {size / 2**30:.1f} GiB, and a WebAssembly memory has 4 at most; "
            "set a smaller batch_size or micro_batch in the job's method"
        )
    return Plan(
        kind=kind,
        batch=batch,
        memory_bytes=memory_bytes,
        code=_code(calls),
        code_at=code_at,
        tensors=places_of(layout.tensors),
        slots=places_of(layout.slots),
        anchors=places_of(layout.anchors),
        fields=places_of(layout.fields),
        sums=places_of(layout.sums),
        seed=address_of(layout.seed),
        step=address_of(layout.step),
        share=address_of(layout.share),
        loss=address_of(loss),
        outputs=None if outputs is None else place_of(outputs),
        correct=None if correct is None else address_of(correct),
        count=count,
    )


def _code(calls: Sequence[Call]) -> npt.NDArray[np.int32]:
    """The calls as 32-bit words: kernel number, then addresses, whole numbers and the bits of floats and doubles."""
    words: list[int] = []
    for call in calls:
        words.append(call.kernel.number)
        for (letter, _), argument in zip(call.kernel.arguments, call.arguments, strict=True):
            words += struct.unpack("<2I", struct.pack("<d", argument)) if letter == "d" else (_word(argument),)
    return np.array(words, np.uint32).view(np.int32)


def _word(argument: Argument) -> int:
    if argument is None:
        return 0
    if isinstance(argument, Value):
        return address_of(argument)
    if isinstance(argument, float):
        return int(struct.unpack("<I", np.float32(argument).tobytes())[0])
    return argument & 0xFFFFFFFF
