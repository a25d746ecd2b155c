"""An array of jobs that is waited for: its scripts, its submission and its cancellation.

It is rendered like every other job: header and srun line by the executor of the profile, the profile's set-up lines,
modules and container, and the scrubbed environment of the one client of Slurm.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from jobs.core.spec import Source
from launch.base.errors import ClusterUnreachable, RejectedByCluster
from launch.config.profile import Profile
from launch.render import containers, scripts, templates
from launch.render.executors import carrier
from launch.render.request import JobRequest
from launch.runs.rundir import Run
from launch.site import test_only
from launch.slurm.client import Gateway

BACKEND, ATTEMPT = "data", "array"

LARGEST = 1000
"""Tasks of an array at most: MaxArraySize of Slurm is 1001 where a site has not set it."""

_CANCEL_SECONDS = 120.0
"""How long a busy controller may take to accept a cancellation and to show it."""
_POLL_SECONDS = 0.5


def write(
    run: Run, name: str, kind: str, profile: Profile, count: int, parallel: int, sources: Sequence[Source] = ()
) -> JobRequest:
    """What to ask Slurm for: ``count`` tasks, ``parallel`` of them at a time. The scripts are written.

    Each task runs the verb ``shard`` with ``tasks.json`` of the stage's directory, which the caller writes, and its
    index. The toolkit of the run must be there.

    Args:
        kind: of a stage, for the resources and the executor that the profile gives it.
        sources: what is read from outside the workspace, for a container.

    Raises:
        InputError: no time limit, or a value of the profile cannot go into a script.
    """
    environment = profile.environments.get(BACKEND)
    python = sys.executable if environment is None else environment.interpreter
    resources = profile.resources_for(kind).changed(nodes=1, processes_per_node=1)
    stage = test_only.stage_of(profile, kind, resources, profile.executor_for(kind), BACKEND, python)
    stage = replace(stage, name=name, sources=tuple(sources))
    paths = run.paths.stage(name)
    place = paths.scripts(ATTEMPT)
    # One process does one shard with all cores of its task.
    variables = {**dict(scripts.environment(profile, stage)), "TOKENIZERS_PARALLELISM": "true", **profile.env}
    common = {"stage_dir": paths.root, "environment": sorted(variables.items())}
    node = templates.template(
        "array_node.sh.j2",
        **common,
        **scripts.entering(run, stage, profile, ATTEMPT),
        boot=run.paths.boot,
        tasks=tasks_file(run, name),
        stage_python=python,
    )
    container = scripts.container_of(run, stage, profile)
    text = "" if container is None else containers.environment_text(container)
    scripts.StageScripts(templates.template("array_host.sh.j2", **common), node, text).write(place)
    paths.logs.mkdir()
    request = scripts.request(run, stage, profile, ATTEMPT, 0, None)
    return replace(request, array=f"0-{count - 1}%{parallel}")


def tasks_file(run: Run, name: str) -> Path:
    """The list of what each task does."""
    return run.paths.stage(name).root / "tasks.json"


class JobArray:
    """One array in the queue; it is known by its unique job name."""

    def __init__(self, request: JobRequest, executor: str, gateway: Gateway) -> None:
        self._request = request
        self._executor = executor
        self._gateway = gateway
        self._job = ""

    def submit(self) -> None:
        """Raises:
        RejectedByCluster: no job was made.
        ClusterUnreachable: jobs may have been made; ``cancel`` finds them.
        """
        self._job = carrier(self._executor).submit(self._request, self._gateway)

    def log(self, task: int) -> Path:
        """Where a task writes its output."""
        return self._request.logs / f"{self._job}_{task}.log"

    def is_queued(self) -> bool:
        """True while Slurm has a task that has not ended, and where it does not respond: that says nothing of jobs."""
        try:
            return bool(self._alive())
        except (ClusterUnreachable, RejectedByCluster):
            return True

    def cancel(self) -> None:
        """Cancel what is left of the array, and wait until it has gone; says on stderr how that went.

        One scancel is enough, unless the cluster does not respond: then it is sent again, which is safe to repeat.
        """
        end = time.monotonic() + _CANCEL_SECONDS
        asked, problem = False, ""
        while time.monotonic() < end:
            try:
                alive = self._alive()
                self._job = self._job or next(iter(alive), "")
                if alive and not asked:
                    # The array's own id stands for the tasks that have not started.
                    self._gateway.scancel(sorted({self._job, *alive}))
                    asked = True
                if not alive:
                    if self._job:
                        print(
                            f"\njob {self._job} is cancelled; the same command continues from the shards that are done",
                            file=sys.stderr,
                        )
                    return
            except ClusterUnreachable as error:
                problem = f" ({error})"
            except RejectedByCluster as error:
                problem = f" ({error})"
                break
            time.sleep(_POLL_SECONDS)
        state = "is still in the queue" if asked else f"may still run{problem}"
        named = f"scancel {self._job}" if self._job else f"scancel --name={self._request.name}"
        print(f"\nthe array {self._request.name} {state}: {named}", file=sys.stderr)

    def _alive(self) -> list[str]:
        return [
            row.job_id
            for row in self._gateway.squeue()
            if row.name == self._request.name and not row.state.is_final and not row.is_refusal
        ]
