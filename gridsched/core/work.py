"""The work unit: a pure function of (version, range, seed), with a middle."""

import math
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from gridsched.core.method import Codec, InnerOptimizer, Precision

__all__ = ["Refusal", "UnitKind", "UnitSpec", "UnitState", "WorkUnit"]


class UnitKind(StrEnum):
    """``train`` returns an update, ``evaluate`` metrics."""

    TRAIN = "train"
    EVALUATE = "evaluate"


class UnitState(StrEnum):
    """``open`` units wait for a node, ``leased`` ones have one; ``accepted`` and ``abandoned`` are final."""

    OPEN = "open"
    LEASED = "leased"
    ACCEPTED = "accepted"
    ABANDONED = "abandoned"


class Refusal(StrEnum):
    """Why an update was not accepted; the same words in logs, metrics, API and pages."""

    NOT_FINITE = "not_finite"
    WRONG_SHAPE = "wrong_shape"
    WRONG_VERSION = "wrong_version"
    OLD_GENERATION = "old_generation"
    UNREADABLE = "unreadable"
    NORM_BOUND = "norm_bound"
    UNIT_CLOSED = "unit_closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """Everything the trainer needs to know; equal specs give equal bits within one hardware class.

    ``[start, stop)`` is a range of positions in the epoch's sample order (for ``evaluate``: of the test set itself);
    ``base`` is the digest of model version ``version``; ``program`` and ``dataset`` are digests;
    ``digest_every`` is the number of steps between two parameter digests for audits.

    With ``of`` above 0 the order is that of the dataset's stretch ``[first, first + of)`` alone; with ``bag`` 0 or more it is an order
    of as many samples drawn with replacement. A batch is computed ``micro_batch`` samples at a time (0: at once), in ``precision``.
    Where ``local`` is a name, ``dataset`` is the node's own data of that name. With ``exact_buffers`` running statistics travel as
    they are, whatever the ``codec``; units of earlier releases are without, and come out the same again.
    It takes ``memory_bytes`` beyond the runtime's own: a node that does not have them free refuses it.
    """

    unit_id: str
    job_id: str
    kind: UnitKind
    program: str
    dataset: str
    base: str
    version: int
    epoch: int
    start: int
    stop: int
    batch_size: int
    passes: int
    seed: int
    inner: InnerOptimizer
    codec: Codec = Codec.RAW
    digest_every: int = 20
    first: int = 0
    of: int = 0
    bag: int = -1
    micro_batch: int = 0
    precision: Precision = Precision.FLOAT32
    memory_bytes: int = 0
    local: str = ""
    exact_buffers: bool = False

    @property
    def samples(self) -> int:
        """Distinct samples in the range; the weight of the unit in a merge."""
        return self.stop - self.start

    @property
    def last_batch(self) -> int:
        """Samples in the last batch of a pass, which takes what is left."""
        return (self.samples - 1) % self.batch_size + 1

    @property
    def steps(self) -> int:
        """Optimizer steps (or evaluation batches) from start to end."""
        return math.ceil(self.samples / self.batch_size) * self.passes


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkUnit:
    """A unit in its round. ``leases`` counts the leases made on it so far and numbers the next one.

    ``only_node`` is the one node that can do it, where the data is that node's own. ``audits`` is the unit that this one does again
    elsewhere, to be compared with it and never merged, ``audit_reason`` why, and ``audit_at`` since when. ``answer`` is what its result
    counts as where results are compared: equal texts are the same result. ``digests`` are (step, parameter digest) along the way.
    ``middle_of`` are the leases whose work is in ``continuation``; it says nothing where there is none.
    """

    spec: UnitSpec
    round_id: str
    index: int
    state: UnitState = UnitState.OPEN
    leases: int = 0
    continuation: str | None = None
    continuation_step: int = 0
    update: str | None = None
    update_norm: float | None = None
    accepted_lease: str | None = None
    accepted_at: datetime | None = None
    only_node: str = ""
    audits: str = ""
    audit_reason: str = ""
    audit_at: datetime | None = None
    answer: str = ""
    digests: tuple[tuple[int, str], ...] = ()
    middle_of: tuple[str, ...] = ()

    @property
    def middles(self) -> tuple[str, ...]:
        """The leases whose handed-over work is in the continuation, and so in what comes of it; none where it begins anew."""
        return self.middle_of if self.continuation is not None else ()

    @property
    def unit_id(self) -> str:
        """The spec's id."""
        return self.spec.unit_id
