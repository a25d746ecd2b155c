"""Rows as the trainer will see them: the text cut into tokens, and which of them carry loss."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS

_PACKED = ("input_ids", "loss_mask", "seq_start_id")
_FIELDS = (("prompt", "chosen", "rejected"), ("prompt", "completion"), ("input", "output"), ("text",))


@dataclass(frozen=True)
class Token:
    """A piece of the text. ``id``: None where no tokenizer is given, and the piece is a whole field."""

    text: str
    id: int | None
    loss: bool


@dataclass(frozen=True)
class Shown:
    """One row: where it stands, its name, and its sequences (``chosen`` and ``rejected`` are two)."""

    place: str
    name: str
    sequences: dict[str, tuple[Token, ...]]


def data_file(path: Path, split: str) -> Path:
    """The file that ``path`` means: itself, the split of a data set, the split of a store entry, or a Megatron prefix.

    Raises:
        DataError: none of these.
    """
    from data_prep.tokens.indexed import is_prefix, prefix_of

    if is_prefix(path):
        return prefix_of(path)
    if path.is_file():
        return path
    for directory in (path, path / "output"):
        for name in (f"{split}.jsonl", "training.jsonl" if split == "train" else ""):
            if name and (directory / name).is_file():
                return directory / name
    names = ", ".join(f"{name}.jsonl" for name in SPLITS)
    raise DataError(f"is no data set: neither a file, nor a directory with {names}", path)


def rows(path: Path, tokenizer: Path | None, count: int, skip: int = 0) -> Iterator[Shown]:
    """``count`` rows of a file of ``data_file`` after the first ``skip``.

    Raises:
        DataError: a row that no trainer could read; with file and line.
    """
    from data_prep.tokens import indexed
    from data_prep.tokens.encoder import Encoder

    # What is shown is what tokenizers itself gives; a few rows are not worth a proof.
    encoder = None if tokenizer is None else Encoder(tokenizer, fast=False)
    if indexed.is_prefix(path):
        documents = indexed.Indexed(path)
        for number in range(skip, min(skip + count, len(documents))):
            ids = documents[number].tolist()
            yield Shown(f"{path}.bin document {number}", str(number), {"text": _pieces(encoder, ids, 0)})
        return
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(itertools.islice(stream, skip, skip + count), start=skip + 1):
            try:
                row = json.loads(line)
                if _is_packed(row):
                    yield Shown(f"{path}:{number}", f"pack {number}", _packed(row, encoder))
                    continue
                fields = next(names for names in _FIELDS if all(isinstance(row.get(name), str) for name in names))
            except (ValueError, AttributeError, StopIteration) as error:
                raise DataError("is no row of a data set", path, number) from error
            yield Shown(f"{path}:{number}", str(row.get("id", number)), _sequences(row, fields, encoder))


def _is_packed(row: object) -> bool:
    """True for a row of ``packed/<split>.jsonl``: ids, a mask of the same length, the beginnings of the rows."""
    if not isinstance(row, dict) or not all(isinstance(row.get(name), list) for name in _PACKED):
        return False
    ids, mask, starts = (row[name] for name in _PACKED)
    if not all(isinstance(number, int) for number in (*ids, *starts)) or len(ids) != len(mask):
        raise ValueError("ids and mask do not fit")
    return True


def _packed(row: dict[str, list[int]], encoder: object) -> dict[str, tuple[Token, ...]]:
    """The rows of a pack, each as the trainer sees it: attention does not cross their ends."""
    bounds = [*row["seq_start_id"], len(row["input_ids"])]
    found: dict[str, tuple[Token, ...]] = {}
    for number, (start, end) in enumerate(itertools.pairwise(bounds), start=1):
        pieces = _pieces(encoder, row["input_ids"][start:end], 0)
        found[f"row {number}"] = tuple(
            Token(piece.text, piece.id, bool(loss))
            for piece, loss in zip(pieces, row["loss_mask"][start:end], strict=True)
        )
    return found


def _sequences(row: dict[str, str], fields: tuple[str, ...], encoder: object) -> dict[str, tuple[Token, ...]]:
    from data_prep.rows import lengths
    from data_prep.tokens.encoder import Encoder

    if not isinstance(encoder, Encoder):
        if len(fields) == 1:
            return {fields[0]: (Token(row[fields[0]], None, True),)}
        return {name: (Token(row[fields[0]], None, False), Token(row[name], None, True)) for name in fields[1:]}
    end = encoder.end_of_document(None)
    if len(fields) == 1:
        return {fields[0]: _pieces(encoder, [*encoder.encode(row[fields[0]]).tolist(), end], 0)}
    found = {name: lengths.encode(encoder, row[fields[0]], row[name], end) for name in fields[1:]}
    return {name: _pieces(encoder, [*one.prompt, *one.answer], len(one.prompt)) for name, one in found.items()}


def _pieces(encoder: object, ids: list[int], without_loss: int) -> tuple[Token, ...]:
    from data_prep.tokens.encoder import Encoder

    texts = [encoder.decode([one]) if isinstance(encoder, Encoder) else str(one) for one in ids]
    return tuple(Token(text, one, at >= without_loss) for at, (text, one) in enumerate(zip(texts, ids, strict=True)))
