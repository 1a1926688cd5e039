"""A whole job in one process: rounds of units, merged. Churn must not leave a trace in the final version."""

import random
from dataclasses import replace

import numpy as np
import pytest

from gridsched.core.method import Codec, InnerOptimizer, Method, OuterOptimizer
from gridsched.core.work import UnitSpec
from gridsched.train.codec import encode, encode_update
from gridsched.train.dataset import Dataset
from gridsched.train.merge import check_update, merge_version, tensor_spec
from gridsched.train.tensors import Array, version_digest
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import Continuation, Outcome, run
from gridsched.train.version import Version, initial_version, read_version
from tests.train.builders import SAMPLES, dataset_of, exported_example, hard_net, hard_runtime, samples, unit_spec

METHODS = {
    "fedavg": Method(),
    "diloco": Method(outer=OuterOptimizer(name="nesterov", lr=0.7, momentum=0.5), down=Codec.INT8),
    "fedadam": Method(outer=OuterOptimizer(name="adam", lr=0.01)),
}


def units(epoch: int) -> list[UnitSpec]:
    starts = range(0, SAMPLES, 24)
    return [unit_spec(unit_id=f"e{epoch}-{start:03}", epoch=epoch, start=start, stop=min(start + 24, SAMPLES)) for start in starts]


def train_unit(spec: UnitSpec, dataset: Dataset, version: Version, churn: random.Random | None) -> Outcome:
    saved: Continuation | None = None
    while True:

        def may_go_on() -> bool:
            return churn is None or churn.random() > 0.3

        outcome = run(spec, hard_runtime(), dataset, version.tensors, may_go_on=may_go_on, continuation=saved)
        if outcome.finished:
            return outcome
        if churn is not None and churn.random() > 0.3:  # otherwise the node vanished with its last steps
            assert outcome.continuation is not None
            saved = Continuation.from_bytes(outcome.continuation.to_bytes())


def train(method: Method, codec: Codec, churn: random.Random | None) -> list[str]:
    """The digest of every version of a job of two epochs."""
    program, tensors = hard_net()
    dataset = dataset_of(samples())
    version: bytes | memoryview = initial_version(program, tensors).to_bytes()
    outer: memoryview | None = None
    digests = []
    for epoch in range(2):
        base = read_version(version)
        updates = []
        for spec in units(epoch):
            data = encode(train_unit(spec, dataset, base, churn).delta, codec, seed=spec.seed)
            check_update(data, tensor_spec(base.tensors), 1e3, buffers=base.buffers)
            updates.append((spec.unit_id, float(spec.samples), data))
        if churn is not None:
            churn.shuffle(updates)
        made = merge_version(version, updates, method, outer)
        version, outer = made.version, made.outer
        digests.append(version_digest(version))
    return digests


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_job_under_churn_ends_in_the_bits_of_one_in_peace(method: Method, codec: Codec) -> None:
    peace = train(method, codec, None)
    assert len(set(peace)) == 2
    for seed in range(2):
        assert train(method, codec, random.Random(seed)) == peace


@pytest.mark.parametrize("codec", [Codec.HALF, Codec.INT8, Codec.INT4])
def test_running_statistics_of_unlike_scale_are_merged_as_they_are(codec: Codec) -> None:
    program, tensors = exported_example("tabular_mlp")
    base = initial_version(program, tensors)
    draw = np.random.default_rng(4)
    inputs = draw.normal(size=(64, 13)) * ([0, 186**0.5] + 11 * [1])
    fields = {"input": inputs.astype(np.float32), "y": draw.integers(0, 3, 64)}
    spec = unit_spec(start=0, stop=64, batch_size=16, passes=4, inner=InnerOptimizer(lr=0.01), exact_buffers=True)
    delta = run(spec, TorchRuntime(program, tensors), dataset_of(fields), base.tensors).delta

    def merged(codec: Codec, *, exact: bool = True) -> dict[str, Array]:
        sent = encode_update(delta, replace(spec, codec=codec, exact_buffers=exact), buffers=base.buffers)
        made = read_version(merge_version(base.to_bytes(), [("u", 64.0, sent)], Method()).version)
        return {name: made.tensors[name] for name in base.buffers}

    found, wanted = merged(codec), merged(Codec.RAW)
    assert found["0.running_var"].min() >= 0
    assert {name: array.tobytes() for name, array in found.items()} == {name: array.tobytes() for name, array in wanted.items()}
    if codec is Codec.INT8:
        assert merged(codec, exact=False)["0.running_var"].min() < 0, "as units of earlier releases come out, again and again"


def test_a_job_learns() -> None:
    program, tensors = hard_net()
    fields = samples() | {"y": (samples()["x"].mean((1, 2, 3)) > 0).astype("int64")}
    dataset = dataset_of(fields)
    version: bytes | memoryview = initial_version(program, tensors).to_bytes()
    losses = []
    for epoch in range(6):
        base = read_version(version)
        outcomes = [(spec, run(spec, hard_runtime(), dataset, base.tensors)) for spec in units(epoch)]
        losses.append(sum(outcome.metrics.loss for _, outcome in outcomes))
        updates = [(spec.unit_id, float(spec.samples), encode(outcome.delta, Codec.RAW)) for spec, outcome in outcomes]
        version = merge_version(version, updates, Method()).version
    assert losses[-1] < 0.6 * losses[0]
