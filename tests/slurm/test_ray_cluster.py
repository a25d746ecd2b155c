"""The Ray template on a real Slurm, with a real Ray: four nodes, one head, and a driver that looks around.

The nodes of the dev cluster share one machine of perhaps two cores, so Ray is kept small, and each job brings up its
four nodes once. The whole template, under its own batch script, which claims the port as host.sh does.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files
from jobs.core import spec as specs
from launch.inputs import toolkit as snapshot
from launch.render import templates
from launch.slurm.devcluster import packages
from launch.slurm.devcluster.cluster import DevCluster
from tests.support import batch
from tests.support.slurm import Slurm
from tests.support.stages import spec_of

pytestmark = pytest.mark.slurm

SLOW = max(1.0, min(5.0, os.getloadavg()[0] / len(os.sched_getaffinity(0))))
"""How many processes wanted each core when these tests began."""

BRING_UP = int(240 * SLOW)
"""Seconds that Ray may take to come up on a slow machine."""

BATCH = """
export OVERNIGHT_NODES="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\\n' ' ')"
export OVERNIGHT_MASTER_ADDR=${{OVERNIGHT_NODES%% *}}
{ports}
overnight_claim_ports 4 "$SLURM_JOB_ID" || exit 1
trap overnight_free_ports EXIT
export OVERNIGHT_MASTER_PORT=$overnight_port OVERNIGHT_ENTERED=$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}
export OVERNIGHT_TOKEN=$(tr -d - </proc/sys/kernel/random/uuid)
echo "head port $overnight_port"
srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --kill-on-bad-exit=1 {node}
"""

# In place of overnight_job.py: the verbs of the toolkit as they are, and a driver that a test writes.
BOOT = """
import runpy, sys
if sys.argv[1] == "work":
    runpy.run_path({driver!r}, run_name="__main__")
else:
    sys.path.insert(0, {toolkit!r})
    from jobs import __main__
    sys.exit(__main__.main(sys.argv[1:]))
"""

LOOK_AROUND = """
import json, os, socket, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
ray.init(log_to_driver=False)
nodes = [node for node in ray.nodes() if node["Alive"]]

@ray.remote(num_cpus=1)
def where():
    kept = [name for name in os.environ if name.startswith(("SLURM", "PMI", "OMPI"))]
    return socket.gethostname(), kept

found = []
for node in nodes:
    strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
    found.append(ray.get(where.options(scheduling_strategy=strategy).remote()))
