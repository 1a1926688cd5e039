"""The house rules that no linter knows, or that are too dear to leave to one line of configuration.

Each rule is shown one offence first: a rule that cannot see what it forbids guards nothing.
"""

import ast
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGE = REPOSITORY / "gridsched"
MODULES = sorted(str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py"))

LONGEST = 400
"""Lines of a module; about 300 is the aim."""

Finder = Callable[[ast.Module], Iterator[ast.AST]]


def imports(*packages: str) -> Finder:
    """Every import of one of ``packages``."""

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] in packages for name in names):
                yield node

    return find


def names(*dotted: str) -> Finder:
    """Every mention of a dotted name, such as ``os.environ``; also under ``from os import environ``."""

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and any(f".{ast.unparse(node)}".endswith(f".{name}") for name in dotted):
                yield node
            if isinstance(node, ast.ImportFrom) and {f"{node.module}.{alias.name}" for alias in node.names} & set(dotted):
                yield node

    return find


def calls(function: str) -> Finder:
    """Every call of a plain function."""

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        yield from (node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == function)

    return find


def nodes(*kinds: type[ast.AST]) -> Finder:
    """Every piece of syntax of these kinds."""

    def find(tree: ast.Module) -> Iterator[ast.AST]:
        yield from (node for node in ast.walk(tree) if isinstance(node, kinds))

    return find


def careless_loads(tree: ast.Module) -> Iterator[ast.AST]:
    """``np.load`` that does not say ``allow_pickle=False``."""
    for node in calls("np.load")(tree):
        assert isinstance(node, ast.Call)
        if not any(word.arg == "allow_pickle" and ast.unparse(word.value) == "False" for word in node.keywords):
            yield node


def foreign_imports(tree: ast.Module) -> Iterator[ast.AST]:
    """Imports of anything but the standard library, numpy and gridsched itself."""
    for node in ast.walk(tree):
        found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        found += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if any(name.split(".")[0] not in {*sys.stdlib_module_names, "numpy", "gridsched"} for name in found):
            yield node


def ill_named_classes(tree: ast.Module) -> Iterator[ast.AST]:
    """Classes whose name has a word that the glossary gives another word for, or that says nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and NOT_OUR_WORDS & set(re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", node.name)):
            yield node


NOT_OUR_WORDS = {
    # one word per thing: these have another, which docs/glossary.md names
    *("Allocation", "Allocator", "Billing", "Chunk", "Datapoint", "Feed", "Gradient", "Peer", "Refund", "Sensor", "Strategy"),
    *("Subscriber", "Subscription", "Verdict"),
    # and these say nothing
    *("Common", "Handler", "Helper", "Manager", "Misc", "Util", "Utils"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """``allowed`` are the only places (a module, or a folder ending in /) where ``find`` may find something; ``within`` where it looks."""

    find: Finder
    offence: str
    allowed: Sequence[str] = ()
    within: str = ""


RULES = {
    "nothing is pickled": Rule(
        find=imports("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"),
        offence="import pickle",
        allowed=["train/images.py"],  # an owner's own CIFAR-10, by a reader that makes plain data and runs nothing
    ),
    "numpy never unpickles": Rule(find=careless_loads, offence="np.load(path)"),
    "torch never pickles": Rule(
        find=names("torch.load", "torch.save", "torch.export.save", "torch.export.load"), offence="torch.load(path)"
    ),
    "only cli prints": Rule(find=calls("print"), offence="print(1)", allowed=["cli/"]),
    "only config.py reads the environment": Rule(
        find=names("os.environ", "os.environb", "os.getenv", "os.putenv"), offence="from os import environ", allowed=["config.py"]
    ),
    "only web is async": Rule(
        find=nodes(ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await), offence="async def f(): pass", allowed=["web/"]
    ),
    "only three modules import torch": Rule(
        find=imports("torch"),
        offence="def f():\n    from torch import nn",
        allowed=["train/export.py", "train/torch_optimizers.py", "train/torch_runtime.py"],
    ),
    "only clock.py asks the wall clock": Rule(
        find=names("datetime.now", "datetime.utcnow", "datetime.today", "date.today", "time.time", "time.time_ns"),
        offence="now = datetime.datetime.now(UTC)",
        allowed=["clock.py"],
    ),
    "only report/ knows pandas": Rule(find=imports("pandas", "matplotlib"), offence="import pandas as pd", allowed=["report/"]),
    "core is made of the standard library and numpy": Rule(find=foreign_imports, offence="import msgspec", within="core/"),
    "one word per thing": Rule(find=ill_named_classes, offence="class LeaseManager: pass"),
}


@cache
def parsed(module: str) -> ast.Module:
    return ast.parse((PACKAGE / module).read_text(encoding="utf-8"), filename=module)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_each_rule_sees_its_offence(rule: Rule) -> None:
    assert list(rule.find(ast.parse(rule.offence)))


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_the_house_keeps_its_rules(rule: Rule) -> None:
    offences = [
        f"gridsched/{module}:{getattr(node, 'lineno', 0)}: {ast.unparse(node).splitlines()[0]}"
        for module in MODULES
        if module.startswith(rule.within) and not module.startswith(tuple(rule.allowed))
        for node in rule.find(parsed(module))
    ]
    assert not offences


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_no_exception_outlives_its_reason(rule: Rule) -> None:
    for place in rule.allowed:
        assert any(list(rule.find(parsed(module))) for module in MODULES if module.startswith(place)), f"{place} needs no exception"


def test_every_module_says_what_it_is() -> None:
    assert [module for module in MODULES if not ast.get_docstring(parsed(module))] == []


def test_every_module_is_read_in_a_sitting() -> None:
    lines = {module: len((PACKAGE / module).read_text(encoding="utf-8").splitlines()) for module in MODULES}
    assert {module: count for module, count in lines.items() if count > LONGEST} == {}


def test_no_module_is_a_drawer_for_odds_and_ends() -> None:
    assert [module for module in MODULES if Path(module).stem in {"common", "helper", "helpers", "misc", "util", "utils"}] == []


def public_names(tree: ast.Module) -> list[str] | None:
    """What ``__all__`` lists, in its order; None where there is none."""
    for node in tree.body:
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target if isinstance(node, ast.AnnAssign) else None
        if isinstance(target, ast.Name) and target.id == "__all__":
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


def as_sorted(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, each in order: as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_every_public_face_is_sorted_and_true() -> None:
    for module in MODULES:
        tree = parsed(module)
        found = public_names(tree)
        if found is None:
            continue
        assert found == sorted(set(found), key=as_sorted), f"__all__ of gridsched/{module} is not sorted"
        made = {name.id for node in ast.walk(tree) for name in [node] if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)}
        made |= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
        made |= {
            alias.asname or alias.name for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names
        }
        assert set(found) <= made, f"__all__ of gridsched/{module} names what is not there: {set(found) - made}"
