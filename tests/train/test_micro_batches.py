"""A batch computed piece by piece, in bfloat16, or held to its version: what stays the same, and what is refused."""

import dataclasses
import functools
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from gridsched.core.errors import OutOfMemory, ProgramError
from gridsched.core.method import InnerOptimizer, Method, Precision
from gridsched.core.work import UnitKind
from gridsched.train.export import call_module, export, unit_bytes
from gridsched.train.graph import Program
from gridsched.train.micro_batch import refuse_micro_batches
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import run
from tests.train.builders import cross_entropy, dataset_of, exported_example, hard_net, outcome_bits, samples, unit_spec

SGD = InnerOptimizer(lr=0.05, momentum=0.9)
ADAMW = InnerOptimizer(name="adamw", lr=0.01, weight_decay=0.01)
BATCH = {"x": torch.zeros(2, 1, 4, 4), "y": torch.zeros(2, dtype=torch.int64)}
RELATIVE = 1e-5
"""How far a batch in pieces may be from the whole one, in the L2 norm of ten steps' change: sums of float32 in another order."""


class Perceptron(nn.Module):
    """[batch, 1, 4, 4] -> [batch, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 24)
        self.out = nn.Linear(24, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(functional.relu(self.hidden(x.flatten(1))))
        return outputs


class Convolution(nn.Module):
    """[batch, 1, 4, 4] -> [batch, 3], normalised sample by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.out = nn.Linear(128, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(functional.relu(self.norm(self.conv(x))).flatten(1))
        return outputs


class Bare(nn.Module):
    """``norm`` between two layers."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.out = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(self.norm(x).flatten(1))
        return outputs


def exported(module: nn.Module) -> tuple[Program, dict[str, Array]]:
    return export(module, BATCH, cross_entropy)


@functools.cache
def made(kind: type[nn.Module]) -> tuple[Program, dict[str, Array]]:
    """``kind``, exported; tracing takes seconds, so once."""
    torch.manual_seed(1)
    return exported(kind())


def trained(kind: type[nn.Module], inner: InnerOptimizer, *, batch: int = 20, **settings: Any) -> tuple[dict[str, Array], list[float]]:
    """Change of every parameter after ten steps, and the losses."""
    program, tensors = made(kind)  # type: ignore[arg-type]  # a class can be hashed
    runtime = TorchRuntime(program, tensors)
    runtime.load(tensors)
    runtime.start(inner, **settings)
    fields = dataset_of(samples())
    losses = [runtime.train_step(fields.batch((np.arange(batch) + 7 * step) % 70), step) for step in range(10)]
    return {name: array - tensors[name] for name, array in runtime.state().items()}, losses


def distance(one: Mapping[str, Array], other: Mapping[str, Array]) -> float:
    """Relative to the length of ``other``."""
    flat = [np.concatenate([arrays[name].ravel() for name in sorted(other)]) for arrays in (one, other)]
    return float(np.linalg.norm(flat[0] - flat[1]) / np.linalg.norm(flat[1]))


@pytest.mark.parametrize("micro_batch", [1, 7, 10, 19])
@pytest.mark.parametrize("inner", [SGD, ADAMW], ids=lambda inner: inner.name)
@pytest.mark.parametrize("kind", [Perceptron, Convolution])
def test_a_batch_in_pieces_trains_the_same_model(kind: type[nn.Module], inner: InnerOptimizer, micro_batch: int) -> None:
    whole, losses = trained(kind, inner)
    pieces, seen = trained(kind, inner, micro_batch=micro_batch)
    assert 0 < distance(pieces, whole) < RELATIVE
    assert seen == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("micro_batch", [20, 64])
def test_pieces_as_large_as_the_batch_are_the_batch(micro_batch: int) -> None:
    whole, losses = trained(Perceptron, SGD)
    pieces, seen = trained(Perceptron, SGD, micro_batch=micro_batch)
    assert (distance(pieces, whole), seen) == (0.0, losses)


def test_every_piece_draws_for_itself_and_always_the_same() -> None:
    class Dropping(Perceptron):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(functional.dropout(torch.ones_like(x), 0.5, self.training))

    _, losses = trained(Dropping, InnerOptimizer(lr=1e-30), batch=2, micro_batch=1)
    _, again = trained(Dropping, InnerOptimizer(lr=1e-30), batch=2, micro_batch=1)
    program, tensors = made(Dropping)
    runtime = TorchRuntime(program, tensors)
    batch = dataset_of(samples()).batch(np.array([3, 3]))  # the same sample twice: only the draws can differ
    runtime.start(SGD, micro_batch=1)
    both = runtime.train_step(batch, 5)
    runtime.load(tensors)
    runtime.start(SGD)
    alone = runtime.train_step({name: array[:1] for name, array in batch.items()}, 5)
    assert losses == again
    assert both != alone


def test_an_evaluation_in_pieces_counts_the_same_answers() -> None:
    spec = unit_spec(kind=UnitKind.EVALUATE, start=0, stop=70, passes=1, batch_size=20)
    program, tensors = hard_net()  # batch normalisation is no obstacle where nothing is trained
    whole = run(spec, TorchRuntime(program, tensors), dataset_of(samples()), tensors).metrics
    program, tensors = made(Convolution)
    runtime = TorchRuntime(program, tensors)
    batch = dataset_of(samples()).batch(np.arange(33))
    found = runtime.evaluate(batch)
    runtime.start(SGD, micro_batch=8)
    pieces = runtime.evaluate(batch)
    assert (pieces.correct, pieces.count) == (found.correct, found.count)
    assert pieces.loss == pytest.approx(found.loss, rel=1e-5)
    assert whole.count == 70


@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(1), nn.BatchNorm2d(1, track_running_stats=False), nn.InstanceNorm2d(1, track_running_stats=True)]
)
def test_statistics_of_the_whole_batch_are_refused_by_name(norm: nn.Module) -> None:
    program, tensors = exported(Bare(norm))
    with pytest.raises(ProgramError, match=r"cannot be trained with micro_batch: [\w.]+ \(node \w+, aten\.\w+.*GroupNorm"):
        TorchRuntime(program, tensors).start(SGD, micro_batch=4)


@pytest.mark.parametrize("norm", [nn.GroupNorm(1, 1), nn.LayerNorm(4), nn.InstanceNorm2d(1)])
def test_statistics_of_one_sample_are_not(norm: nn.Module) -> None:
    refuse_micro_batches(exported(Bare(norm))[0])


def test_a_counter_in_a_buffer_is_refused_too() -> None:
    class Counting(Perceptron):
        seen: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.training:
                self.seen.add_(1)
            return super().forward(x)

    with pytest.raises(ProgramError, match="micro_batch"):
        refuse_micro_batches(exported(Counting())[0])


_PEAK = """
import sys
from pathlib import Path
import numpy as np, torch
from torch import nn
from gridsched.core.method import InnerOptimizer
from gridsched.train.export import export
from gridsched.train.torch_runtime import TorchRuntime
layers = [layer for i in range(6) for layer in (nn.Conv2d(8 if i else 1, 8, 3, padding=1), nn.ReLU())]
net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 32 * 32, 2))
example = {"input": torch.zeros(2, 1, 32, 32), "y": torch.zeros(2, dtype=torch.int64)}
program, tensors = export(net, example, lambda out, batch: nn.functional.cross_entropy(out, batch["y"]))
runtime = TorchRuntime(program, tensors)
runtime.start(InnerOptimizer(), micro_batch=int(sys.argv[1]))
batch = {"input": np.zeros((512, 1, 32, 32), np.float32), "y": np.zeros(512, np.int64)}
def peak_kib():  # ru_maxrss would begin at the size of the process that started this one
    return int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
