"""A data stage: source -> units -> rows in splits -> files and card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_prep import paths
from data_prep.card import card, overlaps, page
from data_prep.common import text
from data_prep.common.errors import DataError, of_extra
from data_prep.common.settings import Settings
from data_prep.common.split import Assignment, Groups
from data_prep.common.units import DraftRow, Tally, Unit, identify
from data_prep.sources import files, layout, messages
from data_prep.sources.catalogues import Wheel
from jobs.core.files import write_json
from jobs.core.progress import ProgressWriter
from jobs.core.spec import Source, StageSpec
from jobs.encoding.settings import Encoding


def prepare(spec: StageSpec, output: Path, progress: ProgressWriter, work: Path | None = None) -> dict[str, int]:
    """The number of rows of each split, after the work of a data stage: ``output`` has them and ``card.json``.

    ``work`` is where a corpus with the setting ``prepare`` keeps its sealed shards, so that a stage that is killed goes
    on where it was.

    Raises:
        SettingsError: settings that do not fit.
        DataError: the source is not what it has to be; the message begins with its place.
    """
    settings = Settings.parse(spec.kind, spec.settings)
    wheels: Path | None = None
    if settings.source.type == "gettext":
        if "source" not in spec.inputs:
            raise DataError(f"stage {spec.stage}: the source type gettext needs an input 'source' (wheels)")
        wheels = spec.inputs["source"].output

    def report(phase: str) -> Callable[[int, int], None]:
        return lambda step, total: progress.report(step, total, phase)

    if settings.prepare is not None:
        if settings.prepare.get("tokenizer") == paths.BASE and "tokenizer" in spec.inputs:
            tokenizer = str(spec.inputs["tokenizer"].output)
            settings = replace(settings, prepare={**settings.prepare, "tokenizer": tokenizer})
        # the same functions that ``overnight data`` calls
        prepared = of_extra("data_prep.prepared", "prepare")
        return dict(prepared.build(settings, spec.sources, output, work or output.with_name("work"), report=report))
    return build(settings, output, wheels=wheels, sources=spec.sources, report=report)


def build(
    settings: Settings,
    output: Path,
    *,
    wheels: Path | None = None,
    sources: tuple[Source, ...] = (),
    report: Callable[[str], Callable[[int, int], None]] = lambda phase: lambda step, total: None,
) -> dict[str, int]:
    """Like ``prepare``, from a directory of wheels or from user files. ``report(phase)`` gives (step, total) -> None.

    All rows are held in memory. The bytes written depend on contents and settings only.
    """
    groups = Groups()
    opened: list[Wheel] = []
    found = layout.Layout()
    if wheels is None:
        found = layout.read(sources, settings.split, rows_only=settings.kind != "corpus")
        sources = tuple(source for source in sources if source.path in found.split_of)
        settings = replace(settings, split=found.rest(settings.split))
    if wheels is not None:
        opened = messages.find_wheels(wheels)
        tally = Tally("message")
        units = messages.units(settings, opened, groups, tally, report("read"))
    else:
        tally = Tally("row")
        units = _file_units(settings, sources, found, groups, tally, report("read"))
    shared: Counter[str] = Counter()
    units = _unique(settings.kind, units, tally, shared)
    if settings.kind == "corpus" and wheels is None:
        rows, assignment = _file_documents(settings, units, groups, {one.path: one.sha256 for one in sources})
    else:
        assignment = Assignment(groups, settings.split)
        if settings.kind == "corpus":
            rows = _documents(settings, units, assignment.of)
        else:
            rows = [_pair(settings, unit, assignment.of(unit.group, unit.split)) for unit in units]
    rows = _limited(settings, rows, tally)
    for row in rows:
        for unit in row.units:
            tally.keep(unit.origin)
    _check_splits(settings, rows, found)
    progress = report("write")
    progress(0, len(rows))
    counts = card.write_rows(output, rows)
    Encoding().write(output)
    facts = card.describe(settings, rows, tally, assignment, opened, sources)
    texts: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for row in rows:
        texts[row.split].append(tuple(row.fields.values()))
    group = "prompt" if settings.kind != "corpus" else settings.split.group or "file (texts that are cut) and document"
    facts["splits_from"] = found.facts(settings.split, group if wheels is None else "message")
    facts["left_out"] = dict(found.left_out)
    facts["ignored_fields"] = dict(sorted(tally.ignored.items()))
    facts["overlaps"] = overlaps.between({name: overlaps.SplitRows.of(rows) for name, rows in texts.items()}, shared)
    write_json(output / page.JSON, facts)
    progress(len(rows), len(rows))
    return counts


def _file_units(
    settings: Settings,
    sources: tuple[Source, ...],
    own: layout.Layout,
    groups: Groups,
    tally: Tally,
    progress: Callable[[int, int], None],
) -> list[Unit]:
    """Rows of user files that serve. Rows with the same prompt are of one group; completions may repeat (labels do)."""
    found: list[Unit] = []
    for row in files.rows(settings.kind, sources, progress):
        tally.saw(row.path)
        tally.ignored.update(row.ignored)
        group = "s:" + (text.key(row.texts[0]) or row.texts[0])
        if settings.kind != "corpus":
            groups.join([group])
        if settings.kind == "preferences" and text.exact(row.texts[1]) == text.exact(row.texts[2]):
            tally.drop("no_difference")
        elif flaw := messages.length_flaw(settings, row.texts):
            tally.drop(flaw)
        else:
            split = own.split_of[row.path]
            name = identify(*row.texts)
            found.append(Unit(name, row.path, row.path, row.position, group, row.texts, row.alone, split))
    return found


def _unique(kind: str, units: list[Unit], tally: Tally, shared: Counter[str]) -> list[Unit]:
    """Leave out repeated units: of a corpus, texts that are the same; of pairs from messages, all but the most frequent
    translation of a source text (spellings of one translation vote together); of rows of files, exact repetitions (one
    prompt may well have several completions).

    Of a text in two splits that have files of their own the held-out one stays; ``shared`` counts these."""
    by_key: dict[object, list[Unit]] = defaultdict(list)
    for unit in sorted(units, key=lambda unit: (layout.order(unit.split), unit.order)):
        from_file = unit.origin == unit.project
        first = unit.texts[0]
        own = text.wording(first) or first if not from_file else text.exact(first) if kind == "corpus" else unit.texts
        by_key[own].append(unit)
    kept: list[Unit] = []
    for same in by_key.values():
        spelling = [tuple(text.key(one) or one for one in unit.texts[1:]) for unit in same]
        votes = Counter(spelling)
        most = max(votes.values())
        best, chosen = next((unit, own) for unit, own in zip(same, spelling, strict=True) if votes[own] == most)
        kept.append(best)
        across = [other.split for other in same if other.split != best.split]
        for split in across:
            shared[f"{split}/{best.split}"] += 1
            tally.drop(f"duplicate_of_{best.split}")
        if most - len(across) > 1:
            tally.drop("duplicate", most - len(across) - 1)
        if len(same) > most:
            tally.drop("other_translation", len(same) - votes[chosen])
    return sorted(kept, key=lambda unit: unit.order)


def _pair(settings: Settings, unit: Unit, split: str) -> DraftRow:
    names = ("completion",) if settings.kind == "instructions" else ("chosen", "rejected")
    fields = {"prompt": settings.prompt_of(unit.texts[0]), **dict(zip(names, unit.texts[1:], strict=True))}
    return DraftRow(identify(unit.name), split, fields, (unit,))


def _documents(settings: Settings, units: list[Unit], split_of: Callable[[str], str]) -> list[DraftRow]:
    """Messages of one project and one split, neighbours together, one a line, until a document is long enough."""
    streams: dict[tuple[str, str], list[Unit]] = defaultdict(list)
    for unit in units:
        streams[unit.project, split_of(unit.group)].append(unit)
    rows: list[DraftRow] = []
    for (_, split), stream in sorted(streams.items()):
        rows += [_document(part, split, "\n") for part in _cut(stream, settings.document_chars, "\n")]
    return rows


def _file_documents(
    settings: Settings, units: list[Unit], groups: Groups, digests: dict[str, str]
) -> tuple[list[DraftRow], Assignment]:
    """Paragraphs of one file joined to documents, which are what is split: no text is torn paragraph by paragraph.

    All documents of a text are in one split, if ``split.group`` does not say otherwise.
    """
    streams: dict[str, list[Unit]] = defaultdict(list)
    for unit in units:
        streams[unit.origin].append(unit)
    parts: list[list[Unit]] = []
    for _, stream in sorted(streams.items()):
        parts += [[unit] for unit in stream] if stream[0].alone else _cut(stream, settings.document_chars, "\n\n")
    keys = []
    for part in parts:
        by_file = settings.split.group == "file" or (settings.split.group is None and not part[0].alone)
        keys.append(f"f:{digests[part[0].origin]}" if by_file else part[0].group)
        groups.join([keys[-1]])
    assignment = Assignment(groups, settings.split)
    return [
        _document(part, assignment.of(own, part[0].split), "\n\n") for part, own in zip(parts, keys, strict=True)
    ], assignment


def _cut(stream: list[Unit], characters: int, between: str) -> list[list[Unit]]:
    """Parts that, joined, have at least ``characters``; a short rest (under half of it) goes to the part before."""
    parts: list[list[Unit]] = []
    size = 0
    current: list[Unit] = []
    for unit in stream:
        size += len(unit.texts[0]) + (len(between) if current else 0)
        current.append(unit)
        if size >= characters:
            parts.append(current)
            current, size = [], 0
    if current and parts and size < characters / 2:
        parts[-1] += current
    elif current:
        parts.append(current)
    return parts


def _document(part: list[Unit], split: str, between: str) -> DraftRow:
    fields = {"text": between.join(unit.texts[0] for unit in part)}
    return DraftRow(identify(*(unit.name for unit in part)), split, fields, tuple(part))


def _limited(settings: Settings, rows: list[DraftRow], tally: Tally) -> list[DraftRow]:
    """The first rows of each split by id (a choice that no order of files changes), at most ``limit``."""
    kept: list[DraftRow] = []
    count: Counter[str] = Counter()
    for row in sorted(rows, key=lambda row: row.id):
        if count[row.split] < settings.limit.get(row.split, len(rows)):
            count[row.split] += 1
            kept.append(row)
        else:
            tally.drop("over_limit", len(row.units))
    return kept


def _check_splits(settings: Settings, rows: list[DraftRow], found: layout.Layout) -> None:
    """Refuse an empty split: the stage that reads it would fail hours later."""
    count = Counter(row.split for row in rows)
    for name, part in settings.split.parts().items():
        if (part > 0 or name in found.said) and not count[name]:
            whole = settings.kind == "corpus" and settings.split.group is None and found.split_of
            raise DataError(
                f"nothing is left for the {name} split ({len(rows)} rows in all, split.{name} is {part:g}): "
                f"give more data, or set split.{name if name != 'train' else 'test'} "
                + ("to 0 if it is not needed" if name != "train" else "lower")
                + ("; documents of one text are in one split: split.group: document divides it" if whole else "")
            )
