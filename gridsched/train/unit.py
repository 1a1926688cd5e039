"""One work unit, step by step.

A unit is a pure function of its spec: which samples come when, and every random draw, follow from ``(seed, epoch, position,
step)``; who runs it, when, and how often it is interrupted leave no trace in its result. Between any two steps
it can be saved as a ``Continuation`` and continued by anyone of the same hardware class to the same bits.
"""

import json
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import DatasetError, InvalidInput
from gridsched.core.method import InnerOptimizer, Precision
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.train.dataset import Dataset, order, pass_order, stretch_order
from gridsched.train.digests import DigestTrail
from gridsched.train.draws import draw_key
from gridsched.train.tensors import Array, strict_json, tensor_chunks, tensors_from_bytes

__all__ = ["READ_AHEAD", "Continuation", "Evaluation", "Metrics", "Outcome", "Runtime", "UnitRun", "run", "summary"]

# Batches gathered from the shards at once; costs their memory and saves a quarter of a millisecond per step.
READ_AHEAD = 8
_MODEL, _OPTIMIZER = "model/", "optimizer/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One batch evaluated: mean ``loss``, and ``correct`` of ``count`` answers (0 of 0 where nothing is classified)."""

    loss: float
    correct: int
    count: int


class Runtime(Protocol):
    """What a unit asks of whatever runs the program."""

    hardware_class: str

    def load(self, tensors: Mapping[str, Array], *, frozen: bool = True) -> None:
        """Put a version's tensors in place; with ``frozen`` False, frozen parameters stay as they are."""

    def start(self, inner: InnerOptimizer, *, micro_batch: int = 0, precision: Precision = Precision.FLOAT32) -> None:
        """Begin with a fresh optimizer, which pulls back to what is loaded now where ``inner.prox`` says so."""

    def train_step(self, batch: Mapping[str, Array], seed: int) -> float:
        """One step; all random draws come from ``seed``. Returns the loss before it."""
        ...

    def evaluate(self, batch: Mapping[str, Array]) -> Evaluation:
        """Evaluate one batch, changing nothing."""
        ...

    def state(self, *, frozen: bool = True) -> dict[str, Array]:
        """A copy of the model tensors; with ``frozen`` False, without the parameters that are not trained."""
        ...

    def optimizer_state(self) -> dict[str, Array]:
        """A copy of the optimizer's tensors."""
        ...

    def load_optimizer(self, tensors: Mapping[str, Array], step: int) -> None:
        """Go on from ``optimizer_state()`` as it was after ``step`` steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Sums over the steps so far. ``samples`` counts every visit; the mean loss is ``loss``."""

    loss_sum: float = 0.0
    samples: int = 0
    correct: int = 0
    count: int = 0

    @property
    def loss(self) -> float:
        """Mean loss per sample; 0 before the first step."""
        return self.loss_sum / self.samples if self.samples else 0.0

    def plus(self, *, loss: float, samples: int, correct: int = 0, count: int = 0) -> "Metrics":
        """With one more batch of ``samples`` and mean ``loss``."""
        return Metrics(
            loss_sum=self.loss_sum + loss * samples,
            samples=self.samples + samples,
            correct=self.correct + correct,
            count=self.count + count,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """The saved middle of a unit, after ``step`` steps.

    ``tensors`` are the model's under ``model/`` and the optimizer's under ``optimizer/`` (none for evaluation); frozen parameters
    are left out, for whoever goes on has them with the version.
    ``hardware_class`` is where it was made: elsewhere the unit ends within a tolerance, not in the same bits.
    ``digests`` are the parameter digests so far, one per ``digest_every`` steps.
    """

    unit_id: str
    step: int
    hardware_class: str
    tensors: Mapping[str, Array]
    metrics: Metrics
    digests: tuple[str, ...] = ()

    def chunks(self) -> Iterator[bytes | memoryview]:
        """One safetensors file piece by piece, without another copy; equal continuations give equal bytes."""
        about = {
            "unit_id": self.unit_id,
            "step": self.step,
            "hardware_class": self.hardware_class,
            "metrics": asdict(self.metrics) | {"loss_sum": self.metrics.loss_sum.hex()},  # exact, and a loss may be NaN
            "digests": list(self.digests),
        }
        return tensor_chunks(self.tensors, {"gridsched.continuation": json.dumps(about, sort_keys=True)})

    def to_bytes(self) -> bytes:
        """The whole file."""
        return b"".join(self.chunks())

    @classmethod
    def from_bytes(cls, data: bytes | memoryview) -> "Continuation":
        """Read what ``chunks`` wrote; InvalidInput for everything else."""
        tensors, metadata = tensors_from_bytes(data)
        try:
            about = strict_json(metadata["gridsched.continuation"])
            sums = about.pop("metrics")
            metrics = Metrics(**sums | {"loss_sum": float.fromhex(sums["loss_sum"])})
            return cls(tensors=tensors, metrics=metrics, digests=tuple(about.pop("digests")), **about)
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise InvalidInput(f"this is not a continuation: {error}") from error

    def __post_init__(self) -> None:
        whole = (self.step, self.metrics.samples, self.metrics.correct, self.metrics.count)
        if not all(type(number) is int and number >= 0 for number in whole):
            raise InvalidInput("a continuation counts in whole numbers from 0")
        if not all(isinstance(text, str) for text in (self.unit_id, self.hardware_class, *self.digests)):
            raise InvalidInput("a continuation names its unit, hardware class and digests in text")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: ``finished`` with a ``delta`` (empty for evaluation), or paused with a ``continuation``."""

    finished: bool
    metrics: Metrics
    digests: tuple[str, ...]
    steps_done: int
    delta: Mapping[str, Array] = field(default_factory=dict)
    continuation: Continuation | None = None


class UnitRun:
    """A unit in the making: ``step()`` until ``done``; ``save()`` and ``load()`` between any two steps.

    ``base`` holds the tensors of the version the unit starts from; ``buffers`` are those that are its running statistics, by name.
    """

    def __init__(
        self, spec: UnitSpec, runtime: Runtime, dataset: Dataset, base: Mapping[str, Array], *, buffers: Collection[str] = ()
    ) -> None:
        _check_range(spec, dataset)
        self.spec = spec
        self.buffers = frozenset(buffers)
        self.position = 0
        self.metrics = Metrics()
        self._trail = DigestTrail()
        self._runtime = runtime
        self._dataset = dataset
        self._base = base
        self._samples = _samples(spec, dataset)
        self._batches_per_pass = spec.steps // spec.passes
        self._read: tuple[tuple[int, int], dict[str, Array]] = ((-1, -1), {})
        self._begin()

    def _begin(self) -> None:
        self._runtime.load(self._base)
        self._runtime.start(self.spec.inner, micro_batch=self.spec.micro_batch, precision=self.spec.precision)

    @property
    def done(self) -> bool:
        """Whether the last step has been made."""
        return self.position >= self.spec.steps

    @property
    def digests(self) -> tuple[str, ...]:
        """The parameter digests so far, one per ``digest_every`` steps."""
        return self._trail.all

    def step(self) -> None:
        """Train on, or evaluate, the next batch."""
        assert not self.done
        batch, size = self._next_batch()
        if self.spec.kind is UnitKind.TRAIN:
            self.metrics = self.metrics.plus(loss=self._runtime.train_step(batch, self._step_seed()), samples=size)
        else:
            found = self._runtime.evaluate(batch)
            self.metrics = self.metrics.plus(loss=found.loss, samples=size, correct=found.correct, count=found.count)
        self.position += 1
        if self.spec.kind is UnitKind.TRAIN and self.position % self.spec.digest_every == 0:
            self._trail.add(self._runtime.state())

    def _next_batch(self) -> tuple[dict[str, Array], int]:
        which, index = divmod(self.position, self._batches_per_pass)
        group, inside = divmod(index, READ_AHEAD)
        if self._read[0] != (which, group):
            self._read = (which, group), self._read_group(which, group)
        size = self.spec.batch_size
        batch = {name: array[inside * size : (inside + 1) * size] for name, array in self._read[1].items()}
        return batch, len(next(iter(batch.values())))

    def _read_group(self, which: int, group: int) -> dict[str, Array]:
        spec, length = self.spec, READ_AHEAD * self.spec.batch_size
        chosen = pass_order(spec.seed, spec.epoch, spec.first + spec.start, which, spec.samples)[group * length : (group + 1) * length]
        return self._dataset.batch(self._samples[chosen])

    def _step_seed(self) -> int:
        return draw_key("step", self.spec.seed, self.spec.epoch, self.spec.first + self.spec.start, self.position)

    def save(self) -> Continuation:
        """Everything needed to go on from here; the arrays are copies, so training may go on at once."""
        tensors: dict[str, Array] = {}
        if self.spec.kind is UnitKind.TRAIN:
            tensors |= {_MODEL + name: array for name, array in self._runtime.state(frozen=False).items()}
            tensors |= {_OPTIMIZER + name: array for name, array in self._runtime.optimizer_state().items()}
        return Continuation(
            unit_id=self.spec.unit_id,
            step=self.position,
            hardware_class=self._runtime.hardware_class,
            tensors=tensors,
            metrics=self.metrics,
            digests=self.digests,
        )

    def load(self, saved: Continuation) -> None:
        """Go on where ``saved`` was made. InvalidInput if it belongs to another unit or does not fit; the unit is then at its beginning."""
        if saved.unit_id != self.spec.unit_id or not 0 <= saved.step <= self.spec.steps:
            raise InvalidInput(f"a continuation of unit {saved.unit_id} at step {saved.step} does not fit unit {self.spec.unit_id}")
        if self.spec.kind is UnitKind.TRAIN:
            try:
                self._runtime.load(_under(_MODEL, saved.tensors), frozen=False)
                self._runtime.load_optimizer(_under(_OPTIMIZER, saved.tensors), saved.step)
            except InvalidInput:
                self._begin()
                raise
        self.position, self.metrics, self._trail = saved.step, saved.metrics, DigestTrail(saved.digests)

    def delta(self) -> dict[str, Array]:
        """What the unit changed, by name: end minus start. Boolean buffers cannot change and are left out."""
        if self.spec.kind is UnitKind.EVALUATE:
            return {}
        return {name: array - self._base[name] for name, array in self._runtime.state().items() if array.dtype != np.bool_}


def run(
    spec: UnitSpec,
    runtime: Runtime,
    dataset: Dataset,
    base: Mapping[str, Array],
    *,
    may_go_on: Callable[[], bool] = lambda: True,
    continuation: Continuation | None = None,
    on_continuation: Callable[[Continuation], None] = lambda _: None,
    save_every: int = 0,
    on_step: Callable[[UnitRun], None] = lambda _: None,
) -> Outcome:
    """Run a unit from its start, or from ``continuation``, until it is finished or ``may_go_on()`` says no.

    ``may_go_on`` is asked before every step, so make it a read of shared memory. Every ``save_every`` steps (0: never) and
    when it pauses, the unit is saved through ``on_continuation``. ``on_step`` is for progress.
    """
    unit = UnitRun(spec, runtime, dataset, base)
    if continuation is not None:
        unit.load(continuation)
    first = unit.position
    while not unit.done:
        if not may_go_on():
            return _paused(unit, first, on_continuation)
        unit.step()
        on_step(unit)
        if save_every and unit.position % save_every == 0 and not unit.done:
            on_continuation(unit.save())
    return Outcome(finished=True, metrics=unit.metrics, digests=unit.digests, steps_done=unit.position - first, delta=unit.delta())


def _paused(unit: UnitRun, first: int, on_continuation: Callable[[Continuation], None]) -> Outcome:
    saved = unit.save()
    on_continuation(saved)
    steps = unit.position - first
    return Outcome(finished=False, metrics=unit.metrics, digests=unit.digests, steps_done=steps, continuation=saved)


def summary(metrics: Metrics) -> dict[str, float]:
    """What a finished unit tells of its metrics: ``loss`` is the mean; ``correct`` of ``count`` only where the program classifies.

    A loss that is NaN or infinite is left out, for JSON has no word for it.
    """
    found = {"samples": float(metrics.samples)} | ({"loss": metrics.loss} if math.isfinite(metrics.loss) else {})
    return found | {"correct": float(metrics.correct), "count": float(metrics.count)} if metrics.count else found


def _samples(spec: UnitSpec, dataset: Dataset) -> npt.NDArray[np.int64]:
    if spec.kind is UnitKind.EVALUATE:
        return np.arange(spec.start, spec.stop, dtype=np.int64)
    if spec.of or spec.bag >= 0:
        whole = stretch_order(spec.seed, spec.epoch, first=spec.first, of=spec.of or dataset.samples, bag=spec.bag)
    else:
        whole = order(spec.seed, spec.epoch, dataset.samples)
    return whole[spec.start : spec.stop]


def _check_range(spec: UnitSpec, dataset: Dataset) -> None:
    of = spec.of or dataset.samples
    if not (0 <= spec.start < spec.stop <= of and 0 <= spec.first <= dataset.samples - of):
        where = f"of the {of} samples from {spec.first}" if spec.of else "of its samples"
        raise DatasetError(
            f"unit {spec.unit_id} asks for positions {spec.start} to {spec.stop} {where}; dataset {dataset.manifest.name} "
            f"has {dataset.samples} samples"
        )


def _under(prefix: str, tensors: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(prefix): array for name, array in tensors.items() if name.startswith(prefix)}
