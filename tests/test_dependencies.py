"""Every third-party package that our code imports is declared in pyproject.toml."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import launch

ROOT = Path(launch.__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {"launch", "jobs", "data_prep", "sbatch_templates", "cluster_profiles", "suites"}

EXTRAS = {
    "launch": ("nemo-run", "submitit", "hub", "data", "tensorboard", "wandb", "mlflow", "notify", "watch", "notebooks"),
    "jobs": ("train", "eval"),
    "data_prep": ("data",),
}
"""Extras whose packages each of our packages may import; the core's are allowed in all of them."""

OF_STACKS = {
    "jobs/backends/automodel": {"nemo_automodel"},
    "jobs/backends/nemo": {"fiddle", "lightning", "megatron", "nemo"},
    "jobs/backends/nemo_rl": {"nemo_rl", "omegaconf", "ray", "safetensors"},
    "jobs/worker": {"ray"},
}
"""Not declared: they come with an environment of the site that a profile names for one back end."""


def declared(*extras: str) -> set[str]:
    """Names of the distributions that the core and these extras ask for."""
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in PROJECT["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(line).name) for line in lines}


@cache
def _distributions() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def import_names(distributions: set[str]) -> set[str]:
    """Top-level names that the installed of these distributions bring."""
    found = {
        name for name, owners in _distributions().items()
        if distributions & {canonicalize_name(owner) for owner in owners}
    }  # fmt: skip
    return found | {name.replace("-", "_") for name in distributions}


def with_what_they_need(distributions: set[str]) -> set[str]:
    """These distributions and, as installed here, everything that they ask for."""
    found: set[str] = set()
    waiting = [Requirement(name) for name in distributions]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if name in found:
            continue
        found.add(name)
        try:
            lines = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for line in map(Requirement, lines):
            markers = [{"extra": extra} for extra in (*wanted.extras, "")]
            if line.marker is None or any(map(line.marker.evaluate, markers)):
                waiting.append(line)
    return found


def imported(path: Path) -> set[str]:
    """Third-party top-level names that a file imports anywhere, also inside functions; not for type checkers alone."""
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    only_types = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
    ]
    unseen = {inner for node in only_types for inner in ast.walk(node)}
    for node in set(ast.walk(tree)) - unseen:
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found - OURS - set(sys.stdlib_module_names)


@pytest.mark.parametrize("package", EXTRAS)
def test_what_is_imported_is_declared(package: str) -> None:
    allowed = import_names(declared(*EXTRAS[package]))
    undeclared = defaultdict(list)
    for path in sorted((ROOT / package).rglob("*.py")):
        own = str(path.relative_to(ROOT))
        stack = next((names for folder, names in OF_STACKS.items() if own.startswith(f"{folder}/")), set())
        for name in imported(path) - allowed - stack:
            undeclared[name].append(own)
    assert not undeclared


def test_what_is_declared_for_the_core_is_imported() -> None:
    used = {name for package in OURS for path in (ROOT / package).rglob("*.py") for name in imported(path)}
    assert all(import_names({name}) & used for name in declared())


RUNNER = """
import json, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

allowed = set(json.loads(sys.argv.pop(1))) | set(sys.stdlib_module_names)

class Declared(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return super().find_spec(name, path, target) if name.partition(".")[0] in allowed else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Declared]
from launch.cli.main import main
sys.exit(main())
"""


def with_the_extra_data(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where only the core and the extra ``data`` are installed."""
    allowed = import_names(with_what_they_need(declared("data"))) | OURS
    assert "numpy" in allowed
    assert not allowed & {"torch", "nemo_run", "pytest"}
    return subprocess.run(
        [sys.executable, "-c", RUNNER, json.dumps(sorted(allowed)), *arguments],
        cwd=ROOT,
        env={**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_data_is_made_and_inspected_with_the_extra_data_alone(tmp_path: Path) -> None:
    pytest.importorskip("tests.support.prepared", exc_type=ImportError)
    from tests.support.prepared import document, write_lines, write_tokenizer

    source = write_lines(tmp_path / "in.jsonl", [{"text": document(seed)} for seed in range(60)])
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    made = with_the_extra_data("data", "corpus", str(source), "--output", str(tmp_path / "out"), "--workers", "1")
    assert (made.returncode, made.stderr.splitlines()[:1]) == (0, ["scan"]), made.stderr
    look = with_the_extra_data("data", "inspect", str(tmp_path / "out"), "--tokenizer", str(tokenizer), "--rows", "1")
    assert look.returncode == 0, look.stderr
    assert "\x1b[32" in look.stdout
