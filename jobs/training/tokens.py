"""A corpus as token ids: ``.bin`` and ``.idx`` files, and the blocks of them that are trained on.

Every process maps the same files into memory; no ids are held as Python integers. The files are those of the data
stage, where it has tokenised with the tokenizer of the model; else the text is tokenised once, by all processes
together.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_prep.common.text import batched
from data_prep.tokens import indexed
from jobs.core import files
from jobs.core.spec import Input
from jobs.encoding.documents import DocumentEncoder
from jobs.encoding.errors import CannotEncode
from jobs.encoding.settings import Encoding
from jobs.training import examples
from jobs.training.examples import ExamplesError, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from jobs.training.interface import WorkContext

READY = "ready.json"
"""Written last; says what the files beside it were made from."""

PART_BYTES = 64_000_000
"""Text that one process tokenises at a time: what is done is kept when a start is killed."""

MIXED = ("order.npy", "ends.npy")
"""Files of ``mix``."""

_BATCH_CHARS = 1_000_000
_REPORT_SECONDS = 10.0


def document_encoder(tokenizer: PreTrainedTokenizerBase, path: Path) -> DocumentEncoder:
    """What makes ids of the documents of the file ``path`` of a corpus.

    Raises:
        DataError: the tokenizer has no end token, so that no document could be closed.
    """
    try:
        return DocumentEncoder(tokenizer, Encoding.of(path).special_tokens)
    except CannotEncode as error:
        raise ExamplesError(str(error)) from error


def tokens_prefix(directory: Path, split: str) -> Path:
    """Prefix of the ``.bin`` and ``.idx`` files of a split of a tokenised corpus.

    Raises:
        DataError: one of the two is missing.
    """
    prefix = directory / split
    for path in indexed.paths(prefix):
        if not path.is_file():
            raise ExamplesError(f"{path}: no such file in the tokenised corpus")
    return prefix


def corpus(given: Input, split: str, tokenizer: PreTrainedTokenizerBase, scratch: Path, ctx: WorkContext) -> Path:
    """Prefix of the ``.bin`` and ``.idx`` files of a split of a corpus; called by all processes of a stage.

    Text is tokenised into ``scratch`` (shared by them). They wait for each other by looking at files: a collective has
    a limit of half an hour, and a corpus may take longer.

    Raises:
        DataError: a row that cannot be used, with file and line; a tokenised corpus with a file missing.
    """
    if given.format == "tokens":
        return tokens_prefix(given.output, split)
    source = given.output / f"{split}.jsonl"
    documents = document_encoder(tokenizer, source)
    own = digest(tokenizer)
    made, why = of_data_stage(given.output, split, documents, own)
    if made is not None:
        return made
    made_from = {"fingerprint": given.fingerprint, "split": split, "tokenizer": own}
    prefix = scratch / "corpus"
    if files.read_json_or_none(scratch / READY) != made_from:
        ctx.event("tokenizing", path=str(source), why=why)
        largest = max(tokenizer.get_vocab().values())
        _tokenise(source, scratch, documents, indexed.dtype_for(largest + 1), made_from, ctx)
    return prefix


def of_data_stage(directory: Path, split: str, documents: DocumentEncoder, digest: str) -> tuple[Path | None, str]:
    """Prefix of the files that the data stage has made with this very tokenizer (``digest``); else None and why not."""
    prefix = directory / "megatron" / f"{split}_text_document"
    if not all(path.is_file() for path in indexed.paths(prefix)):
        return None, "the data stage was given no tokenizer"
    card = files.read_json_or_none(directory / "card.json") or {}
    made_by = card.get("tokenizer") or {}
    if made_by.get("digest") != digest:
        return None, "the data stage has tokenised with another tokenizer.json"
    if made_by.get("begin", []) != documents.begin:
        return None, "the data stage has put other ids before each document"
    if made_by.get("eod") != documents.end and not (card.get("settings") or {}).get("prepare", {}).get("eod"):
        return None, "the data stage has closed documents by another id"
    return prefix, ""


def digest(tokenizer: PreTrainedTokenizerBase) -> str:
    """Digest of the file that a tokenizer was read from, else of its vocabulary."""
    path = Path(tokenizer.name_or_path) / "tokenizer.json"
    content = path.read_bytes() if path.is_file() else json.dumps(tokenizer.get_vocab(), sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()


def _tokenise(
    source: Path,
    scratch: Path,
    documents: DocumentEncoder,
    dtype: np.dtype[Any],
    made_from: dict[str, Any],
    ctx: WorkContext,
) -> None:
    """Make the files in ``scratch``: each process its share of the parts, the first one joins them."""

    def write(part: Path, start: int, end: int) -> None:
        rows = examples.rows_between(source, "corpus", start, end)
        _write_part(part, texts_of(rows, documents), documents, dtype)

    parts = Parts(source, scratch, made_from, ctx)
    if not parts.paths:
        raise ExamplesError(f"{source}:1: no row of corpus")
    parts.make(write)
    if ctx.rank != 0:
        _wait(scratch / READY, made_from, lambda: None, ctx.world)
        return
    parts.wait()
    indexed.join([(path, None) for path in parts.paths], scratch / "corpus", dtype)
    files.write_json(scratch / READY, made_from)
    for part in parts.paths:
        for path in (*indexed.paths(part), _mark(part)):
            path.unlink(missing_ok=True)


class Parts:
    """Files in ``scratch`` that the processes of a stage make of the parts of a file of rows, each its share.

    They wait for each other by looking at files, and what is done is kept when a start is killed.
    """

    def __init__(self, source: Path, scratch: Path, made_from: dict[str, Any], ctx: WorkContext) -> None:
        scratch.mkdir(parents=True, exist_ok=True)
        self._size = source.stat().st_size
        self._made_from = made_from
        self._ctx = ctx
        self._said = time.monotonic()
        self.paths = [scratch / f"part-{number:05d}" for number in range(math.ceil(self._size / PART_BYTES))]

    def make(self, write: Callable[[Path, int, int], None]) -> None:
        """Make the share of this process: ``write`` is given the part, and the bytes in which its lines begin; what it
        writes is on disk when it returns."""
        for number in range(self._ctx.rank, len(self.paths), self._ctx.world):
            mark = _mark(self.paths[number])
            if files.read_json_or_none(mark) != self._made_from:
                write(self.paths[number], number * PART_BYTES, min((number + 1) * PART_BYTES, self._size))
                files.write_json(mark, self._made_from)
            self._report(number)

    def wait(self) -> None:
        """Wait until all parts are there."""
        for number, part in enumerate(self.paths):
            _wait(_mark(part), self._made_from, partial(self._report, number), self._ctx.world)

    def _report(self, number: int) -> None:
        if time.monotonic() - self._said > _REPORT_SECONDS:
            self._said = time.monotonic()
            done = number / len(self.paths) * self._size
            self._ctx.progress.report(round(done / 1e6), math.ceil(self._size / 1e6), "tokenize (MB)")


def _mark(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _write_part(prefix: Path, texts: Iterator[str], documents: DocumentEncoder, dtype: np.dtype[Any]) -> None:
    writer = indexed.IndexedWriter(prefix, dtype)
    for batch in batched(texts, _BATCH_CHARS, len):
        for ids in documents.encode(batch):
            writer.add(np.array(ids, np.int64))
    writer.close()


def _wait(path: Path, content: Any, meanwhile: Callable[[], None], world: int = 1) -> None:
    """Wait until another process has written ``content``; all ``world`` of them look a thousand times a second at most.
    Where one ends, torchrun ends them all."""
    pause = max(0.1, world / 1000)
    while files.read_json_or_none(path) != content:
        meanwhile()
        if files.wait_for(path, max(5.0, pause), interval=pause):
            time.sleep(pause)


def texts_of(rows: Iterable[Row], documents: DocumentEncoder) -> Iterator[str]:
    """Texts of the rows of a corpus.

    Raises:
        DataError: one with a control token that is refused; with file and line.
    """
    for row in rows:
        if problem := documents.flaw(row.texts["text"]):
            raise ExamplesError(f"{row.place}: {problem}")
        yield row.texts["text"]


def mix(prefix: Path, seed: int, scratch: Path, ctx: WorkContext) -> Path:
    """Directory with the documents of a corpus in the order of ``seed``, made once by the first process of a stage.

    All map it: eight processes that shuffle millions of documents each would share the cores for seconds.
    """
    ready = scratch / f"mixed-{seed}.json"
    stat = indexed.paths(prefix)[1].stat()
    content = {"prefix": str(prefix), "seed": seed, "bytes": stat.st_size, "changed": stat.st_mtime_ns}
    made = scratch / f"mixed-{seed}"
    if ctx.rank == 0 and files.read_json_or_none(ready) != content:
        made.mkdir(parents=True, exist_ok=True)
        for name, values in zip(MIXED, _mixed(indexed.Indexed(prefix), seed), strict=True):
            partial = made / f".{name}"
            np.save(partial, values)
            files.flush(partial)
            partial.replace(made / name)
        files.write_json(ready, content)
    _wait(ready, content, lambda: None, ctx.world)
    return made


def _mixed(documents: indexed.Indexed, seed: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Numbers of the documents in their new order, and where each ends when they stand one after the other."""
    order = np.arange(len(documents), dtype=np.uint32)
    np.random.Generator(np.random.PCG64(seed)).shuffle(order)
    ends = documents.lengths[order].astype(np.int64)
    np.cumsum(ends, out=ends)
    return order, ends


