"""Whatever a unit is interrupted by, however often and wherever it goes on, it ends in the bits of one that ran through."""

import functools
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gridsched.core.method import InnerOptimizer, Precision
from gridsched.core.work import UnitSpec
from gridsched.node.pipe import Done, Event, Gate, Progress, Train, event, line
from gridsched.node.state import Home
from gridsched.train.digests import state_digest
from gridsched.train.export import export
from gridsched.train.program import Program, from_bytes, to_bytes
from gridsched.train.tensors import Array
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import Continuation, Outcome, UnitRun, run
from tests.node.builders import peaceful_update, unit
from tests.node.fake_daemon import FakeDaemon
from tests.train.builders import cross_entropy, dataset_of, hard_net, outcome_bits, samples, unit_spec

ROOT = Path(__file__).resolve().parents[2]
SGD = InnerOptimizer(lr=0.05, momentum=0.9, weight_decay=1e-3)
ADAMW = InnerOptimizer(name="adamw", lr=0.01, weight_decay=0.01)


class Recurrent(nn.Module):
    """[batch, 1, 4, 4], read as four words of four numbers, -> [batch, 3]; drops out between two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(4, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(self.gru(x.squeeze(1))[0][:, -1])
        return outputs


class Attentive(nn.Module):
    """[batch, 1, 4, 4], read as four words of four numbers, -> [batch, 3]; a transformer's layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.2, batch_first=True)
        self.out = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(self.layer(x.squeeze(1)).mean(1))
        return outputs


@functools.cache
def program(name: str) -> tuple[Program, dict[str, Array]]:
    """``cnn`` has batch normalisation and dropout."""
    if name == "cnn":
        return hard_net()
    torch.manual_seed(3)
    kind = {"gru": Recurrent, "transformer": Attentive}[name]
    batch = {"x": torch.zeros(2, 1, 4, 4), "y": torch.zeros(2, dtype=torch.int64)}
    return from_bytes(to_bytes(*export(kind(), batch, cross_entropy)))


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "cnn-adamw": ("cnn", {"inner": ADAMW}),
    "cnn-bag": ("cnn", {"inner": SGD, "bag": 2, "first": 3, "of": 60}),
    "cnn-mixed": ("cnn", {"inner": SGD, "precision": Precision.MIXED}),
    "cnn-part": ("cnn", {"inner": SGD, "first": 7, "of": 60}),
    "cnn-prox": ("cnn", {"inner": replace(SGD, prox=0.5)}),
    "cnn-sgd": ("cnn", {"inner": SGD}),
    "gru-micro": ("gru", {"inner": ADAMW, "micro_batch": 3}),
    "gru-sgd": ("gru", {"inner": SGD}),
    "transformer-adamw-prox-micro": ("transformer", {"inner": replace(ADAMW, prox=0.5), "micro_batch": 3}),
    "transformer-mixed": ("transformer", {"inner": SGD, "precision": Precision.MIXED}),
}


def case(name: str) -> tuple[UnitSpec, Callable[[], TorchRuntime], dict[str, Array]]:
    """The unit, a fresh runtime for it, and the version it begins with."""
    which, changes = CASES[name]
    return unit_spec(**changes), lambda: TorchRuntime(*program(which)), program(which)[1]


@functools.cache
def undisturbed(name: str) -> tuple[object, ...]:
    spec, runtime, base = case(name)
    return outcome_bits(run(spec, runtime(), dataset_of(samples()), base))


def disturbed(name: str, plan: list[tuple[int, bool]]) -> Outcome:
    """For each entry, so many steps and then a pause: in memory, or by bytes into a fresh runtime that has done other work before."""
    spec, runtime, base = case(name)
    now = UnitRun(spec, runtime(), dataset_of(samples()), base)
    for steps, moves in plan:
        for _ in range(min(steps, spec.steps - now.position)):
            now.step()
        saved = Continuation.from_bytes(now.save().to_bytes())
        if moves:
            elsewhere = runtime()
            other = UnitRun(replace(spec, unit_id="other", seed=99), elsewhere, dataset_of(samples()), base)
            other.step()
            now = UnitRun(spec, elsewhere, dataset_of(samples()), base)
            now.load(saved)
    while not now.done:
        now.step()
    return Outcome(finished=True, metrics=now.metrics, digests=now.digests, steps_done=spec.steps, delta=now.delta())


@pytest.mark.parametrize("name", CASES)
def test_any_plan_of_pauses_and_moves_leaves_no_trace(name: str) -> None:
    @settings(max_examples=4)
    @given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=5))
    def check(plan: list[tuple[int, bool]]) -> None:
        assert outcome_bits(disturbed(name, plan)) == undisturbed(name)

    check()


def test_the_cases_are_different_units() -> None:
    assert len({repr(undisturbed(name)[1:3]) for name in CASES}) == len(CASES)


