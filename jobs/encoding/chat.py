"""Conversations as text by the chat template of a data set, and the parts that carry loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from jobs.encoding import frames
from jobs.encoding import messages as messages_as
from jobs.encoding.errors import CannotEncode
from jobs.encoding.frames import CharacterSpan, Frame
from jobs.encoding.messages import Message
from jobs.encoding.settings import Encoding
from jobs.encoding.template import Template
from jobs.encoding.turns import Conversation, unclear

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class RenderedChat:
    """The text of a conversation and the characters that carry loss; how many answers have a reasoning that the
    template does not write."""

    text: str
    spans: tuple[CharacterSpan, ...]
    unwritten: int = 0


class Chat:
    """The chat template of a tokenizer, or the one that a data set names."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoding: Encoding) -> None:
        self._tokenizer = tokenizer
        self._encoding = encoding
        self._date = datetime.fromisoformat(encoding.date)
        self._special = dict(tokenizer.special_tokens_map)
        self._frames: dict[tuple[tuple[str, int], ...], Frame | None] = {}

    @property
    def day(self) -> str | None:
        """What the template is given as today; None: none asks for it."""
        own = self._encoding.chat_template or self._tokenizer.chat_template or ""
        templates = own.values() if isinstance(own, dict) else [own]
        return self._encoding.date if any("strftime_now" in template for template in templates) else None

    def rendered(
        self, messages: Sequence[Message], tools: Any = None, options: Mapping[str, Any] | None = None
    ) -> RenderedChat:
        """The conversation as text, with the turns of the assistant under loss whose ``weight`` is not 0.

        Raises:
            CannotEncode: the template refuses it or leaves out a text of it, or does not say where answers are.
        """
        shape = None if tools or options else frames.shape_of(messages)
        if shape is None:
            return self._rendered(messages, tools, options)
        if shape not in self._frames:
            if len(self._frames) == frames.MOST:
                self._frames.clear()
            self._frames[shape] = self._frame(messages)
        frame = self._frames[shape]
        if frame is not None:
            given = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
            text, _ = self._given(None, None)(given)
            spans = frame.spans_in(text, [message["content"] for message in messages])
            if spans is not None:
                return RenderedChat(text, spans)
        return self._rendered(messages, tools, options)

    def _frame(self, messages: Sequence[Message]) -> Frame | None:
        try:
            found = self._rendered(frames.with_marks(messages), None, None)
        except CannotEncode:
            return None
        return None if found.unwritten else Frame.of(found.text, found.spans, len(messages))

    def _rendered(self, messages: Sequence[Message], tools: Any, options: Mapping[str, Any] | None) -> RenderedChat:
        one = Conversation(self._given(tools, options), messages)
        text, marked = one.full
        turns = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
        learned = [at for at in turns if messages[at].get("weight", 1)]
        unwritten = sum(not messages_as.holds(text, messages_as.thought(one.messages[at])) for at in turns)
        if marked is None:
            one.check_end()
            closed = tuple(one.closed(at) for at in learned)
            if any(after[0] < before[1] for before, after in pairwise(closed)):
                raise unclear(learned[0])
            return RenderedChat(text, closed, unwritten)
        if learned == turns:
            spans = marked
        elif len(marked) == len(turns):
            spans = [span for span, at in zip(marked, turns, strict=True) if at in learned]
        else:
            bounds = [one.span(at) for at in learned]
            spans = [part for part in marked if any(part[0] < end and start < part[1] for start, end in bounds)]
        spans = frames.merged(spans)
        for at in learned:
            if any(one.is_open(at, span) for span in spans):
                raise CannotEncode(
                    "no_end_of_turn",
                    f"{{% generation %}} of the chat template ends with the content of messages[{at}]: no model would "
                    "learn to end its turn. Name a template that marks the ends of turns, too (template: FILE.jinja)",
                )
        return RenderedChat(text, tuple(spans), unwritten)

    def prompt(self, messages: Sequence[Message], tools: Any = None, options: Mapping[str, Any] | None = None) -> str:
        """What the model is given to answer ``messages``."""
        return Conversation(self._given(tools, options), messages, opened=True).part(len(messages), True)

    def _given(self, tools: Any, options: Mapping[str, Any] | None) -> Template:
        tools = tools or None  # as TRL does: templates of Llama write their tool text for an empty list, too
        try:
            template = self._tokenizer.get_chat_template(self._encoding.chat_template, tools)
        except ValueError as error:
            own = self._tokenizer.chat_template
            named = (
                f"the chat templates {', '.join(own)}, of which none is named default" if own else "no chat template"
            )
            raise CannotEncode(
                "no_template",
                f"the tokenizer {self._tokenizer.name_or_path} has {named}: name one "
                "(prepare: {template: FILE.jinja}), or a text with {input} and {output}",
            ) from error
        more = {
            **self._special,
            "strftime_now": self._date.strftime,
            **self._encoding.options,
            **(options or {}),
        }
        return Template(template, tools, more, self._encoding.reasoning)