class Blocks(Sequence[np.ndarray[Any, Any]]):
    """Blocks of ``length`` ids (and ``extra`` of the next) out of documents that stand one after the other.

    The documents are mixed first, once and for all epochs: a file is often sorted by source. A block is read from the
    mapped file when it is asked for.
    """

    def __init__(
        self, prefix: Path, length: int, seed: int, extra: int = 0, mixed: Path | None = None, rest: bool = False
    ) -> None:
        """Map the files. ``mixed``: what ``mix`` has made of them; without it 12 bytes a document are held in memory.
        ``rest``: what is left after the last whole block is a shorter one.

        Raises:
            DataError: they are damaged, or hold not even one block.
        """
        self._documents = indexed.Indexed(prefix)
        self._length, self._extra = length, extra
        if mixed is None:
            self._order, self._ends = _mixed(self._documents, seed)
        else:
            self._order, self._ends = (np.load(mixed / name, mmap_mode="r") for name in MIXED)
        self.tokens = int(self._ends[-1]) if len(self._ends) else 0
        self._count = (max(0, self.tokens - extra) + (length - 1 if rest else 0)) // length
        if not self._count:
            raise ExamplesError(f"{prefix}.bin: {self.tokens} tokens are less than one sequence_length of {length}")

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, number: Any) -> Any:
        """The ids of a block, as the type that they have in the file."""
        first = range(self._count)[number] * self._length
        last = min(first + self._length + self._extra, self.tokens)
        parts = []
        at = int(np.searchsorted(self._ends, first, side="right"))
        while first < last:
            document = self._documents[int(self._order[at])]
            begin = len(document) - (int(self._ends[at]) - first)
            parts.append(document[begin : begin + last - first])
            first += len(parts[-1])
            at += 1
        return np.concatenate(parts)
