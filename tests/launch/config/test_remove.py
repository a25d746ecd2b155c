"""``remove:`` of a profile: what it takes out, which entries are refused, and which are said to change nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.profile_file import ProfileFile, read_profile
from launch.render import provenance, scripts
from launch.render.executors import NAMES, carrier
from launch.runs.rundir import Run
from launch.site import check
from launch.slurm.options import APPTAINER, OPTIONS, SBATCH, SRUN, flag_name
from tests.sites.golden import ATTEMPT, HERE, SITES, plan_of, rendered
from tests.sites.test_flags import flags
from tests.support import made_runs


def over(tmp_path: Path, site: str, text: str) -> ProfileFile:
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: {HERE / 'users' / f'{site}.yaml'}\n{text}")
    return read_profile(path)


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("kill-on-bad-exti", "remove[0]: no job gets an option 'kill-on-bad-exti'; nearest: kill-on-bad-exit"),
        ("--grse", "remove[0]: no job gets an option 'grse'; nearest: gres"),
        ("nodelist", "remove[0]: no job gets an option 'nodelist'; nearest: nodes"),
        ("zzz", "remove[0]: no job gets an option 'zzz'; `overnight plan PIPELINE --scripts` shows those"),
        ("job-name", "remove[0]: 'job-name' cannot be left out: its unique name is how"),
        ("dependency", "remove[0]: 'dependency' cannot be left out: without it a stage would start before"),
        ("--parsable", "remove[0]: 'parsable' cannot be left out: the id of the job is read"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, entry: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        over(tmp_path, "university", f"remove: [{entry}]\n")
    assert f"{tmp_path}/mine.yaml:2:10: {said}" in str(caught.value)


def test_a_run_is_not_locked_out_of_its_own_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was submitted by a version that accepted more can be looked at and cancelled."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    run = made_runs.make(tmp_path / "ws", made_runs.stage("cpt"))
    with open(run.paths.profile, "a") as stream:
        stream.write("remove: [gres-flags, dependency]\n")
    assert run.profile().remove == ("gres-flags", "dependency")
    with pytest.raises(InputError, match="no job gets an option 'gres-flags'"):
        read_profile(run.paths.profile)


def test_what_the_profile_adds_can_be_taken_out(tmp_path: Path) -> None:
    """By whoever extends it: an option of `sbatch:`, or of pyxis' options."""
    text = "sbatch: {licenses: 'scratch:1'}\ncontainers: {options: [--container-writable]}\n"
    found = over(tmp_path, "dgx-pyxis", f"{text}remove: [licenses, container-writable]\n")
    assert found.profile.remove == ("licenses", "container-writable")
    run = Run(Workspace(tmp_path), "abcde")
    text = carrier("submitit").render(
        scripts.request(run, plan_of(found.profile).stage("cpt"), found.profile, ATTEMPT, 0, None)
    )
    assert "licenses" not in text
    assert "container-writable" not in text
    assert "--container-image" in text


def test_every_option_that_any_site_gets_may_be_named() -> None:
    for site in SITES:
        profile = read_profile(HERE / "users" / f"{site}.yaml").profile
        for name, text in rendered(site).items():
            if name.endswith(tuple(f".{executor}.sh" for executor in NAMES)):
                header, srun = flags(text)
                assert {flag_name(one) for one in header} - profile.sbatch.keys() <= in_place(SBATCH), site
                assert {flag_name(one) for one in srun} - set(map(flag_name, profile.srun)) <= in_place(SRUN), site


def in_place(command: str) -> set[str]:
    return {name for name, row in OPTIONS.items() if command in row.places}


@pytest.mark.parametrize(
    "option", sorted(name for name, row in OPTIONS.items() if APPTAINER in row.places and name != "nv")
)
def test_what_apptainer_is_told_can_be_left_out(tmp_path: Path, option: str) -> None:
    def entered(text: str) -> list[str]:
        found = over(tmp_path, "lumi-g", text)
        plan = plan_of(found.profile)
        run = Run(Workspace(Path("/scratch/me")), "abcde")
        node = scripts.stage_scripts(run, plan, plan.stage("cpt"), found.profile, ATTEMPT).node
        (line,) = (line for line in node.splitlines() if "singularity exec" in line or "apptainer exec" in line)
        return line.split()

    whole, less = entered(""), entered(f"remove: [{option}]\n")
    assert any(word.startswith(f"--{option}") for word in whole)
    assert less == [word for word in whole if word.partition("=")[0] != f"--{option}"]


def test_entries_without_effect_are_said(tmp_path: Path) -> None:
    """Right for another executor, kind, container or form of the GPU request: no error, and not passed over."""
    found = over(tmp_path, "university", "remove: [wckey, kill-on-bad-exit, container-image, gpus, bind, requeue]\n")
    plan = plan_of(found.profile)
    run = Run(Workspace(tmp_path), "abcde")
    assert provenance.without_effect(run, plan.stages, found) == [
        (0, "wckey"),
        (2, "container-image"),
        (3, "gpus"),
        (4, "bind"),
    ]
    first, *_ = check.without_effect(found, run, plan.stages, "of this plan")
    assert (first.level, first.what, first.where) == ("warn", "remove", f"{tmp_path}/mine.yaml:2:10")
    assert first.text == "no job of this plan gets --wckey: this entry has no effect"
    inside = over(tmp_path, "lumi-g", "remove: [bind, rocm, nv]\n")
    assert provenance.without_effect(run, plan_of(inside.profile).stages, inside) == [(2, "nv")]
