"""Questions to the login node: all at once, each with a time limit; one without an answer is reported, not guessed.

Slurm's own commands are asked for text in formats of our choosing (see ``launch.slurm.queue``); ``scontrol show node``
is not asked, because a large site has ten thousand of them: ``sinfo --exact`` puts equal ones together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jobs.core import attempts
from launch.base.errors import OvernightError
from launch.slurm.client import Gateway

SECONDS = 4.0
"""For each question. A controller that does not answer blocks its clients for nine seconds or more."""

FIELD = "\x1f"
SINFO = FIELD.join(["%P", "%D", "%c", "%m", "%G", "%f", "%Z"])
_ASSOCIATIONS = "Cluster,Account,Partition,QOS,DefaultQOS,MaxJobs,MaxSubmit,MaxWall,MaxTRES,GrpTRES"
_QOS = "Name,MaxWall,MaxTRES,MaxTRESPerUser,MaxJobsPerUser,MaxSubmitJobsPerUser,Flags"

#: ``module`` is a function of login shells. Both Lmod and Environment Modules list on stderr.
_MODULES = (
    "type module >/dev/null 2>&1 || { echo 'no command module in a login shell' >&2; exit 3; }; "
    'echo "overnight: ${LMOD_VERSION:+Lmod $LMOD_VERSION}"; module -t avail 2>&1'
)


@dataclass(frozen=True)
class Response:
    """One question and what came of it. ``text`` is None where no usable answer came; then ``problem`` says why."""

    command: str
    text: str | None
    problem: str = ""
    seconds: float = 0.0


def questions(user: str, directories: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Name -> command. ``directories``: of which the file system is asked."""
    found: dict[str, tuple[str, ...]] = {
        "config": ("scontrol", "show", "config"),
        "partitions": ("scontrol", "show", "partition", "--oneliner", "--all"),
        "nodes": ("sinfo", "--noheader", "--exact", "--all", f"--format={SINFO}"),
        "associations": ("sacctmgr", "-n", "-P", "show", "associations", f"user={user}", f"format={_ASSOCIATIONS}"),
        "user": ("sacctmgr", "-n", "-P", "show", "user", user, "format=User,DefaultAccount"),
        "qos": ("sacctmgr", "-n", "-P", "show", "qos", f"format={_QOS}"),
        "srun": ("srun", "--help"),
        "modules": ("bash", "-lc", _MODULES),
    }
    for number, directory in enumerate(directories):
        found[f"df {number}"] = ("df", "-PT", "-B1", "--", directory)
    return found


def ask_all(gateway: Gateway, commands: Mapping[str, Sequence[str]], seconds: float = SECONDS) -> dict[str, Response]:
    """The answers of all commands, which run side by side."""
    from concurrent.futures import ThreadPoolExecutor  # not for those who only want a name

    with ThreadPoolExecutor(max_workers=16) as pool:
        jobs = {name: pool.submit(ask, gateway, command, seconds) for name, command in commands.items()}
        return {name: job.result() for name, job in jobs.items()}


def ask(gateway: Gateway, command: Sequence[str], seconds: float = SECONDS) -> Response:
    """The answer of one command; no answer is one, too."""
    shown = _shown(command)
    try:
        answer = gateway.ask(command, timeout=seconds)
    except OvernightError as error:
        return Response(shown, None, error.message)
    if answer.exit_code != 0:
        said = (answer.stderr.strip() or answer.stdout.strip()).splitlines()
        return Response(
            shown, None, plain(said[-1].strip()) if said else f"exit code {answer.exit_code}", answer.seconds
        )
    return Response(shown, answer.stdout, "", answer.seconds)


def plain(text: str) -> str:
    """What others have written, without what would do something to a terminal or to a file of ours."""
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _shown(command: Sequence[str]) -> str:
    """As a user would type it, without the formats that only our parsers want."""
    if command[0] == "bash":
        return "module avail"
    words = [word for word in command if not word.startswith(("format=", "--format=")) and word not in ("-n", "-P")]
    return " ".join(word for word in words if word != "--")


def user_name() -> str:
    """As Slurm knows the user: by the id, whatever ``$USER`` says."""
    return attempts.user_name(os.getuid())
