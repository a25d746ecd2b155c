"""Rows in many shards: the same data set as in one, and memory that does not grow with the texts."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.common.errors import DataError
from data_prep.rows import build
from data_prep.rows.shard import RowPlan
from tests.support.prepared import document, make, tree, write_lines, write_tokenizer

MEMORY = """
import resource, sys
from pathlib import Path
from data_prep.card import overlaps
from data_prep.rows import build
from tests.support.prepared import make
build.SHARD_BYTES, overlaps.NEAR_ROWS = 1_000_000, 500  # of larger splits a sample is compared
make(sys.argv[1], [Path(sys.argv[2])], Path(sys.argv[3]), compare_with=[sys.argv[2] + '.other.jsonl'])
workers = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss  # a process is born with what its parent has used
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(max(own, workers) // 1024)
"""

PLAIN = """
import sys
from pathlib import Path
from data_prep.build import build
from data_prep.card import overlaps
from data_prep.common.settings import Settings
from tests.support.catalogues import source_of
overlaps.NEAR_ROWS = 100  # of larger splits a sample is compared
output = Path(sys.argv[3])
output.mkdir()
given = {"source": {"type": "path"}, "split": {"validation": 0.05, "test": 0.1}}
if sys.argv[1] == "corpus":
    given["split"]["group"] = "document"
build(Settings.parse(sys.argv[1], given), output, sources=(source_of(Path(sys.argv[2])),))
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) // 1024)
"""


def rows(kind: str, count: int) -> list[dict[str, Any]]:
    dice = random.Random(1)
    found = []
    for number in range(count):
        asked = {"role": "user", "content": f"{number // 2}: {document(number // 2, 12)}"}
        answer, other = ({"role": "assistant", "content": document(dice.randrange(10**9), 60)} for _ in range(2))
        if kind == "instructions":
            row: dict[str, Any] = {"messages": [asked, answer, {**asked, "content": "More?"}, other]}
        else:
            row = {"prompt": [asked], "chosen": [answer], "rejected": [other]}
        found.append({**row, "id": number, "source": dice.choice("abc"), "language": str(dice.randrange(count))})
    return found


def test_many_rows_are_counted_by_tiktoken_and_the_data_set_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows("instructions", 60)
    for row in given[::2]:
        row["messages"] = row["messages"][:2]
    given[7]["messages"][1] = {"role": "assistant", "content": "it ends with </s> here"}
    source = write_lines(tmp_path / "in.jsonl", given)
    settings = {"tokenizer": str(write_tokenizer(tmp_path / "t")), "max_tokens": 120, "max_over_length": 0.9}
    (tmp_path / "t/chat_template.jinja").write_text("{% for m in messages %}<s>{{ m.content }}</s>{% endfor %}")
    make("instructions", [source], tmp_path / "usual", **settings)  # so few rows are not worth the proof
    plans: list[RowPlan] = []
    read = build._read
    monkeypatch.setattr(build, "_read", lambda plan, *more: plans.append(plan) or read(plan, *more))
    monkeypatch.setattr(build, "QUICK_BYTES", 1)
    monkeypatch.setattr(build, "SHARD_BYTES", 20_000)
    make("instructions", [source], tmp_path / "quick", **settings)
    assert tree(tmp_path / "quick") == tree(tmp_path / "usual")
    assert [plan.proof is not None for plan in plans] == [True]
    dropped = json.loads((tmp_path / "quick/card.json").read_text())["dropped"]
    assert 0 < dropped["over_length"] < 60


@pytest.mark.parametrize("kind", ["instructions", "preferences"])
def test_many_shards_make_the_data_set_that_one_makes(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows(kind, 120)
    for number in (3, 50, 51):
        given += [{**given[number], "id": 1000 + number}, given[number], {**given[number], "source": "other"}]
    if kind == "preferences":
        given += [
            {**one, "id": f"x{n}", "chosen": one["rejected"], "rejected": one["chosen"]}
            for n, one in enumerate(given[:4])
        ]
    source = write_lines(tmp_path / "in.jsonl", given)
    settings: dict[str, Any] = {
        "on_error": "skip", "group_by": "language", "stratify_by": "source", "tokenizer": str(write_tokenizer(tmp_path / "t")),
        "max_tokens": 1000,
    }  # fmt: skip
    (tmp_path / "t/chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}"
    )
    if kind == "instructions":
        settings |= {"answers": "each", "pack": 1200, "max_over_length": 0.9}
    make(kind, [source], tmp_path / "one", **settings)
    monkeypatch.setattr(build, "SHARD_BYTES", 20_000)
    make(kind, [source], tmp_path / "many", **settings)
    assert tree(tmp_path / "many") == tree(tmp_path / "one")
    dropped = json.loads((tmp_path / "one/card.json").read_text())["dropped"]
    assert dropped["duplicate"] == (12 if kind == "instructions" else 6)
    assert dropped["repeated_id"] == 3
    assert dropped.get("contradiction", 0) == (8 if kind == "preferences" else 0)


def test_a_bad_row_of_a_later_shard_is_told_with_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SHARD_BYTES", 20_000)
    source = write_lines(tmp_path / "in.jsonl", [*rows("instructions", 100), {"messages": []}])
    with pytest.raises(DataError, match=r"in\.jsonl:101: "):
        make("instructions", [source], tmp_path / "out")


def plain(kind: str, row: dict[str, Any]) -> dict[str, Any]:
    """The row as a stage without ``prepare`` reads it."""
    texts = {"prompt": row["prompt"][0], "chosen": row["chosen"][0], "rejected": row["rejected"][0]}
    found = {name: message["content"] for name, message in texts.items()}
    return {"id": row["id"], **({"text": "\n".join(found.values())} if kind == "corpus" else found)}


@pytest.mark.parametrize(
    ("kind", "code", "ending"),
    [
        ("instructions", MEMORY, "jsonl"),
        pytest.param("preferences", MEMORY, "jsonl", marks=pytest.mark.full),
        ("preferences", PLAIN, "jsonl"),
        ("corpus", PLAIN, "jsonl"),
        ("corpus", PLAIN, "txt"),
    ],
)
def test_memory_does_not_grow_with_the_texts(kind: str, code: str, ending: str, tmp_path: Path) -> None:
    peaks = []
    for count in (1_000, 20_000):
        source = tmp_path / f"{count}.{ending}"
        with open(source, "w", encoding="utf-8") as stream:
            for row in rows(kind, count):
                given = plain(kind, row) if code == PLAIN else row
                stream.write(f"{given['text']}\n\n" if ending == "txt" else json.dumps(given) + "\n")
        shutil.copyfile(source, f"{source}.other.jsonl")
        command = [sys.executable, "-c", code, kind, str(source), str(tmp_path / f"out-{count}")]
        peaks.append(int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1]))
    assert peaks[1] - peaks[0] < 25, peaks  # MB; the file has 20 MB, and takes a multiple of it as Python values
