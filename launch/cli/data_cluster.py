"""Shards of a corpus as an array of Slurm jobs; the seals of the work directory say what is done, not the queue."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from data_prep.common.errors import DataError
from data_prep.corpus import tasks
from data_prep.corpus.workdir import WorkDir
from jobs.core import symptoms
from jobs.core.attempts import new_token
from jobs.core.paths import StagePaths, Workspace
from jobs.core.spec import Source
from launch.base.errors import InputError, RejectedByCluster
from launch.config.profile import ExecutorKind
from launch.config.profile_file import find
from launch.inputs import toolkit
from launch.runs import client
from launch.runs.rundir import Run
from launch.status import logs
from launch.status.model import FAILURES
from launch.submit import array

_POLL_SECONDS = 2.0
_GRACE_SECONDS = 60.0
"""How long the array may be gone before a missing result counts as lost: shared file systems show files late."""


class ArrayRunner:
    """See ``data_prep.corpus.workers.Runner``. The work directory must be on a file system that the nodes share."""

    def __init__(self, profile: str, parallel: int) -> None:
        """``parallel``: how many jobs run at a time. Raises InputError: no such profile, or one without Slurm."""
        if parallel < 1:
            raise InputError(f"--jobs {parallel}: must be 1 or more")
        self._profile = find(profile)
        if self._profile.executor is ExecutorKind.LOCAL:
            raise InputError(f"the profile {profile!r} has no Slurm", hint="remove --cluster")
        self._gateway = client.gateway(self._profile)
        self._parallel = parallel
        self._token = new_token()

    def __call__(self, root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
        """Submit the shards as an array, of many several a task, and wait for their results. Raises DataError: a task
        found bad input. Raises InputError: a task failed; names its shard and log. Raises RejectedByCluster: in
        Slurm's words."""
        run = Run(Workspace(root), self._token)
        if not run.paths.toolkit.exists():
            toolkit.take(run.workspace, run.paths.toolkit)
        if shards:
            each = -(-len(shards) // array.LARGEST)
            groups = [shards[start : start + each] for start in range(0, len(shards), each)]
            self._array(run, phase, f"{phase}-{shards[0]}", groups, progress)

    def _array(
        self, run: Run, phase: str, name: str, groups: Sequence[Sequence[int]], progress: Callable[[int], None]
    ) -> None:
        """One array. However it is left (Ctrl-C, bad input), none of its jobs stays behind."""
        workdir = WorkDir.open(run.workspace.root)
        read = [workdir.plan.recipe.tokenizer, *(path for _, path, _ in workdir.plan.inputs)]
        sources = [Source(path, "", 0) for path in read if path is not None]
        request = array.write(run, name, "corpus", self._profile, len(groups), self._parallel, sources)
        tasks.write(array.tasks_file(run, name), workdir.root, phase, groups)
        jobs = array.JobArray(request, self._profile.executor_for("corpus"), self._gateway)
        try:
            jobs.submit()
            left = {shard: task for task, group in enumerate(groups) for shard in group}
            self._wait(workdir, phase, left, jobs, array.tasks_file(run, name), progress)
        except RejectedByCluster:  # there is no job
            raise
        except BaseException:
            jobs.cancel()
            raise

    def _wait(
        self,
        workdir: WorkDir,
        phase: str,
        left: dict[int, int],
        jobs: array.JobArray,
        listed: Path,
        progress: Callable[[int], None],
    ) -> None:
        """``left``: the task of each shard that has no result yet; ``listed``: the file that says so to the tasks."""
        gone_since: float | None = None
        asked, pause, alive = time.monotonic(), _POLL_SECONDS, True
        while left:
            time.sleep(_POLL_SECONDS)
            for shard in list(left):
                if workdir.is_done(phase, shard, thorough=False):
                    progress(shard)
                    del left[shard]
            for task, why in tasks.failures(listed).items():
                if isinstance(why, DataError):
                    raise why
                failed = next((shard for shard, its in left.items() if its == task), None)
                if failed is not None:
                    raise _failed(phase, failed, f"ended with exit code {why}", jobs.log(task))
            if left and time.monotonic() - asked >= pause:
                alive = jobs.is_queued()
                asked, pause = time.monotonic(), min(max(_POLL_SECONDS, self._profile.poll_seconds), pause * 1.3)
            gone_since = None if alive else gone_since or time.monotonic()
            if left and gone_since is not None and time.monotonic() - gone_since > _GRACE_SECONDS:
                shard, task = next(iter(left.items()))
                raise _failed(phase, shard, f"ended without a result, as {len(left)} in all", jobs.log(task))


def _failed(phase: str, shard: int, how: str, log: Path) -> InputError:
    if not log.exists():  # it ended before its own log was open
        log = logs.batch_output(StagePaths(log.parent.parent)) or log
    shown = symptoms.search_log(log)
    why = "" if shown is None else f": {FAILURES[shown.failure]} ({shown.failure.value})\n  {shown.line}\n "
    return InputError(
        f"the job of shard {shard} ({phase}) {how}{why}; its log: {log}",
        hint="the same command continues from the shards that are done",
    )
