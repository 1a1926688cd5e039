"""The job file: one small Python file by its owner, from which ``gridsched job submit`` makes a job.

It runs on the owner's machine only; what leaves it is a program, a dataset and numbers. It defines at module level:

===================  ====================================================================================================
``model()``          the ``nn.Module`` to train, freshly made; seed inside for a repeatable version 0
``loss(o, batch)``   the scalar loss of the outputs ``o`` on a batch (a dict of tensors by field name)
``example_batch()``  a batch of two samples or more, as tensors
``dataset()``        ``(train, test)``: two dicts of numpy arrays by field name, samples first; ``test`` may be empty
``method()``         settings of ``gridsched.core.method.Method`` as a dict; ``inner`` and ``outer`` may be dicts; ``name`` may
                     be one of `METHODS`, whose settings then stand behind, and ``inner_steps`` the batches of a unit;
                     ``partition`` is a `Partition` as a dict, ``members`` how many an ensemble by bagging has, and
                     ``local`` the name of a dataset that nodes hold for themselves
``partition(train)`` optional, instead of such a dict: a list of positions in ``train`` for each part
``ATTRIBUTION``      optional: the credit the data's licence asks for
===================  ====================================================================================================

``model().forward`` takes the fields its arguments are named after; field ``y`` is compared with the outputs for accuracy.
Where each member of an ensemble learns one class, the outputs are one score per sample instead, such as a log density.
With ``local`` the training samples of ``dataset()`` show what a node's own look like; they are stored with the job all the same, so
they should be made up or public.
"""

import functools
import importlib.util
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy.typing as npt

from gridsched.core.errors import GridschedError, InvalidInput
from gridsched.core.method import METHODS, Codec, InnerOptimizer, MergeRule, Method, NotFinite, OuterOptimizer, Precision
from gridsched.train.partition import Partition
from gridsched.train.tensors import Array

__all__ = ["BAGGING", "ONE_CLASS", "JobFile", "Parts", "load_jobfile", "method_from"]

BAGGING, ONE_CLASS = "ensemble-bagging", "ensemble-one-class"
"""The methods that train members apart, by their names in `METHODS`."""

Parts = Callable[[Mapping[str, Array]], Sequence[npt.ArrayLike]]
"""From the training fields to a list of positions for each part."""

_WORDS: Mapping[str, type[StrEnum]] = {"codec": Codec, "down": Codec, "merge": MergeRule, "precision": Precision, "not_finite": NotFinite}
_FUNCTIONS = ("model", "loss", "example_batch", "dataset", "method")
_KINDS: Mapping[object, str] = {int: "a whole number", float: "a number", str: "text"}
_APART = ("local", "members", "partition")
_MEMBERS = 5
_MOST_MEMBERS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFile:
    """A loaded job file. ``model``, ``loss`` and ``example_batch`` are for ``export``; calling them imports torch.

    ``members`` is above 0 where an ensemble has that many, each on samples of the whole drawn with replacement; ``partition`` says how
    the dataset is cut into parts, if it is; ``local`` names a dataset that nodes hold for themselves.
    """

    name: str
    model: Callable[[], Any]
    loss: Callable[..., Any]
    example_batch: Callable[[], Mapping[str, Any]]
    dataset: Callable[[], tuple[Mapping[str, Array], Mapping[str, Array]]]
    method: Method
    attribution: str = ""
    members: int = 0
    partition: Partition | Parts | None = None
    local: str = ""


def load_jobfile(path: Path) -> JobFile:
    """Run the job file at ``path``. InvalidInput names what is missing in it, or the line where it fails."""
    module = _load(path)
    missing = [name for name in _FUNCTIONS if not callable(getattr(module, name, None))]
    if missing:
        listed = ", ".join(f"{name}()" for name in missing)
        raise InvalidInput(f"{path} does not define {listed}; see gridsched.train.jobfile for what a job file holds")
    settings = _telling(path, module.method)()
    method = method_from(settings, str(path))
    own = getattr(module, "partition", None)
    partition = _partition(settings.get("partition"), _telling(path, own) if callable(own) else None, str(path))
    return JobFile(
        name=path.stem.lower().replace(" ", "-"),
        model=_telling(path, module.model),
        loss=module.loss,
        example_batch=_telling(path, module.example_batch),
        dataset=_telling(path, module.dataset),
        method=method,
        attribution=str(getattr(module, "ATTRIBUTION", "")),
        members=_members(settings.get("members"), method, str(path), cut=partition is not None),
        partition=_for_method(partition, method, str(path)),
        local=_local(settings.get("local", ""), str(path), cut=partition is not None or method.name == ONE_CLASS),
    )


def _local(said: object, where: str, *, cut: bool) -> str:
    if not isinstance(said, str):
        raise InvalidInput(f'{where}: local must be the name of data that nodes hold, such as "steps", got {said!r}')
    if said and cut:
        raise InvalidInput(f"{where}: with local each node's own data are a part, so samples are cut no other way; leave one of them out")
    return said


def _partition(said: object, own: Parts | None, where: str) -> Partition | Parts | None:
    if said is not None and own is not None:
        raise InvalidInput(f"{where} says how the dataset is cut twice; keep partition() or the setting partition")
    if said is None:
        return own
    if not isinstance(said, Mapping):
        raise InvalidInput(f'{where}: partition must be a dict such as {{"by": "dirichlet", "parts": 10}}, got {said!r}')
    made: Partition = _record(Partition, said, f"{where}: partition")
    return made