def test_a_continuation_leaves_out_what_is_never_trained_and_lacks_nothing_else() -> None:
    torch.manual_seed(0)
    module = Recurrent()
    module.out.weight.requires_grad_(False)
    batch = {"x": torch.zeros(2, 1, 4, 4), "y": torch.zeros(2, dtype=torch.int64)}
    made, tensors = export(module, batch, cross_entropy)
    spec = unit_spec(inner=SGD)
    paused = UnitRun(spec, TorchRuntime(made, tensors), dataset_of(samples()), tensors)
    for _ in range(5):
        paused.step()
    saved = paused.save()
    assert set(tensors) - {name.removeprefix("model/") for name in saved.tensors if name.startswith("model/")} == {"out.weight"}
    went_on = run(spec, TorchRuntime(made, {}), dataset_of(samples()), tensors, continuation=saved)
    assert outcome_bits(went_on) == outcome_bits(run(spec, TorchRuntime(made, tensors), dataset_of(samples()), tensors))


# Between processes.

_STRETCH = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gridsched.train.checkpoint import load_continuation, save_continuation
from gridsched.train.digests import state_digest
from gridsched.train.program import from_bytes
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import UnitRun
from tests.train.builders import dataset_of, samples
from tests.train.test_interruptions import CASES, unit_spec
folder, name, steps = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
program, tensors = from_bytes((folder / "program").read_bytes())
unit = UnitRun(unit_spec(**CASES[name][1]), TorchRuntime(program, tensors, threads=1), dataset_of(samples()), tensors)
if (saved := load_continuation(folder / "unit")) is not None:
    unit.load(saved)
for _ in range(min(steps, unit.spec.steps - unit.position)):
    unit.step()
save_continuation(folder / "unit", unit.save())
print(unit.position, state_digest(unit.delta()), unit.metrics.loss_sum.hex(), *unit.digests)
"""


@pytest.mark.long
@pytest.mark.parametrize("name", ["cnn-sgd", "cnn-adamw", "gru-micro", "transformer-mixed"])
def test_a_unit_handed_from_process_to_process_ends_in_the_same_bits(tmp_path: Path, name: str) -> None:
    (tmp_path / "program").write_bytes(to_bytes(*program(CASES[name][0])))
    said = ""
    for steps in (1, 4, 0, 100):
        command = [sys.executable, "-c", _STRETCH, str(ROOT), str(tmp_path), name, str(steps)]
        said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
    spec, runtime, base = case(name)
    whole = run(spec, runtime(), dataset_of(samples()), base)
    assert said.split() == [str(spec.steps), state_digest(whole.delta), whole.metrics.loss_sum.hex(), *whole.digests]


class Process:
    """A real training child, spoken to as its agent would, and killed when a test says so."""

    def __init__(self, home: Home) -> None:
        command = [sys.executable, "-m", "gridsched.node.worker", str(home.folder), "--priority", "normal"]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT)

    def hear(self, what: Callable[[Event], bool]) -> Event:
        assert self._child.stdout is not None
        while not what(found := event(self._child.stdout.readline())):
            pass
        return found

    def train(self, spec: UnitSpec) -> None:
        assert self._child.stdin is not None
        self._child.stdin.write(line(Train(run=1, unit=spec, save_every_s=0.0)))
        self._child.stdin.flush()

    def kill(self) -> None:
        self._child.send_signal(signal.SIGKILL)
        self._child.communicate()


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2))
def test_a_worker_killed_at_any_step_again_and_again_gives_the_same_update(tmp_path: Path, seed: int) -> None:
    daemon, home = FakeDaemon(), Home(tmp_path)
    home.make()
    home.blobs.mkdir()
    spec = unit(daemon, passes=400)
    for digest, data in daemon.blobs.items():
        (home.blobs / digest).write_bytes(data)
    draw = random.Random(seed)
    began_at = []
    with Gate(home.gate, owner=True) as gate:
        gate.let()
        for _ in range(3):
            process = Process(home)
            process.train(spec)
            first = process.hear(lambda said: isinstance(said, Progress))
            assert isinstance(first, Progress)
            began_at.append(first.step)
            until = first.step + draw.randrange(100, 700)
            process.hear(lambda said, until=until: isinstance(said, Progress) and said.step >= until)  # type: ignore[misc]
            process.kill()
        process = Process(home)
        process.train(spec)
        done = process.hear(lambda said: isinstance(said, Done))
        process.kill()
    assert isinstance(done, Done)
    assert done.update is not None
    assert home.update_path(done.update).read_bytes() == peaceful_update(spec)
    assert began_at == sorted(began_at)
    assert began_at[1] > 0, "what was saved before the kill was used"
    assert done.executed < spec.steps
