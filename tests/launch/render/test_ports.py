"""The search for ports: two jobs of a user at one moment, and what another user may have put into ``/tmp``."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from launch.render import templates


def claimed(directory: Path, jobs: int = 1) -> list[str]:
    """The ports that so many shells get from one seed, each of which holds its own while the next one looks."""
    text = templates.template("ports.sh.j2").replace("/tmp/", f"{directory}/")
    path = directory / "ports.sh"
    path.write_text(text)
    inner = "".join(f". {path}; (overnight_claim_ports 4 7; echo $overnight_port; " for _ in range(jobs)) + ")" * jobs
    done = subprocess.run(["bash", "-c", inner], capture_output=True, text=True, timeout=30, check=True)
    return done.stdout.split()


def test_two_jobs_of_a_user_do_not_get_one_port(tmp_path: Path) -> None:
    found = claimed(tmp_path, 3)
    assert len(set(found)) == 3
    directory = tmp_path / f"overnight-ports-{os.getuid()}"
    assert directory.stat().st_mode & 0o777 == 0o700


@pytest.mark.failure(35)
@pytest.mark.parametrize("there", ["fifo", "link", "foreign"])
def test_what_another_user_has_put_there_neither_blocks_nor_refuses(tmp_path: Path, there: str) -> None:
    path = tmp_path / f"overnight-ports-{os.getuid()}"
    if there == "fifo":
        os.mkfifo(path)
    elif there == "link":
        (tmp_path / "elsewhere").mkdir()
        path.symlink_to(tmp_path / "elsewhere")
    else:
        if os.getuid() != 0:
            pytest.skip("only root can make a directory another user's")
        path.mkdir()
        os.chown(path, 65534, 65534)
    assert len(claimed(tmp_path)) == 1
    assert not list((tmp_path / "elsewhere").glob("*"))
