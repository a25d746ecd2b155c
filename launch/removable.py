"""Which options ``remove`` of a profile may name: all that a job can get, by either executor, in any container.

One that no job can get is a misspelling, and would leave in what the site refuses. One that only jobs of another kind,
executor or container get is none: ``overnight plan --check`` says that it has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.base.text import nearest
from launch.load import Problem
from launch.profile_fields import GpuForm

if TYPE_CHECKING:
    from launch.profile import Profile

HEADER = frozenset({
    "account", "chdir", "constraint", "cpus-per-task", "exclusive", "job-name", "kill-on-invalid-dep", "mail-type",
    "mail-user", "mem", "no-requeue", "nodes", "ntasks-per-node", "open-mode", "output", "partition", "qos", "requeue",
    "reservation", "signal", "time", *(form.value for form in GpuForm if form is not GpuForm.NONE),
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


def problems(profile: Profile) -> list[Problem]:
    """One for each entry of ``remove`` that no job can get, with the nearest that one can."""
    further = set(profile.sbatch)
    further |= {one.removeprefix("--").partition("=")[0] for one in profile.containers.options if one[:2] == "--"}
    known = sorted(REMOVABLE | further)
    found = []
    for number, name in enumerate(profile.remove):
        if name in KEPT:
            found.append(Problem(("remove", number), f"{name!r} cannot be left out: {KEPT[name]}"))
        elif name not in known:
            near = nearest(name, known)
            rest = f"nearest: {near}" if near else "`overnight plan PIPELINE --scripts` shows those of a pipeline"
            found.append(Problem(("remove", number), f"no job gets an option {name!r}; {rest}"))
    return found
