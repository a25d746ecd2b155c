"""Rooms: each says what it holds and what it may import, and hands on names that exist."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MOST_LINES = 400
"""Of a module. One that grows longer holds two ideas: the second becomes a module beside it."""
ROOMS = sorted(
    ".".join(path.parent.relative_to(ROOT).parts)
    for top in ("launch", "jobs", "data_prep")
    for path in (ROOT / top).glob("*/__init__.py")
    if path.parent.parent != ROOT / "jobs/backends"
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_holds_and_its_public_names_exist(room: str) -> None:
    package = importlib.import_module(room)
    assert package.__doc__
    getter = vars(package).get("__getattr__")
    names = dict(zip(getter.__code__.co_freevars, getter.__closure__, strict=True)) if getter else {}
    for name in names["names"].cell_contents if names else ():
        assert getattr(package, name).__name__ == name
    with pytest.raises(AttributeError):
        _ = package.no_such_name


def test_a_light_import_stays_light() -> None:
    code = "import sys, launch.config, launch.plan, launch.submit; sys.exit('yaml' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def names_of(path: Path) -> Iterator[tuple[str, str]]:
    """Public classes and type aliases of a module; of an alias also what it stands for."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield node.name, f"class of {path.relative_to(ROOT)}"
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, ast.unparse(node.value)


def test_a_name_belongs_to_one_class_or_alias() -> None:
    found: dict[str, set[str]] = {}
    for top in ("launch", "jobs", "data_prep"):
        for path in (ROOT / top).rglob("*.py"):
            for name, what in names_of(path):
                if name[0].isupper() and not name.isupper():
                    found.setdefault(name, set()).add(what)
    assert len(found) > 300
    del found["Array"]  # of numbers: NumPy's, with their type where that matters
    assert {name: where for name, where in found.items() if len(where) > 1} == {}


def test_no_module_is_longer_than_can_be_kept_in_mind() -> None:
    tops = ("overnight", "launch", "jobs", "data_prep")
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for top in tops
        for path in (ROOT / top).rglob("*.py")
    }
    assert len(lines) > 400
    assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
