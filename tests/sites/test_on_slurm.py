"""Every site's profile on a real Slurm that has its partitions, accounts, QOS, features and GPUs: a chain goes through.

One machine cannot be a supercomputer: nodes declare what the sites' nodes have, images are the machine's own root.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from launch.containers import Runtime
from launch.devcluster import packages
from launch.devcluster.cluster import DevCluster
from launch.devcluster.config import ACCOUNT
from launch.profile import read_profile
from tests.sites.golden import HERE, SITES, profile_of
from tests.slurm.chains import SHORT, Chain
from tests.slurm.helpers import Slurm

pytestmark = pytest.mark.slurm

CONTAINERS = HERE.parent / "slurm" / "containers"
QUICK = ("dgx-pyxis", "lumi-g", "perlmutter")
"""Very different ones: pyxis and whole nodes; AMD and singularity; no partition but a QOS and features."""

NEEDS_PLUGIN = ("dgx-pyxis", "clariden", "juwels-booster")
#: What `overnight cluster up` gives every cluster.
THERE = ("batch",)


def partitions() -> tuple[str, ...]:
    """Lines of slurm.conf for the partitions of all sites; where two have one of a name it is the first one's."""
    found = {name: one for site in SITES for name, one in reversed(profile_of(site).partitions.items())}
    lines = []
    for name, one in found.items():
        limits = f" MaxTime={one.max_time}" if one.max_time else ""
        limits += f" MaxNodes={one.max_nodes}" if one.max_nodes else ""
        if name not in THERE:
            lines.append(f"PartitionName={name}{limits}" + (" OverSubscribe=EXCLUSIVE" if one.exclusive else ""))
    # For a site where no partition is named.
    return (*lines, "PartitionName=unnamed Default=YES MaxTime=2-00:00:00")


def features() -> tuple[str, ...]:
    asked = {resources.constraint for site in SITES for resources in profile_of(site).resources.values()}
    asked |= {profile_of(site).constraint for site in SITES}
    return tuple(sorted({word for text in asked if text for word in text.split("&")}))


def accounting(slurm: Slurm) -> None:
    """The accounts and QOS that the users of the sites name."""
    profiles = [profile_of(site) for site in SITES]
    keys = [keys for profile in profiles for keys in (profile, *profile.resources.values())]
    accounts = sorted({found.account for found in keys if found.account} - {ACCOUNT})
    qos = sorted({found.qos for found in keys if found.qos})
    user = slurm.run(["id", "-un"]).stdout.strip()
    lines = [f"add qos {','.join(qos)}", f"modify account {ACCOUNT} set qos=normal,{','.join(qos)}"]
    for account in accounts:
        lines += [f"add account {account} Description=x Organization=x", f"add user {user} account={account}"]
        lines.append(f"modify account {account} set qos=normal,{','.join(qos)}")
    said = subprocess.run(
        ["sacctmgr", "-i", "-Q"], input="\n".join([*lines, "quit", ""]), env=slurm.environment, capture_output=True,
        text=True, timeout=120,
    )  # fmt: skip
    assert said.returncode == 0, said.stdout + said.stderr


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    """A cluster with the partitions, accounts, QOS and features of all sites, and a plugin that takes their options."""
    if missing := packages.missing(True):
        pytest.skip(f"Debian packages not installed: {' '.join(missing)} (overnight cluster up --install)")
    directory = Path(tempfile.mkdtemp(prefix="overnight-sites-"))
    cluster = DevCluster(directory)
    try:
        shape = {
            "cpus": 256, "memory_mb": 2_200_000, "gpus": 8, "features": features(), "lines": partitions(),
        }  # fmt: skip
        cluster.up(nodes=2, with_accounting=True, shape=shape)
        if can_build():
            plugin = tmp_path_factory.mktemp("plugin") / "sites.so"
            subprocess.run(["gcc", "-fPIC", "-shared", "-o", plugin, CONTAINERS / "pyxis_shim.c"], check=True)
            (directory / "etc" / "plugstack.conf.d" / "sites.conf").write_text(f"required {plugin}\n")
        slurm = Slurm(cluster, accounting=True)
        accounting(slurm)
        yield slurm
    finally:
        cluster.down()
        shutil.rmtree(directory, ignore_errors=True)


def can_build() -> bool:
    return Path("/usr/include/slurm/spank.h").exists() and shutil.which("gcc") is not None


def write_profile(chain: Chain, site: str, directory: Path) -> None:
    """The user's profile of the site, with what a small machine needs: its own workspace, one process a node."""
    found = read_profile(HERE / "users" / f"{site}.yaml")
    data = {key: value for key, value in found.data.items() if key not in ("workspace", "environments")}
    training = {**data["resources"].get("training", {}), "nodes": 2, "processes_per_node": 1}
    data |= {"devcluster": True, "poll_seconds": 2.0, "lead": "0:20"}
    data["resources"] = {**data["resources"], "training": training}
    runtime = found.profile.containers.runtime
    if "toy" in found.profile.environments:
        image = found.profile.environments["toy"].image
        data["environments"] = {"toy": {"image": image, "python": "/usr/bin/python3"}}
    if runtime is Runtime.APPTAINER:
        (directory / "bin").mkdir()
        (directory / "bin" / found.profile.containers.executable).symlink_to(CONTAINERS / "apptainer")
        data["setup"] = [f"export RECORD='{directory}'", f"export PATH='{directory / 'bin'}':\"$PATH\""]
    chain.profile.write_text(yaml.safe_dump(data, sort_keys=False))


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    "site", [pytest.param(site, marks=() if site in QUICK else pytest.mark.full) for site in SITES]
)
def test_a_chain_goes_through(sites: Slurm, tmp_path: Path, site: str) -> None:
    if site in NEEDS_PLUGIN and not can_build():
        pytest.skip("libslurm-dev and gcc are not installed: the site's options need a SPANK plugin")
    chain = Chain(sites, tmp_path / "work", SHORT)
    write_profile(chain, site, tmp_path)
    chain.fetch()
    run = chain.submit()
    chain.wait()
    chain.assert_done_once(run)
    wanted = profile_of(site).resources_for("cpt")
    (job,) = (sites.job(one.row.job_id) for one in chain.jobs() if one.stage == "cpt")
    if wanted.partition is not None:
        assert job["Partition"] == wanted.partition
    if wanted.account is not None:
        assert job["Account"] == wanted.account.lower()  # as Slurm keeps them
    if wanted.qos is not None:
        assert job["QOS"] == wanted.qos
    if wanted.constraint is not None:
        assert job["Features"] == wanted.constraint
    assert job["NumNodes"] == "2"
