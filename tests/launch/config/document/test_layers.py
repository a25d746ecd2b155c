"""Profiles over profiles, a pipeline over them, the command line over all: who wins, and where each value stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config.document.reader import parse
from launch.config.profile_file import read_profile

SITE = """\
name: lab
executor: slurm
partition: gpu
environments: {trl: {venv: /a}}
resources:
  default: {cpus: 2, time: "30"}
"""
MINE = """\
extends: ./site.yaml
account: "01"
environments: {trl: {image: x.sif}}
resources: {default: {cpus: 4}}
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "site.yaml").write_text(SITE)
    (tmp_path / "mine.yaml").write_text(MINE)
    return tmp_path / "mine.yaml"


def test_the_upper_file_wins_value_by_value(mine: Path) -> None:
    found = read_profile(mine)
    resources = found.profile.resources_for("cpt")
    assert (found.profile.name, resources.partition, resources.account) == ("mine", "gpu", "01")
    assert (resources.cpus, resources.time) == (4, "30")
    environment = found.profile.environments["trl"]  # as a whole: venv and image together would be a contradiction
    assert (environment.venv, environment.image) == (None, "x.sif")


def test_every_value_knows_who_set_it(mine: Path) -> None:
    found = read_profile(mine)
    assert found.origin(("partition",)) == f"{mine.parent}/site.yaml:3:12"
    assert found.origin(("resources", "default", "cpus")) == f"{mine}:4:29"
    assert found.origin(("environments", "trl", "venv")) is None
    assert found.origin(("lead",)) is None


def test_a_pipeline_lies_over_the_profile(mine: Path) -> None:
    document = parse("cluster: {partition: fast}\nresources: {cpt: {nodes: 2}}\n", "p.yaml")
    found = read_profile(mine).with_pipeline(*document)
    assert (found.profile.partition, found.profile.resources_for("cpt").nodes) == ("fast", 2)
    assert found.origin(("partition",)) == "p.yaml:1:22"
    assert found.origin(("resources", "cpt", "nodes")) == "p.yaml:2:26"
    with pytest.raises(InputError, match=r"p.yaml:1:11: cluster.executor: cannot be set by a pipeline"):
        read_profile(mine).with_pipeline(*parse("cluster: {executor: local}\n", "p.yaml"))


def test_faults_are_shown_in_the_file_that_has_them(mine: Path) -> None:
    site = mine.parent / "site.yaml"
    site.write_text("executor: slurm\npartitons: {}\n")
    with pytest.raises(InputError, match=r"site.yaml:2:1: partitons: unknown key; nearest: partitions") as caught:
        read_profile(mine)
    assert "    2 | partitons: {}" in str(caught.value)
    site.write_text("extends: ./mine.yaml\nexecutor: slurm\n")
    with pytest.raises(InputError, match=r"site.yaml:1:10: extends: the profiles extend each other"):
        read_profile(mine)
