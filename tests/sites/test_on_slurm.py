"""Every site's profile on a real Slurm in the shape of that site: its partitions with their limits, accounts, QOS, features
and GPUs. A chain goes through, and each of its jobs has what the profile asks for.

One machine cannot be a supercomputer: nodes declare what the site's nodes have, images are the machine's own root.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from launch.config.fields import Duration, memory_bytes
from launch.config.mounts import Runtime
from launch.config.profile import Profile, Resources
from launch.config.profile_fields import Exclusive, GpuForm, MemoryRule
from launch.config.profile_file import read_profile
from launch.site.devcluster_shape import UNNAMED
from launch.slurm.devcluster import packages
from launch.slurm.devcluster.config import MEMORY_PER_CPU_MB
from tests.sites.golden import HERE, SITES, profile_of
from tests.support.chains import SHORT, Chain
from tests.support.shaped import NEEDS_PLUGIN, can_build, like
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

CONTAINERS = HERE.parent / "slurm" / "containers"
QUICK = ("dgx-pyxis", "lumi-g", "perlmutter", "university")
"""Very different ones: pyxis and whole nodes; AMD and singularity; a QOS and features in place of partitions; GPUs by GRES and
memory, without accounting."""

NODES = {"corpus": 1, "cpt": 2}


def write_profile(chain: Chain, site: str, directory: Path) -> None:
    """The user's profile of the site, with what a small machine needs: its own workspace, one process a node."""
    found = read_profile(HERE / "users" / f"{site}.yaml")
    data = {key: value for key, value in found.data.items() if key not in ("workspace", "environments")}
    training = {**data["resources"].get("training", {}), "nodes": NODES["cpt"], "processes_per_node": 1}
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


def fields_of(slurm: Slurm, job: str) -> dict[str, str]:
    shown = slurm.run(["scontrol", "--oneliner", "--details", "show", "job", job]).stdout
    return dict(re.findall(r"(?:^|\s)([\w/:]+)=(\S*)", shown))


def check_job(job: Mapping[str, str], profile: Profile, wanted: Resources, nodes: int, node: Mapping[str, str]) -> None:
    """A job as Slurm has it against the profile's own words; ``node`` is what its first node declares."""
    one = profile.partitions.get(wanted.partition or "")
    assert job["NumNodes"] == str(nodes)
    assert job["Partition"] == (UNNAMED if says_none(profile) else wanted.partition)
    if wanted.account is not None:
        assert job["Account"] == wanted.account.lower()  # as Slurm keeps them
    if wanted.qos is not None:
        assert job["QOS"] == wanted.qos
    assert job["Features"] == (wanted.constraint or "(null)")
    assert wanted.time is not None
    assert Duration(job["TimeLimit"]).seconds == wanted.time.seconds
    assert job["CPUs/Task"] == str(wanted.cpus or 1)
    assert job["Network"] == profile.sbatch.get("network", "(null)")

    if profile.mem is MemoryRule.NEVER or (wanted.mem is None and profile.mem is MemoryRule.ASKED):
        assert (job.get("MinMemoryCPU"), "MinMemoryNode" in job) == (f"{MEMORY_PER_CPU_MB}M", False)
    else:
        asked, had = (memory_bytes(text) if text != "0" else 0 for text in (wanted.mem or "0", job["MinMemoryNode"]))
        assert asked == had

    gpus = wanted.gpus_per_node or 0
    whole = (one is not None and one.exclusive and not says_none(profile)) or profile.exclusive is Exclusive.ALWAYS
    whole |= profile.exclusive is Exclusive.GPU and gpus > 0
    assert job["OverSubscribe"] == ("NO" if whole else "OK")
    had_cpus = int(node["CPUTot"]) if whole else wanted.cpus or 1
    assert job["NumCPUs"] == str(nodes * had_cpus)

    by_request = gpus if profile.gpu_request.form is not GpuForm.NONE else 0
    assert re.sub(r"^gres[:/]", "", job.get("TresPerNode", "")) == (f"gpu:{by_request}" if by_request else "")
    had_gpus = (one.gpus if one is not None and one.gpus is not None else gpus) if whole else by_request
    model = one.gpu_model if one is not None and one.gpu_model else "h100"
    assert job.get("JOB_GRES", "(null)") == (f"gpu:{model}:{nodes * had_gpus}" if had_gpus else "(null)")


def says_none(profile: Profile) -> bool:
    """Whether jobs name no partition: that of the cluster is another one then."""
    return "partition" in profile.remove


def check_limits(slurm: Slurm, profile: Profile, wanted: Resources) -> None:
    """What is over a limit of the site is refused here, too: the cluster has the limits of the profile."""
    for name, one in () if says_none(profile) else profile.partitions.items():
        shown = slurm.run(["scontrol", "--oneliner", "show", "partition", name]).stdout
        fields = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", shown))
        assert fields["MaxNodes"] == str(one.max_nodes or "UNLIMITED")
        assert fields["OverSubscribe"] == ("EXCLUSIVE" if one.exclusive else "NO")
        if one.max_time is None:
            assert fields["MaxTime"] == "UNLIMITED"
        else:
            assert Duration(fields["MaxTime"]).seconds == one.max_time.seconds
    one = profile.partitions.get(wanted.partition or "")
    if one is None or says_none(profile):
        return
    fits = ["--test-only", f"--partition={wanted.partition}", "--nodes=1", "--wrap=true"]
    fits += [f"--account={wanted.account}"] if wanted.account else []
    fits += [f"--qos={wanted.qos}"] if wanted.qos else []
    slurm.run(["sbatch", *fits])
    if one.max_time:
        assert slurm.run(["sbatch", *fits, f"--time={one.max_time.seconds // 60 + 1}"], check=False).returncode != 0
    if one.gpus:
        slurm.run(["sbatch", *fits, f"--gpus-per-node={one.gpus}"])
        assert slurm.run(["sbatch", *fits, f"--gpus-per-node={one.gpus + 1}"], check=False).returncode != 0
        other = "--gpus-per-node=of-another-site:1"
        assert slurm.run(["sbatch", *fits, other], check=False).returncode != 0


@pytest.mark.failure(17)
@pytest.mark.parametrize(
    "site", [pytest.param(site, marks=() if site in QUICK else pytest.mark.full) for site in SITES]
)
def test_a_chain_goes_through(tmp_path: Path, site: str) -> None:
    if missing := packages.missing(True):
        pytest.skip(f"Debian packages not installed: {' '.join(missing)} (overnight cluster up --install)")
    if site in NEEDS_PLUGIN and not can_build():
        pytest.skip("libslurm-dev and gcc are not installed: the site's options need a SPANK plugin")
    profile = profile_of(site)
    with like(site, tmp_path, nodes=3) as here:
        slurm = here.slurm
        check_limits(slurm, profile, profile.resources_for("cpt"))
        chain = Chain(slurm, tmp_path / "work", SHORT)
        write_profile(chain, site, tmp_path)
        chain.fetch()
        run = chain.submit()
        chain.wait()
        chain.assert_done_once(run)
        jobs = {one.stage: fields_of(slurm, one.row.job_id) for one in chain.jobs()}
        assert set(jobs) == set(SHORT)
        for stage, job in jobs.items():
            shown = slurm.run(["scontrol", "--oneliner", "show", "node", job["BatchHost"]]).stdout
            node = dict(re.findall(r"(?:^|\s)(\w+)=(\S*)", shown))
            check_job(job, profile, profile.resources_for(stage), NODES[stage], node)
