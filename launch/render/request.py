"""What every executor is given, what it has to do, and the script rules that hold for all of them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobs.core.files import write_together
from jobs.core.paths import ScriptPaths, StagePaths
from launch.base.errors import InputError
from launch.base.text import control_character
from launch.config.fields import Resources
from launch.render import templates
from launch.slurm.client import Gateway
from launch.slurm.options import OPTIONS, flag_name

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\Z")
_FLAG = re.compile(r"[a-z][a-z0-9-]*\Z")
_DEPENDENCY = re.compile(r"(?:after|afterok|afterany|afternotok|aftercorr)(?::\d+)+\Z")
_ARRAY = re.compile(r"0-\d+%[1-9]\d*\Z")


@dataclass(frozen=True)
class JobRequest:
    """One Slurm job to be: what it asks for, and where its scripts lie.

    The scripts' directory holds ``host.sh`` and ``node.sh``; the executor's script is written beside them. srun starts
    one ``node.sh`` per node; the processes of a node are started inside it.

    Attributes:
        name: unique Slurm job name.
        stage_dir: the stage's directory, with an existing ``logs/`` in it; the job's working directory.
        resources: what the job asks for, with a time limit.
        dependency: such as ``afterok:12:13``; goes on sbatch's command line, so that the script does not depend on it.
        array: such as ``0-99%8``: so many jobs, of which 8 run at a time; on the command line, too.
        site: options in the words of the site: how it is asked for GPUs, memory, whole nodes. False drops one.
        sbatch: further options of the profile; True for an option without a value, False or None to drop one.
        step: options of srun that follow from other keys of the profile (MPI, containers).
        srun: further arguments of srun; they come last and win.
        launcher: what starts node.sh on every node; one that is not srun gets the arguments of ``srun`` alone.
        remove: options to drop from header and srun line, ours or the executor's: ``--wckey``, ``exclusive``. What
            ``srun`` adds stays.
        setup: lines run in the batch shell before host.sh is sourced.
        scripts_dir: where host.sh, node.sh and job.sh of this attempt lie; default: the stage directory.
        link: number of this job in a chain of jobs for one stage (continuation: chain).

    Raises:
        InputError: a value that Slurm would misread (a control character would become a line of the script).
    """

    name: str
    stage_dir: Path
    resources: Resources
    requeue: bool = False
    dependency: str | None = None
    array: str | None = None
    kill_on_invalid_dep: bool = True
    site: Mapping[str, str | bool] = field(default_factory=dict)
    sbatch: Mapping[str, str | bool | None] = field(default_factory=dict)
    step: tuple[str, ...] = ()
    srun: tuple[str, ...] = ()
    launcher: tuple[str, ...] = ("srun",)
    remove: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    scripts_dir: Path | None = None
    link: int = 0

    def __post_init__(self) -> None:
        if not _NAME.match(self.name):
            raise InputError(f"job name {self.name!r}: only letters, digits, '.', '_' and '-' are safe in every tool")
        if self.dependency is not None and not all(map(_DEPENDENCY.match, self.dependency.split(","))):
            raise InputError(f"{self.name}: {self.dependency!r} is not a dependency such as afterok:12:13")
        if self.array is not None and not _ARRAY.match(self.array):
            raise InputError(f"{self.name}: {self.array!r} is not an array such as 0-99%8")
        if not self.stage_dir.is_absolute():
            raise InputError(f"{self.name}: stage directory {self.stage_dir} is not absolute")
        texts = {
            "stage directory": str(self.stage_dir),
            "script directory": str(self.scripts.root),
            **{key: value for key, value in vars(self.resources).items() if isinstance(value, str)},
            **{f"sbatch option {key}": str(value) for key, value in {**self.site, **self.sbatch}.items()},
            **{f"srun argument {number}": value for number, value in enumerate((*self.step, *self.srun), 1)},
            **{f"set-up line {number}": value for number, value in enumerate(self.setup, 1)},
        }
        for what, text in texts.items():
            if control_character(text, "\t"):
                raise InputError(f"{self.name}: {what} holds a control character: {text!r}")
        for key in self.sbatch:
            name = flag_name(key)
            if not _FLAG.match(name):
                raise InputError(f"{self.name}: {key!r} is not an option of sbatch")
            if name in OPTIONS and OPTIONS[name].reserved:
                raise InputError(f"{self.name}: sbatch option {key!r} cannot be set: {OPTIONS[name].reserved}")

    @property
    def logs(self) -> Path:
        """Where the logs of the stage are."""
        return StagePaths(self.stage_dir).logs

    @property
    def scripts(self) -> ScriptPaths:
        """The scripts of this attempt."""
        return ScriptPaths(self.scripts_dir or self.stage_dir)

    @property
    def source_host(self) -> str:
        """The line of the batch shell that brings in host.sh, without which nothing may run."""
        return f". {shlex.quote(str(self.scripts.host))} || overnight_elsewhere 'host.sh cannot be read'"

    @property
    def start_node(self) -> str:
        """The command that srun starts on every node."""
        return shlex.quote(str(self.scripts.node))


class Executor(Protocol):
    """An executor: gives the two scripts a Slurm job."""

    def render(self, request: JobRequest) -> str:
        """The full text of the script; the same request gives the same text."""

    def submit(self, request: JobRequest, gateway: Gateway) -> str:
        """Submit by the library's own path with the gateway underneath; returns the job id. Raises RejectedByCluster:
        no job was made. Raises ClusterUnreachable: one may have been made."""


def header(request: JobRequest) -> dict[str, str | bool]:
    """The options of sbatch for the script's header, whichever library writes it; True for one without a value. Keys
    have underscores, as both libraries require."""
    asked = {row.name: getattr(request.resources, row.resource) for row in OPTIONS.values() if row.is_copied}
    flags: dict[str, str | bool | None] = {
        "job-name": request.name,
        "ntasks-per-node": "1",
        **{name: None if value is None else str(getattr(value, "minutes", value)) for name, value in asked.items()},
        "requeue" if request.requeue else "no-requeue": True,
        "kill-on-invalid-dep": "yes" if request.kill_on_invalid_dep else None,
        # The submitter's working directory may not exist on the nodes.
        "chdir": str(request.stage_dir),
        # What happens before host.sh opens the log of this restart. "%" begins a pattern there (sbatch(1), FILENAME
        # PATTERN), so one in the path is doubled.
        "output": f"{str(request.logs).replace('%', '%%')}/%j.batch.log",
        "open-mode": "append",
    }
    if {"requeue", "no-requeue"} & {flag_name(key) for key in request.sbatch}:
        flags.pop("requeue", None)
        flags.pop("no-requeue", None)
    for further in (request.site, request.sbatch):
        flags.update({flag_name(key): value for key, value in further.items()})
    return {name.replace("-", "_"): value for name, value in flags.items() if value is not None and value is not False}


def setup_lines(request: JobRequest) -> list[str]:
    """What the batch shell runs before srun: the profile's lines, then host.sh. That is sourced, not started: its EXIT
    trap must be the batch shell's, and it may end the job by ``exit``."""
    # Always: the submitter's environment, perhaps that of another job, reaches the job.
    elsewhere = templates.template("elsewhere.sh.j2").rstrip("\n").split("\n")
    return [*request.setup, *elsewhere, f"export OVERNIGHT_LINK={request.link}", request.source_host]


