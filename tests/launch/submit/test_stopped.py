"""Ctrl-C in ``overnight run``: nothing further is begun, also where the current stage still finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.toy_chain import ROOT, STAGES, Chain


@pytest.mark.parametrize("stage", ["pairs", "cpt"])
def test_it_ends_with_130_and_says_how_to_go_on(stage: str, tmp_path: Path) -> None:
    chain = Chain.make(tmp_path / "c", STAGES)
    chain.fetch()
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.cli", "run", str(chain.pipeline)],
        cwd=ROOT, env=chain.variables, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if f": {stage}:" in line:
            time.sleep(0.8)
            os.killpg(process.pid, signal.SIGINT)
            break
    rest = process.stderr.read()
    code = process.wait(120)
    shown = "".join(lines) + rest
    assert "stage 6 of 6" not in shown, "it went on"
    run = chain.newest_run
    # A stage of data ends, and nothing follows; training saves, and is no failure.
    assert code == 130 or (code == 1 and "stopped at step" in shown), shown
    assert f"next: overnight resume {run}" in shown
    chain.overnight("resume", run)
    assert chain.started(run) >= {"cpt", "sft", "dpo"}
