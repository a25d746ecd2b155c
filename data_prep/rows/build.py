"""Files of rows to an instructions or preferences data set: read, recognise, check, count, split, write."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.card import overlaps, page
from data_prep.card.account import Account, Lengths
from data_prep.common import text
from data_prep.common.errors import DataError, Flaw, SettingsError
from data_prep.common.settings import SPLITS, SplitSettings
from data_prep.common.split import Groups, assign, assign_stratified
from data_prep.corpus.inputs import scan
from data_prep.rows import checks, drafts, export, lengths
from data_prep.rows.drafts import ANSWERS, Draft
from data_prep.rows.messages import Unfit
from data_prep.rows.recipe import RowRecipe
from data_prep.sources import reader
from data_prep.sources.layout import Layout
from jobs.core import seal
from jobs.core.spec import Source
from jobs.encoding.errors import CannotEncode
from jobs.encoding.load import load
from jobs.encoding.rows import RowEncoder, filled
from jobs.encoding.settings import Encoding

Report = Callable[[str], Callable[[int, int], None]]
_EXAMPLES = 3
_LISTED = 1000


@dataclass(frozen=True)
class RowsRequest:
    """A data set of rows to be. ``layout``: the splits that the sources have; ``split``: how the rest is split."""

    recipe: RowRecipe
    sources: Sequence[Source]
    split: SplitSettings = field(default_factory=SplitSettings)
    limits: dict[str, int] = field(default_factory=dict)
    min_chars: int = 1
    max_chars: int | None = None
    layout: Layout = field(default_factory=Layout)


def build(
    request: RowsRequest, output: Path, report_to: Report = lambda phase: lambda step, total: None
) -> dict[str, int]:
    """Fill ``output`` with the splits and the card; returns the rows of each split.

    The bytes written depend on the contents of the files and the settings only.

    Raises:
        DataError: bad input (with its place), too many rows over the length, an empty split.
        SettingsError: settings that do not fit, or the extra ``data`` is missing.
    """
    recipe = request.recipe
    account = Account()
    sources = [one.source for one in scan(request.sources, 1 << 30, report_to("scan"), recipe.encoding)]
    if not sources:
        raise DataError("no source files are given")
    encoding = recipe.row_encoding()
    shared: Counter[str] = Counter()
    results: dict[str, Any] = {}
    found = checks.without_duplicates(_read(request, sources, account, report_to("read")), account, shared)
    if recipe.kind == "preferences":
        found = checks.checked_pairs(found, recipe, account, results)
    found = checks.compared(found, recipe, account, results)
    encoder = None if recipe.tokenizer is None else _encoder(Path(recipe.tokenizer), encoding)
    if encoder is not None:
        found = checks.measured(found, recipe, encoder, account, results)
        if day := encoder.day:
            results["today in the chat template (template_date)"] = day
    else:
        results["tokens, template and control tokens"] = "not looked at: prepare.tokenizer is not set"
    _split(found, request)
    found = _limited(found, request.limits, account)
    _check_splits(request, found, account)
    encoding.write(output)
    texts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for draft in found:
        texts[draft.split].append((draft.asked, *draft.answers))
    rows = _write(output, found, recipe, encoder, results)
    facts = _facts(request, sources, found, account, results, encoder, rows)
    page.write_card(output, facts | {"overlaps": overlaps.between(texts, shared)})
    return rows


def _read(
    request: RowsRequest, sources: Sequence[Source], account: Account, progress: Callable[[int, int], None]
) -> Iterator[Draft]:
    recipe = request.recipe
    ids = _OwnIds()
    for number, source in enumerate(sources):
        for found in reader.rows(source.path, encoding=recipe.encoding):
            if isinstance(found, Flaw):
                account.bad(found, recipe.on_error)
                continue
            place, row = f"{source.path}:{found[0]}", found[1]
            if (first := ids.another(row, place)) is not None:
                said = f"its id {str(row['id'])[:60]!r} is that of another row, {first}"
                account.bad(Flaw("repeated_id", place, said), recipe.on_error)
                continue
            try:
                made = drafts.of_row(place, row, recipe, account)
            except Unfit as error:
                account.bad(Flaw(error.reason, place, str(error)), recipe.on_error)
                continue
            for draft in made:
                account.read += 1
                draft.split = request.layout.split_of.get(source.path, "")
                sizes = [len(part) for part in (draft.asked, *draft.answers)]
                if draft.skip:
                    account.drop(draft.skip, place, draft.asked)
                elif min(sizes) < request.min_chars:
                    account.drop("too_short", place, draft.asked)
                elif request.max_chars is not None and max(sizes) > request.max_chars:
                    account.drop("too_long", place, draft.asked)
                else:
                    yield draft
        progress(number + 1, len(sources))


class _OwnIds:
    """Ids that the files give, each to one row; the same row twice is a duplicate, not a repeated id."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[bytes, str]] = {}

    def another(self, row: dict[str, Any], place: str) -> str | None:
        """Where another row with the id of ``row`` stands, if there is one."""
        own = row.get("id")
        if own is None or own == "":
            return None
        content = json.dumps(row, sort_keys=True, default=str, ensure_ascii=False).encode("utf-8", "replace")
        digest = hashlib.blake2b(content, digest_size=8).digest()
        known, first = self._first.setdefault(str(own), (digest, place))
        return first if known != digest else None


