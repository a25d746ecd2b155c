"""What the plan must know of tasks of lm-evaluation-harness: the interpreter of their stage is asked once for all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from jobs.core import files
from jobs.core.paths import Workspace
from launch.base.text import suggest
from launch.config.kinds import measured
from launch.config.measuring import ChooseStage, CurveStage, EvaluateStage, MeasuringStage
from launch.config.pipeline_file import PipelineFile
from launch.config.profile import Profile
from launch.config.stages import BenchmarkSource
from launch.inputs import benchmarks
from launch.plan.backends import answers_of
from launch.plan.backends import asked as asked_of
from launch.slurm.environment import scrubbed

SECONDS = 120.0

ToldTasks = dict[str, dict[str, dict[str, Any]]]


def harness_tasks(pipeline: PipelineFile, profile: Profile, workspace: Workspace) -> ToldTasks:
    """Stage -> task -> what the job is told of it beside the user's keys. Raises InputError: a task that there is not
    or that cannot be run, rows that are not there, a gate on what a task does not measure; with the line."""
    found: ToldTasks = {}
    asked: dict[str, set[str]] = {}
    for name, stage in pipeline.pipeline.stages.items():
        if not isinstance(stage, MeasuringStage):
            continue
        for task, (source, part) in pipeline.pipeline.benchmarks(name).items():
            place = ("stages", name, "tasks", task)
            found.setdefault(name, {})[task] = {"rows": _rows(pipeline, (*place, "benchmark"), source, part)}
            if (harness := stage.tasks[task].get("harness")) is not None:
                asked.setdefault(asked_of(stage.backend, profile)[0], set()).add(str(harness))
    answers = {python: _ask(python, sorted(names), profile, workspace.harness) for python, names in asked.items()}
    for name, tasks in found.items():
        stage = pipeline.pipeline.stages[name]
        assert isinstance(stage, MeasuringStage)
        for task in tasks:
            harness = stage.tasks[task].get("harness")
            if harness is None:
                continue
            answer = answers[asked_of(stage.backend, profile)[0]][str(harness)]
            if "error" in answer:
                raise pipeline.error(("stages", name, "tasks", task, "harness"), answer["error"])
            tasks[task] |= answer
        if isinstance(stage, EvaluateStage):
            _check_gate(pipeline, name, stage, tasks)
        elif isinstance(stage, CurveStage):
            _check_choices(pipeline, name, stage, tasks)
    return found


def _rows(pipeline: PipelineFile, place: tuple[str, ...], source: str, part: str) -> str:
    """Where the rows of a set lie in what the source brings."""
    given = pipeline.pipeline.sources[source]
    assert isinstance(given, BenchmarkSource)
    sets = benchmarks.known(given.origin) | given.sets
    path = sets.get(part, part)
    if not part and len(sets) > 1:
        raise pipeline.error(place, f"which set? write {source}/NAME, one of {', '.join(sets)}")
    if not part and sets:
        (path,) = sets.values()
    if sets and part and part not in sets and "." not in part and "/" not in part:
        raise pipeline.error(place, f"there is no set {part!r} in {source!r}; {suggest(part, list(sets))}")
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise pipeline.error(place, f"{path!r} is outside {source!r}")
    return path


def _ask(python: str, names: list[str], profile: Profile, cache: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the harness in this interpreter has; kept in the workspace while the package there is the same."""
    known: dict[str, Any] = {}
    with contextlib.suppress(OSError, ValueError):
        known = files.read_json_or_none(cache) or {}
    try:
        kept = known.get(python, {})
        if set(names) <= set(kept["tasks"]) and all(
            files.state(path) == tuple(at) for path, at in kept["places"].items()
        ):
            return {name: kept["tasks"][name] for name in names}
    except (KeyError, TypeError, AttributeError):
        pass
    environment = scrubbed(os.environ, drop=profile.secrets)
    what = f"about the tasks {', '.join(names)} of lm-evaluation-harness"
    answer = answers_of(python, ["harness", *names], environment, SECONDS, what)[0]
    found: dict[str, dict[str, Any]] = answer["tasks"]
    places = {path: files.state(path) for path in answer["places"]}
    if places and all(places.values()) and not any("error" in one for one in found.values()):
        with contextlib.suppress(OSError):  # a plan needs no write access
            cache.parent.mkdir(parents=True, exist_ok=True)
            files.write_json(cache, {**known, python: {"places": places, "tasks": found}})
    return found


def _check_gate(
    pipeline: PipelineFile, name: str, stage: EvaluateStage, tasks: Mapping[str, Mapping[str, Any]]
) -> None:
    known = _known(stage, tasks)
    earlier = pipeline.pipeline.stages.get(stage.compare_to or "")
    for gate, rule in stage.gate.items():
        if gate not in known:
            text = f"no task of this evaluation measures {gate!r}; {suggest(gate, list(known))}"
            raise pipeline.error(("stages", name, "gate", gate), text)
        task = known[gate][0]
        if rule.compares and isinstance(earlier, EvaluateStage) and task not in earlier.tasks:
            text = f"{stage.compare_to} does not run the task {task!r}"
            raise pipeline.error(("stages", name, "gate", gate), text)


def _check_choices(
    pipeline: PipelineFile, curve: str, stage: CurveStage, tasks: Mapping[str, Mapping[str, Any]]
) -> None:
    """What the choices from a curve are made by."""
    known = _known(stage, tasks)
    for name, choice in pipeline.pipeline.stages.items():
        if not isinstance(choice, ChooseStage) or pipeline.pipeline.curve_of(name) != curve:
            continue
        for key, metrics in (("by", [*choice.by]), ("subject_to", [*choice.subject_to])):
            for metric in metrics:
                if metric not in known:
                    text = f"{curve} measures no {metric!r}; {suggest(metric, list(known))}"
                    raise pipeline.error(("stages", name, key, metric), text)


def _known(stage: MeasuringStage, tasks: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """What is measured by a stage of whose ``tasks`` the harness told this."""
    return measured({task: {**keys, **tasks.get(task, {})} for task, keys in stage.tasks.items()})
