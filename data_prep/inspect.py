"""Rows as the trainer will see them: the ids that it will be given, and which of them carry loss.

The ids are made by ``jobs.encoding``, which every back end calls; printing is the command's.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS
from jobs.encoding import documents
from jobs.encoding.errors import CannotEncode

if TYPE_CHECKING:
    from jobs.encoding.rows import RowEncoder

_PACKED = ("input_ids", "loss_mask", "seq_start_id")
_FIELDS = (("messages",), ("prompt", "chosen", "rejected"), ("prompt", "completion"), ("input", "output"), ("text",))


@dataclass(frozen=True)
class Token:
    """A piece of the text. ``id``: None where no tokenizer is given, and the piece is a whole text. ``control``: it is
    a control token, not text that looks like one."""

    text: str
    id: int | None
    loss: bool
    control: bool = False


@dataclass(frozen=True)
class Shown:
    """One row: where it stands, its name, and its sequences (``chosen`` and ``rejected`` are two). ``notes``: of each
    sequence, where its beginning and end tokens stand, counted from 0, and which control tokens are text in it."""

    place: str
    name: str
    sequences: dict[str, tuple[Token, ...]]
    notes: dict[str, str] = field(default_factory=dict)


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
    raise DataError(f"is not a data set: neither a file, nor a directory with {names}", path)


def rows(path: Path, tokenizer: Path | None, count: int, skip: int = 0) -> Iterator[Shown]:
    """``count`` rows of a file of ``data_file`` after the first ``skip``.

    Raises:
        DataError: a row that no trainer could read; with file and line.
    """
    from data_prep.tokens import indexed

    encoder = None if tokenizer is None else _encoder(tokenizer, path)
    if indexed.is_prefix(path):
        documents = indexed.Indexed(path)
        for number in range(skip, min(skip + count, len(documents))):
            ids = documents[number].tolist()
            yield _shown(f"{path}.bin document {number}", str(number), {"text": _pieces(encoder, ids)}, encoder)
        return
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(itertools.islice(stream, skip, skip + count), start=skip + 1):
            try:
                row = json.loads(line)
                if _is_packed(row):
                    yield _shown(f"{path}:{number}", f"pack {number}", _packed(row, encoder), encoder)
                    continue
                fields = next(names for names in _FIELDS if all(row.get(name) for name in names))
                found = _written(row, fields) if encoder is None else _sequences(row, fields, encoder)
            except CannotEncode as error:
                raise DataError(str(error), path, number) from error
            except (ValueError, AttributeError, TypeError, StopIteration) as error:
                raise DataError("is not a row of a data set", path, number) from error
            yield _shown(f"{path}:{number}", str(row.get("id", number)), found, encoder)


def _encoder(tokenizer: Path, path: Path) -> RowEncoder:
    from jobs.encoding.load import WrongVocabulary, load
    from jobs.encoding.rows import RowEncoder
    from jobs.encoding.settings import Encoding

    try:
        return RowEncoder(load(tokenizer), Encoding.of(path))
    except WrongVocabulary as error:
        raise DataError(str(error)) from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"no readable tokenizer: {error}", tokenizer) from error


def _shown(place: str, name: str, sequences: dict[str, tuple[Token, ...]], encoder: RowEncoder | None) -> Shown:
    notes = {}
    for one, tokens in sequences.items():
        if encoder is None:
            continue
        ends = (("begin", encoder.tokenizer.bos_token_id), ("end", encoder.tokenizer.eos_token_id))
        places = [
            f"{what} token at {', '.join(map(str, found))}"
            for what, number in ends
            if number is not None and (found := [at for at, token in enumerate(tokens) if token.id == number])
        ]
        if as_text := _as_text(encoder, tokens):
            places.append(f"control tokens that are text: {documents.listed(as_text)}")
        notes[one] = "; ".join(places)
    return Shown(place, name, sequences, notes)


def _as_text(encoder: RowEncoder, tokens: Sequence[Token]) -> Counter[str]:
    """Control tokens that are spelled out by other tokens."""
    ids = [token.id for token in tokens]
    written = encoder.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    names = {number: name for name, number in encoder.control.ids.items()}
    return encoder.control.count(written) - Counter(names[number] for number in ids if number in names)


def _is_packed(row: object) -> bool:
    """True for a row of ``packed/<split>.jsonl``: ids, a mask of the same length, the beginnings of the rows."""
    if not isinstance(row, dict) or not all(isinstance(row.get(name), list) for name in _PACKED):
        return False
    ids, mask, starts = (row[name] for name in _PACKED)
    if not all(isinstance(number, int) for number in (*ids, *starts)) or len(ids) != len(mask):
        raise ValueError("ids and mask do not fit")
    return True


def _packed(row: dict[str, list[int]], encoder: RowEncoder | None) -> dict[str, tuple[Token, ...]]:
    """The rows of a pack, each as the trainer sees it: attention does not cross their ends."""
    bounds = [*row["seq_start_id"], len(row["input_ids"])]
    return {
        f"row {number}": _pieces(encoder, row["input_ids"][start:end], row["loss_mask"][start:end])
        for number, (start, end) in enumerate(itertools.pairwise(bounds), start=1)
    }


def _sequences(row: dict[str, Any], fields: tuple[str, ...], encoder: RowEncoder) -> dict[str, tuple[Token, ...]]:
    if fields == ("text",):
        made = documents.DocumentEncoder(encoder.tokenizer, encoder.encoding.special_tokens)
        if problem := made.flaw(row["text"]):
            raise CannotEncode("control_token_in_text", problem)
        return {"text": _pieces(encoder, made.encode([row["text"]])[0])}
    if fields == ("input", "output"):
        row = {"prompt": row["input"], "completion": row["output"]}
    return {name: _pieces(encoder, one.ids, one.mask) for name, one in encoder.encode(row).items()}


def _pieces(encoder: RowEncoder | None, ids: Sequence[int], mask: Sequence[int] | None = None) -> tuple[Token, ...]:
    loss = itertools.repeat(True) if mask is None else map(bool, mask)
    if encoder is None:
        return tuple(Token(str(one), one, learned) for one, learned in zip(ids, loss, strict=False))
    control = set(encoder.control.ids.values())
    return tuple(
        Token(encoder.tokenizer.decode([one]), one, learned, one in control)
        for one, learned in zip(ids, loss, strict=False)
    )


def _written(row: dict[str, Any], fields: tuple[str, ...]) -> dict[str, tuple[Token, ...]]:
    """The texts of a row without a tokenizer: one piece for each message or field."""
    if len(fields) == 1 and fields[0] != "messages":
        return {fields[0]: (Token(row[fields[0]], None, True),)}
    if fields == ("messages",):
        return {"messages": tuple(map(_message, row["messages"]))}
    found = {}
    for name in fields[1:]:
        before, answer = (
            [Token(value, None, at == 1)] if isinstance(value, str) else list(map(_message, value))
            for at, value in enumerate((row[fields[0]], row[name]))
        )
        found[name] = (*(Token(one.text, None, False) for one in before), *answer)
    return found


def _message(one: dict[str, Any]) -> Token:
    from data_prep.rows.messages import written

    return Token(f"[{one['role']}] {written([one])}\n", None, one["role"] == "assistant" and bool(one.get("weight", 1)))
