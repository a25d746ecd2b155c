"""Real Slurm for a test session: four nodes each, in a private directory, on ports of their own.

``slurm`` has no accounting (as many sites do for users), ``slurm_accounting`` has slurmdbd. Both yield a
``tests.support.slurm.Slurm``. Jobs that a test leaves behind are cancelled after it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.slurm.devcluster import packages
from launch.slurm.devcluster.cluster import DevCluster
from tests.support.slurm import Slurm

# Short, because sockets live in there; with the owner's id, so that the next session can clean up after a killed one.
_PREFIX = "overnight-slurm-"


def _remove_orphans() -> None:
    """Clusters of test sessions that were killed before they could tear down."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        owner = directory.name.removeprefix(_PREFIX).partition("-")[0]
        if directory.stat().st_uid == os.getuid() and owner.isdigit() and not Path("/proc", owner).exists():
            inner = directory / "cluster"  # of the tests of the dev cluster itself
            DevCluster(inner if inner.exists() else directory).down()
            shutil.rmtree(directory, ignore_errors=True)


def _cluster(accounting: bool) -> Iterator[Slurm]:
    missing = packages.missing(accounting)
    if missing:
        pytest.skip(f"Debian packages not installed: {' '.join(missing)} (overnight cluster up --install)")
    _remove_orphans()
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    cluster = DevCluster(directory)
    try:
        cluster.up(with_accounting=accounting)
        yield Slurm(cluster, accounting)
    finally:
        cluster.down()
        shutil.rmtree(directory, ignore_errors=True)  # where `up` failed before there was a cluster


@pytest.fixture(scope="session")
def slurm() -> Iterator[Slurm]:
    """A cluster without accounting."""
    yield from _cluster(accounting=False)


@pytest.fixture(scope="session")
def slurm_accounting() -> Iterator[Slurm]:
    """A cluster with slurmdbd: sacct works, jobs go to account ``research``."""
    yield from _cluster(accounting=True)


@pytest.fixture(autouse=True)
def _no_jobs_left(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"slurm", "slurm_accounting"} & set(request.fixturenames):
        cluster = request.getfixturevalue(name)
        assert isinstance(cluster, Slurm)
        cluster.scancel_all()
