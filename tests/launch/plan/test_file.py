"""``plan.json``: written and read again, also one of an earlier version."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.profile import Resources
from launch.plan import file
from launch.plan.model import Plan
from tests.support import made_runs

RESOURCES = {
    "nodes": 2,
    "processes_per_node": 4,
    "partition": "gpu",
    "cpus": 8,
    "gpus_per_node": 4,
    "mem": "64G",
    "time": "1-00:00:00",
    "account": "0123",
    "qos": None,
    "reservation": None,
    "constraint": "a100&ib",
    "image": None,
}
"""As the version before wrote them."""


def test_the_resources_are_plain_values_under_the_keys_of_the_version_before(tmp_path: Path) -> None:
    plan = Plan("p", (made_runs.stage("cpt"),), (), "/usr/bin/python3")
    file.save(tmp_path / "plan.json", plan)
    value = json.loads((tmp_path / "plan.json").read_text())
    assert value["stages"][0]["resources"] == {**dict.fromkeys(RESOURCES), **NO_SHAPE, "time": "10:00", "cpus": 1}
    assert file.load(tmp_path / "plan.json") == plan


NO_SHAPE = {"nodes": 1, "processes_per_node": 1}


def test_a_plan_of_the_version_before(tmp_path: Path) -> None:
    value = file.to_json(Plan("p", (made_runs.stage("cpt"),)))
    value["stages"][0]["resources"] = RESOURCES
    (tmp_path / "plan.json").write_text(json.dumps(value))
    found = file.load(tmp_path / "plan.json").stage("cpt").resources
    assert found == Resources(**RESOURCES)
    assert found.time is not None
    assert (found.time, found.time.seconds, found.time.minutes) == ("1-00:00:00", 86_400, 1440)


def test_resources_that_no_version_wrote(tmp_path: Path) -> None:
    value = file.to_json(Plan("p", (made_runs.stage("cpt"),)))
    value["stages"][0]["resources"] = {**RESOURCES, "time": "soon"}
    (tmp_path / "plan.json").write_text(json.dumps(value))
    with pytest.raises(InputError, match="'soon' is not a duration"):
        file.load(tmp_path / "plan.json")
