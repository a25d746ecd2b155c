"""``overnight profile`` on a real Slurm: the profile that it writes carries a chain, and its probe finds what works.

Three very different sites are the dev cluster in their shape, as ``overnight cluster up --shape`` makes it.
"""

from __future__ import annotations

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

import pytest

from launch.config.profile_file import read_profile
from launch.site.probe import amend
from launch.slurm.devcluster import packages
from tests.support.chains import REPOSITORY, ended
from tests.support.shaped import ADDED, SITES, Site, can_build, like
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

FULL = pytest.mark.full
APPTAINER = Path(__file__).parent / "containers" / "apptainer"
QUICK = ("--skip", "signal", "--minutes", "10")
"""Nothing that waits for Slurm's clock, and room for a slow machine."""


def bad(found: dict[str, dict[str, str]]) -> dict[str, str]:
    return {what: one["text"] for what, one in found.items() if one["level"] != "ok"}


@pytest.fixture
def site(slurm: Slurm, tmp_path: Path) -> Site:
    return Site(slurm, tmp_path)


@pytest.mark.failure(17)
def test_a_new_profile_carries_a_chain_as_it_is(site: Site, tmp_path: Path) -> None:
    text = site.init()
    for part in (
        "partition: batch  # guessed",
        "gpu_model: h100",
        "gpu_request: {form: gpus-per-node}  # `sbatch --test-only",
        "devcluster: true",
    ):
        assert part in text
    assert "account:" not in text, "there is no accounting"
    chain = site.chain(tmp_path / "work")
    chain.fetch()
    run = chain.submit()
    chain.wait()
    chain.assert_done_once(run)
    (job,) = (site.slurm.job(one.row.job_id) for one in chain.jobs() if one.stage == "cpt")
    assert job["TresPerNode"].replace("/", ":") == "gres:gpu:8"  # 24.11 has a slash


def test_a_probe(site: Site) -> None:
    """Quick: one executor, and nothing that waits for Slurm's clock."""
    site.init("executors: {default: submitit, training: submitit}\n")
    before = site.file.read_text()
    found, said = site.test(*QUICK, "--skip", "requeue")
    assert set(found) == {"submitit"}
    assert not bad(found["submitit"])
    works = {
        "submission",
        "deadline",
        "python",
        "nodes",
        "rendezvous",
        "gpus",
        "cpus",
        "file system",
        "rename",
        "environment",
    }
    assert set(found["submitit"]) == works
    assert "16 of 16 processes met" in found["submitit"]["rendezvous"]["text"]
    assert said["amended"]
    after = site.file.read_text()
    assert after.startswith(before)
    assert after.removeprefix(before).startswith(amend.MARK)
    assert site.overnight("test", site.name, *QUICK, "--skip", "requeue", "--no-amend").count("executor submitit") == 1
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
    # Both are wrong; which of the two it is that Slurm names first differs between 22.05 and 24.11.
    assert int(refused["where"].split(":")[-2]) in (numbers["partition"], numbers["constraint"])


@pytest.mark.failure(17)
def test_every_partition_is_tried(site: Site) -> None:
    """Also those that no kind of job goes to; and what is longer than its partition's limit is asked for in segments."""
    text = site.init("executors: {default: submitit, training: submitit}\n")
    longer = text.replace('time: "4:00:00"}', 'time: "2-00:00:00"}')
    assert longer != text
    site.file.write_text(longer)
    names = set(read_profile(site.file).profile.partitions)
    assert {"batch", "interactive", "preempt", "short"} <= names
    found = site.check()
    tried = {what for what in found if what.startswith("sbatch: one node of ")}
    assert tried == {f"sbatch: one node of {name}" for name in names - {"batch"}}
    assert {found[what]["level"] for what in tried} == {"ok"}
    assert found["sbatch: cpt, sft, dpo"]["level"] == "ok"
    site.slurm.run(["scontrol", "update", "partitionname=interactive", "state=inactive"])
    try:
        refused = site.check()["sbatch: one node of interactive"]
    finally:
        site.slurm.run(["scontrol", "update", "partitionname=interactive", "state=up"])
    assert refused["level"] == "warn"
    assert "not available" in refused["text"]
    line = site.file.read_text().splitlines()[int(refused["where"].split(":")[-2]) - 1]
    assert "max_time" in line, "the first line of that partition"


@FULL
def test_a_refused_requeue_becomes_a_chain_of_jobs(site: Site) -> None:
    site.init("sbatch: {no-requeue: true}\nexecutors: {default: submitit, training: submitit}\n")
    found, said = site.test(*QUICK)
    assert bad(found["submitit"]) == {"requeue": found["submitit"]["requeue"]["text"]}
    assert "presently disabled" in found["submitit"]["requeue"]["text"]
    assert "+continuation: chain" in said["amended"]
    assert read_profile(site.file).profile.continuation == "chain"
    again, _ = site.test(*QUICK)
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
    found, _ = site.test(*QUICK, "--skip", "requeue", code=1)
    assert "1 of 2 nodes" in bad(found["submitit"])["work"]


