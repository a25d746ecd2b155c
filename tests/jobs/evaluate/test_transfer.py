"""Transfer between languages: known effects are found, and where there is none nothing is said to be one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("sacrebleu")

from jobs.core import results
from jobs.core.spec import Input
from jobs.core.tasks import KINDS
from jobs.evaluate.intervals import Clusters
from jobs.evaluate.kinds.transfer import ratio
from tests.support import stages
from tests.support.scripted_server import ScriptedServer

pytestmark = pytest.mark.train


def simulated(rng: Any, n: int, trained: float, other: float) -> Any:
    """Of n twins how far both answers moved: the trained language gains ``trained``, the other one ``other``, and those
    that gain are mostly the same twins."""
    luck = rng.random(n)
    return np.column_stack([luck < trained, np.where(rng.random(n) < 0.7, luck, rng.random(n)) < other]).astype(float)


def test_intervals_of_the_ratio_hold_the_truth() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for number in range(200):
        steps = simulated(rng, 120, 0.4, 0.2)
        found = ratio(steps, Clusters(range(120), 600, number))
        assert not isinstance(found, str)
        assert found.estimate.value == pytest.approx(steps[:, 1].sum() / steps[:, 0].sum())
        low, high = found.estimate.low, found.estimate.high
        assert low is not None
        assert high is not None
        held += low <= 0.5 <= high
    assert 180 <= held <= 198, "of 200, some 190"


def test_without_a_change_in_the_trained_language_it_is_not_defined() -> None:
    rng = np.random.default_rng(2)
    none = sum(isinstance(ratio(simulated(rng, 100, 0.0, 0.3), Clusters(range(100), 200, i)), str) for i in range(20))
    assert none == 20
    said = ratio(np.array([[1, 1], [-1, 0]] * 20, dtype=float), Clusters(range(40), 200, 0))
    assert isinstance(said, str)
    assert "may be none" in said
    assert ratio(np.ones((3, 2)), Clusters(range(3), 200, 0)) == "3 twins are too few"
    fell = ratio(np.column_stack([-np.ones(40), np.arange(40) % 2]), Clusters(range(40), 200, 0))
    assert not isinstance(fell, str)
    assert fell.estimate.value == -0.5, "what is lost can come with a gain elsewhere"


@pytest.fixture
def fake() -> Iterator[ScriptedServer]:
    made = ScriptedServer()
    yield made
    made.close()


def rows(root: Path, **change: Any) -> Path:
    found: list[dict[str, Any]] = []
    for number in range(40):
        for language in ("es", "en", "ko"):
            completion = {
                "es": f"1.000 + {number} = 1.{number:03d}",
                "en": f"1,{number:03d}",
                "ko": f"{1000 + number}",
            }[language]
            found.append({"id": f"{language}{number}", "prompt": f"{language} {number}", "completion": completion,
                          "meta": {"language": language, "twin": f"t{number}"}})  # fmt: skip
    if change:
        found[4] = {**found[4], **change}
    stages.write_rows(root / "output/test.jsonl", found)
    return root


def stage(root: Path, at: Path, fake: ScriptedServer, **more: Any) -> stages.Stage:
    task = {"task": "transfer", "data": "rows", "languages": ["es", "en", "ko"], "trained": "es", **more}
    settings = {"tasks": {"sums": task}, "server": fake.url, "model": "m", "seed": 1, "resamples": 1000}
    return stages.stage(at, "evaluate", "trl", settings, {"rows": root})


def now_against(before: stages.Stage, now: stages.Stage) -> dict[str, Any]:
    before.output.rename(before.spec.store_paths.output)
    earlier = Input("before", before.spec.store_dir, "evaluation", "metrics", "")
    now = stages.Stage(replace(now.spec, inputs={**now.spec.inputs, "compare_to": earlier}))
    now.start()
    return results.read(now.output / "evaluation.json")["sums"]


def learned(prompt: str, times: int) -> tuple[int, Any]:
    """After training: Spanish is right, English every second time, Korean never."""
    language, number = prompt.split()
    right = language == "es" or (language == "en" and int(number) % 2 == 0)
    said = {"es": f"= 1.{int(number):03d}", "en": f"It is 1,{int(number):03d}.", "ko": "모릅니다"}[language]
    return 200, said if right else "no"


def test_what_spanish_brought_to_english(tmp_path: Path, fake: ScriptedServer) -> None:
    root = rows(tmp_path / "rows")
    fake.script = lambda prompt, times: (200, "7")
    before = stage(root, tmp_path / "before", fake)
    before.start()
    assert set(results.read(before.output / "evaluation.json")["sums"]["metrics"]) == {"es", "en", "ko"}
    fake.script = learned
    found = now_against(before, stage(root, tmp_path / "now", fake))["metrics"]
    assert {name: one["value"] for name, one in found.items()} == {
        "es": 1.0, "en": 0.5, "ko": 0.0, "en_per_es": 0.5, "ko_per_es": 0.0,
    }  # fmt: skip
    assert (found["es"]["n"], found["es"]["method"], found["es"]["change"]["value"]) == (40, "Wilson", 1.0)
    assert found["en_per_es"]["low"] < 0.5 < found["en_per_es"]["high"]
    assert found["en_per_es"]["n"] == 40


def test_where_spanish_did_not_change_it_is_said(tmp_path: Path, fake: ScriptedServer) -> None:
    root = rows(tmp_path / "rows")
    fake.script = learned
    before = stage(root, tmp_path / "before", fake)
    before.start()
    found = now_against(before, stage(root, tmp_path / "now", fake))
    assert set(found["metrics"]) == {"es", "en", "ko"}
    assert any(
        note.startswith("transfer from es to en is not defined: the change in es may be none [")
        for note in found["notes"]
    )


def test_a_limit_counts_twins(tmp_path: Path, fake: ScriptedServer) -> None:
    fake.script = learned
    one = stage(rows(tmp_path / "rows"), tmp_path / "one", fake, limit=10)
    one.start()
    kept = [json.loads(line) for line in (one.output / "samples.jsonl").read_text().splitlines()]
    assert len(kept) == 30
    assert len({sample["group"] for sample in kept}) == 10


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"meta": {}}, "language is not a field of its meta: write carry"),
        ({"completion": "none"}, "there is no number in 'none'"),
        ({"meta": {"language": "es", "twin": "t1"}}, "the twin 't1' has two rows in es"),
    ],
)
def test_rows_that_are_none_are_refused(tmp_path: Path, fake: ScriptedServer, change: Any, text: str) -> None:
    with pytest.raises(Exception, match=text):
        stage(rows(tmp_path / "rows", **change), tmp_path / "one", fake).start()


@pytest.mark.parametrize(
    ("given", "place", "text"),
    [
        ({"languages": ["es", "en"], "trained": "ko"}, ("trained",), "ko is none of the languages"),
        ({"languages": ["es", "fr"], "trained": "es"}, ("languages",), "known in en, ko, es, pt, not in fr"),
        ({"languages": ["es"], "trained": "es"}, ("languages",), "two or more"),
        ({"languages": ["es", "es"], "trained": "es"}, ("languages",), "each once"),
        ({"languages": "es", "trained": "es"}, ("languages",), ""),
        ({"languages": ["es", "en"]}, ("trained",), "required"),
    ],
)
def test_keys_that_are_none_are_refused(given: dict[str, Any], place: tuple[str, ...], text: str) -> None:
    found = list(KINDS["transfer"].problems(given))
    assert found
    assert found[0][0] == place
    assert text in found[0][1]
