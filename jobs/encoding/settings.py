"""What a data set says of how its rows become ids: ``encoding.json`` beside the files of the splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

FILE = "encoding.json"
REASONING = ("template", "keep", "strip")
SPECIAL_TOKENS = ("escape", "refuse", "allow")
TEMPLATE_DATE = "2024-07-26"
"""The day that templates see as today (Llama 3.2 writes it): rows must not change from one day to the next."""


@dataclass(frozen=True)
class Encoding:
    """What turns rows into ids.

    ``text_template``: a text with {input} and {output} for rows of plain texts. ``chat_template``: Jinja, instead of
    the tokenizer's own. ``special_tokens``: what a control token in a text is: text, an error, or a control token.
    ``reasoning``: ``keep`` gives it to the template under the name that this reads. ``options``: passed to the chat
    template (``enable_thinking: false``). ``date``: what templates see as today.
    """

    text_template: str | None = None
    chat_template: str | None = None
    special_tokens: str = "escape"
    reasoning: str = "template"
    options: Mapping[str, Any] = field(default_factory=dict)
    date: str = TEMPLATE_DATE

    def write(self, directory: Path) -> None:
        """Write ``encoding.json`` into the directory of a data set."""
        content = json.dumps({"schema": 1, **asdict(self)}, ensure_ascii=False, indent=1, sort_keys=True)
        (directory / FILE).write_text(content + "\n", encoding="utf-8")

    @classmethod
    def of(cls, path: Path) -> Encoding:
        """That of the data set which the file ``path`` belongs to.

        A data set from before this file has rows in which control tokens are written out by a template: they count.
        """
        try:
            value = json.loads((path.parent / FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return cls(special_tokens="allow")
        value.pop("schema")
        return cls(**value)
