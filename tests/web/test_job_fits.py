"""A job that could not run is refused before it is taken in, and told which of the things it names is wrong."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gridsched.core.errors import GridschedError, InvalidInput, UnsupportedOperator
from gridsched.core.job import Dataset, JobSpec
from gridsched.core.method import Method, Precision
from gridsched.store.blobs import FileBlobs
from gridsched.testing import ManualClock
from gridsched.train.dataset import DatasetManifest, Field, write_dataset
from gridsched.train.program import to_bytes
from gridsched.train.version import Version, initial_version
from gridsched.web import intake
from gridsched.web.intake import LONGEST_UNIT, check_dataset, check_job, wasm_lacks
from tests.train.builders import SAMPLES, hard_net, samples

NOWHERE = "0" * 64
Break = Callable[[FileBlobs, JobSpec], JobSpec]


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> FileBlobs:
    return FileBlobs(tmp_path_factory.mktemp("blobs"), quota_bytes=10**8, clock=ManualClock())


@pytest.fixture
def spec(blobs: FileBlobs) -> JobSpec:
    """A job that may run: a network with buffers, its samples in three shards."""
    program, tensors = hard_net()
    manifest = write_dataset(samples(), name="train", shard_samples=32, put=blobs.put)
    stored = blobs.put(manifest.to_bytes())
    return JobSpec(
        job_id="j", name="j", program=blobs.put(to_bytes(program, tensors)), dataset=stored, samples=SAMPLES, test_dataset=stored,
        test_samples=SAMPLES, initial=blobs.put(initial_version(program, tensors).to_bytes()), seed=1, method=Method(), zone="de-lu",
    )  # fmt: skip


def test_a_job_that_fits_together_is_taken_with_the_size_of_its_first_version(blobs: FileBlobs, spec: JobSpec) -> None:
    assert check_job(spec, blobs) == blobs.size(spec.initial)


def without_a_shard(blobs: FileBlobs, spec: JobSpec) -> JobSpec:
    manifest = DatasetManifest.from_bytes(blobs.get(spec.dataset))
    shards = (replace(manifest.shards[0], digest=NOWHERE), *manifest.shards[1:])
    return replace(spec, dataset=blobs.put(replace(manifest, shards=shards).to_bytes()))


def with_fields(change: Callable[[Field], Field]) -> Break:
    def broken(blobs: FileBlobs, spec: JobSpec) -> JobSpec:
        manifest = DatasetManifest.from_bytes(blobs.get(spec.dataset))
        fields = tuple(change(field) if field.name == "x" else field for field in manifest.fields)
        return replace(spec, test_dataset=blobs.put(replace(manifest, fields=fields).to_bytes()))

    return broken


def with_version(change: Callable[[Version], Version]) -> Break:
    def broken(blobs: FileBlobs, spec: JobSpec) -> JobSpec:
        program, tensors = hard_net()
        return replace(spec, initial=blobs.put(change(initial_version(program, tensors)).to_bytes()))

    return broken


def resized(version: Version) -> Version:
    return replace(version, tensors=dict(version.tensors) | {"out.bias": np.zeros(4, np.float32)})


def lacking(version: Version) -> Version:
    return replace(version, tensors={name: array for name, array in version.tensors.items() if name != "out.bias"})


def of_method(**changes: Any) -> Break:
    return lambda _, spec: replace(spec, method=replace(spec.method, **changes))


@pytest.mark.parametrize(
    ("broken", "kind", "says"),
    [
        (lambda _, s: replace(s, program=NOWHERE), "InvalidInput", "program 000000000000 is not stored"),
        (lambda _, s: replace(s, program=s.dataset), "ProgramError", "not a program file"),
        (lambda _, s: replace(s, dataset=NOWHERE), "InvalidInput", "dataset 000000000000 is not stored"),
        (lambda _, s: replace(s, dataset=s.program), "DatasetError", "not a dataset manifest"),
        (lambda _, s: replace(s, samples=SAMPLES + 1), "DatasetError", f"{SAMPLES + 1} samples, its manifest has {SAMPLES}"),
        (lambda _, s: replace(s, test_samples=3), "DatasetError", "test dataset is said to have 3"),
        (lambda _, s: replace(s, test_dataset="../../etc/passwd"), "InvalidInput", "is not a digest"),
        (without_a_shard, "DatasetError", "1 of 3 shards are not stored"),
        (with_fields(lambda f: replace(f, name="z")), "DatasetError", "no field 'x', which the program reads; it has y, z"),
        (with_fields(lambda f: replace(f, shape=(9,))), "DatasetError", "field 'x' is float32 of (9,), the program wants"),
        (with_fields(lambda f: replace(f, dtype="float64")), "DatasetError", "field 'x' is float64"),
        (lambda _, s: replace(s, initial=NOWHERE), "InvalidInput", "initial version 000000000000 is not stored"),
        (lambda _, s: replace(s, initial=s.dataset), "InvalidInput", ""),
        (with_version(resized), "InvalidInput", "tensor 'out.bias' is float32 of (4,), the program wants"),
        (with_version(lacking), "InvalidInput", "differ in tensor 'out.bias'"),
        (with_version(lambda v: replace(v, buffers=frozenset())), "InvalidInput", "which tensors are buffers"),
        (lambda _, s: replace(s, seed=2**63), "InvalidInput", "seed must lie between 0 and"),
        (lambda _, s: replace(s, priority=-(2**40)), "InvalidInput", "priority must lie between"),
        (of_method(units_per_round=10**6), "InvalidInput", "units_per_round must lie between"),
        (of_method(quorum=20_000, units_per_round=30_000), "InvalidInput", "units_per_round must lie between"),
        (of_method(max_staleness=10**10), "InvalidInput", "max_staleness must lie between"),
        (of_method(micro_batch=10**10), "InvalidInput", "micro_batch must lie between"),
        (of_method(quorum=1, unit_seconds=1e12), "InvalidInput", "unit_seconds must be at most"),
        (of_method(grace_s=1e12), "InvalidInput", "grace_s must be at most"),
        (of_method(staleness_power=99.0), "InvalidInput", "staleness_power must be at most"),
        (of_method(batch_size=SAMPLES, passes=LONGEST_UNIT + 1), "InvalidInput", f"a unit of {LONGEST_UNIT + 1} steps is longer than"),
        (
            lambda b, s: replace(of_method(samples_per_unit=1, batch_size=30, passes=LONGEST_UNIT // 2)(b, s), parts=(SAMPLES - 1, 1)),
            "InvalidInput",
            f"a unit of {3 * LONGEST_UNIT // 2} steps is longer than",
        ),
        (lambda _, s: replace(s, bag=-2), "InvalidInput", "bag must lie between"),
        (lambda _, s: replace(s, part=-2), "InvalidInput", "part must lie between"),
        (lambda _, s: replace(s, member=-1), "InvalidInput", "member must lie between"),
        (lambda _, s: replace(s, parts=(1,) * 20_000, samples=20_000), "InvalidInput", "parts must lie between 0 and 10000, got 20000"),
        (lambda _, s: replace(s, parts=(SAMPLES, 1), samples=SAMPLES + 1), "DatasetError", f"its manifest has {SAMPLES}"),
        (lambda b, s: replace(of_method(quorum=1)(b, s), local="mine"), "InvalidInput", "leave quorum out, and bound the wait by grace_s"),
        (lambda _, s: replace(s, deadline=datetime(2018, 5, 1)), "InvalidInput", "has no UTC offset"),  # noqa: DTZ001
    ],
)
def test_what_does_not_fit_is_refused_by_name(blobs: FileBlobs, spec: JobSpec, broken: Break, kind: str, says: str) -> None:
    with pytest.raises(GridschedError) as refused:
        check_job(broken(blobs, spec), blobs)
    assert type(refused.value).__name__ == kind
    assert says in str(refused.value)


def test_the_longest_unit_is_taken_and_how_long_one_over_a_node_s_own_data_is_nobody_knows_yet(blobs: FileBlobs, spec: JobSpec) -> None:
    check_job(of_method(batch_size=SAMPLES, passes=LONGEST_UNIT)(blobs, spec), blobs)
    check_job(replace(of_method(batch_size=SAMPLES, passes=LONGEST_UNIT + 1)(blobs, spec), local="mine"), blobs)


def test_a_dataset_must_say_what_its_manifest_says(blobs: FileBlobs, spec: JobSpec) -> None:
    said = Dataset(name="d", digest=spec.dataset, samples=SAMPLES, size_bytes=1, added_at=ManualClock().now() - timedelta(days=1))
    check_dataset(said, blobs)
    with pytest.raises(GridschedError, match=f"{SAMPLES}"):
        check_dataset(replace(said, samples=7), blobs)
    with pytest.raises(GridschedError, match="is not stored"):
        check_dataset(replace(said, digest=NOWHERE), blobs)


def test_nothing_is_read_outside_the_store(blobs: FileBlobs, spec: JobSpec, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    with pytest.raises(GridschedError, match="is not a digest"):
        check_job(replace(spec, test_dataset=str(secret)), blobs)


def test_a_program_of_known_operators_is_for_every_runtime(blobs: FileBlobs, spec: JobSpec) -> None:
    assert wasm_lacks(spec, blobs) == ""
    assert wasm_lacks(replace(spec, runtime="wasm"), blobs) == ""


def test_mixed_precision_is_for_torch_alone_and_a_job_that_asks_for_wasm_is_refused(blobs: FileBlobs, spec: JobSpec) -> None:
    mixed = replace(spec, method=Method(precision=Precision.MIXED))
    assert "mixed precision" in wasm_lacks(mixed, blobs)
    with pytest.raises(InvalidInput, match="asks for the runtime wasm, which does not cover it"):
        wasm_lacks(replace(mixed, runtime="wasm"), blobs)


def test_what_cannot_be_planned_is_said_by_name_and_keeps_no_job_out(
    blobs: FileBlobs, spec: JobSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    for error, said in (
        (UnsupportedOperator("node 3: aten.conv3d.default"), "aten.conv3d.default"),
        (KeyError("a bug"), "log has the story"),
    ):

        def refuse(*_: Any, error: Exception = error, **__: Any) -> None:
            raise error

        monkeypatch.setattr(intake, "plan_of", refuse)
        assert said in wasm_lacks(spec, blobs)


def test_what_is_larger_than_the_memory_of_webassembly_is_for_torch_alone(blobs: FileBlobs, spec: JobSpec) -> None:
    assert "GiB" in wasm_lacks(replace(spec, method=Method(batch_size=10**8)), blobs)
