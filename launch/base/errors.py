"""Expected errors: invalid input, rejected by Slurm, no response from Slurm, and a download that failed.

Each names the next command. Any other exception is a bug and is shown as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class OvernightError(Exception):
    """Base of the expected errors.

    Attributes:
        message: what is wrong, for the user; may have several lines.
        hint: the next command to type, or None.
        exit_code: of the ``overnight`` command.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints on stderr."""
        return {
            "schema": "overnight/error/1",
            "error": type(self).__name__,
            "message": self.message,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


class InputError(OvernightError):
    """A file, an option or the workspace is not what it has to be. ``where`` is ``file:line:column`` if known."""

    exit_code = 2

    def __init__(self, message: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.where = where

    def __str__(self) -> str:
        return f"{self.where}: {self.message}" if self.where else self.message

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "where": self.where}


class RejectedByCluster(OvernightError):
    """Slurm rejected the request. The same request will be rejected again.

    ``advice`` and ``causes`` (``launch.render.refusal``): the options that it is about, the lines that say them, and
    what to write instead; in words, and as ``launch.render.provenance.JobOption``.
    """

    exit_code = 3

    def __init__(
        self, message: str, *, command: Sequence[str], exit_code: int, stderr: str, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.command = tuple(command)
        self.command_exit_code = exit_code
        self.stderr = stderr
        self.advice = ""
        self.causes: list[dict[str, Any]] = []

    def __str__(self) -> str:
        said = "".join(f"\n  {line}" for line in self.stderr.strip().splitlines())
        advice = "".join(f"\n  {line}" for line in self.advice.splitlines())
        return f"{self.message}\n  {' '.join(self.command)}: exit {self.command_exit_code}{said}{advice}"

    def as_json(self) -> dict[str, Any]:
        return {
            **super().as_json(),
            "command": list(self.command),
            "command_exit_code": self.command_exit_code,
            "stderr": self.stderr,
            "causes": self.causes,
        }


class ClusterUnreachable(OvernightError):
    """The cluster did not answer in time, so what happened is not known. ``since``: seconds waited.

    Never read as an answer: a job that we could not ask about has neither ended nor failed.
    """

    exit_code = 4

    def __init__(self, message: str, *, command: Sequence[str], since: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.command = tuple(command)
        self.since = since

    def __str__(self) -> str:
        return f"{self.message}\n  {' '.join(self.command)}: no answer for {self.since:.0f} s"

    def as_json(self) -> dict[str, Any]:
        return {**super().as_json(), "command": list(self.command), "since": self.since}


class DownloadFailed(OvernightError):
    """A download failed: no network, an index or hub that is down, or a damaged file.

    Typing the same command again later may help; what has arrived is kept. ``said``: the message of the tool.
    """

    exit_code = 4

    def __init__(self, message: str, said: str = "", *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.said = said

    def __str__(self) -> str:
        return self.message + "".join(f"\n  {line}" for line in self.said.strip().splitlines())
