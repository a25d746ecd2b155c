"""Show the log of a stage, or follow it over restarts until the stage is sealed or has failed."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from launch.cli import options

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.core.paths import StagePaths, StorePaths
    from jobs.core.redaction import Redactor
    from launch.config.profile import Profile
    from launch.plan.model import Plan, PlannedStage
    from launch.runs.rundir import Run
    from launch.status.model import StageStatus

QUEUE_SECONDS = 30.0
"""While following: how often the queue is asked whether there is still a job that could write."""

ENDING_SECONDS = 30.0
"""A job that has written its final verdict leaves the queue shortly after; until then it counts as running."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("run", nargs="?", metavar="RUN", help="beginning of a run id (default: the newest run)")
    parser.add_argument("stage", nargs="?", metavar="STAGE", help="name of a stage (default: the one that wrote last)")
    parser.add_argument("-f", "--follow", action="store_true", help="continue until the stage is sealed or has failed")
    shown = parser.add_mutually_exclusive_group()
    shown.add_argument("--all", action="store_true", help="the logs of all its jobs and restarts, oldest first")
    shown.add_argument("--tail", type=int, metavar="N", help="the last N lines alone")
    options.add_workspace(parser)


def run(args: argparse.Namespace) -> int:
    """Print; with ``--follow`` 0 once the stage is sealed and 1 once it has ended otherwise."""
    from launch.status import logs

    view = _View(*options.open_run(args), args.stage)
    if args.stage is None and not args.json:
        print(f"run {view.run.id}, stage {view.stage.name}", file=sys.stderr, flush=True)
    paths = logs.all_of(view.paths)
    if args.json:
        names = [str(path) for path in paths]
        value = {"stage": view.stage.name, "directory": str(view.paths.logs), "logs": names}
        options.print_result(value, (), as_json=True)
        return 0
    shown = paths if args.all else paths[-1:]
    if args.follow:
        for path in paths[:-1] if args.all else []:
            _print(path, with_title=True, secret=view.redactor())
        return view.follow()
    for path in shown:
        _print(path, with_title=args.all, secret=view.redactor(), tail=args.tail)
    if not shown:
        view.explain_absence()
    return 0


class _View:
    """One stage of a run and its logs."""

    def __init__(self, run: Run, plan: Plan, profile: Profile, name: str | None) -> None:
        self.run = run
        self._plan = plan
        self._profile = profile
        self.stage = self._newest() if name is None else plan.find(name)
        self._asked = time.monotonic()

    def _newest(self) -> PlannedStage:
        """The stage whose log was written to last; the first where none has one."""
        from launch.status import logs

        def written(stage: PlannedStage) -> float:
            place = logs.directory(stage.store(self.run.workspace), self.run.paths.stage(stage.name))
            return max((path.stat().st_mtime for path in logs.all_of(place)), default=0.0)

        return max(self._plan.stages, key=written)

    @property
    def store(self) -> StorePaths:
        return self.stage.store(self.run.workspace)

    @property
    def paths(self) -> StagePaths:
        """Where the stage runs, or ran."""
        from launch.status import logs

        return logs.directory(self.store, self.run.paths.stage(self.stage.name))

    def redactor(self) -> Redactor:
        """What takes values of secrets out of a text: the run's, and those of the run that runs the stage."""
        from jobs.core.paths import RunPaths
        from launch.runs import secret_files

        return secret_files.redactor(self.run.paths, RunPaths(self.paths.root.parents[1]))

    def status(self) -> StageStatus:
        """What the stage does, by the queue as it is now."""
        from launch.status import ask

        return ask.look(self.run, self._plan, self._profile, only={self.stage.name}).stages[0]

    def explain_absence(self) -> None:
        """Say on stderr why there is no log."""
        from launch.status import logs

        print(f"{self.stage.name} has no log yet: {self.status().text}", file=sys.stderr)
        if batch := logs.batch_output(self.paths):
            print(f"its batch shell has printed ({batch}):", file=sys.stderr)
            _print(batch, with_title=False, secret=self.redactor())

    def follow(self) -> int:
        from launch.status import logs

        secret = self.redactor()
        if not logs.all_of(self.paths):
            self.explain_absence()

        def announce(title: str) -> None:
            print(title, file=sys.stderr, flush=True)

        logs.Follower(lambda: self.paths, lambda chunk: _write(secret.feed(chunk)), announce).follow(self._is_over)
        _write(secret.flush())
        end = time.monotonic() + ENDING_SECONDS
        while not self.store.seal.exists():
            status = self.status()
            if status.state.is_over or time.monotonic() > end:
                print(f"{self.stage.name}: {status.text}", file=sys.stderr)
                return 1
            time.sleep(1.0)
        return 0

    def _is_over(self) -> bool:
        """True once it is sealed, has a verdict of failure, or (asked rarely) is out of the queue."""
        from jobs.core import attempts
        from jobs.core.verdict import Outcome
        from launch.runs.journal import last_word

        if self.store.seal.exists():
            return True
        current = attempts.current(self.store)
        said = None if current is None else last_word(self.store, current)
        if said is not None and said.outcome is Outcome.FAIL:
            return True
        if time.monotonic() - self._asked < max(QUEUE_SECONDS, self._profile.poll_seconds):
            return False
        self._asked = time.monotonic()
        return self.status().state.is_over


def _write(chunk: bytes) -> None:
    sys.stdout.buffer.write(chunk)
    sys.stdout.buffer.flush()


def _print(path: Path, with_title: bool, secret: Redactor, tail: int | None = None) -> None:
    from launch.status import logs

    if with_title:
        print(logs.title(path), flush=True)
    for chunk in logs.read(path) if tail is None else logs.last_lines(path, tail):
        _write(secret.feed(chunk))
    _write(secret.flush())
