"""``overnight profile`` on a real Slurm: the profile that it writes carries a chain, and its probe finds what works.

Three very different sites (``SITES``) are the dev cluster in their shape, configured as ``overnight cluster up --shape``
does it.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.core.paths import Workspace
from launch.devcluster import packages
from launch.devcluster.cluster import DevCluster
from launch.devcluster.shape import shape_of
from launch.profile import read_profile
from launch.site import amend
from tests.sites.golden import profile_of
from tests.slurm.chains import OVERNIGHT, REPOSITORY, SHORT, Chain, ended
from tests.slurm.helpers import Slurm

pytestmark = pytest.mark.slurm

FULL = pytest.mark.full
CONTAINERS = Path(__file__).parent / "containers"


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
            **kept, "HOME": str(self.home), "OVERNIGHT_DEVCLUSTER": str(self.slurm.directory),
            "PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip

    @property
    def file(self) -> Path:
        return self.home / ".config" / "overnight" / "profiles" / f"{self.name}.yaml"

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*OVERNIGHT, "profile", *arguments], cwd=self.home, env=self.environment, text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def overnight(self, *arguments: str, code: int | None = 0) -> str:
        return ended(self.start(*arguments), code).stdout

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


def bad(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {what: one["text"] for what, one in found.items() if one["level"] != "ok"}


@pytest.fixture
def site(slurm: Slurm, tmp_path: Path) -> Site:
    return Site(slurm, tmp_path)


@pytest.mark.failure(17)
def test_a_new_profile_carries_a_chain_as_it_is(site: Site, tmp_path: Path) -> None:
    text = site.init()
    for part in ("partition: batch  # guessed", "gpu_model: h100", "gpu_request: {form: gpus-per-node}  # `sbatch --test-only", "devcluster: true"):
        assert part in text
    assert "account:" not in text, "there is no accounting"
    chain = site.chain(tmp_path / "work")
    chain.fetch()
    run = chain.submit()
    chain.wait()
    chain.assert_done_once(run)
    (job,) = (site.slurm.job(one.row.job_id) for one in chain.jobs() if one.stage == "cpt")
    assert job["TresPerNode"] == "gres:gpu:8"


def test_a_probe(site: Site) -> None:
    """Quick: one executor, and nothing that waits for Slurm's clock."""
    site.init("executors: {default: submitit, training: submitit}\n")
    before = site.file.read_text()
    found, said = site.test("--skip", "signal", "--skip", "requeue")
    assert set(found) == {"submitit"}
    assert not bad(found["submitit"])
    works = {"submission", "deadline", "python", "nodes", "rendezvous", "gpus", "cpus", "file system", "rename", "environment"}
    assert set(found["submitit"]) == works
    assert "16 of 16 processes met" in found["submitit"]["rendezvous"]["text"]
    assert said["amended"]
    after = site.file.read_text()
    assert after.startswith(before)
    assert after.removeprefix(before).startswith(amend.MARK)
    assert site.overnight("test", site.name, "--skip", "signal", "--skip", "requeue", "--no-amend").count("executor submitit") == 1
    assert site.file.read_text() == after


@pytest.mark.failure(17)
def test_check_names_the_line(site: Site) -> None:
    text = site.init("executors: {default: submitit, training: submitit}\n")
    assert not {what for what, one in site.check().items() if one["level"] == "fail"}
    changed = text.replace('max_time: "04:00:00"', 'max_time: "9:00:00"').replace('time: "4:00:00"', 'time: "9:00:00"')
    site.file.write_text(changed.replace("partition: batch ", "partition: no-such ") + "constraint: hbm\n")
    findings = site.check(code=1)
    lines = site.file.read_text().splitlines()
    numbers = {text.split(":")[0]: number for number, text in enumerate(lines, start=1)}
    assert findings["partition batch"]["level"] == "fail"
    assert '"9:00:00"' in lines[int(findings["partition batch"]["where"].split(":")[-2]) - 1]
    refused = findings["sbatch: cpt, sft, dpo"]
    assert refused["level"] == "fail"
    assert refused["where"].split(":")[-2] == str(numbers["partition"])


