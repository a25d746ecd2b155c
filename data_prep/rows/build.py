"""Files of rows to an instructions or preferences data set: read, recognise, check, template, split, count, write."""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from data_prep.card import overlaps, page
from data_prep.card.account import Account, Lengths
from data_prep.common import text
from data_prep.common.errors import DataError, Flaw
from data_prep.common.settings import SPLITS, SplitSettings
from data_prep.common.split import Groups, assign, assign_stratified
from data_prep.common.units import identify
from data_prep.corpus.inputs import scan
from data_prep.rows import conversations, export, forms, lengths, pairs
from data_prep.rows.recipe import RowRecipe
from data_prep.rows.template import NoPlace, Template
from data_prep.sources import reader
from data_prep.sources.layout import Layout, order
from data_prep.tokens.encoder import Encoder
from jobs.core.spec import Source

Report = Callable[[str], Callable[[int, int], None]]
ANSWERS = {"instructions": ("completion",), "preferences": ("chosen", "rejected")}
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


@dataclass
class Draft:
    """A row on its way: ``asked`` is the prompt before the template, for grouping, and ``questions`` what the user says
    in each turn, for comparing with test sets; ``stratum``, ``group`` and ``keys`` (rows that share one stay together)
    for the split; ``split``: of its file at first, empty where the file is of none."""

    place: str
    form: str
    asked: str
    prompt: str
    answers: tuple[str, ...]
    group: str
    stratum: str
    questions: frozenset[str] = frozenset()
    keys: tuple[str, ...] = ()
    split: str = ""
    encoded: tuple[lengths.Encoded, ...] = ()

    @property
    def id(self) -> str:
        return identify(self.prompt, *self.answers)


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
    drafts = list(_read(request, sources, account, report_to("read")))
    checks: dict[str, Any] = {}
    shared: Counter[str] = Counter()
    drafts = _without_duplicates(drafts, account, shared)
    if recipe.kind == "preferences":
        drafts = _checked_pairs(drafts, recipe, account, checks)
    drafts = _compared(drafts, recipe, account, checks)
    encoder = None if recipe.tokenizer is None else Encoder(Path(recipe.tokenizer))
    if encoder is not None:
        drafts = _measured(drafts, recipe, encoder, account, checks)
    _split(drafts, request)
    drafts = _limited(drafts, request.limits, account)
    _check_splits(request, drafts, account)
    texts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for draft in drafts:
        texts[draft.split].append((draft.asked, *draft.answers))
    found = overlaps.between(texts, shared)
    rows = _write(output, drafts, recipe, encoder, checks)
    page.write_card(output, _facts(request, sources, drafts, account, checks, encoder, rows) | {"overlaps": found})
    return rows


def _read(
    request: RowsRequest, sources: Sequence[Source], account: Account, progress: Callable[[int, int], None]
) -> Iterator[Draft]:
    recipe = request.recipe
    template = Template(recipe)
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
                drafts = [_draft(place, row, one, recipe, template) for one in _conversations(row, recipe)]
            except (forms.Unfit, NoPlace) as error:
                reason = error.reason if isinstance(error, forms.Unfit) else "no_place_in_template"
                account.bad(Flaw(reason, place, str(error)), recipe.on_error)
                continue
            for draft in drafts:
                account.read += 1
                draft.split = request.layout.split_of.get(source.path, "")
                sizes = [len(part) for part in (draft.asked, *draft.answers)]
                if min(sizes) < request.min_chars:
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


def _conversations(row: dict[str, Any], recipe: RowRecipe) -> list[forms.Conversation]:
    if recipe.kind == "preferences":
        return [forms.preferences(row)]
    return forms.instructions(row, recipe.answers == "each")


def _draft(place: str, row: dict[str, Any], one: forms.Conversation, recipe: RowRecipe, template: Template) -> Draft:
    asked = "\n".join(message.content for message in one.before if message.role != "system")
    group = "" if recipe.group_by is None else _field(row, recipe.group_by)
    stratum = "" if recipe.stratify_by is None else _field(row, recipe.stratify_by)
    answers = tuple(template.answer(answer) for answer in one.answers)
    questions = frozenset(text.wording(message.content) for message in one.before if message.role == "user")
    keys = conversations.keys(one.before, one.answers)
    return Draft(place, one.form, asked, template.prompt(one.before), answers, group, stratum, questions, keys)


def _field(row: dict[str, Any], name: str) -> str:
    if row.get(name) is None:
        raise forms.Unfit("missing_field", f'field "{name}" (to split by) is missing')
    return str(row[name])


