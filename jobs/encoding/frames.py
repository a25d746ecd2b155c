"""What a template writes around the texts of conversations that differ in nothing but these texts.

Most conversations of a data set have one of a few shapes: so many turns of plain text. Where the loss is in such a
shape is found out once, with marks in place of the texts. A conversation whose text is the shape's with its own texts
in it is then rendered once, and not anew for each of its turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

CharacterSpan = tuple[int, int]
Place = tuple[int, int]
"""A place in the text of a frame: the number of the part that it is in or behind, and how far in."""

MOST = 256


def shape_of(messages: Sequence[dict[str, Any]]) -> tuple[tuple[str, int], ...] | None:
    """What conversations with the same frame have in common; None where there may be no frame."""
    found = []
    for message in messages:
        content = message.get("content")
        if not isinstance(content, str) or message.keys() - {"role", "content", "weight"}:
            return None
        # Templates look for some words, and a text may begin as what they write.
        if not content or content != content.strip() or content[0] in "<[" or "think" in content.lower():
            return None
        found.append((message["role"], message.get("weight", 1)))
    return tuple(found)


def with_marks(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages with a mark in place of each text."""
    return [{**message, "content": mark(number)} for number, message in enumerate(messages)]


def mark(number: int) -> str:
    """What stands in place of a text to find it by."""
    return f"zq{number}qz"


@dataclass(frozen=True)
class Frame:
    """``parts``: what is written before, between and behind the texts; ``spans``: where the loss begins and ends."""

    parts: tuple[str, ...]
    spans: tuple[tuple[Place, Place], ...]

    @classmethod
    def of(cls, text: str, spans: Sequence[CharacterSpan], count: int) -> Frame | None:
        """The frame of a text with ``count`` marks; None where it does not have each of them once, in order."""
        parts, starts, at = [], [], 0
        for number in range(count):
            place = text.find(mark(number), at)
            if place < 0 or text.count(mark(number)) != 1:
                return None
            parts.append(text[at:place])
            starts.append(at)
            at = place + len(mark(number))
        parts.append(text[at:])
        starts.append(at)

        def place_of(offset: int) -> Place | None:
            for number, (start, part) in enumerate(zip(starts, parts, strict=True)):
                if start <= offset <= start + len(part):
                    return number, offset - start
            return None

        places = [(place_of(start), place_of(end)) for start, end in spans]
        found = tuple((start, end) for start, end in places if start is not None and end is not None)
        return cls(tuple(parts), found) if len(found) == len(spans) else None

    def spans_in(self, text: str, contents: Sequence[str]) -> tuple[CharacterSpan, ...] | None:
        """Where the loss is in the text of a conversation; None where the text is not this frame with its texts."""
        starts, at = [], 0
        for part, content in zip(self.parts, (*contents, ""), strict=True):
            if not text.startswith(part, at) or not text.startswith(content, at + len(part)):
                return None
            starts.append(at)
            at += len(part) + len(content)
        if at != len(text):
            return None
        return tuple((starts[one] + more, starts[last] + rest) for (one, more), (last, rest) in self.spans)


def merged(spans: Sequence[CharacterSpan]) -> list[CharacterSpan]:
    """The spans, those that touch as one: a template may mark an answer and its end apart."""
    found: list[CharacterSpan] = []
    for start, end in spans:
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
