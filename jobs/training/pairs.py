"""Instructions and preferences as ids on disk: Arrow files that every process of a stage maps into memory.

They are written once, by all processes together, row by row; no process holds the ids of all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow

from jobs.core import files
from jobs.encoding.tokens import Tokens
from jobs.training import examples, tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from jobs.training.interface import WorkContext

NAMES = {"instructions": ("",), "preferences": ("chosen_", "rejected_")}
_BATCH = 256


@dataclass(frozen=True)
class Fit:
    """How long a row may be, what becomes of longer ones (``too_long``: error or skip), and what is put around the
    prompt of rows of texts (``template``)."""

    length: int
    too_long: str = "error"
    template: str = "{prompt}"


def dataset(
    source: Path,
    kind: str,
    fingerprint: str,
    tokenizer: PreTrainedTokenizerBase,
    fit: Fit,
    scratch: Path,
    ctx: WorkContext,
) -> tuple[Any, np.ndarray[Any, Any]]:
    """The rows of the file ``source`` as ``datasets`` maps them, and the length of each; called by all processes of a
    stage.

    A row has ``input_ids`` and ``labels``; of preferences both for ``chosen_`` and ``rejected_``. ``fingerprint``: of
    the data set that the file is in.

    Raises:
        DataError: a row that cannot be used, with file and line; no row is left.
    """
    made_from = {"fingerprint": fingerprint, "split": source.stem, "tokenizer": tokens.digest(tokenizer)}
    parts = tokens.Parts(source, scratch, {**made_from, "kind": kind, **asdict(fit)}, ctx)
    names = [f"{name}{what}" for name in NAMES[kind] for what in ("input_ids", "labels")]
    schema = pyarrow.schema([(name, pyarrow.list_(pyarrow.int32())) for name in names])

    def write(part: Path, start: int, end: int) -> None:
        rows = examples.rows_between(source, kind, start, end)
        found = examples.fitting_pairs(rows, source, tokenizer, *astuple(fit))
        with pyarrow.OSFile(str(part), "wb") as stream, pyarrow.ipc.new_stream(stream, schema) as writer:
            for columns in _columns(sequences for _, sequences in found):
                writer.write_batch(pyarrow.record_batch(columns, schema))
        files.flush(part)

    parts.make(write)
    parts.wait()
    found = read(parts.paths)
    examples.check_any(len(found), source, fit.length)
    lengths = [_lengths(found, name) for name in names[::2]]
    return found, np.maximum(lengths[0], lengths[-1])


def written(scratch: Path) -> list[Path]:
    """The files that ``dataset`` has written there."""
    return sorted(scratch.glob("part-?????"))


def read(parts: Iterable[Path]) -> Any:
    """The rows of such files, mapped."""
    found = [part for part in (datasets.Dataset.from_file(str(part)) for part in parts) if len(part)]
    return datasets.concatenate_datasets(found) if found else ()


def _columns(rows: Iterator[list[Tokens]]) -> Iterator[list[Any]]:
    while batch := list(islice(rows, _BATCH)):
        arrays = [([one.ids for one in each], [one.labels for one in each]) for each in zip(*batch, strict=True)]
        yield [pyarrow.array(values, pyarrow.list_(pyarrow.int32())) for both in arrays for values in both]


def _lengths(found: Any, name: str) -> np.ndarray[Any, Any]:
    column = found.data.column(name)
    parts = [pyarrow.compute.list_value_length(chunk).to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return np.concatenate(parts).astype(np.int32)