def srun_arguments(request: JobRequest) -> list[str]:
    """Arguments of srun that both libraries get.

    - one task per node, said outright: SLURM_NTASKS may come from elsewhere;
    - ``--cpus-per-task``: since 22.05 srun does not take it over from sbatch;
    - ``--kill-on-bad-exit=1``: when one node fails the others would wait for it until the time limit.
    """
    nodes, cpus = request.resources.nodes, request.resources.cpus
    arguments = [f"--nodes={nodes}", f"--ntasks={nodes}", "--ntasks-per-node=1"]
    if cpus is not None:
        arguments.append(f"--cpus-per-task={cpus}")
    return [*arguments, "--kill-on-bad-exit=1"]


def finished(
    text: str, request: JobRequest, *, drop_header: tuple[str, ...] = (), drop_srun: tuple[str, ...] = ()
) -> str:
    """The library's text without unwanted options: ``drop_header`` and ``drop_srun`` are the library's own that are
    never wanted. Raises RuntimeError: the text has another shape, so the library has changed."""
    removed = {flag_name(flag) for flag in request.remove}
    removed |= {flag_name(key) for key, value in request.sbatch.items() if value is False}
    lines = _without_header_flags(text.rstrip("\n").split("\n"), removed.union(drop_header))
    node, host = request.start_node, request.source_host
    sruns = [number for number, line in enumerate(lines) if line.startswith("srun ")]
    if len(sruns) != 1 or not lines[sruns[0]].endswith(f" {node}"):
        raise RuntimeError(f"expected one srun line that starts {node}, got: {[lines[number] for number in sruns]}")
    if lines.count(host) != 1 or lines.index(host) > sruns[0]:
        raise RuntimeError(f"expected {host} once, before srun")
    flags = shlex.split(lines[sruns[0]])[1:-1]
    # The profile's own arguments are not removed again, and come last: the last one wins.
    flags = [*_without_flags([*flags, *request.step], removed.union(drop_srun)), *request.srun]
    if request.launcher != ("srun",):
        flags = list(request.srun)
    lines[sruns[0]] = f"{shlex.join((*request.launcher, *flags)) if flags else shlex.join(request.launcher)} {node}"
    result = "\n".join(lines) + "\n"
    if control := control_character(result, "\t\n"):
        raise RuntimeError(f"the script holds a control character: {control}")
    return result


