"""Examples for training and evaluation: read from JSON lines and turned into token ids.

Training and evaluation share this module, so the ids that are scored are the ids that were learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import tee
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from jobs.core import files
from jobs.core.verdict import FailureClass
from jobs.encoding.errors import CannotEncode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from jobs.encoding.rows import RowEncoder
    from jobs.encoding.tokens import Tokens

FIELDS = {
    "corpus": ("text",),
    "instructions": ("prompt", "completion"),
    "preferences": ("prompt", "chosen", "rejected"),
}
"""Text fields of each dataset format (docs/architecture.md)."""


class ExamplesError(ValueError):
    """Something in a data file cannot be used; the message starts with ``file:line``."""

    failure = FailureClass.DATA_ERROR


@dataclass(frozen=True)
class Row:
    """One line of a data file. ``texts`` holds the fields of its format (conversations written out, for programs that
    read characters), ``place`` is ``file:line``, ``value`` is what the line says."""

    place: str
    id: str
    texts: dict[str, str]
    value: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file that the row is in."""
        return Path(self.place.rpartition(":")[0])


def parsed(place: str, line: str | bytes) -> dict[str, Any]:
    """The row of a line of JSON.

    Raises:
        ExamplesError: it is none; begins with ``place``.
    """
    try:
        value = json.loads(line)
    except ValueError as error:
        raise ExamplesError(f"{place}: not JSON: {error}") from error
    if not isinstance(value, dict):
        raise ExamplesError(f"{place}: a row must be an object, not {type(value).__name__}")
    return value


def read_rows(path: Path, kind: str) -> list[Row]:
    """All rows of a data file of a kind (a key of ``FIELDS``); texts or conversations.

    Raises:
        DataError: not JSON, a field missing, empty or not text, or no row at all; with file and line.
        FileNotFoundError: no such file.
    """
    rows = list(rows_between(path, kind))
    if not rows:
        raise ExamplesError(f"{path}:1: no row of {kind}")
    return rows


def rows_between(path: Path, kind: str, start: int = 0, end: int | None = None) -> Iterator[Row]:
    """The rows of a data file whose lines begin in these bytes; memory is that of a line.

    Raises:
        DataError: as ``read_rows``, but for a file without rows.
    """
    with open(path, "rb") as stream:
        number = sum(block.count(b"\n") for block in _blocks_of(stream, max(0, start - 1)))
        if start:
            number += stream.readline().count(b"\n")
        while end is None or stream.tell() < end:
            if not (line := stream.readline()):
                return
            number += 1
            place = f"{path}:{number}"
            value = parsed(place, line)
            yield Row(place, str(value.get("id", number - 1)), _texts(value, kind, place), value)


def _blocks_of(stream: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0 and (block := stream.read(min(size, 1 << 20))):
        size -= len(block)
        yield block


def _texts(value: dict[str, Any], kind: str, place: str) -> dict[str, str]:
    if kind == "instructions" and _is_messages(value.get("messages")):
        *before, answer = value["messages"]
        return {"prompt": _written(before), "completion": _written([answer], roles=False)}
    if kind == "preferences" and all(_is_messages(value.get(name)) for name in FIELDS[kind]):
        return {name: _written(value[name], roles=name == "prompt") for name in FIELDS[kind]}
    texts = {}
    for name in FIELDS[kind]:
        text = value.get(name)
        if not isinstance(text, str) or not text.strip():
            what = "is missing" if name not in value else f"is not a text with content: {text!r}"
            raise ExamplesError(f"{place}: field {name!r} of a row of {kind} {what}")
        texts[name] = text
    return texts


def _is_messages(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, dict) and "role" in one for one in value)


def _written(messages: list[dict[str, Any]], roles: bool = True) -> str:
    """A conversation as a text to read; a call of a tool as JSON."""
    lines = []
    for message in messages:
        parts = [str(message.get("content") or "")]
        parts += [json.dumps(call, ensure_ascii=False) for call in message.get("tool_calls") or ()]
        said = "\n".join(part for part in parts if part)
        lines.append(f"{message['role']}: {said}\n" if roles else said)
    return "".join(lines)


def encoder_of(tokenizer: PreTrainedTokenizerBase, path: Path) -> RowEncoder:
    """What makes ids of the rows of the data file ``path``."""
    from jobs.encoding.rows import RowEncoder  # not for those who only check settings
    from jobs.encoding.settings import Encoding

    return RowEncoder(tokenizer, Encoding.of(path))


def encode(encoder: RowEncoder, row: Row) -> dict[str, Tokens]:
    """The sequences of a row: ``completion`` of instructions, ``chosen`` and ``rejected`` of preferences.

    Raises:
        DataError: it cannot become ids; with file and line.
    """
    try:
        return encoder.encode(row.value or row.texts)
    except CannotEncode as error:
        raise ExamplesError(f"{row.place}: {error}") from error


def encode_prompt(encoder: RowEncoder, row: Row) -> tuple[int, ...]:
    """What the model is given to write the (last) answer of a row of instructions.

    Raises:
        DataError: as ``encode``.
    """
    try:
        return encoder.prompt(row.value or row.texts)
    except CannotEncode as error:
        raise ExamplesError(f"{row.place}: {error}") from error


def fitting_pairs(
    rows: Iterable[Row],
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    too_long: str,
    template: str = "{prompt}",
) -> Iterator[tuple[Row, list[Tokens]]]:
    """Each row of at most ``length`` ids with its sequences: one for each of its answers, in the order of ``FIELDS``.

    Args:
        path: where the rows came from.
        too_long: ``error``, or ``skip`` leaves longer rows out.
        template: wraps the prompt of each row, which must be a text.

    Raises:
        DataError: a row cannot become ids; or it is longer, unless such rows are to be left out.
    """
    rows, wrapped = tee(rows)
    found = encoder_of(tokenizer, path).encode_all(_wrapped(row, template) for row in wrapped)
    for row, made in zip(rows, found, strict=True):
        if isinstance(made, CannotEncode):
            raise ExamplesError(f"{row.place}: {made}") from made
        pairs = list(made.values())
        longest = max(map(len, pairs))
        if longest <= length:
            yield row, pairs
        elif too_long == "error":
            raise ExamplesError(
                f"{row.place}: {longest} tokens, more than sequence_length {length} "
                "(too_long: skip leaves such rows out)"
            )


def _wrapped(row: Row, template: str) -> dict[str, Any]:
    if template == "{prompt}":
        return row.value or row.texts
    if "messages" in row.value:
        raise ExamplesError(f"{row.place}: a conversation has its own template: remove prompt_template")
    return {**row.texts, "prompt": template.replace("{prompt}", row.texts["prompt"])}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """How many rows were written, one a line, as they came; the name appears when all are there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial, count = path.with_name(f".{path.name}"), 0
    with open(partial, "w", encoding="utf-8") as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    files.flush(partial)
    partial.replace(path)
    return count


def check_any(count: int, path: Path, length: int) -> None:
    """Refuse a file of which no row is left.

    Raises:
        DataError: ``count`` is 0.
    """
    if not count:
        raise ExamplesError(f"{path}:1: no row has at most sequence_length {length} tokens")
