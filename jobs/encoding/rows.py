"""Rows of a data set to ids and loss: the one way for lengths, ``inspect``, back ends and evaluation.

A row of instructions has ``messages`` (perhaps ``tools``), or the texts ``prompt`` and ``completion``; a row of
preferences has ``prompt``, ``chosen`` and ``rejected``, all lists of messages or all texts. Loss is on every turn of
the assistant whose ``weight`` is not 0, with the end of the turn as the template writes it; of texts, on the
answer and the end token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jobs.encoding.chat import Chat, RenderedChat
from jobs.encoding.control import Control, mapped
from jobs.encoding.errors import CannotEncode
from jobs.encoding.messages import Message
from jobs.encoding.settings import Encoding

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERS = ("chosen", "rejected")
IGNORED = -100
"""Label of a token without loss."""
TEXTS = ("messages", "prompt", "completion", *ANSWERS, "tools")
"""Fields of a row that hold texts of the user."""


@dataclass(frozen=True)
class Tokens:
    """One sequence as the model sees it: ids, and for each whether it carries loss."""

    ids: tuple[int, ...]
    mask: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def labels(self) -> list[int]:
        """The ids with loss; ``IGNORED`` for the others."""
        return [one if learned else IGNORED for one, learned in zip(self.ids, self.mask, strict=True)]

    @property
    def start(self) -> int:
        """How many ids stand before the first with loss."""
        return self.mask.index(True) if True in self.mask else len(self.mask)

    @property
    def prompt(self) -> tuple[int, ...]:
        """The ids before the first with loss."""
        return self.ids[: self.start]

    @property
    def completion(self) -> tuple[int, ...]:
        """The ids from the first with loss on."""
        return self.ids[self.start :]

    @classmethod
    def of(cls, prompt: Sequence[int], completion: Sequence[int]) -> Tokens:
        """A prompt without loss and what follows it, with loss."""
        return cls((*prompt, *completion), (False,) * len(prompt) + (True,) * len(completion))


class RowEncoder:
    """Rows of one data set by one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoding: Encoding | None = None) -> None:
        self.tokenizer = tokenizer
        self.encoding = Encoding() if encoding is None else encoding
        self.notes: Counter[str] = Counter()
        """What templates did to rows, counted over all calls of ``encode``."""
        self._chat = Chat(tokenizer, self.encoding)

    @cached_property
    def control(self) -> Control:
        """The control tokens of the tokenizer."""
        return Control(self.tokenizer)

    @property
    def day(self) -> str | None:
        """What the chat template is given as today; None: it does not ask."""
        return self._chat.day

    def encode(self, row: Mapping[str, Any]) -> dict[str, Tokens]:
        """The sequences of a row: ``completion`` of instructions, ``chosen`` and ``rejected`` of preferences.

        Raises:
            CannotEncode: the template has no place for it, or it holds control tokens that are refused.
        """
        row, marked = self._checked(row)
        if "messages" in row:
            found = {"completion": self._rendered(row, row["messages"])}
        elif "chosen" in row and not isinstance(row["prompt"], str):
            before = [{**message, "weight": 0} for message in row["prompt"]]
            both = {name: self._rendered(row, [*before, *row[name]]) for name in ANSWERS}
            found = dict(zip(both, _from_one_place(*both.values()), strict=True))
        else:
            names = ANSWERS if "chosen" in row else ("completion",)
            pairs = {name: self._pair(row["prompt"], row[name], marked) for name in names}
            start = min(pair.start for pair in pairs.values())
            return {name: Tokens.of(pair.ids[:start], pair.ids[start:]) for name, pair in pairs.items()}
        self.notes["answers whose reasoning the template leaves out"] += max(one.unwritten for one in found.values())
        return {name: self._tokens(one, marked) for name, one in found.items()}

    def prompt(self, row: Mapping[str, Any]) -> tuple[int, ...]:
        """The ids that the model is given to write the last answer of a row of instructions.

        Raises:
            CannotEncode: as ``encode``.
        """
        row, marked = self._checked(row)
        if "messages" not in row:
            return self._pair(row["prompt"], row["completion"], marked).prompt
        text = self._chat.prompt(row["messages"][:-1], row.get("tools"), row.get("chat_template_kwargs"))
        return tuple(self._ids(text, marked)[0])

    def texts(self, row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Prompt and answer of each sequence as text, with all that the template writes, for programs that take
        nothing else; of rows of texts, these.

        Raises:
            CannotEncode: the loss is not on the end of the text alone, or control tokens in texts would be read.
        """
        row, marked = self._checked(row)
        names = ANSWERS if "chosen" in row else ("completion",)
        if marked and self.encoding.special_tokens == "escape":
            raise CannotEncode(
                "control_token_in_text",
                "it holds control tokens in its texts, which this program would read as control tokens: "
                "special_tokens: refuse leaves such rows out",
            )
        if "messages" not in row and isinstance(row["prompt"], str):
            return {name: self._filled(row["prompt"], row[name]) for name in names}
        if "messages" in row:
            both = {"completion": self._rendered(row, row["messages"])}
        else:
            before = [{**message, "weight": 0} for message in row["prompt"]]
            ends = (self._rendered(row, [*before, *row[name]]) for name in ANSWERS)
            both = dict(zip(ANSWERS, _from_one_place(*ends), strict=True))
        found = {}
        for name, one in both.items():
            start = one.spans[0][0] if one.spans else 0
            if len(one.spans) != 1 or one.text[one.spans[0][1] :].strip():
                raise CannotEncode(
                    "several_answers",
                    "loss on several answers of one conversation has no place there: answers: last or each",
                )
            found[name] = (one.text[:start], one.text[start:])
        return found

    def _checked(self, row: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
        """The row with the control tokens in its texts marked, and whether there are any."""
        mode = self.encoding.special_tokens
        if mode == "allow":
            return row, False
        texts = {name: row[name] for name in TEXTS if row.get(name)}
        for name in ("completion", *ANSWERS):
            if isinstance(texts.get(name), str):
                texts[name] = texts[name].removesuffix(self._end)
        found = self.control.count(texts)
        if not found:
            return row, False
        named = ", ".join(f"{name} ({count} times)" if count > 1 else name for name, count in found.most_common(3))
        if mode == "refuse":
            raise CannotEncode(
                "control_token_in_text",
                f"holds control tokens in its texts: {named} (special_tokens: escape makes text of them)",
            )
        prompt = row.get("prompt")
        if isinstance(prompt, str) and self.encoding.text_template is None:
            inside = self.control.count(prompt)
            begins = any(prompt.lstrip().startswith(name) for name in inside)
            bos = self.tokenizer.bos_token
            if begins and (inside.total() > 1 or (bos and prompt.lstrip().startswith(bos))):
                raise CannotEncode(
                    "already_in_template",
                    f"its prompt begins with the control token {named} as if a template were applied already: write "
                    "special_tokens: allow for such rows, or give messages",
                )
        return {**row, **self.control.mark(texts)}, True

    def _rendered(self, row: Mapping[str, Any], messages: Sequence[Message]) -> RenderedChat:
        tools, options = row.get("tools"), row.get("chat_template_kwargs")
        found = self._chat.rendered(messages, tools, options)
        given = mapped([*messages], self.control.unmark)
        if given != [*messages]:
            try:
                meant = self._chat.rendered(given, mapped(tools, self.control.unmark), options).text
            except CannotEncode:  # a template may refuse its own control tokens in texts, which these are not
                return found
            if meant != self.control.unmark(found.text):
                raise CannotEncode(
                    "control_token_in_text",
                    "holds a control token in a text that the chat template looks for: special_tokens: allow lets it, "
                    "refuse leaves such rows out",
                )
        return found

    def _ids(self, text: str, marked: bool) -> tuple[list[int], Any]:
        """Ids of a text that is complete, and the characters of each."""
        if marked:
            return self.control.encode(text)
        if not self.tokenizer.is_fast:
            raise CannotEncode("no_offsets", "conversations need a tokenizer with a tokenizer.json")
        made = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return list(made["input_ids"]), made["offset_mapping"]

    def _tokens(self, one: RenderedChat, marked: bool) -> Tokens:
        ids, offsets = self._ids(one.text, marked)
        mask = [False] * len(ids)
        at = 0
        for start, end in one.spans:
            while at < len(ids) and offsets[at][1] <= start:
                at += 1
            while at < len(ids) and offsets[at][0] < end:
                mask[at] = True
                at += 1
        if True not in mask:
            raise CannotEncode("nothing_to_learn", "no token of it carries loss")
        return Tokens(tuple(ids), tuple(mask))

    # Texts without a chat template.

    def _pair(self, prompt: str, answer: str, marked: bool) -> Tokens:
        """Both are tokenised together, as the model will meet them, and divided where the prompt's own ids end; a token
        that holds characters of both counts to the answer."""
        if not marked:
            answer = answer.removesuffix(self._end)
        prompt, answer = self._filled(prompt, answer)
        alone = self._opened(self._plain_ids(prompt, marked))
        whole = self._closed(self._opened(self._plain_ids(prompt + answer, marked)))
        split = 0
        while split < len(alone) and alone[split] == whole[split]:
            split += 1
        return Tokens.of(whole[:split], whole[split:])

    def _filled(self, prompt: str, answer: str) -> tuple[str, str]:
        return filled(self.encoding.text_template, prompt, answer)

    def _plain_ids(self, text: str, marked: bool) -> list[int]:
        if marked:
            return self.control.encode(text)[0]
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _around(self) -> tuple[list[int], list[int]]:
        """The ids that the tokenizer puts before and behind a text by itself."""
        bare = list(self.tokenizer("a", add_special_tokens=False)["input_ids"])
        made = list(self.tokenizer("a")["input_ids"])
        at = next((at for at in range(len(made)) if made[at : at + len(bare)] == bare), 0)
        return made[:at], made[at + len(bare) :]

    def _opened(self, ids: list[int]) -> list[int]:
        before = self._around[0]
        return ids if ids[: len(before)] == before else [*before, *ids]

    def _closed(self, ids: list[int]) -> list[int]:
        """What the tokenizer puts behind a text by itself, else the end token; once."""
        end, behind = end_id(self.tokenizer), self._around[1]
        if ids[-1:] == [end]:
            return ids
        return [*ids, *(behind if end in behind else [*behind, end])]

    @property
    def _end(self) -> str:
        """The end token as text: an answer that has it at its end means that one."""
        return str(self.tokenizer.eos_token or "")


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


def _from_one_place(chosen: RenderedChat, rejected: RenderedChat) -> tuple[RenderedChat, RenderedChat]:
    """Both with their loss from the same character on, where all that they share is before it."""
    if not chosen.spans or not rejected.spans:
        return chosen, rejected
    start = min(chosen.spans[0][0], rejected.spans[0][0])
    if chosen.text[:start] != rejected.text[:start]:
        return chosen, rejected
    found = [replace(one, spans=((start, one.spans[0][1]), *one.spans[1:])) for one in (chosen, rejected)]
    return found[0], found[1]


def control_tokens(encoder: RowEncoder, row: Mapping[str, Any]) -> Counter[str]:
    """Control tokens in the texts of a row."""
    return encoder.control.count({name: row[name] for name in TEXTS if row.get(name)})
