"""The rows that NeMo-RL reads, so that it learns the ids that evaluation scores.

NeMo-RL tokenises prompt and answer apart, without the tokenizer's own special tokens, and puts the beginning and the
end token there as text. ``jobs.training.examples`` tokenises them together. Where both give the same ids the row is
left as it is; where a token reaches over the border, the border is moved; where nothing helps, the row is counted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.backends.nemo_rl.render import FIELDS
from jobs.backends.nemo_rl.schemas import DataStyle, Schema
from jobs.backends.nemo_rl.settings import RlSettings, SftSettings
from jobs.core import files
from jobs.training import examples, tokenizers
from jobs.training.examples import Pair, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LONGEST_TOKEN = 32
"""Characters by which a border may move: no token of a word is longer."""


@dataclass(frozen=True)
class PreparedTexts:
    """A data file for NeMo-RL. ``other``: rows of which NeMo-RL will make other ids than evaluation does, or None where
    that was not looked at. ``bos``: see ``render.Place``."""

    path: Path
    rows: int
    bos: bool = True
    other: int | None = None
    skipped: int = 0


def place(settings: RlSettings, schema: Schema, data: Path, scratch: Path) -> Path:
    """The file that NeMo-RL will read: the stage's own rows, or those that ``prepare`` writes."""
    own = isinstance(settings, SftSettings) or schema.data is DataStyle.FIXED
    return scratch / data.name if own else data


def prepare(settings: RlSettings, schema: Schema, data: Path, model: Path, scratch: Path) -> PreparedTexts:
    """Write the rows of ``data`` where they cannot be read as they are.

    Raises:
        DataError: a row that is none, or longer than ``sequence_length`` unless such rows are to be left out.
    """
    rows = examples.read_rows(data, settings.ROWS)
    target = place(settings, schema, data, scratch)
    if not isinstance(settings, SftSettings):
        if target != data:
            _write(target, [{_of_0_3(name): row.texts[name] for name in FIELDS["dpo"]} for row in rows])
        return PreparedTexts(target, len(rows))
    if settings.chat_template != "plain":  # the ids are for the template to say
        _write(target, [row.texts for row in rows])
        return PreparedTexts(target, len(rows))
    tokenizer = tokenizers.load(model)
    kept = examples.fitting_pairs(rows, data, tokenizer, settings.sequence_length, settings.too_long)
    bos = begins(tokenizer)
    found = [apart(tokenizer, row, pairs[0], bos, schema.strips) for row, pairs in kept]
    _write(target, [texts for texts, _ in found])
    other = sum(not same for _, same in found)
    return PreparedTexts(target, len(kept), bos, other, len(rows) - len(kept))


def _of_0_3(name: str) -> str:
    return name if name == "prompt" else f"{name}_response"


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_atomic(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def begins(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its beginning token before a text."""
    ids = list(tokenizer("a")["input_ids"])
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def apart(
    tokenizer: PreTrainedTokenizerBase, row: Row, wanted: Pair, bos: bool, strips: bool
) -> tuple[dict[str, str], bool]:
    """Prompt and answer of a row, divided so that NeMo-RL makes ``wanted`` of them; whether it will."""
    prompt, answer = row.texts["prompt"], row.texts["completion"]
    for moved in range(min(len(prompt), LONGEST_TOKEN + 1)):
        border = len(prompt) - moved
        first, last = prompt[:border], prompt[border:] + answer
        if as_nemo_rl(tokenizer, first, last, bos, strips) == wanted:
            return {"prompt": first, "completion": last}, True
    return {"prompt": prompt, "completion": answer}, False


def as_nemo_rl(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, bos: bool, strips: bool) -> Pair:
    """The ids that NeMo-RL trains, with the template that adds nothing (``get_formatted_message_log`` in
    nemo_rl/data/llm_message_utils.py of 0.3.1 to 0.7.0)."""
    begin, end = str(tokenizer.bos_token or ""), str(tokenizer.eos_token or "")
    if bos and not prompt.startswith(begin):
        prompt = begin + prompt
    if strips:
        answer = answer.rstrip("\n")
    if not answer.rstrip("\n").endswith(end):
        answer += end
    ids = [tuple(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in (prompt, answer)]
    return Pair(*ids)
