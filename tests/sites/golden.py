"""The scripts that a small chain has at each site: ``python -m tests.sites.golden`` writes them anew.

``golden/common/`` holds each script once, as it is at ``COMMON`` and without its header. ``golden/SITE.txt`` holds the
headers of a site, and of each script the lines that differ from the common one.

Nothing of this machine is in them: what is installed and what the inputs hold is given, the rest follows from the
profile that a user of the site would write (``users/``).
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from jobs.core.capabilities import Capabilities
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
COMMON = "university"


def profile_of(site: str) -> Profile:
    """The user's profile, on top of the one that comes with the package."""
    return read_profile(HERE / "users" / f"{site}.yaml").profile


def plan_of(profile: Profile, pipeline: Path = HERE / "pipeline.yaml") -> Plan:
    """The chain as it would be planned where these back ends are installed."""

    def facts(name: str, kinds: set[str], distributed: bool = False) -> BackEndFacts:
        python = python_of(name, profile) if name in profile.environments else "/home/me/venv/bin/python"
        launcher = "torchrun" if distributed else "python"
        formats = frozenset({"toy", "hf"}), frozenset({"toy"})
        return BackEndFacts({}, python, Capabilities(frozenset(kinds), *formats, "file", launcher, distributed))

    known = {
        "toy": facts("toy", {"cpt"}, True),
        "data": facts("data", {"corpus"}),
        "convert": facts("convert", {"convert"}),
    }
    base = FetchedFacts("base", "./model", "hf", "ab" * 32, present=True)
    world = Facts(known, {"corpus": ()}, {"base": base}, core_python="/home/me/venv/bin/python")
    return builder.build(read_pipeline(pipeline).pipeline, profile, world)


@functools.cache
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


def stored(site: str) -> dict[str, str]:
    """Path below ``golden/`` -> text: the site's own file, and of ``COMMON`` the scripts that others are compared with."""
    headers, bodies = _parts(site)
    _, common = _parts(COMMON)
    lines = [f"WORKSPACE: {profile_of(site).workspace}"]
    for stage, header in headers.items():
        lines += ["", f"== header of {stage}", *header]
    for name, body in bodies.items():
        if found := list(_differences(common.get(name, []), body)):
            lines += ["", f"== {name}", *found]
    files = {f"{site}.txt": [*lines, ""]}
    if site == COMMON:
        files |= {f"common/{name}": body for name, body in bodies.items()}
    return {name: "\n".join(lines) for name, lines in files.items()}


def _parts(site: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Stage -> its header, the same for either executor; file name -> its lines with ``#SBATCH ...`` for the header."""
    workspace = str(profile_of(site).workspace)
    headers: dict[str, list[str]] = {}
    bodies: dict[str, list[str]] = {}
    for name, text in rendered(site).items():
        lines = text.replace(workspace, "WORKSPACE").split("\n")
        header = [line for line in lines if line.startswith("#SBATCH ")]
        if header:
            at = lines.index(header[0])
            assert lines[at : at + len(header)] == header, f"{site}, {name}: the header is not in one piece"
            lines[at : at + len(header)] = ["#SBATCH ..."]
            stage = name.partition(".")[0]
            assert headers.setdefault(stage, header) == header, f"{site}: the executors' headers of {stage} differ"
        bodies[name] = lines
    return headers, bodies


def _differences(common: Sequence[str], lines: Sequence[str]) -> Iterator[str]:
    """What to take out (-) and put in (+), each after as many common lines as say where."""
    for tag, start, end, first, last in SequenceMatcher(None, common, lines, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        before = start
        while before and _count(common, common[before:end]) != 1:
            before -= 1
        yield from (f"  {line}" for line in common[before:start])
        yield from (f"- {line}" for line in common[start:end])
        yield from (f"+ {line}" for line in lines[first:last])


def _count(lines: Sequence[str], part: Sequence[str]) -> int:
    return sum(lines[at : at + len(part)] == part for at in range(len(lines)))


def main() -> None:
    """Write all golden files."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    (GOLDEN / "common").mkdir(parents=True)
    for site in SITES:
        for name, text in stored(site).items():
            (GOLDEN / name).write_text(text)
        print(site)


if __name__ == "__main__":
    main()
