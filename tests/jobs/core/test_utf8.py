"""A forced ASCII locale, with names and texts that are not ASCII."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.toy_chain import ROOT, Chain

FORCED = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}


@pytest.mark.failure(35)
def test_a_chain_in_a_forced_ascii_locale(tmp_path: Path) -> None:
    """Paths, rows and what is printed: submitted by one process, carried by others, each in that locale."""
    chain = Chain.make(tmp_path / "Übung ☕", "  prufung: {kind: instructions, from: ./sätze.jsonl}\n")
    rows = [{"prompt": f"Wie heißt die Zahl nach {n}? ", "completion": f"„{n + 1}“ ☕"} for n in range(40)]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (chain.directory / "sätze.jsonl").write_text(text, encoding="utf-8")
    env = {name: value for name, value in chain.variables.items() if not name.startswith(("LC_", "LANG", "PYTHON"))}
    command = [sys.executable, "-m", "launch.cli", "run", str(chain.pipeline)]
    done = subprocess.run(
        command, cwd=ROOT, env={**env, **FORCED, "PYTHONPATH": str(ROOT)}, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    found = list(chain.workspace.store.glob("dataset-*/output/train.jsonl"))
    assert len(found) == 1
    assert "☕" in found[0].read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["PYTHONIOENCODING", "LC_ALL"])
def test_a_job_starts_again_in_utf8_once(tmp_path: Path, name: str) -> None:
    env = {one: value for one, value in os.environ.items() if not one.startswith(("LC_", "LANG", "PYTHON"))}
    code = "import sys; from jobs.core import utf8; utf8.ensure(); print('\\xfc', sys.flags.utf8_mode, *sys.argv[1:])"
    command = [sys.executable, "-c", code, "ä", "b c"]
    forced = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C.UTF-8", name: FORCED[name]}
    done = subprocess.run(command, cwd=ROOT, env={**env, **forced}, capture_output=True, timeout=60, check=True)
    assert done.stdout.decode("utf-8") == "ü 1 ä b c\n"
