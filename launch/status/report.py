"""``overnight report``: what became of a run, as one answer for the morning.

The finished model or the reason why there is none; every stage with what it took; what the evaluations measured.
From the files of the run, with what ``launch.status.assess`` heard of the cluster.
"""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass
from typing import Any

from jobs.core import seal
from jobs.core.seal import SealKind
from launch.base.text import count, duration, table
from launch.config.profile import Profile
from launch.plan.model import Plan, PlannedStage
from launch.runs.rundir import Run
from launch.status import advice, ask, results, why
from launch.status.model import RunStatus, StageStatus, State
from launch.status.results import MetricResult
from launch.status.text import heading, sealed, silence
from launch.status.why import Why

CHECKPOINT = SealKind.CHECKPOINT.value


@dataclass(frozen=True)
class StageResult:
    """A stage and its sealed output. ``gpu_hours``: GPUs of the request times the seconds that Slurm or the jobs
    counted, None where a number is missing; ``bytes`` of all files, ``content`` the digest over them; ``metrics`` as
    the back end gave them."""

    stage: str
    kind: str
    backend: str
    state: str
    text: str
    job: str
    nodes: str
    elapsed: float | None
    gpu_hours: float | None
    of_run: str
    continued: int
    step: int | None
    path: str
    format: str
    bytes: int | None
    content: str
    metrics: dict[str, Any]


@dataclass(frozen=True)
class RunReport:
    """``model``: the last checkpoint of the chain that is sealed; ``is_finished``: nothing of the chain comes after."""

    run: Run
    plan: Plan
    status: RunStatus
    stages: tuple[StageResult, ...]
    model: StageResult | None
    is_finished: bool
    measured: tuple[MetricResult, ...]
    reasons: tuple[Why, ...]


def make(run: Run, plan: Plan, profile: Profile, status: RunStatus) -> RunReport:
    """What became of a run. Raises InputError: a metrics file is not one."""
    found = {one.stage: one for one in status.stages}
    stages = tuple(_made(run, planned, found[planned.name]) for planned in plan.stages)
    models = [made for made, planned in zip(stages, plan.stages, strict=True) if planned.produces_kind == CHECKPOINT]
    there = [made for made in models if made.path]
    told = why.explain(run, plan, profile, status)
    # Stages that only wait for one that failed have nothing to add.
    reasons = [one for one in told if not one.is_calm and one.state != State.SKIPPED]
    model = there[-1] if there else None
    finished = status.is_done and model is models[-1] if models else False
    measured = results.collect(plan, run.workspace) + results.of_people(run)
    return RunReport(run, plan, status, stages, model, finished, tuple(measured), tuple(reasons))


def of_run(run: Run) -> RunReport:
    """What became of a run; asks its cluster once. Raises InputError: it has no plan, or a file is damaged."""
    plan, profile = run.plan(), run.profile()
    return make(run, plan, profile, ask.look(run, plan, profile))


def _made(run: Run, planned: PlannedStage, found: StageStatus) -> StageResult:
    store = planned.store(run.workspace)
    sealed = None
    if found.state is State.SEALED:
        with contextlib.suppress(seal.SealBroken):  # moved aside meanwhile
            sealed = seal.of_entry(store)
    gpus = (planned.resources.gpus_per_node or 0) * planned.resources.nodes
    return StageResult(
        stage=planned.name,
        kind=planned.kind,
        backend=planned.backend,
        state=found.state.value,
        text=found.text,
        job=found.job or (sealed.job if sealed else ""),
        nodes=found.nodes,
        elapsed=found.elapsed,
        gpu_hours=None if found.elapsed is None else gpus * found.elapsed / 3600,
        of_run=found.of_run or (sealed.run if sealed and sealed.run != run.id else ""),
        continued=found.continued,
        step=sealed.step if sealed else found.step,
        path=str(store.output) if sealed else "",
        format=sealed.format if sealed else planned.produces_format,
        bytes=sealed.bytes if sealed else None,
        content=sealed.content if sealed else "",
        metrics=dict(sealed.metrics) if sealed else {},
    )


def lines(report: RunReport, profile: str) -> list[str]:
    """For people."""
    status, run = report.status, report.run
    shown = [heading(run, report.plan, profile, status), _outcome(report)]
    shown += silence(status)
    if report.model is not None:
        shown += ["", *_model(report.model, report.is_finished)]
    header = ("stage", "back end", "state", "job", "nodes", "elapsed", "GPU-hours", "continued", "step", "loss", "MB")
    shown += ["", *table(header, [_row(made) for made in report.stages], right=(5, 6, 7, 8, 10))]
    if report.measured:
        shown += ["", *results.lines(list(report.measured))]
    choices = [f"{made.stage}: {made.metrics['said']}" for made in report.stages if "said" in made.metrics]
    shown += ["", *choices] if choices else []
    for reason in report.reasons:
        shown += ["", *why.lines(reason)]
    return [*shown, "", f"next: {advice.of_run(run, status)}"]


def _outcome(report: RunReport) -> str:
    status = report.status
    if status.is_done:
        return f"outcome: done, {count(len(report.stages), 'stage')} sealed"
    bad = [one.stage for one in status.stages if one.state.is_bad]
    if bad:
        return f"outcome: {', '.join(bad)} failed; {sealed(status)}"
    over = [f"{one.stage} {one.state}" for one in status.stages if one.state.is_over]
    return f"outcome: {', '.join(over) if over else 'not over yet'}; {sealed(status)}"


def _model(made: StageResult, finished: bool) -> list[str]:
    what = "finished model" if finished else f"newest model (of {made.stage})"
    step = "" if made.step is None else f", step {made.step}"
    size = "" if made.bytes is None else f", {made.bytes / 1e6:.1f} MB"
    return [f"{what}: {made.path}", f"  {made.format}{step}{size}, content sha256 {made.content}"]


def _row(made: StageResult) -> list[str]:
    state = made.state + (f" (run {made.of_run})" if made.of_run else "")
    first, last = made.metrics.get("first_loss"), made.metrics.get("last_loss")
    loss = f"{first:.4g} -> {last:.4g}" if isinstance(first, float) and isinstance(last, float) else ""
    return [
        made.stage,
        made.backend,
        state,
        made.job,
        made.nodes,
        "" if made.elapsed is None else duration(made.elapsed),
        f"{made.gpu_hours:.2f}" if made.gpu_hours else "",
        str(made.continued) if made.continued else "",
        "" if made.step is None else str(made.step),
        loss,
        "" if made.bytes is None else f"{made.bytes / 1e6:.1f}",
    ]


def as_json(report: RunReport, profile: str) -> dict[str, Any]:
    """The same as plain data, with everything that the seals hold of each stage's work."""
    status = report.status
    return {
        "run": report.run.id,
        "pipeline": report.plan.pipeline,
        "profile": profile,
        "done": status.is_done,
        "finished": report.is_finished,
        "cluster": status.cluster,
        "model": None if report.model is None else asdict(report.model),
        "stages": [asdict(made) for made in report.stages],
        "results": [asdict(one) for one in report.measured],
        "reasons": [vars(one) for one in report.reasons],
        "next": advice.of_run(report.run, status),
    }
