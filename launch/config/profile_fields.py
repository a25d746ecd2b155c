"""The parts of a cluster profile as typed values: partitions, the GPU request, containers, environments."""

import os
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from jobs.core.budget import RETRIES
from launch.base.errors import InputError
from launch.base.text import suggest
from launch.config.allowed import allows, pattern_of
from launch.config.document.typed import Before, StrictModel
from launch.config.fields import (
    Amount,
    Count,
    Duration,
    Line,
    MemoryAmount,
    NotNegative,
    matching,
    one_line,
)
from launch.config.kinds import DATA_KINDS, TRAINING_KINDS
from launch.config.mounts import Gpus, Mount, Runtime
from launch.config.secrets import VARIABLE_NAME, SecretName

KINDS = (*DATA_KINDS, *TRAINING_KINDS, "evaluate", "convert")
CORE = "core"
DEFAULT, TRAINING, DATA = "default", "training", "data"

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_ROLLING = re.compile(r"rolling\((\d{1,4})\)\Z", re.ASCII)
_OPTION = re.compile(r"(?:--)?[a-z][a-z0-9-]*\Z")


class ExecutorKind(StrEnum):
    """Where jobs run."""

    LOCAL = "local"
    SLURM = "slurm"


class ExecutorChoice(StrEnum):
    """Which library renders and carries a Slurm job."""

    NEMO_RUN = "nemo_run"
    SUBMITIT = "submitit"


class Continuation(StrEnum):
    """How a stage goes on after its time limit: under the same job id, or in the next of several jobs."""

    REQUEUE = "requeue"
    CHAIN = "chain"


class GpuForm(StrEnum):
    """By which option sbatch is asked for GPUs. ``none``: the partition brings them, or there are none."""

    PER_NODE = "gpus-per-node"
    GRES = "gres"
    TOTAL = "gpus"
    PER_TASK = "gpus-per-task"
    NONE = "none"


class Exclusive(StrEnum):
    """Which jobs say ``--exclusive``."""

    NEVER = "never"
    GPU = "gpu"
    MULTI_NODE = "multi_node"
    ALWAYS = "always"


class MemoryRule(StrEnum):
    """What ``--mem`` says: what the job asks for, all of the node where it asks for nothing, or never anything."""

    ASKED = "asked"
    NODE = "node"
    NEVER = "never"


def _one_of(known: Sequence[str], what: str) -> Callable[[Any], Any]:
    def check(name: Any) -> Any:
        if name not in known:
            raise ValueError(f"{name!r} is no {what}; {suggest(name, known)}")
        return name

    return allows(check, enum=list(known))


def expanded(text: str) -> str:
    """``~`` and ``$VARIABLE`` as on the login node. Raises ValueError: a variable is not set (an empty name)."""

    def variable(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in os.environ:
            raise ValueError(f"{text!r}: the variable {name} is not set here")
        return os.environ[name]

    return str(Path(_VARIABLE.sub(variable, text)).expanduser())


def _path(value: Any) -> Any:
    return Path(expanded(value)) if isinstance(value, str) else value


def _absolute(path: Path) -> Path:
    if not path.is_absolute():
        raise ValueError(f"{str(path)!r} is relative: jobs start elsewhere, write the whole path")
    one_line(str(path))
    return path


def _option(name: str) -> str:
    if not _OPTION.match(name):
        raise ValueError(f"{name!r} is not a long option of sbatch, such as gpus-per-node")
    return name.removeprefix("--")


def _addition(value: Any) -> Any:
    """One message for all that a raw option may be, in place of one for each member of the union."""
    if isinstance(value, str):
        return one_line(value)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f'expected text, true, false or nothing, got {value!r}; quote this value: "{value}"')
    return value


def _mount(text: str) -> str:
    parts = text.split(":")
    try:
        mount = Mount.parse(":".join([expanded(part) if part[:1] in "~$" else part for part in parts]))
    except InputError as error:
        raise ValueError(error.message) from None
    return str(mount)


def _by_form(value: Any) -> Any:
    """``gpu_request: gres`` says the same as ``gpu_request: {form: gres}``."""
    return {"form": value} if isinstance(value, str) else value


Group = Annotated[str, _one_of((DEFAULT, TRAINING, DATA, *KINDS), "kind of job")]
SharedPath = Annotated[Path, Before(_path), _absolute]
EnvironmentName = Annotated[str, matching(VARIABLE_NAME, "is not the name of an environment variable")]
OptionName = Annotated[str, _option]


