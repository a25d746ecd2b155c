"""Files of rows to an instructions or preferences data set: read, recognise, check, count, split, write.

Rows are read once, by all cores, and put on disk; which of them stay, and where, is decided on some numbers of each.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.card import overlaps, page
from data_prep.card.account import Lengths
from data_prep.card.request import EXAMPLES, PhaseReport
from data_prep.common.errors import DataError
from data_prep.common.settings import SPLITS
from data_prep.corpus import inputs
from data_prep.corpus.workers import ProcessRunner
from data_prep.rows import export, lengths, shard
from data_prep.rows.decide import Decision, RowsRequest
from data_prep.rows.drafts import ANSWERS, Texts
from data_prep.rows.recipe import RowRecipe
from data_prep.rows.shard import RowPlan
from data_prep.rows.table import Array, Table
from jobs.core import hashing
from jobs.core.spec import Source
from jobs.encoding.errors import CannotEncode
from jobs.encoding.texts import filled

SHARD_BYTES = 4_000_000
MOST_SHARDS = 256
"""Of larger data the shards are larger."""
QUICK_BYTES = 64_000_000
"""From so much data on it pays to prove that tiktoken gives the ids of the tokenizer."""


def build(
    request: RowsRequest, output: Path, work: Path, report_to: PhaseReport = lambda phase: lambda step, total: None
) -> dict[str, int]:
    """The rows of each split, after filling ``output`` with them and the card.

    The bytes written depend on the contents of the files and the settings only. ``work`` is removed at the end. Memory
    grows with the rows by less than 100 bytes for each.

    Raises:
        DataError: bad input (with its place), too many rows over the length, an empty split.
        SettingsError: settings that do not fit, or the extra ``data`` is missing.
    """
    recipe = request.recipe
    size = max(SHARD_BYTES, sum(source.size for source in request.sources) // MOST_SHARDS)
    scanned = inputs.scan(request.sources, size, report_to("scan"), recipe.encoding)
    sources = [one.source for one in scanned]
    if not sources:
        raise DataError("no source files are given")
    encoding = recipe.row_encoding()
    shards = tuple(map(tuple, inputs.shards([scanned], size, request.layout.split_of)))
    paths = tuple(source.path for source in sources)
    plan = RowPlan(recipe, request.split.seed, request.min_chars, request.max_chars, paths, shards)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        if sum(source.size for source in sources) >= QUICK_BYTES:
            plan.write(work)
            ProcessRunner(1, shard.__name__)(work, shard.QUICK, [0], lambda number: None)
            plan = RowPlan.read(work)
        _read(plan, work, report_to("read"))
        found = Table(work, plan)
        try:
            decision = Decision(request, found)
            encoding.write(output)
            rows = _write(output, decision, recipe)
            page.write_card(output, _facts(request, sources, decision, rows))
        finally:
            found.close()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return rows


def _read(plan: RowPlan, work: Path, progress: Callable[[int, int], None]) -> None:
    done, total = 0, len(plan.shards)

    def tell(number: int) -> None:
        nonlocal done
        done += 1
        progress(done, total)

    if total == 1:  # another process would only have to import everything again
        shard.do(plan, work / "00000", 0)
        tell(0)
        return
    plan.write(work)
    ProcessRunner(module=shard.__name__)(work, "rows", range(total), tell)


def _write(output: Path, found: Decision, recipe: RowRecipe) -> dict[str, int]:
    counts: dict[str, int] = {}
    for split in SPLITS:
        own = found.of(split)
        with open(output / f"{split}.jsonl", "wb") as stream:
            stream.writelines(map(found.rows.line, own))
        for form in recipe.also:
            _export(output, form, split, own, found.rows)
        if recipe.pack is not None:
            found.results[f"packed {split}"] = _pack(output, split, own, found.rows, recipe)
        counts[split] = len(own)
    return counts


def _export(output: Path, form: str, split: str, own: Array, found: Table) -> None:
    place, recipe, encoder = "", found.plan.recipe, found.plan.encoder

    def texts(row: export.ExportRow) -> Mapping[str, tuple[str, str]]:
        if encoder is not None:
            return encoder.texts(row)
        if not isinstance(row.get("prompt"), str):
            raise export.NoForm(f"also: {form} needs prepare.tokenizer, to write conversations as texts")
        names = ANSWERS[recipe.kind]
        return {name: filled(recipe.text_template, row["prompt"], row[name]) for name in names}

    def rows() -> Iterator[export.ExportRow]:
        nonlocal place
        for number in own:
            place = found.place(number)
            row = json.loads(found.line(number))
            yield {name: value for name, value in row.items() if name not in ("id", "meta")}

    try:
        export.write(output, form, split, rows(), texts)
    except (export.NoForm, CannotEncode) as error:
        raise DataError(f"{place}: the form {form} has no place for this row: {error}") from error


def _pack(output: Path, split: str, own: Array, found: Table, recipe: RowRecipe) -> str:
    """Write the packs of a split; returns what the card says. Rows longer than a pack are in none.

    Raises:
        DataError: more than the share ``max_over_length`` of the rows are longer than a pack.
    """
    size = recipe.pack or 0
    tokens = found.column("tokens")[own]
    fitting = own[tokens <= size]
    over = len(own) - len(fitting)
    if over > recipe.max_over_length * len(own):
        raise DataError(
            f"{over} of {len(own)} rows of {split} have more than {size} tokens (pack); max_over_length allows "
            f"{recipe.max_over_length:.1%}: raise one of them, or leave longer rows out with max_tokens: {size}"
        )
    packs = lengths.pack(tokens[tokens <= size].tolist(), size)
    (output / "packed").mkdir(exist_ok=True)
    with open(output / "packed" / f"{split}.jsonl", "w", encoding="utf-8") as stream:
        for numbers in packs:
            stream.write(json.dumps(lengths.packed_row([found.encoded(fitting[number]) for number in numbers])) + "\n")
    used = int(tokens[tokens <= size].sum())
    return (
        f"{len(fitting)} rows in {len(packs)} packs of {size}, {used / max(1, size * len(packs)):.1%} full"
        + f"; {over} longer rows are in no pack" * bool(over)
    )


def _facts(request: RowsRequest, sources: Sequence[Source], found: Decision, rows: dict[str, int]) -> dict[str, Any]:
    account, tokenizer = found.account, request.recipe.tokenizer
    if account.read != account.dropped.total() + sum(rows.values()):
        raise RuntimeError(f"{account.read} read, but {rows} kept and {account.dropped} dropped: a bug in overnight")
    forms, form = found.rows.named("forms", "form")
    count = np.bincount(form[found.kept], minlength=len(forms)).tolist()
    columns = {name: found.rows.column(name) for name in ("whole", "asked")}
    shown = {
        split: overlaps.SplitRows(
            rows[split],
            zip(*(map(int, columns[name][found.of(split)]) for name in ("whole", "asked")), strict=True),
            partial(found.texts, split),
        )
        for split in SPLITS
    }
    return {
        "schema": 2,
        "kind": request.recipe.kind,
        "unit": "row",
        **account.as_json(),
        "rows": rows,
        "characters": _lengths(found, "characters"),
        "tokens": _lengths(found, "tokens") if tokenizer else None,
        "forms": dict(Counter({name: times for name, times in zip(forms, count, strict=True) if times}).most_common()),
        "checks": found.results,
        "examples": {split: [_example(found.rows, at) for at in found.of(split)[:EXAMPLES]] for split in SPLITS},
        "overlaps": overlaps.between(shown, found.shared),
        "tokenizer": None if tokenizer is None else _tokenizer_facts(Path(tokenizer), found.rows),
        **request.facts(
            request.recipe.as_json(),
            " and ".join(filter(None, ("prompt", "conversation", request.recipe.group_by))),
            [{"path": source.path, "sha256": source.sha256} for source in sources],
        ),
    }


def _lengths(found: Decision, name: str) -> dict[str, Any]:
    values, made = found.rows.column(name), {split: Lengths() for split in SPLITS}
    for split, own in made.items():
        for value in values[found.of(split)]:
            own.see(int(value))
    return {split: own.as_json() for split, own in made.items()}


def _example(rows: Table, number: int) -> dict[str, str]:
    row = json.loads(rows.line(number))
    texts = Texts.of(row)
    answers = {name: one[:1000] for name, one in zip(ANSWERS[rows.plan.recipe.kind], texts.answers, strict=True)}
    context = {"system and tools": texts.context[:1000]} if texts.context else {}
    return {"id": row["id"], **context, "prompt": texts.asked[:1000], **answers}


def _tokenizer_facts(directory: Path, rows: Table) -> dict[str, Any]:
    file = directory / "tokenizer.json"
    return {
        "digest": hashing.digest_file(file) if file.is_file() else "",
        "vocabulary": rows.told[0]["vocabulary"],
        "engine": "transformers",
    }
