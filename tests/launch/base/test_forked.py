"""A script in a fork of this process says what it would say in a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.base import forked

SCRIPT = """
import os, sys
print(sys.argv[1:], __name__, sorted(os.environ))
print("complaint", file=sys.stderr)
os.write(1, "more é\\n".encode())
what = sys.argv[1]
if what == "exit":
    sys.exit(int(sys.argv[2]))
if what == "words":
    sys.exit("these words")
if what == "fail":
    raise LookupError("nothing there")
if what == "die":
    os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("arguments", [["end"], ["exit", "0"], ["exit", "7"], ["words"], ["fail"], ["die"]])
def test_as_a_process_of_its_own(tmp_path: Path, arguments: list[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {"LC_ALL": "C.UTF-8", "A": "é", "PYTHONUNBUFFERED": "1"}
    before = dict(os.environ), list(sys.argv)
    found = forked.run([str(script), *arguments], environment, 60)
    assert (dict(os.environ), sys.argv) == before
    other = subprocess.run(
        [sys.executable, script, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert found.returncode == other.returncode
    if arguments == ["die"]:  # with what it had not written yet
        return
    assert sorted(found.stdout.splitlines()) == sorted(other.stdout.splitlines())
    assert found.stderr.splitlines()[0] == other.stderr.splitlines()[0]
    assert found.stderr.splitlines()[-1] == other.stderr.splitlines()[-1]


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    note = tmp_path / "pid"
    script.write_text(f"import os, time\nopen({str(note)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)\n")
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        forked.run([str(script)], dict(os.environ), 2)
    assert time.monotonic() - began < 60
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)
