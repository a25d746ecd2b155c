"""Examples for training and evaluation: read from JSON lines and turned into token ids.

Training and evaluation share this module, so the ids that are scored are the ids that were learned.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core.verdict import FailureClass

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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
    """One line of a data file. ``texts`` holds the fields of its format, ``place`` is ``file:line``."""

    place: str
    id: str
    texts: dict[str, str]


@dataclass(frozen=True)
class Pair:
    """A prompt and what follows it, as ids. ``completion`` ends with the end-of-sequence token."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.completion)


def read_rows(path: Path, kind: str, limit: int | None = None) -> list[Row]:
    """All rows of a data file of a kind (a key of ``FIELDS``), or the first ``limit``.

    Raises:
        DataError: not JSON, a field missing, empty or not text, or no row at all; with file and line.
        FileNotFoundError: no such file.
    """
    rows: list[Row] = []
    for place, value in _lines(path):
        if limit is not None and len(rows) == limit:
            break
        texts = {}
        for name in FIELDS[kind]:
            text = value.get(name)
            if not isinstance(text, str) or not text.strip():
                what = "is missing" if name not in value else f"is not a text with content: {text!r}"
                raise ExamplesError(f"{place}: field {name!r} of a row of {kind} {what}")
            texts[name] = text
        rows.append(Row(place, str(value.get("id", len(rows))), texts))
    if not rows:
        raise ExamplesError(f"{path}:1: no row of {kind}")
    return rows


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with open(path, encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            place = f"{path}:{number}"
            try:
                value = json.loads(line)
            except ValueError as error:
                raise ExamplesError(f"{place}: not JSON: {error}") from error
            if not isinstance(value, dict):
                raise ExamplesError(f"{place}: a row must be an object, not {type(value).__name__}")
            yield place, value


def encode_pair(tokenizer: PreTrainedTokenizerBase, prompt: str, completion: str) -> Pair:
    """Ids of prompt and completion.

    Both are tokenised together, as the model will meet them, and divided where the prompt's own ids end. Where the last
    characters of a prompt merge with the first of the completion, the merged token counts to the completion.
    """
    alone = tokenizer(prompt)["input_ids"]
    whole = [*tokenizer(prompt + completion)["input_ids"], end_id(tokenizer)]
    split = 0
    while split < len(alone) and alone[split] == whole[split]:
        split += 1
    return Pair(tuple(whole[:split]), tuple(whole[split:]))


def fitting_pairs(
    rows: Sequence[Row],
    path: Path,
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    too_long: str,
    template: str = "{prompt}",
) -> list[tuple[Row, list[Pair]]]:
    """Each row of at most ``length`` ids with its pairs: one for each of its answers, in the order of ``FIELDS``.

    Args:
        path: where the rows came from.
        too_long: ``error``, or ``skip`` leaves longer rows out.
        template: wraps the prompt of each row.

    Raises:
        DataError: a row is longer, unless such rows are to be left out; or no row is left.
    """
    kept: list[tuple[Row, list[Pair]]] = []
    for row in rows:
        prompt = template.replace("{prompt}", row.texts["prompt"])
        pairs = [encode_pair(tokenizer, prompt, text) for name, text in row.texts.items() if name != "prompt"]
        longest = max(map(len, pairs))
        if longest <= length:
            kept.append((row, pairs))
        elif too_long == "error":
            raise ExamplesError(
                f"{row.place}: {longest} tokens, more than sequence_length {length} "
                "(too_long: skip leaves such rows out)"
            )
    if not kept:
        raise ExamplesError(f"{path}:1: no row has at most sequence_length {length} tokens")
    return kept


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the end-of-sequence token.

    Raises:
        DataError: the tokenizer has none, so that no example could be closed.
    """
    if tokenizer.eos_token_id is None:
        raise ExamplesError(f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token")
    return int(tokenizer.eos_token_id)
