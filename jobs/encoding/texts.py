"""A prompt and its answer as texts without a chat template, with the tokens at their beginning and end."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from jobs.encoding.errors import CannotEncode
from jobs.encoding.tokens import Tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class PlainTexts:
    """PlainTexts for one tokenizer, in a template with {input} and {output} if there is one."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str | None) -> None:
        self._tokenizer = tokenizer
        self._template = template

    def filled(self, prompt: str, answer: str) -> tuple[str, str]:
        """Both with what the template writes around them."""
        return filled(self._template, prompt, answer)

    def joined(self, prompt: str, answer: str, marked: bool) -> tuple[str, str]:
        """The prompt, and the prompt with its answer."""
        if not marked:
            answer = answer.removesuffix(self.end)
        prompt, answer = self.filled(prompt, answer)
        return prompt, prompt + answer

    def divided(self, prompt: list[int], both: list[int]) -> Tokens:
        """Both are tokenised together, as the model will meet them, and divided where the prompt's own ids end; a token
        that holds characters of both counts to the answer."""
        alone, whole = self._opened(prompt), self._closed(self._opened(both))
        split = 0
        while split < len(alone) and alone[split] == whole[split]:
            split += 1
        return Tokens.of(whole[:split], whole[split:])

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and behind a text by itself."""
        bare = list(self._tokenizer("a", add_special_tokens=False)["input_ids"])
        made = list(self._tokenizer("a")["input_ids"])
        at = next((at for at in range(len(made)) if made[at : at + len(bare)] == bare), 0)
        return made[:at], made[at + len(bare) :]

    def _opened(self, ids: list[int]) -> list[int]:
        before = self._around[0]
        return ids if ids[: len(before)] == before else [*before, *ids]

    def _closed(self, ids: list[int]) -> list[int]:
        """What the tokenizer puts behind a text by itself, else the end token; once."""
        end, behind = end_id(self._tokenizer), self._around[1]
        if ids[-1:] == [end]:
            return ids
        return [*ids, *(behind if end in behind else [*behind, end])]

    @property
    def end(self) -> str:
        """The end token as text: an answer that has it at its end means that one."""
        return str(self._tokenizer.eos_token or "")


def filled(template: str | None, prompt: str, answer: str) -> tuple[str, str]:
    """A prompt and its answer in a template with {input} and {output}, if there is one."""
    if template is None:
        return prompt, answer
    # Joined, not formatted: a template is data, and so is what a user writes.
    head, rest = template.split("{input}")
    middle, tail = rest.split("{output}")
    return head + prompt + middle, answer + tail


def end_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Id of the end-of-sequence token.

    Raises:
        CannotEncode: the tokenizer has none, so that no example could be closed.
    """
    if tokenizer.eos_token_id is None:
        raise CannotEncode("no_end_token", f"{tokenizer.name_or_path}: the tokenizer has no end-of-sequence token")
    return int(tokenizer.eos_token_id)