def _split(found: list[Draft], request: RowsRequest) -> None:
    """Rows that share a prompt, a conversation or the value of ``group_by`` go to one split as a whole; those of files
    with a split stay there, but for the part of those for training that a missing split takes."""
    free = [draft for draft in found if draft.split not in ("validation", "test")]
    groups = Groups()
    keys = []
    for draft in free:
        own = "s:" + (text.key(draft.asked) or draft.asked)
        groups.join([own, "t:" + draft.conversation, *draft.keys, *(["g:" + draft.group] if draft.group else [])])
        keys.append(own)
    roots = [groups.find(key) for key in keys]
    if request.recipe.stratify_by is None:
        for draft, root in zip(free, roots, strict=True):
            draft.split = assign(root, request.split)
        return
    stratum: dict[str, str] = {}
    for draft, root in sorted(zip(free, roots, strict=True), key=lambda entry: entry[0].id):
        stratum.setdefault(root, draft.stratum)
    split = assign_stratified(stratum, request.split)
    for draft, root in zip(free, roots, strict=True):
        draft.split = split[root]


def _limited(found: list[Draft], limits: dict[str, int], account: Account) -> list[Draft]:
    """The first rows of each split by id (a choice that no order of files changes), at most its limit."""
    count: Counter[str] = Counter()
    kept = []
    for draft in sorted(found, key=lambda draft: draft.id):
        count[draft.split] += 1
        if count[draft.split] > limits.get(draft.split, len(found)):
            account.drop("over_limit", draft.place, draft.asked)
        else:
            kept.append(draft)
    return kept


def _check_splits(request: RowsRequest, found: list[Draft], account: Account) -> None:
    count = Counter(draft.split for draft in found)
    for name, part in request.split.parts().items():
        if (part > 0 or name in request.layout.said) and not count[name]:
            raise DataError(
                f"nothing is left for the {name} split ({len(found)} rows in all, split.{name} is {part:g}): "
                f"give more data, or set split.{name if name != 'train' else 'test'} "
                + ("to 0 if it is not needed" if name != "train" else "lower")
                + account.why()
            )


def _encoder(directory: Path, encoding: Encoding) -> RowEncoder:
    """What makes ids of rows.

    Raises:
        DataError: there is no readable tokenizer.
        SettingsError: the extra ``data`` is not installed.
    """
    try:
        return RowEncoder(load(directory), encoding)
    except ImportError as error:
        raise SettingsError(f'tokenising needs the extra "data": pip install "overnight[data]" ({error})') from error
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"no readable tokenizer: {error}", directory) from error


def _write(
    output: Path, found: list[Draft], recipe: RowRecipe, encoder: RowEncoder | None, results: dict[str, Any]
) -> dict[str, int]:
    counts: dict[str, int] = {}
    for split in SPLITS:
        own = [draft for draft in found if draft.split == split]
        with open(output / f"{split}.jsonl", "w", encoding="utf-8", newline="\n") as stream:
            stream.writelines(draft.line() for draft in own)
        for form in recipe.also:
            _export(output, form, split, own, recipe, encoder)
        if recipe.pack is not None and encoder is not None:
            results[f"packed {split}"] = _pack(output, split, own, recipe.pack, recipe.max_over_length)
        counts[split] = len(own)
    return counts


