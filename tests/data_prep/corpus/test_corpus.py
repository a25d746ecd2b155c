"""Corpora from files: every row accounted for, bad input with its place, the same bytes however the work is divided."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tests.support.prepared", exc_type=ImportError)

from data_prep.common.errors import DataError
from data_prep.corpus import html
from data_prep.corpus.decide import CorpusDecision
from data_prep.corpus.workdir import MARKS
from data_prep.corpus.workers import ProcessRunner
from data_prep.dedup import near
from data_prep.tokens import indexed
from tests.support.prepared import WORDS, document, make, tree, write_lines, write_tokenizer


def card(output: Path) -> dict:
    found = json.loads((output / "card.json").read_text())
    assert found["read"] == sum(found["rows"].values()) + sum(found["dropped"].values())
    assert (output / "card.html").read_text().startswith("<!DOCTYPE html>")
    return found


def test_workers_and_shards_change_nothing(tmp_path: Path) -> None:
    rows = [{"text": document(seed % 90)} for seed in range(120)]
    source = write_lines(tmp_path / "in.jsonl", rows)
    tokenizer = str(write_tokenizer(tmp_path / "tokenizer"))
    made = []
    for number, (workers, size) in enumerate(((1, 1 << 30), (2, 7_000), (3, 1_001))):
        make("corpus", [source], tmp_path / f"out{number}", workers=workers, shard_bytes=size, tokenizer=tokenizer)
        found = tree(tmp_path / f"out{number}")
        made.append({name: content for name, content in found.items() if not name.startswith("card")})
    assert made[0] == made[1] == made[2]
    assert "megatron/train_text_document.bin" in made[0]
    facts = card(tmp_path / "out1")
    assert facts["dropped"] == {"duplicate": 30}
    assert facts["tokenizer"]["engine"] == "tiktoken"


@contextlib.contextmanager
def open_files(more: int) -> Iterator[None]:
    """No more files than are open now, and so many: all other places below the limit are taken."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 1024), hard))
    taken: list[int] = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(more):
            os.close(taken.pop())
        yield
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.failure(35)
def test_many_shards_need_no_file_open_for_each(tmp_path: Path) -> None:
    """100,000 shards and the usual limit of 1,024 open files; here 60 shards and 12 files."""
    directories = [tmp_path / f"{number}" for number in range(60)]
    for number, directory in enumerate(directories):
        directory.mkdir()
        marks = np.zeros(2, [("digest", "<u8", 2)])
        marks["digest"] = number
        np.save(directory / MARKS, marks)
        writer = indexed.IndexedWriter(directory / "part", np.dtype("<u2"))
        writer.add(np.array([number], np.int64))
        writer.close()
    decision = CorpusDecision.__new__(CorpusDecision)
    decision.directories = directories
    with open_files(12):
        parts = [(directory / "part", None) for directory in directories]
        assert indexed.join(parts, tmp_path / "all", np.dtype("<u2")) == (60, 60)
        assert len(decision.all("digest")) == 120
        parts = decision.digests()
        assert near.first_of_equal(parts).tolist() == [2 * (number // 2) for number in range(120)]
        assert near.Stacked(parts).take(np.array([0, 119])).tolist() == [[0, 0], [59, 59]]


@pytest.mark.failure(35)
def test_a_shard_takes_few_places_on_the_file_system(tmp_path: Path) -> None:
    """A quota of files is used up by 100,000 shards sooner than one of bytes."""
    dice = random.Random(3)
    source = write_lines(tmp_path / "in.jsonl", [{"text": " ".join(dice.choices(WORDS, k=60))} for _ in range(400)])
    taken: dict[str, int] = {}

    class Counting(ProcessRunner):
        def __call__(self, root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
            super().__call__(root, phase, shards, progress)
            taken[phase] = max(1 + sum(1 for _ in (root / phase / f"{shard:05d}").rglob("*")) for shard in shards)
            taken["decide"] = sum(1 for _ in (root / "decide").rglob("*"))

    tokenizer = str(write_tokenizer(tmp_path / "tokenizer"))
    make("corpus", [source], tmp_path / "out", runner=Counting(2), shard_bytes=20_000, tokenizer=tokenizer)
    assert len(json.loads((tmp_path / "out" / "card.json").read_text())["rows"]) == 3
    assert taken == {"read": 6, "decide": 3, "write": 5}


def test_a_worker_that_cannot_be_started_is_said(tmp_path: Path) -> None:
    """Under a tiny limit of open files the pipes to a worker cannot be made."""
    with open_files(2), pytest.raises(DataError, match=r"no worker can be started \(read\): Too many open files"):
        ProcessRunner(2)(tmp_path, "read", [0, 1], lambda number: None)


BAD = {
    "not_utf8": b'{"text": "caf\xe9"}\n',
    "not_json": b'{"text": "cut off\n',
    "null_field": b'{"text": null}\n',
    "missing_field": b'{"body": "x"}\n',
    "not_an_object": b"[1]\n",
    "repeated_key": b'{"text": "x", "id": 1, "text": "y"}\n',
    "empty_text": b'{"text": " "}\n',
    "half_surrogate": b'{"text": "\\ud800"}\n',
    "too_long": b'{"text": "' + b"a" * 20_000 + b'"}\n',
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_lines_have_a_place_or_are_counted(tmp_path: Path, reason: str) -> None:
    good = [json.dumps({"text": document(seed)}).encode() for seed in range(60)]
    content = b"\xef\xbb\xbf" + b"\r\n".join(good[:30]) + b"\n" + BAD[reason] + b"\n".join(good[30:])
    source = tmp_path / "in.jsonl"
    source.write_bytes(content)
    settings = {"max_document_bytes": 10_000, "shard_bytes": 4_000}
    with pytest.raises(DataError, match=r"in\.jsonl:31: "):
        make("corpus", [source], tmp_path / "fails", **settings)
    make("corpus", [source], tmp_path / "skips", on_error="skip", **settings)
    facts = card(tmp_path / "skips")
    assert facts["dropped"] == {reason: 1}
    assert facts["samples"][reason][0][0].endswith("in.jsonl:31")


def test_every_format(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    zstandard = pytest.importorskip("zstandard")
    import pyarrow.parquet

    folder = tmp_path / "in"
    folder.mkdir()
    line = [json.dumps({"text": document(seed)}).encode() + b"\n" for seed in range(20)]
    (folder / "a.jsonl").write_bytes(b"".join(line[:5]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(line[5:10])))
    packed = b"".join(zstandard.ZstdCompressor().compress(part) for part in line[10:15])
    (folder / "c.jsonl.zst").write_bytes(packed)
    pyarrow.parquet.write_table(pa.table({"text": [document(seed) for seed in range(15, 20)]}), folder / "d.parquet")
    (folder / "e.md").write_text(document(20))
    (folder / "f.txt").write_text(document(21))
    (folder / "g.html").write_text(f"<html><script>no();</script><p>{document(22)}</p></html>")
    rows = make("corpus", [folder], tmp_path / "out", split={"validation": 0, "test": 0})
    assert rows["train"] == 23
    assert "no()" not in (tmp_path / "out/train.jsonl").read_text()
    for name, cut in (("b.jsonl.gz", 40), ("c.jsonl.zst", 10)):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=rf"{name}:\d+: its packed data is cut off"):
            make("corpus", [folder], tmp_path / f"cut{cut}")
        (folder / name).write_bytes(whole)
    whole = (folder / "d.parquet").read_bytes()
    (folder / "d.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"d\.parquet: is not a readable Parquet file: .*footer"):
        make("corpus", [folder], tmp_path / "cut-parquet")


def test_a_parquet_file_with_damaged_pages_tells_the_row(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    table = pa.table({"text": [document(seed) for seed in range(2000)]})
    path = tmp_path / "d.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=500)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 3000] = b"U" * 3000
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"d\.parquet:(513|769|1001): from this row on the Parquet file cannot be read"):
        make("corpus", [path], tmp_path / "fails")
    make("corpus", [path], tmp_path / "skips", on_error="skip")
    facts = card(tmp_path / "skips")
    assert facts["dropped"] == {"broken_archive": 1}
    assert facts["kept"] >= 500


def test_a_broken_line_deep_in_a_large_file_is_found(tmp_path: Path) -> None:
    line = (json.dumps({"text": document(1, 300)}) + "\n").encode()
    broken = 9_001
    path = tmp_path / "in.jsonl"
    path.write_bytes(line * (broken - 1) + b'{"text": "no end\n' + line * 500)
    settings = {"shard_bytes": 1 << 20, "near_duplicates": None, "quality": False}
    with pytest.raises(DataError, match=rf"in\.jsonl:{broken}: is not JSON"):
        make("corpus", [path], tmp_path / "fails", **settings)


def test_text_is_cut_at_empty_lines_and_empty_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "long.txt").write_text("\n\n".join(document(seed) for seed in range(40)))
    rows = make(
        "corpus", [tmp_path / "long.txt"], tmp_path / "out", document_chars=900, split={"validation": 0, "test": 0}
    )
    assert 10 <= rows["train"] <= 40
    (tmp_path / "empty.txt").touch()
    with pytest.raises(DataError, match=r"empty\.txt: has no rows"):
        make("corpus", [tmp_path / "empty.txt"], tmp_path / "none")


def test_near_duplicates_evaluation_and_replay(tmp_path: Path) -> None:
    dice = random.Random(5)
    texts = [document(seed, 150) for seed in range(200)]
    near = []
    for text in texts[:40]:
        words = text.split()
        words[75] = "altogether"
        near.append(" ".join(words))
    secret = document(9999, 30)
    spoiled = f"{document(500, 60)} {secret} {document(501, 60)}"
    source = write_lines(tmp_path / "in.jsonl", [{"text": text} for text in [*texts, *near, spoiled]])
    tests = write_lines(tmp_path / "test.jsonl", [{"question": secret}])
    replay = write_lines(
        tmp_path / "replay.jsonl", [{"text": document(seed + 3000, dice.randint(50, 90))} for seed in range(200)]
    )
    make("corpus", [source], tmp_path / "out", evaluation=[str(tests)], replay=[{"path": str(replay), "share": 0.2}])
    facts = card(tmp_path / "out")
    assert facts["dropped"]["in_evaluation"] == 1
    assert facts["dropped"]["near_duplicate"] == 40
    place, shown = facts["samples"]["near_duplicate"][0]
    assert place.endswith("in.jsonl:201")
    assert near[0].startswith(shown)
    assert len(shown) == 200
    share = facts["groups"]["1"]["characters"] / facts["characters"]["train"]["total"]
    assert share == pytest.approx(0.2, abs=0.01)
    assert secret not in (tmp_path / "out/train.jsonl").read_text()


def test_ids_that_two_documents_have(tmp_path: Path) -> None:
    source = write_lines(tmp_path / "in.jsonl", [{"id": seed % 50, "text": document(seed)} for seed in range(60)])
    with pytest.raises(DataError, match=r"in\.jsonl:51: its id is that of another document, .*in\.jsonl:1"):
        make("corpus", [source], tmp_path / "fails")
    make("corpus", [source], tmp_path / "skips", on_error="skip")
    assert card(tmp_path / "skips")["dropped"] == {"repeated_id": 10}


def test_personal_data_is_masked(tmp_path: Path) -> None:
    text = f"{document(1)} Write to jo.doe@example.org or +44 20 7946 0958, card 4111 1111 1111 1111, host 10.20.30.40."
    source = write_lines(tmp_path / "in.jsonl", [{"text": text}])
    make("corpus", [source], tmp_path / "out", mask_personal_data=True, split={"validation": 0, "test": 0})
    row = json.loads((tmp_path / "out/train.jsonl").read_text())
    assert row["text"].endswith("Write to <email> or <phone>, card <card>, host <ip>.")
    assert card(tmp_path / "out")["notes"]["email_masked"] == 1


def test_killed_half_way_it_goes_on(tmp_path: Path) -> None:
    dice = random.Random(2)
    source = write_lines(tmp_path / "in.jsonl", [{"text": " ".join(dice.choices(WORDS, k=300))} for _ in range(3000)])
    make("corpus", [source], tmp_path / "whole", shard_bytes=200_000)
    code = (
        "import sys; from pathlib import Path; from tests.support.prepared import make\n"
        f"make('corpus', [Path({str(source)!r})], Path({str(tmp_path / 'out')!r}), shard_bytes=200_000)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[3], start_new_session=True)
    shards = tmp_path / "out.work" / "read"
    end = time.monotonic() + 120
    while len(list(shards.glob("[0-9]*"))) < 8 and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.5)
    done = {path.name: path.stat().st_mtime_ns for path in shards.glob("[0-9]*/seal.json")}
    before = {path.parent.name: path.stat().st_mtime_ns for path in shards.glob("[0-9]*/seal.json")}
    assert done
    damaged = sorted(before)[0]
    with open(shards / damaged / "documents.jsonl", "r+b") as stream:
        stream.write(b"X")
    os.rmdir(tmp_path / "out")
    kept: dict[str, int] = {}

    def look() -> None:
        kept.update({path.parent.name: path.stat().st_mtime_ns for path in shards.glob("[0-9]*/seal.json")})

    from data_prep import prepared
    from data_prep.common.settings import Settings

    def report(phase: str):
        if phase == "find duplicates":
            look()
        return lambda step, total: None

    settings = Settings.parse(
        "corpus",
        {"source": {"type": "path"}, "split": {"validation": 0.1, "test": 0.1}, "prepare": {"shard_bytes": 200_000}},
    )
    prepared.build(
        settings,
        prepared.sources_of([source]),
        tmp_path / "out",
        tmp_path / "out.work",
        report=report,
        runner=ProcessRunner(2),
    )
    assert {name: kept[name] for name in before if name != damaged} == {n: t for n, t in before.items() if n != damaged}
    assert kept[damaged] != before[damaged]
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_html_keeps_what_a_reader_sees() -> None:
    page = (
        "<title>T</title><body><h1>A &amp; B</h1><pre>x\n  y</pre><!-- <p>no --><p>one<br>two</p><td>c</td><td>d</td>"
    )
    assert html.to_text(page) == "T\n\nA & B\n\nx\n  y\n\none\ntwo\nc d"
    assert html.to_text("<p " + "a=" * 50_000) is not None
