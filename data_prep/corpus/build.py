"""The order of a build: scan, read, decide, write, join, card. Each step is sealed, so a killed build goes on."""

from __future__ import annotations

import heapq
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.card.account import Account, Lengths
from data_prep.card.page import write_card
from data_prep.card.request import EXAMPLES, PhaseReport, PreparedRequest
from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS
from data_prep.corpus import clean, decide, inputs, shard
from data_prep.corpus.recipe import Recipe
from data_prep.corpus.workdir import ROWS, TOKENS, ShardPlan, WorkDir
from data_prep.corpus.workers import ProcessRunner, Runner
from data_prep.sources.files import find_files
from data_prep.tokens import indexed
from data_prep.tokens.encoder import TOKENIZER_FILES, Encoder
from jobs.core.spec import Source
from jobs.encoding.documents import listed
from jobs.encoding.settings import Encoding

MEGATRON = "megatron"


@dataclass(frozen=True)
class CorpusRequest(PreparedRequest):
    """A corpus to be. ``groups``: files of the corpus itself, then of every replay source of the recipe."""

    recipe: Recipe
    groups: Sequence[Sequence[Source]]


def build(
    request: CorpusRequest,
    output: Path,
    work: Path,
    *,
    runner: Runner | None = None,
    report: PhaseReport = lambda phase: lambda step, total: None,
) -> dict[str, int]:
    """The rows of each split, after filling ``output`` with them, with Megatron's files where a tokenizer is given, and
    with the card.

    ``work`` may hold what an earlier, killed call for the same request has finished; it is removed at the end. The
    bytes written depend on the request's files, their order by path, and the settings only.

    Raises:
        DataError: bad input (with its place), an empty split, nothing to replay.
        SettingsError: settings that do not fit, or the extra ``data`` is missing.
    """
    runner = runner or ProcessRunner()
    plan, encoder = _plan(request, report)
    workdir = WorkDir.create(work, plan)
    workdir.clean()
    _phase(workdir, "read", runner, report)
    if not workdir.is_done("decide"):
        decide.decide(workdir, report("find duplicates"))
    facts = workdir.facts("decide")
    _check_splits(request, facts["rows"], lambda: _account(workdir).why())
    _phase(workdir, "write", runner, report)
    card = _join(workdir, request, output, encoder, report("join"))
    write_card(output, card)
    Encoding(special_tokens=request.recipe.special_tokens).write(output)
    shutil.rmtree(work)
    return {name: int(facts["rows"][name]) for name in SPLITS}


def _plan(request: CorpusRequest, report: PhaseReport) -> tuple[ShardPlan, Encoder | None]:
    recipe = request.recipe
    groups = [
        inputs.scan(
            group, recipe.shard_bytes, report("scan" if number == 0 else "scan replay"), recipe.encoding_of(number)
        )
        for number, group in enumerate(request.groups)
    ]
    if not groups or not groups[0]:
        raise DataError("no source files are given")
    others = [("evaluation", path) for path in recipe.evaluation]
    encoder = None
    if recipe.tokenizer is not None:
        report("check tokenizer")(0, 1)
        encoder = Encoder(Path(recipe.tokenizer), special_tokens=recipe.special_tokens)
        encoder.end_of_document(recipe.eod)
        named = (Path(recipe.tokenizer) / name for name in TOKENIZER_FILES)
        others += [("tokenizer", str(path)) for path in named if path.is_file()]
    found = []
    for role, path in others:
        sources = [Source(str(file), "", file.stat().st_size) for file in find_files(Path(path))]
        scanned = inputs.scan(sources, 1 << 30, report("scan others"))
        found += [(role, one.source.path, one.source.sha256) for one in scanned]
    plan = ShardPlan(
        recipe,
        request.split,
        tuple(map(tuple, inputs.shards(groups, recipe.shard_bytes, request.layout.split_of))),
        {one.source.path: one.mtime_ns for group in groups for one in group},
        request.limits,
        request.min_chars,
        request.max_chars,
        None if encoder is None else encoder.proof,
        {} if encoder is None else encoder.control.ids,
        recipe.evaluation,
        (*found, *(("source", one.source.path, one.source.sha256) for group in groups for one in group)),
    )
    return plan, encoder


def _phase(workdir: WorkDir, phase: str, runner: Runner, report: PhaseReport) -> None:
    total = len(workdir.plan.shards)
    missing = workdir.missing(phase)
    done = total - len(missing)
    progress = report(phase)
    progress(done, total)
    if not missing:
        return

    def tell(number: int) -> None:
        nonlocal done
        done += 1
        progress(done, total)

    runner(workdir.root, phase, missing, tell)
    if left := workdir.missing(phase):
        raise DataError(f"{len(left)} of {total} shards were not made ({phase}), the first is {left[0]}", workdir.root)


def _check_splits(request: CorpusRequest, rows: dict[str, int], why: Callable[[], str]) -> None:
    """Refuse an empty split: the stage that reads it would fail hours later."""
    for name, part in request.split.parts().items():
        if (part > 0 or name in request.layout.said) and not rows[name]:
            whole = request.recipe.document_chars is not None and request.split.group is None
            raise DataError(
                f"nothing is left for the {name} split ({sum(rows.values())} documents in all, "
                f"split.{name} is {part:g}): give more data, or set split.{name if name != 'train' else 'test'} "
                + ("to 0 if it is not needed" if name != "train" else "lower")
                + whole * "; documents of one file are in one split: set split.group to document to divide files, too"
                + why()
            )