@FULL
@pytest.mark.parametrize("way", ["apptainer", "modules"])
def test_the_work_of_a_probe_is_where_the_back_end_is(site: Site, tmp_path: Path, way: str) -> None:
    if way == "apptainer":
        added = (
            f"environments: {{toy: {{image: {tmp_path}/train.sif, python: /usr/bin/python3}}}}\n"
            f"setup: [\"export RECORD='{tmp_path}'\"]\n"
        )
        (tmp_path / "train.sif").touch()
    elif Path("/usr/share/modules/init/bash").exists():
        added = 'environments: {toy: {modules: ["null"], python: /usr/bin/python3}}\n'
    else:
        pytest.skip("Environment Modules are not installed")
    text = site.init(f"{added}executors: {{default: submitit, training: submitit}}\n")
    if way == "apptainer":
        runtime = f"containers: {{runtime: apptainer, executable: {APPTAINER}}}"
        site.file.write_text(text.replace("containers: {runtime: none}", runtime))
    what = {"apptainer": "image of toy", "modules": "modules of toy"}[way]
    assert site.check()[what]["level"] == "ok"
    found, _ = site.test(*QUICK, "--skip", "requeue")
    assert not bad(found["submitit"])
    assert ("container" in found["submitit"]) == (way == "apptainer")
    assert "of back end toy" in found["submitit"]["nodes"]["text"]


@FULL
def test_leaving_cancels_the_jobs(site: Site) -> None:
    site.init("sbatch: {hold: true}\n")
    process = site.start("test", site.name)
    end = time.monotonic() + 300
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
    if missing := packages.missing(True):
        pytest.skip(f"Debian packages not installed: {' '.join(missing)} (overnight cluster up --install)")
    if request.param == "dgx-pyxis" and not can_build():
        pytest.skip("libslurm-dev and gcc are not installed: a SPANK plugin cannot be built")
    with like(request.param, tmp_path) as found:
        yield found


SAYS = {
    "dgx-pyxis": (
        "containers: {runtime: pyxis}",
        "account: research",
        "exclusive: true",
        'time: "4:00:00"',
        "gpus_per_node: 8",
    ),
    "university": ("partition: gpu", "gpus_per_node: 4", 'time: "1-00:00:00"', "keeps no accounting"),
    "perlmutter": ("qos: regular", "constraint: gpu", "data: {constraint: cpu}", "account: m0000"),
}


@FULL
@pytest.mark.failure(17)
@pytest.mark.parametrize("shaped", SITES, indirect=True)
def test_from_nothing_to_a_chain_at_a_site(shaped: Site, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    name = request.node.callspec.params["shaped"]
    text = shaped.init(ADDED.get(name, ""))
    for part in SAYS[name]:
        assert part in text
    assert not {what for what, one in shaped.check().items() if one["level"] == "fail"}
    found, said = shaped.test(*QUICK)
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
            shutil.copytree(
                REPOSITORY / package, directory / "code" / package, ignore=shutil.ignore_patterns("__pycache__")
            )
        environment = {**site.environment, "PYTHONPATH": f"{directory}/code:{packages_of}"}

        def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["/usr/bin/python3", *map(str, arguments)],
                cwd=site.home,
                env=environment,
                user=nobody.pw_uid,
                group=nobody.pw_gid,
                extra_groups=[],
                capture_output=True,
                text=True,
                timeout=300,
            )

        if as_nobody("-c", "import yaml, jinja2, submitit, nemo_run").returncode != 0:
            pytest.skip("no Python with our dependencies that an ordinary user may run")
        written = as_nobody("-m", "launch.cli", "profile", "init", "here", "--seconds", "60")
        assert written.returncode == 0, written.stderr
        assert "as user nobody saw it" in site.file.read_text()
        with site.file.open("a") as stream:
            stream.write("executors: {default: submitit, training: submitit}\n")
        tried = as_nobody("-m", "launch.cli", "profile", "test", "here", "--json", *QUICK)
        assert tried.returncode == 0, tried.stdout + tried.stderr
        chain = site.chain(directory / "work")
        for path in (directory / "work", *(directory / "work").rglob("*")):
            shutil.chown(path, nobody.pw_uid, nobody.pw_gid)
        for command in ("fetch", "submit"):
            done = as_nobody("-m", "launch.cli", command, chain.pipeline, "--cluster", site.file)
            assert done.returncode == 0, done.stdout + done.stderr
        run = chain.runs()[-1]
        # Not chain.wait(): our own queue is root's.
        chain.wait_until(lambda: not slurm.jobs(), "the end of nobody's jobs", 300)
        chain.assert_done_once(run)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
