"""The table of options: each row does everywhere what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError, RejectedByCluster
from launch.config.fields import RESOURCE_KEYS
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile
from launch.render import provenance, refusal, scripts
from launch.render.executors import carrier
from launch.render.provenance import JobOption
from launch.runs.rundir import Run
from launch.slurm import refusals
from launch.slurm.client import Answer
from launch.slurm.options import APPTAINER, OPTIONS, SBATCH, SRUN, flag_name
from tests.sites.golden import ATTEMPT, HERE, plan_of
from tests.sites.test_flags import flags

BASE = """\
executor: slurm
workspace: /w
resources:
  default: {time: "60"}
  training: {gpus_per_node: 4}
"""
PYXIS = "containers: {runtime: pyxis, variables: [MINE]}\nresources: {default: {image: a.sqsh}}\n"
APPTAINERS = "environments: {toy: {image: /a.sif}}\ncontainers: {runtime: apptainer, gpus: %s}\n"

GIVES = {
    **dict.fromkeys(
        (
            "job-name", "nodes", "ntasks", "ntasks-per-node", "time", "chdir", "output", "open-mode", "requeue",
            "kill-on-invalid-dep", "kill-on-bad-exit", "gpus-per-node",
        ),
        "",
    ),
    **{key: f"{key}: mine\n" for key in ("partition", "account", "qos", "reservation", "constraint")},
    **{form: f"gpu_request: {form}\n" for form in ("gres", "gpus", "gpus-per-task")},
    "cpus-per-task": "resources: {cpt: {cpus: 8}}\n",
    "mem-per-cpu": "per_cpu: {mem: 4G}\n", "mem-per-gpu": "per_gpu: {mem: 60G}\n", "clusters": "clusters: big\n",
    "mem": "resources: {cpt: {mem: 64G}}\n",
    "no-requeue": "continuation: chain\n",
    "exclusive": "exclusive: always\n",
    "mail-user": "notify: {mail: me@example.org}\n",
    "mail-type": "notify: {mail: me@example.org}\n",
    "signal": 'signal: {lead: "1:00"}\n',
    "mpi": "srun_options: {mpi: pmix}\n",
    "cpu-bind": "srun_options: {cpu_bind: cores}\n",
    "network": "srun_options: {network: single_node_vni}\n",
    "environment": PYXIS.replace("pyxis", "container_engine"),
    **{name: PYXIS for name in OPTIONS if "container-" in name},
    "bind": APPTAINERS % "nvidia", "nv": APPTAINERS % "nvidia", "pwd": APPTAINERS % "nvidia",
    "rocm": APPTAINERS % "amd",
}  # fmt: skip
"""Option -> the lines of a profile that give it to a training job."""

STANDS = (SBATCH, SRUN, APPTAINER)

SAID = (
    "Invalid account or account/partition combination specified",
    "Invalid qos specification",
    "Invalid partition name specified",
    "User's group not permitted to use this partition",
    "Requested time limit is invalid (missing or exceeds some limit)",
    "Node count specification invalid",
    "Memory required by task is not available",
    "Invalid generic resource (gres) specification",
    "Invalid feature specification",
    "Requested reservation is invalid",
    "More processors requested than permitted",
    "Requested node configuration is not available",
)
"""What Slurm says of options that it does not name."""


class Job(NamedTuple):
    """A training job under a profile: options of header, srun line and container, and where they come from."""

    header: list[str]
    srun: list[str]
    inside: list[str]
    known: list[JobOption]

    def has(self, name: str) -> tuple[str, ...]:
        """Where it gets an option."""
        groups = zip(STANDS, (self.header, self.srun, self.inside), strict=True)
        return tuple(command for command, words in groups if name in map(flag_name, words))


def job(tmp_path: Path, more: str) -> Job:
    (tmp_path / "base.yaml").write_text(BASE)
    (tmp_path / "lab.yaml").write_text(f"extends: base.yaml\n{more}")
    found = read_profile(tmp_path / "lab.yaml")
    assert found.profile.workspace is not None
    plan, run = plan_of(found.profile), Run(Workspace(found.profile.workspace), "abcde")
    read = read_pipeline(HERE / "pipeline.yaml")
    request = scripts.request(run, plan.stage("cpt"), found.profile, ATTEMPT, 0, None)
    node = scripts.stage_scripts(run, plan, plan.stage("cpt"), found.profile, ATTEMPT).node
    known = provenance.of_stage(run, plan.stage("cpt"), found, read)
    (inside, *_) = re.findall(r"apptainer exec (.*) /a\.sif ", node) or [""]
    return Job(*flags(carrier("submitit").render(request)), inside.split(), known)


@pytest.mark.parametrize("name", OPTIONS)
def test_where_a_job_gets_it_and_what_its_line_is(tmp_path: Path, name: str) -> None:
    row = OPTIONS[name]
    wanted = tuple(command for command in STANDS if command in row.places)
    if not wanted:
        assert name not in GIVES
        assert job(tmp_path, PYXIS).has(name) == job(tmp_path, APPTAINERS % "amd").has(name) == ()
        return
    found = job(tmp_path, GIVES[name])
    assert found.has(name) == wanted
    origins = {one.command: one for one in found.known if one.option == name}
    assert set(origins) == {*wanted} - {APPTAINER}
    for one in origins.values():
        keys = [key for key in (f".{row.resource}" if row.resource else "", *row.keys) if key]
        assert one.key == "" if not keys else f".{one.key}".endswith(tuple(keys)), one
        assert bool(one.change) == bool(keys)
        if keys and GIVES[name]:  # the number of GPUs comes from the base
            assert str(one.where).startswith(f"{tmp_path}/{'base' if row.by_rule else 'lab'}.yaml:")
        if row.resource:
            assert one.change.endswith(f"{row.resource}: {row.example}" + "}" * one.change.count("}"))


@pytest.mark.failure(17)
@pytest.mark.parametrize("name", OPTIONS)
def test_whether_a_profile_can_take_it_out(tmp_path: Path, name: str) -> None:
    row, remove = OPTIONS[name], f"remove: [{name}]\n"
    if row.is_removable:
        less = job(tmp_path, GIVES.get(name, "") + remove)
        assert less.has(name) == ()
        assert name not in {one.option for one in less.known}
    else:
        said = f"cannot be left out: {row.needed}" if row.needed else f"no job gets an option '{name}'"
        with pytest.raises(InputError, match=re.escape(said)):
            job(tmp_path, remove)


@pytest.mark.failure(17)
@pytest.mark.parametrize("name", OPTIONS)
def test_whether_a_profile_can_set_it(tmp_path: Path, name: str) -> None:
    row, text = OPTIONS[name], f"sbatch: {{{name}: mine}}\n"
    if row.reserved:
        with pytest.raises(InputError, match=re.escape(f"{name!r} cannot be set: {row.reserved}")) as error:
            job(tmp_path, text)
        assert error.value.where == f"{tmp_path}/lab.yaml:2:10"
    else:
        found = job(tmp_path, text)
        assert f"--{name}=mine" in found.header
        (one,) = (one for one in found.known if (one.command, one.option) == (SBATCH, name))
        assert (one.key, one.change) == (f"sbatch.{name}", f"sbatch: {{{name}: VALUE}}")


@pytest.mark.failure(17)
@pytest.mark.parametrize("name", OPTIONS)
def test_a_refusal_that_is_about_it(name: str) -> None:
    assert refusals.about(f"sbatch: unrecognized option '--{name}'") == (name,)
    for one in OPTIONS[name].refusals:
        (text, *_) = (text for text in SAID if re.search(one.pattern, text))
        assert name in refusals.about(f"sbatch: error: Batch job submission failed: {text}")
        assert refusals.explain(text) == (one.meaning, one.hint)


class Cluster:
    """Answers every question with the same word."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.word = "minne"

    def ask(self, command: list[str], *, timeout: float) -> Answer:
        self.asked.append(" ".join(command))
        return Answer(tuple(command), 0, f"{self.word}\n", "", 0.0)


