"""Every flag that a job gets at any of the sites can be left out, by either executor, and is the same by both."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.document.reader import parse
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import ProfileFile, read_profile
from launch.render import provenance, scripts
from launch.render.executors import NAMES, carrier
from launch.render.request import JobRequest
from launch.runs.rundir import Run
from launch.slurm.options import flag_name
from tests.sites.golden import ATTEMPT, HERE, SITES, plan_of

STAGES = ("corpus", "cpt")


def of_site(site: str, remove: tuple[str, ...] = ()) -> tuple[ProfileFile, Run]:
    found = read_profile(HERE / "users" / f"{site}.yaml")
    if remove:
        text = f"cluster: {{remove: [{', '.join(remove)}]}}\n"
        found = found.with_pipeline(*parse(text, "p.yaml"))
    assert found.profile.workspace is not None
    return found, Run(Workspace(found.profile.workspace), "abcde")


def request(site: str, stage: str, remove: tuple[str, ...] = ()) -> JobRequest:
    found, run = of_site(site, remove)
    return scripts.request(run, plan_of(found.profile).stage(stage), found.profile, ATTEMPT, 0, None)


def flags(text: str) -> tuple[list[str], list[str]]:
    """Options of the header and of srun."""
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH ")]
    (srun,) = (shlex.split(line)[1:-1] for line in text.splitlines() if line.startswith("srun "))
    return header, srun


@pytest.mark.failure(17)
@pytest.mark.parametrize("site", SITES)
def test_both_executors_say_the_same(site: str) -> None:
    for stage in STAGES:
        (nemo_header, nemo_srun), (submitit_header, submitit_srun) = (
            flags(carrier(name).render(request(site, stage))) for name in NAMES
        )
        assert sorted(nemo_header) == sorted(submitit_header)
        assert sorted(nemo_srun) == sorted(submitit_srun)


@pytest.mark.failure(17)
@pytest.mark.parametrize("site", SITES)
def test_each_flag_can_be_left_out_and_takes_no_other_along(site: str) -> None:
    whole = request(site, "cpt")
    for name in NAMES:
        header, srun = flags(carrier(name).render(whole))
        seen = {flag_name(flag) for flag in (*header, *srun)}
        assert {"time", "nodes", "ntasks-per-node", "kill-on-bad-exit", "chdir"} <= seen
        for flag in sorted(seen - {"job-name"}):
            left = flags(carrier(name).render(replace(whole, remove=(*whole.remove, flag))))
            assert left == tuple([one for one in flags if flag_name(one) != flag] for flags in (header, srun)), flag


@pytest.mark.parametrize("site", ["dgx-pyxis", "juwels-booster", "lumi-g"])
def test_the_entry_of_the_profile_does_it(site: str) -> None:
    whole = flags(carrier("submitit").render(request(site, "cpt")))
    names = tuple(sorted({flag_name(flag) for flag in (*whole[0], *whole[1])} - {"job-name"}))
    found, run = of_site(site, names)
    bare = flags(carrier("submitit").render(request(site, "cpt", names)))
    added = {flag_name(flag) for flag in found.profile.srun}  # taken out there
    assert {flag_name(flag) for flag in (*bare[0], *bare[1])} == {"job-name", *added}
    read = read_pipeline(HERE / "pipeline.yaml")
    known = provenance.of_stage(run, plan_of(found.profile).stage("cpt"), found, read)
    assert {one.option for one in known} == {"job-name", *added}


@pytest.mark.parametrize("site", SITES)
def test_every_flag_knows_the_line_that_it_comes_from(site: str) -> None:
    found, run = of_site(site)
    read = read_pipeline(HERE / "pipeline.yaml")
    plan = plan_of(found.profile)
    for stage in STAGES:
        known = provenance.of_stage(run, plan.stage(stage), found, read)
        header, srun = flags(carrier("nemo_run").render(request(site, stage)))
        assert sorted(
            one.text.replace("-attempt", f"-{ATTEMPT}") for one in known if one.command == "sbatch"
        ) == sorted(map(unquoted, header))
        steps = [
            one.text.replace("attempts/attempt/", f"attempts/{ATTEMPT}/") for one in known if one.command == "srun"
        ]
        assert sorted(steps) == sorted(srun)
        for one in known:
            assert bool(one.remove) == (one.option != "job-name"), one
            if one.where is not None:
                line = int(one.where.split(":")[-2])
                text = Path(one.where.rsplit(":", 2)[0]).read_text().splitlines()[line - 1]
                assert one.key.split(".")[-1].split("[")[0] in text, one


def unquoted(flag: str) -> str:
    return shlex.split(flag)[0]


def test_the_name_of_a_job_stays() -> None:
    with pytest.raises(InputError, match=r"p.yaml:1:20: remove.*'job-name' cannot be left out: its unique name"):
        of_site("lumi-g", ("job-name",))
