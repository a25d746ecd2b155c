"""Many variants of one pipeline: every combination of some values, planned in one go.

Stages that come out the same in several variants are one job in all of them, so what counts is how many different ones
there are. The files are read once, and the world is looked at once for all variants that see the same of it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.document.reader import read
from launch.config.pipeline_file import PipelineFile, of_document
from launch.config.profile_file import ProfileFile
from launch.config.stages import DataStage
from launch.plan import builder, gather
from launch.plan.model import Facts, Plan

MOST = 100_000


@dataclass(frozen=True)
class Variant:
    """One combination: the texts of ``--set`` that make it, and its plan."""

    options: tuple[str, ...]
    plan: Plan


def combinations(axes: Sequence[str]) -> list[tuple[str, ...]]:
    """``["a=1,2", "b=x"]`` as ``[("a=1", "b=x"), ("a=2", "b=x")]``. Raises InputError: no value, or too many of
    them."""
    choices, total = [], 1
    for axis in axes:
        key, mark, values = axis.partition("=")
        found = [f"{key}={value.strip()}" for value in values.split(",") if value.strip()]
        if not mark or not found:
            raise InputError("write --sweep stages.NAME.KEY=VALUE,VALUE", where=f"--sweep {axis}")
        choices.append(found)
        total *= len(found)
    if total > MOST:
        raise InputError(f"{total} combinations are more than {MOST}")
    return list(itertools.product(*choices))


def plans(
    path: Path,
    options: Sequence[str],
    axes: Sequence[str],
    profile: ProfileFile,
    workspace: Workspace,
    checked: Callable[[PipelineFile], PipelineFile] = lambda pipeline: pipeline,
) -> Iterator[Variant]:
    """Plan every combination of ``axes`` (texts of ``--sweep``) under ``options`` (of ``--set``). ``checked`` checks
    what this package cannot, see ``launch.config.data_settings``. Raises InputError: a variant is no pipeline."""
    document = read(path)
    known: dict[str, Facts] = {}
    for chosen in combinations(axes):
        pipeline = checked(of_document(path, document, (*options, *chosen)))
        under = profile.with_pipeline(pipeline.data, pipeline.positions)
        seen = _seen(pipeline)
        if seen not in known:
            known[seen] = gather.gather(pipeline, under.profile, workspace)
        yield Variant(chosen, builder.build(pipeline.pipeline, under.profile, known[seen]))


def _seen(pipeline: PipelineFile) -> str:
    """All of a pipeline that ``facts.gather`` looks at: variants that agree in it see the same world."""
    stages = {
        name: written
        if isinstance(pipeline.pipeline.stages[name], DataStage)
        else {key: written.get(key) for key in ("kind", "backend", "checkpoint")}
        for name, written in pipeline.data["stages"].items()
    }
    rest = {key: value for key, value in pipeline.data.items() if key != "stages"}
    return json.dumps([stages, rest], sort_keys=True, default=str)