@FULL
def test_a_refused_requeue_becomes_a_chain_of_jobs(site: Site) -> None:
    site.init("sbatch: {no-requeue: true}\nexecutors: {default: submitit, training: submitit}\n")
    found, said = site.test("--skip", "signal")
    assert bad(found["submitit"]) == {"requeue": found["submitit"]["requeue"]["text"]}
    assert "presently disabled" in found["submitit"]["requeue"]["text"]
    assert "+continuation: chain" in said["amended"]
    assert read_profile(site.file).profile.continuation == "chain"
    again, _ = site.test("--skip", "signal")
    assert not bad(again["submitit"])


@FULL
def test_the_warning_comes_with_its_lead(site: Site) -> None:
    site.init("executors: {default: submitit, training: submitit}\n")
    found, _ = site.test("--skip", "requeue", "--minutes", "2")
    assert "USR1 came" in found["submitit"]["signal"]["text"]
    assert found["submitit"]["signal"]["level"] == "ok"


@FULL
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can hide a directory from a node")
def test_a_workspace_that_is_not_shared_is_found_out(site: Site) -> None:
    """The second node sees a copy of the probe's directory in its place, as with a local disk of that name."""
    site.init("executors: {default: submitit, training: submitit}\n")
    copy = 'mkdir "$HOME/other" && cp -r "$1"/. "$HOME/other" && mount --bind "$HOME/other" "$1" && cd "$1"'
    python = site.home / "python"
    python.write_text(
        f"""#!/bin/bash
if [ "${{SLURM_NODEID:-0}}" = 1 ] && [ "${{2:-}}" = probe-node ]; then
  exec unshare --mount bash -c '{copy} && shift && exec "$@"' bash "$3" {sys.executable} "$@"
fi
exec {sys.executable} "$@"
"""
    )
    python.chmod(0o755)
    with site.file.open("a") as stream:
        stream.write(f"environments: {{toy: {{python: {python}}}}}\n")
    found, _ = site.test("--skip", "signal", "--skip", "requeue", "--minutes", "5", code=1)
    assert "1 of 2 nodes" in bad(found["submitit"])["work"]


@FULL
def test_leaving_cancels_the_jobs(site: Site) -> None:
    site.init("sbatch: {hold: true}\n")
    process = site.start("test", site.name)
    end = time.monotonic() + 120
    while len(site.slurm.jobs()) < 2:
        assert time.monotonic() < end, "no two jobs were submitted"
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    assert ended(process, 130).stdout == ""
    while site.slurm.jobs():
        assert time.monotonic() < end + 60, "jobs are left in the queue"
        time.sleep(0.2)


@FULL
def test_giving_up_says_why_it_waits(site: Site) -> None:
    site.init("sbatch: {hold: true}\nexecutors: {default: submitit, training: submitit}\n")
    found, said = site.test("--wait", "0.1", code=1)
    assert "held" in found["submitit"]["start"]["text"].lower()
    assert said["amended"] is None
    assert not site.slurm.jobs()


# -- sites


