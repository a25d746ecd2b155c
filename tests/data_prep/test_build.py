from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_prep.build import prepare
from data_prep.common import text
from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS
from jobs import backends
from jobs.core.progress import ProgressWriter, latest
from jobs.core.spec import Input
from jobs.training.deadline import StopRequest
from jobs.training.interface import WorkContext
from jobs.training.saves import Saves
from tests.support.catalogues import po, read_rows, write_wheel
from tests.support.stages import spec_of

Make = Callable[..., Path]
GETTEXT = {"type": "gettext"}
KINDS = ("corpus", "instructions", "preferences")


def settings(kind: str, **more: Any) -> dict[str, Any]:
    base: dict[str, Any] = {"source": GETTEXT, "split": {"validation": 0.1, "test": 0.2, "seed": 3}}
    if kind == "corpus":
        base["document_chars"] = 200
    return {**base, **more}


def spoken(directory: Path, split: str) -> tuple[set[str], set[str]]:
    """Normalised source texts and Portuguese texts in a split of a data set, whatever its kind."""
    sources: set[str] = set()
    targets: set[str] = set()
    for row in read_rows(directory / f"{split}.jsonl"):
        for name in ("completion", "chosen", "rejected"):
            if name in row:
                targets.add(text.key(row[name]))
        if "prompt" in row:
            sources.add(text.key(row["prompt"]))
        targets |= {text.key(line) for line in row.get("text", "").split("\n") if line}
    return sources, targets


