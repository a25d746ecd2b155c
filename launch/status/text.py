"""``overnight status`` for people and for programs."""

from __future__ import annotations

from typing import Any

from launch.base.text import clock, count, duration, table, utc
from launch.plan.model import Plan
from launch.runs.rundir import Run
from launch.status import advice
from launch.status.model import RunStatus, StageStatus, State

EVIDENCE_LINES = 6


def lines(run: Run, plan: Plan, profile: str, status: RunStatus) -> list[str]:
    """The whole answer, but for the table of results of a chain that is done."""
    found = [f"{heading(run, plan, profile, status)}; {sealed(status)}"]
    if status.silence:
        found += ["", *silence(status)]
    rows = [_row(stage) for stage in status.stages]
    found += ["", *table(("stage", "job", "nodes", "elapsed", "state"), rows, right=(3,))]
    for stage in status.stages:
        if stage.evidence:
            found += ["", f"{stage.stage} {stage.text}", *_evidence(stage.evidence)]
    return [*found, "", f"next: {advice.of_run(run, status)}"]


def heading(run: Run, plan: Plan, profile: str, status: RunStatus) -> str:
    """Which run it is, and since when."""
    since = "" if status.created_at is None else f", submitted {clock(status.created_at)}"
    return f"run {run.id}: {plan.pipeline} on {profile}{since}"


def sealed(status: RunStatus) -> str:
    """How much of a chain is done."""
    return f"{len(status.of(State.SEALED))} of {count(len(status.stages), 'stage')} sealed"


def silence(status: RunStatus) -> list[str]:
    """That and why the cluster gave no response; nothing where it gave one."""
    return [*status.silence.splitlines(), "What follows is what the files of the run prove."] if status.silence else []


def _row(stage: StageStatus) -> list[str]:
    text = stage.text
    if stage.continued:
        text += f"; continued {count(stage.continued, 'time')}"
    if stage.avoids:
        text += f"; excludes {', '.join(stage.avoids)}"
    if stage.of_run:
        text += f" (in run {stage.of_run})"
    if stage.owner:
        text += f" (of user {stage.owner})"
    return [stage.stage, stage.job, stage.nodes, "" if stage.elapsed is None else duration(stage.elapsed), text]


def _evidence(text: str) -> list[str]:
    shown = text.strip().splitlines()
    more = [f"  ... {len(shown) - EVIDENCE_LINES} more lines in its log"] if len(shown) > EVIDENCE_LINES else []
    return [f"  {line}" for line in shown[:EVIDENCE_LINES]] + more


def as_json(run: Run, plan: Plan, profile: str, status: RunStatus) -> dict[str, Any]:
    """The same as plain data."""
    return {
        "run": run.id,
        "pipeline": plan.pipeline,
        "profile": profile,
        "path": str(run.paths.root),
        "created": None if status.created_at is None else utc(status.created_at),
        "done": status.is_done,
        "cluster": status.cluster,
        "stages": [vars(stage) for stage in status.stages],
        "next": advice.of_run(run, status),
    }
