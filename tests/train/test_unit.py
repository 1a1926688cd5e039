"""A unit interrupted anywhere ends in the same bits as one that ran through."""

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from gridsched.core.errors import DatasetError, InvalidInput, ProgramError
from gridsched.core.method import InnerOptimizer
from gridsched.core.work import UnitKind, UnitSpec
from gridsched.train.checkpoint import save_continuation
from gridsched.train.dataset import order
from gridsched.train.digests import state_digest
from gridsched.train.export import export
from gridsched.train.program import to_bytes
from gridsched.train.tensors import Array, tensors_from_bytes, tensors_to_bytes
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import Continuation, Outcome, UnitRun, run
from tests.train.builders import cross_entropy, dataset_of, hard_net, hard_runtime, outcome_bits, samples, unit_spec

ADAMW = InnerOptimizer(name="adamw", lr=0.01, weight_decay=0.01)
SPECS = {"sgd": unit_spec(), "adamw": unit_spec(inner=ADAMW), "plain": unit_spec(inner=InnerOptimizer(lr=0.1))}


def whole(spec: UnitSpec) -> Outcome:
    return run(spec, hard_runtime(), dataset_of(samples()), hard_net()[1])


def interrupted(spec: UnitSpec, steps_between: list[int]) -> Outcome:
    """Run with a pause after each of these numbers of steps, every time on a fresh runtime and from bytes."""
    saved: Continuation | None = None
    for steps in [*steps_between, 10**9]:
        left = itertools.count(steps, -1)

        def may_go_on(left: Iterator[int] = left) -> bool:
            return next(left) > 0

        outcome = run(spec, hard_runtime(), dataset_of(samples()), hard_net()[1], continuation=saved, may_go_on=may_go_on)
        if outcome.finished:
            return outcome
        assert outcome.continuation is not None
        saved = Continuation.from_bytes(outcome.continuation.to_bytes())
    raise AssertionError("never finished")


@pytest.mark.parametrize("name", SPECS)
def test_a_pause_at_any_single_step_leaves_no_trace(name: str) -> None:
    spec = SPECS[name]
    expected = outcome_bits(whole(spec))
    assert spec.steps == 14
    for step in range(spec.steps):
        assert outcome_bits(interrupted(spec, [step])) == expected, f"paused after step {step}"


@settings(max_examples=15)
@given(st.lists(st.integers(0, 5), max_size=8))
def test_any_plan_of_interruptions_leaves_no_trace(steps_between: list[int]) -> None:
    assert outcome_bits(interrupted(SPECS["sgd"], steps_between)) == outcome_bits(whole(SPECS["sgd"]))


def test_saving_does_not_disturb_the_run_that_goes_on() -> None:
    saved: list[Continuation] = []
    outcome = run(SPECS["sgd"], hard_runtime(), dataset_of(samples()), hard_net()[1], save_every=3, on_continuation=saved.append)
    assert [continuation.step for continuation in saved] == [3, 6, 9, 12]
    assert outcome_bits(outcome) == outcome_bits(whole(SPECS["sgd"]))


def test_a_runtime_used_for_another_unit_before_leaves_no_trace() -> None:
    runtime, dataset, base = hard_runtime(), dataset_of(samples()), hard_net()[1]
    run(unit_spec(unit_id="other", epoch=9, inner=ADAMW), runtime, dataset, base)
    assert outcome_bits(run(SPECS["sgd"], runtime, dataset, base)) == outcome_bits(whole(SPECS["sgd"]))


def test_sharding_of_the_dataset_leaves_no_trace() -> None:
    other = run(SPECS["sgd"], hard_runtime(), dataset_of(samples(), shard_samples=7), hard_net()[1])
    assert outcome_bits(other) == outcome_bits(whole(SPECS["sgd"]))


@pytest.mark.parametrize("change", [{"seed": 12}, {"epoch": 3}, {"start": 6}, {"inner": InnerOptimizer(lr=0.06, momentum=0.9)}])
def test_whatever_the_spec_names_does_change_the_bits(change: dict[str, object]) -> None:
    assert outcome_bits(whole(unit_spec(**change))) != outcome_bits(whole(unit_spec()))


