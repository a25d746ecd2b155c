"""submitit as a carrier: its header and its srun, our scripts instead of its pickles.

Private hooks used (submitit 1.5; each has a test that fails when the library changes): ``_submitit_command_str``,
``_make_submission_file_text``, ``_internal_process_submissions`` and ``affinity`` of ``SlurmExecutor``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from launch.render import request as base
from launch.render.request import JobRequest
from launch.slurm.client import Gateway
from launch.slurm.options import flag_name

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmExecutor

#: Of the library's header: a USR2 handler that no Python of ours installs (it kills torchrun), and a workload key that
#: sites with TrackWCKey refuse.
_DROP_HEADER = ("signal", "wckey", "error")

#: Of its srun line: the log belongs to the batch shell (host.sh redirects it), and --unbuffered gives every task a
#: pseudo-terminal, so that progress bars are drawn into the log.
_DROP_SRUN = ("output", "unbuffered")


class SubmititCarrier:
    """See ``launch.render.request.Executor``."""

    def render(self, request: JobRequest) -> str:
        executor = _executor(request, deliver=None)
        return executor._make_submission_file_text(executor._submitit_command_str, request.name)

    def submit(self, request: JobRequest, gateway: Gateway) -> str:
        def deliver(text: str) -> str:
            return gateway.sbatch(base.write_script(request, text), extra=base.sbatch_extra(request))

        # submit() wants something to call; it is neither pickled nor called.
        job = _executor(request, deliver).submit(request.name.__str__)
        return str(job.job_id)


def _executor(request: JobRequest, deliver: Callable[[str], str] | None) -> SlurmExecutor:
    executor: SlurmExecutor = _executor_class()(request, deliver)
    flags = base.header(request)
    known = executor._valid_parameters()
    executor.update_parameters(
        **{key: flags.pop(key) for key in list(flags) if key in known},
        setup=base.setup_lines(request),
        srun_args=base.srun_arguments(request),
        stderr_to_stdout=True,
        # "open-mode" is how the library itself spells it; another spelling would be a second line.
        additional_parameters={("open-mode" if key == "open_mode" else key): value for key, value in flags.items()},
    )
    return executor


@cache
def _executor_class() -> Any:
    """Our subclass of submitit's executor, made when it is first needed: importing submitit takes 0.1 s."""
    try:
        from submitit.slurm.slurm import SlurmExecutor, SlurmJob
    except ImportError as error:
        raise base.missing("submitit", "submitit", error) from error

    class ScriptExecutor(SlurmExecutor):
        """Runs the scripts of a stage; no pickle is written or executed."""

        def __init__(self, request: JobRequest, deliver: Callable[[str], str] | None) -> None:
            super().__init__(folder=request.stage_dir)
            self._request = request
            self._deliver = deliver

        @classmethod
        def affinity(cls) -> int:
            # The library refuses to be constructed where srun is not on PATH; a plan is made anywhere.
            return 2

        @property
        def _submitit_command_str(self) -> str:
            return self._request.start_node

        def _make_submission_file_text(self, command: str, uid: str) -> str:
            text = super()._make_submission_file_text(command, uid)
            # What the profile says stands in the library's place.
            said = {flag_name(key) for key in base.header(self._request)}
            dropped = tuple(name for name in _DROP_HEADER if name not in said)
            return base.finished(text, self._request, drop_header=dropped, drop_srun=_DROP_SRUN)

        def _internal_process_submissions(self, delayed_submissions: list[Any]) -> list[Any]:
            # The library's own pickles the function, waits until 0.2 s have passed since the last submission, and
            # parses sbatch's output without a time-out.
            assert self._deliver is not None
            text = self._make_submission_file_text(self._submitit_command_str, self._request.name)
            return [SlurmJob(folder=self.folder, job_id=self._deliver(text)) for _ in delayed_submissions]

    return ScriptExecutor
