"""Which files are rows, and of which split: as a data set's own files say it, or the names of files and folders.

In this order: ``dataset_dict.json`` (``save_to_disk`` of ``datasets``), ``configs`` in the front matter of a README
(the hub), names (``train.jsonl``, ``train-00000-of-00003.parquet``, ``gsm8k_test.jsonl``, ``validation/``). Splits that
are there are kept: pouring them together would train on the test set.
"""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS, SplitSettings
from data_prep.sources import formats, hub_readme
from data_prep.sources.files import check_digest, find_files
from jobs.core.spec import Source

_WORDS = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation", "val": "validation",
    "dev": "validation", "test": "test", "testing": "test", "eval": "test", "evaluation": "test", "holdout": "test",
    "heldout": "test", "trainset": "train", "valset": "validation", "devset": "validation", "testset": "test",
    "evalset": "test",
}  # fmt: skip
_HELD_OUT = re.compile("h(old|eld)[-._ ]?out", re.IGNORECASE)
_BETWEEN = re.compile(r"[-._ 0-9]+")
_SHARD = re.compile(r"[-_.](\d+)-of-(\d+)(?:-[0-9a-f]{16})?$")
_ABOUT = ("dataset_dict.json", "dataset_info.json", "dataset_infos.json", "state.json", "card.json", "card.html")
_BESIDE = re.compile(r"(readme|license|licence|notice|citation|changelog)(\.(md|txt|rst|cff))?", re.IGNORECASE)
_POOL = "or pour all files together with split: {existing: pool}"


@dataclass(frozen=True)
class Layout:
    """The files of a data set.

    Attributes:
        split_of: of every file of rows or text its split; empty: it has none, and its rows are split by the settings.
        said: of every split that is there, which files it is and how that is known.
        left_out: files that are no rows, and why.
    """

    split_of: Mapping[str, str] = field(default_factory=dict)
    said: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def rest(self, split: SplitSettings) -> SplitSettings:
        """What is left to split: of the rows for training, the parts of those splits that are not there."""
        return replace(
            split,
            validation=0.0 if "validation" in self.said else split.validation,
            test=0.0 if "test" in self.said else split.test,
        )

    def facts(self, split: SplitSettings, group: str) -> dict[str, str]:
        """Where each split comes from, for the card."""
        parts = split.parts()
        found = {}
        for name in SPLITS:
            if name in self.said:
                found[name] = self.said[name]
            elif name == "train" or parts[name] == 0:
                found[name] = "the rest" if name == "train" else "none"
            else:
                source = "of the rows for training" if self.said else "of all rows"
                found[name] = f"{parts[name]:.1%} {source}, by {group}"
        return found


IN_ORDER = ("test", "validation", "train")
"""Held-out splits first: of rows that are in two splits, the one for training goes."""


def order(split: str) -> int:
    """The place of a split in ``IN_ORDER``; of rows without one, that of those for training."""
    return IN_ORDER.index(split or "train")


def read(sources: Iterable[Source], split: SplitSettings, rows_only: bool) -> Layout:
    """The layout of ``sources``, all files that the user has named. ``rows_only``: text files are no data.

    Raises:
        DataError: the files contradict each other; says what to write.
    """
    files = {source.path: source for source in sources}
    root = os.path.commonpath([os.path.dirname(path) for path in files]) if files else ""
    found = _Files(files, root, split)
    found.saved_to_disk()
    found.readmes()
    found.about(rows_only)
    if split.existing == "keep":
        found.names()
    return found.layout()


def data_files(path: Path) -> list[Path]:
    """The file ``path``, or all files of data below it, whatever their split.

    Raises:
        DataError: nothing there.
    """
    sources = {str(file): Source(str(file), "", file.stat().st_size) for file in find_files(path)}
    found = _Files(sources, str(path), SplitSettings())
    found.saved_to_disk()
    found.about(rows_only=True)
    return [Path(file) for file in sources if file in found.data()]


