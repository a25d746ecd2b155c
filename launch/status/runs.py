"""A run in one line, from its files alone."""

from __future__ import annotations

from dataclasses import dataclass

from jobs.core import attempts, seal
from jobs.core.paths import StorePaths
from jobs.core.patience import passes
from jobs.core.verdict import FailureClass, Outcome
from launch.base.errors import InputError
from launch.config.document import reader
from launch.plan.model import PlannedStage
from launch.runs import attempt_state, family
from launch.runs.attempt_state import AttemptStatus, QueueView
from launch.runs.journal import Event, last_word
from launch.runs.rundir import Run

LOOKED_AT_FILES = 50
"""Of a finished result; there may be many runs."""


@dataclass(frozen=True)
class Overview:
    """One line of ``overnight list``. ``state`` is a word, and no promise: Slurm was not asked."""

    run: str
    pipeline: str
    profile: str
    created_at: float | None
    sealed: int
    total: int
    state: str
    path: str
    family: str = ""


def overview(run: Run) -> Overview:
    """What files say of a run; one that was cut off while it was made has no plan and counts no stages."""
    entries = list(run.journal.read())
    created = next((float(entry["time"]) for entry in entries if entry.get("event") == Event.CREATED), None)
    try:
        plan = run.plan()
    except InputError:
        return Overview(run.id, "", _profile(run), created, 0, 0, "cut off", str(run.paths.root), _family(run))
    open_stages = [stage for stage in plan.stages if not _is_whole(stage.store(run.workspace))]
    last = entries[-1] if entries else {}
    cancelled = last.get("event") == Event.CANCELLED and {stage.name for stage in open_stages} <= set(last["stages"])
    state = "done" if not open_stages else "cancelled" if cancelled else _state(run, open_stages)
    sealed = len(plan.stages) - len(open_stages)
    total, path = len(plan.stages), str(run.paths.root)
    return Overview(run.id, plan.pipeline, _profile(run), created, sealed, total, state, path, _family(run))


def _family(run: Run) -> str:
    """The sweep that it belongs to; empty: none, or that was cut off before it was one."""
    found = family.of_run(run)
    return "" if found is None else found.id


def _is_whole(store: StorePaths) -> bool:
    """Whether a stage is done: its seal, and a look at its files."""
    if not store.seal.exists():
        return False
    try:
        seal.look(store, LOOKED_AT_FILES)
    except seal.SealBroken as error:
        return passes(error)
    return True


def _profile(run: Run) -> str:
    """Its name. Not read as a profile: a run of an older version is listed, too."""
    try:
        return str(reader.read(run.paths.profile).data["name"])
    except (InputError, KeyError):
        return ""


def _state(run: Run, open_stages: list[PlannedStage]) -> str:
    """``failed`` if a stage's newest attempt says so, ``damaged`` if a result is, ``running`` if it runs here, else
    ``submitted``."""
    tried = False
    for stage in open_stages:
        store = stage.store(run.workspace)
        if store.seal.exists():
            return "damaged"
        current = attempts.current(store)
        if current is None:
            continue
        tried = True
        if attempt_state.was_refused(store, current):
            return "failed"
        said = last_word(store, current)
        if said is not None and said.outcome is Outcome.FAIL:
            stopped = "stopped" if current.carrier == "local" else "cancelled"
            return stopped if said.failure is FailureClass.CANCELLED else "failed"
        if current.carrier == "local":
            alive = attempt_state.standing(store, current, QueueView(())).status is AttemptStatus.LIVE
            return "running" if alive else "cut off"
    return "submitted" if tried else "not submitted"
