"""Who holds which samples: the partitions under which learning on separate data is compared.

Each function gives, for every part, the positions of its samples in increasing order: no sample in two parts, none left out. Draws are
those of `gridsched.train.draws`, save the Dirichlet's: its gamma variates come from numpy's generator, whose stream may change between
releases (NEP 19). That is harmless here: a partition is made once, on the owner's machine, and a job names the dataset that came of it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import DatasetError, InvalidInput
from gridsched.train.draws import draw_key, permutation
from gridsched.train.tensors import Array

__all__ = ["Indices", "Partition", "by_label", "by_owner", "cut", "dirichlet", "iid", "reordered"]

Indices = npt.NDArray[np.int64]

_WAYS = ("iid", "label", "dirichlet", "owner")
_TRIES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """How a dataset is cut into parts, as a job file says it.

    ``by`` is ``iid``, ``label`` (``labels`` different ones in each part), ``dirichlet`` (``alpha``, at least ``smallest`` samples in each
    part) or ``owner``: a part for each value of ``field``, whatever ``parts`` says. For the others ``field`` holds the labels.
    """

    by: str
    parts: int = 10
    labels: int = 1
    alpha: float = 0.5
    smallest: int = 10
    field: str = "y"

    def __post_init__(self) -> None:
        if self.by not in _WAYS:
            raise InvalidInput(f"partition by {self.by!r} is not known; use {', '.join(_WAYS)}")
        for name in ("parts", "labels", "smallest"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 1:
                raise InvalidInput(f"partition {name} must be a whole number of at least 1, got {getattr(self, name)!r}")
        if not 0 < self.alpha < np.inf:
            raise InvalidInput(f"partition alpha must be above 0, got {self.alpha}")


def cut(fields: Mapping[str, Array], how: Partition, *, seed: int) -> list[Indices]:
    """The parts of a dataset with these ``fields``. DatasetError where it cannot be cut so."""
    if how.by == "iid":
        return iid(len(next(iter(fields.values()))), how.parts, seed=seed)
    if how.field not in fields:
        raise DatasetError(f"partition by {how.by} needs field {how.field!r}; the dataset has {', '.join(fields)}")
    values = fields[how.field]
    if how.by == "owner":
        return by_owner(values)
    if how.by == "label":
        return by_label(values, how.parts, labels=how.labels, seed=seed)
    return dirichlet(values, how.parts, alpha=how.alpha, smallest=how.smallest, seed=seed)


def iid(samples: int, parts: int, *, seed: int) -> list[Indices]:
    """Equal shares (but for one sample) drawn at random."""
    if not 1 <= parts <= samples:
        raise DatasetError(f"{samples} samples cannot be cut into {parts} parts")
    return _sorted(np.array_split(permutation(draw_key("iid", seed), samples), parts))


def by_label(y: Array, parts: int, *, labels: int, seed: int) -> list[Indices]:
    """``labels`` different labels in each part; those who hold a label share its samples equally.

    Part i holds label i, going round, and others drawn at random (Li et al. 2022, "Federated learning on non-IID data silos",
    arXiv:2102.02079; the same in Flower's ``niid_bench``). Where there are fewer parts than labels, those that no part holds yet are
    drawn first, so that no sample is left out: as many parts as it takes of ``labels`` each then share none.
    """
    values = _labels_of(y)
    held = _labels_by_part(len(values), parts, labels, seed)
    made: list[list[Indices]] = [[] for _ in range(parts)]
    for label, value in enumerate(values):
        holders = [part for part in range(parts) if label in held[part]]
        for part, share in zip(holders, np.array_split(_shuffled(y, value, seed), len(holders)), strict=True):
            made[part].append(share)
    return _sorted([np.concatenate(shares) for shares in made])


def _labels_by_part(count: int, parts: int, labels: int, seed: int) -> list[set[int]]:
    if not 1 <= labels <= count or parts * labels < count:
        raise DatasetError(f"{parts} parts of {labels} labels each cannot hold {count} labels; change partition parts or labels")
    held = [{part % count} for part in range(parts)]
    for part in range(parts):
        nobody = set(range(count)).difference(*held)
        drawn = [int(label) for label in permutation(draw_key("labels", seed, part), count) if label not in held[part]]
        held[part] |= set(sorted(drawn, key=lambda label: label not in nobody)[: labels - 1])
    return held


def dirichlet(y: Array, parts: int, *, alpha: float, seed: int, smallest: int = 10) -> list[Indices]:
    """Each label's samples shared out by a draw from a Dirichlet distribution of concentration ``alpha``: the smaller, the more uneven.

    A part that has its equal share of all samples gets no further label, and the whole is drawn again until each part has
    ``smallest`` samples (Li et al. 2022, arXiv:2102.02079, as in Flower's ``niid_bench``).
    """
    if parts * smallest > len(y):
        raise DatasetError(f"{len(y)} samples are not enough for {parts} parts of at least {smallest}")
    generator = np.random.Generator(np.random.PCG64(draw_key("dirichlet", seed)))
    chunks = [_shuffled(y, value, seed) for value in _labels_of(y)]
    for _ in range(_TRIES):
        made = _dirichlet_once(chunks, parts, alpha, generator)
        if min(map(len, made)) >= smallest:
            return _sorted(made)
    raise DatasetError(f"no draw in {_TRIES} gave each of {parts} parts {smallest} samples; raise partition alpha or lower smallest")


def _dirichlet_once(chunks: Sequence[Indices], parts: int, alpha: float, generator: np.random.Generator) -> list[Indices]:
    equal_share = sum(map(len, chunks)) / parts
    made: list[list[Indices]] = [[] for _ in range(parts)]
    for chunk in chunks:
        sizes = np.array([sum(map(len, held)) for held in made])
        shares = generator.dirichlet(np.full(parts, alpha)) * (sizes < equal_share)
        shares = shares / shares.sum() if shares.sum() > 0 else np.full(parts, 1 / parts)
        borders = (np.cumsum(shares) * len(chunk)).astype(np.int64)[:-1]
        for held, share in zip(made, np.split(chunk, borders), strict=True):
            held.append(share)
    return [np.concatenate(held) for held in made]


def by_owner(owner: Array) -> list[Indices]:
    """One part for each value of ``owner`` [n], in the order of the values: the samples of one person, device or place."""
    _, codes = np.unique(_one_axis(owner), return_inverse=True)
    return [np.flatnonzero(codes == code).astype(np.int64) for code in range(int(codes.max()) + 1)]


def reordered(fields: Mapping[str, Array], parts: object) -> tuple[dict[str, Array], tuple[int, ...]]:
    """``fields`` with the samples of each part next to one another, and the parts' sizes, as `JobSpec.parts` has them.

    ``parts`` is what an owner's function gave, so it may be anything. A sample may be left out; DatasetError where one is in two parts,
    is not there, or a part is empty.
    """
    samples = len(next(iter(fields.values())))
    lists = [np.asarray(part) for part in parts] if isinstance(parts, Iterable) else []
    if not lists or any(part.ndim != 1 or not len(part) or part.dtype.kind not in "iu" for part in lists):
        raise DatasetError("a partition is one list of positions for each part, none of them empty")
    whole = np.concatenate(lists).astype(np.int64)
    if whole.min() < 0 or whole.max() >= samples:
        raise DatasetError(f"a partition names position {whole.max() if whole.max() >= samples else whole.min()} of {samples} samples")
    if len(np.unique(whole)) != len(whole):
        raise DatasetError("a sample is in two parts; each can be in one only")
    return {name: array[whole] for name, array in fields.items()}, tuple(map(len, lists))


def _labels_of(y: Array) -> Array:
    """The distinct labels in increasing order."""
    found: Array = np.unique(_one_axis(y))
    return found


def _one_axis(values: Array) -> Array:
    if values.ndim != 1 or not len(values):
        raise DatasetError(f"a partition needs one value per sample, got shape {values.shape}")
    return values


def _shuffled(y: Array, value: object, seed: int) -> Indices:
    where = np.flatnonzero(y == value)
    chosen: Indices = where[permutation(draw_key("label", seed, str(value)), len(where))].astype(np.int64)
    return chosen


def _sorted(parts: Sequence[Indices]) -> list[Indices]:
    return [np.sort(part) for part in parts]