@pytest.mark.failure(17)
@pytest.mark.parametrize("name", [name for name, row in OPTIONS.items() if SBATCH in row.places])
def test_what_the_cluster_has_of_the_kind(tmp_path: Path, name: str) -> None:
    row, found, cluster = OPTIONS[name], job(tmp_path, GIVES[name]), Cluster()
    error = RejectedByCluster("no", command=["sbatch"], exit_code=1, stderr=f"sbatch: unrecognized option '--{name}'")
    refusal.add(error, found.known, tmp_path / "job.sh", cluster)
    if row.question is None:
        assert not cluster.asked
        assert "this cluster has" not in error.advice
    else:
        (asked,) = cluster.asked
        assert asked.startswith(row.question.program)
        assert asked.endswith(row.question.field)
        near = "; nearest: minne" if row.example == "NAME" else ""
        assert f"this cluster has {row.question.meaning}: minne{near}\n" in error.advice


def test_every_resource_that_slurm_is_asked_for_has_a_row() -> None:
    said = {row.resource for row in OPTIONS.values() if row.resource}
    # The image goes to the container's options; the processes of a node start inside of its one task.
    assert said == set(RESOURCE_KEYS) - {"image", "processes_per_node"}


def test_the_entry_for_a_rule_of_memory_is_one_that_a_profile_takes(tmp_path: Path) -> None:
    (one,) = (one for one in job(tmp_path, "mem: node\n").known if one.option == "mem")
    assert (one.text, one.key, one.change) == ("--mem=0", "mem", "mem: asked | node | never")
    for value in one.change.removeprefix("mem: ").split(" | "):
        job(tmp_path, f"mem: {value}\n")


