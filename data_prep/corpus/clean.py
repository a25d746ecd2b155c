"""What is done to every text, and the filters. All are pure functions of one text: no shard knows of another."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Any

from data_prep.common.errors import of_extra
from data_prep.corpus.recipe import Quality, Recipe

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\ufeff\ufffe\uffff]")
_LINE_ENDS = re.compile(r"\r\n?|[\x85\u2028\u2029]")
_TRAILING = re.compile(r"[ \t\u00a0]+$", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_MOJIBAKE = re.compile(r"[ÂÃâ][\x80-\xbf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ¡-¿]")
_HEADING = re.compile(r"^#{1,6}(?=\s)", re.MULTILINE)
_LETTERS = re.compile(r"[^\W\d_]+")
_LATIN_WORD = re.compile(r"[A-Za-zÀ-ɏ]+")
_NO_SPACES = re.compile("[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\u3000-\U0010ffff]")
# A statement's end or a block's, a call, an assignment or comparison, a keyword that begins a line, a tag, a comment.
_CODE_LINE = re.compile(
    r"^\s*(?:then|do|\w+=\S.*|(?:if|while) \[.*|echo\s.*|\w[\w|*-]*\)|\w.*;;|\"[^\"]*\":\s.*|\"[^\"]*\",?)\s*$|"
    r"[;{}]\s*$|^\s*[)\]}]+[,;)\]}]*\s*$|[\w\])]\((?:[^)]*\))?[:;,{]?\s*$|\w\(.*\)"
    r"|[\w\])\"']\s*(?:[-+*/|&^%:]?=|==|!=|<=|>=|=>|->|<-)\s*\S"
    r"|^\s*(?:def|class|import|from|return|elif|else:|try:|except|raise|yield|async|await|public|private|static|void"
    r"|const|let|var|function|func|fn|pub|struct|enum|package|use|using|namespace|template|end|fi|done|esac)\b(?=[^.!?]*$)"
    r"|^\s*#\s*(?:include|define|undef|if|ifdef|ifndef|elif|else|endif|pragma)\b|^\s*(?:#!|//|/\*|\*/|\*\s|<[/!?a-zA-Z][^>]*>|@\w+\s*$|\$\s)"
)
_LINE_CHARS = 300  # of a line: enough to tell, and a minified program is one line
_BULLETS = ("•", "-", "*", "‣", "▪", "●", "·")

# Phone: an international number (+ and 8 to 15 digits) or one grouped in the North American way. Card: 13 to 16 digits
# that pass Luhn's check, so that no long number is taken for one. Addresses of the machine itself are nobody's.
_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.)+[A-Za-z]{2,24}\b")
_IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)")
_PHONE = re.compile(r"(?<![\w+])\+\d(?:[ .()-]{0,2}\d){7,14}(?!\d)|(?<![\w-])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?![\w-])")
_CARD = re.compile(r"(?<!\d)(?:\d[ -]?){12,15}\d(?!\d)")


def normalise(text: str, recipe: Recipe, notes: Counter[str]) -> str:
    """``text`` in NFC, with ``\\n`` as the only line end, without control characters, trailing blanks and piles of
    empty lines; repaired and masked as the recipe says, which is counted in ``notes``."""
    if recipe.fix_encoding and _MOJIBAKE.search(text):
        repaired = of_extra("ftfy", "fix_encoding").fix_encoding(text)
        notes["encoding_repaired"] += repaired != text
        text = repaired
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _LINE_ENDS.sub("\n", text)
    text = _CONTROL.sub("", text)
    text = _BLANK_LINES.sub("\n\n", _TRAILING.sub("", text)).strip("\n")
    return mask(text, notes) if recipe.mask_personal_data else text


def mask(text: str, notes: Counter[str]) -> str:
    """``text`` with e-mail and IP addresses, phone and card numbers replaced by what they were."""
    if "@" in text:
        text, count = _EMAIL.subn("<email>", text)
        notes["email_masked"] += count
    for name, pattern, keep in (("ip", _IPV4, _local), ("card", _CARD, _no_card), ("phone", _PHONE, None)):
        count = 0

        def put(found: re.Match[str], name: str = name, keep: Any = keep) -> str:
            nonlocal count
            if keep is not None and keep(found[0]):
                return found[0]
            count += 1
            return f"<{name}>"

        text = pattern.sub(put, text)
        notes[f"{name}_masked"] += count
    return text


def _local(address: str) -> bool:
    return address.startswith(("127.", "0.", "255."))


def _no_card(number: str) -> bool:
    digits = [int(letter) for letter in reversed(number) if letter.isdigit()]
    return sum(digits[::2]) % 10 != -sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2]) % 10


def language(text: str) -> str:
    """ISO 639-1 code that py3langid gives to the first 2,000 characters.

    Raises:
        SettingsError: py3langid is not installed.
    """
    return str(of_extra("py3langid", "languages").classify(text[:2000])[0])


def quality_flaw(text: str, limits: Quality) -> str | None:
    """The first limit that ``text`` breaks, or None. Limits that are about prose do not hold for code."""
    words = text.split()
    if len(words) < limits.min_words and not _dense(text, limits.min_words):
        return "too_few_words"
    if len(words) > limits.max_words:
        return "too_many_words"
    reason = _prose_flaw(text, words, limits) or _line_flaw(text, limits)
    # A program says many lines twice ("return 0;"), but not most of them.
    return _repeated(text, 2 * limits.repeated_lines) if reason is not None and is_code(text) else reason


def _prose_flaw(text: str, words: list[str], limits: Quality) -> str | None:
    needed = limits.letters * sum(map(len, words))
    letters = sum(map(len, _LETTERS.findall(text)))
    # Vowels and tones of Hindi, Thai, Burmese and others are marks to Unicode, up to half of what is written.
    if letters < needed and (text.isascii() or letters + _marks(text) < needed):
        return "few_letters"
    latin = _LATIN_WORD.findall(text)
    if len(latin) >= limits.min_words:
        mean = sum(map(len, latin)) / len(latin)
        if not limits.word_length[0] <= mean <= limits.word_length[1]:
            return "odd_word_length"
    headings = sum(map(len, _HEADING.findall(text)))  # of Markdown
    if text.count("#") - headings + text.count("…") + text.count("...") > limits.symbols * len(words):
        return "many_symbols"
    return None


def _marks(text: str) -> int:
    return sum(unicodedata.category(letter)[0] == "M" for letter in text if letter > "\u02ff")


def is_code(text: str) -> bool:
    """True where at least half of the lines look like those of a program."""
    lines = [line for line in text.split("\n") if line.strip()]
    return sum(_CODE_LINE.search(line[:_LINE_CHARS]) is not None for line in lines) * 2 >= len(lines) > 1


def _dense(text: str, words: int) -> bool:
    """Scripts without spaces (Han, kana, Thai, Lao, Tibetan, Burmese, Khmer): three letters of theirs count as a
    word."""
    return len(_NO_SPACES.findall(text[: 64 * words])) >= 3 * words


def _line_flaw(text: str, limits: Quality) -> str | None:
    lines = [line.strip() for line in text.split("\n")]
    lines = [line for line in lines if line]
    if sum(line.startswith(_BULLETS) for line in lines) > limits.bullets * len(lines):
        return "mostly_bullets"
    if sum(line.endswith(("…", "...")) for line in lines) > limits.ellipses * len(lines):
        return "many_ellipses"
    return _repeated(text, limits.repeated_lines)


def _repeated(text: str, share: float) -> str | None:
    lines = [line for line in map(str.strip, text.split("\n")) if line]
    repeated = sum(len(line) * (count - 1) for line, count in Counter(lines).items() if count > 1)
    return "repeated_lines" if repeated > share * sum(map(len, lines)) else None