_CHILD = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from gridsched.train.checkpoint import load_continuation
from gridsched.train.digests import state_digest
from gridsched.train.unit import run
from gridsched.train.program import from_bytes
from gridsched.train.torch_runtime import TorchRuntime
from tests.train.builders import dataset_of, samples, unit_spec
folder = Path(sys.argv[2])
program, tensors = from_bytes((folder / "program").read_bytes())
saved = load_continuation(folder / "unit")
outcome = run(unit_spec(), TorchRuntime(program, tensors), dataset_of(samples()), tensors, continuation=saved)
print(state_digest(outcome.delta), outcome.metrics.loss_sum.hex(), *outcome.digests, outcome.steps_done)
assert "torch._dynamo" not in sys.modules, "a second of start-up that training does not need"
"""


def test_a_unit_handed_over_to_another_process_ends_in_the_same_bits(tmp_path: Path) -> None:
    first = UnitRun(unit_spec(), hard_runtime(), dataset_of(samples()), hard_net()[1])
    for _ in range(5):
        first.step()
    save_continuation(tmp_path / "unit", first.save())
    (tmp_path / "program").write_bytes(to_bytes(*hard_net()))
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", _CHILD, root, str(tmp_path)], capture_output=True, text=True, check=True, cwd=root)
    while not first.done:
        first.step()
    outcome = whole(unit_spec())
    assert done.stdout.split() == [state_digest(outcome.delta), outcome.metrics.loss_sum.hex(), *outcome.digests, "9"]
    assert state_digest(first.delta()) == state_digest(outcome.delta)


def test_every_pass_visits_every_sample_of_the_range_once() -> None:
    fields = samples() | {"y": np.zeros(70, np.int64)}
    fields["x"] = np.broadcast_to(np.arange(70, dtype=np.float32)[:, None, None, None], (70, 1, 4, 4)).copy()
    seen: list[int] = []

    class Watching:
        hardware_class = "none"

        def __getattr__(self, name: str) -> object:
            return lambda *_, **__: {}

        def train_step(self, batch: dict[str, Array], seed: int) -> float:
            seen.extend(int(value) for value in batch["x"][:, 0, 0, 0])
            return 0.0

    spec = unit_spec(passes=3, digest_every=10**6)
    run(spec, Watching(), dataset_of(fields), {})  # type: ignore[arg-type]
    expected = order(spec.seed, spec.epoch, 70)[spec.start : spec.stop].tolist()
    first, second, third = (seen[start : start + 55] for start in (0, 55, 110))
    assert first == expected
    assert sorted(second) == sorted(third) == sorted(expected)
    assert first != second != third


def test_digests_come_every_so_many_steps_and_name_the_parameters() -> None:
    outcome = whole(unit_spec(digest_every=5))
    assert len(outcome.digests) == 2
    assert outcome.digests[0] != outcome.digests[1]
    assert outcome.digests == whole(unit_spec(digest_every=5)).digests


def test_evaluation_counts_every_sample_once_and_can_be_interrupted() -> None:
    spec = unit_spec(kind=UnitKind.EVALUATE, start=0, stop=70, passes=1, batch_size=9)
    outcome = whole(spec)
    assert (outcome.metrics.samples, outcome.metrics.count, dict(outcome.delta)) == (70, 70, {})
    assert 0 < outcome.metrics.correct < 70
    for step in range(spec.steps):
        assert outcome_bits(interrupted(spec, [step])) == outcome_bits(outcome)


class Noisy(nn.Module):
    """[batch, 1, 4, 4] -> [batch, 3]: draws in evaluation too."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs: torch.Tensor = self.out(x.flatten(1) + torch.randn_like(x.flatten(1)))
        return outputs


