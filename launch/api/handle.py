"""A run from Python: how it stands, what it measured, and what changes it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from launch.base.errors import OvernightError
from launch.runs import rundir
from launch.status.model import RunStatus, StageStatus, State

if TYPE_CHECKING:
    from jobs.core.progress import Report
    from launch.api.curve import TrainingCurve
    from launch.api.measured import Named, TaskResults
    from launch.api.samples import AnsweredExamples
    from launch.plan.model import PlannedStage
    from launch.report.versus import Against
    from launch.report.versus import Change as ComparedMetric
    from launch.runs.rundir import Run
    from launch.slurm.client import Gateway
    from launch.status.report import StageResult
    from launch.submit.submitter import Step

TICK_SECONDS = 0.5
"""How often ``wait`` looks at a run on this machine; the queue of a cluster is asked once in 15 s."""

OnChange = Callable[[StageStatus], object]


def open_run(name: str | None = None, workspace: str | PathLike[str] | None = None) -> RunHandle:
    """The run whose id begins with ``name``; None: the newest. Raises InputError: none, or several."""
    return RunHandle(rundir.find(name, None if workspace is None else Path(workspace)))


def runs(workspace: str | PathLike[str] | None = None) -> list[RunHandle]:
    """All runs of a workspace, or of those that this user has submitted to; newest first."""
    return [RunHandle(run) for run in rundir.all_runs(None if workspace is None else Path(workspace))]


@dataclass(frozen=True)
class RunHandle:
    """A run. It holds no state of its own: each call reads the run's files, and asks Slurm where that is needed."""

    _run: Run

    def __repr__(self) -> str:
        return f"<run {self.id} in {self.path}>"

    @property
    def id(self) -> str:
        return self._run.id

    @property
    def path(self) -> Path:
        """Its directory."""
        return self._run.paths.root

    def status(self) -> RunStatus:
        """How every stage stands now; one squeue. Raises InputError: the run has no plan."""
        from launch.status import ask

        return ask.look(self._run, self._run.plan(), self._run.profile())

    def wait(self, on_change: OnChange | None = None, timeout: float | None = None) -> RunStatus:
        """The status once nothing goes on any more: all is sealed (``is_done``), or something failed or was cancelled.

        Args:
            on_change: called with each stage whose state has changed; first with all of them.
            timeout: seconds.

        Raises:
            TimeoutError: it still goes on.
        """
        from launch.watch.feed import Feed

        feed = Feed(self._run, self._run.plan(), self._run.profile())
        began, end = time.time(), None if timeout is None else time.monotonic() + timeout
        told: dict[str, tuple[State, str]] = {}
        while True:
            seen = feed.look()
            status = seen.status
            # An answer that another watcher got before is not of what was done since, such as a resume.
            for stage in status.stages if seen.time >= began else ():
                # A stage at work says another step each time; that is no change of its state.
                now = stage.state, "" if stage.state is State.RUNNING else stage.text
                if told.get(stage.stage) != now:
                    told[stage.stage] = now
                    if on_change is not None:
                        on_change(stage)
            if seen.time >= began and status.is_over and not status.unreachable:
                return status
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(f"run {self.id} is still running after {timeout:g} s")
            time.sleep(TICK_SECONDS)

    def cancel(self, stage: str | None = None) -> tuple[str, ...]:
        """Stages whose jobs were cancelled, or were asked to save and leave; ``stage``: only that one and what depends
        on it. Twice is fine. What is sealed stays.

        Raises:
            RejectedByCluster, ClusterUnreachable: whether all are gone is not known; cancelling again is safe.
        """
        from launch.runs import client
        from launch.submit import cancel

        run, plan, profile = self._run, self._run.plan(), self._run.profile()
        stages = {one.name for one in plan.stages} if stage is None else plan.below({plan.find(stage).name})
        if profile.executor == "local":
            return tuple(cancel.here(run, plan, stages))
        with rundir.locked(run):
            done = cancel.on_slurm(run, plan, client.gateway(profile), stages)
        gone = {name for job, name in done.jobs.items() if job not in done.left}
        return tuple(name for name in done.stages if name in gone)

    def resume(self, on_change: OnChange | None = None) -> RunHandle:
        """The same run, brought forward: what is sealed is kept, what is queued adopted, the rest submitted. A run on
        this machine has ended when this returns.

        Raises:
            OvernightError: as of ``Chain.submit`` and ``Chain.run``.
        """
        from jobs.core import redaction
        from launch.inputs import toolkit
        from launch.runs import client, secret_files

        run, profile = self._run, self._run.profile()
        names = tuple({*profile.secrets, *redaction.read(run.paths.secrets)})
        toolkit.refuse_changed(run.paths.toolkit)
        secret_files.renew(run.paths, names)
        if profile.executor == "local":
            self._here(on_change)
        else:
            self._forward(client.gateway(profile, names), on_change)
        return self

    @property
    def evaluations(self) -> Named[TaskResults]:
        """What its evaluations measured so far: ``run.evaluations["final"]["translation.chrf"]``."""
        from launch.api.measured import by_evaluation
        from launch.status import results

        return by_evaluation(results.collect(self._run.plan(), self._run.workspace) + results.of_people(self._run))

    @property
    def stages(self) -> dict[str, StageResult]:
        """Each stage with what it took and where its output lies (``path``, ``content``), once it is sealed."""
        from launch.status import report

        return {one.stage: one for one in report.of_run(self._run).stages}

    @property
    def model(self) -> StageResult | None:
        """The last checkpoint of the chain that is sealed; None: none is yet."""
        from launch.status import report

        return report.of_run(self._run).model

    def curve(self, stage: str) -> TrainingCurve:
        """What a training stage reported, a row a step. Raises InputError: no such stage, or no step yet."""
        from launch.api import curve

        return curve.of_stage(self._run, self._run.plan(), stage)

    def samples(self, evaluation: str, task: str) -> AnsweredExamples:
        """The answers to a task. Raises InputError: no such evaluation, or it has no answers to that task."""
        from launch.api import samples

        return samples.of_task(self._run, self._run.plan(), evaluation, task)

    def report(self, file: str | PathLike[str] | None = None, language: Literal["en", "ko"] = "en") -> Path:
        """The page of the run for a browser, written to ``file``; None: ``report.html`` of the run."""
        from launch.report import page

        where = None if file is None else Path(file).absolute()
        return page.write(self._run, self._run.plan(), self._run.profile(), self.status(), where, language)

    def _forward(self, gateway: Gateway, on_change: OnChange | None) -> None:
        from launch.submit.advance import forward

        def on_step(step: Step) -> None:
            if on_change is not None:
                state = State.SEALED if step.action == "reused" else State.WAITING
                text = f"{step.action} {step.job}" if step.job else str(step.action)
                on_change(StageStatus(step.stage, state, text, job=step.job or ""))

        forward(self._run, self._run.plan(), self._run.profile(), gateway, on_step=on_step)

    def _here(self, on_change: OnChange | None) -> None:
        from launch.notify.tell import tell
        from launch.submit.local import LocalRunner

        run, plan, profile = self._run, self._run.plan(), self._run.profile()
        try:
            with rundir.locked(run):
                LocalRunner(run, plan, profile, _Told(on_change)).advance()
        finally:
            try:
                tell(run)
            except (OSError, OvernightError) as error:  # fails nothing, as in ``overnight run``
                print(f"note: the page of the run could not be written: {error}", file=sys.stderr)


