"""What each job of a plan would run, rendered exactly as for a submission; nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from launch.config.profile import Continuation, Profile
from launch.plan.model import Planned, PlannedStage
from launch.render import scripts
from launch.render.executors import carrier
from launch.runs.rundir import Run

RUN, ATTEMPT = "RUN", "ATTEMPT"
"""Stand for the run id and the attempt's token, which a submission draws."""

Preview = Mapping[str, Mapping[str, str | list[str]]]


def preview(planned: Planned) -> Preview:
    """Stage -> its scripts by name, and sbatch's command lines (``edges``), parents first. Raises InputError: an
    executor is not installed, or a value cannot go into a script."""
    return {stage.name: _render(planned, stage) for stage in planned.plan.stages}


def lines(rendered: Preview) -> Iterator[str]:
    """A preview as text."""
    for name, parts in rendered.items():
        for what, text in parts.items():
            if not isinstance(text, str):
                continue
            yield from ("", f"{'=' * 8} {name}: {what} {'=' * 8}")
            if what == "job.sh":
                # Not part of the script: sbatch gets them on its command line, so that ids stay out of the file.
                yield from (f"# {edge}" for edge in parts["edges"])
            yield text.rstrip("\n")


def _render(planned: Planned, stage: PlannedStage) -> dict[str, str | list[str]]:
    run = Run(planned.workspace, RUN)
    profile = planned.profile.profile
    texts = scripts.stage_scripts(run, planned.plan, stage, profile, ATTEMPT)
    found: dict[str, str | list[str]] = {"edges": edges(stage, profile)}
    if stage.executor != "local":
        request = scripts.request(run, stage, profile, ATTEMPT, 0, None)
        found["job.sh"] = carrier(stage.executor).render(request)
        found["host.sh"] = texts.host
    found["node.sh"] = texts.node
    return found


def edges(stage: PlannedStage, profile: Profile) -> list[str]:
    """The command line of sbatch, with stage names where a submission has job ids."""
    waits = f" --dependency=afterok:{':'.join(f'<{parent}>' for parent in stage.parents)}" if stage.parents else ""
    lines = [f"sbatch --parsable{waits} job.sh"]
    if stage.continuation == Continuation.CHAIN.value:
        for link in range(1, profile.links):
            before = ":".join(f"<{stage.name} link {other}>" for other in range(link))
            lines.append(f"sbatch --parsable --dependency=afterany:{before} job-{link}.sh")
    return lines
