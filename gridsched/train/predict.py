"""From samples to probabilities: one trained model or the members of an ensemble, and how good their answers are.

Knows neither torch nor network: it is handed whatever runs the programs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import DatasetError, InvalidInput, ProgramError
from gridsched.train.ensemble import Rule, by_scores, combine, labels_of, log_softmax
from gridsched.train.graph import FieldSpec, Program, Ref, references
from gridsched.train.operators import ALLOWED
from gridsched.train.tensors import DTYPES, Array

__all__ = ["Answering", "Prediction", "Predictor", "Quality", "asked_fields", "best_of", "quality"]

_CHUNK = 256
_LEAST = 1e-12  # of a probability whose logarithm is taken: a vote gives some labels none at all


class Answering(Protocol):
    """What runs a trained model, such as `TorchRuntime` with a version loaded."""

    program: Program

    def answer(self, batch: Mapping[str, Array]) -> tuple[float, Array]:
        """Mean loss and outputs [batch, ...]."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """``probabilities`` [samples, ..., classes] and the ``labels`` [samples, ...] of the greatest, the lowest of several."""

    probabilities: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How good answers are: ``accuracy`` 0..1, mean ``loss`` in nats, and of each label how often it is recognised.

    ``by_label`` are (label, answers, accuracy). A probability counts as at least 1e-12 in the loss.
    """

    samples: int
    accuracy: float
    loss: float
    by_label: tuple[tuple[int, int, float], ...]


class Predictor:
    """Probabilities from ``members``, which answer with logits or log probabilities of classes.

    Where they ``score`` instead, each answers with one number per sample, and class c is member c's.
    """

    def __init__(self, members: Sequence[Answering], *, score: bool = False) -> None:
        if not members:
            raise InvalidInput("an ensemble needs at least one member")
        for member in members:
            if not score and member.program.target is None:
                raise ProgramError(
                    "this model does not answer with classes, so it has no probabilities: its outputs are not one value per class for each "
                    "whole number of field y; fetch its weights with gridsched job fetch"
                )
        self.score = score
        self.fields = asked_fields(members[0].program)
        self._members = members

    @property
    def members(self) -> int:
        """How many answers are combined."""
        return len(self._members)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The rules there are a choice of; none for a single model."""
        if self.score:
            return (Rule.CONFIDENCE,)
        return tuple(Rule) if self.members > 1 else ()

    def rule(self, wanted: Rule | None) -> Rule:
        """``wanted``, or the one to begin with. InvalidInput where these members cannot be combined so."""
        if wanted is not None and not self.rules:
            raise InvalidInput("a single model has nothing to combine; leave the rule out")
        if wanted is None:
            return self.rules[0] if len(self.rules) == 1 else Rule.SUM
        if wanted not in self.rules:
            raise InvalidInput(f"members that know one class each are combined by {Rule.CONFIDENCE} alone, not by {wanted}")
        return wanted

    def predict(self, samples: Mapping[str, Array], rule: Rule | None = None) -> Prediction:
        """Answers to ``samples`` (the `fields` by name, samples first); rows of any number, worked on a few hundred at a time."""
        return self.combine(self.answers(samples), rule)

    def answers(self, samples: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        """What each member says: log probabilities [members, samples, ..., classes], or scores [members, samples]."""
        rows = _rows(samples, self.fields)
        chunks = [slice(start, start + _CHUNK) for start in range(0, len(next(iter(rows.values()))), _CHUNK)]
        parts = [
            [self._answer(member, {name: array[chunk] for name, array in rows.items()}) for chunk in chunks] for member in self._members
        ]
        return np.stack([np.concatenate(member) for member in parts])

    def combine(self, answers: npt.NDArray[np.float64], rule: Rule | None = None) -> Prediction:
        """One prediction from what `answers` gave."""
        probabilities = self._combined(answers, self.rule(rule))
        return Prediction(probabilities=probabilities, labels=labels_of(probabilities))

    def _combined(self, answers: npt.NDArray[np.float64], rule: Rule) -> npt.NDArray[np.float64]:
        if self.score:
            return by_scores(answers)
        return combine(answers, rule) if self.members > 1 else np.exp(answers[0])

    def _answer(self, member: Answering, rows: Mapping[str, Array]) -> npt.NDArray[np.float64]:
        count = len(next(iter(rows.values())))
        _, outputs = member.answer(_batch(member.program, rows, max(count, 2)))  # programs are traced with two samples or more
        outputs = outputs[:count]
        if not self.score:
            return log_softmax(outputs)
        if outputs.shape not in ((count,), (count, 1)):
            raise ProgramError(f"a member that knows one class answers with one score per sample, got shape {outputs.shape[1:]}")
        scores = outputs.reshape(count).astype(np.float64)
        if not np.isfinite(scores).all():
            raise InvalidInput("a member answers with scores that are not numbers; take an earlier version with --version")
        return scores


def asked_fields(program: Program) -> tuple[FieldSpec, ...]:
    """The fields that a model's answers depend on; the others, such as the label, only its loss does."""
    graph = program.evaluate
    wanted: set[Ref] = {graph.outputs}
    for node in reversed(graph.nodes):
        if Ref("node", node.name) in wanted or ALLOWED[node.op] == "update":  # what writes in place may change what others see
            wanted.update(references((*node.args, *node.kwargs.values())))
    return tuple(field for field in program.fields if Ref("field", field.name) in wanted)


