"""Ports, packages, places, and the profile that finds the cluster."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config import profile_fields, profile_file
from launch.slurm.devcluster import config, location, packages, ports
from launch.slurm.devcluster.cluster import DevCluster

OFFSETS = (0, 1, 11, 12)


def test_a_block_is_not_given_twice_at_a_time() -> None:
    with ports.block(OFFSETS, config.BLOCK) as first, ports.block(OFFSETS, config.BLOCK) as second:
        assert abs(first - second) >= config.BLOCK
    with ports.block(OFFSETS, config.BLOCK, second) as again:
        assert again == second


def test_a_port_in_use_is_named() -> None:
    with ports.block(OFFSETS, config.BLOCK) as base:
        pass
    with socket.socket() as other:
        other.bind(("127.0.0.1", base + 11))
        other.listen()
        wanted = ports.block(OFFSETS, config.BLOCK, base)
        with pytest.raises(InputError, match=rf"ports {base + 11} are in use"), wanted:
            pass
        with ports.block(OFFSETS, config.BLOCK) as found:
            assert found != base


@pytest.mark.parametrize("port", [0, 80, 65500, 70000])
def test_impossible_ports(port: int) -> None:
    with pytest.raises(InputError, match="must be 1024 to"), ports.block(OFFSETS, config.BLOCK, port):
        pass


def test_missing_packages_come_with_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(packages, "DAEMON_PATH", str(tmp_path))  # a machine without any of them
    with pytest.raises(InputError) as caught:
        packages.require(accounting=True, install=False)
    assert caught.value.hint is not None
    wanted = "apt-get install -y --no-install-recommends slurmctld slurmd slurm-client munge slurmdbd mariadb-server"
    assert caught.value.hint.removeprefix("sudo ").endswith(wanted)
    for program in ("slurmctld", "slurmd", "sinfo", "munged", "mariadbd"):
        (tmp_path / program).symlink_to("/bin/true")
    assert packages.missing(accounting=False) == []
    assert packages.missing(accounting=True) == ["slurmdbd"]


def test_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(location.VARIABLE, str(tmp_path))
    assert location.default_directory() == tmp_path
    assert location.slurm_conf() is None
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "slurm.conf").touch()
    assert location.slurm_conf() == tmp_path / "etc" / "slurm.conf"
    monkeypatch.delenv(location.VARIABLE)
    monkeypatch.delenv("HOME", raising=False)
    assert location.default_directory().parts[-2:] == (".overnight", "devcluster")


@pytest.mark.parametrize(
    ("name", "problem"), [("a b", "cannot hold this path"), ("a#b", "cannot"), ("x" * 120, "too long")]
)
def test_paths_that_slurm_cannot_use(tmp_path: Path, name: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        DevCluster(tmp_path / name).up()
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("nodes", [0, config.MAX_NODES + 1])
def test_impossible_numbers_of_nodes(nodes: int) -> None:
    directory = Path(tempfile.gettempdir(), f"never-{os.getpid()}")  # pytest's own may be too long for a socket
    with pytest.raises(InputError, match="nodes: must be 1 to 64"):
        DevCluster(directory).up(nodes=nodes)
    assert not directory.exists()


def test_profile_asks_for_what_the_cluster_has() -> None:
    found = profile_file.find("devcluster")
    assert found.devcluster
    assert found.partition == "batch"
    cluster = config.ClusterConfig(Path("/d"), 1, 4, accounting=False, user="u", host="h")
    for kind in profile_fields.KINDS:
        asked = found.resources_for(kind)
        assert asked.nodes <= cluster.nodes
        assert (asked.cpus or 1) * asked.processes_per_node <= cluster.cpus


def test_killed_before_its_configuration_was_whole(tmp_path: Path) -> None:
    directory = tmp_path / "cluster"
    directory.mkdir()
    (directory / ".cluster.json.node.1234.tmp").write_text('{"nod', encoding="utf-8")
    assert DevCluster(directory).down() is False
    assert not directory.exists()
