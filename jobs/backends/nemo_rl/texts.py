"""The rows that NeMo-RL reads, so that it learns the ids that evaluation scores.

NeMo-RL tokenises prompt and answer apart, without the tokenizer's own special tokens, and puts the beginning and the
end token there as text. ``jobs.encoding`` tokenises them together. Where both give the same ids the row is left as it
is; where a token reaches over the border, the border is moved; where nothing helps, a row of texts is counted and a
conversation is refused. Conversations are rendered here: NeMo-RL gets the text that the chat template writes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.backends.nemo_rl.schemas import DataStyle, Schema
from jobs.backends.nemo_rl.settings import RlSettings, SftSettings
from jobs.encoding.errors import CannotEncode
from jobs.encoding.rows import RowEncoder
from jobs.encoding.tokens import Tokens
from jobs.training import examples, tokenizers
from jobs.training.examples import ExamplesError, Row

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_LIMIT = 1 << 60
LONGEST_TOKEN = 32
"""Characters by which a border may move: no token of a word is longer."""


@dataclass(frozen=True)
class PreparedTexts:
    """A data file for NeMo-RL. ``other``: rows of which NeMo-RL will make other ids than evaluation does, or None where
    that was not looked at. ``bos``, ``eos``: see ``render.Place``."""

    path: Path
    rows: int
    bos: bool = True
    other: int | None = None
    skipped: int = 0
    eos: bool = True


def place(data: Path, scratch: Path) -> Path:
    """The file that NeMo-RL will read, which ``prepare`` writes."""
    return scratch / data.name


def prepare(settings: RlSettings, schema: Schema, data: Path, model: Path, scratch: Path) -> PreparedTexts:
    """Write the rows of ``data`` as NeMo-RL reads them.

    Raises:
        DataError: a row that is none, that NeMo-RL cannot be given, or longer than ``sequence_length`` unless such rows
            are to be left out.
    """
    target = place(data, scratch)
    tokenizer = tokenizers.load(model)
    encoder = examples.encoder_of(tokenizer, data)
    count: Counter[str] = Counter()

    def rows() -> Iterator[Row]:
        for row in examples.rows_between(data, settings.ROWS):
            count["read"] += 1
            yield row

    chat = encoder.encoding.text_template is not None or any(map(_is_chat, rows()))
    count.clear()
    sft = isinstance(settings, SftSettings)
    length, too_long = (
        (settings.sequence_length, settings.too_long) if isinstance(settings, SftSettings) else (NO_LIMIT, "error")
    )
    if settings.chat_template != "plain":  # the ids are for the template to say
        if chat:
            raise ExamplesError(f"{data}:1: conversations are rendered already: set chat_template to plain")
        written = examples.write_rows(target, (_named(row.texts, settings, schema) for row in rows()))
        examples.check_any(written, data, length)
        return PreparedTexts(target, written)
    # Elsewhere than in SFT NeMo-RL puts both tokens there whatever it is told.
    bos, eos = (not chat and begins(tokenizer), not chat) if sft else (True, True)

    def fitted() -> Iterator[dict[str, str]]:
        for row, sequences in examples.fitting_pairs(rows(), data, tokenizer, length, too_long):
            texts, same = _fitted(encoder, row, sequences, Adds(bos, eos, schema.strips), free=sft)
            if not same and chat:
                raise ExamplesError(
                    f"{row.place}: NeMo-RL would make other ids of this conversation than the tokenizer does (it "
                    "tokenises prompt and answer apart, and may add a beginning and an end token): use another back "
                    "end for it"
                )
            count["other"] += not same
            yield _named(texts, settings, schema)

    written = examples.write_rows(target, fitted())
    examples.check_any(written, data, length)
    return PreparedTexts(target, written, bos, count["other"], count["read"] - written, eos)


def _is_chat(row: Row) -> bool:
    return "messages" in row.value or isinstance(row.value.get("prompt"), list)


def _named(texts: dict[str, str], settings: RlSettings, schema: Schema) -> dict[str, str]:
    """The texts under the names of the fields that the version reads."""
    if isinstance(settings, SftSettings) or schema.data is not DataStyle.FIXED:
        return texts
    return {_of_0_3(name): text for name, text in texts.items()}


@dataclass(frozen=True)
class Adds:
    """What NeMo-RL does to a row: it puts the beginning and the end token there, and takes line ends off an answer."""

    bos: bool
    eos: bool
    strips: bool


def _fitted(
    encoder: RowEncoder, row: Row, sequences: list[Tokens], adds: Adds, free: bool
) -> tuple[dict[str, str], bool]:
    """The texts of a row, and whether NeMo-RL will make the right ids of all of them; ``free``: the border between
    prompt and answer may be moved."""
    try:
        pairs = encoder.texts(row.value)
    except CannotEncode as error:
        raise ExamplesError(f"{row.place}: {error}") from error
    if free:
        ((name, pair),) = pairs.items()
        if not adds.eos and not _is_chat(row):  # a text among conversations: what they have written stands in it, too
            begin = str(encoder.tokenizer.bos_token) if begins(encoder.tokenizer) else ""
            pair = (begin + pair[0].removeprefix(begin), pair[1] + str(encoder.tokenizer.eos_token))
        found, same = apart(encoder.tokenizer, *pair, sequences[0], adds)
        return {"prompt": found[0], name: found[1]}, same
    made = [as_nemo_rl(encoder.tokenizer, *pair, adds) for pair in pairs.values()]
    prompts = {pair[0] for pair in pairs.values()}
    texts = {"prompt": next(iter(prompts)), **{name: answer for name, (_, answer) in pairs.items()}}
    return texts, len(prompts) == 1 and made == sequences


def _of_0_3(name: str) -> str:
    return name if name == "prompt" else f"{name}_response"


def begins(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts its beginning token before a text."""
    ids = list(tokenizer("a")["input_ids"])
    return tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]


def apart(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, wanted: Tokens, adds: Adds
) -> tuple[tuple[str, str], bool]:
    """Prompt and answer of a row, divided so that NeMo-RL makes ``wanted`` of them; whether it will."""
    for moved in range(min(len(prompt), LONGEST_TOKEN + 1)):
        border = len(prompt) - moved
        first, last = prompt[:border], prompt[border:] + answer
        if as_nemo_rl(tokenizer, first, last, adds) == wanted:
            return (first, last), True
    return (prompt, answer), False


def as_nemo_rl(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, adds: Adds) -> Tokens:
    """The ids that NeMo-RL trains, with the template that adds nothing (``get_formatted_message_log`` in
    nemo_rl/data/llm_message_utils.py of 0.3.1 to 0.7.0)."""
    begin, end = str(tokenizer.bos_token or ""), str(tokenizer.eos_token or "")
    if adds.bos and not prompt.startswith(begin):
        prompt = begin + prompt
    if adds.strips:
        answer = answer.rstrip("\n")
    if adds.eos and not answer.rstrip("\n").endswith(end):
        answer += end
    first, last = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, answer))
    return Tokens.of(first, last)