def _without_header_flags(lines: list[str], removed: set[str]) -> list[str]:
    """``lines`` without the #SBATCH lines of ``removed``; checks the others."""
    kept: list[str] = []
    seen: set[str] = set()
    for number, line in enumerate(lines):
        if not line.startswith("#SBATCH"):
            # sbatch stops reading options at the first line that is not a comment.
            if line and not line.startswith("#"):
                return [*kept, *lines[number:]]
            kept.append(line)
            continue
        found = re.match(r"#SBATCH --([a-z][a-z0-9-]*)(?:=.+)?\Z", line)
        if found is None or found[1] in seen:
            raise RuntimeError(f"malformed or repeated header line: {line!r}")
        seen.add(found[1])
        if found[1] not in removed:
            kept.append(line)
    return kept


def _without_flags(arguments: list[str], removed: set[str]) -> list[str]:
    """``arguments`` without the options of ``removed``; a value may follow as a word of its own (``--output all``)."""
    kept: list[str] = []
    skip_value = False
    for argument in arguments:
        if argument.startswith("--"):
            skip_value = flag_name(argument) in removed and "=" not in argument
            # The library may say what we say.
            if flag_name(argument) in removed or ("=" in argument and argument in kept):
                continue
        elif skip_value:
            skip_value = False
            if not argument.startswith("-"):
                continue
        kept.append(argument)
    return kept


def write_script(request: JobRequest, text: str) -> Path:
    """Write ``job.sh``, readable and runnable by its owner only; returns its path."""
    path = request.scripts.job(request.link)
    write_together(path.parent, (path, text, 0o700))
    return path


def sbatch_extra(request: JobRequest) -> list[str]:
    """What goes on sbatch's command line and not into the script: the edges, and how many jobs it makes."""
    array = [] if request.array is None else [f"--array={request.array}"]
    return array if request.dependency is None else [*array, f"--dependency={request.dependency}"]


def missing(library: str, extra: str, error: ImportError) -> InputError:
    """The error for a library that is not installed."""
    return InputError(
        f"the executor {extra.replace('-', '_')!r} needs {library}: {error}",
        hint=f'pip install "overnight[{extra}]", or route the stage to another executor in the cluster profile',
    )
