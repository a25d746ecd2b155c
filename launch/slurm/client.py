"""The only place that starts Slurm's commands.

Every call: an argument list (no shell), a scrubbed environment, its own session, a time-out after which the whole
process group is killed, and a typed error that carries command, exit code and stderr. Nothing is retried here: whether
a repeated question is safe depends on who asks.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from launch.base import waiting
from launch.base.errors import ClusterUnreachable, RejectedByCluster
from launch.slurm import queue, refusals
from launch.slurm.environment import scrubbed
from launch.slurm.queue import AccountRow, QueueRow

#: sbatch itself tries for up to two minutes to get an answer; giving up earlier makes "accepted, but we do not know".
SBATCH_TIMEOUT = 180.0
TIMEOUT = 60.0

_JOB_ID = re.compile(r"^(\d+)(?:;[\w.-]+)?\s*$", re.MULTILINE)
#: From a site's wrapper that loses --parsable.
_SUBMITTED = re.compile(r"^Submitted batch job (\d+)", re.MULTILINE)

#: 128 + SIGHUP to 128 + SIGTERM. (255 is how sbatch itself ends after an option that it does not know.)
_KILLED = range(129, 144)

#: Commands that speak of this machine's cluster unless another is named.
_OF_A_CLUSTER = frozenset({"sinfo", "scontrol", "squeue", "sacct", "sprio", "sshare"})

_GONE = re.compile(r"Invalid job id|already (?:complet|finished)", re.IGNORECASE)


@dataclass(frozen=True)
class Answer:
    """What a command said; ``seconds`` that it took."""

    command: tuple[str, ...]
    exit_code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def was_killed(self) -> bool:
        """By a signal; a site's wrapper in bash says so as 128 + its number."""
        return self.exit_code < 0 or self.exit_code in _KILLED