def test_splits_share_no_message_across_kinds(wheels: Path, make: Make) -> None:
    made = [make(kind, settings(kind), wheels=wheels) for kind in KINDS]
    seen = {split: [spoken(directory, split) for directory in made] for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        for (sources, targets), (other_sources, other_targets) in itertools.product(seen[one], seen[other]):
            assert not sources & other_sources
            assert not targets & other_targets
    assert all(targets for split in SPLITS for _, targets in seen[split])
    cards = [json.loads((directory / "card.json").read_text()) for directory in made]
    assert len({card["split"]["digest"] for card in cards}) == 1


def test_what_a_kind_drops_does_not_move_a_message(wheels: Path, make: Make) -> None:
    all_of_it = make("instructions", settings("instructions"), wheels=wheels)
    some = make("instructions", settings("instructions", max_chars=30), name="-short", wheels=wheels)
    split_of = {text.key(row["prompt"]): split for split in SPLITS for row in read_rows(all_of_it / f"{split}.jsonl")}
    left = [(text.key(row["prompt"]), split) for split in SPLITS for row in read_rows(some / f"{split}.jsonl")]
    assert left
    assert len(left) < len(split_of)
    assert all(split_of[name] == split for name, split in left)


@pytest.mark.parametrize("kind", KINDS)
def test_bytes_depend_on_contents_only(kind: str, wheels: Path, make: Make, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed"
    renamed.mkdir()
    for number, path in enumerate(sorted(wheels.glob("*.whl"), reverse=True)):
        shutil.copy(path, renamed / f"{number}-{path.name}")
    one = make(kind, settings(kind), wheels=wheels)
    other = make(kind, settings(kind), name="-again", wheels=renamed)
    for split in SPLITS:
        assert (one / f"{split}.jsonl").read_bytes() == (other / f"{split}.jsonl").read_bytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_message_is_accounted_for(kind: str, wheels: Path, make: Make) -> None:
    output = make(kind, settings(kind, limit={"train": 9}), wheels=wheels)
    card = json.loads((output / "card.json").read_text())
    assert (
        card["read"]
        == card["kept"] + sum(card["dropped"].values())
        == sum(origin["read"] for origin in card["origins"].values())
    )
    assert card["kept"] == sum(card["units"].values()) == sum(origin["kept"] for origin in card["origins"].values())
    rows = {split: read_rows(output / f"{split}.jsonl") for split in SPLITS}
    assert card["rows"] == {split: len(own) for split, own in rows.items()}
    assert len(rows["train"]) == 9
    assert card["dropped"]["over_limit"] > 0
    assert [entry["licence"] for entry in card["wheels"]] == ["MIT"] * 3
    for own in rows.values():
        names = [row["id"] for row in own]
        assert names == sorted(set(names))


def test_preferences_differ_and_instructions_are_translations(wheels: Path, make: Make) -> None:
    preferences = make("preferences", settings("preferences"), wheels=wheels)
    rows = [row for split in SPLITS for row in read_rows(preferences / f"{split}.jsonl")]
    assert all(text.key(row["chosen"]) != text.key(row["rejected"]) for row in rows)
    assert "caneca" not in " ".join(row["chosen"] for row in rows if row["chosen"].startswith("Levantar"))
    assert {tuple(row) for row in rows} == {("id", "prompt", "chosen", "rejected")}
    instructions = make("instructions", settings("instructions"), wheels=wheels)
    found = [row for split in SPLITS for row in read_rows(instructions / f"{split}.jsonl")]
    prompts = [text.key(row["prompt"]) for row in found]
    assert len(prompts) == len(set(prompts))
    assert {tuple(row) for row in found} == {("id", "prompt", "completion")}


def test_documents_are_of_useful_length(wheels: Path, make: Make) -> None:
    output = make("corpus", settings("corpus"), wheels=wheels)
    sizes = [len(row["text"]) for row in read_rows(output / "train.jsonl")]
    assert min(sizes) >= 100  # the rest of a project, if it is half as long as asked
    assert sorted(sizes)[len(sizes) // 4] >= 200
    assert max(sizes) < 400


def test_template_is_data(wheels: Path, make: Make) -> None:
    template = "{0.__class__} {{x}} %s\n{source} -> "
    output = make("instructions", settings("instructions", prompt=template), wheels=wheels)
    row = read_rows(output / "test.jsonl")[0]
    assert row["prompt"].startswith("{0.__class__} {{x}} %s\n")
    assert row["prompt"].endswith(" -> ")


def test_texts_that_do_not_serve(tmp_path: Path, make: Make) -> None:
    messages = {f"Good message {word}": f"Mensagem boa {word}" for word in "abcdefghij"}
    bad = {
        "Hi %(name)s": "Olá %(name)s", "Login": "Login", "3.5": "3,5", "No such user": "Não há tal usuário",
        "One short label": "Uma explicação " + "muito longa " * 12,
        "Same words!": "Palavras iguais", "Same words": "Palavras iguais",
    }  # fmt: skip
    write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.po": po({**messages, **bad})})
    source = {**GETTEXT, "reject_words": ["Usuário"]}
    chosen = {"source": source, "split": {"validation": 0, "test": 0}}
    output = make("instructions", chosen, wheels=tmp_path)
    card = json.loads((output / "card.json").read_text())
    assert card["dropped"] == {
        "placeholders": 1,
        "same_as_source": 1,
        "no_words": 1,
        "reject_word": 1,
        "odd_length": 1,
        "duplicate": 1,
    }
    kept = make("instructions", {**chosen, "source": {**source, "placeholders": "keep"}}, name="-k", wheels=tmp_path)
    assert "Olá %(name)s" in {row["completion"] for row in read_rows(kept / "train.jsonl")}


def test_most_frequent_translation_is_taken(tmp_path: Path, make: Make) -> None:
    for project, target in (("a", "Gravar tudo"), ("b", "Guardar tudo"), ("c", "Guardar tudo.")):
        write_wheel(tmp_path, project, {f"{project}/locale/pt/LC_MESSAGES/x.po": po({"Save all": target})})
    output = make("instructions", {"source": GETTEXT, "split": {"validation": 0, "test": 0}}, wheels=tmp_path)
    assert [row["completion"] for row in read_rows(output / "train.jsonl")] == ["Guardar tudo"]
    card = json.loads((output / "card.json").read_text())
    assert card["dropped"] == {"duplicate": 1, "other_translation": 1}


def test_empty_split_is_refused(tmp_path: Path, make: Make) -> None:
    write_wheel(tmp_path, "app", {"app/locale/pt/LC_MESSAGES/app.po": po({"A red mug": "Caneca vermelha"})})
    with pytest.raises(DataError, match=r"nothing is left for the \w+ split"):
        make("instructions", settings("instructions"), wheels=tmp_path)


def test_missing_locale_is_refused(tmp_path: Path, make: Make) -> None:
    write_wheel(tmp_path, "app", {"app/locale/de/LC_MESSAGES/app.po": po({"Mug": "Becher"})})
    with pytest.raises(DataError, match=r"no catalogue in the locales pt_PT, pt in app-1\.0"):
        make("corpus", settings("corpus"), wheels=tmp_path)


def test_back_end_runs_a_stage(wheels: Path, tmp_path: Path) -> None:
    store = tmp_path / "download"
    store.mkdir()
    (store / "output").symlink_to(wheels)
    partial = tmp_path / "dataset" / "output.partial"
    partial.mkdir(parents=True)
    spec = spec_of(
        tmp_path,
        kind="instructions",
        backend="data",
        store_dir=str(partial.parent),
        produces={"kind": "dataset", "format": "instructions"},
        settings=settings("instructions"),
        inputs={"source": Input("translations", str(store), "download", "wheels", "1" * 64)},
    )
    (tmp_path / "stage").mkdir()
    progress = ProgressWriter(spec.stage_paths.progress)
    context = WorkContext(
        partial,
        progress,
        StopRequest(spec.stage_paths, spec.stage_paths.deadline("7", 0), 0),
        Saves(spec.store_paths, "0" * 64, None, lambda name: None),
        lambda name: None,
    )
    backend = backends.load("data")
    assert "instructions" in backend.CAPABILITIES.kinds
    assert backend.probe()["polib"]
    result = backend.run(spec, context)
    assert result.outcome == "done"
    assert result.metrics["train"] == len(read_rows(partial / "train.jsonl"))
    assert sorted(path.name for path in partial.iterdir()) == [
        "card.json",
        "encoding.json",
        "test.jsonl",
        "train.jsonl",
        "validation.jsonl",
    ]
    report = latest(spec.stage_paths.progress)
    assert report is not None
    assert (report.phase, report.step) == ("write", report.total)
    with pytest.raises(DataError, match="needs an input 'source'"):
        prepare(replace(spec, inputs={}), partial, progress)
