"""The dev cluster in the shape of a site."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.site.devcluster_shape import shape_of
from launch.slurm.devcluster import config
from launch.slurm.devcluster.config import ClusterConfig
from tests.sites.golden import SITES, profile_of


@pytest.mark.parametrize("name", SITES)
def test_the_dev_cluster_takes_the_shape_of_a_site(name: str) -> None:
    profile = profile_of(name)
    shaped = ClusterConfig(Path("/srv/dc"), 17000, 4, True, "me", "login", **shape_of(profile, 4))
    lines = config.slurm_conf(shaped).splitlines()
    for partition, limits in profile.partitions.items():
        (line,) = (line for line in lines if line.startswith(f"PartitionName={partition} "))
        assert not limits.max_time or f"MaxTime={limits.max_time}" in line
    assert not any(line.startswith("PartitionName=interactive ") for line in lines), "ours are not there"
    assert profile.account is None or profile.account.lower() in shaped.accounts
    training = profile.resources_for("cpt")
    assert shaped.gpus >= (training.gpus_per_node or 0)
    assert ClusterConfig.from_json(shaped.to_json()) == shaped


def test_nodes_without_gpus_where_a_site_has_such() -> None:
    shaped = ClusterConfig(Path("/srv/dc"), 17000, 4, False, "me", "login", **shape_of(profile_of("perlmutter"), 4))
    assert (shaped.cpu_nodes, shaped.features, shaped.cpu_features) == (1, ("gpu",), ("cpu",))
    conf = config.slurm_conf(shaped)
    assert conf.index("NodeName=node4") < conf.index("Gres=gpu:") < conf.index("NodeName=node1")
    assert "NodeName=node1,node2,node3 Name=gpu" in config.gres_conf(shaped)
