"""A data stage: source -> units -> rows in splits -> files and card."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile

from data_prep import paths
from data_prep.card import card, page
from data_prep.common import text
from data_prep.common.errors import DataError, of_extra
from data_prep.common.settings import Settings
from data_prep.common.split import Assignment, Groups
from data_prep.common.units import DraftRow, Tally, Unit, identify
from data_prep.sources import files, layout, messages
from data_prep.sources.catalogues import Wheel
from data_prep.sources.file_rows import FileRows
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

    Of rows of files 25 bytes each are held in memory, of messages and of a corpus everything. The bytes written depend
    on contents and settings only.
    """
    found = layout.Layout()
    if wheels is None:
        found = layout.read(sources, settings.split, rows_only=settings.kind != "corpus")
        sources = tuple(source for source in sources if source.path in found.split_of)
        settings = replace(settings, split=found.rest(settings.split))
    tally = Tally("row" if wheels is None else "message")
    shared: Counter[str] = Counter()
    opened: list[Wheel] = []
    with TemporaryFile(dir=output) as spool:
        rows: Iterable[DraftRow]
        made: FileRows | Assignment
        if wheels is not None:
            opened, group = messages.find_wheels(wheels), "message"
            rows, made = _of_messages(settings, opened, tally, shared, report("read"))
        elif settings.kind == "corpus":
            group = settings.split.group or "file (texts that are cut) and document"
            rows, made = _of_texts(settings, sources, found, tally, shared, report("read"))
        else:
            group, rows = "prompt", FileRows(settings, found.split_of, tally, shared, spool)
            rows.read(sources, report("read"))
            made = rows
        progress, total = report("write"), tally.read.total() - tally.dropped.total()
        progress(0, total)
        written = card.write_rows(output, _limited(settings, rows, tally), tally)
    _check_splits(settings, written.rows, found)
    Encoding().write(output)
    facts = card.describe(settings, written, tally, made.facts(), opened, sources)
    facts["splits_from"] = found.facts(settings.split, group)
    facts["left_out"] = dict(found.left_out)
    facts["ignored_fields"] = dict(sorted(tally.ignored.items()))
    facts["overlaps"] = written.overlaps(shared)
    write_json(output / page.JSON, facts)
    progress(total, total)
    return dict(written.rows)


def _of_messages(
    settings: Settings, wheels: list[Wheel], tally: Tally, shared: Counter[str], progress: Callable[[int, int], None]
) -> tuple[list[DraftRow], Assignment]:
    """Rows of the messages in wheels by their ids, and how they are split."""
    groups = Groups()
    units = _unique(messages.units(settings, wheels, groups, tally, progress), tally, shared)
    assignment = Assignment(groups, settings.split)
    if settings.kind == "corpus":
        rows = _documents(settings, units, assignment.of)
    else:
        rows = [DraftRow.pair(settings, unit, assignment.of(unit.group)) for unit in units]
    return sorted(rows, key=lambda row: row.id), assignment


def _of_texts(
    settings: Settings,
    sources: tuple[Source, ...],
    own: layout.Layout,
    tally: Tally,
    shared: Counter[str],
    progress: Callable[[int, int], None],
) -> tuple[list[DraftRow], Assignment]:
    """Documents of user files by their ids, and how they are split."""
    found: list[Unit] = []
    for row in files.rows(settings.kind, sources, progress):
        tally.saw(row.path)
        tally.ignored.update(row.ignored)
        if flaw := messages.length_flaw(settings, row.texts):
            tally.drop(flaw)
        else:
            group = "s:" + (text.key(row.texts[0]) or row.texts[0])
            name, split = identify(*row.texts), own.split_of[row.path]
            found.append(Unit(name, row.path, row.path, row.position, group, row.texts, row.alone, split))
    digests = {source.path: source.sha256 for source in sources}
    rows, assignment = _file_documents(settings, _unique(found, tally, shared), digests)
    return sorted(rows, key=lambda row: row.id), assignment


def _unique(units: list[Unit], tally: Tally, shared: Counter[str]) -> list[Unit]:
    """Leave out repeated units: of a corpus, texts that are the same; of pairs from messages, all but the most frequent
    translation of a source text (spellings of one translation vote together).

    Of a text in two splits that have files of their own the held-out one stays; ``shared`` counts these."""
    by_key: dict[str, list[Unit]] = defaultdict(list)
    for unit in sorted(units, key=lambda unit: (layout.order(unit.split), unit.order)):
        from_file = unit.origin == unit.project
        first = unit.texts[0]
        by_key[text.exact(first) if from_file else text.wording(first) or first].append(unit)
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
    settings: Settings, units: list[Unit], digests: dict[str, str]
) -> tuple[list[DraftRow], Assignment]:
    """Paragraphs of one file joined to documents, which are what is split: no text is torn paragraph by paragraph.

    All documents of a text are in one split, if ``split.group`` does not say otherwise.
    """
    groups, streams = Groups(), defaultdict(list)
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


def _limited(settings: Settings, rows: Iterable[DraftRow], tally: Tally) -> Iterator[DraftRow]:
    """The first rows of each split by id (a choice that no order of files changes), at most ``limit``."""
    count: Counter[str] = Counter()
    for row in rows:
        if count[row.split] == settings.limit.get(row.split):
            tally.drop("over_limit", len(row.units))
        else:
            count[row.split] += 1
            yield row


def _check_splits(settings: Settings, count: Counter[str], found: layout.Layout) -> None:
    """Refuse an empty split: the stage that reads it would fail hours later."""
    for name, part in settings.split.parts().items():
        if (part > 0 or name in found.said) and not count[name]:
            whole = settings.kind == "corpus" and settings.split.group is None and found.split_of
            raise DataError(
                f"nothing is left for the {name} split ({count.total()} rows in all, split.{name} is {part:g}): "
                f"give more data, or set split.{name if name != 'train' else 'test'} "
                + ("to 0 if it is not needed" if name != "train" else "lower")
                + ("; documents of one text are in one split: split.group: document divides it" if whole else "")
            )
