"""Rows of a data set to ids and loss: the one way for lengths, ``inspect``, back ends and evaluation.

A row of instructions has ``messages`` (perhaps ``tools``), or the texts ``prompt`` and ``completion``; a row of
preferences has ``prompt``, ``chosen`` and ``rejected``, all lists of messages or all texts. Loss is on every turn of
the assistant whose ``weight`` is not 0, with the end of the turn as the template writes it; of texts, on the
answer and the end token.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

from jobs.encoding.chat import Chat, RenderedChat
from jobs.encoding.control import Control, mapped
from jobs.encoding.errors import CannotEncode
from jobs.encoding.messages import Message
from jobs.encoding.settings import Encoding
from jobs.encoding.texts import PlainTexts
from jobs.encoding.tokens import Cut, Tokens, ids_of, with_loss

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ANSWERS = ("chosen", "rejected")
TEXTS = ("messages", "prompt", "completion", *ANSWERS, "tools")
"""Fields of a row that hold texts of the user."""
_BATCH = 64
"""Rows that the tokenizer is given at once: it spreads them over its threads."""
_Text = tuple[str, bool]
"""A text that is complete, and whether control tokens in it are marked."""
IdsOf = Callable[[str], Iterable[int]]
T = TypeVar("T")
_Made = Callable[[RenderedChat, Cut | CannotEncode], T]


class RowEncoder:
    """Rows of one data set by one tokenizer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, encoding: Encoding | None = None) -> None:
        self.tokenizer = tokenizer
        self.encoding = Encoding() if encoding is None else encoding
        self.notes: Counter[str] = Counter()
        """What templates did to rows, counted over all calls of ``encode``."""
        self._chat = Chat(tokenizer, self.encoding)
        self._plain = PlainTexts(tokenizer, self.encoding.text_template)

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
        (found,) = self.encode_all([row])
        if isinstance(found, CannotEncode):
            raise found
        return found

    def encode_all(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Tokens] | CannotEncode]:
        """What ``encode`` returns of each row, or why it cannot become ids; in batches, which is quicker."""
        return self._all(rows, self._cut, lambda one, cut: with_loss(one.spans, cut))

    def sizes_all(self, rows: Iterable[Mapping[str, Any]], ids: IdsOf | None = None) -> Iterator[int | CannotEncode]:
        """How many ids the longest sequence of each row has, or why it cannot become ids; less work than ids.

        ``ids``: gives the ids that the tokenizer makes of a text, where there is a quicker way; every character that is
        no white space is then of an id.
        """

        def size(one: RenderedChat, cut: Cut | CannotEncode) -> Sized:
            if isinstance(cut, CannotEncode) or cut[1] is not None:
                return with_loss(one.spans, cut)
            if any(one.text[start:end].strip() for start, end in one.spans):
                return cut[0]
            return with_loss(one.spans, self._cut([(one.text, False)])[0])  # white space may be of no id

        for found in self._all(rows, partial(self._cut, ids=ids), size):
            yield found if isinstance(found, CannotEncode) else max(map(len, found.values()))

    def _all(
        self,
        rows: Iterable[Mapping[str, Any]],
        cutter: Callable[[list[_Text]], list[Cut | CannotEncode]],
        made: _Made[T],
    ) -> Iterator[dict[str, T] | CannotEncode]:
        rest = iter(rows)
        while batch := list(islice(rest, _BATCH)):
            begun = [_begun(self._steps(row, made)) for row in batch]
            cut = iter(cutter([one for _, wanted in begun if isinstance(wanted, list) for one in wanted]))
            for steps, wanted in begun:
                if isinstance(wanted, CannotEncode):
                    yield wanted
                    continue
                try:
                    steps.send(list(islice(cut, len(wanted))))
                except StopIteration as done:
                    yield done.value
                except CannotEncode as error:
                    yield error

    def _steps(
        self, row: Mapping[str, Any], made: _Made[T]
    ) -> Generator[list[_Text], list[Cut | CannotEncode], dict[str, T | Tokens]]:
        """Asks for the ids of texts, and makes of them the sequences of a row; ``made``: those of conversations."""
        row, marked = self._checked(row)
        found = self._conversations(row, marked)
        if not found:
            names = _answers(row)
            texts = [self._plain.joined(row["prompt"], row[name], marked) for name in names]
            cuts = yield [(one, marked) for one in (texts[0][0], *(both for _, both in texts))]
            alone, *whole = map(ids_of, cuts)
            self._note_unknown(whole)
            pairs = [self._plain.divided(alone, ids) for ids in whole]
            start = min(pair.start for pair in pairs)
            return {name: Tokens.of(one.ids[:start], one.ids[start:]) for name, one in zip(names, pairs, strict=True)}
        if not self.tokenizer.is_fast:
            raise CannotEncode("no_offsets", "conversations need a tokenizer with a tokenizer.json")
        self.notes["answers whose reasoning the template leaves out"] += max(one.unwritten for one in found.values())
        cuts = yield [(one.text, marked) for one in found.values()]
        self._note_unknown([cut[0] for cut in cuts if not isinstance(cut, CannotEncode)])
        return {name: made(one, cut) for (name, one), cut in zip(found.items(), cuts, strict=True)}

    def _note_unknown(self, sequences: Iterable[list[int]]) -> None:
        """Count a row with characters for which the tokenizer has no ids of their own."""
        unknown = self.tokenizer.unk_token_id
        if unknown is not None and any(unknown in one for one in sequences):
            self.notes[f"rows with text that the tokenizer does not know ({self.tokenizer.unk_token})"] += 1

    def _cut(self, texts: Sequence[_Text], ids: IdsOf | None = None) -> list[Cut | CannotEncode]:
        """Ids of texts that are complete."""
        plain = [text for text, marked in texts if not marked]
        if ids is not None:
            made = ((list(ids(text)), None) for text in plain)
        elif self.tokenizer.is_fast:
            own = self.tokenizer.backend_tokenizer
            own.no_truncation()  # its file may say otherwise
            own.no_padding()
            own.encode_special_tokens = False  # a call for documents leaves it set
            made = ((one.ids, one) for one in own.encode_batch(plain, add_special_tokens=False))
        else:
            made = ((list(self.tokenizer(text, add_special_tokens=False)["input_ids"]), None) for text in plain)
        found: list[Cut | CannotEncode] = []
        for text, marked in texts:
            try:
                found.append(self.control.encode(text) if marked else next(made))
            except CannotEncode as error:
                found.append(error)
        return found

    def prompt(self, row: Mapping[str, Any]) -> tuple[int, ...]:
        """The ids that the model is given to write the last answer of a row of instructions.

        Raises:
            CannotEncode: as ``encode``.
        """
        row, marked = self._checked(row)
        if "messages" not in row:
            alone, whole = self._plain.joined(row["prompt"], row["completion"], marked)
            both = self._cut([(alone, marked), (whole, marked)])
            return self._plain.divided(*map(ids_of, both)).prompt
        text = self._chat.prompt(row["messages"][:-1], row.get("tools"), row.get("chat_template_kwargs"))
        return tuple(ids_of(*self._cut([(text, marked)])))

    def texts(self, row: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
        """Prompt and answer of each sequence as text, with all that the template writes, for programs that take
        nothing else; of rows of texts, these.

        Raises:
            CannotEncode: the loss is not on the end of the text alone, or control tokens in texts would be read.
        """
        row, marked = self._checked(row)
        if marked and self.encoding.special_tokens == "escape":
            raise CannotEncode(
                "control_token_in_text",
                "it holds control tokens in its texts, which this program would read as control tokens: "
                "special_tokens: refuse leaves such rows out",
            )
        both = self._conversations(row, marked)
        if not both:
            return {name: self._plain.filled(row["prompt"], row[name]) for name in _answers(row)}
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
                texts[name] = texts[name].removesuffix(self._plain.end)
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

    def _conversations(self, row: Mapping[str, Any], marked: bool) -> dict[str, RenderedChat]:
        """The sequences of a row of conversations by their names; of a row of texts none."""
        if "messages" in row:
            return {"completion": self._rendered(row, row["messages"], marked)}
        if "chosen" not in row or isinstance(row["prompt"], str):
            return {}
        before = [{**message, "weight": 0} for message in row["prompt"]]
        both = (self._rendered(row, [*before, *row[name]], marked) for name in ANSWERS)
        return dict(zip(ANSWERS, _from_one_place(*both), strict=True))

    def _rendered(self, row: Mapping[str, Any], messages: Sequence[Message], marked: bool) -> RenderedChat:
        tools, options = row.get("tools"), row.get("chat_template_kwargs")
        found = self._chat.rendered(messages, tools, options)
        given = mapped([*messages], self.control.unmark) if marked else [*messages]
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


def _answers(row: Mapping[str, Any]) -> tuple[str, ...]:
    return ANSWERS if "chosen" in row else ("completion",)


def _begun(steps: Generator[Any, Any, Any]) -> tuple[Generator[Any, Any, Any], list[_Text] | CannotEncode]:
    try:
        return steps, next(steps)
    except CannotEncode as error:
        return steps, error


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