def test_an_evaluation_that_draws_has_the_same_figures_whatever_was_drawn_before_it() -> None:
    batch = {"x": torch.zeros(2, 1, 4, 4), "y": torch.zeros(2, dtype=torch.int64)}
    program, tensors = export(Noisy(), batch, cross_entropy)
    dataset = dataset_of(samples())
    spec = unit_spec(kind=UnitKind.EVALUATE, start=0, stop=70, passes=1, batch_size=20)
    for micro_batch in (0, 7):
        own = replace(spec, micro_batch=micro_batch)
        torch.manual_seed(1)
        alone = run(own, TorchRuntime(program, tensors), dataset, tensors).metrics
        runtime = TorchRuntime(program, tensors)
        run(unit_spec(), runtime, dataset, tensors)
        assert run(own, runtime, dataset, tensors).metrics == alone
        left = iter([True, True, False])
        paused = run(own, runtime, dataset, tensors, may_go_on=left.__next__).continuation
        torch.manual_seed(2)  # another process draws from elsewhere
        assert run(own, TorchRuntime(program, tensors), dataset, tensors, continuation=paused).metrics == alone
    asked = TorchRuntime(program, tensors)
    first, again = (asked.answer(dataset.batch(np.arange(5))) for _ in range(2))
    assert first[1].tobytes() == again[1].tobytes()


def test_a_continuation_survives_the_round_trip_even_when_the_loss_is_nan() -> None:
    unit = UnitRun(unit_spec(), hard_runtime(), dataset_of(samples()), hard_net()[1])
    unit.step()
    unit.metrics = unit.metrics.plus(loss=float("nan"), samples=1)
    data = unit.save().to_bytes()
    assert Continuation.from_bytes(data).to_bytes() == data


def test_a_continuation_of_another_unit_is_refused() -> None:
    saved = UnitRun(unit_spec(unit_id="other"), hard_runtime(), dataset_of(samples()), hard_net()[1]).save()
    with pytest.raises(InvalidInput, match=r"unit other .* does not fit unit u1"):
        run(unit_spec(), hard_runtime(), dataset_of(samples()), hard_net()[1], continuation=saved)


def test_a_continuation_of_another_optimizer_is_refused() -> None:
    unit = UnitRun(unit_spec(), hard_runtime(), dataset_of(samples()), hard_net()[1])
    unit.step()
    with pytest.raises(ProgramError, match="exp_avg"):
        run(unit_spec(inner=ADAMW), hard_runtime(), dataset_of(samples()), hard_net()[1], continuation=unit.save())


@given(st.data())
def test_a_continuation_cut_anywhere_is_refused(data: st.DataObject) -> None:
    whole_bytes = UnitRun(unit_spec(), hard_runtime(), dataset_of(samples()), hard_net()[1]).save().to_bytes()
    with pytest.raises(InvalidInput):
        Continuation.from_bytes(whole_bytes[: data.draw(st.integers(0, len(whole_bytes) - 1))])


ENDLESS = {"loss_sum": "0x1p99999", "samples": 1, "correct": 0, "count": 0}


@pytest.mark.parametrize("damage", [{"step": -1}, {"step": "1"}, {"unit_id": 3}, {"extra": 1}, {"metrics": {}}, {"metrics": ENDLESS}])
def test_a_continuation_with_wrong_values_is_refused(damage: dict[str, object]) -> None:
    unit = UnitRun(unit_spec(), hard_runtime(), dataset_of(samples()), hard_net()[1])
    tensors, metadata = tensors_from_bytes(unit.save().to_bytes())
    about = json.loads(metadata["gridsched.continuation"]) | damage
    with pytest.raises(InvalidInput):
        Continuation.from_bytes(tensors_to_bytes(tensors, {"gridsched.continuation": json.dumps(about)}))


def test_a_range_outside_the_dataset_is_refused() -> None:
    with pytest.raises(DatasetError, match=r"5 to 71 of its samples; dataset [a-z-]+ has 70"):
        UnitRun(unit_spec(stop=71), hard_runtime(), dataset_of(samples()), hard_net()[1])


def test_a_dataset_without_the_programs_fields_is_refused_by_name() -> None:
    fields = samples() | {"x": samples()["x"].astype(np.float64)}
    with pytest.raises(DatasetError, match="field 'x' as float32"):
        run(unit_spec(), hard_runtime(), dataset_of(fields), hard_net()[1])
