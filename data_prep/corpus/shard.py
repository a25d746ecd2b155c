"""The work of one shard: ``read`` (pieces to clean documents with their marks) and ``write`` (documents to splits).

Between the two stands ``data_prep.corpus.decide``, which sees the marks of all shards.
"""

from __future__ import annotations

import contextlib
import hashlib
import heapq
import json
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np

from data_prep.card.account import Account, Lengths
from data_prep.common.errors import DataError, Flaw
from data_prep.common.settings import SPLITS
from data_prep.common.split import assign
from data_prep.common.text import batched
from data_prep.corpus import clean
from data_prep.corpus.inputs import Piece
from data_prep.corpus.read import CorpusDocument, documents
from data_prep.corpus.recipe import Recipe
from data_prep.corpus.workdir import (
    BANDS,
    DOCUMENTS,
    ENDS,
    KEEP,
    MARKS,
    ROWS,
    SIGNATURES,
    TOKENS,
    ShardPlan,
    WorkDir,
)
from data_prep.dedup import minhash, shingles
from data_prep.dedup.overlap import Overlap
from data_prep.sources import formats, reader
from data_prep.sources.layout import data_files
from data_prep.tokens.encoder import Encoder, Proof
from data_prep.tokens.indexed import IndexedWriter, dtype_for
from jobs.encoding.control import ControlNames
from jobs.encoding.documents import body

HEADS, HEAD_CHARS = 100, 1000
"""Of each split, the beginnings of the documents with the smallest ids are kept for the card: a sample without
favourites, the same however the documents were divided."""
_BATCH_CHARS = 1_000_000
_TEST_ROW = 100_000_000
Marks = dict[str, list[Any]]


def work(root: Path, phase: str, shard: int) -> None:
    """Do one phase of one shard of the build in ``root``: the entry of worker processes and of array jobs.

    Raises:
        DataError: bad input, with its place.
    """
    workdir = WorkDir.open(root)
    (read if phase == "read" else write)(workdir, shard)


def read(workdir: WorkDir, shard: int) -> None:
    """Clean documents of a shard, with what ``decide`` needs to know of each: digest, length, split, signature."""
    plan = workdir.plan
    # of every text in every row, whatever the fields are called
    texts = evaluation_texts(plan.evaluation)
    overlap = Overlap(texts, plan.recipe.evaluation_words) if plan.evaluation else None
    account = Account()
    digest_of = {path: sha256 for role, path, sha256 in plan.inputs if role == "source"}
    with workdir.result("read", shard) as (directory, facts):
        marks: Marks = {name: [] for name in ("digest", "chars", "split", "group", "line", "piece", "own_id")}
        arrays: Marks = {name: [] for name in ("signatures", "bands", "usable")}
        with open(directory / DOCUMENTS, "w", encoding="utf-8", newline="\n") as stream:
            cleaned = _clean(workdir, shard, account)
            for batch in batched(cleaned, _BATCH_CHARS, lambda one: len(one[1].text)):
                batch = _marked(batch, plan, overlap, arrays, account)
                for number, document in batch:
                    digest = hashlib.blake2b(document.text.encode(), digest_size=16).digest()
                    piece = plan.shards[shard][number]
                    group = piece.group
                    root = digest_of[piece.path] if document.split_by_file(plan.split.group) else digest.hex()
                    own = piece.split if piece.split in ("validation", "test") else assign(root, plan.split)
                    split = "train" if group else own
                    marks["digest"].append(digest)
                    marks["chars"].append(len(document.text))
                    marks["split"].append(SPLITS.index(split))
                    marks["group"].append(group)
                    marks["line"].append(document.line)
                    marks["piece"].append(number)
                    marks["own_id"].append(_id_hash(document.id))
                    row = {"id": digest.hex()[:16], "text": document.text}
                    stream.write(json.dumps(row, ensure_ascii=False) + "\n")
        _save(directory, marks, arrays, plan.recipe.near_duplicates is not None)
        facts.update(account.as_json())


def evaluation_texts(paths: tuple[str, ...]) -> Iterator[str]:
    """All texts of evaluation sets; of files of rows each text field of a row alone.

    Raises:
        DataError: a file that cannot be read: a test set that is not looked at protects nothing.
    """
    for path in paths:
        for file in data_files(Path(path)):
            name = str(file)
            of_rows = formats.look(name).is_rows
            piece = Piece(name, 0, file.stat().st_size, 0, 0)
            found = reader.rows(name, limit=_TEST_ROW) if of_rows else documents(piece, Recipe(quality=None))
            for one in found:
                if isinstance(one, Flaw):
                    raise DataError(f"{one.place}: {one.text}")
                if not isinstance(one, tuple):
                    yield one.text
                    continue
                yield from _texts_in(one[1])
                parts = [one[1].get(name) for name in ("instruction", "input")]
                if all(isinstance(part, str) and part for part in parts):
                    yield "\n\n".join(map(str, parts))  # the question that these two fields are together


