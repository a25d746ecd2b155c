"""Where each turn of the assistant stands in the text that a chat template makes of a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from jobs.encoding import messages as messages_as
from jobs.encoding.errors import CannotEncode
from jobs.encoding.frames import CharacterSpan
from jobs.encoding.messages import Message
from jobs.encoding.template import Template

_CONTROL_LIKE = re.compile(r"<[^<>\s]{1,60}>|\[/?[A-Z_]+\]")
"""What templates close a turn with, where the text between two messages has to be divided."""


class Conversation:
    """One conversation in one template: its text, and where each turn of the assistant stands in it."""

    def __init__(self, template: Template, messages: Sequence[Message], opened: bool = False) -> None:
        """``opened``: an answer is to follow."""
        self._template = template
        self._parts: dict[tuple[int, bool], str] = {}
        self._ends: dict[int, int] = {}
        self._pattern: tuple[str, str, str] | None = None
        own = [{key: value for key, value in message.items() if key != "weight"} for message in messages]
        failed: CannotEncode | None = None
        for variant in self._variants(own):
            self.messages = variant
            try:
                self.full = self._whole(opened)
                self._check_complete(self.full[0])
            except CannotEncode as error:
                if failed is None or failed.reason == "refused_by_template" or error.reason == "two_think_blocks":
                    failed = error
            else:
                break
        else:
            assert failed is not None
            raise failed
        if any(message.get("content", "") is None for message in self.messages):
            written = messages_as.with_text(self.messages)
            # A template that writes null as a word does not mean it.
            if template(written)[0].count("None") < self.full[0].count("None"):
                self.messages = written
                self.full = self._whole(opened)

    def _variants(self, own: list[Message]) -> Iterator[list[Message]]:
        """The messages as the template may want them."""
        template, keep = self._template.source, self._template.reasoning == "keep"
        given = messages_as.with_reasoning(own, template, keep)
        yield from messages_as.variants(given, template)
        if keep and (read := messages_as.names_read(template)):
            apart = messages_as.with_thoughts_apart(given, read[0])
            if apart != given:
                yield from messages_as.variants(apart, template)

    def _whole(self, opened: bool) -> tuple[str, list[CharacterSpan] | None]:
        marks = self._template.marks and not opened
        text, spans = self._template(self.messages, opened, marks)
        self._parts = {(len(self.messages), opened): text}
        return text, spans if marks else None

    def _check_complete(self, text: str) -> None:
        """Refuse a conversation of which the template leaves out a text."""
        for number, message in enumerate(self.messages):
            content = message.get("content")
            written_out = isinstance(content, list) and (str(content) in text or json.dumps(content)[1:-1] in text)
            if written_out or not all(messages_as.holds(text, part) for part in messages_as.shown(message)):
                raise _left_out(f"messages[{number}].content (role {message['role']})")
            if messages_as.thinks_twice(message, text):
                read = messages_as.names_read(self._template.source)
                hint = f"reasoning: keep gives it as {read[0]}, " if read else ""
                raise CannotEncode(
                    "two_think_blocks",
                    f"the chat template writes a think block of its own before that of messages[{number}].content: "
                    f"{hint}reasoning: strip leaves it out",
                )
        # The same text, or name, may stand in several places: each gets a mark of its own to find it by.
        messages, tools, marks = messages_as.marked(self.messages, self._template.tools)
        found = replace(self._template, tools=tools or None)(messages)[0]
        for mark, what in marks.items():
            if mark not in found:
                raise _left_out(what)
        ordered = messages_as.in_order_of_calls(self.messages)
        if ordered is not None and self._template(ordered)[0] == self._template(self.messages)[0]:
            raise CannotEncode(
                "results_out_of_order",
                "results of tools are not in the order of their calls, and the chat template does not write which is "
                "of which (tool_call_id): put them in that order",
            )

    def check_end(self) -> None:
        """Refuse a template that begins another answer behind the last one, whether it is asked to or not."""
        last, text = len(self.messages) - 1, self.full[0]
        asked, answer = self.part(last, True), (messages_as.shown(self.messages[last]) or [""])[-1].strip()
        end = text[text.rfind(answer) :] if answer else ""
        if not end or asked != self.part(last, False) or not text.startswith(asked):
            return
        try:
            longer, _ = self._template([*self.messages, {"role": "user", "content": "?"}])
        except CannotEncode:
            return
        if end not in longer:
            raise CannotEncode(
                "answer_begun_at_the_end",
                "the chat template writes something behind the last answer that it leaves out where a question "
                "follows, and takes no notice of add_generation_prompt: put the beginning of an answer behind "
                "{% if add_generation_prompt %} (template: FILE.jinja)",
            )

    def part(self, count: int, generate: bool) -> str:
        """The first ``count`` messages as text, with the beginning of an answer where ``generate`` is set."""
        found = self._parts.get((count, generate))
        if found is None:
            found = self._parts[count, generate] = self._template(self.messages[:count], generate)[0]
        return found

    def span(self, at: int) -> CharacterSpan:
        """The characters of the whole text that the assistant writes as message ``at``, with the end of its turn.

        It begins where the text that the model is given ends (or where the two part: a template may open a think block
        for an answer that has none), and ends where the conversation up to this message ends. Where a template renders
        a conversation in another way when more follows, the places of the message's own texts tell.
        """
        whole = self.full[0]
        start, end = self._as_before(at, whole) or (self._start(at, whole), self._end(at, whole))
        self._ends[at] = end
        if self._pattern is None:
            self._pattern = self._seen(at, whole, start, end)
        if not start < end:
            raise CannotEncode("no_place_of_answer", f"the chat template does not show where messages[{at}] is")
        return start, end

    def is_open(self, at: int, span: CharacterSpan) -> bool:
        """Whether a span ends with the content of message ``at``, and not with what ends a turn."""
        text, message = self.full[0], self.messages[at]
        answer = messages_as.shown(message)[-1:]
        if message.get("tool_calls") or not answer or not text[slice(*span)].rstrip().endswith(answer[0]):
            return False
        try:  # an answer such as ">" is also the end of many a control token
            return not text[self._anchor(at, self.messages)[1] : span[1]].strip()
        except CannotEncode:
            return True

    def closed(self, at: int) -> CharacterSpan:
        """``span`` with what closes the answer: where a template leaves that to the message that follows, its
        beginning.

        Raises:
            CannotEncode: nothing follows the answer.
        """
        start, end = self.span(at)
        if not self.is_open(at, (start, end)):
            return start, end
        rest = self.full[0][end:]
        following = _CONTROL_LIKE.match(rest, len(rest) - len(rest.lstrip()))
        if following is None:
            raise CannotEncode(
                "no_end_of_turn",
                "the chat template writes nothing behind an answer, so no model would learn where to stop: name a "
                "template that closes it (template: FILE.jinja)",
            )
        return start, end + following.end()

    def _turn(self, at: int) -> tuple[str, str] | None:
        """Question and answer of a turn that is nothing but two texts behind another turn, else None."""
        if at - 2 not in self._ends or at == len(self.messages) - 1:
            return None
        asked, answer = self.messages[at - 1 : at + 1]
        texts = (asked.get("content"), answer.get("content"))
        if asked["role"] != "user" or answer.keys() - {"role", "content"} or not all(isinstance(t, str) for t in texts):
            return None
        return str(texts[0]), str(texts[1])

    def _seen(self, at: int, whole: str, start: int, end: int) -> tuple[str, str, str] | None:
        """What the template writes before, between and behind the two texts of a turn."""
        turn = self._turn(at)
        between, written = whole[self._ends[at - 2] : start] if turn else "", whole[start:end]
        for asked, answer in _as_written(turn):
            if between.count(asked) == 1 and written.startswith(answer) and len(written) > len(answer):
                before, _, opening = between.partition(asked)
                return before, opening, written[len(answer) :]
        return None

    def _as_before(self, at: int, whole: str) -> CharacterSpan | None:
        """The span of a turn that is written as an earlier one of the conversation, character by character: a long
        conversation is not rendered anew for each of its turns."""
        if self._pattern is None:
            return None
        before, opening, closing = self._pattern
        for asked, answer in _as_written(self._turn(at)):
            asked = before + asked + opening
            if whole.startswith(asked + answer + closing, self._ends[at - 2]):
                start = self._ends[at - 2] + len(asked)
                return start, start + len(answer) + len(closing)
        return None

    def _start(self, at: int, whole: str) -> int:
        asked = self.part(at, True)
        if whole.startswith(asked):
            return len(asked)
        before = self.part(at, False)
        if whole.startswith(before):
            # Where the two part within a control token, the answer has its first characters by chance.
            common = _common(asked, whole)
            inside = (
                tag.start() for tag in _CONTROL_LIKE.finditer(asked, len(before)) if tag.start() < common < tag.end()
            )
            return next(inside, common)
        opening = asked[len(before) :] if asked.startswith(before) else ""
        previous = self._anchor(at - 1, self.messages)[1]
        own = self._anchor(at, self.messages)[0]
        between = whole[previous:own]
        controls = list(_CONTROL_LIKE.finditer(opening))
        for size in range(len(opening), controls[0].end() - 1 if controls else len(opening), -1):
            if size and (found := between.rfind(opening[:size])) >= 0:
                return previous + found + size
        found_controls = list(_CONTROL_LIKE.finditer(between))
        if not opening and found_controls:
            return previous + found_controls[-1].end()
        raise unclear(at)

    def _end(self, at: int, whole: str) -> int:
        if at == len(self.messages) - 1:
            return len(whole)
        through = self.part(at + 1, False)
        if whole.startswith(through):
            return len(through)
        behind_here = self._anchor(at, self.messages)[1]
        behind_alone = self._anchor(at, self.messages[: at + 1])[1]
        tail = through[behind_alone:]
        if tail and whole.startswith(tail, behind_here):
            return behind_here + len(tail)
        following = self._anchor(at + 1, self.messages)[0]
        between = whole[behind_here:following]
        # The text behind the answer that both have in common, up to the end of a control token; else the first one.
        common = _common(tail, between)
        closed = [match.end() for match in _CONTROL_LIKE.finditer(between)]
        ends = [end for end in closed if end <= common] or closed[:1]
        if not ends or self.messages[at].get("tool_calls"):
            raise unclear(at)
        spaces = len(between) - len(between[ends[-1] :].lstrip()) if between[ends[-1] :].strip() else ends[-1]
        return behind_here + spaces

    def _anchor(self, at: int, messages: Sequence[Message]) -> CharacterSpan:
        """Where the content of a message (of tool calls alone: the name of the last one) stands in the text."""
        text = self._template(messages)[0] if len(messages) < len(self.messages) else self.full[0]
        found = []
        for behind in (False, True):
            changed = [*messages[:at], messages_as.with_anchor(messages[at], behind), *messages[at + 1 :]]
            marked = self._template(changed)[0]
            if marked.count(messages_as.ANCHOR) != 1 or marked.replace(messages_as.ANCHOR, "") != text:
                raise unclear(at)
            found.append(marked.index(messages_as.ANCHOR))
        return found[0], found[1]


def _as_written(turn: tuple[str, str] | None) -> Iterator[tuple[str, str]]:
    """Question and answer as a template may write them: as they are, or without the spaces around them."""
    if turn is None or not all(text.strip() for text in turn):
        return
    for asked in dict.fromkeys((turn[0], turn[0].strip())):
        for answer in dict.fromkeys((turn[1], turn[1].strip())):
            yield asked, answer


def _common(one: str, other: str) -> int:
    """How many characters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _left_out(what: str) -> CannotEncode:
    return CannotEncode(
        "left_out_by_template",
        f"the chat template leaves out {what}: name a template that has a place for it (template: FILE.jinja), or "
        "remove it from the row",
    )


def unclear(at: int) -> CannotEncode:
    """That it cannot be told what the model learns of message ``at``."""
    return CannotEncode(
        "turns_change_in_template",
        f"the chat template writes messages[{at}] in another way when more messages follow, so what the model learns "
        "of it cannot be determined: answers: each makes a row for each answer, answers: last learns the last one only",
    )
