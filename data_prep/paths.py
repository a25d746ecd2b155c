"""The settings ``prepare`` without their work: checked, and the paths in them found. Imports no library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from data_prep.corpus.recipe import Recipe
from data_prep.rows.recipe import RowRecipe

_LISTS = ("evaluation", "compare_with")
BASE = "base"
"""``tokenizer: base`` of a pipeline's stage: the one of the pipeline's base model, which is an input of the stage."""


def check(kind: str, prepare: Mapping[str, Any]) -> None:
    """Check the settings ``prepare`` of a stage of this kind without reading any file.

    Raises:
        SettingsError: names the key and what it must be.
    """
    if kind == "corpus":
        Recipe.parse(prepare)
    else:
        RowRecipe.parse(kind, prepare)


def other_paths(prepare: Mapping[str, Any]) -> list[str]:
    """Files and directories that ``prepare`` names beside the tokenizer: test sets, replay sources."""
    found: list[str] = []

    def see(path: str) -> str:
        found.append(path)
        return path

    resolved(prepare, see)
    return [path for path in found if path != prepare.get("tokenizer")]


def resolved(prepare: Mapping[str, Any], resolve: Callable[[str], str], *, base: bool = False) -> dict[str, Any]:
    """``prepare`` with every path in it replaced by ``resolve(path)``. Values of a wrong type stay: ``check`` names
    them. ``base``: these are of a pipeline, where ``BASE`` as the tokenizer is no path."""
    result = dict(prepare)
    if isinstance(result.get("tokenizer"), str) and not (base and result["tokenizer"] == BASE):
        result["tokenizer"] = resolve(result["tokenizer"])
    if isinstance(result.get("template"), str) and result["template"].endswith(".jinja"):
        result["template"] = resolve(result["template"])
    for name in _LISTS:
        if isinstance(result.get(name), list | tuple):
            result[name] = [resolve(path) if isinstance(path, str) else path for path in result[name]]
    if isinstance(result.get("replay"), list | tuple):
        result["replay"] = [
            {**entry, "path": resolve(entry["path"])}
            if isinstance(entry, Mapping) and isinstance(entry.get("path"), str)
            else entry
            for entry in result["replay"]
        ]
    return result
