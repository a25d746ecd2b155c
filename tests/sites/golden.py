"""The scripts that a small chain has at each site: ``python -m tests.sites.golden`` writes them anew.

Nothing of this machine is in them: what is installed and what the inputs hold is given, the rest follows from the
profile that a user of the site would write (``users/``).
"""

from __future__ import annotations

import shutil
from pathlib import Path

from jobs.core.paths import Workspace
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Profile
from launch.config.profile_file import read_profile
from launch.plan import builder
from launch.plan.backends import python_of
from launch.plan.model import BackEndFacts, Facts, FetchedFacts, Plan
from launch.render import scripts
from launch.render.executors import NAMES, carrier
from launch.runs.rundir import Run

HERE = Path(__file__).parent
GOLDEN = HERE / "golden"
SITES = tuple(sorted(path.stem for path in (HERE / "users").glob("*.yaml")))
ATTEMPT = "aaaaaa"


def profile_of(site: str) -> Profile:
    """The user's profile, on top of the one that comes with the package."""
    return read_profile(HERE / "users" / f"{site}.yaml").profile


def plan_of(profile: Profile, pipeline: Path = HERE / "pipeline.yaml") -> Plan:
    """The chain as it would be planned where these back ends are installed."""

    def facts(name: str, kinds: set[str], distributed: bool = False) -> BackEndFacts:
        python = python_of(name, profile) if name in profile.environments else "/home/me/venv/bin/python"
        return BackEndFacts(
            {}, frozenset(kinds), ("toy", "hf"), ("toy",), "torchrun" if distributed else "python", distributed, python
        )

    known = {
        "toy": facts("toy", {"cpt"}, True),
        "data": facts("data", {"corpus"}),
        "convert": facts("convert", {"convert"}),
    }
    base = FetchedFacts("base", "./model", "hf", "ab" * 32, present=True)
    world = Facts(known, {"corpus": ()}, {"base": base}, core_python="/home/me/venv/bin/python")
    return builder.build(read_pipeline(pipeline).pipeline, profile, world)


def rendered(site: str) -> dict[str, str]:
    """File name -> text: what sbatch gets from either executor, what srun starts, what a container engine reads."""
    profile = profile_of(site)
    plan = plan_of(profile)
    assert profile.workspace is not None
    run = Run(Workspace(profile.workspace), "abcde")
    files: dict[str, str] = {}
    for stage in plan.stages:
        request = scripts.request(run, stage, profile, ATTEMPT, 0, None)
        for name in NAMES:
            files[f"{stage.name}.{name}.sh"] = carrier(name).render(request)
        texts = scripts.stage_scripts(run, plan, stage, profile, ATTEMPT)
        files[f"{stage.name}.node.sh"] = texts.node
        if texts.container:
            files[f"{stage.name}.container.toml"] = texts.container
    return files


def main() -> None:
    """Write all golden files."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for site in SITES:
        (GOLDEN / site).mkdir(parents=True)
        for name, text in rendered(site).items():
            (GOLDEN / site / name).write_text(text)
        print(site)


if __name__ == "__main__":
    main()
