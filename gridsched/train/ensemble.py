"""Several members, one answer: the rules by which the answers of models trained apart become one.

The rules are those of Kittler, Hatef, Duin and Matas 1998, "On combining classifiers" (doi 10.1109/34.667881): product, sum, max,
min, median and majority vote; and confidence, where the surest member answers alone. All work on natural logarithms in float64,
so that a product over many members neither underflows nor loses a small probability, and none depends on the members' order:
what is summed is sorted first.

Members that learned one class each answer with a score instead, a log density or a negative error. `by_scores` compares the scores as
they are: with log densities that is Bayes' rule with equal priors.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from gridsched.core.errors import InvalidInput
from gridsched.train.tensors import Array

__all__ = ["Rule", "by_scores", "combine", "labels_of", "log_softmax"]

Logs = npt.NDArray[np.float64]


class Rule(StrEnum):
    """How members' probabilities become one; ``confidence`` lets the member of least entropy answer."""

    PRODUCT = "product"
    SUM = "sum"
    MAX = "max"
    MIN = "min"
    MEDIAN = "median"
    MAJORITY = "majority"
    CONFIDENCE = "confidence"


def log_softmax(outputs: Array) -> Logs:
    """Log probabilities [..., classes] of logits (or of unnormalised log probabilities) [..., classes]. Raises InvalidInput for NaN."""
    logits = np.asarray(outputs, np.float64)
    if np.isnan(logits).any() or (logits == np.inf).any():
        raise InvalidInput("a model answers with values that are not numbers; take an earlier version, or leave this member out")
    shifted = logits - logits.max(axis=-1, keepdims=True)
    normalised: Logs = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised


def combine(log_probabilities: Logs, rule: Rule) -> Logs:
    """Members' log probabilities [members, ..., classes] -> one answer's probabilities [..., classes].

    One member is left as it is by every rule but ``majority``, which knows its label only.
    """
    if log_probabilities.ndim < 2 or not len(log_probabilities) or not log_probabilities.shape[-1]:
        raise InvalidInput(f"an ensemble's answers have shape [members, ..., classes], got {log_probabilities.shape}")
    return _RULES[rule](log_probabilities)


def by_scores(scores: Array) -> Logs:
    """Scores [members, ...] of members that know one class each -> probabilities [..., members]; class c is member c's."""
    return np.exp(log_softmax(np.moveaxis(np.asarray(scores, np.float64), 0, -1)))


def labels_of(probabilities: Array) -> npt.NDArray[np.int64]:
    """The most probable label [...] of probabilities [..., classes]; the lowest of several."""
    labels: npt.NDArray[np.int64] = probabilities.argmax(axis=-1).astype(np.int64)
    return labels


def _product(logs: Logs) -> Logs:
    return _from_logs(np.sort(logs, axis=0).sum(axis=0))


def _sum(logs: Logs) -> Logs:
    return _normalised(np.sort(np.exp(logs), axis=0).sum(axis=0))


def _max(logs: Logs) -> Logs:
    return _from_logs(logs.max(axis=0))


def _min(logs: Logs) -> Logs:
    return _from_logs(logs.min(axis=0))


def _median(logs: Logs) -> Logs:
    return _normalised(np.median(np.exp(logs), axis=0))


def _majority(logs: Logs) -> Logs:
    votes = logs.argmax(axis=-1)[..., None] == np.arange(logs.shape[-1])
    return _normalised(votes.sum(axis=0).astype(np.float64))


def _confidence(logs: Logs) -> Logs:
    probabilities = np.exp(logs)
    with np.errstate(invalid="ignore"):
        surprise = np.where(probabilities > 0, probabilities * logs, 0.0)
    entropy = -np.sort(surprise, axis=-1).sum(axis=-1)
    surest = (entropy == entropy.min(axis=0))[..., None]  # several may be as sure as one another: then they answer together
    return _normalised(np.sort(np.where(surest, probabilities, 0.0), axis=0).sum(axis=0))


def _from_logs(logs: Logs) -> Logs:
    """Probabilities of unnormalised logarithms; where every class is impossible, all are as probable."""
    impossible = np.isneginf(logs).all(axis=-1, keepdims=True)
    return np.exp(log_softmax(np.where(impossible, 0.0, logs)))


def _normalised(weights: Logs) -> Logs:
    total = weights.sum(axis=-1, keepdims=True)
    return np.where(total > 0, weights / np.where(total > 0, total, 1.0), 1.0 / weights.shape[-1])


_RULES: Mapping[Rule, Callable[[Logs], Logs]] = MappingProxyType(
    {
        Rule.PRODUCT: _product,
        Rule.SUM: _sum,
        Rule.MAX: _max,
        Rule.MIN: _min,
        Rule.MEDIAN: _median,
        Rule.MAJORITY: _majority,
        Rule.CONFIDENCE: _confidence,
    }
)