before = peak_kib()
runtime.train_step(batch, 0)
print(peak_kib() - before)
"""


@pytest.mark.long
def test_the_peak_of_memory_falls_with_the_pieces() -> None:
    def grown_kib(micro_batch: int) -> int:
        found = subprocess.run([sys.executable, "-c", _PEAK, str(micro_batch)], capture_output=True, text=True, check=True)
        return int(found.stdout)

    whole = grown_kib(0)
    assert whole > 0
    assert grown_kib(32) < whole / 4


# Mixed precision.


def test_mixed_precision_computes_in_bfloat16_keeps_float32_and_stays_near() -> None:
    seen: list[torch.dtype] = []

    class Watched(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if func in (torch.ops.aten.addmm.default, torch.ops.aten.convolution.default, torch.ops.aten.mm.default):
                seen.append(out.dtype)
            return out

    with Watched():  # type: ignore[no-untyped-call]
        mixed, losses = trained(Convolution, SGD, precision=Precision.MIXED)
    exact, expected = trained(Convolution, SGD)
    assert set(seen) == {torch.bfloat16}
    assert {array.dtype for array in mixed.values()} == {np.dtype(np.float32)}
    assert 0 < distance(mixed, exact) < 0.05
    assert losses == pytest.approx(expected, rel=0.02)
    assert losses != expected


@pytest.mark.parametrize("name", ["image_cnn", "text_gru"])
def test_the_examples_train_in_mixed_precision(name: str) -> None:
    program, tensors = exported_example(name)
    runtime = TorchRuntime(program, tensors)
    runtime.load(tensors)
    runtime.start(ADAMW, precision=Precision.MIXED)
    shapes = {item.name: (np.zeros((4, *item.shape), item.dtype)) for item in program.fields}
    losses = [runtime.train_step(shapes, step) for step in range(20)]
    assert losses[-1] < losses[0]
    assert runtime.evaluate(shapes).loss < losses[0]


def test_what_cannot_be_mixed_is_refused_in_words_and_the_process_lives() -> None:
    program, tensors = exported_example("graph_gcn")  # index_add takes no two dtypes, in eager PyTorch neither
    runtime = TorchRuntime(program, tensors)
    runtime.load(tensors)
    runtime.start(SGD, precision=Precision.MIXED)
    batch = {"member": np.zeros(3, np.int64), "y": np.zeros(3, np.int64)}
    with pytest.raises(ProgramError, match=r"a training step on 3 samples failed in torch .*scalar type"):
        runtime.train_step(batch, 0)
    runtime.start(SGD)
    assert runtime.train_step(batch, 0) > 0


def test_the_next_unit_is_not_mixed_because_the_last_one_was() -> None:
    spec = unit_spec(passes=1)
    program, tensors = made(Convolution)
    runtime, fields = TorchRuntime(program, tensors), dataset_of(samples())
    plain = outcome_bits(run(spec, runtime, fields, tensors))
    mixed = outcome_bits(run(unit_spec(passes=1, precision=Precision.MIXED, micro_batch=3), runtime, fields, tensors))
    assert outcome_bits(run(spec, runtime, fields, tensors)) == plain != mixed


# FedProx.


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_prox_is_the_gradient_of_half_the_squared_distance_from_the_version(name: str) -> None:
    inner = InnerOptimizer(name=name, lr=0.05, prox=0.7)
    torch.manual_seed(1)
    module = Perceptron()
    anchors = [parameter.detach().clone() for parameter in module.parameters()]
    kind = torch.optim.SGD if name == "sgd" else torch.optim.AdamW
    optimizer = kind(module.parameters(), lr=0.05, weight_decay=0.0)
    found, _ = trained(Perceptron, inner)
    fields = dataset_of(samples())
    for step in range(10):
        batch = {key: torch.tensor(array) for key, array in fields.batch((np.arange(20) + 7 * step) % 70).items()}
        optimizer.zero_grad()
        pull = sum(((own - anchor) ** 2).sum() for own, anchor in zip(module.parameters(), anchors, strict=True))
        (cross_entropy(call_module(module, batch), batch) + 0.7 / 2 * pull).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    expected = {key: (own.detach() - anchor).numpy() for (key, own), anchor in zip(module.named_parameters(), anchors, strict=True)}
    assert distance(found, expected) < 1e-4


def test_prox_keeps_a_unit_nearer_to_its_version() -> None:
    far, near = (trained(Perceptron, InnerOptimizer(lr=0.1, prox=prox))[0] for prox in (0.0, 5.0))
    assert sum(np.square(array).sum() for array in near.values()) < 0.5 * sum(np.square(array).sum() for array in far.values())


# Memory.


class Greedy(Perceptron):
    """Asks for some thirty tebibytes where the batch is of seventy samples."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size = x.shape[0]
        return super().forward(x) + x.flatten(1)[:1, :1].repeat(size * size * size, size * size * size * size).mean()


