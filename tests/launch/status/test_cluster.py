"""What a cluster says when it is asked, and what is known where it says nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import ClusterUnreachable
from launch.config.profile import Profile
from launch.slurm.devcluster import location
from launch.slurm.queue import QueueRow
from launch.status import cluster
from launch.status.cluster import Queue

SILENT = ClusterUnreachable("squeue failed: Unable to contact slurm controller", command=["squeue"], since=9)


def profile(**values: object) -> Profile:
    return Profile.read({"name": "c", "lead": "2:00", "executor": "slurm", **values})


def test_a_run_without_slurm_asks_nobody() -> None:
    queue, sacct = cluster.ask(profile(executor="local"))
    assert not queue.unreachable
    assert sacct(0.0) is None


def test_a_cluster_that_is_down_is_silent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(location.VARIABLE, str(tmp_path))
    queue, sacct = cluster.ask(profile(devcluster=True))
    assert "which is not up" in queue.unreachable
    assert sacct is cluster.no_accounting


def test_no_response_is_an_answer_of_its_own() -> None:
    class Gateway:
        def squeue(self) -> list[QueueRow]:
            raise SILENT

    queue = Queue.ask(Gateway())  # type: ignore[arg-type]
    assert queue.unreachable == str(SILENT)
    assert queue.view.alive(["any"]) == []