class _Files:
    def __init__(self, files: Mapping[str, Source], root: str, split: SplitSettings) -> None:
        self._files = files
        self._root = root
        self._split = split
        self._names = {theirs: ours for ours, given in split.names.items() for theirs in given}
        self._open = set(files)  # files of which nothing is known yet
        self._found: dict[str, str] = {}  # path -> split in the words of its data set
        self._how: dict[str, str] = {}
        self._sharded: dict[str, str] = {}  # path -> split by the name of a numbered file, such as train_sft
        self._left_out: dict[str, str] = {}

    def _short(self, path: str) -> str:
        return os.path.relpath(path, self._root)

    def _leave(self, path: str, why: str) -> None:
        self._open.discard(path)
        self._left_out[path] = why

    def _take(self, path: str, split: str, how: str) -> None:
        if self._found.get(path, split) != split:
            raise DataError(f"is of two splits, {self._found[path]} and {split}, by {how}; {_POOL}", path)
        self._open.discard(path)
        self._found[path] = split
        self._how[path] = how

    def _json(self, path: str) -> Any:
        try:
            return json.loads(self._content(path))
        except ValueError as error:
            raise DataError(f"is not JSON: {error}", path) from error

    def _content(self, path: str) -> bytes:
        try:
            if Path(path).stat().st_size:
                check_digest(self._files[path])
            return Path(path).read_bytes()
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror}", path) from error

    def saved_to_disk(self) -> None:
        """Directories of ``save_to_disk``: what ``state.json`` lists, in the splits of ``dataset_dict.json``."""
        split_of: dict[str, str] = {}
        for path in sorted(path for path in self._files if os.path.basename(path) == "dataset_dict.json"):
            for name in self._json(path)["splits"]:
                folder = os.path.join(os.path.dirname(path), name)
                if os.path.join(folder, "state.json") not in self._files:
                    raise DataError(f"names the split {name}, but {name}/state.json is missing: copy it all", path)
                split_of[folder] = name
        for path in sorted(path for path in self._files if os.path.basename(path) == "state.json"):
            self._saved(path, split_of.get(os.path.dirname(path), ""))

    def _saved(self, state: str, split: str) -> None:
        folder = os.path.dirname(state)
        value = self._json(state)
        if value.get("_indices_data_files") or value.get("_indices_files"):
            raise DataError("selects rows by an index: call flatten_indices() and save it again", state)
        listed = {os.path.join(folder, entry["filename"]) for entry in value.get("_data_files", ())}
        for path in sorted(listed):
            if path not in self._files:
                raise DataError(f"names {os.path.basename(path)}, which is missing: copy it all", state)
            if split:
                self._take(path, split, "dataset_dict.json")
        for path in sorted(self._open):
            if os.path.dirname(path) == folder and path.endswith(".arrow") and path not in listed:
                self._leave(path, "not named by state.json")

    def readmes(self) -> None:
        """READMEs of the hub whose front matter names files."""
        for path in sorted(path for path in self._open if os.path.basename(path).lower() == "readme.md"):
            front = hub_readme.front_matter(self._content(path))
            if "configs" in front or "dataset_info" in front:
                self._leave(path, "describes the data set")
            if configs := hub_readme.configs(front):
                self._config(path, configs)

    def _config(self, readme: str, configs: Mapping[str, Mapping[str, Any]]) -> None:
        wanted = hub_readme.choose(configs, self._split.config, readme)
        chosen = configs[wanted]
        folder = Path(readme).parent
        base = folder / str(chosen.get("data_dir") or ".")
        how = f"config {wanted} of README.md"
        for split, patterns in hub_readme.data_files(chosen):
            for pattern in patterns:
                found = [path for path in hub_readme.files(base, pattern, readme) if path in self._files]
                if not found:
                    raise DataError(f"names {pattern} for the split {split}: there is no such file", readme)
                for path in found:
                    self._take(path, split, how)
        for path in sorted(self._open):
            # Without a list of files a config is all below its data_dir; with one it is what the list names.
            below = "data_files" not in chosen and Path(path).is_relative_to(os.path.normpath(base))
            if not below and Path(path).is_relative_to(folder):
                self._leave(path, f"not of the config {wanted}")

    def about(self, rows_only: bool) -> None:
        """Files that are about the rows beside them."""
        rows = any(formats.ending(path) in formats.ROWS for path in self._files)
        for path in sorted(self._open):
            name = os.path.basename(path)
            beside = _BESIDE.fullmatch(name) and (rows_only or formats.ending(path) not in formats.TEXT)
            if len(self._files) > 1 and rows and (name in _ABOUT or beside):
                self._leave(path, "is about the data set")

    def names(self) -> None:
        """What the names of the other files and of their folders say."""
        texts: dict[str, list[str]] = {}
        for path in sorted(self._open):
            *folders, name = self._short(path).split(os.sep)
            stem = _SHARD.sub("", _bare(name))
            if self._names:
                self._take(path, next((one for one in (stem, *folders) if one in self._names), stem), "split.names")
            elif formats.ending(path) in formats.ROWS:
                said = {_split_in(stem)} | {_split_in(folder) for folder in folders}
                said.discard("")
                if len(said) > 1:
                    raise DataError(
                        f"is of two splits by the names of file and folder, {' and '.join(sorted(said))}: "
                        f"rename one of them, {_POOL}",
                        path,
                    )
                if said:
                    self._take(path, said.pop(), "name")
                if _SHARD.search(_bare(name)) and _BETWEEN.split(stem.lower())[0] in _WORDS:
                    self._sharded[path] = stem
            else:
                texts[path] = [stem, *folders[:1]]
        self._texts(texts)

    def _texts(self, texts: Mapping[str, list[str]]) -> None:
        """A text may be called test.md because it is about tests: it is a split only beside one for training, and, if
        its name says more than that, only where all texts are."""
        whole = {
            path: next((_WORDS[one.lower()] for one in names if one.lower() in _WORDS), "")
            for path, names in texts.items()
        }
        within = {path: next(filter(None, map(_split_in, names)), "") for path, names in texts.items()}
        for found in (whole, within):
            if {"train"} < set(found.values()) - {""} and (found is whole or "" not in found.values()):
                for path in [path for path in found if found[path]]:
                    self._take(path, found[path], "name")
                return

    def data(self) -> set[str]:
        """All files of rows and texts."""
        return self._found.keys() | self._open

    def layout(self) -> Layout:
        """What was found, in our own names of the splits."""
        self._check_shards()
        if self._split.existing == "pool":
            return Layout(dict.fromkeys(self.data(), ""), {}, self._left_out)
        if self._names:
            self._choose()
        split_of = {path: self._ours(path, split) for path, split in self._found.items()}
        present = set(split_of.values())
        if present <= {"train"} or (len(present) == 1 and not self._open):
            return Layout(dict.fromkeys(self.data(), ""), {}, self._left_out)
        self._check(split_of)
        said: dict[str, list[str]] = defaultdict(list)
        for path in sorted(split_of):
            said[split_of[path]].append(path)
        return Layout(split_of, {split: self._words(paths) for split, paths in said.items()}, self._left_out)

    def _words(self, paths: list[str]) -> str:
        more = f" and {len(paths) - 1} more" * (len(paths) > 1)
        return f"{self._short(paths[0])}{more}, by {self._how[paths[0]]}"

    def _choose(self) -> None:
        """Only what ``split.names`` names."""
        there = sorted(set(self._found.values()))
        if missing := [name for name in self._names if name not in there]:
            raise DataError(f"split.names: there is no split {missing[0]}; there are {', '.join(there) or 'none'}")
        for path, split in list(self._found.items()):
            if split not in self._names:
                del self._found[path]
                self._leave(path, f"the split {split} is not in split.names")

    def _ours(self, path: str, split: str) -> str:
        if found := self._names.get(split) or _split_in(split):
            return found
        raise DataError(
            f"is of the split {split}, which is none of {', '.join(SPLITS)}: say which splits are read with "
            f"{self._naming()}, {_POOL}",
            path,
        )

    def _naming(self) -> str:
        """What to write to choose among the splits that there are."""
        chosen: dict[str, str] = {}
        for split in sorted(set(map(self._theirs, self._found))):
            chosen.setdefault(_split_in(split) or "train", split)
        return f"split: {{names: {{{', '.join(f'{ours}: {theirs}' for ours, theirs in chosen.items())}}}}}"

    def _theirs(self, path: str) -> str:
        """The split of a file in the words of its data set."""
        return self._sharded.get(path, self._found[path])

    def _check(self, split_of: Mapping[str, str]) -> None:
        held = next(path for path in sorted(split_of) if split_of[path] != "train")
        if "train" not in split_of.values():
            raise DataError(
                f"is of the {split_of[held]} split, but no file is of the train split: name the files for training "
                f"train.jsonl, train-00000-of-00001.parquet or train/, {_POOL}",
                held,
            )
        declared: dict[str, str] = {}
        for path, split in sorted(split_of.items()):
            theirs, known = self._theirs(path), self._how[path] != "name" or path in self._sharded
            if known and not self._names and declared.setdefault(split, theirs) != theirs:
                raise DataError(
                    f"is of the split {theirs}, and other files are of {declared[split]}: both would be the {split} "
                    f"split; choose with {self._naming()}",
                    path,
                )
        if self._open:
            raise DataError(
                f"is of no split, but {self._short(held)} is of the {split_of[held]} split: name it train, validation "
                "or test, leave it out with split: {names: {train: train, test: test}}, " + _POOL,
                min(self._open),
            )

    def _check_shards(self) -> None:
        """Refuse files that say that there are more of them: a download that is not complete."""
        sets: dict[tuple[str, str], set[int]] = defaultdict(set)
        for path in (*self._found, *self._open):
            if (shard := _SHARD.search(_bare(os.path.basename(path)))) and len(self._files) > 1:
                sets[path[: path.rindex(shard[0])], shard[2]].add(int(shard[1]))
        for (start, total), numbers in sets.items():
            for number in range(int(total)):
                if number not in numbers and len(numbers) < int(total):
                    name = f"{start}-{number:0{len(total)}d}-of-{total}"
                    raise DataError("is missing: its files are numbered, and all of them are needed", name)


def _bare(name: str) -> str:
    """A file's name without the endings of its form and packing."""
    last = formats.ending(name)
    return name[: name.lower().rindex(last)] if last else name


def _split_in(name: str) -> str:
    """The split that a name means; empty: none, or several."""
    words = _BETWEEN.split(_HELD_OUT.sub("heldout", name.lower()))
    found = {_WORDS[word] for word in words if word in _WORDS}
    return found.pop() if len(found) == 1 else ""