def test_lack_of_memory_is_told_as_such_and_the_process_lives() -> None:
    program, tensors = made(Greedy)
    runtime = TorchRuntime(program, tensors)
    batch = samples()
    for asked in (lambda: runtime.train_step(batch, 0), lambda: runtime.evaluate(batch)):
        with pytest.raises(OutOfMemory, match=r"o[fn] 70 samples needs more memory than there is .*micro_batch"):
            asked()
    runtime.start(SGD, micro_batch=2)
    assert runtime.train_step(batch, 0) > 0, "in pieces it fits"


def test_a_program_that_does_not_fit_is_told_as_such() -> None:
    program, _ = made(Perceptron)
    spec = dataclasses.replace(program.tensors[0], shape=(1 << 20, 1 << 20))
    with pytest.raises(OutOfMemory, match="holding this program"):
        TorchRuntime(dataclasses.replace(program, tensors=(spec, *program.tensors[1:])), {})


# At submission, where the first step is tried.


def test_a_unit_s_memory_is_that_of_its_pieces() -> None:
    program, tensors = made(Convolution)
    batch = {name: np.resize(array, (2048, *array.shape[1:])) for name, array in samples().items()}
    whole, pieces = (unit_bytes(program, tensors, batch, Method(batch_size=2048, micro_batch=size)) for size in (0, 64))
    assert pieces < whole / 2


@pytest.mark.parametrize(
    ("name", "method", "why"),
    [
        ("image_cnn", Method(micro_batch=2), "norm1.num_batches_tracked .*GroupNorm"),
        ("graph_gcn", Method(precision=Precision.MIXED), "scalar type"),
    ],
)
def test_what_no_node_could_train_is_refused_before_it_is_submitted(name: str, method: Method, why: str) -> None:
    program, tensors = exported_example(name)
    batch = {item.name: np.zeros((4, *item.shape), item.dtype) for item in program.fields}
    with pytest.raises(ProgramError, match=why):
        unit_bytes(program, tensors, batch, method)