def _without_duplicates(drafts: Iterable[Draft], account: Account, shared: Counter[str]) -> list[Draft]:
    """Exact repetitions leave; one prompt may well have several answers. Of a row in two splits that have files of
    their own the held-out one stays; ``shared`` counts these by their splits."""
    seen: dict[bytes, str] = {}
    kept: list[Draft] = []
    for draft in sorted(drafts, key=lambda draft: order(draft.split)):
        key = hashlib.blake2b("\0".join((draft.prompt, *draft.answers)).encode(), digest_size=16).digest()
        if (other := seen.setdefault(key, draft.split)) != draft.split:
            shared[f"{draft.split}/{other}"] += 1
            account.drop(f"duplicate_of_{other}", draft.place, draft.asked)
        elif len(seen) == len(kept):
            account.drop("duplicate", draft.place, draft.asked)
        else:
            kept.append(draft)
    return kept


def _checked_pairs(drafts: list[Draft], recipe: RowRecipe, account: Account, checks: dict[str, Any]) -> list[Draft]:
    never = text.word_pattern(recipe.chosen_never)
    kept: list[Draft] = []
    near = swapped = 0
    for draft in drafts:
        chosen, rejected = draft.answers
        if pairs.same(chosen, rejected):
            account.drop("no_difference", draft.place, chosen)
            continue
        alike = pairs.similarity(chosen, rejected, min(pairs.NEAR, recipe.near_identical or pairs.NEAR))
        near += alike >= pairs.NEAR
        if recipe.near_identical is not None and alike >= recipe.near_identical:
            account.drop("near_identical", draft.place, chosen)
            continue
        if never is not None and never.search(chosen):
            wrong_way = not never.search(rejected)
            swapped += wrong_way
            if wrong_way and recipe.swapped == "swap":
                draft.answers = (rejected, chosen)
                account.notes["swapped"] += 1
            elif recipe.swapped != "keep":
                account.drop("swapped" if wrong_way else "chosen_never", draft.place, chosen)
                continue
        kept.append(draft)
    against = pairs.contradictions([(draft.prompt, *draft.answers) for draft in kept])  # type: ignore[misc]
    for number in sorted(against):
        account.drop("contradiction", kept[number].place, kept[number].asked)
    kept = [draft for number, draft in enumerate(kept) if number not in against]
    bias = pairs.length_bias([(len(draft.answers[0]), len(draft.answers[1])) for draft in kept])
    checks.update({f"near-identical (from {pairs.NEAR})": near, "pairs the wrong way round (chosen_never)": swapped})
    checks.update({f"length: {name}": value for name, value in bias.items()})
    return kept


def _compared(drafts: list[Draft], recipe: RowRecipe, account: Account, checks: dict[str, Any]) -> list[Draft]:
    """Drop rows that ask in any turn what a test set asks; count those that share a prompt with other data."""
    if recipe.compare_with:
        known = _questions(recipe.compare_with)
        checks["prompts shared with compare_with"] = sum(not draft.questions.isdisjoint(known) for draft in drafts)
    if not recipe.evaluation:
        return drafts
    tests = _questions(recipe.evaluation)
    kept = []
    for draft in drafts:
        if not draft.questions.isdisjoint(tests):
            account.drop("in_evaluation", draft.place, draft.asked)
        else:
            kept.append(draft)
    return kept


def _questions(paths: tuple[str, ...]) -> set[str]:
    """Every text of these files in the form in which it is compared; very short ones ("Yes") say nothing."""
    from data_prep.corpus.shard import evaluation_texts

    return {found for found in map(text.wording, evaluation_texts(paths)) if len(found) >= 8}


def _measured(
    drafts: list[Draft], recipe: RowRecipe, encoder: Encoder, account: Account, checks: dict[str, Any]
) -> list[Draft]:
    """Count tokens; refuse to go on where too many rows are too long."""
    end = encoder.end_of_document(None)
    over = 0
    kept = []
    for draft in drafts:
        draft.encoded = tuple(lengths.encode(encoder, draft.prompt, answer, end) for answer in draft.answers)
        if recipe.max_tokens is not None and max(map(len, draft.encoded)) > recipe.max_tokens:
            over += 1
            if recipe.over_length == "drop":
                account.drop("over_length", draft.place, draft.asked)
                continue
        kept.append(draft)
    if recipe.max_tokens is not None:
        share = over / len(drafts) if drafts else 0.0
        checks[f"rows over {recipe.max_tokens} tokens"] = over
        if share > recipe.max_over_length:
            raise DataError(
                f"{over} of {len(drafts)} rows ({share:.1%}) have more than {recipe.max_tokens} tokens (max_tokens); "
                f"max_over_length allows {recipe.max_over_length:.1%}: raise one of them, or shorten the rows"
            )
    return kept


