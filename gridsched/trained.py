"""A model owner's way back: what a job, or all members of an ensemble, have become; downloaded, tried and compared on the owner's machine.

A *name* is a job's id or an ensemble's; everything here takes either.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gridsched.core.errors import InvalidInput, NotFound, ProgramError
from gridsched.remote import Operator
from gridsched.train.dataset import Dataset, DatasetManifest
from gridsched.train.ensemble import log_softmax
from gridsched.train.jobfile import ONE_CLASS
from gridsched.train.predict import Answering, Prediction, Predictor, Quality, best_of, quality
from gridsched.train.program import from_bytes
from gridsched.train.tensors import Array, tensors_to_bytes
from gridsched.train.version import owner_tensors, read_version

__all__ = ["Evaluated", "Trained", "download", "evaluate", "fetch", "held_out", "jobs_of"]

Json = dict[str, Any]

_BATCH = 256
_LABEL = "y"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Downloaded models: ``members`` hold the versions whose journal rows are ``versions``, of ``jobs`` as the daemon tells them."""

    name: str
    jobs: tuple[Json, ...]
    versions: tuple[Json, ...]
    members: tuple[Answering, ...]

    @property
    def method(self) -> str:
        """The method's name; empty where the job file set numbers only."""
        return str(self.jobs[0]["spec"]["method"]["name"])

    def predictor(self) -> Predictor:
        """Raises ProgramError where the model does not answer with classes."""
        score = self.method == ONE_CLASS
        if score and len(self.members) == 1:
            raise ProgramError(f"{self.name} knows one class only; ask its ensemble {self.jobs[0]['spec']['ensemble']}")
        return Predictor(self.members, score=score)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """How good a model is on ``samples`` samples: by its own ``loss``, and as a classifier by each rule that it could answer by.

    ``loss`` is the job's own, None for an ensemble; ``by_rule`` holds ``single`` for a single model and nothing for one that does not
    answer with classes. ``best`` is the rule to use, judged by these same samples.
    """

    samples: int
    loss: float | None
    by_rule: Mapping[str, Quality]
    best: str


def jobs_of(operator: Operator, name: str) -> list[Json]:
    """The job of that id, or all members of that ensemble in their order. Raises NotFound."""
    try:
        return [operator.get(f"/v1/jobs/{name}")]
    except NotFound:
        rows: list[Json] = [row for row in operator.get("/v1/jobs") if row["spec"]["ensemble"] == name]
        if not rows:
            raise NotFound(f"there is no job and no ensemble {name}; see gridsched job list") from None
        return sorted(rows, key=lambda row: int(row["spec"]["member"]))


def fetch(operator: Operator, job: Json, *, number: int | None = None) -> tuple[bytes, Json]:
    """A version (the newest unless ``number`` is given) as safetensors with the names of ``module.state_dict()``, and its journal row."""
    row = _row(operator, job["job_id"], number)
    program, _ = from_bytes(operator.get_blob(job["spec"]["program"]))
    version = read_version(operator.get_blob(str(row["digest"])))
    return tensors_to_bytes(owner_tensors(program, version)), row


def download(operator: Operator, name: str, *, number: int | None = None, device: str = "cpu") -> Trained:
    """Ready to answer: the newest versions unless ``number`` is given. Needs torch."""
    jobs = jobs_of(operator, name)
    rows = [_row(operator, job["job_id"], number) for job in jobs]
    members = [_model(operator, job["spec"]["program"], str(row["digest"]), device) for job, row in zip(jobs, rows, strict=True)]
    return Trained(name=name, jobs=tuple(jobs), versions=tuple(rows), members=tuple(members))


def held_out(operator: Operator, jobs: Sequence[Json]) -> dict[str, Array]:
    """The test samples of a job; of an ensemble, those of all its members, each set once. Raises InvalidInput where there are none."""
    digests = dict.fromkeys(job["spec"]["test_dataset"] for job in jobs if job["spec"]["test_dataset"])
    if not digests:
        raise InvalidInput(f"job {jobs[0]['job_id']} was submitted without test samples; give some with --data FILE.npz")
    sets = [Dataset(DatasetManifest.from_bytes(operator.get_blob(digest)), operator.get_blob) for digest in digests]
    found = [one.batch(np.arange(one.samples)) for one in sets]
    return {name: np.concatenate([fields[name] for fields in found]) for name in found[0]}


def evaluate(trained: Trained, samples: Mapping[str, Array]) -> Evaluated:
    """Try a model on labelled ``samples``; an ensemble by every rule there is for it."""
    count = len(next(iter(samples.values())))
    if len(trained.members) == 1:
        return _evaluate_one(trained, samples, count)
    if _LABEL not in samples:
        raise InvalidInput(f"the samples have no field {_LABEL!r} to compare with; they have {', '.join(samples)}")
    predictor = trained.predictor()
    answers = predictor.answers(samples)
    found = {rule: quality(predictor.combine(answers, rule), samples[_LABEL]) for rule in predictor.rules}
    return Evaluated(samples=count, loss=None, by_rule={rule.value: made for rule, made in found.items()}, best=best_of(found).value)


def _evaluate_one(trained: Trained, samples: Mapping[str, Array], count: int) -> Evaluated:
    (member,) = trained.members
    total, outputs = 0.0, []
    for start in range(0, count, _BATCH):
        batch = {name: np.ascontiguousarray(array[start : start + _BATCH]) for name, array in samples.items()}
        loss, answer = member.answer(batch)
        total += loss * len(answer)
        outputs.append(answer)
    target = member.program.target
    found: dict[str, Quality] = {}
    if target is not None:
        probabilities = np.exp(log_softmax(np.concatenate(outputs)))
        prediction = Prediction(probabilities=probabilities, labels=probabilities.argmax(-1).astype(np.int64))
        found = {"single": quality(prediction, samples[target])}
    return Evaluated(samples=count, loss=total / count, by_rule=found, best=next(iter(found), ""))


def _row(operator: Operator, job_id: str, number: int | None) -> Json:
    versions: list[Json] = operator.get(f"/v1/jobs/{job_id}/versions")
    chosen = [version for version in versions if number is None or version["number"] == number]
    if not chosen:
        raise InvalidInput(f"job {job_id} has no version {number}; it has 0 to {len(versions) - 1}")
    return max(chosen, key=lambda version: int(version["number"]))


def _model(operator: Operator, program_digest: str, version_digest: str, device: str) -> Answering:
    try:
        from gridsched.train.torch_runtime import TorchRuntime  # torch, which only owners and nodes have
    except ImportError as error:
        raise ProgramError("running a model needs PyTorch; install it with: pip install 'gridsched[train]'") from error
    program, constants = from_bytes(operator.get_blob(program_digest))
    runtime = TorchRuntime(program, constants, device=device)
    runtime.load(read_version(operator.get_blob(version_digest)).tensors)
    return runtime