print("FOUND " + json.dumps({
    "nodes": sorted(node["NodeName"] for node in nodes),
    "ids": len({node["NodeID"] for node in nodes}),
    "hosts": sorted(host for host, _ in found),
    "launcher": sorted({name for _, kept in found for name in kept}),
    "cpus": [node["Resources"].get("CPU") for node in nodes],
    "gpus": [node["Resources"].get("GPU") for node in nodes],
    "address": os.environ["RAY_ADDRESS"],
    "tmp": [node.get("RayletSocketName", "") for node in nodes],
}), flush=True)
"""


@dataclass
class RayJob:
    """A job of the Ray template, its log and what its driver found."""

    slurm: Slurm
    id: str
    directory: Path
    nodes: int

    def log(self) -> str:
        return self.slurm.output(self.id)

    def logs(self) -> str:
        """Everything, for the message of a failed assertion."""
        node_logs = sorted((self.directory / "logs").glob("ray-*.log"))
        return self.log() + "".join(f"\n--- {path.name}\n{path.read_text()[-2500:]}" for path in node_logs)

    def wait(self, states: str | tuple[str, ...], timeout: float = BRING_UP) -> dict[str, str]:
        try:
            return self.slurm.wait_for_state(self.id, states, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def found(self) -> dict[str, Any]:
        lines = [line for line in self.log().splitlines() if line.startswith("FOUND ")]
        assert len(lines) == 1, self.logs()
        value: dict[str, Any] = json.loads(lines[0].removeprefix("FOUND "))
        return value

    def wait_for(self, text: str, timeout: float = BRING_UP) -> None:
        end = time.monotonic() + timeout
        while text not in self.log():
            assert time.monotonic() < end, f"no {text!r} within {timeout} s\n{self.logs()}"
            time.sleep(0.2)

    def wait_until_there(self, path: Path, timeout: float = BRING_UP) -> None:
        end = time.monotonic() + timeout
        while not path.exists():
            assert time.monotonic() < end, f"no {path} within {timeout} s\n{self.logs()}"
            time.sleep(0.2)

    def wait_until_gone(self, timeout: float = 60) -> None:
        """No process and no directory of this job's Ray is left."""
        end = time.monotonic() + timeout
        while left := self.left():
            assert time.monotonic() < end, f"left over after {timeout} s: {left}\n{self.logs()}"
            time.sleep(0.5)

    def left(self) -> list[str]:
        return [
            *(str(path) for path in Path("/tmp").glob(f"onr{self.id}_*")),
            *(f"{pid} {line.replace(bytes(1), b' ').decode(errors='replace')[:120]}" for pid, line in self.processes()),
        ]

    def processes(self) -> list[tuple[int, bytes]]:
        """Process ids and command lines of this job's Ray."""
        mark = f"/tmp/onr{self.id}_".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                line, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark in line or mark in environment:
                found.append((int(entry.name), line))
        return found

    def listening(self) -> dict[int, str]:
        """TCP ports that processes of this job's Ray listen on, with the command lines."""
        sockets = {}
        for pid, line in self.processes():
            try:
                names = [os.readlink(link) for link in Path("/proc", str(pid), "fd").iterdir()]
            except OSError:
                continue
            text = line.replace(bytes(1), b" ").decode(errors="replace")[:200]
            sockets |= {name[len("socket:[") : -1]: text for name in names if name.startswith("socket:[")}
        ports = {}
        for table in ("tcp", "tcp6"):
            for row in Path("/proc/net", table).read_text().splitlines()[1:]:
                fields = row.split()
                if fields[3] == "0A" and fields[9] in sockets:
                    ports[int(fields[1].rpartition(":")[2], 16)] = sockets[fields[9]]
        return ports

    def driver(self) -> int:
        """Process id of the work."""
        return next(pid for pid, line in self.processes() if b"boot.py\0work\0" in line)


def submit(
    slurm: Slurm, directory: Path, driver: str, *options: str, nodes: int = 4, seconds: int = BRING_UP, python: str = ""
) -> RayJob:
    (directory / "logs").mkdir(parents=True)
    (directory / "driver.py").write_text(driver)
    toolkit = snapshot.package_directory("jobs").parent
    (directory / "boot.py").write_text(BOOT.format(driver=str(directory / "driver.py"), toolkit=str(toolkit)))
    spec = spec_of(
        directory,
        kind="dpo",
        stage_dir=str(directory),
        target_step=1,
        continuation="requeue",
        lead_seconds=1,
        core_python=sys.executable,
        stage_python=sys.executable,
    )
    specs.save(directory / "spec.json", spec)
    node = directory / "node.sh"
    batch.write_node(
        node,
        stage_dir=directory,
        launcher="ray",
        nodes=nodes,
        stage_python=python or sys.executable,
        boot=directory / "boot.py",
        spec=directory / "spec.json",
        ray_seconds=seconds,
    )
    body = BATCH.format(ports=templates.template("ports.sh.j2"), nodes=nodes, node=shlex.quote(str(node)))
    usual = (
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        "--cpus-per-task=1",
        "--mem=300M",
        "--gpus-per-node=2",
        "--time=120",
    )
    return RayJob(slurm, slurm.sbatch(body, "--job-name=ray", *usual, *options), directory, nodes)


@pytest.fixture(autouse=True)
def _ray() -> None:
    pytest.importorskip("ray", reason="ray is not installed (it comes with the nemo-run extra)")


