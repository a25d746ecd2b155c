"""docs/guide.md: each block of NVIDIA's guide is beside files, keys and commands of ours that exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from launch.cli import main
from launch.config import data_settings
from launch.config.schema import files

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "docs/guide.md", ROOT / "docs/ko/guide.md")
BLOCKS = (
    "Training pipeline", "Techniques", "NeMo Run", "Recipes", "ChipNeMo", "RAG", "CPT: data", "forgetting", "SFT: concept",
    "Cross-lingual", "DPO: concept, loss, data", "Portuguese", "NeMo-RL", "Use cases", "workflow", "Practice notebook",
    "Good practice: data", "Good practice: hyperparameters", "Good practice: evaluation", "Errors", "Debugging",
)  # fmt: skip
"""Titles of the guide, in its order."""
NAMES = {"mmlu", "prefs", "mine", "recipe"}
"""Of a task, a stage and a file in examples, and an option of NeMo alone."""


def names_in(schema: Any) -> Iterator[str]:
    """Keys and choices of a JSON Schema."""
    if isinstance(schema, list):
        for one in schema:
            yield from names_in(one)
    elif isinstance(schema, dict):
        yield from schema.get("properties", ())
        yield from (one for one in (*schema.get("enum", ()), schema.get("const")) if isinstance(one, str))
        for one in schema.values():
            yield from names_in(one)


def cells(page: Path) -> list[tuple[str, str]]:
    """What the guide has, and what stands beside it."""
    rows = [line.split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    return [(row[0].strip("| "), " | ".join(row[1:]).strip("| ")) for row in rows if set(row[0]) - set("|- ")]


def test_every_block_of_the_guide_has_its_line() -> None:
    shown = [left for left, _ in cells(PAGES[0])]
    at = 0
    for block in BLOCKS:
        found = next((number for number in range(len(shown)) if block in shown[number] and number >= at), None)
        assert found is not None, block
        at = found
    assert len(cells(PAGES[0])) == len(cells(PAGES[1]))


@pytest.mark.parametrize("page", PAGES, ids=("english", "korean"))
def test_files_keys_and_commands_beside_the_guide_exist(page: Path) -> None:
    known = {
        *names_in(files.of_pipeline(data_settings.json_schemas(files.pipeline_word))),
        *names_in(files.of_profile()),
    }
    known |= NAMES
    for _, here in cells(page):
        for code in re.findall(r"`([^`]+)`", here):
            if re.fullmatch(r"(pipelines|notebooks|suites|docs)/\S+", code):
                assert (ROOT / code).is_file(), code
            if code.startswith("overnight "):
                assert code.split()[1] in main.COMMANDS, code
            assert {*re.findall(r"(\w+):", code)} <= known, code