def test_an_option_of_a_container_knows_its_line(tmp_path: Path) -> None:
    more = PYXIS.replace("variables: [MINE]", "options: [--container-writable]")
    (one,) = (one for one in job(tmp_path, more).known if one.option == "container-writable")
    assert (one.key, one.where) == ("containers.options", f"{tmp_path}/lab.yaml:2:39")
    assert one.change == "containers: {options: [--OPTION]}"


def test_gpus_by_another_name_are_told_by_the_name_that_is_there(tmp_path: Path) -> None:
    found = job(tmp_path, "gpu_request: {form: gres, model: H100}\n")
    for there, near in (
        ("gpu:h100:4(S:0-1)", "; nearest: h100 (gpu_request.model; capitals count)"),
        ("gpu:H100:2", ""),
    ):
        cluster = Cluster()
        cluster.word = there
        said = "sbatch: error: Batch job submission failed: Invalid generic resource (gres) specification"
        error = RejectedByCluster("no", command=["sbatch"], exit_code=1, stderr=said)
        refusal.add(error, found.known, tmp_path / "job.sh", cluster)
        assert f"this cluster has GPUs of a node: {there}{near}\n" in error.advice


@pytest.mark.parametrize("qos", ["", "qos: short\n"])
def test_a_limit_of_a_qos_is_told_as_one(tmp_path: Path, qos: str) -> None:
    """Of the default one too, which no line of a profile names."""
    found, cluster = job(tmp_path, qos), Cluster()
    said = "sbatch: error: QOSMaxGRESPerJob\nsbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
    error = RejectedByCluster("no", command=["sbatch"], exit_code=1, stderr=said)
    refusal.add(error, found.known, tmp_path / "job.sh", cluster)
    assert [cause["option"] for cause in error.causes] == [*(["qos"] if qos else []), "gpus-per-node"]
    assert ("that of your default QOS" in error.advice) == (not qos)
