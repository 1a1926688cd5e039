"""Runs a program on gridsched's own WebAssembly kernels: the same bits on every device, and no torch needed.

The plan does the thinking (see ``plan/``); here batches are put where it says, ``run`` is called once a step, and results are read. The
module's memory is read and written through numpy views, and nothing large is allocated from step to step.
"""

import ctypes
import functools
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import wasmtime

from gridsched.core.errors import DatasetError, OutOfMemory, ProgramError
from gridsched.core.method import InnerOptimizer, Precision
from gridsched.train.draws import draw_key
from gridsched.train.graph import Program, model_of, model_tensors
from gridsched.train.micro_batch import refuse_micro_batches
from gridsched.train.plan import Plan, plan_of
from gridsched.train.plan.format import Place
from gridsched.train.plan.layout import Layout, places_of
from gridsched.train.tensors import Array
from gridsched.train.unit import Evaluation

__all__ = ["KERNELS_FILE", "WasmRuntime", "hardware_class"]

KERNELS_FILE = Path(__file__).resolve().parents[1] / "_built" / "kernels.wasm"
"""What ``kernels/build.py`` makes; the same bytes are served to pages."""

_PAGE_BYTES = 1 << 16
_Bytes = npt.NDArray[np.uint8]


def hardware_class() -> str:
    """``wasm-`` and the first digits of the kernels' sha256: equal work gives equal bits wherever these bytes run."""
    return f"wasm-{hashlib.sha256(_kernels()).hexdigest()[:8]}"


@functools.cache
def _kernels() -> bytes:
    try:
        return KERNELS_FILE.read_bytes()
    except OSError as error:
        raise ProgramError(f"the kernels of the wasm runtime are not there ({error}); build them with: python kernels/build.py") from error


@functools.cache
def _compiled() -> tuple[wasmtime.Engine, wasmtime.Module]:
    """The module as machine code, once per process."""
    config = wasmtime.Config()
    config.wasm_relaxed_simd = False  # it would give other bits on other processors
    engine = wasmtime.Engine(config)
    return engine, wasmtime.Module(engine, _kernels())