def test_one_node(slurm: Slurm, tmp_path: Path) -> None:
    """The whole way on the smallest cluster: work runs, its exit code is the job's, and nothing stays behind."""
    go = tmp_path / "go"
    wait = f"\nimport os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.1)\n"
    job = submit(slurm, tmp_path / "one", LOOK_AROUND + wait + "raise SystemExit(7)\n", "--hold", nodes=1)
    # What a start of this name may have left: Ray wrote a log after its directory was removed.
    Path(f"/tmp/onr{job.id}_0.0/session/logs").mkdir(parents=True, exist_ok=True)
    slurm.run(["scontrol", "release", job.id])
    job.wait_for("FOUND ")
    ports = job.listening()
    hosts = [line.split() for line in (slurm.directory / "etc" / "hosts").read_text().splitlines()]
    address = next(one[0] for one in hosts if "node1" in one) + ":" + job.found()["address"].rpartition(":")[2]
    stranger = subprocess.run(
        [sys.executable, "-c", "import ray; ray.init(log_to_driver=False); print('LET IN')"],
        env={**os.environ, "RAY_ADDRESS": address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 32},
        capture_output=True, text=True, timeout=BRING_UP, check=False,
    )  # fmt: skip
    go.touch()
    assert stranger.returncode != 0, stranger
    assert "LET IN" not in stranger.stdout
    assert "authenticat" in stranger.stderr.lower(), stranger.stderr
    assert len(ports) > 3, "the check below must be able to fail"
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    above = {port: line for port, line in ports.items() if port >= low}
    assert not above, "below the range that outgoing connections take theirs from"
    assert job.wait("FAILED")["ExitCode"] == "7:0", job.logs()
    found = job.found()
    assert len(found["hosts"]) == 1
    assert found["launcher"] == [], "no variable of the launcher may reach Ray's workers"
    assert (found["cpus"], found["gpus"]) == ([1.0], [2.0]), "the counts of the allocation, not of the machine"
    assert int(found["address"].rpartition(":")[2]) < 32768
    assert max(map(len, found["tmp"])) <= 107
    job.wait_until_gone()


@pytest.mark.full
def test_two_jobs_of_four_nodes_at_once(slurm: Slurm, tmp_path: Path) -> None:
    """Both on the same four nodes: every node takes part in both, with a task of each; no port is shared."""
    jobs = [submit(slurm, tmp_path / name, LOOK_AROUND) for name in ("first", "second")]
    found = []
    for job in jobs:
        assert job.wait("COMPLETED", timeout=600 * SLOW)["ExitCode"] == "0:0"
        found.append(job.found())
    for one in found:
        assert one["nodes"] == one["hosts"] == ["node1", "node2", "node3", "node4"]
        assert one["ids"] == 4
        assert one["cpus"] == [1.0] * 4
        assert one["launcher"] == []
    assert found[0]["address"] != found[1]["address"]
    for job in jobs:
        job.wait_until_gone()


@pytest.mark.full
def test_a_node_that_cannot_join_is_named_with_its_log(slurm: Slurm, tmp_path: Path) -> None:
    """On node3 Ray ends with an error each time: the job fails with the node's name, long before the deadline."""
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/bash\nif [ "$(hostname)" = node3 ] && [[ "$*" == *ray.scripts.scripts* ]]; then\n'
        f'  echo "no room on this node" >&2; exit 5\nfi\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    job = submit(slurm, tmp_path / "job", "print('the work ran')", python=str(python), seconds=4 * BRING_UP)
    job.wait("FAILED", timeout=600 * SLOW)
    result = files.read_json(job.directory / "result.json")
    assert result["outcome"] == "failed"
    # On a slow machine others may still be on their way then.
    assert "of 4 nodes joined the Ray cluster within" in result["evidence"]
    assert "gave up: node3" in result["evidence"]
    log = job.directory / "logs" / f"ray-{job.id}_0-node3.log"
    assert str(log) in result["evidence"]
    assert "no room on this node" in log.read_text()
    assert "exit code 5" in log.read_text()
    assert "the work ran" not in job.log()
    job.wait_until_gone()


