"""No setting is read and then not used: each is looked at somewhere beside the checks of settings."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from jobs.backends.automodel.settings import AutomodelSettings
from jobs.backends.nemo.settings import NemoSettings
from jobs.backends.nemo_rl.settings import DpoSettings, SftSettings
from jobs.backends.trl.settings import TrainSettings
from jobs.training import settings as shared

JOBS = Path(shared.__file__).parents[1]
REFUSED = {("nemo_rl", "threads")}
"""By ``check``, with the reason."""

AROUND = "keep_every"
"""Used around every back end: saves stay by it, whoever made them (``jobs.worker.work``, ``jobs.lifecycle.publish``)."""


def attributes(tree: ast.AST) -> Iterator[str]:
    """Names that are read of something, but for those in functions which only check."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef) and "check" in node.name:
            continue
        if isinstance(node, ast.Attribute):
            yield node.attr
        yield from attributes(node)


@pytest.mark.parametrize(
    ("backend", "kind"),
    [
        ("trl", TrainSettings), ("nemo", NemoSettings), ("automodel", AutomodelSettings), ("nemo_rl", DpoSettings),
        ("nemo_rl", SftSettings),
    ],
)  # fmt: skip
def test_every_setting_is_used(backend: str, kind: type[Any]) -> None:
    files = [*(JOBS / "backends" / backend).glob("*.py"), *(JOBS / "training").glob("*.py")]
    used = {name for path in files for name in attributes(ast.parse(path.read_text(encoding="utf-8")))}
    unused = {field.name for field in fields(kind)} - used
    assert unused == {name for where, name in REFUSED if where == backend} | {AROUND}
    for path in ("worker/work.py", "lifecycle/publish.py"):
        assert f'settings.get("{AROUND}")' in (JOBS / path).read_text(encoding="utf-8")
