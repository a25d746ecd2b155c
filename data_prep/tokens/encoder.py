"""Text to ids by a Hugging Face tokenizer, at the speed of tiktoken where its ids are proven to be the same.

``load`` reads ``tokenizer.json``, asks ``data_prep.tokens.bpe`` whether the merges mean the same to tiktoken, and then
lets both libraries cut a text that holds every character of the first two planes in the places where a pattern can tell
characters apart (and each of the rest of Unicode's assigned planes once). Only if all ids agree is tiktoken used;
otherwise tokenizers is, and ``Encoder.why`` says what was in the way. Texts are divided at added tokens, as tokenizers
does it; single texts with added tokens that take characters around them or with bytes that the vocabulary lacks go to
tokenizers in any case.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.common.errors import DataError, SettingsError, of_extra
from data_prep.common.text import batched
from data_prep.tokens import bpe
from jobs.encoding import documents
from jobs.encoding.control import ControlNames
from jobs.encoding.load import WrongVocabulary, check_embedded, embedded

Ids = np.ndarray[Any, Any]
TOKENIZER_FILES = ("tokenizer.json", "special_tokens_map.json", "tokenizer_config.json")
"""What an encoder reads; what the last ones name counts."""
_PROBE_LINES = 4096
# Blocks of one class: ideographs, Hangul syllables, private use, Tangut, cuneiform.
_BLOCKS = (
    (0x3410, 0x4DAF), (0x4E10, 0x9FDF), (0xAC10, 0xD790), (0xE000, 0xF8EF), (0x17010, 0x187DF), (0x12010, 0x1238F),
    (0x13010, 0x1341F), (0x14410, 0x1463F), (0x16810, 0x16A2F), (0x18810, 0x18AEF), (0x1B010, 0x1B11F),
    (0x1D810, 0x1D9FF), (0x1E810, 0x1E8BF),
)  # fmt: skip


@dataclass(frozen=True)
class Special:
    """Ids of tokens with a task: the end token (None where the tokenizer names none), and all control tokens."""

    eos: int | None
    control: dict[str, int]


@dataclass(frozen=True)
class Proof:
    """That tiktoken stands in for a tokenizer: ``key`` names its digest and the versions of both libraries."""

    key: str
    left_out: tuple[int, ...]


class Encoder:
    """One tokenizer. ``engine`` is ``tiktoken`` or ``tokenizers``; ``why`` is empty or says why not tiktoken;
    ``control``: its control tokens."""

    def __init__(
        self, directory: Path, *, special_tokens: str = "escape", fast: bool = True, proven: Proof | None = None
    ) -> None:
        """Read ``directory/tokenizer.json`` (and the names of control tokens in the files beside it).

        ``special_tokens``: what a control token in a text is, see ``jobs.encoding.settings``. ``fast=False`` never
        uses tiktoken. ``proven`` is the ``proof`` of an earlier load: if it is the same, with the same versions of the
        libraries, the probe is not repeated.

        Raises:
            DataError: there is no readable tokenizer, or the model beside it does not embed all its ids.
            SettingsError: the extra ``data`` is not installed.
        """
        self.directory = directory
        path = directory / "tokenizer.json"
        try:
            content = path.read_bytes()
            parsed = json.loads(content)
        except (OSError, ValueError) as error:
            raise DataError(f"no readable tokenizer: {error}", path) from error
        self.digest = hashlib.sha256(content).hexdigest()
        self.special = _special(directory, parsed)
        self.control = ControlNames(self.special.control)
        self._mode = special_tokens
        self._slow = _tokenizer(_with_control(content, parsed, self.special.control), path)
        self._slow.encode_special_tokens = special_tokens != "allow"
        self.vocabulary = self._slow.get_vocab_size(with_added_tokens=True)
        # Ids may have gaps: the number of tokens does not tell how large an id can be.
        self.largest = max(self._slow.get_vocab(with_added_tokens=True).values(), default=0)
        try:
            check_embedded(directory, [self.largest], embedded(directory))
        except WrongVocabulary as error:
            raise DataError(str(error)) from error
        self.begin = documents.beginning(
            *(self._slow.encode("a", add_special_tokens=added).ids for added in (True, False))
        )
        self.engine, self.why = "tokenizers", ""
        self.proof: Proof | None = None
        self._form: bpe.BpeForm | None = None
        if fast:
            try:
                self._use_tiktoken(parsed, proven)
            except bpe.NotProven as error:
                self.engine, self.why, self._form, self.proof = "tokenizers", str(error), None, None

    def _use_tiktoken(self, parsed: dict[str, Any], proven: Proof | None) -> None:
        try:
            import tiktoken
        except ImportError as error:
            raise bpe.NotProven(f"tiktoken is not installed: {error}") from error
        known = proven is not None and proven.key == self._key()
        form = bpe.read_form(parsed, proven.left_out if known and proven else None)
        self._form = form
        self.proof = Proof(self._key(), form.left_out)
        self._fast = tiktoken.Encoding(
            f"proven-{self.digest[:16]}", pat_str=form.pattern, mergeable_ranks=form.ranks, special_tokens={}
        )
        names = map(re.escape, sorted(form.added, key=len, reverse=True))
        self._added = re.compile(f"({'|'.join(names)})") if form.added else None
        self._added_ids = {entry["content"]: int(entry["id"]) for entry in parsed.get("added_tokens", ())}
        # A search for all added tokens costs more than tokenising does; they mostly begin with the same character.
        self._mark = os.path.commonprefix(form.added)  # noqa: RUF071 - by characters
        self._unknown = form.unknown
        self.engine = "tiktoken"
        self._divides = _stand_alone(parsed.get("added_tokens", ()))
        side_by_side = "".join(form.added) + " a".join(form.added) + "\n\n1 ".join(form.added[::-1])
        self._divides = self._divides and np.array_equal(self.encode(side_by_side), self.reference(side_by_side))
        if known:
            return
        for text in probe_texts():
            if not np.array_equal(self.encode(text), self.reference(text)):
                raise bpe.NotProven(f"the two libraries cut differently near {_where(self, text)!r}")

    def _key(self) -> str:
        versions = (importlib.metadata.version(name) for name in ("tokenizers", "tiktoken"))
        return ":".join((self.digest, *versions))

    def reference(self, text: str) -> Ids:
        """The ids by tokenizers itself, without tokens that a template adds."""
        return np.asarray(self._slow.encode(text, add_special_tokens=False).ids, dtype=np.uint32)

    def encode(self, text: str) -> Ids:
        """The ids of ``text``, the same as ``reference`` gives."""
        if self._form is None:
            return self.reference(text)
        if self._mark not in text or self._added is None or not self._added.search(text):
            return self._plain(text)
        if not self._divides:
            return self.reference(text)
        parts = [part for part in self._added.split(text) if part]
        return np.concatenate([[self._added_ids[one]] if one in self._added_ids else self._plain(one) for one in parts])

    def _plain(self, text: str) -> Ids:
        """The ids of a text without added tokens."""
        assert self._form is not None
        if self._unknown and (not text.isascii() or len(self._unknown) > 64):
            raw = text.encode()
            if len(raw.translate(None, self._unknown)) != len(raw):
                return self.reference(text)
        elif self._unknown and any(byte < 128 and chr(byte) in text for byte in self._unknown):
            return self.reference(text)
        if self._form.nfc and not text.isascii():
            text = unicodedata.normalize("NFC", text)
        try:
            return self._fast.encode_to_numpy(text, disallowed_special=())
        except ValueError:  # its engine gives up on some very long runs (fancy-regex: backtrack limit)
            return self.reference(text)

    def encode_all(self, texts: Iterable[str]) -> Iterator[Ids]:
        """``encode`` for every text; where tokenizers does it, in batches, which it spreads over its own threads."""
        if self._form is not None:
            yield from map(self.encode, texts)
            return
        for batch in batched(texts, 1 << 20, len):
            for found in self._slow.encode_batch(batch, add_special_tokens=False):
                yield np.asarray(found.ids, dtype=np.uint32)

    def token_id(self, token: str) -> int:
        """Id of a token by its text.

        Raises:
            SettingsError: there is no such token.
        """
        found = self._slow.token_to_id(token)
        if found is None:
            raise SettingsError(f"the tokenizer {self.directory} has no token {token!r}")
        return int(found)

    def flaw(self, text: str) -> str | None:
        """Why a text cannot be tokenised as ``special_tokens`` says; None: it can."""
        return documents.flaw(text, self.control, self._mode, lambda one: self.reference(one).tolist())

    def end_of_document(self, token: str | None) -> int:
        """Id of ``token``, else of the tokenizer's end-of-sequence token.

        Raises:
            SettingsError: no such token, or none is named anywhere.
        """
        if token is not None:
            return self.token_id(token)
        if self.special.eos is None:
            raise SettingsError(f"the tokenizer {self.directory} names no end token: set eod to one of its tokens")
        return self.special.eos


def _tokenizer(content: bytes, path: Path) -> Any:
    library = of_extra("tokenizers", "tokenising")
    try:
        found = library.Tokenizer.from_buffer(content)
    except Exception as error:  # the library raises a bare Exception
        raise DataError(f"no readable tokenizer: {error}", path) from error
    # A file may have been saved with both (as embedding models are): they would cut or fill up data.
    found.no_truncation()
    found.no_padding()
    return found


_NAMED = ("eos_token", "bos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_LISTED = ("additional_special_tokens", "extra_special_tokens")


def _special(directory: Path, parsed: dict[str, Any]) -> Special:
    """The end token and all control tokens: those that tokenizer.json marks as special, and those that
    tokenizer_config.json or special_tokens_map.json name, which transformers adds when it loads the tokenizer."""
    added = parsed.get("added_tokens", ())
    ids = {entry["content"]: int(entry["id"]) for entry in added}
    control = {entry["content"]: int(entry["id"]) for entry in added if entry.get("special")}
    ids = {**parsed.get("model", {}).get("vocab", {}), **ids} if isinstance(parsed["model"].get("vocab"), dict) else ids
    eos: str | None = None
    names: set[str] = set()
    for name in TOKENIZER_FILES[1:]:
        path = directory / name
        if not path.is_file():
            continue
        try:
            value = json.loads(path.read_bytes())
        except ValueError as error:
            raise DataError(f"is not JSON: {error}", path) from error
        eos = _written(value.get("eos_token")) or eos
        names |= {_written(value.get(key)) for key in _NAMED}
        names |= {_written(token) for key in _LISTED for token in _values(value.get(key))}
        names |= {_written(token) for token in _values(value.get("added_tokens_decoder")) if token.get("special")}
    control |= {name: ids[name] for name in names if name in ids}
    return Special(ids.get(eos or ""), control)


def _values(tokens: Any) -> list[Any]:
    return list(tokens.values()) if isinstance(tokens, dict) else list(tokens or ())


def _written(token: Any) -> str:
    """A token as text: the files have it alone, or with how it is found."""
    token = token.get("content") if isinstance(token, dict) else token
    return token if isinstance(token, str) else ""


def _with_control(content: bytes, parsed: dict[str, Any], control: dict[str, int]) -> bytes:
    """The content of tokenizer.json with all control tokens marked as such; ``parsed`` is changed with it."""
    left = dict(control)
    marked = True
    for entry in parsed.get("added_tokens", ()):
        if left.pop(entry["content"], None) is not None:
            marked, entry["special"] = marked and bool(entry.get("special")), True
    if marked and not left:
        return content
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    parsed.setdefault("added_tokens", []).extend({"id": left[name], "content": name, **plain} for name in left)
    parsed["added_tokens"].sort(key=lambda entry: entry["id"])
    return json.dumps(parsed).encode()


def _stand_alone(added: Sequence[Mapping[str, Any]]) -> bool:
    """Whether added tokens are found all at once, wherever their characters are, and take no others."""
    takes = any(one.get(name) for one in added for name in ("lstrip", "rstrip", "single_word"))
    return not takes and len({bool(one.get("normalized")) for one in added}) < 2


def probe_texts() -> Iterator[str]:
    """Texts that hold every character where patterns tell characters apart, and runs of those that patterns repeat.

    A character of planes 0 and 1 that Python knows stands between letter and digit, after a space, a line end and an
    apostrophe; of blocks that are all ideographs, syllables or private every 64th does. One that is not assigned (the
    libraries may know newer versions of Unicode) stands between letter and digit, where its class shows.
    """
    lines: list[str] = []
    for code in range(0x110000):
        if 0xD800 <= code < 0xE000:
            continue
        c = chr(code)
        if code >= 0x20000 or any(first <= code <= last for first, last in _BLOCKS):
            if code % 64 == 0 or code & 0x3FF == 0x3FF or 0xE0000 <= code < 0xE0200:
                lines.append(f"a{c}1 {c}\n")
        elif unicodedata.category(c) == "Cn":
            lines.append(f"a{c}1 ")
        else:
            lines.append(f"a{c}1 {c}.\n{c}'{c}")
        if len(lines) == _PROBE_LINES:
            yield "".join(lines)
            lines = []
    yield "".join(lines)
    for run in (" ", "\n", "\t", "\r\n", "a", "1", ".", "é", "한", "\u0301", "'s", "ſ", " \n", "12 "):
        for count in (1, 2, 3, 4, 7, 100, 1000):
            yield run * count
            yield f"x{run * count}y {run * count}1"
            yield f"{run * count}\n'LL it'S WE'rE 12345 (abc)\u2028\u00a0\u3000ǅ ²½ {run * count}"


def _where(encoder: Encoder, text: str) -> str:
    """A short piece of ``text`` on which the engines differ, for the message."""
    while len(text) > 40:
        middle = len(text) // 2
        for half in (text[:middle], text[middle:]):
            if not np.array_equal(encoder.encode(half), encoder.reference(half)):
                text = half
                break
        else:
            break
    return text[:80]
