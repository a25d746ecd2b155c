"""The work of one shard: its rows read, recognised, checked and encoded, each alone.

::

    work/plan.json          recipe and pieces of every shard
    work/tokenizer.json     of many rows: the tokenizer as it was loaded, for ``data_prep.tokens.encoder``
    work/00000/rows.bin     the rows as they will be written, one after the other; of a row that is dropped a sample
    work/00000/table.bin    of every row what is needed to compare it with the others: see ``ROW``
    work/00000/own.bin      ids that the files give: see ``OWN``
    work/00000/ids.bin      pack: the ids of every row, twice their number, and 1 more where there is loss
    work/00000/shard.json   counts; names of the forms and reasons that the table has as numbers
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_prep.card import overlaps
from data_prep.card.account import Account
from data_prep.common import text
from data_prep.common.errors import DataError, Flaw, SettingsError
from data_prep.common.settings import SPLITS
from data_prep.common.split import number_of
from data_prep.corpus.inputs import Piece
from data_prep.rows import checks, drafts, pairs
from data_prep.rows.drafts import ENCODING, LENGTH, OVER, Draft
from data_prep.rows.messages import Unfit
from data_prep.rows.recipe import RowRecipe
from data_prep.sources import reader
from data_prep.tokens.encoder import Encoder, Proof
from jobs.core import files
from jobs.encoding.errors import CannotEncode
from jobs.encoding.load import WrongVocabulary, load
from jobs.encoding.rows import IdsOf, RowEncoder, control_tokens
from jobs.encoding.tokens import Tokens

ROW = np.dtype(
    [
        ("file", "i4"), ("line", "i8"), ("at", "i8"), ("size", "i4"),  # where it was, where it is in rows.bin
        ("content", "u8", 2), ("id", "u8"), ("split", "u1"), ("form", "u1"),
        ("step", "u1"), ("reason", "u1"), ("flags", "u1"),
        ("first", "u8"), ("number", "u8"), ("keys", "u8", 3), ("group", "u8"), ("stratum", "u8"),
        ("characters", "i4"), ("chosen", "i4"), ("rejected", "i4"), ("tokens", "i4"), ("encoded", "i8"),
        ("pair", "u8"), ("opposite", "u8"), ("whole", "u8"), ("asked", "u8"),
    ]
)  # fmt: skip
"""``content``: digest; ``first``, ``keys``, ``group``: rows that share one go to one split; ``number``: of ``first``,
where in the splits it falls; ``pair``, ``opposite``: digests of a preference and of its contrary; ``whole``, ``asked``:
see ``overlaps``."""
OWN = np.dtype([("id", "u8"), ("content", "u8"), ("file", "i4"), ("line", "i8")])
_BATCH = 256
QUICK = "quick"
"""A phase of its own: another process loads the libraries for it, and gives their memory back."""


@dataclass(frozen=True)
class RowPlan:
    """What the work of all shards depends on. ``files``: paths by their numbers; ``quick``: the directory of a
    ``tokenizer.json`` for which ``proof`` was found."""

    recipe: RowRecipe
    seed: int
    min_chars: int
    max_chars: int | None
    files: tuple[str, ...]
    shards: tuple[tuple[Piece, ...], ...]
    quick: str = ""
    proof: Proof | None = None

    def write(self, root: Path) -> None:
        """Write ``plan.json`` for the workers."""
        files.write_json(root / "plan.json", asdict(self))

    @classmethod
    def read(cls, root: Path) -> RowPlan:
        """The plan that ``write`` has written."""
        given = files.read_json(root / "plan.json")
        kind = given["recipe"].pop("kind")
        usual = json.loads(json.dumps(asdict(RowRecipe(kind))))
        own = {name: value for name, value in given["recipe"].items() if value != usual[name]}
        shards = tuple(tuple(Piece(**piece) for piece in shard) for shard in given["shards"])
        recipe = RowRecipe.parse(kind, own)
        proof = given["proof"] and Proof(given["proof"]["key"], tuple(given["proof"]["left_out"]))
        return cls(**{**given, "recipe": recipe, "files": tuple(given["files"]), "shards": shards, "proof": proof})

    def quicker(self, root: Path) -> RowPlan:
        """This plan, with a quick way to count ids where one is proven to give those of the tokenizer; it takes some
        seconds to prove."""
        encoder = self.encoder
        if encoder is None or self.recipe.pack is not None or not encoder.tokenizer.is_fast:
            return self
        (root / "tokenizer.json").write_text(encoder.tokenizer.backend_tokenizer.to_str(), encoding="utf-8")
        proof = Encoder(root, special_tokens="allow").proof  # those of the template count
        return self if proof is None else replace(self, quick=str(root), proof=proof)

    @cached_property
    def ids(self) -> IdsOf | None:
        """The quick way to count ids, if there is one."""
        if self.proof is None:
            return None
        return Encoder(Path(self.quick), special_tokens="allow", proven=self.proof).encode

    @cached_property
    def encoder(self) -> RowEncoder | None:
        """What makes ids of rows, where a tokenizer is given.

        Raises:
            DataError: there is no readable tokenizer, or the model beside it does not embed all its ids.
            SettingsError: the extra ``data`` is not installed.
        """
        if self.recipe.tokenizer is None:
            return None
        directory = Path(self.recipe.tokenizer)
        try:
            return RowEncoder(load(directory), self.recipe.row_encoding())
        except ImportError as error:
            raise SettingsError(
                f'tokenising needs the extra "data": pip install "overnight[data]" ({error})'
            ) from error
        except WrongVocabulary as error:
            raise DataError(str(error)) from error
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"no readable tokenizer: {error}", directory) from error

    @cached_property
    def checks(self) -> checks.RowChecks:
        """What is looked at in each row alone."""
        return checks.RowChecks(self.recipe)


_known: dict[Path, RowPlan] = {}


def work(root: Path, phase: str, number: int) -> None:
    """Do a shard; where ``phase`` is ``QUICK``, look for a quick way to count ids first, for all of them.

    Raises:
        DataError: bad input, with its place.
    """
    if phase == QUICK:
        RowPlan.read(root).quicker(root).write(root)
        return
    if root not in _known:
        _known[root] = RowPlan.read(root)
    do(_known[root], root / f"{number:05d}", number)


def do(plan: RowPlan, directory: Path, number: int) -> None:
    """Do a shard of a plan into ``directory``."""
    directory.mkdir()
    with open(directory / "rows.bin", "wb") as spool, open(directory / "ids.bin", "wb") as ids:
        _Shard(plan, spool, ids).do(plan.shards[number], directory)


class _Shard:
    def __init__(self, plan: RowPlan, spool: BinaryIO, ids: BinaryIO) -> None:
        self._plan = plan
        self._recipe = plan.recipe
        self._spool = spool
        self._ids = ids
        self._account = Account()
        self._own: list[tuple[int, int, int, int]] = []
        self._number = {path: number for number, path in enumerate(plan.files)}
        self._names: dict[str, dict[str, int]] = {"forms": {}, "reasons": {}}
        self._control: Counter[str] = Counter()

    def do(self, pieces: Iterable[Piece], directory: Path) -> None:
        found = self._drafts(pieces)
        parts = []
        while batch := list(itertools.islice(found, _BATCH)):
            parts.append(np.array([*self._rows(batch)], ROW))
        (directory / "table.bin").write_bytes(b"".join(part.tobytes() for part in parts))
        (directory / "own.bin").write_bytes(np.array(self._own, OWN).tobytes())
        encoder = self._plan.encoder
        told = {
            "account": self._account.as_json(),
            "names": {kind: list(found) for kind, found in self._names.items()},
            "control": list(self._control.items()),  # in the order in which they were seen
            "notes": {} if encoder is None else encoder.notes,
            "vocabulary": 0 if encoder is None else len(encoder.tokenizer),
            "day": None if encoder is None else encoder.day,
        }
        files.write_json(directory / "shard.json", told)
        if encoder is not None:
            encoder.notes.clear()

    def _drafts(self, pieces: Iterable[Piece]) -> Iterator[Draft]:
        """The rows that are neither bad nor of the wrong size."""
        account, recipe = self._account, self._recipe
        for piece in pieces:
            for found in reader.rows(
                piece.path, encoding=recipe.encoding, start=piece.start, end=piece.end, first=piece.line
            ):
                if isinstance(found, Flaw):
                    account.bad(found, recipe.on_error)
                    continue
                place, row = f"{piece.path}:{found[0]}", found[1]
                self._see_id(row, piece.path, found[0])
                try:
                    made = drafts.of_row(place, row, recipe, account)
                except Unfit as error:
                    account.bad(Flaw(error.reason, place, str(error)), recipe.on_error)
                    continue
                for draft in made:
                    account.read += 1
                    draft.split = piece.split
                    if why := draft.skip or self._size_flaw(draft):
                        account.drop(why, place, draft.texts.asked)
                    else:
                        yield draft

    def _see_id(self, row: dict[str, Any], path: str, line: int) -> None:
        own = row.get("id")
        if own is not None and own != "":
            content = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False)
            self._own.append((text.digest(str(own)), text.digest(content), self._number[path], line))

    def _size_flaw(self, draft: Draft) -> str:
        sizes = [len(part) for part in (draft.texts.asked, *draft.texts.answers)]
        if min(sizes) < self._plan.min_chars:
            return "too_short"
        return "too_long" if self._plan.max_chars is not None and max(sizes) > self._plan.max_chars else ""

    def _rows(self, batch: list[Draft]) -> Iterator[tuple[Any, ...]]:
        contents = [_content(draft) for draft in batch]
        for draft in batch:
            self._plan.checks.see(draft)
        encoder = self._plan.encoder
        if encoder is not None:
            fit = [draft for draft in batch if not draft.step]
            rows = [draft.row for draft in fit]
            keep = self._recipe.pack is not None
            found = encoder.encode_all(rows) if keep else encoder.sizes_all(rows, self._plan.ids)
            for draft, one in zip(fit, found, strict=True):
                self._encoded(draft, one, encoder)
        for draft, content in zip(batch, contents, strict=True):
            yield self._row(draft, content)

    def _encoded(self, draft: Draft, found: dict[str, Tokens] | int | CannotEncode, encoder: RowEncoder) -> None:
        if isinstance(found, CannotEncode):
            if self._recipe.on_error != "skip":
                raise DataError(f"{draft.place}: {found}") from found
            draft.drop(ENCODING, found.reason, str(found))
            return
        draft.tokens = found if isinstance(found, int) else max(map(len, found.values()))
        if control := control_tokens(encoder, draft.row):
            self._control.update(control)
            self._control[""] += 1
        if self._recipe.max_tokens is not None and draft.tokens > self._recipe.max_tokens:
            draft.flags |= OVER
            if self._recipe.over_length == "drop":
                draft.drop(LENGTH, "over_length", draft.texts.asked)
        if not isinstance(found, int) and not draft.step:
            tokens = found["completion"]
            draft.encoded = self._ids.tell()
            self._ids.write((2 * np.array(tokens.ids, "i4") + np.array(tokens.mask, "i4")).tobytes())

    def _row(self, draft: Draft, content: tuple[int, int]) -> tuple[Any, ...]:
        line = draft.sample.encode() if draft.step else draft.line().encode()
        at = self._spool.tell()
        self._spool.write(line)
        path, _, number = draft.place.rpartition(":")
        texts, first = draft.texts, min(draft.keys)
        asked = "s:" + (text.key(texts.asked) or texts.asked)
        both = pairs.sides(f"{texts.context}\0{texts.asked}", *texts.answers) if len(texts.answers) == 2 else (0, 0)
        keys = [text.digest(asked), text.digest(draft.conversation or asked), digest_in_order(max(draft.keys))]
        return (
            self._number[path], int(number), at, len(line),
            content, int(draft.id, 16), STATES.index(draft.split), self._named("forms", draft.form),
            draft.step, self._named("reasons", draft.reason), draft.flags,
            digest_in_order(first), number_of(first, self._plan.seed), keys,
            text.digest("g:" + draft.group) if draft.group else keys[0], text.digest(draft.stratum),
            len(texts.context) + len(texts.asked) + sum(map(len, texts.answers)),
            len(texts.answers[0]), len(texts.answers[-1]), draft.tokens, draft.encoded,
            *both, *overlaps.digests((texts.asked, *texts.answers)),
        )  # fmt: skip

    def _named(self, kind: str, name: str) -> int:
        return self._names[kind].setdefault(name, len(self._names[kind]))


STATES = ("", *SPLITS)
"""Splits by their numbers in the table; 0: none yet."""


def _content(draft: Draft) -> tuple[int, int]:
    found = hashlib.blake2b(json.dumps(draft.row, ensure_ascii=False, sort_keys=True).encode(), digest_size=16).digest()
    return int.from_bytes(found[:8], "big"), int.from_bytes(found[8:], "big")


def digest_in_order(key: str) -> int:
    """The first 64 bits of a key that is a name and a digest, in the order of the keys."""
    return int(key.rpartition(":")[2][:16], 16)
