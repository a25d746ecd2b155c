"""The client of a profile's Slurm keeps the least time between questions over all commands of a user."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from launch.config.profile import Profile
from launch.runs import client


def profile(**more: object) -> Profile:
    return Profile.read({"name": "x", "executor": "slurm", "poll_floor": "0:01", **more})


@pytest.mark.failure(14)
def test_one_file_for_a_user_and_a_cluster_whatever_the_workspace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    squeue = tmp_path / "squeue"
    squeue.write_text("#!/bin/sh\n")
    squeue.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    here = [profile(workspace=f"/w/{number}") for number in (1, 2)] + [profile()]
    assert len({client.asked_file(one) for one in here}) == 1
    assert client.asked_file(profile(clusters="big")) not in {client.asked_file(one) for one in here}
    client.gateway(here[0], environment=environment).squeue()
    first = client.asked_file(here[2]).stat().st_mtime
    client.gateway(here[1], environment=environment).squeue()
    assert client.asked_file(here[0]).stat().st_mtime - first >= 0.99
