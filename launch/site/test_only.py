"""A job as ``sbatch --test-only`` sees it, also one without a pipeline, and the explanation of a refusal."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from launch.base.errors import OvernightError, RejectedByCluster
from launch.base.text import clock
from launch.config.pipeline_file import PipelineFile
from launch.config.profile import Profile, Resources
from launch.config.profile_file import ProfileFile
from launch.plan.model import PlannedStage
from launch.render import provenance, refusal, scripts
from launch.render.executors import carrier
from launch.runs.rundir import Run
from launch.site.finding import Finding, Level
from launch.slurm import refusals
from launch.slurm.client import Gateway

NAME = "probe"


def stage_of(
    profile: Profile, kind: str, resources: Resources, executor: str, backend: str, python: str
) -> PlannedStage:
    """A stage that has no inputs and makes nothing."""
    return PlannedStage(
        name=NAME,
        kind=kind,
        backend=backend,
        produces_kind=NAME,
        produces_format=NAME,
        fingerprint="0" * 64,
        inputs={},
        settings={},
        resources=resources,
        executor=executor,
        continuation=profile.continuation.value,
        python=python,
        launcher="python",
    )


def finding(
    what: str,
    run: Run,
    stage: PlannedStage,
    profile: ProfileFile,
    gateway: Gateway,
    *,
    where: str = "",
    pipeline: PipelineFile | None = None,
) -> Finding:
    """The finding ``what``: the answer of ``sbatch --test-only`` for the job of a stage; no job is made. ``where``: the
    line to change if the rejection names none; ``pipeline``: that of the stage, if it has one."""
    with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
        script = Path(scratch) / "job.sh"
        try:
            request = scripts.request(run, stage, profile.profile, NAME, 0, None)
            script.write_text(carrier(stage.executor).render(request), encoding="utf-8")
            said = gateway.test_only(script)
        except RejectedByCluster as error:
            text, line = explained(error, run, stage, profile, script, gateway, pipeline)
            return Finding(Level.FAIL, what, text, line or where)
        except OvernightError as error:
            return Finding(Level.FAIL, what, f"{error.message}; {error.hint}" if error.hint else error.message, where)
    accepted = f"accepted by partition {stage.resources.partition or '(the default one)'}"
    return Finding(Level.OK, what, readable(said.splitlines()[-1].removeprefix("sbatch: ")) if said else accepted)


def readable(said: str) -> str:
    """What ``sbatch --test-only`` says, with its time as the user's clock has it: we ask Slurm for seconds."""
    return re.sub(r"\bstart at (\d{9,11})\b", lambda found: f"start at {clock(int(found[1]))}", said)


def explained(
    error: RejectedByCluster,
    run: Run,
    stage: PlannedStage,
    profile: ProfileFile,
    script: Path,
    gateway: Gateway,
    pipeline: PipelineFile | None = None,
) -> tuple[str, str]:
    """(what was refused, in Slurm's words, and the entries that end it; the line that it comes from, or nothing)."""
    refusal.add(error, provenance.of_stage(run, stage, profile, pipeline), script, gateway)
    lines = () if refusals.site_words(error.stderr) else map(str.strip, error.stderr.splitlines())
    said = list(filter(None, lines))
    advice = "; ".join(line.strip() for line in error.advice.splitlines())
    text = error.message + (f" ({'; '.join(said)})" if said else "") + (f": {advice}" if advice else "")
    return text, next((str(one["where"]) for one in error.causes if one["where"]), "")
