"""What we do to and ask about single texts."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_SPACE = re.compile(r"\s+")
_NOT_WORD = re.compile(r"[\W_]+")
_LETTER = re.compile(r"[^\W\d_]")
_MARKS = re.compile("[.,;:!?\u2026\u3001\u3002\uff0c\uff1f\uff01]+(?=\\s|\\Z)")
_CAPITAL = re.compile(r"([A-Z\u00c0-\u00de\u0391-\u03a9\u0410-\u042f])(?![^\W\d_])(?<![^\W\d_].)")  # alone

_IDEOGRAPHS = "\u3000"  # with kana and Hangul: everything from here on

# One pattern for what must be copied, not translated: printf, brace and $ placeholders, markup, entities,
# and the & or _ of a keyboard accelerator.
_PLACEHOLDER = re.compile(
    r"%\([^)]*\)[#0\-+]*\d*(?:\.\d+)?[a-zA-Z]"
    r"|%%"
    r"|%[#0\-+]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa](?!\w)"
    r"|\$?\{[^{}]*\}"
    r"|\$[A-Za-z_]\w*"
    r"|</?[A-Za-z][^<>]*>"
    r"|&#?\w+;"
    r"|(?<![A-Z])&(?=\w)|&(?=[a-z0-9])"
    r"|(?<!\S)_(?=[^\W_])"
)


def clean(text: str) -> str:
    """Composed characters (NFC), one space for any run of white space, none at the ends."""
    return _SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


def key(text: str) -> str:
    """A key that groups texts which may belong together: case, white space and punctuation do not count.

    For grouping only (a split, a vote): "C++" and "C" have the same key. Whether two texts are the same, ``exact`` and
    ``wording`` say. Empty where there are no letters or digits.
    """
    return _NOT_WORD.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def exact(text: str) -> str:
    """What two texts have in common when they are the same: composed characters, line ends and white space at the ends
    do not count, everything else does."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def digest(*texts: str) -> int:
    """64 bits that the same texts have in common."""
    content = "\0".join(texts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "big")


def folded(text: str) -> str:
    """``text`` without case and runs of white space: cheap enough for every text of a data set."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def wording(text: str) -> str:
    """What two texts have in common when they say the same in the same words, however these are written.

    White space, the case of words and the full stop, comma or mark behind a word do not count. Operators, signs,
    quotes, brackets, emoji and the case of single letters do: "2 + 2" is not "2 - 2", "the code of A" not "the code of
    a".
    """
    spaced = _MARKS.sub(_without_marks, " ".join(unicodedata.normalize("NFC", text).split()))
    parts = _CAPITAL.split(spaced)
    parts[::2] = [part.casefold() for part in parts[::2]]
    return "".join(parts).rstrip(" .?\u2026\u3002\uff1f")


def _without_marks(found: re.Match[str]) -> str:
    """Nothing in place of marks behind a word of two letters or more: "n!" and "5!" are no sentences."""
    before = found.string[max(0, found.start() - 2) : found.start()]
    return "" if len(before) == 2 and before.isalpha() else found[0]


def placeholders(text: str) -> Counter[str]:
    """Placeholders, markup and accelerators in ``text`` and how often each occurs."""
    return Counter(_PLACEHOLDER.findall(text))


def letters(text: str) -> int:
    """Number of letters of any script."""
    return len(_LETTER.findall(text))


def odd_length(source: str, target: str) -> bool:
    """True where one text is so much longer than the other that it is hardly its translation.

    Short labels may differ freely ("OK", "Aceitar"), so 20 characters are added to both before comparing.
    """
    one, other = _width(source) + 20, _width(target) + 20
    return max(one, other) > 2.5 * min(one, other)


def has_words(text: str) -> bool:
    """True where there are two letters; an ideograph is a word alone."""
    return letters(text) >= 2 or any(letter >= _IDEOGRAPHS and letter.isalpha() for letter in text)


def _width(text: str) -> int:
    """Characters; those that say as much as three letters of the Latin script count three."""
    return len(text) if text.isascii() else len(text) + 2 * sum(letter >= _IDEOGRAPHS for letter in text)


def word_pattern(words: tuple[str, ...]) -> re.Pattern[str] | None:
    """Pattern that finds any of ``words`` as a whole word whatever its case; None for no words."""
    if not words:
        return None
    return re.compile(r"(?<!\w)(?:" + "|".join(re.escape(clean(word)) for word in words) + r")(?!\w)", re.IGNORECASE)


def batched(items: Iterable[T], characters: int, size: Callable[[T], int]) -> Iterator[list[T]]:
    """``items`` in lists of at least so many characters each, but for the last one."""
    batch: list[T] = []
    filled = 0
    for item in items:
        batch.append(item)
        filled += size(item)
        if filled >= characters:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch
