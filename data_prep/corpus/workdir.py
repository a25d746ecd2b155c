"""The working directory of a build: sealed results of each shard and phase, so that a killed build goes on where it
was.

::

    work/plan.json                      pieces of every shard, recipe, digests of all inputs
    work/<phase>/00000/{...,seal.json}  phase: read, write; the name appears when the seal is in it
    work/decide/{...,seal.json}

A result counts if its seal names this plan and its files have the digests in it; anything else is made again. There may
be 100,000 shards: what is small is in the seal, and arrays and splits of a shard share a file.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.common.errors import DataError
from data_prep.common.settings import SplitSettings
from data_prep.corpus.inputs import Piece
from data_prep.corpus.recipe import Recipe
from data_prep.tokens.encoder import Proof
from jobs.core import files, seal

SCHEMA = 2
DOCUMENTS, MARKS, SIGNATURES, BANDS = "documents.jsonl", "marks.npy", "signatures.npy", "bands.npy"
"""Of a shard's ``read``: its clean documents, what is known of each, and its place among near-duplicates."""
ROWS, TOKENS = "rows.jsonl", "tokens"
"""Of a shard's ``write``: the documents that stay, one split after the other, as text and as ids."""
KEEP, ENDS = "keep.npy", "ends.npy"
"""Of ``decide``: whether each document stays, and where each shard ends among them."""
_WHERE_ONLY = ("tokenizer",)  # of the recipe: what it says is in a digest; the path is not part of the result


@dataclass(frozen=True)
class ShardPlan:
    """Everything that the work of a shard depends on.

    ``mtimes``: of every input, for a look at each piece that costs nothing; ``proof``: see ``Encoder.proof``;
    ``control``: the control tokens of the tokenizer; ``inputs``: (role, path, digest) of the tokenizer and the
    evaluation sets, which are no sources.
    """

    recipe: Recipe
    split: SplitSettings
    shards: tuple[tuple[Piece, ...], ...]
    mtimes: dict[str, int]
    limits: dict[str, int]
    min_chars: int = 1
    max_chars: int | None = None
    proof: Proof | None = None
    control: dict[str, int] = field(default_factory=dict)
    evaluation: tuple[str, ...] = ()
    inputs: tuple[tuple[str, str, str], ...] = ()

    @property
    def fingerprint(self) -> str:
        value = asdict(self)
        value["mtimes"] = None
        for name in _WHERE_ONLY:
            value["recipe"][name] = bool(value["recipe"][name])
        return hashlib.sha256(json.dumps([SCHEMA, value], sort_keys=True).encode()).hexdigest()


class WorkDir:
    """The directory of one build and its plan."""

    def __init__(self, root: Path, plan: ShardPlan) -> None:
        self.root = root
        self.plan = plan
        self._fingerprint = plan.fingerprint

    @classmethod
    def create(cls, root: Path, plan: ShardPlan) -> WorkDir:
        """The directory with its plan; results of another plan are removed, of the same plan kept."""
        root.mkdir(parents=True, exist_ok=True)
        path = root / "plan.json"
        value = {"schema": SCHEMA, "fingerprint": plan.fingerprint, "plan": asdict(plan)}
        known = files.read_json_or_none(path) if path.exists() else None
        if known is not None and known.get("fingerprint") != plan.fingerprint:
            for name in ("read", "decide", "write"):
                shutil.rmtree(root / name, ignore_errors=True)
        files.write_json(path, value)
        return cls(root, plan)

    @classmethod
    def open(cls, root: Path) -> WorkDir:
        """The directory as a worker on another node finds it.

        Raises:
            DataError: it has no plan of this version.
        """
        try:
            value = files.read_json(root / "plan.json")
            if value["schema"] != SCHEMA:
                raise DataError(f"schema {value['schema']}, this version reads {SCHEMA}", root / "plan.json")
            given, proof = value["plan"], value["plan"]["proof"]
            plan = ShardPlan(
                **{
                    **given,
                    "recipe": _recipe(given["recipe"]),
                    "split": SplitSettings(**given["split"]),
                    "shards": tuple(tuple(Piece(**piece) for piece in shard) for shard in given["shards"]),
                    "proof": proof and Proof(proof["key"], tuple(proof["left_out"])),
                    "evaluation": tuple(given["evaluation"]),
                    "inputs": tuple(map(tuple, given["inputs"])),
                }
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"no plan of a build: {error}", root / "plan.json") from error
        return cls(root, plan)

    def directory(self, phase: str, shard: int | None = None) -> Path:
        """Where a result is, or will be."""
        return self.root / phase if shard is None else self.root / phase / f"{shard:05d}"

    def is_done(self, phase: str, shard: int | None = None, *, thorough: bool = True) -> bool:
        """True where the result is there, of this plan, and unchanged (``thorough``: digested again, else sizes
        only)."""
        directory = self.directory(phase, shard)
        try:
            check = seal.verify if thorough else seal.check_sizes
            return check(directory, directory / "seal.json").fingerprint == self._mark(phase, shard)
        except seal.SealBroken:
            return False

    def missing(self, phase: str) -> list[int]:
        """Shards whose result is not there."""
        return [number for number in range(len(self.plan.shards)) if not self.is_done(phase, number)]

    def facts(self, phase: str, shard: int | None = None) -> dict[str, Any]:
        """What was put beside the files of a result."""
        return seal.load(self.directory(phase, shard) / "seal.json").metrics

    @contextmanager
    def result(self, phase: str, shard: int | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A directory and its facts, both to fill; sealed and renamed when the block ends well. Two writers of one
        shard write the same."""
        target = self.directory(phase, shard)
        partial = target.with_name(f".{target.name}.{os.uname().nodename}.{os.getpid()}")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        facts: dict[str, Any] = {}
        try:
            yield partial, facts
            seal.seal_directory(
                partial,
                partial / "seal.json",
                kind=seal.SealKind.DATASET,
                format="shard",
                fingerprint=self._mark(phase, shard),
                metrics=facts,
            )
            _put(partial, target)
            files.fsync_directory(target.parent)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise

    def clean(self) -> None:
        """Remove what killed workers left half done. Only when none runs."""
        for directory in self.root.glob("*/.[0-9]*"):
            shutil.rmtree(directory, ignore_errors=True)

    def _mark(self, phase: str, shard: int | None) -> str:
        return hashlib.sha256(f"{self._fingerprint}\0{phase}\0{shard}".encode()).hexdigest()


def _put(partial: Path, target: Path) -> None:
    """Rename ``partial`` to ``target``, which may be there: broken, or just made by another, whose bytes are the
    same."""
    for _ in range(10):
        shutil.rmtree(target, ignore_errors=True)
        try:
            os.rename(partial, target)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
    raise DataError("cannot be replaced: others write it, too", target)


def _recipe(value: dict[str, Any]) -> Recipe:
    """A recipe as ``asdict`` has written it. It is parsed again, so that no other values come in by this way."""
    given = {name: entry for name, entry in value.items() if entry is not None or name == "near_duplicates"}
    return Recipe.parse({**given, "quality": given.get("quality", False)})
