"""The rendered files: what a job or a user would notice, line by line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from launch.slurm.devcluster import config
from launch.slurm.devcluster.config import ClusterConfig

PLAIN = ClusterConfig(
    directory=Path("/srv/dc"),
    port=17000,
    nodes=2,
    accounting=False,
    user="ana",
    host="login",
    cpus=4,
    memory_mb=9000,
    gpus=2,
)
WITH_ACCOUNTING = replace(PLAIN, accounting=True)


def settings(text: str) -> dict[str, str]:
    """Simple ``key=value`` lines; nodes and partitions have several pairs and are looked at by themselves."""
    pairs = (line.partition("=") for line in text.splitlines() if not line.startswith(("NodeName", "PartitionName")))
    return {key: value for key, _, value in pairs}


def lines(text: str, start: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith(start)]


def test_times_are_short_enough_to_watch() -> None:
    shown = settings(config.slurm_conf(PLAIN))
    assert shown["AuthInfo"] == "socket=/srv/dc/munge/socket,cred_expire=5"
    wanted = {"KillWait": "5", "SlurmdTimeout": "15", "MinJobAge": "3600", "OverTimeLimit": "0", "JobRequeue": "1"}
    assert {key: shown[key] for key in wanted} == wanted


def test_nodes() -> None:
    declared = "CPUs=4 Sockets=1 CoresPerSocket=4 ThreadsPerCore=1 RealMemory=9000 Gres=gpu:h100:2"
    assert lines(config.slurm_conf(PLAIN), "NodeName") == [
        f"NodeName=DEFAULT {declared} State=UNKNOWN",
        "NodeName=node1 NodeHostname=login NodeAddr=127.0.1.11 Port=17011",
        "NodeName=node2 NodeHostname=login NodeAddr=127.0.1.12 Port=17012",
    ]
    assert config.hosts(PLAIN) == "127.0.0.1 localhost login\n127.0.1.11 node1\n127.0.1.12 node2\n"


def test_partitions() -> None:
    default, *named = lines(config.slurm_conf(PLAIN), "PartitionName")
    assert default == "PartitionName=DEFAULT Nodes=node1,node2 DefMemPerCPU=512 State=UP PreemptMode=OFF"
    names = [line.split()[0].removeprefix("PartitionName=") for line in named]
    assert names == ["batch", "interactive", "preempt", "short"]
    assert "PreemptMode=REQUEUE" in named[2]
    assert "MaxTime=00:01:00" in named[3]


def test_accounting_is_all_or_nothing() -> None:
    without, with_it = settings(config.slurm_conf(PLAIN)), settings(config.slurm_conf(WITH_ACCOUNTING))
    assert without["AccountingStorageType"] == "accounting_storage/none"
    assert "AccountingStorageEnforce" not in without
    assert with_it["AccountingStoragePort"] == "17001"
    assert with_it["AccountingStoragePass"] == "/srv/dc/munge/socket"
    assert set(config.rendered(WITH_ACCOUNTING)) - set(config.rendered(PLAIN)) == {"slurmdbd.conf"}
    assert settings(config.slurmdbd_conf(WITH_ACCOUNTING))["DbdPort"] == "17001"


def test_no_setting_twice() -> None:
    for name, text in config.rendered(WITH_ACCOUNTING).items():
        several = ("NodeName", "PartitionName")
        keys = [line.partition("=")[0] for line in text.splitlines() if not line.startswith(several)]
        assert len(keys) == len(set(keys)), name


@pytest.mark.parametrize(("gpus", "device_line"), [(0, False), (8, True)])
def test_without_gpus_none_is_declared(gpus: int, device_line: bool) -> None:
    chosen = replace(PLAIN, gpus=gpus)
    assert ("Gres=gpu" in config.slurm_conf(chosen)) is device_line
    assert ("File=/srv/dc/dev/gpu[0-7]" in config.gres_conf(chosen)) is device_line


@given(
    nodes=st.integers(1, config.MAX_NODES),
    port=st.integers(1024, 65000),
    accounting=st.booleans(),
    gpus=st.integers(0, 16),
)
def test_ports_fit_in_a_block_and_the_value_survives_json(nodes: int, port: int, accounting: bool, gpus: int) -> None:
    chosen = replace(PLAIN, nodes=nodes, port=port, accounting=accounting, gpus=gpus)
    assert len(set(chosen.ports)) == nodes + 1 + accounting
    assert all(port <= one < port + config.BLOCK for one in chosen.ports)
    assert ClusterConfig.from_json(chosen.to_json()) == chosen


def test_a_cluster_in_the_shape_of_a_site() -> None:
    lines = ("PartitionName=standard-g MaxTime=2-00:00:00", "PartitionName=dev-g MaxTime=03:00:00")
    shaped = replace(PLAIN, cpus=56, gpus=4, gpu_model="a100", features=("gpu", "hbm80g"), lines=lines)
    conf = config.slurm_conf(shaped).splitlines()
    assert (
        "NodeName=DEFAULT CPUs=56 Sockets=1 CoresPerSocket=56 ThreadsPerCore=1 RealMemory=9000 Gres=gpu:a100:4 Feature=gpu,hbm80g State=UNKNOWN"
        in conf
    )
    assert conf[-2:] == list(lines)
    assert "Type=a100 " in config.gres_conf(shaped)
    assert ClusterConfig.from_json(shaped.to_json()) == shaped
