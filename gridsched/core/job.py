"""What a model owner asks for: a program, a dataset, and the method by which it is trained."""

import math
import re
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum

from gridsched.core.errors import InvalidInput

__all__ = ["Codec", "Dataset", "InnerOptimizer", "Job", "JobSpec", "JobState", "Method", "OuterOptimizer", "is_digest", "is_name"]

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 in lower-case hexadecimal, the only name a blob has."""
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether ``text`` may name a job, node, zone or dataset: it appears in ids, file names and metric labels."""
    return _NAME.fullmatch(text) is not None


class Codec(StrEnum):
    """How an update's tensors travel."""

    RAW = "raw"
    HALF = "half"
    INT8 = "int8"


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerOptimizer:
    """The optimizer a node runs inside one work unit; always starts fresh, so a unit stays a pure function.

    ``name`` is ``sgd`` (``momentum`` used) or ``adamw`` (``beta1``, ``beta2``, ``eps`` used).
    """

    name: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adamw"):
            raise InvalidInput(f"inner optimizer {self.name!r} is not known; use sgd or adamw")
        if not self.lr > 0:
            raise InvalidInput(f"inner optimizer lr must be above 0, got {self.lr}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterOptimizer:
    """How merged updates become the next version.

    ``sgd`` with ``lr`` 1 is federated averaging (McMahan et al. 2017, arXiv:1602.05629);
    ``nesterov`` with ``lr`` 0.7 and ``momentum`` 0.9 is the outer step of DiLoCo (Douillard et al. 2023, arXiv:2311.08105).
    """

    name: str = "sgd"
    lr: float = 1.0
    momentum: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "nesterov"):
            raise InvalidInput(f"outer optimizer {self.name!r} is not known; use sgd or nesterov")
        if not self.lr > 0:
            raise InvalidInput(f"outer optimizer lr must be above 0, got {self.lr}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One mechanism, set by numbers.

    A round trains ``units_per_round`` units of ``samples_per_unit`` samples, all from one version, and merges them.
    Each unit passes ``passes`` times over its samples in batches of ``batch_size``.
    One batch per unit is synchronous data parallel; a large unit is federated averaging or local SGD.
    """

    epochs: int = 10
    batch_size: int = 32
    samples_per_unit: int = 256
    units_per_round: int = 4
    passes: int = 1
    inner: InnerOptimizer = field(default_factory=InnerOptimizer)
    outer: OuterOptimizer = field(default_factory=OuterOptimizer)
    codec: Codec = Codec.RAW

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "samples_per_unit", "units_per_round", "passes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"method {name} must be at least 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """All that decides a job's final bits, plus who may run it and its owner's *wishes*, which decide when and change no bit.

    ``program``, ``dataset``, ``test_dataset`` and ``initial`` are blob digests (``dataset`` names a manifest);
    ``samples`` and ``test_samples`` are counts; ``memory_bytes`` is the most a node needs for one unit.

    The wishes: jobs of a higher ``priority`` go first. With a ``deadline`` a job may draw outside surplus where ``top_up`` says so,
    the price is at most ``top_up_below_eur_mwh`` (None: any) and the operator's policy allows it; without one it takes surplus only.
    """

    job_id: str
    name: str
    program: str
    dataset: str
    samples: int
    test_dataset: str | None
    test_samples: int
    initial: str
    seed: int
    method: Method
    zone: str
    runtime: str = "torch"
    memory_bytes: int = 0
    priority: int = 0
    deadline: datetime | None = None
    labels: tuple[str, ...] = ()
    top_up: bool = True
    top_up_below_eur_mwh: float | None = None

    def __post_init__(self) -> None:
        if not is_name(self.job_id):
            raise InvalidInput(f"job id {self.job_id!r} must be lower-case letters, digits, - and _, at most 63")
        for name in ("program", "dataset", "initial"):
            if not is_digest(getattr(self, name)):
                raise InvalidInput(f"job {self.job_id}: {name} must be a sha256 digest, got {getattr(self, name)!r}")
        if self.samples < 1:
            raise InvalidInput(f"job {self.job_id}: the dataset has no samples")
        if self.top_up_below_eur_mwh is not None and not math.isfinite(self.top_up_below_eur_mwh):
            raise InvalidInput(f"job {self.job_id}: top_up_below_eur_mwh must be a finite price; leave it out for none")

    @property
    def without_wishes(self) -> "JobSpec":
        """What decides the bits, and no more: equal ones are the same training, whenever it is to be done."""
        return replace(self, priority=0, deadline=None, top_up=True, top_up_below_eur_mwh=None)


class JobState(StrEnum):
    """Only ``running`` jobs get work; the others are final."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submitted job. ``version`` counts merged rounds; 0 is ``spec.initial``."""

    spec: JobSpec
    state: JobState
    submitted_at: datetime
    version: int = 0
    reason: str = ""

    @property
    def job_id(self) -> str:
        """The spec's id."""
        return self.spec.job_id

    @property
    def rank(self) -> tuple[int, bool, datetime, datetime, str]:
        """Its place among the jobs that share a cap: a higher priority first, then an earlier deadline, then who came first."""
        deadline = self.spec.deadline
        return (-self.spec.priority, deadline is None, deadline or self.submitted_at, self.submitted_at, self.job_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """A named dataset: ``digest`` is its manifest's, ``size_bytes`` that of all its shards."""

    name: str
    digest: str
    samples: int
    size_bytes: int
    added_at: datetime
    attribution: str = ""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise InvalidInput(f"dataset name {self.name!r} must be lower-case letters, digits, - and _, at most 63")
