"""docs/profiles.md: every key is in it with its value of before, and every key in it exists."""

from __future__ import annotations

import re
import typing
from collections.abc import Iterator
from dataclasses import MISSING
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

from launch.config.document.layers import EXTENDS
from launch.config.document.typed import StrictModel, fields_of
from launch.config.profile import Profile
from launch.config.profile_file import read_profile

PAGE = Path(__file__).parents[3] / "docs" / "profiles.md"
#: What stands for the names that users choose.
NAMES = {
    "partitions": "NAME", "file_systems": "NAME", "resources": "GROUP", "executors": "GROUP", "environments": "BACKEND",
    "retries": "CLASS", "sbatch": "OPTION", "env": "VARIABLE", "node_env": "VARIABLE",
}  # fmt: skip


def models_in(annotation: Any) -> list[type[StrictModel]]:
    if isinstance(annotation, type) and issubclass(annotation, StrictModel):
        return [annotation]
    return [found for part in typing.get_args(annotation) for found in models_in(part)]


def keys(model: type[StrictModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and what is built in."""
    for name, field in fields_of(model).items():
        inside = models_in(field.annotation)
        middle = f".{NAMES[name]}" if name in NAMES and not prefix else ""
        if inside:
            yield from keys(inside[0], f"{prefix}{name}{middle}.")
        else:
            yield f"{prefix}{name}{middle}", field.default


def rows() -> list[tuple[str, str]]:
    """Key and the column `built in` of every row."""
    found = re.findall(r"^\| `([^`]+)` \|[^|]*\| ([^|]*)\|[^|]*\|$", PAGE.read_text(), re.MULTILINE)
    return [(key, built_in.strip()) for key, built_in in found]


def test_every_key_once_and_no_other() -> None:
    documented = [key for key, _ in rows()]
    assert len(documented) == len(set(documented))
    assert sorted(documented) == sorted([EXTENDS, *(key for key, _ in keys(Profile))])


def test_what_is_built_in() -> None:
    said = dict(rows())
    for key, default in keys(Profile):
        if isinstance(default, bool | Enum | int | float | str):
            value = (
                default.value
                if isinstance(default, Enum)
                else str(default).lower()
                if isinstance(default, bool)
                else default
            )
            assert said[key] == f"`{value}`", key
        elif default == ():
            assert said[key] == "empty", key
        elif isinstance(default, tuple):
            assert said[key] in ("both", f"`[{', '.join(map(str, default))}]`"), key
        elif default is None:
            assert not said[key].startswith("`") or key == "workspace", key
        else:
            assert default in (MISSING, {}) or said[key] == "both", key


@pytest.mark.parametrize("number", range(len(re.findall(r"^```yaml$", PAGE.read_text(), re.MULTILINE))))
def test_examples_are_profiles(number: int, tmp_path: Path) -> None:
    example = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)[number]
    path = tmp_path / "example.yaml"
    path.write_text(f"executor: slurm\n{example}")
    read_profile(path)


def rows_of(page: Path) -> dict[str, str]:
    """Key, with ``NAME`` for what users choose, and the last column of every row."""
    found = re.findall(r"^\| `([^`]+)` \|[^|]*\|[^|]*\| ([^|]*)\|$", page.read_text(), re.MULTILINE)
    chosen = "|".join(sorted(set(NAMES.values())))
    return {re.sub(rf"\.({chosen})(?=\.|$)", ".NAME", key): text.strip() for key, text in found}
