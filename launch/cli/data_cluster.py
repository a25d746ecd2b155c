"""Shards of a corpus as an array of Slurm jobs, by submitit; what is done is read from seals, not from the queue."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from launch.base.errors import ClusterUnreachable, InputError, RejectedByCluster

_POLL_SECONDS = 2.0
_GRACE_SECONDS = 60.0
"""How long a job may be gone from the queue before its result counts as lost: shared file systems show files late."""

_CANCEL_SECONDS = 120.0
"""A controller that is busy gets so long to take a cancellation and to show it."""
_ARRAY_JOBS = 1000
"""Jobs of an array at most: MaxArraySize of Slurm is 1001 where a site has not set it."""
_OWN_ERROR = re.compile(r"^data_prep\.errors\.\w+: (.+)$", re.MULTILINE)


class ArrayRunner:
    """See ``data_prep.corpus.workers.Runner``. The work directory must be on a file system that the nodes share."""

    def __init__(self, profile: str, jobs: int) -> None:
        """Raises:
        InputError: no such profile, one without Slurm, or submitit is not installed.
        """
        from launch.cli import options as common
        from launch.config.profile import ExecutorKind
        from launch.config.profile_file import find
        from launch.render import request

        self._profile = find(profile)
        if self._profile.executor is ExecutorKind.LOCAL:
            raise InputError(f"the profile {profile!r} has no Slurm", hint="leave --cluster out")
        self._gateway = common.gateway(self._profile)
        self._jobs = jobs
        try:
            from submitit import SlurmExecutor
        except ImportError as error:
            raise request.missing("submitit", "submitit", error) from error
        self._executor_class: Any = SlurmExecutor

    def __call__(self, root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
        """Raises:
        DataError: bad input that a job has found, with its place.
        InputError: jobs ended without a result.
        RejectedByCluster: Slurm takes no such job; its words.
        """
        for start in range(0, len(shards), _ARRAY_JOBS):
            self._array(root, phase, shards[start : start + _ARRAY_JOBS], progress)

    def _array(self, root: Path, phase: str, shards: Sequence[int], progress: Callable[[int], None]) -> None:
        """One array. However it is left (Ctrl-C, bad input), none of its jobs stays behind."""
        from submitit.core.utils import FailedJobError

        from data_prep.corpus import shard

        executor = self._executor(root / "jobs", phase)
        try:
            made = executor.map_array(shard.work, *self._columns(root, phase, shards))
        except FailedJobError as error:
            raise RejectedByCluster(
                f"an array of {len(shards)} jobs was refused", command=("sbatch",), exit_code=1, stderr=str(error)
            ) from error
        jobs = dict(zip(shards, made, strict=True))
        array = str(made[0].job_id).partition("_")[0]
        try:
            self._wait(root, phase, array, jobs, progress)
        except BaseException:
            self._cancel(array)
            raise

    def _wait(self, root: Path, phase: str, array: str, jobs: dict[int, Any], progress: Callable[[int], None]) -> None:
        from data_prep.corpus.workdir import WorkDir

        workdir = WorkDir.open(root)
        gone_since: float | None = None
        while jobs:
            time.sleep(_POLL_SECONDS)
            for number in [number for number in jobs if workdir.is_done(phase, number, thorough=False)]:
                progress(number)
                del jobs[number]
            self._raise_failures(jobs)
            alive = self._is_queued(array)
            gone_since = None if alive or not jobs else gone_since or time.monotonic()
            if gone_since is not None and time.monotonic() - gone_since > _GRACE_SECONDS:
                first = next(iter(jobs.values()))
                raise InputError(f"{len(jobs)} jobs ended without a result; the log of the first: {first.paths.stderr}")

    def _cancel(self, array: str) -> None:
        """Cancel what is left of an array, and look whether it has gone; says so on stderr.

        One scancel is enough, unless the cluster does not answer: then it is asked again, which is safe to repeat.
        """
        end = time.monotonic() + _CANCEL_SECONDS
        asked, unreachable = False, ""
        while time.monotonic() < end:
            try:
                if not asked:
                    self._gateway.scancel([array])
                    asked = True
                if not self._is_queued(array):
                    how = "the same command goes on from the shards that are done"
                    print(f"\njob {array} is cancelled; {how}", file=sys.stderr)
                    return
            except ClusterUnreachable as error:
                unreachable = f" ({error})"
            except RejectedByCluster as error:
                unreachable = f" ({error})"
                break
            time.sleep(_POLL_SECONDS / 4)
        state = "is still in the queue" if asked else "may still run"
        print(f"\njob {array} {state}: scancel {array}{'' if asked else unreachable}", file=sys.stderr)

    def _executor(self, folder: Path, phase: str) -> Any:
        profile = self._profile
        wanted = profile.resources_for("corpus")
        if profile.devcluster:  # submitit starts sbatch itself
            from launch.slurm.devcluster.location import slurm_conf

            os.environ["SLURM_CONF"] = str(slurm_conf())
        ours = str(Path(__file__).resolve().parents[2])
        executor = self._executor_class(folder=folder, python=sys.executable)
        options = {key: value for key in ("account", "qos", "constraint") if (value := getattr(profile, key))}
        executor.update_parameters(
            job_name=f"overnight-data-{phase}",
            partition=wanted.partition,
            time=max(1, (wanted.time_seconds or 3600) // 60),
            cpus_per_task=wanted.cpus or 1,
            mem=wanted.mem or "4GB",
            array_parallelism=self._jobs,
            setup=[*profile.setup, f"export PYTHONPATH={ours}${{PYTHONPATH:+:$PYTHONPATH}}"],
            additional_parameters={**options, **{k: v for k, v in profile.sbatch.items() if isinstance(v, str)}},
        )
        return executor

    @staticmethod
    def _columns(root: Path, phase: str, shards: Sequence[int]) -> tuple[list[Any], ...]:
        return [root] * len(shards), [phase] * len(shards), list(shards)

    def _is_queued(self, array: str) -> bool:
        """True while Slurm has the array; it may not answer, which says nothing about the jobs."""
        try:
            queued = self._gateway.squeue()
        except (ClusterUnreachable, RejectedByCluster):
            return True
        return any(row.job_id.partition("_")[0] == array and not row.state.is_final for row in queued)

    @staticmethod
    def _raise_failures(jobs: dict[int, Any]) -> None:
        from data_prep.common.errors import DataError

        for job in jobs.values():
            if job.paths.result_pickle.exists() and (error := job.exception()) is not None:
                # submitit gives the whole trace of the job as text; the line of our own error is what helps.
                own = _OWN_ERROR.findall(str(error))
                raise DataError(own[-1] if own else f"{str(error).strip()}\nits log: {job.paths.stderr}")
