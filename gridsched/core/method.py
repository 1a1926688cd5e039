"""How a job is trained: one mechanism, set by numbers, and the field's methods as well-tested settings of it.

A round trains some units, all from one version, and merges their updates into the next. Everything else is a setting: how
long a unit is, what a node's optimizer does in it, how updates travel, by which rule they merge, and whether a round waits for all.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from gridsched.core.errors import InvalidInput

__all__ = ["METHODS", "Codec", "InnerOptimizer", "MergeRule", "Method", "NotFinite", "OuterOptimizer", "Precision"]


class Codec(StrEnum):
    """How tensors travel."""

    RAW = "raw"
    HALF = "half"
    INT8 = "int8"
    INT4 = "int4"


class MergeRule(StrEnum):
    """How a round's updates become one step; all but ``mean`` withstand a share of lying units.

    ``norm_bound`` clips every update to the median norm (Sun et al. 2019, arXiv:1911.07963); ``median`` and ``trimmed_mean`` work
    coordinate by coordinate (Yin et al. 2018, arXiv:1803.01498); ``krum`` takes the update nearest to its neighbours (Blanchard
    et al. 2017, arXiv:1703.02757).
    """

    MEAN = "mean"
    NORM_BOUND = "norm_bound"
    MEDIAN = "median"
    TRIMMED_MEAN = "trimmed_mean"
    KRUM = "krum"


class Precision(StrEnum):
    """``mixed`` computes matrix products in bfloat16 under autocast; parameters and sums stay float32."""

    FLOAT32 = "float32"
    MIXED = "mixed"


class NotFinite(StrEnum):
    """What becomes of a job whose unit ends in NaN or infinity on every node: it stops, or the round goes on without that unit."""

    STOP = "stop"
    SKIP = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class InnerOptimizer:
    """The optimizer a node runs inside one work unit; always starts fresh, so a unit stays a pure function.

    ``name`` is ``sgd`` (``momentum`` used) or ``adamw`` (``beta1``, ``beta2``, ``eps`` used). ``prox`` pulls the parameters back to
    the version the unit began with, as FedProx does (Li et al. 2020, arXiv:1812.06127).
    """

    name: str = "sgd"
    lr: float = 0.05
    momentum: float = 0.0
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    prox: float = 0.0

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "adamw"):
            raise InvalidInput(f"inner optimizer {self.name!r} is not known; use sgd or adamw")
        if not self.lr > 0:
            raise InvalidInput(f"inner optimizer lr must be above 0, got {self.lr}")
        if not 0 <= self.prox < math.inf:
            raise InvalidInput(f"inner optimizer prox must be 0 or more, got {self.prox}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OuterOptimizer:
    """How merged updates become the next version.

    ``sgd`` with ``lr`` 1 is federated averaging (McMahan et al. 2017, arXiv:1602.05629), with ``momentum`` it is FedAvgM;
    ``nesterov`` with ``lr`` 0.7 and ``momentum`` 0.9 is the outer step of DiLoCo (Douillard et al. 2023, arXiv:2311.08105);
    ``adam`` is FedAdam (Reddi et al. 2021, arXiv:2003.00295) with ``beta1``, ``beta2`` and its adaptivity ``eps``.
    """

    name: str = "sgd"
    lr: float = 1.0
    momentum: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.99
    eps: float = 1e-3

    def __post_init__(self) -> None:
        if self.name not in ("sgd", "nesterov", "adam"):
            raise InvalidInput(f"outer optimizer {self.name!r} is not known; use sgd, nesterov or adam")
        for name in ("lr", "eps"):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidInput(f"outer optimizer {name} must be above 0 and finite, got {getattr(self, name)}")
        for name in ("momentum", "beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise InvalidInput(f"outer optimizer {name} must be 0 or more and below 1, got {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """One mechanism, set by numbers; ``name`` says which of `METHODS` they came from, if any.

    A round trains ``units_per_round`` units of ``samples_per_unit`` samples, all from one version, and merges them by ``merge``.
    Each unit passes ``passes`` times over its samples in batches of ``batch_size``, computed ``micro_batch`` samples at a time (0: at
    once). ``samples_per_unit`` 0 is an equal share of the dataset; where the dataset has parts, a unit is a whole part, and
    ``units_per_round`` 0 is all of them. One batch per unit is synchronous data parallel; a large unit is federated averaging.

    ``codec`` is how updates travel up, ``down`` how the step from one version to the next travels down.
    ``bad_share`` is the share of a round's units that a robust ``merge`` is to withstand.

    ``quorum`` 0: a round waits for all its units, and the job ends in the same bits whoever did them. Otherwise ``units_per_round``
    are under way at any time and every ``quorum`` accepted ones merge, each weighed by ``(1 + s) ** -staleness_power`` where ``s``
    versions have come since it began, at most ``max_staleness`` (an older one is trained again); ``unit_seconds`` above 0 cuts units
    shorter for slow nodes (see `core.stream`). ``grace_s`` above 0 merges what a round has that many seconds after it opened, at least
    one unit, and gives the others up: their samples are not merged in that epoch. ``not_finite`` says what follows where a unit ends
    in NaN or infinity on every node; a round that has none left keeps its version.
    """

    name: str = ""
    epochs: int = 10
    batch_size: int = 32
    samples_per_unit: int = 256
    units_per_round: int = 4
    passes: int = 1
    inner: InnerOptimizer = field(default_factory=InnerOptimizer)
    outer: OuterOptimizer = field(default_factory=OuterOptimizer)
    codec: Codec = Codec.RAW
    down: Codec = Codec.RAW
    merge: MergeRule = MergeRule.MEAN
    bad_share: float = 0.2
    quorum: int = 0
    max_staleness: int = 8
    staleness_power: float = 0.5
    unit_seconds: float = 0.0
    grace_s: float = 0.0
    micro_batch: int = 0
    precision: Precision = Precision.FLOAT32
    not_finite: NotFinite = NotFinite.STOP

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "passes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"method {name} must be at least 1, got {getattr(self, name)}")
        for name in ("samples_per_unit", "units_per_round", "quorum", "max_staleness", "micro_batch"):
            if getattr(self, name) < 0:
                raise InvalidInput(f"method {name} must be at least 0, got {getattr(self, name)}")
        for name in ("staleness_power", "unit_seconds", "grace_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InvalidInput(f"method {name} must be a number of at least 0, got {getattr(self, name)}")
        if not 0 <= self.bad_share < 0.5:
            raise InvalidInput(f"method bad_share must be at least 0 and below 0.5, got {self.bad_share}")
        self._check_together()

    def _check_together(self) -> None:
        if self.quorum > max(self.units_per_round, 1):
            raise InvalidInput(f"method quorum {self.quorum} can never be reached with {self.units_per_round} units under way")
        if self.unit_seconds and not self.quorum:
            raise InvalidInput("method unit_seconds cuts units by who does them, so it needs a quorum; leave it out for an exact job")
        if self.grace_s and self.quorum:
            raise InvalidInput("method grace_s ends the wait for all of a round's units, and with a quorum no round waits; leave one out")

    @property
    def exact_is_given_up(self) -> bool:
        """Whether the final bits may depend on who did what when: a quorum, or rounds that close without all their units."""
        return self.quorum > 0 or self.grace_s > 0


METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "single": {"units_per_round": 1, "samples_per_unit": 0},
        "sync": {"units_per_round": 4, "inner_steps": 1, "outer": {"name": "sgd", "lr": 1.0, "momentum": 0.9}},
        "fedavg": {"units_per_round": 4, "samples_per_unit": 0, "passes": 1},
        "local-sgd": {"units_per_round": 4, "inner_steps": 100, "codec": "int8"},
        "diloco": {
            "units_per_round": 4,
            "inner_steps": 500,
            "inner": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.1},
            "outer": {"name": "nesterov", "lr": 0.7, "momentum": 0.9},
            "codec": "int8",
            "down": "int8",
        },
        "async": {"units_per_round": 4, "quorum": 1, "outer": {"name": "sgd", "lr": 0.5}},
        "buffered": {"units_per_round": 8, "quorum": 4},
        "ensemble-bagging": {"units_per_round": 1, "samples_per_unit": 0},
        "ensemble-one-class": {"units_per_round": 1, "samples_per_unit": 0},
    }
)
"""The methods a job file may name, and what each sets; the job file's own settings go before. ``inner_steps`` are batches per unit.

``single`` is the centralised baseline. ``sync`` is data parallel SGD: its inner optimizer is plain ``sgd`` and the momentum is the
outer one's, so that a round of n units is one step on a batch n times as large. The ensembles train members apart, each like ``single``.
"""
