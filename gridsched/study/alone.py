"""A job trained in this process: the product's own units and merges, without daemon and nodes. What any site would come to, in peace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from gridsched import owner
from gridsched.core.cut import open_round, total_rounds, units_of
from gridsched.core.errors import InvalidInput
from gridsched.core.job import JobSpec
from gridsched.train import codec
from gridsched.train.dataset import Dataset, DatasetManifest, write_dataset
from gridsched.train.jobfile import load_jobfile
from gridsched.train.merge import merge_version
from gridsched.train.partition import Partition, cut, reordered
from gridsched.train.predict import Predictor, quality
from gridsched.train.program import from_bytes
from gridsched.train.tensors import Array, version_digest
from gridsched.train.torch_runtime import TorchRuntime
from gridsched.train.unit import run
from gridsched.train.version import read_version

__all__ = ["Bench", "bench"]

_SHARD_SAMPLES = 4096
_NOT_ASKED = datetime(1970, 1, 1, tzinfo=UTC)  # a round opened here has no time of its own, and no bit depends on it


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A job ready to be trained here: its first ``spec``, its ``blobs``, its held-out samples ``test``."""

    spec: JobSpec
    blobs: Mapping[str, bytes]
    test: Mapping[str, Array]

    def parted(self, how: Partition) -> "Bench":
        """The same job with its samples cut into parts."""
        train = self.dataset()
        whole = train.batch(np.arange(train.samples))
        return self._with(*reordered(whole, cut(whole, how, seed=self.spec.seed)))

    def first(self, samples: int) -> "Bench":
        """The same job with its first samples alone."""
        return self._with(self.dataset().batch(np.arange(samples)), ())

    def _with(self, fields: Mapping[str, Array], parts: tuple[int, ...]) -> "Bench":
        blobs = dict(self.blobs)

        def put(data: bytes) -> str:
            digest = version_digest(data)
            blobs[digest] = data
            return digest

        manifest = write_dataset(fields, name="studied", shard_samples=_SHARD_SAMPLES, put=put)
        spec = replace(self.spec, dataset=put(manifest.to_bytes()), samples=manifest.samples, parts=parts)
        return replace(self, spec=spec, blobs=blobs)

    def dataset(self) -> Dataset:
        """The training samples."""
        return Dataset(DatasetManifest.from_bytes(self.blobs[self.spec.dataset]), self.blobs.__getitem__)

    def train(self, spec: JobSpec | None = None) -> TorchRuntime:
        """Train ``spec`` (default: the bench's own) to its last version; the runtime that holds it.

        Raises InvalidInput for a method whose result depends on who is there.
        """
        job = spec or self.spec
        if job.method.exact_is_given_up or job.local:
            raise InvalidInput(
                f"job {job.job_id} depends on which nodes come when, so it cannot be trained alone; leave quorum and grace out"
            )
        program, constants = from_bytes(self.blobs[job.program])
        runtime, dataset = TorchRuntime(program, constants), self.dataset()
        base, outer = self.blobs[job.initial], None
        for number in range(total_rounds(job)):
            rnd = open_round(job, number=number, base=version_digest(base), now=_NOT_ASKED)
            version = read_version(base)
            updates = []
            for unit in units_of(job, rnd):
                delta = run(unit.spec, runtime, dataset, version.tensors).delta
                updates.append((unit.unit_id, float(unit.spec.samples), codec.encode_update(delta, unit.spec, buffers=version.buffers)))
            merged = merge_version(base, updates, job.method, outer)
            base, outer = bytes(merged.version), None if merged.outer is None else bytes(merged.outer)
        runtime.load(read_version(base).tensors)
        return runtime

    def accuracy(self, models: Sequence[TorchRuntime], rule: str = "sum") -> float:
        """The share of held-out samples that ``models`` together name rightly."""
        return self.by_rule(models)[rule] if len(models) > 1 else self._one(models[0])

    def by_rule(self, models: Sequence[TorchRuntime]) -> dict[str, float]:
        """Accuracy by combination rule."""
        predictor = Predictor(models)
        answers = predictor.answers(self.test)
        return {rule.value: quality(predictor.combine(answers, rule), self.test["y"]).accuracy for rule in predictor.rules}

    def _one(self, model: TorchRuntime) -> float:
        return quality(Predictor([model]).predict(self.test), self.test["y"]).accuracy


def bench(path: Path, *, epochs: int | None, samples: int | None, seed: int) -> Bench:
    """The job file at ``path`` as one network trained by one worker at a time; ``samples`` of its training set (None: all of them)."""
    submission = owner.prepare(path, zone="study", seed=seed, changes={"epochs": epochs})
    _, test = load_jobfile(path).dataset()
    if "y" not in test:
        raise InvalidInput(f"{path} has no test samples with a field y; a study needs some to tell how good a model is")
    spec = submission.spec
    method = replace(spec.method, units_per_round=1, samples_per_unit=0)
    made = Bench(spec=replace(spec, method=method), blobs=submission.blobs, test=test)
    return made if samples is None or samples >= spec.samples else made.first(samples)
