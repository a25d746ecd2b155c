"""Data sets with the setting ``prepare``: one entry for the stages of a pipeline and for ``overnight data``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from data_prep.card.request import PhaseReport
from data_prep.common.errors import DataError, SettingsError
from data_prep.common.settings import Settings, SplitSettings
from data_prep.corpus import build as corpus
from data_prep.corpus.recipe import Recipe
from data_prep.corpus.workers import Runner
from data_prep.paths import other_paths
from data_prep.rows import build as rows
from data_prep.rows.decide import RowsRequest
from data_prep.rows.recipe import RowRecipe
from data_prep.sources import formats, layout
from data_prep.sources.files import find_files
from jobs.core.spec import Source


def build(
    settings: Settings,
    sources: Iterable[Source],
    output: Path,
    work: Path,
    *,
    report: PhaseReport,
    runner: Runner | None = None,
) -> dict[str, int]:
    """The rows of each split, after filling ``output`` from the user's files ``sources``.

    A source without a digest gets one. Files that the settings name in another role (a test set below the directory of
    the corpus) are not read as text to train on. ``work``: where shards are kept; ``runner`` does those of a corpus.

    Raises:
        DataError: bad input, with its place.
        SettingsError: settings that do not fit.
    """
    if settings.prepare is None:
        raise DataError("the settings have no prepare")
    sources = list(sources)
    others = {source.path for source in sources_of(map(Path, other_paths(settings.prepare)))}
    if (tokenizer := settings.prepare.get("tokenizer")) is not None:
        others |= {source.path for source in sources if Path(source.path).parent == Path(tokenizer).absolute()}
    digested = {source.path: source for source in sources if source.path in others}
    sources = [source for source in sources if source.path not in others]
    found = layout.read(sources, settings.split, rows_only=settings.kind != "corpus")
    sources = [source for source in sources if source.path in found.split_of]
    declared = settings.prepare.get("encoding")
    if declared is not None and not any(formats.look(source.path).is_text for source in sources):
        raise SettingsError("setting prepare.encoding: no file is text (Parquet and Arrow name theirs): remove it")
    wanted: dict[str, Any] = {
        "split": found.rest(settings.split),
        "limits": settings.limit,
        "min_chars": settings.min_chars,
        "max_chars": settings.max_chars,
        "layout": found,
    }
    if settings.kind != "corpus":
        recipe = RowRecipe.parse(settings.kind, settings.prepare)
        return rows.build(RowsRequest(recipe, sources, **wanted), output, work, report)
    own = Recipe.parse(settings.prepare)
    replay = [
        _replayed([digested.get(one.path, one) for one in sources_of([Path(entry.path)])]) for entry in own.replay
    ]
    request = corpus.CorpusRequest(own, [sources, *replay], **wanted)
    return corpus.build(request, output, work, runner=runner, report=report)


def _replayed(sources: list[Source]) -> list[Source]:
    """Of general text with splits of its own, what is for training."""
    found = layout.read(sources, SplitSettings(), rows_only=False)
    return [source for source in sources if found.split_of.get(source.path) in ("", "train")]


def sources_of(paths: Iterable[Path]) -> list[Source]:
    """Sources for files and directories, by absolute path, not digested yet; a file named twice counts once.

    Raises:
        DataError: nothing there.
    """
    found = {os.path.abspath(file): file.stat().st_size for path in paths for file in find_files(path)}
    return [Source(path, "", size) for path, size in sorted(found.items())]