def _join(
    workdir: WorkDir,
    request: CorpusRequest,
    output: Path,
    encoder: Encoder | None,
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """Put the shards together, in their order; returns the facts for the card."""
    written = _Written(workdir)
    progress(0, len(SPLITS))
    output.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(SPLITS, start=1):
        with open(output / f"{name}.jsonl", "wb") as stream:
            for path, (first, count) in zip(written.paths(ROWS), written.bytes[name], strict=True):
                indexed.copy(path, first, count, stream)
        if encoder is not None:
            (output / MEGATRON).mkdir(exist_ok=True)
            parts = list(zip(written.paths(TOKENS), written.rows[name], strict=True))
            prefix = output / MEGATRON / f"{name}_text_document"
            indexed.join(parts, prefix, indexed.dtype_for(encoder.largest + 1))
        progress(number, len(SPLITS))
    return _facts(workdir, request, encoder, written)


class _Written:
    """What all shards have written, added up: the facts of 100,000 shards do not stay in memory.

    ``bytes`` and ``rows`` say where each split lies in each shard: first byte and number of bytes, and which documents.
    """

    def __init__(self, workdir: WorkDir) -> None:
        self._workdir = workdir
        self.bytes: dict[str, list[tuple[int, int]]] = {name: [] for name in SPLITS}
        self.rows: dict[str, list[range]] = {name: [] for name in SPLITS}
        self.lengths = {what: {name: Lengths() for name in SPLITS} for what in ("characters", "tokens")}
        self.scripts: Counter[str] = Counter()
        self.control: Counter[str] = Counter()
        self.with_control = 0
        self.heads: dict[str, list[tuple[str, str]]] = {name: [] for name in SPLITS}
        for number in range(len(workdir.plan.shards)):
            self._add(workdir.facts("write", number))

    def _add(self, facts: dict[str, Any]) -> None:
        first, row = 0, 0
        for name in SPLITS:
            part = facts[name]
            count = int(part["characters"]["count"])
            self.bytes[name].append((first, part["bytes"]))
            self.rows[name].append(range(row, row + count))
            first, row = first + part["bytes"], row + count
            for what, lengths in self.lengths.items():
                lengths[name].add(Lengths.of_json(part[what]))
            self.scripts.update(part["scripts"])
            self.control.update(part["control"])
            self.with_control += part["with_control"]
            heads = [*self.heads[name], *map(tuple, part["heads"])]
            self.heads[name] = heapq.nsmallest(shard.HEADS, heads)

    def paths(self, name: str) -> list[Path]:
        """Of a file of every shard."""
        return [self._workdir.directory("write", number) / name for number in range(len(self._workdir.plan.shards))]


def _account(workdir: WorkDir) -> Account:
    """What all shards have read and dropped, and what was dropped when they were compared."""
    account = Account()
    for number in range(len(workdir.plan.shards)):
        account.add(Account.of_json(workdir.facts("read", number)))
    later = Account.of_json(workdir.facts("decide")["account"])
    later.read = 0
    account.add(later)
    return account


def _facts(workdir: WorkDir, request: CorpusRequest, encoder: Encoder | None, written: _Written) -> dict[str, Any]:
    account = _account(workdir)
    decided = workdir.facts("decide")
    rows = {name: int(decided["rows"][name]) for name in SPLITS}
    if account.read != account.dropped.total() + sum(rows.values()):
        raise RuntimeError(f"{account.read} read, but {rows} kept and {account.dropped} dropped: a bug in overnight")
    lengths = {what: {name: found[name].as_json() for name in SPLITS} for what, found in written.lengths.items()}
    heads = written.heads
    # of a sample: the documents whose beginnings were kept
    languages = Counter(clean.language(text) for kept in heads.values() for _, text in kept)
    cut = request.recipe.document_chars is not None
    group = request.split.group or ("file (texts that are cut) and document" if cut else "document")
    sources = [{"role": role, "path": path, "sha256": digest} for role, path, digest in workdir.plan.inputs]
    return {
        "schema": 2,
        "kind": "corpus",
        "unit": "document",
        **account.as_json(),
        "rows": rows,
        "characters": lengths["characters"],
        "tokens": lengths["tokens"] if encoder else None,
        "scripts": dict(sorted(written.scripts.items())),
        "checks": {"control tokens": _control(written, request.recipe)},
        "languages": dict(sorted(languages.items(), key=lambda entry: (-entry[1], entry[0]))),
        "groups": decided["groups"],
        "pairs": decided["pairs"],
        "examples": {
            name: [{"id": row, "text": text} for row, text in found[:EXAMPLES]] for name, found in heads.items()
        },
        "tokenizer": None
        if encoder is None
        else {
            "digest": encoder.digest,
            "vocabulary": encoder.vocabulary,
            "engine": encoder.engine,
            "why": encoder.why,
            "begin": encoder.begin,
            "eod": encoder.end_of_document(request.recipe.eod),
        },
        "overlaps": decided["overlaps"],
        **request.facts(request.recipe.as_json(), group, sources),
    }


def _control(written: _Written, recipe: Recipe) -> str:
    """How many documents have control tokens in their texts, which ones, and what they are to the trainer."""
    if recipe.tokenizer is None:
        return f"not looked at: prepare.tokenizer is not set (special_tokens: {recipe.special_tokens})"
    found, count = written.control, written.with_control
    return f"in the texts of {count} documents ({recipe.special_tokens}): {listed(found)}" if found else "in no text"