def _export(
    output: Path, form: str, split: str, found: list[Draft], recipe: RowRecipe, encoder: RowEncoder | None
) -> None:
    place = ""

    def texts(row: export.Row) -> Mapping[str, tuple[str, str]]:
        if encoder is not None:
            return encoder.texts(row)
        if not isinstance(row.get("prompt"), str):
            raise export.NoForm(f"also: {form} needs prepare.tokenizer, to write conversations as texts")
        names = ANSWERS[recipe.kind]
        return {name: filled(recipe.text_template, row["prompt"], row[name]) for name in names}

    def rows() -> Iterator[export.Row]:
        nonlocal place
        for draft in found:
            place = draft.place
            yield draft.row

    try:
        export.write(output, form, split, rows(), texts)
    except (export.NoForm, CannotEncode) as error:
        raise DataError(f"{place}: the form {form} has no place for this row: {error}") from error


def _pack(output: Path, split: str, drafts: list[Draft], size: int, most: float) -> str:
    """Write the packs of a split; returns what the card says. Rows longer than a pack are in none.

    Raises:
        DataError: more than the share ``most`` of the rows are longer than a pack.
    """
    rows = [draft.encoded for draft in drafts if draft.encoded is not None]
    fitting = [one for one in rows if len(one) <= size]
    over = len(rows) - len(fitting)
    if over > most * len(rows):
        raise DataError(
            f"{over} of {len(rows)} rows of {split} have more than {size} tokens (pack); max_over_length allows "
            f"{most:.1%}: raise one of them, or leave longer rows out with max_tokens: {size}"
        )
    packs = lengths.pack([len(one) for one in fitting], size)
    (output / "packed").mkdir(exist_ok=True)
    with open(output / "packed" / f"{split}.jsonl", "w", encoding="utf-8") as stream:
        for numbers in packs:
            stream.write(json.dumps(lengths.packed_row([fitting[number] for number in numbers])) + "\n")
    used = sum(map(len, fitting))
    return (
        f"{len(fitting)} rows in {len(packs)} packs of {size}, {used / max(1, size * len(packs)):.1%} full"
        + f"; {over} longer rows are in no pack" * bool(over)
    )


def _facts(
    request: RowsRequest,
    sources: Sequence[Source],
    drafts: list[Draft],
    account: Account,
    results: dict[str, Any],
    encoder: RowEncoder | None,
    rows: dict[str, int],
) -> dict[str, Any]:
    if account.read != account.dropped.total() + sum(rows.values()):
        raise RuntimeError(f"{account.read} read, but {rows} kept and {account.dropped} dropped: a bug of ours")
    names = ANSWERS[request.recipe.kind]
    characters: dict[str, Lengths] = defaultdict(Lengths)
    tokens: dict[str, Lengths] = defaultdict(Lengths)
    for draft in drafts:
        characters[draft.split].see(len(draft.context) + len(draft.asked) + sum(map(len, draft.answers)))
        if draft.tokens is not None:
            tokens[draft.split].see(draft.tokens)
    examples = {
        split: [
            {"id": draft.id, **({"system and tools": draft.context[:1000]} if draft.context else {})}
            | {"prompt": draft.asked[:1000]}
            | {name: answer[:1000] for name, answer in zip(names, draft.answers, strict=True)}
            for draft in [draft for draft in drafts if draft.split == split][:_EXAMPLES]
        ]
        for split in SPLITS
    }
    return {
        "schema": 2,
        "kind": request.recipe.kind,
        "unit": "row",
        **account.as_json(),
        "rows": rows,
        "characters": {split: characters[split].as_json() for split in SPLITS},
        "tokens": {split: tokens[split].as_json() for split in SPLITS} if encoder else None,
        "forms": dict(Counter(draft.form for draft in drafts).most_common()),
        "checks": results,
        "examples": examples,
        "tokenizer": None if encoder is None else _tokenizer_facts(Path(str(request.recipe.tokenizer)), encoder),
        "split": asdict(request.split),
        "splits_from": request.layout.facts(
            request.split, " and ".join(filter(None, ("prompt", "conversation", request.recipe.group_by)))
        ),
        "left_out": dict(list(request.layout.left_out.items())[:_LISTED]),
        "sources": [{"path": source.path, "sha256": source.sha256} for source in sources[:_LISTED]],
        "more_sources": max(0, len(sources) - _LISTED),
        "settings": {
            "prepare": request.recipe.as_json(),
            "min_chars": request.min_chars,
            "max_chars": request.max_chars,
            "limit": request.limits,
        },
    }


def _tokenizer_facts(directory: Path, encoder: RowEncoder) -> dict[str, Any]:
    file = directory / "tokenizer.json"
    return {
        "digest": seal.digest_file(file) if file.is_file() else "",
        "vocabulary": len(encoder.tokenizer),
        "engine": "transformers",
    }
