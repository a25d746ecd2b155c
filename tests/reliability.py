"""The table of failures and the tests that cover each, from the markers in the tests: ``python -m tests.reliability``.

``@pytest.mark.failure(3, 18)`` on a test, or in a module's ``pytestmark``, says that it covers lines 3 and 18 of
``tests/failures.toml``. The markers are read from the source, so the page is the same whatever is installed here.
"""

from __future__ import annotations

import ast
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"


@dataclass(frozen=True)
class Group:
    """Failures of one kind: number -> short title."""

    title: str
    lines: dict[int, str]


def groups() -> list[Group]:
    """All failures in order."""
    value = tomllib.loads((TESTS / "failures.toml").read_text(encoding="utf-8"))
    return [
        Group(part["title"], {int(number): title for number, title in part.items() if number != "title"})
        for part in value.values()
    ]


def numbers() -> set[int]:
    """All numbers that a marker may name."""
    return {number for group in groups() for number in group.lines}


@dataclass(frozen=True, order=True)
class Marked:
    """A test function and what covers it."""

    path: str
    name: str
    is_full: bool

    def __str__(self) -> str:
        return f"`{self.path}::{self.name}`" + (" (full)" if self.is_full else "")


def covered(tests: Path = TESTS) -> dict[int, list[Marked]]:
    """Number -> its tests, in order of path and name."""
    found: dict[int, list[Marked]] = {}
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests.parent).as_posix()
        for number, function, is_full in _of_module(ast.parse(path.read_text(encoding="utf-8"))):
            found.setdefault(number, []).append(Marked(name, function, is_full))
    return {number: sorted(set(tests)) for number, tests in sorted(found.items())}


def _of_module(module: ast.Module) -> Iterator[tuple[int, str, bool]]:
    shared: list[ast.expr] = []
    for node in module.body:
        if isinstance(node, ast.Assign) and any(ast.unparse(target) == "pytestmark" for target in node.targets):
            shared += node.value.elts if isinstance(node.value, ast.List | ast.Tuple) else [node.value]
    for node in module.body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield from _of_function(node, shared)
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef) and inner.name.startswith("test_"):
                    yield from _of_function(inner, [*shared, *node.decorator_list])


def _of_function(function: ast.FunctionDef, shared: list[ast.expr]) -> Iterator[tuple[int, str, bool]]:
    marks = [*shared, *function.decorator_list]
    is_full = any(ast.unparse(mark) == "pytest.mark.full" for mark in marks)
    for mark in marks:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.failure":
            for argument in mark.args:
                yield ast.literal_eval(argument), function.name, is_full


def unknown(marks: Iterable[tuple[object, ...]]) -> list[object]:
    """Of the arguments of markers those that are no number of a failure; a marker without any counts, too."""
    known = numbers()
    return [number for arguments in marks for number in (arguments or (None,)) if number not in known]


def page() -> str:
    """The text of ``docs/reliability.md``."""
    tests = covered()
    lines = [_INTRODUCTION]
    for group in groups():
        lines += [f"## {group.title}", "", "| | what goes wrong | tests |", "| --- | --- | --- |"]
        for number, title in group.lines.items():
            lines.append(f"| {number} | {title} | {'<br>'.join(map(str, tests.get(number, [])))} |")
        lines.append("")
    return "\n".join(lines)


_INTRODUCTION = """\
# Reliability

What is known to go wrong when chains of jobs run on Slurm, and the tests that show that it does not go wrong here. This
page is generated from the tests (`python -m tests.reliability`) and a test fails when it drifts; "full" marks tests that
take minutes and run under `make test-full`.

How things are broken: a **real Slurm** of four nodes, started by the tests, whose nodes lose their power, whose daemons are
killed and whose limits bite (`tests/slurm/`); **fake Slurm commands** for what a real one does not do on demand, such as an
answer that gets lost, with the rendered scripts really executed (`tests/faults/`); and a **simulation** of thousands of
chains against a virtual clock (`python -m tests.faults.simulate`). `make soak` throws random faults at real chains; a
failing seed is replayed by one command.
"""


def main() -> int:
    """Write the page; 1 where a failure has no test."""
    PAGE.write_text(page(), encoding="utf-8")
    missing = sorted(numbers() - set(covered()))
    print(f"{PAGE}: {len(numbers()) - len(missing)} of {len(numbers())} covered")
    if missing:
        print(f"without a test: {missing}", file=sys.stderr)
    return 1 if missing else 0


if __name__ == "__main__":
    raise SystemExit(main())
