"""Ports for a job are found whatever other users have put where their locks lie."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from launch.render import templates


def claimed(directory: Path) -> int:
    """The port that a job gets."""
    script = directory / "ports.sh"
    claims = "overnight_claim_ports 4 7919 || exit 1\necho $overnight_port\novernight_free_ports\n"
    script.write_text(templates.template("ports.sh.j2") + claims)
    done = subprocess.run(["bash", script], capture_output=True, text=True, timeout=60, check=True)
    return int(done.stdout)


@pytest.mark.parametrize("what", ["pipe", "directory", "link to nothing there"])
def test_what_is_no_file_is_passed_over_and_not_waited_for(tmp_path: Path, what: str) -> None:
    first = claimed(tmp_path)
    lock = Path(f"/tmp/overnight-ports-{first}")
    if what == "pipe":
        os.mkfifo(lock)
    elif what == "directory":
        lock.mkdir()
    else:
        lock.symlink_to(tmp_path / "none" / "there")
    try:
        assert claimed(tmp_path) != first
    finally:
        lock.rmdir() if what == "directory" else lock.unlink()