def _split(drafts: list[Draft], request: RowsRequest) -> None:
    """Rows that share a prompt, a conversation or the value of ``group_by`` go to one split as a whole; those of files
    with a split stay there, but for the part of those for training that a missing split takes."""
    free = [draft for draft in drafts if draft.split not in ("validation", "test")]
    groups = Groups()
    keys = []
    for draft in free:
        own = "s:" + (text.key(draft.asked) or draft.asked)
        groups.join([own, *draft.keys, *(["g:" + draft.group] if draft.group else [])])
        keys.append(own)
    roots = [groups.find(key) for key in keys]
    if request.recipe.stratify_by is None:
        for draft, root in zip(free, roots, strict=True):
            draft.split = assign(root, request.split)
        return
    stratum: dict[str, str] = {}
    for draft, root in sorted(zip(free, roots, strict=True), key=lambda entry: entry[0].id):
        stratum.setdefault(root, draft.stratum)
    found = assign_stratified(stratum, request.split)
    for draft, root in zip(free, roots, strict=True):
        draft.split = found[root]


def _limited(drafts: list[Draft], limits: dict[str, int], account: Account) -> list[Draft]:
    """The first rows of each split by id (a choice that no order of files changes), at most its limit."""
    count: Counter[str] = Counter()
    kept = []
    for draft in sorted(drafts, key=lambda draft: draft.id):
        count[draft.split] += 1
        if count[draft.split] > limits.get(draft.split, len(drafts)):
            account.drop("over_limit", draft.place, draft.asked)
        else:
            kept.append(draft)
    return kept


def _check_splits(request: RowsRequest, drafts: list[Draft], account: Account) -> None:
    count = Counter(draft.split for draft in drafts)
    for name, part in request.split.parts().items():
        if (part > 0 or name in request.layout.said) and not count[name]:
            raise DataError(
                f"nothing is left for the {name} split ({len(drafts)} rows in all, split.{name} is {part:g}): "
                f"give more data, or set split.{name if name != 'train' else 'test'} "
                + ("to 0 if it is not needed" if name != "train" else "lower")
                + account.why()
            )


def _write(
    output: Path, drafts: list[Draft], recipe: RowRecipe, encoder: Encoder | None, checks: dict[str, Any]
) -> dict[str, int]:
    names = ANSWERS[recipe.kind]
    counts: dict[str, int] = {}
    for split in SPLITS:
        own = [draft for draft in drafts if draft.split == split]
        rows = [{"prompt": draft.prompt, **dict(zip(names, draft.answers, strict=True))} for draft in own]
        with open(output / f"{split}.jsonl", "w", encoding="utf-8", newline="\n") as stream:
            for draft, row in zip(own, rows, strict=True):
                stream.write(json.dumps({"id": draft.id, **row}, ensure_ascii=False) + "\n")
        for form in recipe.also:
            export.write(output, form, split, rows)
        if recipe.pack is not None and encoder is not None:
            checks[f"packed {split}"] = _pack(output, split, own, recipe.pack, recipe.max_over_length)
        counts[split] = len(own)
    return counts


def _pack(output: Path, split: str, drafts: list[Draft], size: int, most: float) -> str:
    """Write the packs of a split; returns what the card says. Rows longer than a pack are in none.

    Raises:
        DataError: more than the share ``most`` of the rows are longer than a pack.
    """
    fitting = [draft.encoded[0] for draft in drafts if len(draft.encoded[0]) <= size]
    over = len(drafts) - len(fitting)
    if over > most * len(drafts):
        raise DataError(
            f"{over} of {len(drafts)} rows of {split} have more than {size} tokens (pack); max_over_length allows "
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
    checks: dict[str, Any],
    encoder: Encoder | None,
    rows: dict[str, int],
) -> dict[str, Any]:
    if account.read != account.dropped.total() + sum(rows.values()):
        raise RuntimeError(f"{account.read} read, but {rows} kept and {account.dropped} dropped: a bug of ours")
    names = ANSWERS[request.recipe.kind]
    characters: dict[str, Lengths] = defaultdict(Lengths)
    tokens: dict[str, Lengths] = defaultdict(Lengths)
    for draft in drafts:
        characters[draft.split].see(len(draft.prompt) + sum(map(len, draft.answers)))
        if draft.encoded:
            tokens[draft.split].see(max(map(len, draft.encoded)))
    examples = {
        split: [
            {"id": draft.id, "prompt": draft.prompt[:1000]}
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
        "checks": checks,
        "examples": examples,
        "tokenizer": None
        if encoder is None
        else {
            "digest": encoder.digest,
            "vocabulary": encoder.vocabulary,
            "engine": encoder.engine,
            "why": encoder.why,
        },
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
