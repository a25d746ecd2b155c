"""What an error of a Slurm command means: no answer, or a refusal, and of what.

The patterns are messages of Slurm's ``slurm_strerror`` and of its clients, 22.05 to 24.11.
"""

from __future__ import annotations

import re

from launch.slurm import reasons
from launch.slurm.options import GPU_OPTIONS

#: The controller, the database or the network did not answer; the request may or may not have been carried out.
_SILENT = re.compile(
    r"Unable to contact slurm controller"
    r"|Socket timed out"
    r"|Connection (?:refused|reset|timed out)"
    r"|Communication connection failure"
    r"|Transport endpoint is not connected"
    r"|Zero Bytes were transmitted or received"
    r"|Message (?:send|receive) failure"
    r"|Unexpected message received"
    r"|controller (?:is )?in standby mode"
    r"|slurmctld? (?:is )?not responding"
    r"|Resource temporarily unavailable"
    r"|temporarily unable to accept job"
    r"|job update not available right now"
    r"|Problem talking to the database"
    r"|RPC rate limit",
    re.IGNORECASE,
)

#: "Munge encode failed: Failed to access ...: Connection refused" is about this machine, not about the controller.
_MUNGE = re.compile(r"[Mm]unge (?:encode|decode) failed")

_ACCOUNTS = "sacctmgr show associations user=$USER format=account,partition,qos lists yours"

# (pattern, what it means, what to do). First match wins: the precise ones before the general.
_REFUSALS: tuple[tuple[str, str, str | None], ...] = (
    (
        r"Could not establish a configuration source|DNS SRV lookup failed",
        "this machine does not know where Slurm's controller is",
        "run this on a login node of the cluster, or export SLURM_CONF=/path/to/slurm.conf",
    ),
    (r"[Mm]unge|authentication credential|Protocol authentication error", "Slurm does not accept who we are", None),
    (r"[Ii]nvalid account", "the account is not valid here", _ACCOUNTS),
    (r"[Ii]nvalid qos", "the QOS is not valid here", _ACCOUNTS),
    (r"[Ii]nvalid partition", "there is no such partition", "sinfo -s lists the partitions"),
    (r"User's group not permitted to use this partition", "you may not use this partition", "sinfo -s"),
    (
        r"Requested time limit is invalid|Invalid --time specification",
        "the time limit is more than the partition allows",
        "sinfo -o '%P %l' shows the limits; ask for less time: a stage goes on over several",
    ),
    (
        r"Node count specification invalid|PartitionNodeLimit|Invalid node count",
        "this many nodes may not be asked for",
        "sinfo -s shows how many there are",
    ),
    (
        r"Memory required by task is not available|Memory specification can not be satisfied"
        r"|Invalid memory specification",
        "no node has this much memory",
        "sinfo -o '%P %m' shows how much there is",
    ),
    (
        r"[Ii]nvalid (?:generic resource|GRES)|[Ii]nvalid gres",
        "no node has these GPUs (generic resources)",
        "sinfo -o '%P %G' shows what there is",
    ),
    (r"[Ii]nvalid feature specification", "no node has this feature (constraint)", "sinfo -o '%P %f' shows them"),
    (r"Invalid node name", "there is no such node", "sinfo -N"),
    (r"reservation", "the reservation cannot be used", "scontrol show reservation"),
    (
        r"More processors requested than permitted|CPU count (?:per node|specification)",
        "there are not this many nodes or CPUs",
        "sinfo -o '%P %D %c' shows how many there are",
    ),
    (
        r"Requested node configuration is not available",
        "no node has what was asked for (CPUs, memory, GPUs, features)",
        "sinfo -o '%P %c %m %G %f' shows what there is",
    ),
    (r"dependency problem|Job dependency", "a job that it depends on is not known to Slurm any more", None),
    (
        r"unrecognized option|unknown option|invalid option",
        "this Slurm does not know an option that we pass",
        "remove it in the cluster profile",
    ),
    (r"Requested operation is presently disabled", "the site or the job's --no-requeue forbids this", None),
    (r"Invalid job id", "Slurm does not know this job (any more)", None),
    (r"no longer pending", "the job is not waiting any more", None),
    (r"already (?:complet|finished)", "the job has already ended", None),
    (r"Access/permission denied|Invalid user id|not permitted", "you may not do this", None),
    (r"accounting storage is disabled", "this cluster keeps no accounting", None),
)


