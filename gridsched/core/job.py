"""What a model owner asks for: a program, a dataset, and the method by which it is trained."""

import math
import re
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum

from gridsched.core.errors import InvalidInput
from gridsched.core.method import Method

__all__ = ["WASM", "Dataset", "Job", "JobSpec", "JobState", "is_digest", "is_name", "kind_of_runtime"]

WASM = "wasm-"
"""How the hardware classes of the second runtime begin; what follows names its kernels, and the device is all one."""

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def is_digest(text: str) -> bool:
    """Whether ``text`` is a sha256 in lower-case hexadecimal, the only name a blob has."""
    return _DIGEST.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether ``text`` may name a job, node, zone or dataset: it appears in ids, file names and metric labels."""
    return _NAME.fullmatch(text) is not None


def kind_of_runtime(hardware_class: str) -> str:
    """``torch`` or ``wasm``, which a hardware class begins with.

    Their dropouts draw different numbers, so that even short units agree in all but rounding only within one of them.
    """
    return hardware_class.partition("-")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """All that decides a job's final bits, plus its owner's *wishes*, which decide when and where and change no bit of a hardware class.

    ``program``, ``dataset``, ``test_dataset`` and ``initial`` are blob digests (``dataset`` names a manifest);
    ``samples`` and ``test_samples`` are counts; ``memory_bytes`` is what a node needs for one unit beyond the runtime's own.

    ``parts`` are the sizes of consecutive stretches of the dataset, one for each who would hold it: a unit is then one whole part
    (federated averaging over non-identical data), or, with ``part`` 0 or more, the job trains on that part alone. ``local`` names a
    dataset that each node holds for itself and that never leaves it; ``dataset`` then only says what its fields are.
    Members of an ensemble are jobs of the same ``ensemble``, told apart by ``member``; with ``bag`` 0 or more one draws its samples
    with replacement (Breiman 1996, "Bagging predictors").

    The wishes: only nodes whose hardware class begins with ``runtime`` get units ("": any that covers the program; ``wasm``: the same
    bits on every device). Jobs of a higher ``priority`` go first. With a ``deadline`` a job may draw outside surplus where ``top_up``
    says so, the price is at most ``top_up_below_eur_mwh`` (None: any) and the operator's policy allows it; without one it takes
    surplus only.
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
    runtime: str = ""
    memory_bytes: int = 0
    priority: int = 0
    deadline: datetime | None = None
    labels: tuple[str, ...] = ()
    top_up: bool = True
    top_up_below_eur_mwh: float | None = None
    parts: tuple[int, ...] = ()
    part: int = -1
    bag: int = -1
    local: str = ""
    ensemble: str = ""
    member: int = 0

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
        self._check_parts()

    def _check_parts(self) -> None:
        if self.parts and (min(self.parts) < 1 or sum(self.parts) != self.samples):
            raise InvalidInput(f"job {self.job_id}: its parts must each have a sample and sum to {self.samples}, got {self.parts[:20]}")
        if self.part >= len(self.parts) and self.part >= 0:
            raise InvalidInput(f"job {self.job_id}: there is no part {self.part}, the dataset has {len(self.parts)}")
        for name in ("local", "ensemble"):
            if getattr(self, name) and not is_name(getattr(self, name)):
                raise InvalidInput(f"job {self.job_id}: {name} {getattr(self, name)!r} must be lower-case letters, digits, - and _")
        if self.method.units_per_round == 0 and not ((self.parts and self.part < 0) or self.local):
            raise InvalidInput(f"job {self.job_id}: units_per_round 0 means all parts, and its dataset has none; give a number")

    @property
    def epoch_samples(self) -> int:
        """Samples that one epoch visits: all, or those of its part."""
        return self.parts[self.part] if self.part >= 0 else self.samples

    @property
    def unit_samples(self) -> int:
        """Samples of an ordinary unit; the last one of an epoch may be shorter."""
        return self.method.samples_per_unit or math.ceil(self.epoch_samples / max(self.method.units_per_round, 1))

    @property
    def units_at_once(self) -> int:
        """Units that nodes can work on at the same time."""
        return self.method.units_per_round or len(self.parts) or 1

    @property
    def without_wishes(self) -> "JobSpec":
        """What decides the bits, and no more: equal ones are the same training, whenever and wherever it is to be done."""
        return replace(self, runtime="", priority=0, deadline=None, top_up=True, top_up_below_eur_mwh=None, memory_bytes=0)


class JobState(StrEnum):
    """Only ``running`` jobs get work; the others are final."""

    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A submitted job. ``version`` counts merged rounds; 0 is ``spec.initial``.

    ``wasm_lacks`` says what the wasm runtime lacks for it, as found when it was submitted; "" where it covers the job.
    """

    spec: JobSpec
    state: JobState
    submitted_at: datetime
    version: int = 0
    reason: str = ""
    wasm_lacks: str = ""

    @property
    def job_id(self) -> str:
        """The spec's id."""
        return self.spec.job_id

    def runs_on(self, runtime: str) -> bool:
        """Whether a hardware class may train this job: it is one its owner allows, and it covers the program."""
        return runtime.startswith(self.spec.runtime) and not (self.wasm_lacks and runtime.startswith(WASM))

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
