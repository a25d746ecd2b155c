"""Which options ``remove`` of a profile may name: all that a job can get, by either executor, in any container.

One that no job can get is a misspelling, and would leave in what the site refuses. One that only jobs of another kind,
executor or container get is none: ``overnight plan --check`` says that it has no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.base.text import nearest
from launch.load import Problem
from launch.slurm.options import KEPT, REMOVABLE

if TYPE_CHECKING:
    from launch.profile import Profile


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
