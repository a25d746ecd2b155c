"""When tiktoken gives the ids that a Hugging Face tokenizer gives: read from tokenizer.json, shown rule by rule.

The two libraries differ in how they merge. tokenizers merges a pair that stands in the list of merges, the first in the
list before others. tiktoken merges any neighbours that together are a token, the lowest id before others. The result
is the same if for every token T, in the order of ids, the merges below T alone turn the bytes of T into

* exactly two pieces, which stand in the list of merges as a merge to T: whenever tiktoken joins neighbours to T, their
  bytes have seen exactly the merges below T (nothing crossed their ends), so they are these two pieces, and tokenizers
  joins them, too; or
* two pieces that are no such merge, or more pieces: tokenizers never makes T by merging. Where it does not look up
  whole words either (``ignore_merges: false``), T is left out of tiktoken's table. Where it does, more than two pieces
  are harmless (tiktoken cannot merge to T either), and two pieces refuse the tokenizer.

Ties of one token go to the leftmost pair in both. What is left is how the text is cut into words: only patterns that
are known here are taken, and ``data_prep.tokens.encoder`` compares both cutters on every character before it trusts
them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
"""What ``ByteLevel`` with ``use_regex`` cuts by (tokenizers, pre_tokenizers/byte_level.rs)."""
SINGLE_DIGITS = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"
"""``Digits(individual_digits)`` before ``GPT2``: a digit is cut out first, so white space before one stays whole."""
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPLITS = (LLAMA3, QWEN2)
"""Patterns of ``Split`` that are known to mean the same to both regular-expression engines."""


class NotProven(Exception):
    """tiktoken cannot stand in for this tokenizer; ``str()`` says why."""


@dataclass(frozen=True)
class BpeForm:
    """What tiktoken needs. Texts with one of ``added`` (added tokens, which tokenizers looks for before it cuts) or
    one of the bytes ``unknown`` (which the vocabulary lacks) are not for tiktoken."""

    pattern: str
    ranks: dict[bytes, int]
    added: tuple[str, ...]
    nfc: bool
    left_out: tuple[int, ...] = ()
    """Ids of tokens that no merge ever makes."""

    @property
    def unknown(self) -> bytes:
        return bytes(byte for byte in range(256) if bytes([byte]) not in self.ranks)


def read_form(tokenizer: Mapping[str, Any], left_out: Collection[int] | None = None) -> BpeForm:
    """The form of a parsed ``tokenizer.json``.

    ``left_out`` (``BpeForm.left_out`` of an earlier reading of the same file) spares the check of the merges, which
    takes 2 s for 50,000 tokens and 20 s for the 128,000 of Llama 3.

    Raises:
        NotProven: it is not a byte-level BPE, cuts words in an unknown way, or has merges that tiktoken reads
        otherwise.
    """
    model = tokenizer["model"]
    if model.get("type") != "BPE":
        raise NotProven(f"its model is {model.get('type')}, not BPE")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise NotProven(f"its model has {name}")
    pattern = _pattern(tokenizer.get("pre_tokenizer"))
    nfc = _nfc(tokenizer.get("normalizer"))
    added = tuple(entry["content"] for entry in tokenizer.get("added_tokens", ()))
    for entry in tokenizer.get("added_tokens", ()):
        if nfc and entry.get("normalized"):
            raise NotProven(f"its added token {entry['content']!r} is looked for in normalised text")
    ranks, unreached = _ranks(model, frozenset(added), left_out)
    return BpeForm(pattern, ranks, added, nfc, unreached)


def _pattern(pre: Mapping[str, Any] | None) -> str:
    steps = [] if pre is None else pre["pretokenizers"] if pre["type"] == "Sequence" else [pre]
    kinds = [step["type"] for step in steps]
    if not steps or kinds[-1] != "ByteLevel" or steps[-1].get("add_prefix_space"):
        raise NotProven(f"its pre-tokenizer is not byte-level: {' + '.join(kinds) or 'none'}")
    cuts = bool(steps[-1].get("use_regex", True))
    if kinds == ["ByteLevel"] and cuts:
        return GPT2
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and cuts:
        return SINGLE_DIGITS
    if kinds == ["Split", "ByteLevel"] and not cuts:
        split = steps[0]
        pattern = split["pattern"].get("Regex")
        if split.get("behavior") == "Isolated" and not split.get("invert") and pattern in SPLITS:
            return str(pattern)
        raise NotProven(f"it cuts words by a pattern that is not known here: {pattern}")
    raise NotProven(f"its pre-tokenizer is not known here: {' + '.join(kinds)}")


def _nfc(normalizer: Mapping[str, Any] | None) -> bool:
    steps = [] if normalizer is None else normalizer.get("normalizers", [normalizer])
    kinds = [step["type"] for step in steps]
    if kinds not in ([], ["NFC"]):
        raise NotProven(f"it normalises text by {' + '.join(kinds)}")
    return bool(kinds)


def byte_letters() -> dict[str, int]:
    """The letter that byte-level tokenizers write for each byte: printable Latin-1 as itself, the rest from U+0100."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {chr(byte): byte for byte in printable}
    letters.update({chr(0x100 + n): byte for n, byte in enumerate(sorted(set(range(256)) - set(printable)))})
    return letters


def _ranks(
    model: Mapping[str, Any], added: frozenset[str], left_out: Collection[int] | None
) -> tuple[dict[bytes, int], tuple[int, ...]]:
    letters = byte_letters()

    def to_bytes(token: str) -> bytes:
        try:
            return bytes(letters[letter] for letter in token)
        except KeyError as error:
            raise NotProven(f"its vocabulary has {token!r}, which is not written in bytes") from error

    vocabulary = {to_bytes(token): number for token, number in model["vocab"].items() if token not in added and token}
    if left_out is not None:
        gone = frozenset(left_out)
        return {token: number for token, number in vocabulary.items() if number not in gone}, tuple(left_out)
    merges: dict[bytes, set[tuple[bytes, bytes]]] = defaultdict(set)
    last = -1
    for merge in model["merges"]:
        left, right = map(to_bytes, merge.split(" ") if isinstance(merge, str) else merge)
        number = vocabulary.get(left + right, -1)
        if number < last:
            raise NotProven(f"its merges are not in the order of ids: {merge!r} makes {number} after {last}")
        last = number
        merges[left + right].add((left, right))
    whole_words = bool(model.get("ignore_merges"))
    ranks = {token: number for token, number in vocabulary.items() if len(token) == 1}
    for token, number in sorted(vocabulary.items(), key=lambda entry: entry[1]):
        if len(token) == 1:
            continue
        pieces = _merge(token, ranks)
        reached = len(pieces) == 2 and tuple(pieces) in merges.get(token, ())
        if not reached and whole_words and len(pieces) == 2:
            raise NotProven(f"tiktoken would merge {pieces!r}, which its merges do not hold")
        if reached or whole_words:
            ranks[token] = number
    return ranks, tuple(sorted(set(vocabulary.values()) - set(ranks.values())))


def _merge(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The pieces of ``token`` by tiktoken's rule and the tokens known so far (all single bytes count as below all)."""
    pieces = [token[at : at + 1] for at in range(len(token))]
    while len(pieces) > 1:
        best, place = None, 0
        for at in range(len(pieces) - 1):
            rank = ranks.get(pieces[at] + pieces[at + 1])
            if rank is not None and (best is None or rank < best):
                best, place = rank, at
        if best is None:
            break
        pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
    return pieces