class Gateway:
    """Slurm, as the current user.

    Args:
        slurm_conf: configuration of the cluster to talk to; default: what the environment or the installation says.
        keep: environment variables that reach the job although they look like left-overs or secrets.
        drop: further variables that do not reach Slurm: secrets that do not look like ones.
        environment: to start from; default: this process's.
        timeout: seconds for every command but sbatch.
        sbatch_timeout: seconds for sbatch.
        cluster: where its jobs are, if that is not the cluster of this machine (``-M``).
        floor: the least seconds between two questions to the queue, for sites that refuse more.
        asked: a file whose time is that of the last one, shared by all commands and jobs of a user.
    """

    def __init__(
        self,
        slurm_conf: Path | None = None,
        *,
        keep: Iterable[str] = (),
        drop: Iterable[str] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = TIMEOUT,
        sbatch_timeout: float = SBATCH_TIMEOUT,
        cluster: str | None = None,
        floor: float = 0.0,
        asked: Path | None = None,
    ) -> None:
        self._there = () if cluster is None else ("-M", cluster)
        self._floor = floor
        self._asked = asked
        self._environment = scrubbed(os.environ if environment is None else environment, keep, drop)
        if slurm_conf is not None:
            self._environment["SLURM_CONF"] = str(slurm_conf)
        self._timeout = timeout
        self._sbatch_timeout = sbatch_timeout

    def sbatch(self, script: Path, *, extra: Sequence[str] = ()) -> str:
        """Submit ``script`` and return the job id.

        Args:
            extra: further options; on the command line they win over the script's header.

        Raises:
            RejectedByCluster: no job was made. (The queue may show one all the same: ``QueueRow.is_refusal``.)
            ClusterUnreachable: **a job may have been made**: look its name up before submitting again.
            KeyboardInterrupt: likewise. A submitter of a chain must note the signal and finish the call.
        """
        command = ("sbatch", "--parsable", *extra, str(script))
        answer = self._run(command, timeout=self._sbatch_timeout, directory=script.parent)
        # The last match: banners of a site come first.
        ids = _JOB_ID.findall(answer.stdout) or _SUBMITTED.findall(answer.stdout)
        if answer.exit_code != 0 and not ids:
            raise self._error(answer, f"sbatch refused {script.name}")
        if answer.exit_code != 0 or not ids:
            raise ClusterUnreachable(
                f"sbatch ended with {answer.exit_code} and printed {answer.stdout.strip()!r}: "
                "whether the job was accepted is not known",
                command=command,
                since=answer.seconds,
                hint="overnight resume looks it up by its name",
            )
        return str(ids[-1])

    def squeue(self) -> list[QueueRow]:
        """All jobs of this user that the controller remembers, finished ones too (for MinJobAge after their end).

        One call whatever the number of jobs. Not ``-j IDS``: an unknown id among them is dropped silently.

        Raises:
            ClusterUnreachable, RejectedByCluster: there is no answer; a missing job is not a finished one.
        """
        self._wait_for_floor()
        answer = self._checked(
            ("squeue", *self._there, "--me", "-h", "-t", "all", "-o", queue.SQUEUE_FORMAT), "squeue failed"
        )
        try:
            return queue.parse_squeue(answer.stdout)
        except ValueError as error:
            raise ClusterUnreachable(str(error), command=answer.command, since=answer.seconds) from error

    def sacct(self, since: float) -> list[AccountRow] | None:
        """Runs of this user's jobs since an epoch second, earlier runs of requeued jobs included.

        None where accounting is off, down or slow: it only adds to what squeue, seals and the journal say. It lags
        behind: a job that is missing, or whose state is older than squeue's, means nothing.
        """
        # sacct reads no epoch seconds; local time, as the command runs on this machine.
        start = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(since))
        command = (
            "sacct",
            *self._there,
            "-X",
            "-D",
            "-n",
            "-P",
            f"--delimiter={queue.SACCT_DELIMITER}",
            "-u",
            str(os.getuid()),
            "-S",
            start,
            "-o",
            queue.SACCT_FIELDS,
        )
        try:
            answer = self._run(command)
        except (ClusterUnreachable, RejectedByCluster):
            return None
        return queue.parse_sacct(answer.stdout) if answer.exit_code == 0 else None

    def scancel(self, ids: Sequence[str]) -> None:
        """Cancel jobs in one call, so that no dependent starts in between. Ended and unknown ones are passed over.

        Raises:
            ClusterUnreachable: some may be cancelled and some not; it is safe to repeat.
            RejectedByCluster: likewise, but repeating will not help.
        """
        if not ids:
            return
        answer = self._run(("scancel", *self._there, *ids))
        # 22.05 ends with 0 and says nothing about an ended job; later versions complain about it.
        complaints = [line for line in answer.stderr.splitlines() if line.strip() and not _GONE.search(line)]
        if answer.exit_code != 0 and (complaints or not answer.stderr.strip()):
            raise self._error(answer, "scancel failed")

    def requeue(self, job_id: str) -> None:
        """Put a job back into the queue under its id.

        Raises:
            RejectedByCluster: it was submitted with --no-requeue, has gone, or is not yours.
            ClusterUnreachable: no answer.
        """
        self._checked(("scontrol", *self._there, "requeue", job_id), f"job {job_id} cannot be requeued")

    def update_dependency(self, job_id: str, dependency: str) -> None:
        """Replace what a waiting job waits for; an empty ``dependency`` frees it.

        Raises:
            RejectedByCluster: it is not waiting any more, or a job named is not known.
            ClusterUnreachable: no answer.
        """
        command = ("scontrol", *self._there, "update", f"jobid={job_id}", f"dependency={dependency}")
        self._checked(command, f"the dependency of job {job_id} cannot be changed")

    def test_only(self, script: Path) -> str:
        """What ``sbatch --test-only`` says of a script: when and where its job would start. No job is made; Slurm uses
        up an id.

        Raises:
            RejectedByCluster: such a job would be refused; in Slurm's words.
            ClusterUnreachable: no answer.
        """
        command = ("sbatch", "--test-only", str(script))
        answer = self._run(command, directory=script.parent)
        if answer.exit_code != 0:
            raise self._error(answer, "sbatch --test-only refused it")
        return answer.stderr.strip()

    def ask(self, command: Sequence[str], *, timeout: float) -> Answer:
        """Run a command that only looks, of Slurm's or of the site's; whatever its exit code, its answer is returned.

        Raises:
            RejectedByCluster: there is no such command here.
            ClusterUnreachable: it did not end in time and was killed.
        """
        name, *rest = command
        there = self._there if name in _OF_A_CLUSTER else ()
        return self._run((name, *there, *rest), timeout=timeout)

    def _wait_for_floor(self) -> None:
        """Let the site's least time since the last question pass."""
        if not self._floor or self._asked is None:
            return
        with contextlib.suppress(FileNotFoundError):
            left = self._asked.stat().st_mtime + self._floor - time.time()
            if 0 < left <= self._floor:
                print(
                    f"the site allows one squeue in {self._floor:.0f} s: waiting {left:.0f} s",
                    file=sys.stderr,
                    flush=True,
                )
                time.sleep(left)
        with contextlib.suppress(OSError):
            self._asked.parent.mkdir(parents=True, exist_ok=True)
            self._asked.touch()

    def _checked(self, command: tuple[str, ...], failure: str) -> Answer:
        answer = self._run(command)
        if answer.exit_code != 0:
            raise self._error(answer, failure)
        return answer

    def _run(self, command: tuple[str, ...], *, timeout: float | None = None, directory: Path | None = None) -> Answer:
        with waiting.on(f"waiting for {command[0]}"):
            return self._answered(command, self._timeout if timeout is None else timeout, directory)

    def _answered(self, command: tuple[str, ...], timeout: float, directory: Path | None) -> Answer:
        began = time.monotonic()
        try:
            process = subprocess.Popen(
                command,
                env=self._environment,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                # Its own process group: a site's wrapper script and its children go together, and Ctrl-C in our
                # terminal does not cut an sbatch in two.
                start_new_session=True,
            )
        except FileNotFoundError as error:
            raise RejectedByCluster(
                f"there is no {command[0]} on this machine",
                command=command,
                exit_code=127,
                stderr=str(error),
                hint="run this on a login node of the cluster, or use --cluster local",
            ) from error
        try:
            stdout, stderr = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            _kill_group(process)
            raise ClusterUnreachable(
                f"{command[0]} did not answer", command=command, since=time.monotonic() - began
            ) from error
        except BaseException:
            _kill_group(process)
            raise
        return Answer(command, process.returncode, stdout, stderr, time.monotonic() - began)

    @staticmethod
    def _error(answer: Answer, failure: str) -> RejectedByCluster | ClusterUnreachable:
        said = answer.stderr.strip()
        # A refusal comes with a reason. A command that was killed, or ended without output, may have got through.
        if not said or answer.was_killed or refusals.is_silence(said):
            last = said.splitlines()[-1] if said else f"it ended with {answer.exit_code} and gave no reason"
            return ClusterUnreachable(f"{failure}: {last}", command=answer.command, since=answer.seconds)
        meaning, hint = refusals.explain(answer.stderr)
        return RejectedByCluster(
            f"{failure}: {meaning}",
            command=answer.command,
            exit_code=answer.exit_code,
            stderr=answer.stderr,
            hint=hint,
        )


def _kill_group(process: subprocess.Popen[str]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # A grandchild that left the group may hold the pipes open: do not read them to the end.
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    process.wait()
