"""A chat template with all that it is given beside the messages, rendered by transformers' own code."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jobs.encoding.errors import CannotEncode
from jobs.encoding.frames import CharacterSpan
from jobs.encoding.messages import Message

_GENERATION = re.compile(r"\{\%-?\s*generation\s*-?\%\}")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)


@dataclass(frozen=True)
class Template:
    """One template, by its text, with what it is given beside the messages."""

    source: str
    tools: Any
    more: Mapping[str, Any]
    reasoning: str

    @property
    def marks(self) -> bool:
        """Whether the template itself says what the assistant writes."""
        return bool(_GENERATION.search(_COMMENT.sub("", self.source)))

    def __call__(
        self, messages: Sequence[Message], generate: bool = False, marks: bool = False
    ) -> tuple[str, list[CharacterSpan]]:
        from jinja2 import TemplateError
        from transformers.utils.chat_template_utils import render_jinja_template

        try:
            texts, spans = render_jinja_template(
                [list(messages)],
                tools=self.tools,
                documents=None,
                chat_template=self.source,
                return_assistant_tokens_mask=marks,
                add_generation_prompt=generate,
                **self.more,
            )
        except (TemplateError, TypeError, ValueError, AttributeError, LookupError) as error:
            raise CannotEncode("refused_by_template", f"the chat template refuses it: {error}") from error
        return str(texts[0]), [(int(start), int(end)) for start, end in spans[0]] if spans else []
