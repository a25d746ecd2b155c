"""Why a job waits or was refused, in plain English.

The names are those of Slurm's ``job_reason_string`` (22.05 to 24.11). About a hundred of them are limits whose name is
put together by rule (``QOSMaxCpuPerUserLimit``, ``AssocGrpMemRunMinutes``), so they are read by rule here, too.
A reason that is not known is shown as Slurm gave it.
"""

from __future__ import annotations

import re

NEVER_SATISFIED = "DependencyNeverSatisfied"

_WORDS = {
    "None": "Slurm has not looked at it yet",
    "Dependency": "waits for an earlier stage",
    NEVER_SATISFIED: "will never start: a stage it depends on did not succeed",
    "Priority": "jobs of higher priority are ahead of it",
    "Resources": "waits for nodes to become free",
    "BeginTime": "its earliest start time has not come (Slurm waits a little before it restarts a requeued job)",
    "Cleaning": "its previous run is still being cleaned up",
    "Licenses": "waits for a licence",
    "Reservation": "waits for its reservation to begin",
    "ReservationDeleted": "held: its reservation was deleted",
    "ReqNodeNotAvail": "a node that it needs is down, drained or reserved",
    "Nodes required for job are DOWN, DRAINED or reserved for jobs in higher priority partitions": (
        "nodes that it needs are down, drained or reserved for partitions of higher priority"
    ),
    "JobHeldUser": "held by its owner; release it with: scontrol release JOB",
    "JobHeldAdmin": "held by an administrator",
    "JobHoldMaxRequeue": "held: it was requeued more often than the site allows (MaxBatchRequeue)",
    "job_requeued_in_held_state": "requeued and held; release it with: scontrol release JOB",
    "launch_failed_requeued_held": "could not be launched, requeued and held; release it with: scontrol release JOB",
    "JobLaunchFailure": "could not be launched (bad node, missing directory or failing site prologue)",
    "JobArrayTaskLimit": "its array runs as many tasks at once as it may",
    "PartitionDown": "its partition is down",
    "PartitionInactive": "its partition is inactive",
    "PartitionNodeLimit": "asks for more nodes than its partition allows",
    "PartitionTimeLimit": "asks for more time than its partition allows",
    "PartitionConfig": "asks for something that its partition does not allow",
    "InvalidAccount": "its account is not valid; an administrator has to say which is",
    "InvalidQOS": "its QOS is not valid",
    "AccountNotAllowed": "its account may not use this partition",
    "QOSNotAllowed": "its QOS may not use this partition or account",
    "QOSUsageThreshold": "its account has used up its share for this QOS",
    "BadConstraints": "asks for a combination of features that no node has",
    "NodeDown": "a node that it needs is down",
    "SystemFailure": "the cluster had a failure of its own",
    "BurstBufferResources": "waits for burst-buffer space",
    "BurstBufferStageIn": "its burst buffer is being filled",
    "FedJobLock": "waits for the clusters of the federation to agree",
    "DeadLine": "can no longer meet its deadline",
    "Prolog": "the site's prologue is running",
    "TimeLimit": "reached its time limit",
    "OutOfMemory": "used more memory than it was given",
    "NonZeroExitCode": "ended with a non-zero exit code",
}

# QOS or association, group or maximum, what is limited, and per what. ``AssocGrpCPURunMinutesLimit``,
# ``QOSMaxSubmitJobPerUserLimit``, ``MaxGRESPerAccount``, ``QOSMinMemory``.
_LIMIT = (
    r"\b(?P<scope>QOS|Assoc)?(?P<kind>Grp|Max|Min)"
    r"(?P<what>SubmitJobs?|Jobs?|WallDuration|Wall|CPU|Cpu|Nodes?|Mem(?:ory)?|GRES|BB|License|Billing|Energy|Unknown)"
    r"(?P<minutes>(?:Run)?Minutes)?(?:NotSatisfied)?"
    r"(?:Per(?P<per>Job|User|Account|Node))?(?:Limit)?\b"
)

_WHAT = {
    "SubmitJob": "jobs in the queue",
    "Job": "running jobs",
    "WallDuration": "run time",
    "Wall": "run time",
    "CPU": "CPUs",
    "Node": "nodes",
    "Mem": "memory",
    "Memory": "memory",
    "GRES": "GPUs or other generic resources",
    "BB": "burst-buffer space",
    "License": "licences",
    "Billing": "billing units",
    "Energy": "energy",
    "Unknown": "a site-defined resource",
}


def limit_in_words(text: str) -> str | None:
    """The first Slurm limit named in ``text``, in words and by name; None where there is none."""
    found = re.search(_LIMIT, text)
    if found is None:
        return None
    what = found["what"].replace("Cpu", "CPU")
    resource = _WHAT.get(what) or _WHAT[what.removesuffix("s")]
    if found["minutes"]:
        single = resource.removesuffix("s") if found["what"] != "GRES" else "GPU"
        resource = f"{single}-minutes" + (" of running jobs" if found["minutes"].startswith("Run") else "")
    # Without a scope they are QOS limits, too: MaxJobsPerAccount and its kind.
    owner = "your account" if found["scope"] == "Assoc" else "the QOS"
    bound = {"Grp": "all its jobs together", "Max": "", "Min": "at least, per job"}[found["kind"]]
    per = f"per {found['per'].lower()}" if found["per"] else bound
    verb = "requires more" if found["kind"] == "Min" else "limits"
    return f"{owner} {verb} {resource}{' (' + per + ')' if per else ''}: {found[0]}"


def describe(reason: str) -> str:
    """Why a job waits, for the reason column of squeue. Unknown reasons are returned as they are."""
    reason = reason.strip().strip("()")
    if reason in _WORDS:
        return _WORDS[reason]
    # "ReqNodeNotAvail, UnavailableNodes:node4": the part after the comma names the nodes.
    head, comma, rest = reason.partition(",")
    if comma and head in _WORDS:
        return f"{_WORDS[head]} ({rest.strip()})"
    limit = limit_in_words(reason) if re.match(_LIMIT, reason) else None
    return f"waits: {limit}" if limit else reason
