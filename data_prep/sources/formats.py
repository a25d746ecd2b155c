"""What a file is: its form by its name and first bytes, its packing by its first bytes, its encoding."""

from __future__ import annotations

import codecs
import json
import os
from dataclasses import dataclass

from data_prep.sources import streams

TEXT = (".txt", ".md", ".html", ".htm")
JSON = (".jsonl", ".ndjson", ".json")
ROWS = (*JSON, ".csv", ".tsv", ".parquet", ".arrow", ".feather")
_PACKED = (".gz", ".zst", ".xz", ".bz2")
_HEAD = 1 << 16
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"),
)  # fmt: skip
_NOT_READ = (
    (b"PK\x03\x04", "is a zip archive or an Excel workbook: save the sheet as CSV (UTF-8), or unpack the archive"),
    (b"\xd0\xcf\x11\xe0", "is an Excel workbook: save the sheet as CSV (UTF-8)"),
)
_OF_NAME = {
    ".xlsx": _NOT_READ[0][1], ".xls": _NOT_READ[1][1], ".ods": "is a spreadsheet: save the sheet as CSV (UTF-8)",
    ".zip": "is an archive: unpack it", ".tar": "is an archive: unpack it", ".tgz": "is an archive: unpack it",
    ".pkl": "is a pickle, which is never read: write its rows as JSON lines",
}  # fmt: skip


@dataclass(frozen=True)
class Format:
    """How to read a file.

    Attributes:
        form: ``lines`` (a JSON object a line), ``json`` (a list of objects, or objects one after the other), ``csv``,
            ``tsv``, ``parquet``, ``arrow``, ``text``, ``html``; empty: it is not read.
        packing: of ``streams.PACKINGS``, or empty.
        encoding: of the text in it: as its byte order mark says, else as declared, else UTF-8.
        refused: why a file without a form is not read, and what to do.
    """

    form: str
    packing: str = ""
    encoding: str = "utf-8"
    refused: str = ""

    @property
    def is_rows(self) -> bool:
        return self.form not in ("text", "html", "")

    @property
    def is_text(self) -> bool:
        """Whether an encoding means something for it."""
        return self.form not in ("parquet", "arrow")

    @property
    def can_be_cut(self) -> bool:
        """True where a reader can begin at any line."""
        return self.form == "lines" and not self.packing and self.encoding == "utf-8"


def ending(path: str) -> str:
    """The ending of a file's name that tells its form (``.jsonl``), before that of its packing; empty: none."""
    stem, last = os.path.splitext(os.path.basename(path).lower())
    return os.path.splitext(stem)[1] if last in _PACKED else last


def look(path: str, encoding: str | None = None) -> Format:
    """The format of a file. ``encoding`` is the declared one, for text that has no byte order mark.

    Raises:
        OSError: it cannot be read.
        SettingsError: the library for its packing is missing.
    """
    last = ending(path)
    with open(path, "rb") as stream:
        packing = streams.packing(stream.read(16))
    with streams.open_bytes(path) as stream:
        try:
            head = stream.read(_HEAD)
        except Exception as error:
            if streams.broken(error) is None:
                raise
            head = b""  # the reader says so, with the line
    found = next((name for mark, name in _BOMS if head.startswith(mark)), encoding or "utf-8")
    for mark, why in _NOT_READ:
        if head.startswith(mark):
            return Format("", packing, found, why)
    if last in (".parquet", ".arrow", ".feather") or (last not in TEXT and head[:6] in (b"PAR1\x15\x04", b"ARROW1")):
        form = "parquet" if last == ".parquet" or head.startswith(b"PAR1") else "arrow"
        if packing:
            return Format("", packing, found, f"is {form.capitalize()} packed by {packing}: unpack it")
        return Format(form)
    known = ", ".join((*TEXT, *ROWS))
    if last in (*TEXT, *JSON, ".csv", ".tsv") and found == "utf-8" and head.count(0) > len(head) // 20:
        return Format("", packing, found, "is full of NUL bytes: if it is UTF-16, set encoding, such as utf-16-le")
    if encoding is not None and found == encoding and _is_utf8(head, encoding):
        said = f"is UTF-8, and its letters would be read wrongly as {encoding}: leave encoding out, or convert the file"
        return Format("", packing, found, said)
    if last in TEXT:
        return Format("html" if last in (".html", ".htm") else "text", packing, found)
    if last in (".csv", ".tsv"):
        return Format(last[1:], packing, found)
    if last in JSON:
        return Format(_json_form(head, found, last), packing, found)
    why = _OF_NAME.get(last, f"has an ending that is not read; known: {known}, also packed as {', '.join(_PACKED)}")
    return Format("", packing, found, why)


def _is_utf8(head: bytes, encoding: str) -> bool:
    """Whether text that is said to be in another encoding is UTF-8 with letters beyond ASCII: in none of one or two
    bytes a letter it is so by chance."""
    if head.isascii() or codecs.lookup(encoding).name.startswith(("utf", "ascii")):
        return False
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def _json_form(head: bytes, encoding: str, last: str) -> str:
    """``lines`` or ``json``: a list, or objects that are written over several lines."""
    text = head.decode(encoding, errors="replace").lstrip("\ufeff \t\r\n")
    first, end, rest = text.partition("\n")
    if text.startswith("["):
        return "json"
    if last == ".json":
        if not rest.strip():  # one object, perhaps with the rows in it
            return "json"
        try:
            json.loads(first)
        except (ValueError, RecursionError):
            return "json"
        return "lines"
    return "json" if end and first.strip() == "{" else "lines"
