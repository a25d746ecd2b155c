"""What a real Slurm refuses is led back to the option, the line that says it, and the entry that ends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import RejectedByCluster
from launch.config.pipeline_file import read_pipeline
from launch.config.profile_file import read_profile
from launch.render import provenance, refusal, scripts
from launch.render.executors import carrier
from launch.render.provenance import JobOption
from launch.runs.rundir import Run
from launch.slurm.client import Gateway
from tests.sites.golden import HERE, plan_of
from tests.support.chains import Chain
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

BASE = 'executor: slurm\npartition: batch\nresources:\n  default: {time: "10"}\n'


def asked(
    directory: Path, text: str, pipeline: Path = HERE / "pipeline.yaml", stage_name: str = "corpus"
) -> tuple[Path, list[JobOption]]:
    """The script of a job under a profile of this text, and where its options come from."""
    path = directory / "lab.yaml"
    path.write_text(text)
    found, read = read_profile(path), read_pipeline(pipeline)
    plan = plan_of(found.profile, pipeline)
    run, stage = Run(Workspace(directory / "workspace"), "abcde"), plan.stage(stage_name)
    script = directory / "job.sh"
    script.write_text(carrier("submitit").render(scripts.request(run, stage, found.profile, "aaaaaa", 0, None)))
    return script, provenance.of_stage(run, stage, found, read)


def refused(gateway: Gateway, script: Path, known: list[JobOption]) -> RejectedByCluster:
    with pytest.raises(RejectedByCluster) as caught:
        gateway.sbatch(script)
    refusal.add(caught.value, known, script, gateway)
    return caught.value


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    ("old", "new", "option", "key", "line", "there"),
    [
        ("partition: batch", "partition: bach", "partition", "partition", "2:12", "nearest: batch"),
        ("partition: batch", "partition: batch\naccount: reserch", "account", "account", "3:10", "nearest: research"),
        ("partition: batch", "partition: batch\nqos: hihg", "qos", "qos", "3:6", "high, low, normal"),
        ("partition: batch", "partition: batch\nconstraint: hbm", "constraint", "constraint", "3:13", ""),
        (
            'time: "10"',
            'time: "10", gpus_per_node: 99',
            "gpus-per-node",
            "resources.default.gpus_per_node",
            "4:40",
            "gpu:h100",
        ),
        (
            "partition: batch",
            "partition: batch\ngpu_request: {form: gres, model: v100}\nmem: node",
            "gres",
            "gpu_request.form",
            "3:21",
            "gpu:h100",
        ),
        ('time: "10"', 'time: "10", mem: 900G', "mem", "resources.default.mem", "4:30", "16000"),
        ('time: "10"', 'time: "10", cpus: 99', "cpus-per-task", "resources.default.cpus", "4:31", "8"),
        ("partition: batch", "partition: batch\nreservation: nope", "reservation", "reservation", "3:14", ""),
        (
            "partition: batch",
            "partition: batch\nsbatch: {mail-type: NEVER}",
            "mail-type",
            "sbatch.mail-type",
            "3:21",
            "",
        ),
        ("partition: batch", "partition: batch\nsbatch: {nvlink: all}", "nvlink", "sbatch.nvlink", "3:18", ""),
    ],
)
def test_a_refusal_names_line_and_entry(
    slurm_accounting: Slurm, tmp_path: Path, old: str, new: str, option: str, key: str, line: str, there: str
) -> None:
    text = BASE.replace(old, new)
    if option == "gres":
        text += "  data: {gpus_per_node: 1}\n"
    gateway = Gateway(slurm_accounting.slurm_conf)
    error = refused(gateway, *asked(tmp_path, text))
    (found,) = (JobOption(**one) for one in error.causes)
    where = f"{tmp_path}/lab.yaml:{line}" if option != "gres" else f"{tmp_path}/lab.yaml:7:25"
    assert found.option == option
    assert (found.key, found.where) == ("resources.data.gpus_per_node" if option == "gres" else key, where)
    assert f"--{option}" in str(error)
    assert where in str(error)
    assert there in str(error)
    assert found.change
    # What is proposed ends it.
    assert found.remove == f"remove: [{option}]"
    script, _ = asked(tmp_path, text + found.remove + "\n")
    assert gateway.test_only(script)


@pytest.mark.failure(17)
def test_a_line_of_the_pipeline_is_named_too(slurm: Slurm, tmp_path: Path) -> None:
    pipeline = tmp_path / "p.yaml"
    pipeline.write_text((HERE / "pipeline.yaml").read_text().replace("from: ./raw", "from: ./raw, constraint: hbm"))
    error = refused(Gateway(slurm.slurm_conf), *asked(tmp_path, BASE, pipeline))
    column = pipeline.read_text().splitlines()[4].index("hbm") + 1
    assert f"--constraint=hbm comes from stages.corpus.constraint, {pipeline}:5:{column}" in str(error)
    assert f"constraint: NAME   in {pipeline}" in str(error)
    pipeline.write_text((HERE / "pipeline.yaml").read_text().replace("nodes: 2", "nodes: 64"))
    error = refused(Gateway(slurm.slurm_conf), *asked(tmp_path, BASE, pipeline, "cpt"))
    assert f"--nodes=64 comes from stages.cpt.nodes, {pipeline}:" in str(error)
    assert "this cluster has nodes (partition batch): 4" in str(error)
    assert f"nodes: N   in {pipeline}" in str(error)


@pytest.mark.failure(17)
def test_what_is_over_a_limit_of_the_partition(slurm_accounting: Slurm, tmp_path: Path) -> None:
    slurm_accounting.run(["scontrol", "create", "PartitionName=brief", "Nodes=ALL", "MaxTime=5", "MaxNodes=1"])
    try:
        gateway = Gateway(slurm_accounting.slurm_conf)
        text = BASE.replace("batch", "brief")
        error = refused(gateway, *asked(tmp_path, text))
        assert "--time=10 comes from resources.default.time" in str(error)
        assert "time limit (partition brief): 5:00" in str(error)
        error = refused(gateway, *asked(tmp_path, text.replace('"10"', '"5"'), stage_name="cpt"))
        assert "--nodes=2 comes from stages.cpt.nodes" in str(error)
    finally:
        slurm_accounting.run(["scontrol", "delete", "PartitionName=brief"])


@pytest.mark.failure(17)
def test_the_command_says_it_and_a_changed_profile_goes_on(slurm_accounting: Slurm, tmp_path: Path) -> None:
    profile = {"constraint": "hbm", "sbatch": {"hold": True}}
    chain = Chain(slurm_accounting, tmp_path / "work", ("corpus",), profile=profile)
    said = chain.overnight("submit", code=3).stderr
    assert f"--constraint=hbm comes from constraint, {chain.profile}:" in said
    assert "to leave it out: remove: [constraint]   in the profile" in said
    chain.profile.write_text(chain.profile.read_text() + "remove: [constraint]\n")
    run = chain.submit()
    (job,) = chain.jobs()
    assert job.run == run
    chain.cancel(run)


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    ("profile", "shown", "said"),
    [
        ({"srun": ["--cpu-bind=nonsense"]}, "--cpu-bind argument", "--cpu-bind=nonsense comes from srun[0], "),
        ({"srun_options": {"mpi": "nope"}}, "Invalid MPI type 'nope'", "--mpi=nope comes from srun_options.mpi, "),
        ({"srun": ["--nvlink=all"]}, "unrecognized option '--nvlink=all'", "--nvlink=all comes from srun[0], "),
        ({"srun": ["--cpus-per-task=99"]}, "More processors requested", "--cpus-per-task=99 comes from srun[0], "),
    ],
)
def test_what_srun_refuses_inside_a_job_is_led_back_too(
    slurm: Slurm, tmp_path: Path, profile: dict[str, object], shown: str, said: str
) -> None:
    version = slurm.run(["sinfo", "--version"]).stdout.split()[1]
    if "--cpus-per-task=99" in said and not version.startswith("22."):
        pytest.skip(f"srun of {version} refuses no such step: it waits for it until the time limit")
    chain = Chain(slurm, tmp_path / "work", ("corpus",), profile=profile)
    run = chain.submit()
    chain.wait()
    found = chain.overnight("why", run, "corpus", code=1).stdout
    assert "bad_configuration" in found
    assert shown in found
    assert f"{said}{chain.profile}:" in found
    assert f"change that entry; then: overnight submit {chain.pipeline} --cluster {chain.profile}" in found
