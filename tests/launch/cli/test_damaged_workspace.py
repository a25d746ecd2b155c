"""Every command that reads meets every kind of file of a workspace, damaged or hostile: no traceback, and it ends."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from launch.cli import main
from tests.support.toy_chain import Chain

STAGES = """\
  pairs: {kind: instructions, from: ./sft.jsonl}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, steps: 6, lr: 0.5, batch_size: 8, save_every: 2}
  bad: {kind: sft, backend: toy, checkpoint: sft, data: pairs, steps: 6, lr: 0.5, batch_size: 8, options: {mishap: code}}
"""

KINDS: tuple[Callable[[Path], object], ...] = (
    lambda path: path.mkdir(),
    lambda path: os.mkfifo(path),
    lambda path: path.symlink_to(path.name),
    lambda path: path.write_bytes(b"[" * 100_000),
    lambda path: path.write_bytes(b'{"a":' * 100_000),
    lambda path: path.write_bytes(b"\xff\xfe\0"),
    lambda path: path.write_bytes(b"7"),
    lambda path: path.write_bytes(b'{"time": "soon", "schema": 1, "pins": 7, "event": [], "step": -1}'),
)


def kinds_of_files(chain: Chain) -> list[Path]:
    """One file of each kind that we keep."""
    found: dict[tuple[str, ...], Path] = {}
    places = [chain.workspace.root, chain.directory / "state"]
    for path in sorted(path for place in places for path in place.rglob("*")):
        told = path.relative_to(chain.directory).parts
        if not path.is_file() or path.is_symlink() or {"code", "output", "logs", "pairs"} & set(told):
            continue
        kind = "claims" if "claims" in told else path.name.partition("-")[0]
        found.setdefault((kind, path.parent.name.partition("-")[0]), path)
    return list(found.values())


@pytest.mark.full
@pytest.mark.failure(30)
def test_no_command_breaks(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path, STAGES)
    chain.fetch()
    chain.start(check=False)
    run = chain.newest_run
    commands = itertools.cycle([
        ("status", run), ("list",), ("why", run, "bad"), ("report", run), ("logs", run, "bad"), ("doctor", run),
        ("plan", str(chain.pipeline)), ("gc",),
    ])  # fmt: skip
    broken = []
    for path in kinds_of_files(chain):
        whole, status = path.read_bytes(), path.stat()
        for make in KINDS:
            path.unlink()
            make(path)
            for command in itertools.islice(commands, 3):
                done = chain.overnight(*command, check=False, timeout=120)
                if done.returncode in (main.BUG, -11) or "Traceback" in done.stderr:
                    broken.append(f"{command[0]} {path}: {done.stderr[-600:]}")
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()
            path.write_bytes(whole)
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert not broken, "\n".join(broken)
