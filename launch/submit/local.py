"""The embedded default: the same stage specs, one after the other, on this machine, without Slurm."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from jobs.core import attempts, progress, redaction, verdict
from jobs.core.attempts import Attempt
from jobs.core.paths import StagePaths, StorePaths
from jobs.core.progress import Report
from jobs.core.verdict import Verdict
from launch.base.errors import InputError, OvernightError
from launch.config.profile import Profile
from launch.plan.model import Plan, PlannedStage
from launch.render import scripts
from launch.runs import attempt_state
from launch.runs.attempt_state import AttemptStatus, QueueView
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.slurm.environment import scrubbed
from launch.submit import reuse

POLL_SECONDS = 0.25


class StageFailed(OvernightError):
    """A stage ended without a seal; the message has its evidence, the hint the next command."""

    exit_code = 1


class Stopped(OvernightError):
    """Ctrl-C: nothing further is begun."""

    exit_code = 130


class Display(Protocol):
    """Shows a stage at work."""

    def begin(self, stage: PlannedStage, reused: bool) -> None: ...

    def update(self, report: Report) -> None: ...

    def end(self, seconds: float) -> None: ...

    def note(self, text: str) -> None: ...


@dataclass
class _Interrupts:
    """First Ctrl-C: ask the stage to save and leave. Second: end it."""

    count: int = 0


class LocalRunner:
    """Runs one run here. Hold ``rundir.locked(run)`` around it."""

    def __init__(self, run: Run, plan: Plan, profile: Profile, display: Display) -> None:
        self._run = run
        self._plan = plan
        self._profile = profile
        self._display = display
        self._job = attempt_state.local_job(socket.gethostname(), os.getpid())
        self._interrupts = _Interrupts()
        self._suspects = reuse.suspects(run, plan)

    def advance(self) -> None:
        """Run every stage that is not sealed.

        Raises:
            StageFailed: with evidence and the command that goes on.
        """
        for stage in self._plan.stages:
            store = stage.store(self._run.workspace)
            if reuse.is_sound(store, thorough=stage.name in self._suspects):
                self._run.journal.write(Event.REUSED, stage=stage.name, store=store.root.name)
                self._display.begin(stage, reused=True)
                continue
            if self._interrupts.count:
                text = f"stopped before {stage.name}; what is sealed stays"
                raise Stopped(text, hint=f"overnight resume {self._run.id}")
            attempt = self._open(stage, store)
            self._display.begin(stage, reused=False)
            began = time.monotonic()
            self._stage(stage, attempt)
            self._display.end(time.monotonic() - began)

    def _open(self, stage: PlannedStage, store: StorePaths) -> Attempt:
        current = attempts.current(store)
        if current is not None:
            found = attempt_state.standing(store, current, QueueView(()))
            if current.carrier == "local" and found.status is AttemptStatus.LIVE:
                where = ", ".join(found.jobs.values()) or f"process {current.pid} on {current.host}"
                raise InputError(f"stage {stage.name!r} is being run right now by {where} (run {current.run})")
            if current.carrier == "slurm" and current.run != self._run.id:
                raise InputError(
                    f"stage {stage.name!r} was submitted to Slurm by run {current.run} into the same workspace",
                    hint=f"overnight status {current.run}, or use another --workspace",
                )
        token = attempts.new_token()
        paths = self._run.paths.stage(stage.name)
        name = self._profile.job_name.of(self._run.id, stage.name, token, 0)
        attempt = Attempt(
            current.number + 1 if current else 1, token, self._run.id, stage.name, str(paths.root), "local", (name,)
        )
        scripts.write(self._run, self._plan, stage, self._profile, token, 1)
        if not attempts.open_next(store, attempt):
            raise InputError(f"stage {stage.name!r} was just taken by another run in this workspace")
        self._run.journal.write(Event.INTENT, stage=stage.name, attempt=token, names=[name], store=store.root.name)
        attempts.record_job(store, attempt, 0, self._job)
        self._run.journal.write(Event.SUBMITTED, stage=stage.name, attempt=token, link=0, job=self._job)
        return attempt

    def _stage(self, stage: PlannedStage, attempt: Attempt) -> None:
        paths = self._run.paths.stage(stage.name)
        spec = paths.scripts(attempt.token).spec
        # The restart number tells the starts of one process's stage apart in logs and verdicts.
        restart = len(list(paths.logs.glob(f"{self._job}_*.log")))
        environment = self._environment(stage, restart)
        log = paths.log(self._job, restart)
        with open(log, "ab", buffering=0) as stream:
            entry = self._verb(
                self._plan.core_python, "prologue", str(spec), environment=environment, log=stream.fileno()
            )
            if entry == 0:
                secret = redaction.read(self._run.paths.secrets)
                code = self._work(stage, paths, spec, {**environment, **secret}, stream.fileno())
                self._verb(
                    self._plan.core_python, "finish", str(spec), str(code), environment=environment, log=stream.fileno()
                )
        self._conclude(stage, paths, restart, entry)

    def _environment(self, stage: PlannedStage, restart: int) -> dict[str, str]:
        base = scrubbed(os.environ, drop=redaction.read(self._run.paths.secrets))
        for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP"):
            base.pop(name, None)
        return {
            **base,
            **dict(scripts.environment(self._profile, stage)),
            "PYTHONSAFEPATH": "1",
            "PYTHONUNBUFFERED": "1",
            "OVERNIGHT_JOB_ID": self._job,
            "OVERNIGHT_RESTART": str(restart),
        }

    def _verb(self, python: str, *arguments: str, environment: dict[str, str], log: int) -> int:
        # In its own session: Ctrl-C in the terminal must not cut a seal in two.
        command = [python, str(self._run.paths.boot), *arguments]
        return subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            check=False,
        ).returncode

    def _work(self, stage: PlannedStage, paths: StagePaths, spec: object, environment: dict[str, str], log: int) -> int:
        command = [stage.python, str(self._run.paths.boot), "work", str(spec)]
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=paths.root,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        began = time.time()
        with self._interruptible(paths, process):
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                report = progress.latest(paths.progress)
                if report is not None and report.time >= began:
                    self._display.update(report)
        return process.returncode

    @contextmanager
    def _interruptible(self, paths: StagePaths, process: subprocess.Popen[bytes]) -> Iterator[None]:
        seen = self._interrupts

        def on_interrupt(number: int, frame: object) -> None:
            seen.count += 1
            if seen.count == 1:
                paths.stop.touch()
                self._display.note("stopping at the next step and saving; Ctrl-C again ends it at once")
            else:
                os.killpg(process.pid, signal.SIGKILL)

        # Python gives signals to the main thread alone: a run in another one is stopped by `overnight cancel`.
        is_main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, on_interrupt) if is_main else None
        try:
            yield
        finally:
            if is_main:
                signal.signal(signal.SIGINT, before)
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _conclude(self, stage: PlannedStage, paths: StagePaths, restart: int, entry: int) -> None:
        store = stage.store(self._run.workspace)
        if store.seal.exists():
            return
        found = verdict.read(paths.verdict(self._job, restart))
        raise failure(self._run, stage.name, paths, found, entry)


def failure(run: Run, stage: str, paths: StagePaths, found: Verdict | None, entry: int) -> StageFailed:
    """The error for a stage that ended without a seal."""
    if found is None:
        reason = f"it ended without a verdict (prologue {entry})"
    elif found.failure is verdict.FailureClass.CANCELLED:
        return StageFailed(f"stage {stage!r}: {found.evidence}", hint=f"overnight resume {run.id}")
    else:
        reason = f"{found.failure.value}: {found.evidence}"
    return StageFailed(f"stage {stage!r} failed: {reason}", hint=f"overnight logs {run.id} {stage}")
