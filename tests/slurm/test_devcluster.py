"""`overnight cluster` for real: nodes, jobs, power cuts, crashes, a second cluster, an ordinary user."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.slurm.devcluster import packages
from launch.slurm.devcluster.cluster import DevCluster, DevClusterFailed
from launch.slurm.devcluster.daemons import Records, wait_until
from tests.support.slurm import Slurm, traces

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(bool(packages.missing(False)), reason=f"not installed: {' '.join(packages.missing(False))}"),
]

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A place for a cluster of the test's own; whatever happens, nothing of it stays."""
    base = Path(tempfile.mkdtemp(prefix=f"overnight-slurm-{os.getpid()}-"))
    path = base / "cluster"
    yield path
    DevCluster(path).down()
    shutil.rmtree(base)


def overnight(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "launch.cli", "cluster", *map(str, arguments)]


def test_four_nodes_have_names_and_find_each_other(slurm: Slurm) -> None:
    done = slurm.run(["srun", "-N4", "--ntasks-per-node=1", "bash", "-c", "hostname; getent hosts node1"])
    lines = done.stdout.splitlines()
    assert {line for line in lines if line.startswith("node")} == {"node1", "node2", "node3", "node4"}
    assert sum(line.split() == ["127.0.1.11", "node1"] for line in lines) == 4


def test_requeue_keeps_the_job_id_and_dependents_wait(slurm: Slurm) -> None:
    job = slurm.sbatch(
        'echo "start ${SLURM_RESTART_COUNT:-0}"; '
        'if [ -z "$SLURM_RESTART_COUNT" ]; then scontrol requeue "$SLURM_JOB_ID"; sleep 60; fi'
    )
    dependent = slurm.sbatch("true", f"--dependency=afterok:{job}")
    assert slurm.wait_for_state(job, "COMPLETED")["Restarts"] == "1"
    assert slurm.output(job).count("start 0") == slurm.output(job).count("start 1") == 1
    slurm.wait_for_state(dependent, "COMPLETED")


def test_power_cut_takes_the_job_and_power_on_brings_it_back(slurm: Slurm) -> None:
    job = slurm.sbatch("echo up; sleep 300", "--nodelist=node3")
    slurm.wait_for_state(job, "RUNNING")
    slurm.cluster.kill("node3")
    assert not slurm.cluster.status().daemons["node3"]
    # Slurm would notice by itself after SlurmdTimeout; saying so saves the test half a minute.
    slurm.run(["scontrol", "update", "nodename=node3", "state=down", "reason=power"])
    assert slurm.wait_for_state(job, "PENDING")["Restarts"] == "1"
    slurm.cluster.start("node3")
    slurm.wait_for_state(job, "RUNNING")
    assert slurm.cluster.status().healthy


def test_jobs_share_a_node_and_short_has_a_limit_of_a_minute(slurm: Slurm) -> None:
    jobs = [slurm.sbatch("sleep 60", "--nodelist=node1", "--cpus-per-task=2") for _ in range(4)]
    for job in jobs:
        slurm.wait_for_state(job, "RUNNING")
    refused = slurm.run(["sbatch", "--partition=short", "--time=2", "--wrap=true"], check=False)
    assert refused.returncode == 1
    assert "time limit" in refused.stderr.lower()


def test_asked_for_gpus_are_seen(slurm: Slurm) -> None:
    done = slurm.run(["srun", "--gpus-per-node=2", "bash", "-c", 'echo "$CUDA_VISIBLE_DEVICES"'])
    assert done.stdout.strip() == "0,1"


def test_controller_can_be_killed_under_a_running_job(slurm: Slurm) -> None:
    go = slurm.directory / "go"
    job = slurm.sbatch(f"until [ -e {go} ]; do sleep 0.1; done")
    slurm.wait_for_state(job, "RUNNING")
    # A controller that dies before it has saved its state starts the job a second time, in vain. It saves what has changed
    # within five seconds: the change made here is one that no earlier save can hold.
    state, running = slurm.directory / "state" / "job_state", time.time()
    slurm.run(["scontrol", "update", f"JobId={job}", "Comment=running"])
    assert wait_until(lambda: state.stat().st_mtime > running, 15)
    slurm.cluster.kill("slurmctld")
    assert slurm.cluster.status().nodes == {}
    go.touch()
    slurm.cluster.start("slurmctld")
    slurm.wait_for_state(job, "COMPLETED")


def test_up_again_changes_nothing(slurm: Slurm) -> None:
    def processes() -> dict[str, object]:
        records = Records(slurm.directory / "run")
        return {name: records[name] for name in records.names()}

    before = processes()
    shown = json.loads(slurm.run(overnight("up", "--dir", slurm.directory, "--json"), cwd=REPOSITORY).stdout)
    assert processes() == before
    assert shown["slurm_conf"] == str(slurm.slurm_conf)
    with pytest.raises(InputError, match="has nodes 4, not 5"):
        slurm.cluster.up(nodes=5)


def test_accounting_knows_the_job_and_its_account(slurm_accounting: Slurm) -> None:
    job = slurm_accounting.sbatch("exit 3")
    slurm_accounting.wait_for_state(job, "FAILED")
    query = ["sacct", "-X", "-n", "-P", "-j", job, "-o", "state,exitcode,account"]
    end = time.monotonic() + 60
    while (shown := slurm_accounting.run(query).stdout.strip()) != "FAILED|3:0|research":
        assert time.monotonic() < end, shown
        time.sleep(0.1)
    refused = slurm_accounting.run(["sbatch", "--account=nobodys", "--wrap=true"], check=False)
    assert refused.returncode == 1
    assert "account" in refused.stderr


