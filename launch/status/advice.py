"""What to type next: one answer for ``status``, ``why``, ``doctor`` and ``report``: the command that helps."""

from __future__ import annotations

import shlex

from jobs.core import symptoms
from jobs.core.verdict import FailureClass
from launch.render import refusal
from launch.runs.journal import Event
from launch.runs.rundir import Run, workspace_for
from launch.slurm import refusals
from launch.status import model
from launch.status.model import RunStatus, StageStatus, State

_ADVICE = {
    **symptoms.ADVICE,
    FailureClass.NO_PROGRESS: "give it more time or a smaller save_every, so that a save fits into one allocation",
    FailureClass.BAD_CONFIGURATION: "change what this line names in the pipeline or the profile",
    FailureClass.DATA_ERROR: "change the data or the setting that this line names",
    FailureClass.GATE: "train otherwise (data, steps, lr), or change the gate",
    FailureClass.GATE_UNDECIDED: "measure as many examples as this line says, or write undecided: go in this stage",
    FailureClass.FILE_SYSTEM: "wait until the nodes reach the file system of the workspace again",
}

_ANOTHER_RUN = frozenset({
    FailureClass.GPU_MEMORY, FailureClass.OUT_OF_MEMORY, FailureClass.MISSING_GPUS, FailureClass.VERSIONS,
    FailureClass.TOKENIZER, FailureClass.WRONG_DATA, FailureClass.ENVIRONMENT, FailureClass.NO_PROGRESS,
    FailureClass.BAD_CONFIGURATION, FailureClass.DATA_ERROR, FailureClass.GATE,
    FailureClass.GATE_UNDECIDED,
})  # fmt: skip
"""Classes whose change is one of pipeline, profile or data: a run keeps its own, so it takes another one."""

_INPUTS = (FailureClass.MISSING_INPUT, FailureClass.BROKEN_INPUT)

_FIRST = (State.FAILED, State.LOST, State.BLOCKED, State.STOPPED, State.CANCELLED)
"""The states whose command counts for the whole run, the most urgent first."""


def of_run(run: Run, status: RunStatus) -> str:
    """The next command for a run; a sentence where there is none."""
    if status.is_done:  # what is sealed is known without the cluster
        return "nothing: every stage is sealed"
    if status.unreachable:
        return f"overnight status {run.id}, when the cluster answers again"
    over = [stage for state in _FIRST for stage in status.of(state)]
    over += [stage for stage in status.stages if stage.state.is_over]
    chosen = [*over, *status.of(State.RUNNING), *status.of(State.UNKNOWN)]
    return of_stage(run, chosen[0]) if chosen else f"overnight status {run.id}, later: nothing runs yet"


def of_stage(run: Run, found: StageStatus) -> str:
    """The next command for a stage, behind what has to be done before it; empty where nothing has to be done."""
    if found.state is State.RUNNING:
        return f"overnight logs {run.id} {found.stage} -f"
    if found.state is State.UNKNOWN:
        return f"overnight status {run.id}, " + (f"as user {found.owner}" if found.owner else "later")
    if not found.state.is_over:
        return ""
    before, command = _helps(run, found)
    if found.owner:
        command = f"as user {found.owner}: {command}"
    return f"{before}; then: {command}" if before else command


def _helps(run: Run, found: StageStatus) -> tuple[str, str]:
    resume = f"overnight resume {run.id}"
    if found.text == model.REFUSED:
        _, hint = refusals.explain(found.evidence)
        if hint is not None and hint.endswith("then: overnight resume"):  # a limit, which passes
            return hint.rpartition("then: ")[0].rstrip(" ;,"), resume
        return f"change what this names in the profile or the pipeline{f' ({hint})' if hint else ''}", submit(run)
    if refusal.of_command(found.evidence, run, found.stage):
        return "change that entry", submit(run)
    failure = FailureClass(found.failure or FailureClass.NONE.value)
    if failure in _INPUTS and f"{run.workspace.store}/download-" in found.evidence:
        return submit(run, "fetch"), resume
    if failure is FailureClass.MISSING_INPUT and f"{run.workspace.store}/" not in found.evidence:
        return "put back the file that this line names", resume
    if failure is FailureClass.CODE_ERROR:
        if run.paths.user_code.exists():
            return "change the code that this line names", submit(run)
        return f"overnight logs {run.id} {found.stage} shows where, in what is installed", resume
    advice = symptoms.hint(found.evidence) or _ADVICE.get(failure, "")
    if failure is FailureClass.GPU_MEMORY:
        advice = _smaller(run, found.stage)
    return advice, submit(run) if failure in _ANOTHER_RUN else resume


def _smaller(run: Run, stage: str) -> str:
    """The change that the estimates offer to a stage which ran out of GPU memory."""
    from launch.plan import estimates

    plan = run.plan()
    return estimates.after_out_of_memory(plan, plan.stage(stage), run.profile(), run.workspace)


def submit(run: Run, command: str = "") -> str:
    """The command that makes another run of the same pipeline and profile, or another ``command`` for these."""
    created = next((entry for entry in run.journal.read() if entry.get("event") == Event.CREATED), {})
    pipeline, profile = str(created.get("pipeline", "PIPELINE")), str(created.get("profile", "PROFILE"))
    known = run.profile()
    command = command or ("run" if known.executor == "local" else "submit")
    options = [word for one in created.get("set", ()) for word in ("--set", str(one))]
    if run.workspace.root != workspace_for(known, None).root:
        options += ["--workspace", str(run.workspace.root)]
    return shlex.join(["overnight", command, pipeline, "--cluster", profile, *options])
