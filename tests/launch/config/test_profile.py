"""The profile file: layers of resources, who carries what, where profiles are found, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config import profile_file
from launch.config.fields import ResourceKeys, words_of
from launch.config.profile import Continuation, ExecutorChoice, ExecutorKind, Profile, Resources
from launch.config.profile_file import find, read_profile

PROFILE = """\
name: lab
executor: slurm
workspace: $LAB_SCRATCH/overnight
partition: batch
account: 0123
resources:
  default: {cpus: 2, time: "30"}
  training: {gpus_per_node: 4, time: "4:00:00"}
  cpt: {nodes: 2, partition: gpu}
executors: {cpt: submitit}
environments:
  trl: {venv: ~/venvs/trl}
lead: "5:00"
sbatch: {exclusive: true, comment: night, mem: null}
srun: [--mpi=none]
remove: [--gpus-per-node, wckey]
env: {OMP_NUM_THREADS: "4", EMPTY: ""}
setup: [module load cuda]
"""


def load(directory: Path, text: str = PROFILE) -> Profile:
    path = directory / "lab.yaml"
    path.write_text(text)
    return read_profile(path).profile


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LAB_SCRATCH", "/scratch/me")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def test_everything_that_is_written(tmp_path: Path) -> None:
    profile = load(tmp_path)
    assert profile.executor is ExecutorKind.SLURM
    assert profile.workspace == Path("/scratch/me/overnight")
    assert profile.account == "0123"
    assert profile.environments["trl"].interpreter == str(tmp_path / "home/venvs/trl/bin/python")
    assert profile.lead.seconds == 300
    assert profile.sbatch == {"exclusive": True, "comment": "night", "mem": None}
    assert profile.remove == ("gpus-per-node", "wckey")
    assert profile.env == {"OMP_NUM_THREADS": "4", "EMPTY": ""}
    assert profile.setup == ("module load cuda",)


def test_defaults(tmp_path: Path) -> None:
    profile = load(tmp_path, "executor: slurm\n")
    assert profile.name == "lab"  # of the file
    assert (profile.continuation, profile.links, profile.lead.seconds) == (Continuation.REQUEUE, 3, 120)
    assert profile.kill_on_invalid_dep
    assert profile.offline
    assert not profile.devcluster
    assert profile.workspace is None


def test_resources_are_layered(tmp_path: Path) -> None:
    profile = load(tmp_path)
    common = {"partition": "batch", "account": "0123", "cpus": 2}
    assert profile.resources_for("corpus") == Resources(**common, time="30")
    assert profile.resources_for("sft") == Resources(**common, gpus_per_node=4, time="4:00:00")
    stage = ResourceKeys(nodes=8, time="1:00", gpus_per_node=0)
    found = profile.resources_for("cpt", stage)
    assert found == Resources(**{**common, "partition": "gpu"}, nodes=8, gpus_per_node=0, time="1:00")
    assert (found.time_seconds, found.processes) == (60, 8)
    assert Profile(name="x", executor=ExecutorKind.SLURM).resources_for("cpt") == Resources()
    assert Resources().time_seconds is None


def test_who_carries_what(tmp_path: Path) -> None:
    profile = load(tmp_path)
    assert profile.executor_for("cpt") == ExecutorChoice.SUBMITIT
    assert profile.executor_for("sft") == ExecutorChoice.NEMO_RUN
    assert profile.executor_for("evaluate") == ExecutorChoice.SUBMITIT
    assert profile.executor_for("evaluate", "nemo_run") == "nemo_run"
    routed = load(tmp_path, "executor: slurm\nexecutors: {default: nemo_run, training: submitit, dpo: nemo_run}\n")
    assert [routed.executor_for(kind) for kind in ("corpus", "convert", "cpt", "dpo")] == [
        "nemo_run",
        "nemo_run",
        "submitit",
        "nemo_run",
    ]
    assert find("local").executor_for("cpt", "nemo_run") == "local"


@pytest.mark.parametrize(
    ("old", "new", "part"),
    [
        ("account: 0123", "account: 123", 'lab.yaml:5:10: account: expected text, got 123; quote this value: "123"'),
        ("account: 0123", 'account: "a\\n#SBATCH -x"', "account: 'a\\n#SBATCH -x' has a line break"),
        ("account: 0123", 'account: "a\\u2028b"', "account: 'a\\u2028b' has a line break"),
        ("account: 0123", 'account: ""', "account: is empty"),
        ("account: 0123", "acount: x", "acount: unknown key; nearest: account"),
        ("executor: slurm", "executor: slrum", "executor: got 'slrum'; nearest: slurm"),
        ("executor: slurm\n", "", "executor: this key is required"),
        ("$LAB_SCRATCH", "$LAB_SCRTCH", "the variable LAB_SCRTCH is not set"),
        ("$LAB_SCRATCH", "${LAB_SCRTCH}", "the variable LAB_SCRTCH is not set"),
        ("$LAB_SCRATCH", "scratch", "workspace: 'scratch/overnight' is relative"),
        ("workspace: $LAB_SCRATCH/overnight", "workspace: 3", "workspace: expected a path, got 3"),
        ('time: "30"', "time: 30", 'resources.default.time: a duration is text: write "30"'),
        ('time: "30"', "time: 1:30", None),
        ("  cpt: {", "  ctp: {", "resources.ctp: 'ctp' is no kind of job; nearest: cpt"),
        ("cpt: submitit", "cpt: submitt", "executors.cpt: got 'submitt'; nearest: submitit"),
        ("{venv: ~/venvs/trl}", "{vnev: /x}", "environments.trl.vnev: unknown key; nearest: venv"),
        ("cpus: 2", 'cpus: "2"', "resources.default.cpus: expected a whole number, got '2'"),
        ('lead: "5:00"', "lead: 300", "lead: a duration is text"),
        (
            "comment: night",
            "comment: 4",
            'sbatch.comment: expected text, true, false or nothing, got 4; quote this value: "4"',
        ),
        ("comment: night", 'comment: "a\\tb"', "sbatch.comment: 'a\\tb' has a line break"),
        ("comment: night", "com ment: night", "sbatch.com ment: 'com ment' is no long option"),
        ('OMP_NUM_THREADS: "4"', "OMP_NUM_THREADS: 4", "env.OMP_NUM_THREADS: expected text, got 4"),
        ('OMP_NUM_THREADS: "4"', '"A B": x', "env.A B: 'A B' is not the name of an environment variable"),
        ("setup: [module load cuda]", 'setup: ["a\\nb"]', "setup[0]: 'a\\nb' has a line break"),
        ("setup: [module load cuda]", "setup: module load cuda", "setup: expected a list, got 'module load cuda'"),
        ("setup: [module load cuda]", "offline: no", "offline: expected true or false, got 'no'"),
        ("setup: [module load cuda]", "links: 0", "links: must be greater than 0, got 0"),
        ("setup: [module load cuda]", "poll_seconds: 0", "poll_seconds: must be greater than 0, got 0"),
    ],
)
def test_refused(tmp_path: Path, old: str, new: str, part: str | None) -> None:
    assert old in PROFILE
    text = PROFILE.replace(old, new, 1)
    if part is None:
        load(tmp_path, text)
        return
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert part in str(caught.value)


def test_packaged_profiles_are_sound() -> None:
    names = sorted(profile_file.available())
    assert "local" in names
    for name in names:
        assert find(name).name == name


def test_found_by_path_then_in_the_home_then_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(tmp_path)
    assert find(str(tmp_path / "lab.yaml")).account == "0123"
    monkeypatch.chdir(tmp_path)
    assert find("lab.yaml").account == "0123"
    (tmp_path / "local").mkdir()  # a name is never taken for a directory that lies about
    own = profile_file.user_directory()
    own.mkdir(parents=True)
    (own / "local.yaml").write_text("executor: local\nsetup: [mine]\n")
    assert find("local").setup == ("mine",)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "elsewhere"))
    assert find("local").setup == ()


def test_unknown_names_get_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no cluster profile 'locl'; nearest: local") as caught:
        find("locl")
    assert caught.value.hint is not None
    with pytest.raises(InputError, match="No such file"):
        find(str(tmp_path / "none.yaml"))


def test_what_is_dumped_reads_the_same(tmp_path: Path) -> None:
    """``profile.yaml`` of a run is JSON of the resolved profile."""
    profile = load(tmp_path)
    assert load(tmp_path, json.dumps(profile.plain())) == profile


def test_the_file_knows_where_things_stand(tmp_path: Path) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(PROFILE)
    assert read_profile(path).where("resources", "cpt", "partition") == f"{path}:9:30"


def test_the_features_that_a_constraint_names() -> None:
    assert words_of("[gpu&hbm80g*2]|_old.1") == ["gpu", "hbm80g", "_old.1"]
