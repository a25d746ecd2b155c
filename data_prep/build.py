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
from data_prep.common.units import DraftRow, Tally, Unit, cut
from data_prep.sources import layout, messages, word_problems
from data_prep.sources.catalogues import Wheel
from data_prep.sources.file_rows import FileRows, FileTexts
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

    if settings.source.type == "word_problems":
        made = (work or output.with_name("work")) / "word_problems"
        word_problems.write(settings.source, settings.split, made)
        settings = replace(settings, prepare={"carry": ["language", "twin", "steps"], **(settings.prepare or {})})
        prepared = of_extra("data_prep.prepared", "word_problems")
        return dict(prepared.build(settings, prepared.sources_of([made]), output, made.parent / "rows", report=report))
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

    Of rows and paragraphs of files some bytes each are held in memory, of messages everything. The bytes written depend
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
        made: FileRows | FileTexts | Assignment
        if wheels is not None:
            opened, group = messages.find_wheels(wheels), "message"
            rows, made = _of_messages(settings, opened, tally, report("read"))
        else:
            common = (tally, shared, spool)
            if settings.kind == "corpus":
                group = settings.split.group or "file (texts that are cut) and document"
                digests = {source.path: source.sha256 for source in sources}
                rows = made = FileTexts(settings, found.split_of, digests, *common)
            else:
                group, rows = "prompt", FileRows(settings, found.split_of, *common)
                made = rows
            rows.read(sources, report("read"))
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
    settings: Settings, wheels: list[Wheel], tally: Tally, progress: Callable[[int, int], None]
) -> tuple[list[DraftRow], Assignment]:
    """Rows of the messages in wheels by their ids, and how they are split."""
    groups = Groups()
    units = _unique(messages.units(settings, wheels, groups, tally, progress), tally)
    assignment = Assignment(groups, settings.split)
    if settings.kind == "corpus":
        rows = _documents(settings, units, assignment.of)
    else:
        rows = [DraftRow.pair(settings, unit, assignment.of(unit.group)) for unit in units]
    return sorted(rows, key=lambda row: row.id), assignment


def _unique(units: list[Unit], tally: Tally) -> list[Unit]:
    """Leave out repeated units: all but the most frequent translation of a source text (spellings of one translation
    vote together)."""
    by_key: dict[str, list[Unit]] = defaultdict(list)
    for unit in sorted(units, key=lambda unit: unit.order):
        by_key[text.wording(unit.texts[0]) or unit.texts[0]].append(unit)
    kept: list[Unit] = []
    for same in by_key.values():
        spelling = [tuple(text.key(one) or one for one in unit.texts[1:]) for unit in same]
        votes = Counter(spelling)
        most = max(votes.values())
        best, chosen = next((unit, own) for unit, own in zip(same, spelling, strict=True) if votes[own] == most)
        kept.append(best)
        if most > 1:
            tally.drop("duplicate", most - 1)
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
        rows += [DraftRow.document(part, split, "\n") for part in cut(stream, settings.document_chars, "\n")]
    return rows


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
