"""Word problems: the same ones in each language and split, and right to the last step."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from data_prep.common.errors import DataError, SettingsError
from data_prep.common.settings import Settings, SourceSettings, SplitSettings
from data_prep.sources import word_problems

SPLIT = SplitSettings(validation=0.1, test=0.2, seed=3)


def rows(directory: Path, split: SplitSettings = SPLIT, **settings: Any) -> dict[str, list[dict[str, Any]]]:
    word_problems.write(SourceSettings("word_problems", **settings), split, directory)
    return {path.stem: [json.loads(line) for line in path.read_text().splitlines()] for path in directory.iterdir()}


def test_every_step_is_right_and_the_last_one_is_the_answer(tmp_path: Path) -> None:
    found = [row for own in rows(tmp_path, languages=("es", "en", "ko"), count=400).values() for row in own]
    assert len(found) == 1200
    assert {row["steps"] for row in found} == {1, 2}
    for row in found:
        *steps, answer = row["completion"].splitlines()
        assert len(steps) == row["steps"]
        for step in steps:
            a, sign, b, c = re.fullmatch(r"(\d+) ([-+x]) (\d+) = (\d+)", step).groups()  # type: ignore[union-attr]
            assert {"+": int(a) + int(b), "-": int(a) - int(b), "x": int(a) * int(b)}[sign] == int(c)
        assert answer.split(": ")[1] == steps[-1].split(" = ")[1]
        told = set(re.findall(r"\d+", row["prompt"]))
        assert set(re.findall(r"\d+", steps[0].split(" = ")[0])) <= told
        assert "{" not in row["prompt"]
    by_twin: dict[str, dict[str, Any]] = {}
    for row in found:
        by_twin.setdefault(row["twin"], {})[row["language"]] = row
    for own in by_twin.values():
        assert own.keys() == {"es", "en", "ko"}
        assert len({tuple(sorted(re.findall(r"\d+", row["prompt"]))) for row in own.values()}) == 1
        assert len({re.sub(r"^.*: ", "", row["completion"].splitlines()[-1]) for row in own.values()}) == 1
    korean = [row["prompt"] for row in found if row["language"] == "ko"]
    assert any("토마토가 " in text for text in korean)
    assert any("사탕이 " in text for text in korean)
    assert not any("토마토이 " in text for text in korean)


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    one = rows(tmp_path / "a", languages=("en",), count=50)
    assert rows(tmp_path / "b", languages=("en",), count=50) == one
    assert rows(tmp_path / "c", SplitSettings(0.1, 0.2, seed=4), languages=("en",), count=50) != one


def test_nothing_that_is_tested_in_a_language_is_learned_in_another(tmp_path: Path) -> None:
    spanish = rows(tmp_path / "es", languages=("es",), count=300)
    both = rows(tmp_path / "all", languages=("ko", "es", "en"), count=300)
    for split in ("train", "validation", "test"):
        assert {row["twin"] for row in spanish[split]} == {row["twin"] for row in both[split]}
        assert spanish[split]
    assert not {row["twin"] for row in spanish["train"]} & {row["twin"] for row in both["test"]}


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no 100000 different word problems with numbers up to 6"):
        rows(tmp_path, languages=("en",), count=100_000, largest=6)
    for source, text in (
        ({"type": "word_problems", "languages": ["pt"]}, "source.languages: must be of en, es, ko"),
        ({"type": "word_problems", "target": ["pt"]}, "source.target: only for source type gettext"),
        ({"type": "path", "count": 3}, "source.count: only for source type word_problems"),
        ({"type": "word_problems", "largest": 5}, "largest"),
    ):
        with pytest.raises(SettingsError, match=re.escape(text)):
            Settings.parse("instructions", {"source": source})
    with pytest.raises(SettingsError, match="word_problems are instructions"):
        Settings.parse("corpus", {"source": {"type": "word_problems"}})


@pytest.mark.parametrize("largest", [6, 7, 11, 100])
def test_numbers_stay_in_their_bounds(tmp_path: Path, largest: int) -> None:
    found = rows(tmp_path, languages=("en",), count=60, largest=largest)
    told = [int(one) for own in found.values() for row in own for one in re.findall(r"\d+", row["prompt"])]
    assert max(told) <= largest
    assert min(told) >= 1


def test_a_data_stage_makes_them(tmp_path: Path) -> None:
    pytest.importorskip("numpy")
    from data_prep import build
    from jobs.core.progress import ProgressWriter
    from tests.support.stages import spec_of

    def made(name: str, languages: list[str]) -> dict[str, list[dict[str, Any]]]:
        source = {"type": "word_problems", "languages": languages, "count": 120}
        settings = {"source": source, "split": {"validation": 0.1, "test": 0.2, "seed": 3}}
        spec = spec_of(tmp_path, kind="instructions", backend="data", settings=settings)
        (tmp_path / name).mkdir()
        progress = ProgressWriter(tmp_path / "progress.jsonl", enabled=False)
        counted = build.prepare(spec, tmp_path / name, progress, tmp_path / f"work-{name}")
        assert counted.keys() == {"train", "validation", "test"}
        found = {split: (tmp_path / name / f"{split}.jsonl").read_text().splitlines() for split in counted}
        return {split: [json.loads(line) for line in lines] for split, lines in found.items()}

    spanish, both = made("es", ["es"]), made("both", ["es", "ko"])
    assert sum(map(len, both.values())) == 2 * sum(map(len, spanish.values())) == 240
    for split, rows_of in spanish.items():
        twins = {row["meta"]["twin"] for row in rows_of}
        assert twins == {row["meta"]["twin"] for row in both[split]}
        assert {row["meta"]["language"] for row in both[split]} == {"es", "ko"}
    assert made("again", ["es"]) == spanish