def rolling(text: str) -> int | None:
    """How many jobs of a run may be in the queue; None: all. Raises ValueError: neither ``all`` nor ``rolling(n)``."""
    if text == "all":
        return None
    found = _ROLLING.match(text)
    if found is None:
        raise ValueError(f"{text!r}: write all, or rolling(3) where no more than 3 jobs may be queued")
    if int(found[1]) < 2:
        raise ValueError(
            f"{text!r}: a running job submits the next one, so at least two are queued: rolling(2) or more"
        )
    return int(found[1])


def _submission(text: str) -> str:
    rolling(text)
    return text


allows(_option, pattern=pattern_of(_OPTION))
allows(_submission, pattern=r"^(all|rolling\([1-9][0-9]{0,3}\))$")
Submission = Annotated[Line, _submission]
_NODE_PART = re.compile(r"(\$(?:\{\w+\}|[A-Za-z_]\w*))")


def node_parts(text: str) -> list[tuple[str, str]]:
    """(variable, "") and ("", text) in their order: ``$SLURM_TMPDIR/hf`` is a variable of the node and a text."""
    parts = [part for part in _NODE_PART.split(text) if part]
    return [(part.strip("${}"), "") if _NODE_PART.fullmatch(part) else ("", part) for part in parts]


def _node_value(text: str) -> str:
    one_line(text)
    if not any(name for name, _ in node_parts(text)):
        raise ValueError(f"{text!r} names no variable of the node, such as $SLURM_TMPDIR")
    return text


def _cluster(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]+", text):
        raise ValueError(f"{text!r}: write the name of one cluster; what is submitted must be found there again")
    return text


allows(_node_value, pattern=r"\$(\{\w+\}|[A-Za-z_])")
allows(_cluster, pattern=r"^[A-Za-z0-9._-]+$")
ClusterName = Annotated[Line, _cluster]
NodeValue = Annotated[str, _node_value]
OptionValue = Annotated[str | bool | None, Before(_addition)]
allows(_by_form, enum=[one.value for one in GpuForm])
VariableValue = Annotated[str, one_line]
MountText = Annotated[Line, _mount]


class Bin(StrictModel):
    """A site that gives large jobs more time: at most ``time`` for a job on at most ``nodes``."""

    nodes: Count
    time: Duration


class Partition(StrictModel):
    """What a partition has and allows; what is not said is not checked. ``cpus``, ``memory`` and ``gpus`` are those of
    one node, ``gpu_memory`` is that of one GPU.

    ``bins``: less than ``max_time`` for jobs on few nodes; the smallest one that a job fits into decides.
    ``exclusive``: jobs get whole nodes there whatever they ask for. ``cost_per_gpu_hour``: in the site's own unit.
    """

    max_time: Duration | None = None
    max_nodes: Count | None = None
    bins: tuple[Bin, ...] = ()
    cpus: Count | None = None
    memory: MemoryAmount | None = None
    gpus: Amount | None = None
    gpu_model: Line | None = None
    gpu_memory: MemoryAmount | None = None
    features: tuple[Line, ...] = ()
    preemptible: bool = False
    exclusive: bool = False
    cost_per_gpu_hour: NotNegative | None = None

    def longest(self, nodes: int | None) -> Duration | None:
        """The most time that a job on so many nodes may ask for; None: no limit is known."""
        fitting = [one for one in self.bins if (nodes or 1) <= one.nodes]
        return min(fitting, key=lambda one: one.nodes).time if fitting else self.max_time


class FileSystem(StrictModel):
    """A file system of the site and the user's quota on it. The innermost one around the workspace is the one that
    checkpoints have to fit into. ``scratch``: each node has its own there, for what only its job needs."""

    path: SharedPath
    quota: MemoryAmount | None = None
    scratch: bool = False


class Notice(StrEnum):
    """What is told: a stage that nothing waits for is done; any stage has failed."""

    DONE = "done"
    FAILED = "failed"


class Notify(StrictModel):
    """Whom to tell. ``mail``: Slurm writes (``--mail-user``). ``command``: a line of bash that the end of the job runs
    on its first node, for a minute at most, with OVERNIGHT_EVENT, OVERNIGHT_RUN and OVERNIGHT_STAGE set. ``to``: names
    of secrets that are addresses as apprise takes them; each gets one letter about the end of a run."""

    mail: Line | None = None
    command: Line | None = None
    to: tuple[SecretName, ...] = ()
    on: tuple[Notice, ...] = (Notice.DONE, Notice.FAILED)

    def mail_options(self, is_last: bool) -> dict[str, str]:
        """Options of sbatch for the job that decides a stage; ``is_last``: nothing waits for it."""
        types = ["END"] if is_last and Notice.DONE in self.on else []
        types += ["FAIL"] if Notice.FAILED in self.on else []
        return {"mail-user": self.mail, "mail-type": ",".join(types)} if self.mail and types else {}

    def told(self, is_last: bool) -> tuple[str, ...]:
        """Of which events the command of a stage is told."""
        return tuple(one.value for one in self.on if is_last or one is not Notice.DONE) if self.command else ()