_NODE_SHAPE = ("constraint", *GPU_OPTIONS, "mem", "cpus-per-task", "ntasks-per-node", "exclusive")

#: (pattern, the options of sbatch that such a refusal may be about). All that match count.
_ABOUT: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"[Ii]nvalid account", ("account", "partition")),
    (r"[Ii]nvalid qos", ("qos",)),
    (r"[Ii]nvalid partition|User's group not permitted to use this partition", ("partition",)),
    (r"Requested time limit is invalid|MaxWall|WallDuration|PartitionTimeLimit", ("time",)),
    (r"Node count specification invalid|PartitionNodeLimit|Invalid node count|MaxNode", ("nodes",)),
    (r"Memory required by task is not available|Memory specification can not be satisfied|MaxMem", ("mem",)),
    (r"[Ii]nvalid (?:generic resource|GRES)|[Ii]nvalid gres|MaxGRES", GPU_OPTIONS),
    (r"[Ii]nvalid feature specification", ("constraint",)),
    (r"[Rr]eservation", ("reservation",)),
    (r"More processors requested than permitted|CPU count|MaxC[Pp][Uu]", ("cpus-per-task", "ntasks-per-node", "nodes")),
    (r"Requested node configuration is not available", _NODE_SHAPE),
)  # fmt: skip

#: Options that sbatch and srun themselves name: one that it does not know, or whose value it cannot read.
_NAMED = re.compile(
    r"(?:unrecognized|unknown|invalid) option '?--([a-z][a-z0-9-]*)"
    r"|(?:Invalid|unrecognized) --([a-z][a-z0-9-]*) (?:specification|argument)"
    r"|(?:for|parse) --([a-z][a-z0-9-]*)\b"
    r"|option '--([a-z][a-z0-9-]*)' doesn't allow"
    r"|Invalid (MPI) type",
    re.IGNORECASE,
)


def about(stderr: str) -> tuple[str, ...]:
    """Names of the options of sbatch or srun that a refusal may be about, without dashes; empty: of none."""
    named = tuple(next(filter(None, found)).lower() for found in _NAMED.findall(stderr))
    if named:
        return named
    # The precise one first: "Memory ... can not be satisfied" is followed by a line about the node configuration.
    sets = [options for pattern, options in _ABOUT if re.search(pattern, stderr)]
    precise = [options for options in sets if options is not _NODE_SHAPE] or sets
    return tuple(dict.fromkeys(option for options in precise for option in options))


_POLICY = re.compile(r"violates accounting/QOS policy|AccountingPolicy|policy \(job submit limit")


def is_silence(stderr: str) -> bool:
    """Whether this error means that nobody answered (so the outcome is open) rather than a refusal."""
    return _SILENT.search(stderr) is not None and _MUNGE.search(stderr) is None


def is_submit_limit(stderr: str) -> bool:
    """Whether too many jobs are in the queue for this one: later it may be accepted."""
    return re.search(r"(?:QOS|Assoc)(?:Max|Grp)SubmitJob", stderr) is not None


def explain(stderr: str) -> tuple[str, str | None]:
    """A refusal in plain words, and the next thing to try if there is one."""
    limit = reasons.limit_in_words(stderr)
    if limit:
        return f"a limit of the site is reached: {limit}", "wait until your other jobs are done, then: overnight resume"
    if _POLICY.search(stderr):
        return (
            "a limit of your account or QOS is reached (jobs, size or time; Slurm does not say which)",
            f"{_ACCOUNTS}; then: overnight resume",
        )
    for pattern, meaning, hint in _REFUSALS:
        if re.search(pattern, stderr):
            return meaning, hint
    lines = [line for line in stderr.splitlines() if line.strip()]
    return (lines[-1].strip() if lines else "it gave no reason"), None
