"""What belongs together is in one split, and what two splits have in common is on the card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.build import build
from data_prep.card import overlaps
from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS, Settings
from data_prep.dedup import across, minhash
from tests.support.catalogues import source_of
from tests.support.prepared import document, make, write_lines, write_tokenizer

HALF = {"validation": 0.25, "test": 0.25}


def read(output: Path, split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (output / f"{split}.jsonl").read_text().splitlines()]


def card(output: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((output / "card.json").read_text())
    assert facts["read"] == facts["kept"] + sum(facts["dropped"].values())
    return facts


def without_prepare(kind: str, paths: list[Path], output: Path, **settings: Any) -> None:
    output.mkdir()
    given = {"source": {"type": "path"}, "split": HALF, **settings}
    build(Settings.parse(kind, given), output, sources=tuple(map(source_of, paths)))


def talk(name: str, turns: int) -> list[dict[str, str]]:
    return [
        {"role": role, "content": f"{name} {role} {turn}"} for turn in range(turns) for role in ("user", "assistant")
    ]


def tokenizer(directory: Path) -> str:
    write_tokenizer(directory)
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    template += "{% if add_generation_prompt %}[assistant]{% endif %}"
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>", "chat_template": template}))
    return str(directory)


def test_all_rows_of_a_conversation_are_in_one_split(tmp_path: Path) -> None:
    given = [{"messages": [{"role": "system", "content": f"s{n % 2}"}, *talk(f"c{n}", 3)]} for n in range(60)]
    given += [{"messages": talk(f"c{n}", turns)} for n in range(60, 90) for turns in (1, 2, 4)]
    own = tokenizer(tmp_path / "tokenizer")
    source = write_lines(tmp_path / "in.jsonl", given)
    for answers in ("each", "last"):
        output = tmp_path / answers
        make("instructions", [source], output, split=HALF, template="model", tokenizer=own, answers=answers)
        where: dict[str, set[str]] = {}
        for split in SPLITS:
            for row in read(output, split):
                where.setdefault(row["messages"][-1]["content"].split()[0], set()).add(split)
        assert len(where) == 90
        assert all(len(splits) == 1 for splits in where.values())
        assert {split for splits in where.values() for split in splits} == set(SPLITS)


def test_a_greeting_does_not_join_conversations(tmp_path: Path) -> None:
    hello = {"role": "user", "content": "Hello"}
    given = [{"messages": [hello, *talk(f"c{n}", 2)[1:]]} for n in range(60)]
    make(
        "instructions",
        [write_lines(tmp_path / "in.jsonl", given)],
        tmp_path / "out",
        split=HALF,
        template="model",
        tokenizer=tokenizer(tmp_path / "tokenizer"),
        answers="last",
    )
    assert all(len(read(tmp_path / "out", split)) > 5 for split in SPLITS)


def test_preferences_along_one_conversation_are_in_one_split(tmp_path: Path) -> None:
    given = []
    for n in range(60):
        whole = talk(f"c{n}", 3)
        for end in (1, 3, 5):
            before = whole[:end]
            answers = {"chosen": whole[end], "rejected": {"role": "assistant", "content": f"c{n} worse {end}"}}
            given.append({name: [*before, answer] for name, answer in answers.items()})
    make(
        "preferences",
        [write_lines(tmp_path / "in.jsonl", given)],
        tmp_path / "out",
        split=HALF,
        template="model",
        tokenizer=tokenizer(tmp_path / "tokenizer"),
    )
    names = [{row["chosen"][-1]["content"].split()[0] for row in read(tmp_path / "out", split)} for split in SPLITS]
    assert sum(map(len, names)) == 60
    assert len(set.union(*names)) == 60
    assert all(names)


def texts(folder: Path, files: int) -> list[Path]:
    folder.mkdir()
    for number in range(files):
        parts = (f"f{number} {document(100 * number + n, 40)}" for n in range(6))
        (folder / f"{number:02d}.txt").write_text("\n\n".join(parts))
    return sorted(folder.iterdir())


@pytest.mark.parametrize("prepared", [True, False])
def test_documents_of_one_text_are_in_one_split(tmp_path: Path, prepared: bool) -> None:
    paths = texts(tmp_path / "in", 24)
    for group in (None, "file", "document"):
        output = tmp_path / f"out-{group}"
        if prepared:
            make("corpus", paths, output, split={**HALF, "group": group}, document_chars=100, shard_bytes=2000)
        else:
            without_prepare("corpus", paths, output, split={**HALF, "group": group}, document_chars=100)
        names = [{row["text"].split()[0] for row in read(output, split)} for split in SPLITS]
        assert sum(len(read(output, split)) for split in SPLITS) == 24 * 6
        assert len(set.union(*names)) == 24
        assert (sum(map(len, names)) == 24) == (group != "document")
        said = card(output)["splits_from"]["test"]
        assert said == f"25.0% of all rows, by {group or 'file (texts that are cut) and document'}"


@pytest.mark.parametrize("prepared", [True, False])
def test_one_text_is_not_divided_unless_that_is_said(tmp_path: Path, prepared: bool) -> None:
    paths = texts(tmp_path / "in", 1)
    paths[0].write_text("\n\n".join(document(n, 40) for n in range(60)))

    def run(output: Path, **split: str) -> None:
        if prepared:
            make("corpus", paths, output, split={**HALF, **split}, document_chars=100)
        else:
            without_prepare("corpus", paths, output, split={**HALF, **split}, document_chars=100)

    with pytest.raises(DataError, match=r"nothing is left for the \w+ split .*documents? .*in one split.*split\.group"):
        run(tmp_path / "refused")
    run(tmp_path / "divided", group="document")
    assert all(read(tmp_path / "divided", split) for split in SPLITS)


def test_rows_of_one_file_are_documents_of_their_own_unless_that_is_said(tmp_path: Path) -> None:
    paths = [
        write_lines(tmp_path / f"{n}.jsonl", [{"text": f"f{n} {document(50 * n + k, 40)}"} for k in range(5)])
        for n in range(30)
    ]
    for group, whole in ((None, False), ("file", True)):
        make("corpus", paths, tmp_path / f"out-{group}", split={**HALF, "group": group})
        names = [{row["text"].split()[0] for row in read(tmp_path / f"out-{group}", split)} for split in SPLITS]
        assert (sum(map(len, names)) == 30) == whole


def layout(folder: Path, field: str, given: dict[str, list[str]]) -> Path:
    folder.mkdir()
    for split, found in given.items():
        rows = [{field: text, "completion": "It is so."} if field == "prompt" else {field: text} for text in found]
        write_lines(folder / f"{split}.jsonl", rows)
    return folder


def overlapping() -> dict[str, list[str]]:
    own = {
        split: [f"{split} {document(crc32(f'{split} {n}'.encode()) % 10**6, 60)}" for n in range(20)]
        for split in SPLITS
    }
    test = own["test"]
    own["train"] += [test[0], test[1].upper(), test[2].replace(" ", "  ") + "!", own["validation"][0]]
    own["train"] += [" ".join([*test[3].split()[:-2], "altogether", "other"])]
    return own


def test_overlaps_of_rows_are_on_the_card(tmp_path: Path) -> None:
    folder = layout(tmp_path / "in", "prompt", overlapping())
    make("instructions", [folder], tmp_path / "out")
    without_prepare("instructions", sorted(folder.iterdir()), tmp_path / "plain")
    for output in (tmp_path / "out", tmp_path / "plain"):
        facts = card(output)
        assert facts["dropped"] == {"duplicate_of_test": 1, "duplicate_of_validation": 1}
        assert facts["rows"] == {"train": 23, "validation": 20, "test": 20}
        assert facts["overlaps"]["exact"] == {"train/test": 2, "train/validation": 1}
        assert facts["overlaps"]["prompts"] == {"train/test": 1}
        assert facts["overlaps"]["near"] == {"train/test": 3}
    assert "<td>train/test</td>" in (tmp_path / "out/card.html").read_text()


def test_overlaps_of_a_corpus_are_on_the_card(tmp_path: Path) -> None:
    folder = layout(tmp_path / "in", "text", overlapping())
    make("corpus", [folder], tmp_path / "out", quality=False)
    facts = card(tmp_path / "out")
    assert facts["overlaps"] == {"exact": {"train/validation": 1, "train/test": 1}, "near": {"train/test": 3}}
    assert facts["dropped"] == {"duplicate": 2, "near_duplicate": 3}
    assert facts["rows"] == {"train": 20, "validation": 20, "test": 20}
    make("corpus", [folder], tmp_path / "kept", quality=False, near_duplicates=None, exact_duplicates=False)
    facts = card(tmp_path / "kept")
    assert facts["overlaps"] == {"exact": {"train/validation": 1, "train/test": 1}, "near": None}
    assert facts["dropped"] == {}
    without_prepare("corpus", sorted(folder.iterdir()), tmp_path / "plain")
    facts = card(tmp_path / "plain")
    assert facts["overlaps"]["exact"] == {"train/test": 2, "train/validation": 1}
    assert facts["overlaps"]["near"] == {"train/test": 3}


def test_without_an_overlap_the_card_says_so(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "completion": document(n, 30)} for n in range(60)]
    make("instructions", [write_lines(tmp_path / "in.jsonl", rows)], tmp_path / "out", split=HALF)
    assert card(tmp_path / "out")["overlaps"] == {"exact": {}, "prompts": {}, "near": {}}


def split_rows(rows: list[tuple[str, ...]]) -> overlaps.SplitRows:
    return overlaps.SplitRows(len(rows), map(overlaps.digests, rows), lambda: iter(rows))


def test_of_large_splits_a_sample_is_looked_at_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlaps, "NEAR_ROWS", 30)
    held = [(document(n, 50),) for n in range(20)]
    given = {"train": [*held, *((document(100 + n, 50),) for n in range(20))], "test": held}
    found = overlaps.between({name: split_rows(rows) for name, rows in given.items()}, {})
    assert found == {"exact": {"train/test": 20}, "prompts": {}, "near (of 30 rows of a split)": {"train/test": 20}}


def test_of_texts_that_share_a_band_the_first_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one form, with another number in each, share bands by the hundred thousand."""
    monkeypatch.setattr(across, "_COMPARED", 4)
    dice, count = np.random.default_rng(1), 1000
    bands = np.zeros((minhash.BANDS, count), np.uint64)
    held, others = (dice.integers(0, 1 << 16, (count, minhash.BINS), np.uint16) for _ in range(2))
    others[7], others[8] = held[3], held[900]
    assert across.SignatureTable([(held, bands)]).near((others, bands)) == 1


def test_near_texts_are_found_across_batches() -> None:
    held = [document(n, 100) for n in range(3000)]
    near = [" ".join([*text.split()[:-3], "b", "c"]) for text in held[:40]]
    other = [document(10_000 + n, 100) for n in range(3000)]
    given = {"train": [(text,) for text in [*other, *near]], "test": [(text,) for text in held]}
    found = overlaps.between({name: split_rows(rows) for name, rows in given.items()}, {})
    assert found == {"exact": {}, "prompts": {}, "near": {"train/test": 40}}