def quality(prediction: Prediction, y: Array) -> Quality:
    """``prediction`` against the true labels ``y`` [samples, ...]."""
    classes = prediction.probabilities.shape[-1]
    if y.shape != prediction.labels.shape or y.min() < 0 or y.max() >= classes:
        raise DatasetError(f"labels of shape {y.shape} from {y.min()} to {y.max()} do not belong to answers over {classes} classes")
    truth = y.reshape(-1).astype(np.int64)
    right = prediction.labels.reshape(-1) == truth
    given = prediction.probabilities.reshape(-1, classes)[np.arange(len(truth)), truth]
    return Quality(
        samples=len(y),
        accuracy=float(right.mean()),
        loss=float(-np.log(np.maximum(given, _LEAST)).mean()),
        by_label=tuple((int(label), int((truth == label).sum()), float(right[truth == label].mean())) for label in np.unique(truth)),
    )


def best_of(found: Mapping[Rule, Quality]) -> Rule:
    """The rule to use: the most accurate, of equal ones that of least loss."""
    return min(found, key=lambda rule: (-found[rule].accuracy, found[rule].loss))


def _rows(samples: Mapping[str, Array], fields: Sequence[FieldSpec]) -> dict[str, Array]:
    rows = {field.name: _row_field(samples, field) for field in fields}
    if not rows:
        raise ProgramError("this model's answers depend on no field of a sample")
    lengths = {len(array) for array in rows.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise DatasetError(f"all fields need the same number of samples, at least one, got {sorted(lengths)}")
    return rows


def _row_field(samples: Mapping[str, Array], field: FieldSpec) -> Array:
    """The field in the dtype that the program reads, if nothing is lost by that."""
    wanted = f"field {field.name!r} as {field.dtype} of shape {field.shape} per sample"
    if field.name not in samples:
        raise DatasetError(f"the model asks for {wanted}; given are {', '.join(samples) or 'none'}")
    given = samples[field.name]
    if given.dtype.kind not in "biuf" or given.ndim < 1 or given.shape[1:] != field.shape:
        raise DatasetError(f"the model asks for {wanted}; given is {given.dtype} of shape {given.shape[1:]}")
    with np.errstate(invalid="ignore", over="ignore"):
        made = given.astype(DTYPES[field.dtype])
    if not np.isfinite(made).all() or (made.dtype.kind != "f" and not np.array_equal(made, given)):
        raise DatasetError(f"the model asks for {wanted}; some of the given values are not such numbers")
    return made


def _batch(program: Program, rows: Mapping[str, Array], count: int) -> dict[str, Array]:
    """``rows``, the last one repeated up to ``count``, and zeros for the fields that only the loss depends on."""
    batch = {}
    for field in program.fields:
        if field.name in rows:
            array = rows[field.name]
            batch[field.name] = np.ascontiguousarray(np.concatenate([array, array[-1:].repeat(count - len(array), axis=0)]))
        else:
            batch[field.name] = np.zeros((count, *field.shape), DTYPES[field.dtype])
    return batch
