"""The demo's own data: real catalogues, from the wheels that the demo's pipeline names."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from data_prep.build import build
from data_prep.common import text
from data_prep.common.settings import SPLITS, Settings
from jobs.core.paths import Workspace
from launch.inputs.fetch import fetch, item
from tests.support.catalogues import read_rows

pytestmark = pytest.mark.network

PACKAGES = [
    "Django==5.2.19", "wagtail==8.0.1", "django-allauth==65.21.1", "django-oscar==4.2.1", "plone.app.locales==7.0.4",
    "thonny==5.0.1", "django-filer==3.6.0", "django-cms==5.1.3",
]  # fmt: skip


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = Workspace(tmp_path_factory.mktemp("workspace"))
    (found,) = fetch([item("translations", PACKAGES)], workspace)
    return found.store.output


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.full) for seed in (2, 3))])
def test_enough_and_apart(wheels: Path, tmp_path: Path, seed: int) -> None:
    seen: dict[str, set[str]] = {split: set() for split in SPLITS}
    cards = {}
    for kind in ("corpus", "instructions", "preferences"):
        limits = {} if kind == "corpus" else {"min_chars": 8, "max_chars": 120}
        output = tmp_path / kind
        output.mkdir()
        settings = {"source": {"type": "gettext"}, "split": {"seed": seed}, **limits}
        build(Settings.parse(kind, settings), output, wheels=wheels)
        cards[kind] = json.loads((output / "card.json").read_text())
        for split in SPLITS:
            for row in read_rows(output / f"{split}.jsonl"):
                seen[split] |= {"s:" + text.key(row[name]) for name in ("prompt",) if name in row}
                for name in row.keys() - {"id", "prompt"}:
                    seen[split] |= {"t:" + text.key(line) for line in row[name].split("\n")}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not seen[one] & seen[other]
    assert cards["instructions"]["rows"]["train"] >= 2500
    assert cards["preferences"]["rows"]["train"] >= 1500
    assert cards["preferences"]["rows"]["test"] >= 250
    assert cards["corpus"]["characters"]["test"]["text"]["total"] >= 25_000
    assert all(card["split"]["largest_group"] < 50 for card in cards.values())
    assert all(entry["licence"] != "not stated" for entry in cards["corpus"]["wheels"])
