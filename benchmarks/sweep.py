"""Planning a sweep: 1,000 variants of a pipeline of eight stages in one process; and one plan with the largest profile.

Bounds to keep: 5 s of CPU and 300 MB for the sweep, 0.6 s of CPU for the plan. The variants differ in two values of the
first training stage, so that its fingerprint and those of all stages below it differ a thousand times. Probing the back
ends, in a process of its own, is counted.
"""

from __future__ import annotations

import json
import resource
from pathlib import Path

import toychain
from measure import OVERNIGHT, Spread, alternate, child, report

from launch.config.profile_file import available

VARIANTS = 1000
CPU_SECONDS, MEGABYTES, PLAN_SECONDS = 5.0, 300, 0.6


def axes() -> list[str]:
    rates = ",".join(f"{number / 100:.2f}" for number in range(1, 101))
    decays = ",".join(f"{number / 10:.1f}" for number in range(10))
    return ["--sweep", f"stages.cpt.lr={rates}", "--sweep", f"stages.cpt.weight_decay={decays}"]


def largest() -> tuple[str, Path]:
    """The packaged profile with most bytes beside its comments."""
    sizes = {
        name: sum(len(line) for line in path.read_text().splitlines() if not line.startswith("#"))
        for name, path in available().items()
    }
    name = max(sizes, key=lambda one: sizes[one])
    return name, available()[name]


def main() -> None:
    with toychain.scratch() as directory:
        pipeline = toychain.make(directory / "toy")
        workspace = toychain.fetched(pipeline, directory / "workspace")
        cluster, _ = largest()
        command = [*OVERNIGHT, "plan", pipeline, "--cluster", cluster, "--workspace", workspace]
        found = alternate(
            {
                "sweep": lambda: child([*command, *axes(), "--json"]),
                "plan": lambda: child(command),
            }
        )
        said = json.loads(found["sweep"][0].output.splitlines()[-1])
        different = {variant["stages"]["final"] for variant in said["variants"]}
        if (len(said["variants"]), len(different)) != (VARIANTS, VARIANTS):
            raise RuntimeError(f"{len(said['variants'])} variants, {len(different)} different ends")
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024  # of the largest child
        cpu = {name: Spread.of([cost.cpu for cost in costs]) for name, costs in found.items()}
        print(
            f"{VARIANTS} variants of {toychain.STAGES} stages, profile {cluster}: median (lowest to highest), seconds"
        )
        report("overnight plan --sweep, CPU", cpu["sweep"], f"{CPU_SECONDS:.0f} s", cpu["sweep"].median < CPU_SECONDS)
        report("its memory, MB", f"{memory:.0f}", f"{MEGABYTES} MB", memory < MEGABYTES)
        report("overnight plan, CPU", cpu["plan"], f"{PLAN_SECONDS} s", cpu["plan"].median < PLAN_SECONDS)


if __name__ == "__main__":
    main()
