"""sbatch is started by launch/slurm/client.py alone; the executors' libraries only render; nothing is pickled."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import launch

ROOT = Path(launch.__file__).parent.parent
CLIENT = "launch/slurm/client.py"
EXECUTORS = "launch/render/executors/"
STARTERS = {"subprocess", "pty", "multiprocessing"}
LIBRARIES = {"submitit", "nemo_run"}
PICKLES = {"pickle", "cloudpickle", "dill", "marshal", "shelve", "jsonpickle"}


def modules() -> Iterator[tuple[str, list[ast.AST]]]:
    for package in ("launch", "jobs", "data_prep"):
        for path in sorted((ROOT / package).rglob("*.py")):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            yield str(path.relative_to(ROOT)), nodes


def imports(nodes: list[ast.AST]) -> set[str]:
    """Top-level names that a module imports, by a statement or by ``import_module`` of a literal."""
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}
    for node in nodes:
        if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            found |= {one.value for one in node.args if isinstance(one, ast.Constant)}
    return {name.partition(".")[0] for name in found}


def starts_processes(nodes: list[ast.AST]) -> bool:
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    return bool(imports(nodes) & STARTERS) or any(
        name.startswith(("os.exec", "os.spawn", "os.posix_spawn", "os.system", "os.popen")) for name in calls
    )


def names_sbatch(nodes: list[ast.AST]) -> bool:
    """Whether a command line that begins with sbatch is written out."""
    lines = [node.elts for node in nodes if isinstance(node, ast.List | ast.Tuple) and node.elts]
    return any(isinstance(line[0], ast.Constant) and line[0].value == "sbatch" for line in lines)


def test_sbatch_is_started_in_one_place() -> None:
    assert [name for name, nodes in modules() if starts_processes(nodes) and names_sbatch(nodes)] == [CLIENT]


def test_the_libraries_of_the_executors_are_imported_where_jobs_are_rendered_alone() -> None:
    users = [name for name, nodes in modules() if imports(nodes) & LIBRARIES]
    assert users
    assert [name for name in users if not name.startswith(EXECUTORS)] == []


def test_nothing_is_pickled() -> None:
    for name, nodes in modules():
        assert not imports(nodes) & PICKLES, name
        called = {
            node.func.attr for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
        }
        assert not called & {"map_array", "submit_array"}, name
