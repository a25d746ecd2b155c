"""Rows of benchmarks as ``overnight fetch`` brought them: the files of a hub's data set, of a package, or of the user.

Packages have rows in forms of their own; ``CONVERTED`` turns these into what the data set of a task has on the hub.
Nothing of a package is imported or run.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from jobs.training.examples import ExamplesError, parsed

RawRow = dict[str, Any]
Splits = Mapping[str, Any]

SPLITS = ("train", "validation", "dev", "test")
_READABLE = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_OPTION = re.compile(r"\s*([A-Z])[.)]\s+(.*)", re.DOTALL)
_SUBJECTS = ("subject", "category", "Category", "config")


def files_of(place: Path) -> list[Path]:
    """The files of rows below a path, or the path itself.

    Raises:
        DataError: there is none.
    """
    found = [place] if place.is_file() else sorted(one for one in place.rglob("*") if one.suffix in _READABLE)
    if not found:
        raise ExamplesError(f"{place}:1: no file of rows ({', '.join(_READABLE)})")
    return found


def read(path: Path) -> Iterator[tuple[str, RawRow]]:
    """The rows of a file, each with its place.

    Raises:
        DataError: a line that is no row.
    """
    if path.suffix == ".parquet":
        from pyarrow import parquet

        yield from ((f"{path}:{number}", row) for number, row in enumerate(parquet.read_table(path).to_pylist(), 1))
        return
    with open(path, encoding="utf-8-sig", newline="") as stream:
        if path.suffix in (".csv", ".tsv"):
            for number, row in enumerate(csv.DictReader(stream, delimiter="\t" if path.suffix == ".tsv" else ","), 2):
                yield f"{path}:{number}", dict(row)
            return
        if path.suffix == ".json":
            yield from _of_json(path, stream.read())
            return
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield f"{path}:{number}", parsed(f"{path}:{number}", line)


def _of_json(path: Path, text: str) -> Iterator[tuple[str, RawRow]]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise ExamplesError(f"{path}:1: not JSON: {error}") from error
    found = found.get("data", found) if isinstance(found, dict) else found
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise ExamplesError(f"{path}:1: must be a list of objects")
    yield from ((f"{path}:1", row) for row in found)


def id_of(row: Mapping[str, Any]) -> str:
    """What a row is known by: its content."""
    text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def options_of(row: Mapping[str, Any]) -> tuple[list[str], int | None]:
    """The texts of a list of options such as ``A. one`` and ``B. two``, a line each, and which of them the answer is;
    None where that is not clear."""
    texts: list[str] = []
    for line in str(row["options"]).strip().splitlines():
        found = _OPTION.fullmatch(line)
        if found is not None and found[1] == chr(ord("A") + len(texts)):
            texts.append(found[2].strip())
        elif texts:  # an option of several lines
            texts[-1] += f"\n{line}"
    said = row.get("answer")
    said = said[0] if isinstance(said, list) and len(said) == 1 else said
    if not isinstance(said, str):
        return texts, None
    marked = _OPTION.fullmatch(said.strip())
    same = [index for index, text in enumerate(texts) if text == said.strip()]
    if marked is not None and (index := ord(marked[1]) - ord("A")) < len(texts) and marked[2].strip() == texts[index]:
        return texts, index
    return texts, same[0] if len(same) == 1 else None


def _mmlu(row: RawRow) -> RawRow | None:
    texts, answer = options_of(row)
    if len(texts) != 4 or answer is None:
        return None
    return {"question": row["question"], "choices": texts, "answer": answer}


def _labelled(key: str) -> Callable[[RawRow], RawRow | None]:
    def convert(row: RawRow) -> RawRow | None:
        texts, answer = options_of(row)
        if answer is None:
            return None
        labels = [chr(ord("A") + index) for index in range(len(texts))]
        made = {key: row["question"].strip(), "choices": {"text": texts, "label": labels}, "answerKey": labels[answer]}
        return {"id": id_of(row), **made}

    return convert


def _sums(row: RawRow) -> RawRow | None:
    number = re.fullmatch(r"(-?\d[\d,]*(?:\.\d+)?)(?: [^\d]*)?", str(row["answer"]).strip())
    if number is None:  # two numbers, a ratio, a word
        return None
    return {"question": f"{row['passage']} {row['question']}", "answer": f"#### {number[1].replace(',', '')}"}


CONVERTED: dict[str, tuple[frozenset[str], Callable[[RawRow], RawRow | None]]] = {
    "cais/mmlu": (frozenset({"question", "options", "answer"}), _mmlu),
    "openbookqa": (frozenset({"question", "options", "answer"}), _labelled("question_stem")),
    "allenai/openbookqa": (frozenset({"question", "options", "answer"}), _labelled("question_stem")),
    "tau/commonsense_qa": (frozenset({"question", "options", "answer"}), _labelled("question")),
    "openai/gsm8k": (frozenset({"passage", "question", "answer"}), _sums),
}
"""Data set on the hub -> the fields of rows that are no rows of it, and what makes one of those (None: unclear)."""


class Benchmark:
    """The rows of one benchmark, by part and split, as ``datasets`` has them. ``unclear``: rows of a package that could
    not be turned into those of the data set."""

    def __init__(self, place: Path, data_set: str, scratch: Path) -> None:
        self._place, self._data_set, self._scratch = place, data_set, scratch
        self._loaded: dict[str | None, Splits] = {}
        self.unclear = 0

    def part(self, name: str | None) -> Splits | None:
        """The splits of a part (None: of a data set without parts); None: the rows do not say which part they are of.

        Raises:
            DataError: no file, or one that cannot be read.
        """
        card = self._place / "README.md"
        if card.is_file() and "configs:" in card.read_text(encoding="utf-8", errors="replace"):
            return self._load(name, self._place, name)
        if name is not None and (self._place / name).is_dir():
            return self._load(name, self._place / name)
        whole = self._load(None, self._place)
        if name is None:
            return whole
        column = next((one for one in _SUBJECTS for split in whole.values() if one in split.column_names), None)
        if column is None:
            return None
        wanted = _plain(name)
        found = {key: _only(split, column, wanted) for key, split in whole.items()}
        return {key: split for key, split in found.items() if len(split)}

    def _load(self, key: str | None, place: Path, part: str | None = None) -> Splits:
        if key not in self._loaded:
            self._loaded[key] = self._read(place, part)
        return self._loaded[key]

    def _read(self, place: Path, part: str | None) -> Splits:
        import datasets

        if place.is_file() or (part is None and not _by_tables(place)):
            rows: dict[str, list[RawRow]] = {}
            for path in files_of(place):
                rows.setdefault(_split_of(path), []).extend(self._converted(row for _, row in read(path)))
            return {split: datasets.Dataset.from_list(found) for split, found in rows.items() if found}
        try:
            return dict(datasets.load_dataset(str(place), part, cache_dir=str(self._scratch)))
        except Exception as error:  # each of its builders has errors of its own
            raise ExamplesError(f"{place}:1: cannot be read as a data set: {error}") from error

    def _converted(self, rows: Iterable[RawRow]) -> Iterator[RawRow]:
        fields, convert = CONVERTED.get(self._data_set, (frozenset(), None))
        for row in rows:
            if convert is None or row.keys() != fields:
                yield row
            elif (made := convert(row)) is not None:
                yield made
            else:
                self.unclear += 1


def _by_tables(place: Path) -> bool:
    return any(place.rglob("*.parquet"))


def _only(split: Any, column: str, wanted: str) -> Any:
    rows = [index for index, value in enumerate(split[column]) if _plain(str(value)) == wanted]
    return split.select(rows)


def _plain(name: str) -> str:
    return re.sub(r"[-_ ]+", "_", name).lower()


def _split_of(path: Path) -> str:
    """By the name of a file or of its folder; what names none is for testing."""
    names = [path.stem.lower(), path.parent.name.lower()]
    for name in names:
        for split in SPLITS:
            if re.match(rf"(?:.*[-_.])?{split}(?:[-_.].*)?\Z", name):
                return split
    return "test"
