"""Every site's scripts: as committed, sound for bash and shellcheck, and with the flags that its documentation wants."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch.config.profile_file import available, read_profile
from launch.render.executors import NAMES
from tests.sites import golden
from tests.sites.golden import GOLDEN, HERE, SITES, profile_of, rendered, stored

#: What every job of ours says, whatever the site.
OURS = {
    "chdir", "job-name", "output", "open-mode", "nodes", "ntasks", "ntasks-per-node", "kill-on-invalid-dep", "requeue",
    "kill-on-bad-exit",
}  # fmt: skip

#: Site -> all other flags of the training job's header, and of its srun. ``--cpus-per-task`` is passed on to srun.
WANTED = {
    "aws-parallelcluster": ("--gpus-per-node=8 --partition=gpu --time=1440", ""),
    "clariden": ("--account=g123 --partition=normal --time=720", "--environment=STAGE/attempts/aaaaaa/container.toml"),
    "delta": (
        "--account=bbka-delta-gpu --constraint=scratch --cpus-per-task=64 --gpus-per-node=4 --mem=208G"
        " --partition=gpuA100x4 --time=1440",
        "--cpus-per-task=64",
    ),
    "dgx-pyxis": (
        "--account=research --exclusive --gpus-per-node=8 --mem=0 --partition=batch --time=240",
        "--container-image=nvcr.io#nvidia/pytorch:25.06-py3 --container-workdir=STAGE"
        " --container-mounts=WORKSPACE:WORKSPACE,WORKSPACE/runs/abcde/code:WORKSPACE/runs/abcde/code:ro"
        " --no-container-remap-root --no-container-mount-home",
    ),
    "frontier": (
        "--account=abc123 --cpus-per-task=56 --gpus-per-node=8 --network=disable_rdzv_get --partition=batch --time=120",
        "--cpus-per-task=56",
    ),
    "jupiter": ("--account=research --gres=gpu:4 --partition=booster --time=120", "--cpu-bind=sockets"),
    "juwels-booster": (
        "--account=research --disable-dcgm --gres=gpu:4 --partition=booster --time=120", "--cpu-bind=sockets",
    ),
    "leonardo": (
        "--account=IscrC_research --cpus-per-task=32 --gres=gpu:4 --partition=boost_usr_prod --time=1440",
        "--cpus-per-task=32",
    ),
    "lumi-g": (
        "--account=project_465000000 --cpus-per-task=56 --gpus-per-node=8 --partition=standard-g --time=2880",
        "--cpus-per-task=56",
    ),
    "marenostrum5": (
        "--account=ehpc00 --cpus-per-task=80 --gres=gpu:4 --partition=acc --qos=acc_ehpc --time=1440",
        "--cpus-per-task=80",
    ),
    "perlmutter": (
        "--account=m0000 --constraint=gpu --cpus-per-task=128 --gpus-per-node=4 --qos=regular --time=720",
        "--cpus-per-task=128",
    ),
    "university": ("--cpus-per-task=16 --gres=gpu:4 --mem=64G --partition=gpu --time=1440", "--cpus-per-task=16"),
}  # fmt: skip


def test_every_packaged_site_is_tested() -> None:
    packaged = {path.stem for path in (HERE.parents[1] / "cluster_profiles").glob("*.yaml")} - {"local", "devcluster"}
    assert packaged == set(SITES) == set(WANTED)
    assert packaged <= set(available())


@pytest.mark.parametrize("site", SITES)
def test_scripts_are_the_committed_ones(site: str) -> None:
    wanted = stored(site)
    found = {name: (GOLDEN / name).read_text() for name in wanted}
    assert wanted == found, "if the change is wanted: python -m tests.sites.golden, and read the difference"


def test_no_golden_file_is_left_over() -> None:
    found = {path.relative_to(GOLDEN).as_posix() for path in GOLDEN.rglob("*") if path.is_file()}
    assert found == {name for site in SITES for name in stored(site)}


@pytest.mark.parametrize("name", sorted(rendered(SITES[0])))
def test_one_line_more_at_one_site_is_seen(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Wherever it is put: a golden file that holds differences alone loses none."""
    site, scripts = SITES[0], rendered(SITES[0])
    seen = [stored(site)]
    lines = scripts[name].splitlines()
    for at in range(len(lines) + 1):
        changed = {**scripts, name: "\n".join([*lines[:at], "one more", *lines[at:]])}
        monkeypatch.setattr(
            golden, "rendered", lambda other, changed=changed: changed if other == site else rendered(other)
        )
        try:
            one = stored(site)
        except AssertionError:  # inside the header
            continue
        assert one not in seen
        seen.append(one)
    assert len(seen) > len(lines) / 2


@pytest.mark.failure(17)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("site", SITES)
def test_the_flags_that_the_site_wants_and_no_others(site: str, name: str) -> None:
    workspace = str(profile_of(site).workspace)
    stage = f"{workspace}/runs/abcde/stages/cpt"
    text = rendered(site)[f"cpt.{name}.sh"].replace(stage, "STAGE").replace(workspace, "WORKSPACE")
    header = [
        shlex.split(line.removeprefix("#SBATCH "))[0] for line in text.splitlines() if line.startswith("#SBATCH ")
    ]
    (srun,) = (shlex.split(line)[1:-1] for line in text.splitlines() if line.startswith("srun "))
    wanted_header, wanted_srun = (sorted(flags.split()) for flags in WANTED[site])
    assert sorted(flag for flag in header if option(flag) not in OURS) == wanted_header
    assert sorted(flag for flag in srun if option(flag) not in OURS) == wanted_srun


def option(flag: str) -> str:
    return flag.removeprefix("--").partition("=")[0]


@pytest.mark.parametrize("site", SITES)
def test_bash_and_shellcheck_have_nothing_to_say(site: str, tmp_path: Path) -> None:
    scripts = [tmp_path / name for name in rendered(site) if name.endswith(".sh")]
    for script in scripts:
        script.write_text(rendered(site)[script.name])
        subprocess.run(["bash", "-n", script], check=True)
    # SC1091: host.sh is not followed. SC2016: paths of others.
    said = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), "-S", "warning", "-e", "SC1091", *scripts],
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.stdout == ""


@pytest.mark.parametrize("site", SITES)
def test_the_profile_says_what_it_follows_and_when_it_was_read(site: str) -> None:
    text = (HERE.parents[1] / "cluster_profiles" / f"{site}.yaml").read_text()
    comment = text[: text.index("\nname:")]
    assert re.search(r"Follows|could not be read", comment), comment
    assert "https://" in comment
    assert "fill in" in comment
    assert "account:" not in text[text.index("\nname:") :], "an account is its user's"
    assert read_profile(HERE.parents[1] / "cluster_profiles" / f"{site}.yaml").profile.workspace is None