@pytest.mark.full
def test_a_node_that_stays_silent_is_named_at_the_deadline(slurm: Slurm, tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/bash\nif [ "$(hostname)" = node2 ] && [[ "$*" == *ray.scripts.scripts* ]]; then exec sleep 600; fi\n'
        f'exec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    job = submit(slurm, tmp_path / "job", "print('the work ran')", python=str(python), nodes=2, seconds=60)
    job.wait("FAILED", timeout=400 * SLOW)
    assert "missing: node2" in files.read_json(job.directory / "result.json")["evidence"]
    job.wait_until_gone()


@pytest.mark.full
def test_cancelled_while_it_works_leaves_nothing(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path / "job", LOOK_AROUND + "\nimport time; time.sleep(600)\n", nodes=2)
    job.wait_for("FOUND ")
    assert job.left(), "the check below must be able to fail"
    slurm.run(["scancel", job.id])
    job.wait("CANCELLED", timeout=120)
    job.wait_until_gone()


@pytest.mark.full
def test_cancelled_while_a_node_joins_leaves_nothing(slurm: Slurm, tmp_path: Path) -> None:
    joining = tmp_path / "joining"
    job = submit(slurm, tmp_path / "job", "print('the work ran')", python=slow_on(tmp_path, "node2", joining), nodes=2)
    job.wait_until_there(joining)
    assert job.left(), "the check below must be able to fail"
    slurm.run(["scancel", job.id])
    job.wait("CANCELLED")
    job.wait_until_gone()
    assert "the work ran" not in job.log()


@pytest.mark.full
def test_a_killed_driver_fails_the_job_and_leaves_nothing(slurm: Slurm, tmp_path: Path) -> None:
    job = submit(slurm, tmp_path / "job", LOOK_AROUND + "\nimport time; time.sleep(600)\n", nodes=2)
    job.wait_for("FOUND ")
    os.kill(job.driver(), 9)
    assert job.wait("FAILED")["ExitCode"] in ("137:0", "0:9")
    job.wait_until_gone()


@pytest.mark.full
def test_a_node_that_dies_while_it_joins(own_slurm: Slurm, tmp_path: Path) -> None:
    """Power cut of one of four: Slurm starts the job again without it, on what was the fifth, and all four join."""
    joining = tmp_path / "joining"
    job = submit(own_slurm, tmp_path / "job", LOOK_AROUND, "--requeue", python=slow_on(tmp_path, "node3", joining))
    job.wait_until_there(joining)
    assert "node3" in own_slurm.job(job.id)["NodeList"] or "node[" in own_slurm.job(job.id)["NodeList"]
    own_slurm.cluster.kill("node3")  # its daemon and all of its processes; Slurm finds out by itself
    job.wait("COMPLETED", timeout=900 * SLOW)
    assert job.found()["nodes"] == ["node1", "node2", "node4", "node5"]
    assert own_slurm.job(job.id)["Restarts"] == "1"
    job.wait_until_gone()


def slow_on(directory: Path, node: str, began: Path) -> str:
    """A Python with which Ray begins to start on one node, says so, and gets no further."""
    python = directory / "python"
    python.write_text(
        f'#!/bin/bash\nif [ "$(hostname)" = {node} ] && [[ "$*" == *ray.scripts.scripts* ]]; then\n'
        f'  touch {shlex.quote(str(began))}; exec sleep 600\nfi\nexec {shlex.quote(sys.executable)} "$@"\n'
    )
    python.chmod(0o755)
    return str(python)


@pytest.fixture
def own_slurm() -> Iterator[Slurm]:
    """Five nodes, one of which a test may lose."""
    if lacks := packages.missing(False):
        pytest.skip(f"Debian packages not installed: {' '.join(lacks)} (overnight cluster up --install)")
    directory = Path(tempfile.mkdtemp(prefix=f"overnight-slurm-{os.getpid()}-"))
    cluster = DevCluster(directory)
    try:
        cluster.up(nodes=5, with_accounting=False)
        yield Slurm(cluster, False)
    finally:
        cluster.down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.full
def test_the_driver_is_asked_to_stop_and_its_exit_code_kept(slurm: Slurm, tmp_path: Path) -> None:
    """TERM of the batch shell's step alone reaches the driver, which ends by itself with a code of its own."""
    driver = """
import os, signal, sys, time
def leave(*_):
    print("asked to stop", flush=True); sys.exit(19)
signal.signal(signal.SIGTERM, leave)
print("READY", os.getppid(), flush=True)
time.sleep(600)
"""
    job = submit(slurm, tmp_path / "job", driver, nodes=1)
    job.wait_for("READY")
    script = next(
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and _is_script(entry, job.directory / "node.sh")
    )
    os.kill(script, 15)
    assert job.wait("FAILED", timeout=120)["ExitCode"] == "19:0", job.logs()
    assert "asked to stop" in job.log()
    job.wait_until_gone()


def _is_script(entry: Path, script: Path) -> bool:
    try:
        return (entry / "cmdline").read_bytes().split(b"\0")[:2] == [b"/bin/bash", str(script).encode()]
    except OSError:
        return False
