"""The torchrun path of node.sh on a real Slurm, with the real torchrun: two jobs at once, and TERM."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from launch.inputs import toolkit
from launch.render import templates
from tests.support import batch
from tests.support.slurm import Slurm

pytestmark = [pytest.mark.slurm, pytest.mark.train]

BATCH = """
export OVERNIGHT_NODES="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\\n' ' ')"
export OVERNIGHT_MASTER_ADDR=${{OVERNIGHT_NODES%% *}}
{ports}
overnight_claim_ports 4 {seed} || exit 1
trap overnight_free_ports EXIT
export OVERNIGHT_MASTER_PORT=$overnight_port OVERNIGHT_ENTERED=$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}
echo "port $overnight_port"
srun --nodes={nodes} --ntasks={nodes} --ntasks-per-node=1 --kill-on-bad-exit=1 {node}
"""

WORLD = """
import os, time, torch, torch.distributed as dist
dist.init_process_group("gloo")
value = torch.ones(1)
dist.all_reduce(value)
time.sleep(3)  # both jobs at once
print("WORLD", os.environ["SLURM_JOB_ID"], dist.get_rank(), int(value.item()), os.environ["MASTER_ADDR"], flush=True)
dist.destroy_process_group()
"""

BOOT = """
import sys
if sys.argv[1] != "work":
    sys.path.insert(0, {toolkit!r})
    from jobs import __main__
    sys.exit(__main__.main(sys.argv[1:]))
"""

SAVES = """
import signal, sys, time
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
print("READY", flush=True)
while not stop:
    time.sleep(0.1)
time.sleep(35)
print("SAVED", flush=True)
sys.exit(0)
"""


def submit(slurm: Slurm, directory: Path, work: str, seed: str, nodes: int, interface: str = "") -> str:
    directory.mkdir()
    boot = directory / "boot.py"
    # The verbs of the toolkit as they are, and a work of the test's.
    boot.write_text(BOOT.format(toolkit=str(toolkit.package_directory("jobs").parent)) + work)
    node = directory / "node.sh"
    batch.write_node(
        node,
        stage_dir=directory,
        launcher="torchrun",
        nodes=nodes,
        environment=[("GLOO_SOCKET_IFNAME", interface)] if interface else [],
        stage_python=sys.executable,
        boot=boot,
        spec=directory / "spec.json",
    )
    body = BATCH.format(ports=templates.template("ports.sh.j2"), seed=seed, nodes=nodes, node=shlex.quote(str(node)))
    return slurm.sbatch(body, f"--nodes={nodes}", "--ntasks-per-node=1", "--cpus-per-task=1", "--mem=300M", "--time=10")


@pytest.fixture(autouse=True)
def _torch() -> None:
    pytest.importorskip("torch", reason="the train extra is not installed")


def test_two_jobs_at_once_on_the_same_nodes_with_the_same_seed(slurm: Slurm, tmp_path: Path) -> None:
    """Both would begin their search at the same port, on the same first node."""
    jobs = [submit(slurm, tmp_path / name, WORLD, "0", 4) for name in ("first", "second")]
    for job in jobs:
        slurm.wait_for_state(job, "COMPLETED", timeout=600)
    ports = {line for job in jobs for line in slurm.output(job).splitlines() if line.startswith("port ")}
    assert len(ports) == 2
    for job in jobs:
        lines = sorted(line for line in slurm.output(job).splitlines() if line.startswith("WORLD"))
        assert [line.split()[:4] for line in lines] == [["WORLD", job, str(rank), "4"] for rank in range(4)]


@pytest.mark.full
def test_the_interface_of_the_profile_is_that_of_the_rendezvous(slurm: Slurm, tmp_path: Path) -> None:
    """On one node: all nodes of this cluster have the same loopback, and torchrun tells agents by address and number."""
    for interface, address in (("lo", "127.0.0.1"), ("", "node1")):
        job = submit(slurm, tmp_path / f"on-{interface}", WORLD, "0", 1, interface=interface)
        slurm.wait_for_state(job, "COMPLETED", timeout=600)
        (line,) = [line for line in slurm.output(job).splitlines() if line.startswith("WORLD")]
        assert line == f"WORLD {job} 0 1 {address}"


@pytest.mark.full
def test_a_clean_save_after_term_ends_with_success(slurm: Slurm, tmp_path: Path) -> None:
    """The agent by itself would end with 1, and kill what needs more than 30 s; this one needs 35."""
    job = submit(slurm, tmp_path / "job", SAVES, "0", 1)
    for _ in range(1500):
        if "READY" in slurm.output(job):
            break
        slurm.run(["sleep", "0.2"])
    slurm.run(["scancel", "--signal=TERM", f"{job}.0"])  # the step, all of its processes
    slurm.wait_for_state(job, "COMPLETED", timeout=120)
    assert "SAVED" in slurm.output(job)