class Signal(StrictModel):
    """A signal to the work before the end, as by ``--signal``: for sites where jobs may not ask squeue for their end,
    and for preemption with a grace time. The trainer saves and leaves at its next step."""

    name: Literal["USR2", "TERM"] = "USR2"
    lead: Duration = Duration("5:00")

    @property
    def text(self) -> str:
        """As ``--signal`` takes it. To the processes of the work, not to the batch shell."""
        return f"{self.name}@{self.lead.seconds}"


class GpuRequest(StrictModel):
    """How GPUs are asked for. ``model``: as in ``--gres=gpu:a100:4``; not every site has it."""

    form: GpuForm = GpuForm.PER_NODE
    model: Line | None = None

    def options(self, nodes: int, gpus_per_node: int) -> dict[str, str]:
        """Options of sbatch for ``gpus_per_node`` GPUs on each of ``nodes``; a node is one task. The steps inherit the
        request through the environment (srun(1)), so srun gets none."""
        if gpus_per_node == 0 or self.form is GpuForm.NONE:
            return {}
        model = f"{self.model}:" if self.model else ""
        each = f"{model}{gpus_per_node}"
        if self.form is not GpuForm.TOTAL:
            return {self.form.value: f"gpu:{each}" if self.form is GpuForm.GRES else each}
        # Alone Slurm may share them out unevenly: 4 over two nodes become 3 and 1.
        even = {GpuForm.PER_NODE.value: each} if nodes > 1 else {}
        return {self.form.value: f"{model}{gpus_per_node * nodes}", **even}


class SrunOptions(StrictModel):
    """Options of srun that sites differ in."""

    mpi: Line | None = None
    cpu_bind: Line | None = None
    network: Line | None = None

    def arguments(self) -> tuple[str, ...]:
        """As srun takes them."""
        return tuple(f"--{key.replace('_', '-')}={value}" for key, value in vars(self).items() if value is not None)


class Containers(StrictModel):
    """How containers are made here; the image is set per back end (``environments``) or job (``resources``,
    ``image:``). ``mounts``: beside the workspace and the inputs. ``variables``: passed even if the image sets them."""

    runtime: Runtime = Runtime.NONE
    mounts: tuple[MountText, ...] = ()
    variables: tuple[EnvironmentName, ...] = ()
    gpus: Gpus | None = None
    executable: Line = "apptainer"
    options: tuple[Line, ...] = ()


class Environment(StrictModel):
    """Where a back end is installed: a virtual environment, an image, or modules and a Python.

    ``core`` as the name of the back end means the Python that runs prologue and verdict on the batch host. Python 3.10
    or newer; what the batch host itself has does not matter. ``nodes_only``: this machine cannot run it, since the
    nodes have another architecture or other paths.
    """

    venv: SharedPath | None = None
    image: Line | None = None
    modules: tuple[Line, ...] = ()
    python: Line | None = None
    nodes_only: bool = False

    def _check(self) -> None:
        ways = [name for name in ("venv", "image") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ValueError("has both venv and image: a job's Python is in one of them")
        if not ways and self.python is None:
            raise ValueError("names no Python: write venv: PATH, image: IMAGE, or modules: [...] with python: python3")
        if self.venv is not None and self.python is not None:
            raise ValueError("has both venv and python: a virtual environment's Python is its bin/python")

    @property
    def is_on_nodes_only(self) -> bool:
        """Whether this interpreter cannot be asked on the login node: in an image, behind modules, or by word."""
        return self.image is not None or bool(self.modules) or self.nodes_only

    @property
    def interpreter(self) -> str:
        """What starts Python: a path, or a name to be found on PATH after the modules, or inside the image."""
        if self.venv is not None:
            return str(self.venv / "bin" / "python")
        return expanded(self.python) if self.python else "python3"


class PerCpu(StrictModel):
    """What a job is given for each CPU, where it asks for no memory."""

    mem: MemoryAmount | None = None


class PerGpu(StrictModel):
    """What a job with GPUs is given for each of them, where it asks for no CPUs or no memory itself."""

    cpus: Count | None = None
    mem: MemoryAmount | None = None


GpuRequestField = Annotated[GpuRequest, Before(_by_form)]
_failure = _one_of([failure.value for failure in RETRIES], "class of failure that may be tried again")
FailureName = Annotated[str, _failure]