@pytest.fixture
def shaped(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """The dev cluster in the shape of a site; of Perlmutter's two QOS the default one is too short for anything."""
    name = request.param
    if missing := packages.missing(True):
        pytest.skip(f"Debian packages not installed: {' '.join(missing)} (overnight cluster up --install)")
    directory = Path(tempfile.mkdtemp(prefix="overnight-shape-"))
    cluster = DevCluster(directory)
    shape = shape_of(profile_of(name), 4)
    try:
        cluster.up(nodes=4, with_accounting=bool(shape["accounts"]), shape=shape)
        slurm = Slurm(cluster, accounting=True)
        if name == "perlmutter":
            user = slurm.run(["id", "-un"]).stdout.strip()
            for command in (
                ["modify", "qos", "regular", "set", "MaxWall=1-00:00:00"], ["add", "qos", "debug", "MaxWall=30"],
                ["modify", "user", user, "where", "account=m0000", "set", "qos=debug,regular", "defaultqos=debug"],
            ):  # fmt: skip
                slurm.run(["sacctmgr", "-i", "-Q", *command])
        if name == "dgx-pyxis":
            if not Path("/usr/include/slurm/spank.h").exists() or shutil.which("gcc") is None:
                pytest.skip("libslurm-dev and gcc are not installed: a SPANK plugin cannot be built")
            plugin = tmp_path / "pyxis.so"
            subprocess.run(["gcc", "-fPIC", "-shared", "-o", plugin, CONTAINERS / "pyxis_shim.c"], check=True)
            (directory / "etc" / "plugstack.conf.d" / "pyxis.conf").write_text(f"required {plugin}\n")
        yield Site(slurm, tmp_path)
    finally:
        cluster.down()
        shutil.rmtree(directory, ignore_errors=True)


SAYS = {
    "dgx-pyxis": ("containers: {runtime: pyxis}", "account: research", "exclusive: true", 'time: "4:00:00"', "gpus_per_node: 8"),
    "university": ("partition: gpu", "gpus_per_node: 4", 'time: "1-00:00:00"', "keeps no accounting"),
    "perlmutter": ("qos: regular", "constraint: gpu", "data: {constraint: cpu}", "account: m0000"),
}
ADDS = {"dgx-pyxis": 'environments: {toy: {image: "nvcr.io#nvidia/nemo:25.09", python: /usr/bin/python3}}\n'}


@FULL
@pytest.mark.failure(17)
@pytest.mark.parametrize("shaped", list(SAYS), indirect=True, ids=list(SAYS))
def test_from_nothing_to_a_chain_at_a_site(shaped: Site, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["shaped"]
    text = shaped.init(ADDS.get(name, ""))
    for part in SAYS[name]:
        assert part in text
    assert not {what for what, one in shaped.check().items() if one["level"] == "fail"}
    found, said = shaped.test("--minutes", "1", "--skip", "signal")
    assert set(found) == {"nemo_run", "submitit"}
    for findings in found.values():
        assert not bad(findings)
        assert "came back under its id" in findings["requeue"]["text"]
        assert ("container" in findings) == (name == "dgx-pyxis")
    assert said["amended"]
    chain = shaped.chain(tmp_path / "work")
    chain.fetch()
    run = chain.submit()
    chain.wait()
    chain.assert_done_once(run)


@FULL
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
def test_an_ordinary_user(slurm: Slurm) -> None:
    """Nobody's home, a Python that everybody may run, root's cluster."""
    nobody = pwd.getpwnam("nobody")
    packages_of = Path(pytest.__file__).parents[1]
    directory = Path(tempfile.mkdtemp(prefix="overnight-nobody-"))
    try:
        directory.chmod(0o755)
        site = Site(slurm, directory)
        shutil.chown(site.home, nobody.pw_uid, nobody.pw_gid)
        for package in ("launch", "jobs", "data_prep", "sbatch_templates", "cluster_profiles"):
            shutil.copytree(REPOSITORY / package, directory / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
        environment = {**site.environment, "PYTHONPATH": f"{directory}/code:{packages_of}"}

        def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["/usr/bin/python3", *map(str, arguments)], cwd=site.home, env=environment, user=nobody.pw_uid,
                group=nobody.pw_gid, extra_groups=[], capture_output=True, text=True, timeout=300,
            )  # fmt: skip

        if as_nobody("-c", "import pydantic, yaml, jinja2, submitit, nemo_run").returncode != 0:
            pytest.skip("no Python with our dependencies that an ordinary user may run")
        written = as_nobody("-m", "launch.cli", "profile", "init", "here", "--seconds", "60")
        assert written.returncode == 0, written.stderr
        assert "as user nobody saw it" in site.file.read_text()
        with site.file.open("a") as stream:
            stream.write("executors: {default: submitit, training: submitit}\n")
        tried = as_nobody("-m", "launch.cli", "profile", "test", "here", "--json", "--skip", "signal")
        assert tried.returncode == 0, tried.stdout + tried.stderr
        chain = site.chain(directory / "work")
        for path in (directory / "work", *(directory / "work").rglob("*")):
            shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
        for command in ("fetch", "submit"):
            done = as_nobody("-m", "launch.cli", command, chain.pipeline, "--cluster", site.file)
            assert done.returncode == 0, done.stdout + done.stderr
        chain.wait()
        chain.assert_done_once(chain.runs()[-1])
    finally:
        shutil.rmtree(directory, ignore_errors=True)