def _for_method(partition: Partition | Parts | None, method: Method, where: str) -> Partition | Parts | None:
    """A member for each class needs a part for each class, whatever their number."""
    if method.name != ONE_CLASS:
        return partition
    if partition is not None:
        raise InvalidInput(f"{where}: {ONE_CLASS} has a member for each label, so it takes no partition; leave it out")
    return Partition(by="owner", field="y")


def _members(said: object, method: Method, where: str, *, cut: bool) -> int:
    if method.name != BAGGING:
        if said is not None:
            raise InvalidInput(f"{where}: members belongs to {BAGGING}; an ensemble over parts has one member for each")
        return 0
    if cut and said is not None:
        raise InvalidInput(f"{where}: an ensemble over parts has one member for each; leave members out, or the partition")
    members = _MEMBERS if said is None else said
    if type(members) is not int or not 1 <= members <= _MOST_MEMBERS:
        raise InvalidInput(f"{where}: members must be a whole number from 1 to {_MOST_MEMBERS}, got {said!r}")
    return 0 if cut else members


def _load(path: Path) -> ModuleType:
    if not path.is_file():
        raise InvalidInput(f"there is no job file {path}")
    spec = importlib.util.spec_from_file_location(f"gridsched_job_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path} is not a Python file; a job file ends in .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # before executing, or dataclasses in the file cannot find their module
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the owner's code may raise anything
        raise _told(path, error) from error
    return module


def _telling(path: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    """The job file's ``function``, which says in one line where it fails."""

    @functools.wraps(function)
    def call(*args: Any) -> Any:
        try:
            return function(*args)
        except GridschedError:
            raise
        except Exception as error:  # the owner's code may raise anything
            raise _told(path, error) from error

    return call


def _told(path: Path, error: Exception) -> InvalidInput:
    line = _line_in(path, error)
    return InvalidInput(f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}")


def _line_in(path: Path, error: Exception) -> int | None:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return lines[-1] if lines else None


def method_from(settings: object, where: str) -> Method:
    """A ``Method`` from a dict as ``method()`` returns it, without what is the dataset's; InvalidInput names an unknown setting."""
    if not isinstance(settings, Mapping):
        raise InvalidInput(f"{where}: method() must return a dict, got {type(settings).__name__}")
    made = _settled({name: value for name, value in settings.items() if name not in _APART}, where)
    for name, record in (("inner", InnerOptimizer), ("outer", OuterOptimizer)):
        if isinstance(made.get(name), Mapping):
            made[name] = _record(record, made[name], f"{where}: method {name}")
    for name, words in _WORDS.items():
        if name in made:
            made[name] = _word(words, made[name], f"{where}: {name}")
    method: Method = _record(Method, made, f"{where}: method")
    _demand_ranges(method.inner, f"{where}: method inner")
    return method


def _demand_ranges(inner: InnerOptimizer, where: str) -> None:
    """What every node's optimizer would refuse. Asked here and not by the record, which has to read jobs that are stored already."""
    for name in ("weight_decay", "eps"):
        if not getattr(inner, name) >= 0:
            raise InvalidInput(f"{where} setting {name} must be 0 or more, got {getattr(inner, name)}")
    for name in ("momentum", "beta1", "beta2"):
        if not 0 <= getattr(inner, name) < 1:
            raise InvalidInput(f"{where} setting {name} must be 0 or more and below 1, got {getattr(inner, name)}")


def _settled(settings: dict[str, Any], where: str) -> dict[str, Any]:
    """``settings`` over those of the method they name; ``inner_steps`` become samples."""
    name = settings.get("name", "")
    if name and name not in METHODS:
        raise InvalidInput(f"{where}: there is no method {name!r}; use {', '.join(METHODS)}, or leave the name out and set numbers")
    preset = METHODS.get(name, {})
    made = {**preset, **settings}
    for part in ("inner", "outer"):
        if isinstance(settings.get(part), Mapping) and isinstance(preset.get(part), Mapping):
            made[part] = settings[part] if "name" in settings[part] else {**preset[part], **settings[part]}
    if "inner_steps" in made:
        steps, batch = made.pop("inner_steps"), made.get("batch_size", Method().batch_size)
        if type(steps) is not int or steps < 1:
            raise InvalidInput(f"{where}: inner_steps must be a whole number of at least 1, got {steps!r}")
        if "samples_per_unit" not in settings:
            made["samples_per_unit"] = steps * batch
    return made


def _word(words: type[StrEnum], value: object, where: str) -> StrEnum:
    try:
        return words(value)  # type: ignore[arg-type]  # not text is not one of them either
    except ValueError as error:
        raise InvalidInput(f"{where} {value!r} is not known; use {', '.join(words)}") from error


def _record(record: type[Any], settings: Mapping[str, Any], where: str) -> Any:
    known = {item.name: item.type for item in fields(record)}
    for name, value in settings.items():
        if name not in known:
            raise InvalidInput(f"{where} setting {name!r} is not known; known are {', '.join(known)}")
        if not _is_of(known[name], value):
            raise InvalidInput(f"{where} setting {name} must be {_KINDS.get(known[name], 'a dict of settings')}, got {value!r}")
    return record(**settings)


def _is_of(kind: Any, value: object) -> bool:
    """Whether a setting's value is of the field's kind: a number without a point is also one with, and true is no number."""
    return not isinstance(value, bool) and isinstance(value, int | float if kind is float else kind)
