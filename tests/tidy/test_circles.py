"""No module needs, by whatever detour, a module that needs it; not even through an import inside a function."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

import grimp


def circle(imports: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in turn, first and last the same; empty where there are none."""
    try:
        TopologicalSorter(imports).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_a_circle_is_seen() -> None:
    assert set(circle({"a": ["b"], "b": ["c"], "c": ["a"], "d": ["a"]})) == {"a", "b", "c"}
    assert circle({"a": ["b", "c"], "b": ["c"]}) == []


def test_no_import_runs_in_a_circle() -> None:
    graph = grimp.build_graph("gridsched", cache_dir=None)
    assert len(graph.modules) > 50
    assert circle({module: sorted(graph.find_modules_directly_imported_by(module)) for module in graph.modules}) == []
