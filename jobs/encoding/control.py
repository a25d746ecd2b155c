"""Control tokens (added tokens that a tokenizer marks as special) that stand in texts of the user.

A template writes control tokens; a user's text may hold the same characters. In a text that was not written by the
template they are marked: each of their characters is replaced by one of a private plane, before the template sees it.
``encode`` then gives a tokenizer in which the template's tokens have private names, so that only those are recognised
and the marked ones are cut like any other text.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jobs.encoding.errors import CannotEncode

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARKED, _NAMED = 0xF0000, 0x100000
"""Planes of private characters: for control tokens in texts, and for those of templates."""


class ControlNames:
    """Control tokens by their names, to find them in texts. ``ids``: of each name, the longest first."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        self.ids = {name: ids[name] for name in sorted(ids, key=lambda name: (-len(name), name)) if name}
        self._names = list(self.ids)
        self._pattern = re.compile("|".join(map(re.escape, self._names))) if self._names else None

    def count(self, value: Any) -> Counter[str]:
        """How often each control token occurs in the texts of ``value``."""
        return Counter(self._pattern.findall("\0".join(_texts(value)))) if self._pattern is not None else Counter()


class Control(ControlNames):
    """The control tokens of one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(
            {str(token): int(number) for number, token in tokenizer.added_tokens_decoder.items() if token.special}
        )
        self._tokenizer = tokenizer
        self._number = {name: number for number, name in enumerate(self.ids)}

    def mark(self, value: Any) -> Any:
        """``value`` with the control tokens in its texts marked."""
        return mapped(value, self._mark)

    def _mark(self, text: str) -> str:
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._private(match[0], _MARKED), text)

    def _private(self, name: str, plane: int) -> str:
        return chr(plane + self._number[name]) * len(name)

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        return re.compile("|".join(re.escape(self._private(name, _MARKED)) for name in self._names))

    def unmark(self, text: str) -> str:
        """The text as it was before ``mark``."""
        return self._marks.sub(lambda match: self._names[ord(match[0][0]) - _MARKED], text) if self._names else text

    def encode(self, marked: str) -> tuple[list[int], Any]:
        """Ids of a text with marks, and what the tokenizer knows of their characters. No special tokens are added."""
        assert self._pattern is not None
        wanted = Counter(self._pattern.findall(marked))
        in_texts = {self._names[ord(match[0][0]) - _MARKED] for match in self._marks.finditer(marked)}
        named = self.unmark(self._pattern.sub(lambda match: self._private(match[0], _NAMED), marked))
        tokenizer, own = self._renamed
        made = tokenizer.encode(named, add_special_tokens=False)
        ids = [own.get(one, one) for one in made.ids]
        if any(ids.count(self.ids[name]) != wanted[name] for name in in_texts):
            raise CannotEncode(
                "control_token_in_text",
                "this tokenizer cannot distinguish a control token in a text from text: special_tokens: refuse leaves "
                "such rows out",
            )
        return ids, made

    @cached_property
    def _renamed(self) -> tuple[Any, dict[int, int]]:
        """The tokenizer with private names for its control tokens, and the ids that thereby changed."""
        from tokenizers import Tokenizer

        if not getattr(self._tokenizer, "is_fast", False):
            raise CannotEncode(
                "control_token_in_text",
                "control tokens in texts cannot be escaped without a tokenizer.json: special_tokens: refuse leaves "
                "such rows out",
            )
        value = json.loads(self._tokenizer.backend_tokenizer.to_str())
        value.update(truncation=None, padding=None, post_processor=None)
        names: dict[str, int] = {}
        for token in value["added_tokens"]:
            own = token["content"]
            if own in self.ids:
                token["content"] = self._private(own, _NAMED)
            names[token["content"]] = int(token["id"])
        made = Tokenizer.from_str(json.dumps(value))
        return made, {made.token_to_id(name) or 0: number for name, number in names.items()}


def mapped(value: Any, change: Callable[[str], str]) -> Any:
    """``value`` with ``change`` applied to every text in it."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key) if isinstance(key, str) else key: mapped(entry, change) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [mapped(entry, change) for entry in value]
    return value


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield str(key)
            yield from _texts(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _texts(entry)
