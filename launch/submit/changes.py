"""What has changed since a run was planned: it goes on with its own copies, and its jobs refuse other data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.core import attempts
from jobs.core.verdict import FailureClass, Outcome
from launch.base.errors import InputError
from launch.config.document import reader
from launch.config.pipeline_file import read_pipeline
from launch.inputs.digests import DigestCache
from launch.plan.model import Plan
from launch.runs.journal import Event, last_word
from launch.runs.rundir import Run
from launch.status import advice

SHOWN = 3
_NOTHING = object()


def of_pipeline(run: Run) -> str | None:
    """What the pipeline file says otherwise than the run's copy, and what to type for it; None: nothing, or the file
    is not there any more."""
    created = next((entry for entry in run.journal.read() if entry.get("event") == Event.CREATED), {})
    path = Path(str(created.get("pipeline", "")))
    if "set" not in created or not path.is_file():  # a run of an older version does not say how it was read
        return None
    try:
        read = read_pipeline(path, [str(one) for one in created["set"]])
        now = read.data
        before = reader.read(run.paths.pipeline).data
    except InputError as error:
        return f"{path} cannot be read now: {error.message}"
    swept = () if read.pipeline.sweep is None else tuple(read.pipeline.sweep.over)
    known = (*(f"{key}:" for key in swept), "sweep")  # a chain of a sweep has values of its own
    found = [one for one in _differences(before, now, ()) if not one.startswith(known)]
    if not found:
        return None
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return (
        f"{path} has changed since this run was planned ({'; '.join(found[:SHOWN])}{more}); resume uses the "
        f"run's own copy. To use the file as it is now: {advice.submit(run)}"
    )


SAME_AGAIN = frozenset({FailureClass.DATA_ERROR, FailureClass.GATE, FailureClass.GATE_UNDECIDED})
"""Of these classes the same input gives the same result on every node: resume alone does not help."""


def in_vain(run: Run, plan: Plan) -> list[str]:
    """A note for each stage that will fail again as it did, since a run keeps its pipeline and its data."""
    found = []
    for stage in plan.stages:
        store = stage.store(run.workspace)
        current = None if store.seal.exists() else attempts.current(store)
        said = None if current is None else last_word(store, current)
        if said is not None and said.outcome is Outcome.FAIL and said.failure in SAME_AGAIN:
            text = f"stage {stage.name} failed by {said.failure.value}, which the same pipeline and data give again"
            found.append(f"{text}: change one of them; then: {advice.submit(run)}")
    return found


def refuse_data(run: Run, plan: Plan) -> None:
    """Raises InputError: a file that an unfinished stage reads is not the one that was planned with, so that its job
    would only refuse it."""
    cache = DigestCache(run.workspace.digests)
    for stage in plan.stages:
        if stage.store(run.workspace).seal.exists():
            continue
        for source in stage.sources:
            path = Path(source.path)
            # What is missing may be put back: the job says so.
            if not source.sha256 or not path.is_file() or not os.access(path, os.R_OK):
                continue
            if cache.digest(path).sha256 != source.sha256:
                raise InputError(
                    f"{path}: changed since run {run.id} was planned, and its stage {stage.name} is not done: the run "
                    "would only refuse it",
                    hint=advice.submit(run),
                )


def _differences(before: Any, now: Any, path: tuple[str, ...]) -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in [*before, *(name for name in now if name not in before)]:
            yield from _differences(before.get(name, _NOTHING), now.get(name, _NOTHING), (*path, str(name)))
    elif before != now or type(before) is not type(now):
        yield f"{'.'.join(path)}: {_shown(before)} -> {_shown(now)}"


def _shown(value: Any) -> str:
    if value is _NOTHING:
        return "nothing"
    text = str(value) if isinstance(value, str | int | float) else type(value).__name__
    return text if len(text) <= 40 else f"{text[:37]}..."
