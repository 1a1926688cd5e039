"""What data, members and rules do to accuracy: models trained apart and asked together, against one model of all the data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from gridsched.core.job import JobSpec
from gridsched.study.alone import Bench
from gridsched.train.ensemble import Rule
from gridsched.train.partition import Partition
from gridsched.train.torch_runtime import TorchRuntime

__all__ = ["CASES", "Combination", "Members", "Share", "combinations", "data", "members"]

_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
_COUNTS = (1, 2, 3, 5, 8, 12)

CASES = {
    "alike": Partition(by="iid", parts=5),
    "uneven (Dirichlet 0.5)": Partition(by="dirichlet", parts=5, alpha=0.5),
    "two labels each": Partition(by="label", parts=5, labels=2),
}
"""Who holds what, among five members."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Accuracy of one model of the first ``samples`` samples, and of that model with as many steps as on all of them."""

    samples: int
    accuracy: float
    as_many_steps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Members:
    """``count`` members together (by sum) and the mean of each alone: of equal shares of the samples, and of bags drawn from all."""

    count: int
    shares: float
    one_share: float
    bags: float
    one_bag: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Accuracy by rule, the mean of the members alone, and which rule to use, for members who hold what ``case`` says."""

    case: str
    by_rule: dict[str, float]
    mean_alone: float

    @property
    def best(self) -> str:
        """The rule with the greatest accuracy, the first of several."""
        return max(self.by_rule, key=lambda rule: (self.by_rule[rule], -list(Rule).index(Rule(rule))))


def data(bench: Bench, told: Callable[[str], None], shares: Sequence[float] = _SHARES) -> list[Share]:
    """Accuracy against the amount of data, from one batch upwards."""
    found = []
    whole, batch = bench.spec.samples, bench.spec.method.batch_size
    for share in shares:
        count = round(share * whole)
        if count < batch:
            continue
        told(f"{count} of {whole} samples")
        spec = _on_part(bench.spec, (count, whole - count) if count < whole else (whole,), 0)
        once = bench.accuracy([bench.train(spec)])
        longer = replace(spec, method=replace(spec.method, passes=spec.method.passes * round(1 / share)))
        found.append(Share(samples=count, accuracy=once, as_many_steps=bench.accuracy([bench.train(longer)]) if count < whole else once))
    return found


def members(bench: Bench, told: Callable[[str], None], counts: Sequence[int] = _COUNTS) -> list[Members]:
    """Accuracy against the number of members, as long as each has a batch of samples."""
    found = []
    bags: list[TorchRuntime] = []
    for count in (count for count in counts if bench.spec.samples // count >= bench.spec.method.batch_size):
        told(f"{count} members")
        parted = bench.parted(Partition(by="iid", parts=count))
        shares = [parted.train(_on_part(parted.spec, parted.spec.parts, part)) for part in range(count)]
        bags += [bench.train(replace(bench.spec, bag=bag)) for bag in range(len(bags), count)]
        found.append(
            Members(
                count=count,
                shares=bench.accuracy(shares),
                one_share=_mean([bench.accuracy([one]) for one in shares]),
                bags=bench.accuracy(bags[:count]),
                one_bag=_mean([bench.accuracy([one]) for one in bags[:count]]),
            )
        )
    return found


def combinations(bench: Bench, told: Callable[[str], None]) -> list[Combination]:
    """Every rule for members who hold the same and for members who hold different things."""
    found = []
    for case, how in CASES.items():
        told(f"members who hold {case}")
        parted = bench.parted(how)
        made = [parted.train(_on_part(parted.spec, parted.spec.parts, part)) for part in range(len(parted.spec.parts))]
        alone = _mean([bench.accuracy([one]) for one in made])
        found.append(Combination(case=case, by_rule=bench.by_rule(made), mean_alone=alone))
    return found


def _on_part(spec: JobSpec, parts: Sequence[int], part: int) -> JobSpec:
    return replace(spec, parts=tuple(parts), part=part)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