@pytest.mark.skipif(bool(packages.missing(True)), reason=f"not installed: {' '.join(packages.missing(True))}")
def test_accounting_survives_a_crash_of_the_database(directory: Path) -> None:
    # A cluster of its own: one that does not come back must not fail the tests after this one.
    slurm = Slurm(DevCluster(directory), accounting=True)
    slurm.cluster.up(nodes=1, with_accounting=True)
    for daemon in ("slurmdbd", "mariadbd"):
        slurm.cluster.kill(daemon)
    slurm.cluster.up()
    assert slurm.cluster.status().healthy
    assert "research" in slurm.run(["sacctmgr", "-n", "show", "account"]).stdout


def test_two_at_once_side_by_side_and_down_leaves_nothing(slurm: Slurm, directory: Path) -> None:
    # The same cluster asked for twice, and another one, all in the same moment.
    other = directory.with_name("other")
    wanted = [directory, directory, other]
    commands = [overnight("up", "--nodes", "2", "--dir", path, "--json") for path in wanted]
    started = [subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE) for command in commands]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in started]
    assert answers[0] == answers[1]
    settings = slurm.cluster.config()
    assert settings is not None
    assert len({settings.port, answers[0]["port"], answers[2]["port"]}) == 3
    for path in (directory, other):
        mine = Slurm(DevCluster(path), accounting=False)
        assert len(mine.run(["srun", "-N2", "hostname"]).stdout.split()) == 2
        assert traces(path)
        assert mine.cluster.down()
        assert not path.exists()
        assert traces(path) == []
    assert slurm.cluster.status().healthy


def test_down_after_a_crash_of_half_the_daemons(directory: Path) -> None:
    cluster = DevCluster(directory)
    cluster.up(nodes=3)
    mine = Slurm(cluster, accounting=False)
    mine.wait_for_state(mine.sbatch("srun sleep 300", "--nodes=3"), "RUNNING")
    records = Records(directory / "run")
    for name in ("slurmctld", "node1"):
        process = records[name]
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
    for lost in ("node2", "munged"):
        (directory / "run" / f"{lost}.json").unlink()
    assert cluster.down()
    assert traces(directory) == []
    assert not directory.exists()


@pytest.mark.skipif(bool(packages.missing(True)), reason=f"not installed: {' '.join(packages.missing(True))}")
@pytest.mark.parametrize("delay", [0.15, 0.5, 2.0])
def test_down_after_up_was_killed(directory: Path, delay: float) -> None:
    argv = overnight("up", "--accounting", "--dir", directory)
    process = subprocess.Popen(argv, cwd=REPOSITORY, stdout=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    DevCluster(directory).down()
    assert traces(directory) == []
    assert not directory.exists()


def test_failure_names_the_log_and_its_last_lines(directory: Path) -> None:
    cluster = DevCluster(directory)
    settings = cluster.up(nodes=1)
    cluster.kill("slurmctld")
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # over the remains of closed connections,
        thief.bind(("0.0.0.0", settings.port))
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)  # but from now on the port is ours
        with pytest.raises(DevClusterFailed) as caught:
            cluster.start("slurmctld")
    assert "slurmctld ended by itself" in str(caught.value)
    assert f"{directory}/log/slurmctld.log" in str(caught.value)
    assert "Address already in use" in str(caught.value)


def test_down_removes_no_other_directory(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work", encoding="utf-8")
    for action in (DevCluster(tmp_path).down, DevCluster(tmp_path).up):
        with pytest.raises(InputError, match="holds no dev cluster"):
            action()
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="no /usr/bin/python3: root's may be closed")
def test_ordinary_user_in_an_odd_environment(directory: Path) -> None:
    # `nobody` exists everywhere; neither $USER nor $HOME nor /usr/sbin is there to lean on.
    directory.parent.chmod(0o755)
    nobody = pwd.getpwnam("nobody")
    home = directory.parent / "home"
    home.mkdir()
    shutil.chown(home, nobody.pw_uid, nobody.pw_gid)
    for package in ("launch", "jobs"):
        shutil.copytree(REPOSITORY / package, directory.parent / package, ignore=shutil.ignore_patterns("__pycache__"))
    cluster = home / "cluster"

    def as_nobody(argv: list[str], **environment: str) -> str:
        return subprocess.run(
            argv,
            cwd=directory.parent,
            user=nobody.pw_uid,
            group=nobody.pw_gid,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1", **environment},
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=60,
        ).stdout

    command = ["/usr/bin/python3", "-m", "launch.cli", "cluster"]
    try:
        shown = json.loads(as_nobody([*command, "up", "--dir", str(cluster), "--nodes", "2", "--json"]))
        ran = as_nobody(["srun", "-N2", "bash", "-c", "whoami; hostname"], SLURM_CONF=shown["slurm_conf"])
        assert sorted(ran.split()) == ["nobody", "nobody", "node1", "node2"]
        as_nobody([*command, "down", "--dir", str(cluster)])
        assert traces(cluster) == []
        assert not cluster.exists()
    finally:
        DevCluster(cluster).down()
