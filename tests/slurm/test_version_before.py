"""Jobs that an older version of Overnight put into the queue go on when it is replaced by this one.

The older version is the last commit before the modules were moved into rooms, taken out of the repository's history.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.chains import ALL, REPOSITORY, Chain, ended
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

BEFORE = "b5980f2"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment in which ``python -m launch.cli`` is the older version."""
    packed = subprocess.run(["git", "-C", str(REPOSITORY), "archive", BEFORE], capture_output=True, check=False)
    if packed.returncode:
        pytest.skip(f"commit {BEFORE} is not in the history of this checkout: {packed.stderr.decode().strip()}")
    directory = tmp_path_factory.mktemp("older")
    subprocess.run(["tar", "-x", "-C", str(directory)], input=packed.stdout, check=True)
    assert (directory / "launch/rundir.py").is_file()
    return {"PYTHONPATH": str(directory)}


def submitted(chain: Chain, older: dict[str, str]) -> str:
    for name in ("fetch", "submit"):  # by a process: a fork would have this version imported
        ended(chain.start(name, environment=older))
    (run,) = chain.runs()
    assert (chain.workspace.run(run).toolkit / "jobs/lifecycle.py").is_file(), "its jobs run the older version"
    return run


def test_queued_jobs_are_known_and_finish(slurm: Slurm, tmp_path: Path, older: dict[str, str]) -> None:
    chain = Chain(slurm, tmp_path / "chain", ALL, profile={"sbatch": {"hold": True}})
    run = submitted(chain, older)
    queued = chain.resume(run)
    assert {action for action, _ in queued.values()} == {"adopted"}
    assert {stage["state"] for stage in chain.status(run)["stages"]} == {"waiting"}
    chain.release()
    chain.wait()
    chain.assert_done_once(run)
    assert {action for action, _ in chain.resume(run).values()} == {"reused"}


@pytest.mark.full
def test_what_it_cancels_is_submitted_again_and_finishes(slurm: Slurm, tmp_path: Path, older: dict[str, str]) -> None:
    chain = Chain(slurm, tmp_path / "chain", ALL, profile={"sbatch": {"hold": True}})
    run = submitted(chain, older)
    chain.cancel(run)
    chain.wait()
    again = chain.resume(run)
    assert {action for action, _ in again.values()} == {"submitted"}
    chain.release()
    chain.wait()
    chain.assert_done_once(run)