class _Told:
    """Tells ``on_change`` of the stages of a run on this machine, see ``launch.submit.local.Display``."""

    def __init__(self, on_change: OnChange | None) -> None:
        self._on_change = on_change
        self._stage = ""

    def begin(self, stage: PlannedStage, reused: bool) -> None:
        self._stage = stage.name
        self._tell(State.SEALED if reused else State.RUNNING, "sealed already, reused" if reused else "running")

    def update(self, report: Report) -> None:
        pass

    def end(self, seconds: float) -> None:
        self._tell(State.SEALED, f"sealed after {seconds:.0f} s", seconds)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)

    def _tell(self, state: State, text: str, elapsed: float | None = None) -> None:
        if self._on_change is not None:
            self._on_change(StageStatus(self._stage, state, text, elapsed=elapsed))


@dataclass(frozen=True)
class Comparison:
    """A run against another. ``changes``: metrics on the examples that both measured; ``difference``: of pipeline and
    profile; ``same``: evaluations that are one result; ``refused``: what cannot be compared, and why."""

    before: RunHandle
    now: RunHandle
    difference: str
    changes: tuple[ComparedMetric, ...]
    same: tuple[str, ...]
    refused: dict[str, str]
    _made: Against

    def __str__(self) -> str:
        from launch.report import versus

        return "\n".join(versus.lines([self._made]))


def compare(before: RunHandle, now: RunHandle) -> Comparison:
    """``now`` compared with ``before``. Raises InputError: it is the same run, or they cannot be compared."""
    from launch.report import versus

    (made,) = versus.of_runs([before._run, now._run])
    return Comparison(before, now, made.difference, made.changes, made.same, dict(made.refused), made)