class WasmRuntime:
    """One program in one WebAssembly memory: load a version, start an optimizer, then step, or evaluate.

    ``tensors`` holds at least the program's constants; model tensors in it are loaded, others start at zero until ``load``.
    Raises UnsupportedOperator, naming the node, for a program that the kernels do not cover.
    """

    def __init__(self, program: Program, tensors: Mapping[str, Array]) -> None:
        self.program = program
        self.hardware_class = hardware_class()
        self._memory = _Memory()
        self._plans: dict[tuple[str, int], Plan] = {}
        self.start(InnerOptimizer())
        self._copy_in({name: array for name, array in tensors.items() if name in self._tensors})

    def load(self, tensors: Mapping[str, Array], *, frozen: bool = True) -> None:
        """Put a model version's tensors in place; with ``frozen`` False, frozen parameters stay as they are.

        Names that no model tensor has (outer state) are skipped.
        """
        self._copy_in(model_of(self.program, tensors, frozen=frozen))

    def _copy_in(self, tensors: Mapping[str, Array]) -> None:
        for name, array in tensors.items():
            place = self._tensors[name]
            if place.shape != array.shape or place.dtype != array.dtype.name:
                raise ProgramError(f"tensor {name!r} should be {place.dtype} of shape {place.shape}, got {array.dtype} of {array.shape}")
            self._memory.put(place, array)

    def state(self, *, frozen: bool = True) -> dict[str, Array]:
        """A copy of all model tensors; with ``frozen`` False, without the parameters that are not trained."""
        return {name: self._memory.get(self._tensors[name]) for name in model_tensors(self.program, frozen=frozen)}

    def start(self, inner: InnerOptimizer, *, micro_batch: int = 0, precision: Precision = Precision.FLOAT32) -> None:
        """Begin with a fresh optimizer; the version loaded last is what ``inner.prox`` pulls back to.

        Batches are computed ``micro_batch`` samples at a time (0: at once); ProgramError where that would train another model, and for
        mixed precision, which these kernels do not have.
        """
        if micro_batch:
            refuse_micro_batches(self.program)
        if precision is not Precision.FLOAT32:
            raise ProgramError('the wasm runtime computes in float32 only; give the job\'s method precision = "float32", or a torch node')
        layout = Layout(self.program, inner)
        self._inner, self._micro_batch, self._step = inner, micro_batch, 0
        self._tensors, self._slots = places_of(layout.tensors), places_of(layout.slots)
        self._plans.clear()
        self._memory.forget()
        self._memory.grow(layout.end)
        for name, place in places_of(layout.anchors).items():
            self._memory.put(place, self._memory.view(self._tensors[name]))
        # torch's momentum starts from a copy of the first gradient; minus zero is the one start that adds nothing to any bit of it.
        for place in self._slots.values():
            self._memory.view(place)[...] = -0.0 if inner.name == "sgd" else 0.0

    def optimizer_state(self) -> dict[str, Array]:
        """A copy of the optimizer's tensors, empty before the first step."""
        return {name: self._memory.get(place) for name, place in self._slots.items()} if self._step else {}

    def load_optimizer(self, tensors: Mapping[str, Array], step: int) -> None:
        """Go on from ``optimizer_state()`` as it was after ``step`` steps."""
        self._step = step
        for name, place in self._slots.items() if step else ():
            array = tensors.get(name)
            if array is None or array.shape != place.shape or array.dtype.name != place.dtype:
                slot, _, parameter = name.partition("/")
                raise ProgramError(f"the continuation lacks {slot} of {parameter!r} in shape {place.shape}")
            self._memory.put(place, array)

    def train_step(self, batch: Mapping[str, Array], seed: int) -> float:
        """One optimizer step on one batch; all its random draws come from ``seed``. Returns the loss before the step."""
        parts = self._parts(batch)
        if len(parts) == 1:
            return float(self._run("train", batch, seed=seed))
        total = np.float32(0)
        for index, (part, share) in enumerate(parts):
            loss = self._run("accumulate", part, seed=draw_key("micro", seed, index), share=share, clear=index == 0)
            total += loss * np.float32(share)
        self._run("apply", parts[0][0])
        return float(total)

    def evaluate(self, batch: Mapping[str, Array]) -> Evaluation:
        """Mean loss and, where the program has a target, the number of correct answers; changes nothing."""
        loss, correct, count = 0.0, 0, 0
        for part, share in self._parts(batch):
            loss += float(self._run("evaluate", part)) * share
            plan = self._plan("evaluate", _length(part))
            if plan.correct is not None:
                correct += int(self._memory.view(Place(address=plan.correct, dtype="int32", shape=())))
                count += plan.count
        return Evaluation(loss=loss, correct=correct, count=count)

    def answer(self, batch: Mapping[str, Array]) -> tuple[float, Array]:
        """Mean loss and the model's outputs [batch, ...] in float32; changes nothing."""
        loss = float(self._run("evaluate", batch))
        outputs = self._plan("evaluate", _length(batch)).outputs
        assert outputs is not None
        return loss, self._memory.get(outputs).astype(np.float32, copy=False)

    def _parts(self, batch: Mapping[str, Array]) -> list[tuple[Mapping[str, Array], float]]:
        """The micro-batches, each with its share of the samples."""
        size, step = _length(batch), self._micro_batch
        if not 0 < step < size:
            return [(batch, 1.0)]
        cuts = [slice(start, min(start + step, size)) for start in range(0, size, step)]
        return [({name: array[cut] for name, array in batch.items()}, (cut.stop - cut.start) / size) for cut in cuts]

    def _plan(self, kind: str, size: int) -> Plan:
        plan = self._plans.get((kind, size))
        if plan is None:
            plan = self._plans[kind, size] = plan_of(self.program, kind=kind, batch=size, inner=self._inner)
            self._memory.grow(plan.memory_bytes)
        return plan

    def _run(self, kind: str, batch: Mapping[str, Array], *, seed: int = 0, share: float = 0.0, clear: bool = False) -> np.float32:
        """One call of the kernels; returns the loss."""
        plan, memory = self._plan(kind, _length(batch)), self._memory
        if kind in ("train", "apply"):
            self._step += 1
        if kind != "apply":
            self._put_fields(plan, batch)
        memory.number(plan.seed, np.int64)[...] = seed
        memory.number(plan.step, np.int32)[...] = self._step
        memory.number(plan.share, np.float32)[...] = share
        for place in plan.sums.values() if clear else ():
            memory.view(place)[...] = 0
        memory.run(plan)
        return np.float32(memory.number(plan.loss, np.float32))

    def _put_fields(self, plan: Plan, batch: Mapping[str, Array]) -> None:
        for name, place in plan.fields.items():
            array = batch.get(name)
            if array is None or array.dtype.name != place.dtype or array.shape != place.shape:
                got = "nothing" if array is None else f"{array.dtype} of shape {array.shape[1:]}"
                wanted = f"{place.dtype} of shape {place.shape[1:]}"
                raise DatasetError(f"the program needs field {name!r} as {wanted} per sample; the dataset has {got}")
            self._memory.put(place, array)


