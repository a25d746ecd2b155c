"""The environment in which Slurm's commands run, and which ``sbatch`` then hands to the job.

Two reasons to scrub it. Inherited ``SLURM_*`` and ``SBATCH_*`` variables override what our scripts say by design
(sbatch(1), INPUT ENVIRONMENT VARIABLES): a ``SLURM_CPU_BIND`` left over from an interactive allocation has slowed whole
fleets down. And everything here ends up in the job, in ``scontrol show`` and in the accounting database where the site
stores job environments: secrets do not belong there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

#: Set by an enclosing allocation, MPI launcher or desktop session; meaningless or harmful in another job.
_DROPPED_PREFIXES = (
    "SLURM_",
    "SLURMD_",
    "SBATCH_",
    "SRUN_",
    "SALLOC_",
    "PMI",
    "OMPI_",
    "MV2_",
    "TORCHELASTIC_",
    "PET_",
    "XDG_",
    "DBUS_",
)

#: Set by a launcher of processes (torchrun, accelerate, our own jobs): the work would take itself for another rank.
_DROPPED = frozenset({
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "GROUP_WORLD_SIZE", "NODE_RANK", "ROLE_RANK",
    "ROLE_NAME", "ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "OVERNIGHT_LINK", "OVERNIGHT_STAY",
    "OVERNIGHT_RESTART", "OVERNIGHT_SPREAD", "OVERNIGHT_JOB_ID",
})  # fmt: skip

#: Where Slurm finds its controller; without it every command looks in DNS and fails.
_KEPT = frozenset({"SLURM_CONF"})

_SECRET = re.compile(r"(?:^|_)(?:TOKEN|KEY|PAT)\Z | SECRET | PASSWORD | PASSWD", re.VERBOSE | re.IGNORECASE)


def looks_secret(name: str) -> bool:
    """Whether a variable of this name probably holds a secret (``HF_TOKEN``, ``WANDB_API_KEY``, ``DB_PASSWORD``)."""
    return _SECRET.search(name) is not None


def scrubbed(environment: Mapping[str, str], keep: Iterable[str] = (), drop: Iterable[str] = ()) -> dict[str, str]:
    """``environment`` without scheduler left-overs and secrets, and with what our parsers rely on.

    ``LC_ALL`` keeps messages in English and names in UTF-8; ``SLURM_TIME_FORMAT=%s`` makes every time an epoch second,
    so that no parser depends on the site's time zone or format. Both reach the job, too.

    Args:
        keep: names that stay whatever they look like (the profile's whitelist).
        drop: names that go whatever they look like (the secrets of pipeline and profile).
    """
    kept = _KEPT.union(keep) - frozenset(drop)
    dropped = _DROPPED.union(drop)
    result = {
        name: value
        for name, value in environment.items()
        if name in kept or not (name in dropped or name.startswith(_DROPPED_PREFIXES) or looks_secret(name))
    }
    result["LC_ALL"] = "C.UTF-8"
    result["SLURM_TIME_FORMAT"] = "%s"
    return result
