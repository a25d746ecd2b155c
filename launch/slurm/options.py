"""The options that a job can get, by either executor, in any container: one row each.

The header, the origin of an option, the explanation of a refusal, ``remove`` and ``sbatch`` of a profile read these
rows. A new option is a row here and, where a job can ask for it, a key of ``launch.config.fields.ResourceKeys``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SBATCH, SRUN, APPTAINER = "sbatch", "srun", "apptainer"
LINE = "sbatch's command line"
LIBRARY = "library"
"""Where an option stands. ``LIBRARY``: NeMo-Run or submitit would add it; we take it out."""

ACCOUNTS = "sacctmgr show associations user=$USER format=account,partition,qos lists yours"


class Refusal(NamedTuple):
    """Messages of Slurm with one meaning, and what to do. ``is_general``: a precise one beside it counts instead."""

    pattern: str
    meaning: str
    hint: str | None = None
    is_general: bool = False


class Query(NamedTuple):
    """What to ask the cluster: a field of the output of ``sinfo`` or ``sacctmgr``, and what that is."""

    program: str
    field: str
    meaning: str


@dataclass(frozen=True)
class Option:
    """One option.

    Attributes:
        name: without dashes.
        places: where it stands in a job; empty: nowhere.
        resource: the key of ``resources`` that it comes from.
        example: a value for that key; ``NAME``: the cluster knows the value by name.
        by_rule: a rule of the profile decides how the resource is written; else the header has its value.
        keys: other keys of the profile that it comes from, with an example; the first that is set counts.
        question: what to ask the cluster when the option is refused.
        refusals: messages that may be about it.
        reserved: why ``sbatch`` of a profile cannot set it.
        needed: why ``remove`` of a profile cannot take it out.
    """

    name: str
    places: tuple[str, ...] = (SBATCH,)
    resource: str = ""
    example: str = "NAME"
    by_rule: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    question: Query | None = None
    refusals: tuple[Refusal, ...] = ()
    reserved: str = ""
    needed: str = ""

    @property
    def is_copied(self) -> bool:
        """Whether the header has the value of the resource."""
        return bool(self.resource) and SBATCH in self.places and not self.by_rule

    @property
    def is_removable(self) -> bool:
        return bool(self.places) and not self.needed


def flag_name(text: str) -> str:
    """``--cpus-per-task``, ``cpus_per_task`` and ``cpus-per-task=4`` are the same option: ``cpus-per-task``."""
    return text.strip().lstrip("-").partition("=")[0].replace("_", "-")


_FORMS = "gpus-per-node | gres | gpus | gpus-per-task | none"
_LOG = "the log is kept per job and restart in the stage's directory"
_UNIQUE = "its unique name is how a lost submission is found again"
_INVALID_ACCOUNT = Refusal(r"[Ii]nvalid account", "the account is not valid here", ACCOUNTS)
_NO_SUCH_GPUS = Refusal(
    r"[Ii]nvalid (?:generic resource|GRES)|[Ii]nvalid gres|MaxGRES",
    "no node has these GPUs (generic resources)",
    "sinfo -o '%P %G' shows what there is",
)
_TOO_MANY_CPUS = Refusal(
    r"More processors requested than permitted|CPU count|MaxC[Pp][Uu]",
    "there are not this many nodes or CPUs",
    "sinfo -o '%P %D %c' shows how many there are",
)
_NO_SUCH_NODE = Refusal(
    r"Requested node configuration is not available",
    "no node has what was asked for (CPUs, memory, GPUs, features)",
    "sinfo -o '%P %c %m %G %f' shows what there is",
    is_general=True,
)

_ROWS = (
    Option("job-name", reserved=_UNIQUE, needed=_UNIQUE),
    Option("nodes", (SBATCH, SRUN), "nodes", "N", question=Query("sinfo", "%D", "nodes"), refusals=(Refusal(
        r"Node count specification invalid|PartitionNodeLimit|Invalid node count|MaxNode",
        "this many nodes may not be asked for", "sinfo -s shows how many there are",
    ), _TOO_MANY_CPUS), reserved="set nodes in the stage's resources"),
    Option("ntasks", (SRUN,), "nodes", "N"),
    Option("ntasks-per-node", (SBATCH, SRUN), refusals=(_TOO_MANY_CPUS, _NO_SUCH_NODE)),
    Option("cpus-per-task", (SBATCH, SRUN), "cpus", "N", question=Query("sinfo", "%c", "CPUs of a node"),
           refusals=(_TOO_MANY_CPUS, _NO_SUCH_NODE)),
    *(Option(name, resource="gpus_per_node", example="N", by_rule=True,
             keys={"gpu_request.form": _FORMS, "gpu_request.model": "MODEL", "gpu_request": _FORMS},
             question=Query("sinfo", "%G", "GPUs of a node"), refusals=(_NO_SUCH_GPUS, _NO_SUCH_NODE))
      for name in ("gpus-per-node", "gres", "gpus", "gpus-per-task")),
    Option("mem", resource="mem", example="64G", keys={"mem": "asked | node | never"},
           question=Query("sinfo", "%m", "MB of memory of a node"), refusals=(Refusal(
        r"Memory required by task is not available|Memory specification can not be satisfied"
        r"|Invalid memory specification|MaxMem",
        "no node has this much memory", "sinfo -o '%P %m' shows how much there is",
    ), _NO_SUCH_NODE)),
    *(Option(name, keys={key: "4G"}, refusals=(_NO_SUCH_NODE,))
      for name, key in (("mem-per-cpu", "per_cpu.mem"), ("mem-per-gpu", "per_gpu.mem"))),
    Option("clusters", keys={"clusters": "NAME"}, reserved="set clusters in the profile: questions go there, too",
           needed="the queue of that cluster is asked; take clusters out of the profile"),
    Option("time", resource="time", example='"H:MM:SS"', question=Query("sinfo", "%l", "time limit"), refusals=(
      Refusal(
        r"Requested time limit is invalid|Invalid --time specification|MaxWall|WallDuration|PartitionTimeLimit",
        "the time limit is more than the partition allows",
        "sinfo -o '%P %l' shows the limits; ask for less time: a stage goes on over several",
      ),)),
    Option("partition", resource="partition", question=Query("sinfo", "%R", "partitions"), refusals=(
        Refusal(r"[Ii]nvalid partition", "there is no such partition", "sinfo -s lists the partitions"),
        Refusal(r"User's group not permitted to use this partition", "you may not use this partition", "sinfo -s"),
        _INVALID_ACCOUNT,
    )),
    Option("account", resource="account", question=Query("sacctmgr", "account", "for you the account"),
           refusals=(_INVALID_ACCOUNT,)),
    Option("qos", resource="qos", question=Query("sacctmgr", "qos", "for you the qos"),
           refusals=(Refusal(r"[Ii]nvalid qos", "the QOS is not valid here", ACCOUNTS),)),
    Option("reservation", resource="reservation",
           refusals=(Refusal(r"[Rr]equested reservation|[Ii]nvalid reservation", "the reservation cannot be used",
                             "scontrol show reservation"),)),
    Option("constraint", resource="constraint", question=Query("sinfo", "%f", "features"), refusals=(Refusal(
        r"[Ii]nvalid feature specification", "no node has this feature (constraint)", "sinfo -o '%P %f' shows them",
    ), _NO_SUCH_NODE)),
    *(Option(name, keys={"continuation": "chain | requeue"}) for name in ("requeue", "no-requeue")),
    Option("kill-on-invalid-dep", keys={"kill_on_invalid_dep": "true | false"}),
    Option("chdir"),
    Option("output", reserved=_LOG),
    Option("open-mode", reserved="a requeued job appends to the log of its previous run"),
    Option("exclusive", keys={"exclusive": "never | gpu | multi_node | always"}, refusals=(_NO_SUCH_NODE,)),
    Option("mail-user", keys={"notify.mail": "NAME"}),
    Option("mail-type", keys={"notify.on": "[done, failed]", "notify.mail": "NAME"}),
    Option("signal", keys={"signal.lead": '"M:SS"', "signal.name": "USR2 | TERM", "signal": '{lead: "M:SS"}'}),
    Option("kill-on-bad-exit", (SRUN,)),
    *(Option(name, (SRUN,), keys={f"srun_options.{name.replace('-', '_')}": "NAME"})
      for name in ("mpi", "cpu-bind", "network")),
    *(Option(name, (SRUN,), keys={"containers.runtime": "pyxis | apptainer | none"})
      for name in ("environment", "container-image", "container-workdir", "container-mounts", "container-env",
                   "no-container-remap-root", "no-container-mount-home")),
    *(Option(name, (APPTAINER,)) for name in ("bind", "nv", "pwd", "rocm")),
    Option("error", (LIBRARY,), reserved=_LOG),
    Option("wait", (LIBRARY,), reserved="no process of Overnight stays alive"),
    *(Option(name, (LIBRARY,)) for name in ("unbuffered", "wckey")),
    Option("dependency", (LINE,), reserved="it comes from the pipeline's edges",
           needed="without it a stage would start before what it reads is there"),
    Option("parsable", (LINE,), reserved="the submission parses it",
           needed="the id of the job is read from sbatch's answer"),
    Option("array", (), reserved="a stage is one job"),
    Option("test-only", (), reserved="no job would be made"),
    Option("wrap", (), reserved="the job runs a script"),
)  # fmt: skip

OPTIONS: Mapping[str, Option] = {row.name: row for row in _ROWS}