def _texts_in(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            yield from _texts_in(entry)


def _clean(workdir: WorkDir, shard: int, account: Account) -> Iterator[tuple[int, CorpusDocument]]:
    """(number of the piece, document) after all that is decided by the text alone."""
    plan = workdir.plan
    recipe = plan.recipe
    control = ControlNames(plan.control)
    for number, piece in enumerate(plan.shards[shard]):
        _check_unchanged(piece, plan)
        for found in documents(piece, recipe):
            if isinstance(found, Flaw):
                account.bad(found, recipe.on_error)
                continue
            account.read += 1
            text = clean.normalise(found.text, recipe, account.notes)
            reason = _flaw(text, plan)
            if reason is not None:
                account.drop(reason, found.place, text or found.text)
            elif control.count(text) and (said := _encoder(plan).flaw(text)):
                if recipe.on_error != "skip":
                    raise DataError(f"{found.place}: {said}")
                account.drop("control_token_in_text", found.place, said)
            else:
                yield number, replace(found, text=text)


def _check_unchanged(piece: Piece, plan: ShardPlan) -> None:
    try:
        found = os.stat(piece.path)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", piece.path) from error
    if found.st_mtime_ns != plan.mtimes[piece.path]:
        raise DataError("changed while the corpus was being built; start again", piece.path)


def _flaw(text: str, plan: ShardPlan) -> str | None:
    if len(text) < plan.min_chars or not text.strip():
        return "too_short"
    if plan.max_chars is not None and len(text) > plan.max_chars:
        return "too_long_text"
    recipe = plan.recipe
    if recipe.quality is not None and (reason := clean.quality_flaw(text, recipe.quality)):
        return reason
    if recipe.languages and clean.language(text) not in recipe.languages:
        return "other_language"
    return None


def _marked(
    batch: list[tuple[int, CorpusDocument]], plan: ShardPlan, overlap: Overlap | None, arrays: Marks, account: Account
) -> list[tuple[int, CorpusDocument]]:
    """``batch`` without contaminated documents; signatures of the rest are added to ``arrays``."""
    if overlap is None and plan.recipe.near_duplicates is None:
        return batch
    words = shingles.words([document.text for _, document in batch])
    keep = np.ones(len(batch), bool)
    if overlap is not None:
        for number in np.flatnonzero(overlap.hits(words)):
            document = batch[number][1]
            account.drop("in_evaluation", document.place, document.text)
            keep[number] = False
    if plan.recipe.near_duplicates is not None:
        signature, usable = minhash.signatures(words)
        arrays["signatures"].append(minhash.short(signature[keep]))
        arrays["bands"].append(minhash.bands(signature[keep]))
        arrays["usable"].append(usable[keep])
    return [one for one, good in zip(batch, keep, strict=True) if good]


def _id_hash(own: str | None) -> int:
    """64 bits of an id of the file's own; 0 where there is none."""
    if own is None:
        return 0
    return int.from_bytes(hashlib.blake2b(own.encode("utf-8", "replace"), digest_size=8).digest()) | 1


_MARKS = np.dtype([
    ("digest", "<u8", 2), ("chars", "<i8"), ("line", "<i8"), ("own_id", "<u8"), ("group", "<i4"), ("piece", "<i4"),
    ("split", "u1"), ("usable", "?"),
])  # fmt: skip


def _save(directory: Path, marks: Marks, arrays: Marks, near: bool) -> None:
    found = np.zeros(len(marks["digest"]), _MARKS)
    found["digest"] = np.frombuffer(b"".join(marks.pop("digest")), "<u8").reshape(-1, 2)
    for name, values in marks.items():
        found[name] = values
    if near:
        found["usable"] = np.concatenate([found["usable"][:0], *arrays["usable"]])
        none = np.zeros((0, minhash.BINS), np.uint16), np.zeros((minhash.BANDS, 0), np.uint64)
        np.save(directory / SIGNATURES, np.concatenate([none[0], *arrays["signatures"]]))
        np.save(directory / BANDS, np.concatenate([none[1], *arrays["bands"]], axis=1))
    np.save(directory / MARKS, found)


def write(workdir: WorkDir, shard: int) -> None:
    """Write the documents of a shard that ``decide`` kept, split after split, and their tokens where wanted."""
    plan = workdir.plan
    ends = np.load(workdir.directory("decide") / ENDS, mmap_mode="r")
    first = ends[shard - 1] if shard else 0
    kept = np.array(np.load(workdir.directory("decide") / KEEP, mmap_mode="r")[first : ends[shard]])
    split = np.load(workdir.directory("read", shard) / MARKS)["split"]
    encoder = None if plan.recipe.tokenizer is None else _encoder(plan)
    eod = 0 if encoder is None else encoder.end_of_document(plan.recipe.eod)
    with workdir.result("write", shard) as (directory, facts), ExitStack() as stack:
        stream = stack.enter_context(open(directory / ROWS, "wb", buffering=1 << 20))
        writer = None
        if encoder is not None:
            writer = stack.enter_context(
                contextlib.closing(IndexedWriter(directory / TOKENS, dtype_for(encoder.largest + 1)))
            )
        for number, name in enumerate(SPLITS):
            lines = _kept_lines(workdir.directory("read", shard) / DOCUMENTS, kept & (split == number))
            begin = stream.tell()
            facts[name] = {**_write_split(stream, writer, lines, encoder, eod), "bytes": stream.tell() - begin}


def _encoder(plan: ShardPlan) -> Encoder:
    return _read_encoder(str(plan.recipe.tokenizer), plan.recipe.special_tokens, plan.proof)


@lru_cache(maxsize=1)
def _read_encoder(directory: str, special_tokens: str, proof: Proof | None) -> Encoder:
    """One for all shards that a process writes. Without a proof there was none before: it is not tried again."""
    return Encoder(Path(directory), special_tokens=special_tokens, fast=proof is not None, proven=proof)


def _kept_lines(path: Path, keep: Any) -> Iterator[bytes]:
    if not keep.any():
        return
    with open(path, "rb") as stream:
        for line, good in zip(stream, keep, strict=True):
            if good:
                yield line


def _write_split(
    stream: IO[bytes], writer: IndexedWriter | None, lines: Iterator[bytes], encoder: Encoder | None, eod: int
) -> dict[str, Any]:
    characters, tokens, scripts = Lengths(), Lengths(), Counter[str]()
    control, with_control = Counter[str](), 0
    heads: list[tuple[str, str]] = []

    def texts() -> Iterator[str]:
        nonlocal with_control
        for line in lines:
            stream.write(line)
            row = json.loads(line)
            text = row["text"]
            heads.append((row["id"], text[:HEAD_CHARS]))
            if len(heads) > 10 * HEADS:
                heads[:] = heapq.nsmallest(HEADS, heads)
            characters.see(len(text))
            scripts[script(text)] += 1
            if encoder is not None and (found := encoder.control.count(text)):
                control.update(found)
                with_control += 1
            yield text

    if encoder is None or writer is None:
        for _ in texts():
            pass
    else:
        begin, end = np.array(encoder.begin, np.uint32), np.array([eod], np.uint32)
        for ids in encoder.encode_all(texts()):
            document = np.concatenate((begin, body(ids, encoder.begin, eod), end))
            writer.add(document)
            tokens.see(len(document))
    return {
        "characters": characters.as_json(),
        "tokens": tokens.as_json(),
        "scripts": dict(scripts),
        "control": dict(control),
        "with_control": with_control,
        "heads": heapq.nsmallest(HEADS, heads),
    }


_SCRIPTS = (
    ("Latin", 0x41, 0x24F), ("Greek", 0x370, 0x3FF), ("Cyrillic", 0x400, 0x52F), ("Hebrew", 0x590, 0x5FF),
    ("Arabic", 0x600, 0x77F), ("Devanagari", 0x900, 0x97F), ("Thai", 0xE00, 0xE7F), ("Hangul", 0xAC00, 0xD7A3),
    ("Kana", 0x3040, 0x30FF), ("Han", 0x3400, 0x9FFF),
)  # fmt: skip


def script(text: str) -> str:
    """The script of most letters of the first 1,000 characters."""
    head = text[:1000]
    if head.isascii():
        return "Latin"
    count: Counter[str] = Counter()
    for letter in filter(str.isalpha, head):
        code = ord(letter)
        count[next((name for name, first, last in _SCRIPTS if first <= code <= last), "other")] += 1
    return count.most_common(1)[0][0] if count else "other"
