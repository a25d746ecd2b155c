"""``file_systems: {NAME: {scratch: true}}`` on a real Slurm: a directory on each node, as TMPDIR, as long as the work."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core.files import write_atomic
from jobs.core.paths import Workspace
from launch.config.profile_file import read_profile
from launch.plan.model import Plan
from launch.render import scripts
from launch.render.executors import carrier
from launch.runs.rundir import Run
from launch.site import test_only
from launch.slurm.client import Gateway
from tests.support.chains import SHORT, Chain
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

Submit = Callable[[str, str, int], tuple[str, Path]]

WORK = """\
#!/bin/bash
[ -w "$TMPDIR" ] && touch "$TMPDIR/big" && echo "$SLURM_NODEID $TMPDIR $(stat -c %a "$TMPDIR")" >>{seen}
{rest}
"""


@pytest.fixture
def job(slurm: Slurm, tmp_path: Path) -> Submit:
    """Submits work: the lines of bash that its Python is here, where the scratch is, and on how many nodes."""

    def submit(rest: str, place: str, nodes: int) -> tuple[str, Path]:
        path = tmp_path / "lab.yaml"
        path.write_text(
            f"executor: slurm\npartition: batch\nfile_systems: {{disk: {{path: {place}, scratch: true}}}}\n"
            f'resources: {{default: {{time: "5", nodes: {nodes}, cpus: 1}}}}\n'
        )
        profile = read_profile(path).profile
        run = Run(Workspace(tmp_path), "abcde")
        work = tmp_path / "work.sh"
        write_atomic(work, WORK.format(seen=tmp_path / "seen", rest=rest), mode=0o755)
        stage = test_only.stage_of(
            profile, "corpus", profile.resources_for("corpus"), "submitit", test_only.NAME, str(work)
        )
        asked = replace(scripts.request(run, stage, profile, "a", 0, None), name=f"scratch-{tmp_path.name}")
        asked.logs.mkdir(parents=True)
        asked.scripts.root.mkdir(parents=True)
        node = scripts.stage_scripts(run, Plan("p", (stage,)), stage, profile, "a").node
        host = (
            f"trap 'code=$?; echo $code >{tmp_path / 'code'}' EXIT\n"
            "export OVERNIGHT_ENTERED=$SLURM_JOB_ID.${SLURM_RESTART_COUNT:-0}\n"
        )
        write_atomic(asked.scripts.host, host)
        write_atomic(asked.scripts.node, node, mode=0o755)
        return carrier("submitit").submit(asked, Gateway(slurm.slurm_conf)), tmp_path / "seen"

    return submit


@pytest.mark.parametrize(
    ("rest", "nodes", "code"),
    [("exit 0", 2, "0"), ("exit 7", 1, "7"), ("kill -9 $$", 1, "137"), ("exit 255", 1, "255")],
)
def test_a_directory_as_long_as_the_work(
    slurm: Slurm, tmp_path: Path, job: Submit, rest: str, nodes: int, code: str
) -> None:
    disk = tmp_path / "a disk"
    disk.mkdir()
    number, seen = job(rest, f'"{disk}"', nodes)
    slurm.wait_for_state(number, "COMPLETED" if code == "0" else "FAILED")
    lines = [line.rsplit(" ", 1) for line in seen.read_text().splitlines()]
    places = {line.partition(" ")[0]: line.partition(" ")[2] for line, _ in lines}
    assert {mode for _, mode in lines} == {"700"}
    assert sorted(places) == [str(node) for node in range(nodes)]
    assert len(set(places.values())) == nodes
    assert all(place.startswith(f"{disk}/overnight-{number}-") for place in places.values())
    assert (tmp_path / "code").read_text().strip() == code
    assert not list(disk.iterdir())


def test_a_signal_reaches_the_work_and_its_answer_counts(slurm: Slurm, tmp_path: Path, job: Submit) -> None:
    rest = f"trap 'echo $SLURM_NODEID >>{tmp_path}/asked; exit 0' USR2\n>{tmp_path}/ready-$SLURM_NODEID\nwhile :; do sleep 0.2; done"
    number, _ = job(rest, str(tmp_path), 2)
    end = time.monotonic() + 120
    while len(list(tmp_path.glob("ready-*"))) < 2:
        assert time.monotonic() < end, slurm.job(number)
        time.sleep(0.1)
    slurm.run(["scancel", "--signal=USR2", f"{number}.0"])
    slurm.wait_for_state(number, "COMPLETED")
    assert sorted((tmp_path / "asked").read_text().split()) == ["0", "1"]
    assert not list(tmp_path.glob("overnight-*"))


def test_a_node_without_it_says_so(slurm: Slurm, tmp_path: Path, job: Submit) -> None:
    number, seen = job("exit 0", str(tmp_path / "no"), 1)
    slurm.wait_for_state(number, "FAILED")
    assert not seen.exists()
    (log,) = tmp_path.rglob(f"{number}.batch.log")
    assert "overnight: no scratch directory on" in log.read_text()


@pytest.mark.full
def test_a_chain_with_torchrun_leaves_nothing(slurm: Slurm, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    profile = {"file_systems": {"disk": {"path": str(disk), "scratch": True}}}
    chain = Chain(slurm, tmp_path / "work", SHORT, profile=profile)
    chain.fetch()
    before = disk.stat().st_mtime_ns
    run = chain.submit()
    chain.wait()
    chain.assert_done_once(run)
    assert disk.stat().st_mtime_ns > before, "something was in it"
    assert not list(disk.iterdir())
