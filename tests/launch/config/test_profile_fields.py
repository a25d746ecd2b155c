"""What each key of a profile changes: a table of values and the line that follows, and every key has a row or a test."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.profile import Profile
from launch.config.profile_file import read_profile
from launch.plan.backends import probe, python_of
from launch.render import scripts, templates
from launch.render.executors import carrier
from launch.runs.client import gateway
from launch.runs.rundir import Run
from tests.launch.config.test_profile_docs import keys
from tests.sites.golden import ATTEMPT, HERE, plan_of

ROOT = Path(__file__).parents[3]
BASE = """\
executor: slurm
workspace: /w
resources:
  default: {time: "60"}
  training: {nodes: 2, gpus_per_node: 4, processes_per_node: 4}
"""
PIPELINE = (HERE / "pipeline.yaml").read_text().replace(", nodes: 2}", "}")
PYXIS = "containers: {runtime: pyxis}\nresources: {default: {image: a.sqsh}}\n"
APPTAINER = "environments: {toy: {image: /a.sif}}\ncontainers: {runtime: apptainer"


class Row(NamedTuple):
    """``text`` over the base gives ``part`` in one of the texts of a stage (cpt: 2 nodes, 4 GPUs each); of a ``part``
    that begins with "not " the rest is there without it, and gone with it."""

    key: str
    text: str
    where: str
    part: str
    stage: str = "cpt"


ROWS = [
    Row("workspace", "workspace: /other/place\n", "host", "overnight_stage=/other/place/runs/abcde/stages/cpt\n"),
    *(
        Row(key, f"{key}: mine\n", "header", f"--{key}=mine")
        for key in ("partition", "account", "qos", "reservation", "constraint")
    ),
    *(
        Row(f"resources.GROUP.{key}", f"resources: {{cpt: {{{key}: mine}}}}\n", "header", f"--{key}=mine")
        for key in ("partition", "account", "qos", "reservation", "constraint")
    ),
    Row("resources.GROUP.image", PYXIS, "srun", "--container-image=a.sqsh"),
    Row("resources.GROUP.nodes", "resources: {cpt: {nodes: 4}}\n", "header", "--nodes=4"),
    Row("resources.GROUP.nodes", "resources: {cpt: {nodes: 4}}\n", "srun", "--ntasks=4"),
    Row("resources.GROUP.nodes", "resources: {cpt: {nodes: 4}}\n", "node", "--nnodes=4 "),
    Row(
        "resources.GROUP.processes_per_node",
        "resources: {cpt: {processes_per_node: 2}}\n",
        "node",
        "--nproc-per-node=2 ",
    ),
    Row("resources.GROUP.cpus", "resources: {cpt: {cpus: 8}}\n", "header", "--cpus-per-task=8"),
    Row("resources.GROUP.cpus", "resources: {cpt: {cpus: 8}}\n", "srun", "--cpus-per-task=8"),
    Row("resources.GROUP.cpus", "resources: {cpt: {cpus: 8}}\n", "node", "export OMP_NUM_THREADS=2\n"),
    Row("resources.GROUP.gpus_per_node", "resources: {cpt: {gpus_per_node: 3}}\n", "header", "--gpus-per-node=3"),
    Row("resources.GROUP.mem", "resources: {cpt: {mem: 64G}}\n", "header", "--mem=64G"),
    Row("resources.GROUP.time", 'resources: {cpt: {time: "2:00:00"}}\n', "header", "--time=120"),
    Row(
        "partitions.NAME.max_time", 'partition: gpu\npartitions: {gpu: {max_time: "0:30:00"}}\n', "header", "--time=30"
    ),
    Row("gpu_request.form", "gpu_request: gres\n", "header", "--gres=gpu:4"),
    Row("gpu_request.form", "gpu_request: gpus\n", "header", "--gpus=8"),
    Row("gpu_request.form", "gpu_request: gpus-per-task\n", "header", "--gpus-per-task=4"),
    Row("gpu_request.form", "gpu_request: none\n", "header", "not --gpus-per-node=4"),
    Row("gpu_request.model", "gpu_request: {model: a100}\n", "header", "--gpus-per-node=a100:4"),
    Row("gpu_request.model", "gpu_request: {form: gres, model: a100}\n", "header", "--gres=gpu:a100:4"),
    Row("gpu_request.model", "gpu_request: {form: gpus, model: a100}\n", "header", "--gpus=a100:8"),
    Row("gpu_request.model", "gpu_request: {form: gpus, model: a100}\n", "header", "--gpus-per-node=a100:4"),
    Row("gpu_request.model", "gpu_request: {form: gpus-per-task, model: a100}\n", "header", "--gpus-per-task=a100:4"),
    *(Row("exclusive", f"exclusive: {rule}\n", "header", "--exclusive") for rule in ("gpu", "multi_node", "always")),
    Row("exclusive", "exclusive: always\n", "header", "--exclusive", "corpus"),
    Row("mem", "mem: node\n", "header", "--mem=0"),
    Row("srun_options.mpi", "srun_options: {mpi: pmix}\n", "srun", "--mpi=pmix"),
    Row("srun_options.cpu_bind", "srun_options: {cpu_bind: cores}\n", "srun", "--cpu-bind=cores"),
    Row("srun_options.network", "srun_options: {network: single_node_vni}\n", "srun", "--network=single_node_vni"),
    Row("containers.runtime", PYXIS, "srun", "--container-workdir=/w/runs/abcde/stages/cpt"),
    Row("containers.runtime", APPTAINER + "}\n", "node", "exec apptainer exec --bind="),
    Row("containers.runtime", PYXIS.replace("pyxis", "container_engine"), "container", 'image = "a.sqsh"'),
    Row(
        "containers.mounts",
        APPTAINER + ', mounts: ["/opt/site:/opt/site:ro"]}\n',
        "node",
        "--bind=/opt/site:/opt/site:ro ",
    ),
    Row("containers.variables", APPTAINER + ", variables: [MINE]}\n", "node", "overnight_names=(MINE)"),
    Row("containers.gpus", APPTAINER + ", gpus: nvidia}\n", "node", "apptainer exec --nv "),
    Row("containers.gpus", APPTAINER + ", gpus: amd}\n", "node", "apptainer exec --rocm "),
    Row("containers.executable", APPTAINER + ", executable: singularity}\n", "node", "exec singularity exec "),
    Row("containers.options", APPTAINER + ", options: [--cleanenv]}\n", "node", " --cleanenv /a.sif /bin/bash "),
    Row(
        "containers.options",
        PYXIS.replace("}\n", ", options: [--container-writable]}\n", 1),
        "srun",
        "--container-writable",
    ),
    Row("environments.BACKEND.venv", "environments: {toy: {venv: /v}}\n", "node", "exec /v/bin/python -m torch"),
    Row("environments.BACKEND.image", APPTAINER + "}\n", "node", " /a.sif /bin/bash "),
    Row(
        "environments.BACKEND.modules",
        "environments: {toy: {modules: [cuda/12], python: python3}}\n",
        "node",
        "module load cuda/12\n",
    ),
    Row(
        "environments.BACKEND.python",
        "environments: {toy: {modules: [a], python: /p/python3}}\n",
        "node",
        "exec /p/python3 -m torch",
    ),
    Row("file_systems.NAME.path", "file_systems: {one: {path: /w, quota: 1G}}\n", "spec", '"quota_bytes": 1073741824'),
    Row(
        "file_systems.NAME.path",
        "file_systems: {one: {path: /elsewhere, quota: 1G}, two: {path: /, quota: 2G}}\n",
        "spec",
        '"quota_bytes": 2147483648',
    ),
    Row(
        "file_systems.NAME.quota",
        "file_systems: {one: {path: /, quota: 1G}, two: {path: /w, quota: 3G}}\n",
        "spec",
        '"quota_bytes": 3221225472',
    ),
    Row(
        "file_systems.NAME.scratch",
        "file_systems: {disk: {path: /local, scratch: true}}\n",
        "node",
        "\novernight_scratch=/local/overnight-$SLURM_JOB_ID-\n",
    ),
    Row(
        "file_systems.NAME.scratch",
        APPTAINER + "}\nfile_systems: {disk: {path: /local, scratch: true}}\n",
        "node",
        "--bind=/local:/local ",
    ),
    Row("quota", "quota: 2G\nfile_systems: {one: {path: /w, quota: 1G}}\n", "spec", '"quota_bytes": 2147483648'),
    Row("continuation", "continuation: chain\n", "header", "--no-requeue"),
    Row("continuation", "continuation: chain\n", "spec", '"continuation": "chain"'),
    Row("links", "continuation: chain\nlinks: 5\n", "spec", '"links": 5'),
    Row("lead", 'lead: "5:00"\n', "spec", '"lead_seconds": 300'),
    Row("retries.CLASS", "retries: {hang: 7}\n", "spec", '"retries": {"hang": 7}'),
    Row("stall_after", 'stall_after: "10:00"\n', "spec", '"stall_seconds": 600.0'),
    Row("seals", "seals: light\n", "spec", '"seals": "light"'),
    Row("kill_on_invalid_dep", "kill_on_invalid_dep: false\n", "header", "not --kill-on-invalid-dep=yes"),
    Row("submission", "submission: rolling(3)\n", "host", "-m launch.cli resume abcde "),
    Row("signal.name", "signal: {name: TERM}\n", "header", "--signal=TERM@300"),
    Row("signal.lead", 'signal: {lead: "1:00"}\n', "header", "--signal=USR2@60"),
    Row("notify.mail", "notify: {mail: me@example.org}\n", "header", "--mail-user=me@example.org"),
    Row("notify.command", "notify: {command: 'curl -d x http://n'}\n", "host", "bash -c 'curl -d x http://n'"),
    Row("notify.on", "notify: {mail: me@example.org, on: [failed]}\n", "header", "--mail-type=FAIL"),
    Row("notify.on", "notify: {command: tell, on: [done]}\n", "host", "case $1 in done)"),
    Row("sbatch.OPTION", "sbatch: {licenses: 'scratch:1'}\n", "header", "--licenses=scratch:1"),
    Row("sbatch.OPTION", "sbatch: {time: null}\n", "header", "not --time=60"),
    Row("srun", "srun: [--label]\n", "srun", "--label"),
    Row("remove", "remove: [kill-on-bad-exit]\n", "srun", "not --kill-on-bad-exit=1"),
    Row("env.VARIABLE", "env: {NCCL_DEBUG: INFO}\n", "node", "export NCCL_DEBUG=INFO\n"),
    Row("env.VARIABLE", "env: {NCCL_DEBUG: INFO}\n", "host", "export NCCL_DEBUG=INFO\n"),
    Row("secrets", "secrets: [HF_TOKEN]\n", "node", "\n. /w/runs/abcde/private/secrets.sh\n"),
    Row("modules", "modules: [gcc/13]\n", "node", "module load gcc/13\n"),
    Row("setup", "setup: [ulimit -n 4096]\n", "job", "\nulimit -n 4096\n"),
    Row("per_cpu.mem", "per_cpu: {mem: 4G}\n", "header", "--mem-per-cpu=4G"),
    Row("per_cpu.mem", "per_cpu: {mem: 4G}\n", "header", "--mem-per-cpu=4G", "corpus"),
    Row("per_gpu.mem", "per_gpu: {mem: 60G}\nper_cpu: {mem: 4G}\n", "header", "--mem-per-gpu=60G"),
    Row("per_gpu.cpus", "per_gpu: {cpus: 8}\n", "header", "--cpus-per-task=32"),
    Row("per_gpu.cpus", "per_gpu: {cpus: 8}\n", "srun", "--cpus-per-task=32"),
    Row("clusters", "clusters: big\n", "header", "--clusters=big"),
    Row("job_name.prefix", "job_name: {prefix: lab}\n", "header", f"--job-name=lab-abcde-cpt-{ATTEMPT}"),
    Row("job_name.longest", "job_name: {longest: 17}\n", "header", f"--job-name=on-abcde-c-{ATTEMPT}"),
    Row("launcher", "launcher: [ibrun, -v]\nsrun: [--here]\n", "job", "\nibrun -v --here /w/runs"),
    Row("requeue_refused", 'requeue_refused: ["No Requeue $here"]\n', "host", "*'no requeue $here'*) break"),
    Row(
        "node_env.VARIABLE",
        "node_env: {HF_HOME: '$SLURM_TMPDIR/it is'}\n",
        "node",
        "export HF_HOME=\"${SLURM_TMPDIR:?not found on this node}\"'/it is'\n",
    ),
    Row(
        "node_scratch",
        "node_scratch: $SLURM_TMPDIR\n",
        "node",
        '\novernight_scratch="${SLURM_TMPDIR:?not found on this node}"/overnight-$SLURM_JOB_ID-\n',
    ),
    Row("poll_floor", 'poll_floor: "2:00"\n', "host", "if ((now >= last && now - last < 120)) || "),
    Row("poll_seconds", "poll_seconds: 7\n", "host", "\n    sleep 7\n"),
    *(Row("offline", "offline: false\n", where, "not export HF_HUB_OFFLINE=1\n") for where in ("host", "node")),
]

ELSEWHERE = {
    "notify.to": "tests/launch/notify/test_letters.py::test_the_command_tells_what_became_of_it",
    "name": "tests/launch/config/test_profile.py::test_defaults",
    "executor": "tests/launch/config/test_profile.py::test_who_carries_what",
    "executors.GROUP": "tests/launch/config/test_profile.py::test_who_carries_what",
    "partitions.NAME.bins.nodes": "tests/sites/test_bins.py::*",
    "partitions.NAME.bins.time": "tests/sites/test_bins.py::*",
    "partitions.NAME.max_nodes": "tests/launch/plan/test_limits.py::test_a_line_of_the_pipeline",
    **{f"partitions.NAME.{key}": "tests/launch/plan/test_limits.py::test_over_a_limit" for key in ("cpus", "memory", "gpus")},
    **{
        f"partitions.NAME.{key}": "tests/launch/plan/test_limits.py::test_features_whole_nodes_and_preemption"
        for key in ("features", "preemptible", "exclusive")
    },
    **{
        f"partitions.NAME.{key}": "tests/launch/plan/test_estimates.py::test_a_stage_after_another_has_its_model"
        for key in ("gpu_model", "gpu_memory", "cost_per_gpu_hour")
    },
    "environments.BACKEND.nodes_only": "tests/launch/config/test_profile_fields.py::test_an_interpreter_that_only_the_nodes_can_run",
    "devcluster": "tests/launch/config/test_profile_fields.py::test_the_cluster_that_is_asked",
}  # fmt: skip
"""Keys that no script shows -> the test of what they do; it names them."""


def texts(tmp_path: Path, more: str, stage_name: str) -> dict[str, str]:
    """What a stage is under the base and ``more``, by name."""
    (tmp_path / "base.yaml").write_text(BASE)
    path = tmp_path / "lab.yaml"
    path.write_text(f"extends: base.yaml\n{more}")
    profile = read_profile(path).profile
    (tmp_path / "pipeline.yaml").write_text(PIPELINE)
    plan = plan_of(profile, tmp_path / "pipeline.yaml")
    stage = plan.stage(stage_name)
    assert profile.workspace is not None
    run = Run(Workspace(profile.workspace), "abcde")
    job = carrier("submitit").render(scripts.request(run, stage, profile, ATTEMPT, 0, None))
    files = scripts.stage_scripts(run, plan, stage, profile, ATTEMPT)
    spec = scripts.stage_spec(run, plan, stage, profile, ATTEMPT, profile.links_of(stage.continuation))
    return {
        "header": "\n".join(line for line in job.splitlines() if line.startswith("#SBATCH ")) + "\n",
        "srun": next((line for line in job.splitlines() if line.startswith("srun ")), "").replace(" --", "\n--"),
        "job": job,
        "host": files.host,
        "node": files.node,
        "container": files.container,
        "spec": json.dumps(dataclasses.asdict(spec), default=str),
    }


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.key}-{row.where}")
def test_what_a_key_changes(tmp_path: Path, row: Row) -> None:
    pytest.importorskip("submitit")
    before, after = (texts(tmp_path, more, row.stage)[row.where] for more in ("", row.text))
    gone = row.part.startswith("not ")
    part = row.part.removeprefix("not ")
    end = r"(?=\s|$)" if row.where in ("header", "srun") else ""
    found = [re.search(re.escape(part) + end, text) is not None for text in (before, after)]
    assert found == [gone, not gone], after


def test_rules_that_leave_something_alone(tmp_path: Path) -> None:
    """What a rule of the site is not about."""
    pytest.importorskip("submitit")
    for rule in ("never", "gpu", "multi_node"):
        assert "--exclusive" not in texts(tmp_path, f"exclusive: {rule}\n", "corpus")["header"]
    asked = "resources: {cpt: {mem: 64G}}\n"
    assert "--mem" not in texts(tmp_path, f"mem: never\n{asked}", "cpt")["header"]
    assert "--mem=64G" in texts(tmp_path, f"mem: node\n{asked}", "cpt")["header"]
    one_node = "gpu_request: gpus\nresources: {data: {gpus_per_node: 2}}\n"
    assert "--gpus-per-node" not in texts(tmp_path, one_node, "corpus")["header"]


def test_the_cluster_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of the machine, or with ``devcluster`` that of ``overnight cluster up``."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "slurm.conf").write_text("")
    monkeypatch.setenv("OVERNIGHT_DEVCLUSTER", str(tmp_path))
    for value in (True, False):
        profile = Profile.read({"name": "x", "executor": "slurm", "devcluster": value})
        answer = gateway(profile, (), environment={"PATH": "/usr/bin:/bin"}).ask(["env"], timeout=60)
        assert (f"SLURM_CONF={tmp_path}/etc/slurm.conf" in answer.stdout.splitlines()) == value


def test_every_key_has_a_row_or_a_test() -> None:
    known = [key for key, _ in keys(Profile)]
    rows = {row.key for row in ROWS}
    assert not rows & ELSEWHERE.keys()
    assert rows | ELSEWHERE.keys() == set(known)
    for key, test in ELSEWHERE.items():
        file, _, name = test.partition("::")
        text = (ROOT / file).read_text()
        assert name == "*" or f"def {name}(" in text, test
        assert key.split(".")[-1 if not key.endswith("GROUP") else 0].replace("NAME", "") in text, f"{test}: {key}"


def test_an_interpreter_that_only_the_nodes_can_run() -> None:
    """Nodes of another architecture or with other paths: ``core`` runs our own code there, ``nodes_only`` is not asked here."""

    def of(**environments: dict[str, object]) -> Profile:
        return Profile.read({"name": "x", "executor": "slurm", "environments": environments})

    profile = of(core={"python": "/nodes/py", "nodes_only": True}, toy={"python": "/nodes/toy", "nodes_only": True})
    assert profile.core_python == "/nodes/py"
    assert python_of("toy", profile) == "/nodes/toy"
    assert probe(["toy"], profile)["toy"].versions == {"modules": "", "python": "/nodes/toy"}
    assert of().core_python == sys.executable
    with pytest.raises(ValueError, match="core runs outside of the work"):
        of(core={"python": "python3", "modules": ["x"]})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sbatch: {clusters: big}", "set clusters in the profile"),
        ("clusters: big,small", "write the name of one cluster"),
        ("node_env: {A: plain}", "names no variable of the node"),
        ("launcher: []", "write the command"),
        ("env: {HF_HOME: $SLURM_TMPDIR/hf}", "lab.yaml:2:16: env.HF_HOME: .*write it in node_env"),
        (
            "mem: node\nsbatch: {mem-per-cpu: 4G}",
            "lab.yaml:3.*one of --mem-per-cpu and --mem, which comes from mem: node",
        ),
        ("resources: {data: {mem: 4G}}\nsbatch: {mem-per-gpu: 4G}", "which comes from resources.data.mem"),
        ("per_cpu: {mem: 4G}\nsbatch: {mem: 4G}", "one of --mem and --mem-per-cpu, which comes from per_cpu.mem"),
        ("sbatch: {mem: 4G, mem-per-cpu: 4G}", "which comes from sbatch.mem-per-cpu"),
        ("launcher: [ibrun]\ncontainers: {runtime: pyxis}", "cannot start containers of pyxis"),
        ("node_scratch: $A\ncontainers: {runtime: apptainer}", "a directory whose name only the node knows"),
    ],
)
def test_values_that_the_new_rules_exclude(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(f"executor: slurm\n{text}\n")
    with pytest.raises(InputError, match=said):
        read_profile(path)


@pytest.mark.parametrize(
    "text",
    [
        "mem: never\nresources: {data: {mem: 4G}}\nsbatch: {mem-per-cpu: 4G}",
        "remove: [mem]\nresources: {data: {mem: 4G}}\nsbatch: {mem-per-cpu: 4G}",
        "mem: node\nsbatch: {mem-per-cpu: false}",
        "resources: {data: {mem: 4G}}\nsbatch: {mem: 8G}",
        "env: {PRICE: 5$}",
    ],
)
def test_values_that_go_together(tmp_path: Path, text: str) -> None:
    path = tmp_path / "lab.yaml"
    path.write_text(f"executor: slurm\n{text}\n")
    read_profile(path)


@pytest.mark.failure(26)
def test_what_a_variable_of_the_node_holds_is_never_run(tmp_path: Path) -> None:
    value = templates.on_node("a $(touch x) `id` $NODE/${NODE}; b")
    held = "$(touch y) it's; `id`"
    done = subprocess.run(
        ["bash", "-uc", f"v={value}; printf %s \"$v\""],
        env={"NODE": held, "PATH": "/usr/bin:/bin"}, cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"a $(touch x) `id` {held}/{held}; b"
    assert not list(tmp_path.iterdir())
    missing = subprocess.run(
        ["bash", "-uc", f"v={value}"], env={"PATH": "/bin"}, capture_output=True, text=True, check=False
    )
    assert missing.returncode != 0
    assert "NODE: not found on this node" in missing.stderr
