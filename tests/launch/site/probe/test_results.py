"""What is concluded from what a probe found on its nodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from jobs.core.paths import StagePaths
from launch.config.profile_file import read_profile
from launch.site.finding import Level
from launch.site.probe import results
from launch.site.probe.run import Probe, ProbePlan
from tests.sites.golden import profile_of
from tests.support.site_answers import PROFILE

PLAN = ProbePlan(
    "submitit",
    "cpt",
    "probe",
    resources=profile_of("university").resources_for("cpt").changed(nodes=1, gpus_per_node=None),
    minutes=1,
    lead=15,
    requeue=True,
)
NODE = {
    "number": 0,
    "host": "n1",
    "python": "3.11.2",
    "cpus": 64,
    "all_cpus": 64,
    "mounts": "mnt:[1]",
    "devices": None,
    "gpus": [],
    "interfaces": {"ib0": "10.0.0.1", "lo": "127.0.0.1"},
    "environment": ["OVERNIGHT_PROBE_MARK"],
    "nodes": ["n1"],
    "meet_seconds": 0.1,
    "ranks": [{"rank": rank, "world": 4} for rank in range(4)],
    "seen_seconds": 0.1,
    "swap": {"replaced": 9, "reads": 9, "missing": 0, "torn": 0, "errors": 0},
}
NOTES = {
    "start": ["7 0 1000 n1", "7 1 1010 n1"],
    "requeue": ["accepted"],
    "end": ["1070"],
    "mounts": ["mnt:[1]"],
    "core": ["{}"],
    "work": ["0 1020"],
    "signal": ["1050"],
    "left": ["1050"],
}


def judged(
    tmp_path: Path, notes: dict[str, list[str]] | None = None, **node: object
) -> tuple[dict[str, Level], dict[str, str]]:
    """What was found -> level, and the changes that follow."""
    file = tmp_path / "mine.yaml"
    file.write_text(PROFILE)
    one = Probe(
        PLAN, StagePaths(tmp_path), None, job="7", over=True, notes={**NOTES, **(notes or {})}, nodes=[{**NODE, **node}]
    )  # type: ignore[arg-type]
    result = results.judge(read_profile(file), one)
    return {finding.what: finding.level for finding in result.findings}, {
        ".".join(change.path): change.value for change in result.changes
    }


def test_all_is_well(tmp_path: Path) -> None:
    levels, changes = judged(tmp_path)
    assert set(levels.values()) == {Level.OK}
    assert {"requeue", "deadline", "signal", "nodes", "rendezvous", "rename", "environment", "python"} <= set(levels)
    assert changes == {"env.NCCL_SOCKET_IFNAME": "ib", "env.GLOO_SOCKET_IFNAME": "ib0"}


@pytest.mark.parametrize(
    ("notes", "node", "what", "level"),
    [
        (
            {"requeue": ["refused Requested operation is presently disabled"], "start": ["7 0 1000 n1"]},
            {},
            "requeue",
            Level.WARN,
        ),
        ({"start": ["7 0 1000 n1", "8 1 1010 n1"]}, {}, "requeue", Level.FAIL),
        ({"end": ["squeue: command not found"]}, {}, "deadline", Level.FAIL),
        ({"core": ["bash: /venv/bin/python: No such file or directory"]}, {}, "python", Level.FAIL),
        ({"signal": [""]}, {}, "signal", Level.WARN),
        ({"signal": ["1065"]}, {}, "signal", Level.WARN),
        ({}, {"ranks": []}, "rendezvous", Level.FAIL),
        ({}, {"swap": {"replaced": 9, "reads": 9, "missing": 1, "torn": 0, "errors": 0}}, "rename", Level.FAIL),
        ({}, {"swap": {"replaced": 9, "reads": 9, "missing": 0, "torn": 2, "errors": 0}}, "rename", Level.FAIL),
        ({}, {"environment": ["OVERNIGHT_PROBE_TOKEN"]}, "environment", Level.FAIL),
        ({}, {"environment": ["SLURM_OVERNIGHT_PROBE"]}, "environment", Level.FAIL),
        ({}, {"cpus": 2}, "cpus", Level.WARN),
    ],
)
def test_what_is_not_well_is_said(
    tmp_path: Path, notes: dict[str, list[str]], node: dict[str, object], what: str, level: Level
) -> None:
    levels, changes = judged(tmp_path, notes, **node)
    assert levels[what] is level
    assert (changes.get("continuation") == "chain") == (what == "requeue" and level is Level.WARN)


def test_what_a_gpu_has_goes_into_the_partition(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = PLAN.resources.changed(gpus_per_node=2, partition="gpu")
    monkeypatch.setitem(globals(), "PLAN", replace(PLAN, resources=asked))
    gpu = {"name": "NVIDIA H100 80GB HBM3", "mib": 81559}
    levels, changes = judged(tmp_path, devices=2, gpus=[gpu, gpu])
    assert levels["gpus"] is Level.OK
    assert changes["partitions.gpu.gpu_memory"] == "79G"
    levels, _ = judged(tmp_path, devices=2, gpus=[gpu])
    assert levels["gpus"] is Level.FAIL, "the driver shows less than Slurm has given"
    levels, changes = judged(tmp_path, devices=2)
    assert (levels["gpus"], "partitions.gpu.gpu_memory" in changes) == (Level.OK, False)


def test_a_probe_that_never_ran(tmp_path: Path) -> None:
    levels, _ = judged(tmp_path, {"start": []})
    assert levels == {"start": Level.FAIL}


@pytest.mark.failure(9)
@pytest.mark.parametrize(
    "line",
    [
        "overnight: node2 does not reach node1:10012: [Errno -2] Name or service not known",
        "slurmstepd: error: pyxis: failed to import docker image: 401 Unauthorized",
    ],
)
def test_why_the_nodes_did_not_meet_is_told_and_not_guessed(tmp_path: Path, line: str) -> None:
    """Its line stands above the last ones, which are srun's."""
    plan = replace(PLAN, resources=PLAN.resources.changed(nodes=2))
    paths = StagePaths(tmp_path)
    paths.logs.mkdir()
    srun = "srun: error: node2: task 1: Exited with exit code 1"
    (paths.logs / "7_0.log").write_text("\n".join([line, srun, srun, srun, ""]))
    (tmp_path / "mine.yaml").write_text(PROFILE)
    one = Probe(plan, paths, None, job="7", over=True, notes={**NOTES, "work": ["0 1020"]}, nodes=[])  # type: ignore[arg-type]
    (found,) = [
        each for each in results.judge(read_profile(tmp_path / "mine.yaml"), one).findings if each.what == "work"
    ]
    assert found.text.startswith(f"srun ended with 0: {line}; its log ends with: ")
    assert "workspace" not in found.text
