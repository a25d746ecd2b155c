"""The pages that teach on a throw-away Slurm, command by command, in a home of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.slurm.devcluster import packages
from launch.slurm.devcluster.cluster import DevCluster
from tests.slurm.conftest import _PREFIX
from tests.support.pages import ROOT, Session, blocks

PAGES = ("README.md", "docs/tutorial.md", "docs/gates.md")
LONG = {"docs/tutorial.md": pytest.mark.full}  # it trains a model for minutes
"""Those whose blocks ask for Slurm; the others are run by tests/test_pages.py."""


@pytest.fixture
def home() -> Iterator[Path]:
    """An empty home with a short path, where the page starts its cluster, which is stopped at the end."""
    if lacking := packages.missing(False):
        pytest.skip(f"Debian packages not installed: {' '.join(lacking)} (overnight cluster up --install)")
    directory = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
    try:
        yield directory
    finally:
        DevCluster(directory / "cluster").down()
        shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.slurm
@pytest.mark.parametrize("page", [pytest.param(page, marks=LONG.get(page, ())) for page in PAGES])
def test_the_commands_of_a_page_do_what_it_says(page: str, home: Path) -> None:
    if page == "docs/tutorial.md":
        pytest.importorskip("transformers")
    session = Session(home, {"OVERNIGHT_DEVCLUSTER": str(home / "cluster")})
    for name in ("pipelines", "docs"):  # what README's commands name, as in a checkout
        (home / name).symlink_to(ROOT / name)
    found = [block for block in blocks(ROOT / page) if block.is_run]
    assert found
    for block in found:
        session.run(block)
