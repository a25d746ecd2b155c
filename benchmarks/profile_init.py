"""How long a new user waits for a profile: `overnight profile init` on a real Slurm, without and with accounting.

The bound is 5 s by the clock: the command asks Slurm, the module system and the file systems at once, and waits for the
slowest. Every call is a fresh process that writes the file anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import toychain
from measure import OVERNIGHT, Cost, Spread, alternate, child, report

TARGET = 5.0


def init(home: Path, environment: Mapping[str, str]) -> Cost:
    """Write the profile of this cluster into a home of its own."""
    cost = child([*OVERNIGHT, "profile", "init", "here", "--force"], environment={**environment, "HOME": str(home)})
    written = home / ".config" / "overnight" / "profiles" / "here.yaml"
    if "partitions:" not in written.read_text(encoding="utf-8"):
        raise RuntimeError(f"{written} has no partitions: Slurm was not heard\n{cost.output}")
    return cost


def main() -> None:
    for accounting in (False, True):
        with toychain.scratch() as directory, toychain.slurm(directory, accounting=accounting) as environment:
            kept = {name: value for name, value in environment.items() if name != "XDG_CONFIG_HOME"}
            (costs,) = alternate({"init": partial(init, directory, kept)}).values()
        what = f"overnight profile init, {'with' if accounting else 'without'} accounting"
        wall = Spread.of([cost.wall for cost in costs])
        report(f"{what}, wall", wall, f"{TARGET:.0f} s", wall.median < TARGET)
        report(f"{what}, CPU", Spread.of([cost.cpu for cost in costs]))


if __name__ == "__main__":
    main()
