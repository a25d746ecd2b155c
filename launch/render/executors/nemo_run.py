"""NeMo-Run as a carrier: its executor, packaging and Slurm scheduler, without its experiments.

The smallest part of the library that makes a job: a ``Script`` is packaged into a TorchX app, the Slurm scheduler turns
app and ``SlurmExecutor`` into a script and submits it through the executor's tunnel, which is where the gateway sits.
Experiment, its state, status polling, logs and cancel are not used: they lose dependencies and take a job that they
cannot see for cancelled.

Private hooks used (nemo_run 0.11; each has a test that fails when the library changes): the module constant
``SLURM_JOB_DIRS`` of the scheduler, the name of the script that it writes, its one use of the tunnel's ``run``, and the
template's text where ``_EDITS`` changes it.
"""

from __future__ import annotations

import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launch.render import request as base
from launch.render.request import JobRequest
from launch.slurm.client import Gateway

#: Text of the library's template -> what stands there instead. Each must occur exactly once.
_EDITS: tuple[tuple[str, str], ...] = (
    # Whether the job may be requeued is set in the header; following this comment would override it.
    (r"^# Run with: sbatch --requeue --parsable$", "# and edited by Overnight"),
    # Tracing would print every command, and with it what the set-up lines export, into the log.
    (r"^set -evx$", "set -e"),
    # Gives every task a pseudo-terminal, so that progress bars are drawn into the log.
    (r"^export SLURM_UNBUFFEREDIO=1\n", ""),
    # host.sh's EXIT trap would run with it, and end at the first command that fails.
    (r"^exitcode=\$\?\n+set -e$", "exitcode=$?"),
    # Starts a job step before host.sh has set its trap; nobody reads the variable.
    (r"^nodes=\( \$\( scontrol show hostnames \$SLURM_JOB_NODELIST \) \)\n(?:.*\n){2}head_node_ip=.*\n", ""),
)

#: Of its srun line: the log belongs to the batch shell (host.sh redirects it), there is no "code" directory to start
#: in, and --wait=60 kills the other nodes 60 s after the first is done, perhaps in the middle of a save.
_DROP_SRUN = ("output", "error", "chdir", "wait")

# The library replaces "/nemo_run" wherever it stands and substitutes "$names" in arguments, so paths and lines of the
# user's do not pass through it: it sees these words, which are replaced afterwards.
_SETUP = "OVERNIGHT_SETUP_LINES"
_WORK = "OVERNIGHT_NODE_SCRIPT"
_HEADER = "OVERNIGHT_HEADER_VALUE_"


class NemoRunCarrier:
    """See ``launch.render.request.Executor``."""

    def render(self, request: JobRequest) -> str:
        with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
            return _Submission(_library(), request, Path(scratch)).text

    def submit(self, request: JobRequest, gateway: Gateway) -> str:
        with tempfile.TemporaryDirectory(prefix="overnight-") as scratch:
            return _Submission(_library(), request, Path(scratch)).submit(gateway)


@cache
def _library() -> SimpleNamespace:
    """The names of nemo_run that are used. Importing it takes two seconds, so only when a job goes through it."""
    try:
        return SimpleNamespace(
            nemo_run=import_module("nemo_run"),
            scheduler=import_module("nemo_run.run.torchx_backend.schedulers.slurm"),
            package=import_module("nemo_run.run.torchx_backend.packaging").package,
            result=import_module("invoke.runners").Result,
        )
    except ImportError as error:
        raise base.missing("nemo_run 0.11 with leptonai < 0.47", "nemo-run", error) from error


class _Submission:
    """One request on its way through the library."""

    def __init__(self, library: SimpleNamespace, request: JobRequest, scratch: Path) -> None:
        self._library = library
        self._request = request
        self._scratch = scratch
        self._tunnel = library.nemo_run.LocalTunnel(job_dir="")
        self._tunnel.run = _refuse
        self._header = base.header(request)
        executor = library.nemo_run.SlurmExecutor(
            account=None,
            # Without it the library takes the account apart to name the job; the name in additional_parameters wins.
            job_name_prefix="overnight",
            time="",  # that in additional_parameters wins
            nodes=request.resources.nodes,
            ntasks_per_node=1,
            additional_parameters={
                key: value if value is True else f"{_HEADER}{key}_END" for key, value in self._header.items()
            },
            srun_args=base.srun_arguments(request),
            setup_lines=_SETUP,
            tunnel=self._tunnel,
            # With this the packager does nothing. Without, it runs "mkdir" by a shell that swallows our standard input.
            packager=library.nemo_run.Packager(symlink_from_remote_dir="unused"),
            launcher=None,
            retries=0,
            poll_estimated_start_time=False,
        )
        executor.assign("overnight_1", str(scratch), task_id="job", task_dir="job")
        # The entry point is the script itself (it is executable), so that the process is not "bash node.sh".
        app = library.package(
            "job", library.nemo_run.Script(path=_WORK), executor, serialize_metadata_for_scripts=False
        )
        app.roles[0].entrypoint, app.roles[0].args = _WORK, []
        self._scheduler = library.scheduler.create_scheduler("overnight")
        self._job = self._scheduler.submit_dryrun(app, executor)

    @property
    def text(self) -> str:
        text = (self._scratch / "job_sbatch.sh").read_text(encoding="utf-8")
        for pattern, replacement in _EDITS:
            text, count = re.subn(pattern, replacement, text, flags=re.MULTILINE)
            if count != 1:
                raise RuntimeError(f"nemo_run's template has changed: {pattern!r} occurs {count} times")
        words = {f"{_HEADER}{key}_END": shlex.quote(str(value)) for key, value in self._header.items()}
        words[_SETUP] = "\n".join(base.setup_lines(self._request))
        words[_WORK] = self._request.start_node
        # In one pass, so that no replacement is searched again.
        text = re.sub("|".join(words), lambda found: words[found[0]], text)
        return base.finished(text, self._request, drop_srun=_DROP_SRUN)

    def submit(self, gateway: Gateway) -> str:
        script = base.write_script(self._request, self.text)

        def run(command: str, **_: Any) -> Any:
            if not command.startswith("sbatch "):
                _refuse(command)
            job_id = gateway.sbatch(script, extra=base.sbatch_extra(self._request))
            return self._library.result(stdout=f"{job_id}\n")

        # Where the library believes to run a shell command on the login node, the gateway submits.
        self._tunnel.run = run
        with self._job_record():
            return str(self._scheduler.schedule(self._job))

    @contextmanager
    def _job_record(self) -> Iterator[None]:
        """Keep the library's list of jobs, which nothing of ours reads, out of ~/.nemo_run."""
        module = self._library.scheduler
        before = module.SLURM_JOB_DIRS
        module.SLURM_JOB_DIRS = str(self._scratch / "slurm_jobs")
        try:
            yield
        finally:
            module.SLURM_JOB_DIRS = before


def _refuse(command: str, **_: Any) -> Any:
    raise RuntimeError(f"nemo_run tries to run {command!r}; only sbatch is expected")
