"""What stages would run and read, asked of their back ends before anything is submitted.

A back end checks its settings in its own environment, renders what its program reads, and lets that program's parser
read it where that can be done; so a misspelt option ends a submission and not a job in the night. An image or modules
are on the nodes: for their stages this interpreter is asked, which knows the settings and none of the versions.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.pipeline_file import PipelineFile
from launch.config.profile import Profile
from launch.plan.backends import answers_of
from launch.plan.model import Plan, PlannedStage
from launch.render import scripts
from launch.runs.rundir import Run
from launch.slurm.environment import scrubbed

SECONDS = 600.0
"""How long one environment may take for all of its stages: NVIDIA's parsers take half a minute to import."""

RUN, ATTEMPT = "check", "check0"


def refuse(plan: Plan, profile: Profile, workspace: Workspace, pipeline: PipelineFile) -> list[str]:
    """Notes on what could not be checked here. Raises InputError: a back end rejects a stage; with the pipeline's
    line."""
    notes = []
    for stage, said in answers(plan, profile, workspace, pipeline):
        notes += [f"stage {stage.name!r}: back end {stage.backend!r}: {note}" for note in said.get("notes", ())]
        if "missing" in said and _is_elsewhere(stage, profile):
            notes.append(
                f"stage {stage.name!r}: back end {stage.backend!r}: not checked: its program is on the nodes only"
            )
        problem = said.get("error") or ("" if _is_elsewhere(stage, profile) else said.get("missing"))
        if problem:
            raise _refusal(stage, problem, pipeline)
    return notes


def refuse_settings(plan: Plan, profile: Profile, workspace: Workspace, pipeline: PipelineFile) -> None:
    """Raises InputError: a setting that a back end does not know or take; with its line. This interpreter is asked, at
    once, so that nothing of the environments themselves is checked."""
    for stage, said in answers(plan, profile, workspace, pipeline, here=True):
        if "error" in said:
            raise _refusal(stage, said["error"], pipeline)


def _refusal(stage: PlannedStage, problem: str, pipeline: PipelineFile) -> InputError:
    """With the line of the first setting that ``problem`` names, else that of the stage."""
    text, place = f"stage {stage.name!r}: back end {stage.backend!r}: {problem}", ("stages", stage.name)
    if stage.name not in pipeline.pipeline.stages:
        return InputError(text)
    for word in re.findall(r"[a-z]\w+", problem):
        for path in ((*place, "options", word), (*place, word)):
            if pipeline.origin(path) is not None:
                return pipeline.error(path, text)
    return pipeline.error(place, text)


def answers(
    plan: Plan, profile: Profile, workspace: Workspace, pipeline: PipelineFile, *, here: bool = False
) -> Iterator[tuple[PlannedStage, dict[str, Any]]]:
    """Each stage without a seal, with ``command``, ``files`` (name -> content) and ``notes``, ``error`` or
    ``missing``. ``here``: as this interpreter answers."""
    groups: dict[str, list[PlannedStage]] = {}
    for stage in plan.stages:
        if stage.backend != "data" and not stage.store(workspace).seal.exists():
            python = sys.executable if here or _is_elsewhere(stage, profile) else stage.python
            groups.setdefault(python, []).append(stage)
    code = None if pipeline.pipeline.code is None else pipeline.resolve(pipeline.pipeline.code)
    for python, stages in groups.items():
        secrets = (*profile.secrets, *pipeline.pipeline.secrets)
        yield from zip(stages, _ask(python, stages, plan, profile, workspace, code, secrets), strict=True)


def _is_elsewhere(stage: PlannedStage, profile: Profile) -> bool:
    """Whether the environment of a stage is on the nodes only."""
    environment = profile.environments.get(stage.backend)
    return bool(stage.resources.image) or (environment is not None and environment.is_on_nodes_only)


def _ask(
    python: str,
    stages: list[PlannedStage],
    plan: Plan,
    profile: Profile,
    workspace: Workspace,
    code: Path | None,
    secrets: Iterable[str],
) -> list[dict[str, Any]]:
    run = Run(workspace, RUN)
    with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
        asked = []
        for stage in stages:
            told = scripts.stage_spec(run, plan, stage, profile, ATTEMPT, 1)
            gpus, processes = stage.resources.gpus_per_node, stage.resources.processes_per_node
            if stage.launcher == "ray" and gpus:
                processes = gpus  # one driver a job, one worker a GPU
            shape = {"nodes": stage.resources.nodes, "processes": processes, "gpus": bool(gpus)}
            asked.append({"spec": told, **shape})
        request = Path(scratch) / "request.json"
        request.write_text(json.dumps(asked, default=vars), encoding="utf-8")
        own = [] if code is None else ["--code", str(code)]
        what = f"what the stages {', '.join(stage.name for stage in stages)} would run"
        environment = scrubbed(os.environ, drop=secrets)
        (found,) = answers_of(python, ["render", *own, str(request)], environment, SECONDS, what, may_fork=True)
        return list(found)