class _Memory:
    """The module's memory, and the one instance that works on it."""

    def __init__(self) -> None:
        engine, module = _compiled()
        self._store = wasmtime.Store(engine)
        exports = wasmtime.Instance(self._store, module, []).exports(self._store)
        memory, run = exports["memory"], exports["run"]
        assert isinstance(memory, wasmtime.Memory)
        assert isinstance(run, wasmtime.Func)
        self._memory, self._call = memory, run
        self._views: dict[Place, Array] = {}
        self._written: Plan | None = None
        self._bytes = self._mapped()

    def _mapped(self) -> _Bytes:
        start = self._memory.data_ptr(self._store)
        return np.ctypeslib.as_array(ctypes.cast(start, ctypes.POINTER(ctypes.c_uint8)), (self._memory.data_len(self._store),))

    def grow(self, size: int) -> None:
        """Make it ``size`` bytes at least; old views end with the old memory."""
        lacking = size - len(self._bytes)
        if lacking <= 0:
            return
        try:
            self._memory.grow(self._store, -(-lacking // _PAGE_BYTES))
        except wasmtime.WasmtimeError as error:
            needs = f"{size / 2**20:.0f} MiB"
            raise OutOfMemory(f"the wasm runtime cannot get {needs}; set micro_batch in the job's method, or use a larger node") from error
        self.forget()
        self._bytes = self._mapped()

    def forget(self) -> None:
        """Nothing of what was written or looked at before counts."""
        self._views, self._written = {}, None

    def view(self, place: Place) -> Array:
        """The tensor at a place, itself: what is written to it is written to the memory."""
        found = self._views.get(place)
        if found is None:
            dtype = np.dtype(place.dtype).newbyteorder("<")
            found = self._bytes[place.address : place.address + place.size].view(dtype).reshape(place.shape)
            self._views[place] = found
        return found

    def number(self, address: int, dtype: type[np.generic]) -> Array:
        """The number at an address, itself."""
        return self.view(Place(address=address, dtype=np.dtype(dtype).name, shape=()))

    def put(self, place: Place, array: Array) -> None:
        """Copy an array there."""
        self.view(place)[...] = array

    def get(self, place: Place) -> Array:
        """A copy of the tensor there, in the machine's own byte order."""
        return self.view(place).astype(place.dtype)

    def run(self, plan: Plan) -> None:
        """Execute a plan's code, which is put in place first if another's was there."""
        if self._written is not plan:
            self.view(Place(address=plan.code_at, dtype="int32", shape=plan.code.shape))[...] = plan.code
            self._written = plan
        try:
            failed = self._call(self._store, plan.code_at, len(plan.code))
        except wasmtime.Trap as error:
            words = str(error).strip().splitlines()[-1]
            raise ProgramError(
                f"a step on {plan.batch} samples failed in the kernels ({words}); does an index of the data fit its axis?"
            ) from error
        assert failed == 0, f"the kernels do not know the call at word {failed - 1}"


def _length(batch: Mapping[str, Array]) -> int:
    return len(next(iter(batch.values())))
