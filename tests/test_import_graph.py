"""Imports of launch, jobs and data_prep go one way: no cycle between modules, and none between folders.

Every import counts, also those inside functions and under TYPE_CHECKING, and the commands that ``overnight`` imports by
name. The layer contracts in pyproject.toml say which way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import grimp
import pytest

from launch.cli.main import COMMANDS

Graph = Mapping[str, set[str]]


@pytest.fixture(scope="module")
def imports() -> Graph:
    """Each module and the modules of ours that it imports."""
    graph = grimp.build_graph("launch", "jobs", "data_prep", exclude_type_checking_imports=False)
    found = {module: set(graph.find_modules_directly_imported_by(module)) for module in graph.modules}
    found["launch.cli.main"] |= {f"launch.cli.{name}" for name in COMMANDS}
    return found


def cycles(graph: Graph) -> Iterator[list[str]]:
    """Groups of nodes that reach each other."""
    reached = {node: reach(graph, node) for node in graph}
    seen: set[str] = set()
    for node in sorted(graph):
        group = {other for other in reached[node] if node in reached[other]}
        if node not in seen and group:
            seen |= group
            yield sorted(group)


def reach(graph: Graph, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for node in graph.get(waiting.pop(), ()):
            if node not in found:
                found.add(node)
                waiting.append(node)
    return found


def among_siblings(imports: Iterable[tuple[str, str]], folder: str) -> dict[str, set[str]]:
    """Imports between the direct children of a folder, each with everything below it."""
    found: dict[str, set[str]] = {}
    for importer, imported in imports:
        if importer.startswith(f"{folder}.") and imported.startswith(f"{folder}."):
            one, other = (name.removeprefix(f"{folder}.").partition(".")[0] for name in (importer, imported))
            if one != other:
                found.setdefault(one, set()).add(other)
                found.setdefault(other, set())
    return found


def folders(imports: Graph) -> set[str]:
    return {module.rpartition(".")[0] for module in imports if "." in module}


def test_no_cycle_between_modules(imports: Graph) -> None:
    assert len(imports) > 250
    assert list(cycles(imports)) == []


def test_no_cycle_between_the_children_of_a_folder(imports: Graph) -> None:
    edges = {(one, other) for one, many in imports.items() for other in many}
    found = {folder: list(cycles(among_siblings(edges, folder))) for folder in folders(imports)}
    assert {"launch", "launch.cli", "jobs", "data_prep.corpus"} <= set(found)
    assert {folder: groups for folder, groups in found.items() if groups} == {}


def test_a_cycle_is_found() -> None:
    graph = {"a.b.c": {"a.d"}, "a.d": {"a.b.e"}, "a.b.e": set[str]()}
    assert list(cycles(graph)) == []
    edges = [(one, other) for one, many in graph.items() for other in many]
    assert list(cycles(among_siblings(edges, "a"))) == [["b", "d"]]
    assert list(cycles({"x": {"y"}, "y": {"z"}, "z": {"x"}, "w": {"x"}})) == [["x", "y", "z"]]


def test_the_job_side_and_data_preparation_share_a_ground_that_knows_neither(imports: Graph) -> None:
    core = {module for module in imports if module == "jobs.core" or module.startswith("jobs.core.")}
    assert len(core) > 10
    assert all(imports[module] <= core for module in core)
    for module in imports:
        if module.startswith("data_prep"):
            assert all(name in core or name.startswith(("data_prep", "jobs.encoding")) for name in imports[module]), (
                module
            )
