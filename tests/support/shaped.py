"""The dev cluster in the shape of a site, and a user in front of it who has nothing yet."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jobs.core.paths import Workspace
from launch.config.profile_file import read_profile
from launch.site.devcluster_shape import UNNAMED, shape_of
from launch.slurm.devcluster.cluster import DevCluster
from tests.sites.golden import profile_of
from tests.support import commands
from tests.support.chains import OVERNIGHT, REPOSITORY, SHORT, Chain, checked
from tests.support.slurm import Slurm

SHIM = Path(__file__).parents[1] / "slurm" / "containers" / "pyxis_shim.c"
SITES = ("dgx-pyxis", "university", "perlmutter")
"""Very different ones: pyxis and whole nodes; no accounting, GPUs by GRES; a QOS and features in place of partitions."""

NEEDS_PLUGIN = ("dgx-pyxis", "clariden", "juwels-booster")
"""Sites whose jobs say options that only a plugin of the site's takes."""

ADDED = {"dgx-pyxis": 'environments: {toy: {image: "nvcr.io#nvidia/nemo:25.09", python: /usr/bin/python3}}\n'}
"""What a user of the site adds to the profile that was written: which image there is nobody can ask."""


class Site:
    """A user in front of a cluster: a home of their own, and the ``overnight`` command."""

    def __init__(self, slurm: Slurm, directory: Path) -> None:
        self.slurm = slurm
        self.home = directory / "home"
        self.home.mkdir()
        self.name = "here"

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in self.slurm.environment.items() if not name.startswith("OVERNIGHT_")}
        for name in ("SCRATCH", "WORK", "PROJECT", "DATA", "XDG_CONFIG_HOME"):
            kept.pop(name, None)
        return {
            **kept,
            "HOME": str(self.home),
            "OVERNIGHT_DEVCLUSTER": str(self.slurm.directory),
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def file(self) -> Path:
        return self.home / ".config" / "overnight" / "profiles" / f"{self.name}.yaml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*OVERNIGHT, "profile", *arguments],
            cwd=self.home,
            env=self.environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def overnight(self, *arguments: str, code: int | None = 0) -> str:
        done = commands.overnight("profile", *arguments, cwd=self.home, environment=self.environment)
        return checked(done, code).stdout

    def init(self, more: str = "") -> str:
        """Write a profile, as it comes; ``more`` is what its user adds."""
        self.overnight("init", self.name, "--seconds", "60")
        with self.file.open("a") as stream:
            stream.write(more)
        return self.file.read_text()

    def check(self, code: int = 0) -> dict[str, dict[str, str]]:
        said = json.loads(self.overnight("check", self.name, "--json", code=code))
        return {one["what"]: one for one in said["findings"]}

    def test(self, *options: str, code: int | None = 0) -> tuple[dict[str, dict[str, dict[str, str]]], dict[str, Any]]:
        """Executor -> what -> finding, and all that was said."""
        said = json.loads(self.overnight("test", self.name, "--json", *options, code=code))
        found = {one["executor"]: {each["what"]: each for each in one["findings"]} for one in said["probes"]}
        return found, said

    def chain(self, directory: Path) -> Chain:
        """A chain with this profile and its own workspace."""
        chain = Chain(self.slurm, directory, SHORT)
        chain.profile = self.file
        workspace = read_profile(self.file).profile.workspace
        assert workspace is not None
        chain.workspace = Workspace(workspace)
        return chain


@contextmanager
def like(name: str, directory: Path, nodes: int = 4) -> Iterator[Site]:
    """A cluster like a site's, with nodes like those of its training.

    Of Perlmutter's two QOS the one that nobody has to ask for is too short for anything.
    """
    place = Path(tempfile.mkdtemp(prefix="overnight-shape-"))
    cluster = DevCluster(place)
    profile = profile_of(name)
    shape = shape_of(profile, nodes)
    if one := profile.partitions.get(profile.resources_for("cpt").partition or ""):
        # The shape has as much as the largest partition.
        has = {"cpus": one.cpus, "gpus": one.gpus, "gpu_model": one.gpu_model}
        shape |= {key: value for key, value in has.items() if value is not None}
    if "partition" in profile.remove:
        shape["partitions"] = (f"PartitionName={UNNAMED} Default=YES",)
    try:
        cluster.up(nodes=nodes, with_accounting=bool(shape["accounts"]), shape=shape)
        slurm = Slurm(cluster, accounting=bool(shape["accounts"]))
        if name == "perlmutter":
            user = slurm.run(["id", "-un"]).stdout.strip()
            for command in (
                ["modify", "qos", "regular", "set", "MaxWall=2-00:00:00"],
                ["add", "qos", "debug", "MaxWall=30"],
                ["modify", "user", user, "where", "account=m0000", "set", "qos=debug,regular", "defaultqos=debug"],
            ):
                slurm.run(["sacctmgr", "-i", "-Q", *command])
        if name in NEEDS_PLUGIN:
            plugin = directory / "site.so"
            subprocess.run(["gcc", "-fPIC", "-shared", "-o", plugin, SHIM], check=True)
            (place / "etc" / "plugstack.conf.d" / "site.conf").write_text(f"required {plugin}\n")
        yield Site(slurm, directory)
    finally:
        cluster.down()
        shutil.rmtree(place, ignore_errors=True)


def can_build() -> bool:
    """Whether the plugin that takes pyxis' options can be built here."""
    return Path("/usr/include/slurm/spank.h").exists() and shutil.which("gcc") is not None
