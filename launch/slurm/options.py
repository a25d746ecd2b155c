"""The options that a job can get, by either executor, in any container."""

from __future__ import annotations

#: Options by which GPUs are asked for.
GPU_OPTIONS = ("gres", "gpus-per-node", "gpus", "gpus-per-task")

HEADER = frozenset({
    "account", "chdir", "constraint", "cpus-per-task", "exclusive", "job-name", "kill-on-invalid-dep", "mail-type",
    "mail-user", "mem", "no-requeue", "nodes", "ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue",
    "reservation", "signal", "time", *GPU_OPTIONS,
})  # fmt: skip
"""Of sbatch."""

SRUN = frozenset({
    "container-env", "container-image", "container-mounts", "container-workdir", "cpu-bind", "cpus-per-task",
    "environment", "kill-on-bad-exit", "mpi", "network", "no-container-mount-home", "no-container-remap-root", "nodes",
    "ntasks", "ntasks-per-node",
})  # fmt: skip

APPTAINER = frozenset({"bind", "nv", "pwd", "rocm"})

LIBRARIES = frozenset({"error", "unbuffered", "wait", "wckey"})
"""What NeMo-Run and submitit would say by themselves, and never do here."""

KEPT = {
    "job-name": "its unique name is how a lost submission is found again",
    "dependency": "without it a stage would start before what it reads is there",
    "parsable": "the id of the job is read from sbatch's answer",
}
"""Options that ``remove`` does not take out, and why."""

REMOVABLE = (HEADER | SRUN | APPTAINER | LIBRARIES) - KEPT.keys()
