"""Curves of a run as TensorBoard itself reads them: joined over restarts, from the progress of the stages."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboard")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from jobs.core.progress import ProgressWriter
from launch.runs.rundir import Run
from launch.status import boards, curves
from tests.support.toy_chain import ROOT, Chain

STAGES = """\
  pairs: {kind: instructions, from: ./sft.jsonl}
  sft: {kind: sft, backend: toy, checkpoint: base, data: pairs, steps: 6, lr: 1.0, batch_size: 8, validate_every: 3}
"""


def read(directory: Path) -> dict[str, list[tuple[int, float]]]:
    found = EventAccumulator(str(directory))
    found.Reload()
    return {tag: [(one.step, one.value) for one in found.Scalars(tag)] for tag in found.Tags()["scalars"]}


def test_the_curves_of_a_run(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path, STAGES)
    chain.fetch()
    assert "no training stage of run" not in chain.start().stderr
    run = chain.newest_run
    told = json.loads(chain.overnight("tensorboard", run, "--write-only", "--json").stdout)
    directory = chain.workspace.run(run).boards
    assert told["directory"] == str(directory)
    assert [path.name for path in directory.iterdir()] == ["sft"]
    chain.overnight("tensorboard", run, "--write-only")  # again: one event file, not two
    assert len(list((directory / "sft").iterdir())) == 1
    found, reports = read(directory / "sft"), list(curves.steps(chain.stage("sft").progress))
    for tag, name in (("train/loss", "loss"), ("train/lr", "lr"), ("validation/loss", "validation_loss")):
        wanted = [(report.step, report.metrics[name]) for report in reports if name in report.metrics]
        assert [step for step, _ in found[tag]] == [step for step, _ in wanted]
        assert [value for _, value in found[tag]] == pytest.approx([value for _, value in wanted], rel=1e-6)
    assert [step for step, _ in found["validation/loss"]] == [3, 6]

    chain.write(STAGES.replace("  sft:", "  other:"))  # the same stage in another run: reused, with the same curves
    chain.start()
    chain.overnight("tensorboard", chain.newest_run, "--write-only")
    assert read(chain.workspace.run(chain.newest_run).boards / "other") == found


def report(path: Path, restart: int, *steps: int) -> None:
    writer = ProgressWriter(path, restart)
    for step in steps:
        writer.report(step, 20, "", loss=100.0 * restart + step, grad_norm=1.0, memory_bytes=2.0**33)


def test_what_a_restart_did_again_is_there_once(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    report(path, 0, *range(1, 8))
    ProgressWriter(path, 0).report(3, 9, "validation", loss=1.0)
    report(path, 1, 5, 6)
    board = boards.Board(tmp_path / "board", [path])
    wanted = [(step, float(step)) for step in range(1, 5)] + [(5, 105.0), (6, 106.0)]
    assert read(tmp_path / "board")["train/loss"] == wanted
    assert set(read(tmp_path / "board")) == {"train/loss", "train/grad_norm", "train/memory_bytes"}

    report(path, 1, 7, 8)
    with open(path, "a") as stream:
        stream.write('{"time": 1.0, "step": 9, "to')  # torn: its writer is at work
    board.follow()
    assert read(tmp_path / "board")["train/loss"] == [*wanted, (7, 107.0), (8, 108.0)]
    with open(path, "a") as stream:
        stream.write('tal": 20, "metrics": {"loss": 109.0}}\n')
    report(path, 2, 6, 7)  # the next start went on from the save of step 5
    board.follow()
    found = read(tmp_path / "board")["train/loss"]
    assert found == [*wanted[:5], (6, 206.0), (7, 207.0)]


def test_a_curve_goes_on_over_runs(tmp_path: Path) -> None:
    for number, steps in enumerate(([1, 2, 3], [3, 4])):
        report(tmp_path / f"{number}.jsonl", number, *steps)
    boards.Board(tmp_path / "board", [tmp_path / "0.jsonl", tmp_path / "1.jsonl"])
    assert [step for step, _ in read(tmp_path / "board")["train/loss"]] == [1, 2, 3, 4]


def test_a_run_without_a_step_says_so(tmp_path: Path) -> None:
    chain = Chain.make(tmp_path, STAGES.partition("  sft")[0])
    chain.start()
    done = chain.overnight("tensorboard", "--write-only", check=False)
    assert done.returncode != 0
    assert "has reported a step" in done.stderr
    assert "next: overnight status" in done.stderr


def test_an_installation_without_tensorboard_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    report(tmp_path / "progress.jsonl", 0, 1)
    with pytest.raises(Exception, match="TensorBoard is not installed here") as raised:
        boards.Board(tmp_path / "board", [tmp_path / "progress.jsonl"])
    assert "overnight[tensorboard]" in str(vars(raised.value))


def test_it_is_started_and_told_how_to_be_reached(tmp_path: Path) -> None:
    """On a port of its own; what the stage reports meanwhile is added."""
    chain = Chain.make(tmp_path, STAGES)
    chain.fetch()
    chain.start()
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    command = [sys.executable, "-m", "launch.cli", "tensorboard", chain.newest_run, "--port", str(port)]
    process = subprocess.Popen(
        command, cwd=ROOT, env=chain.variables, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        said = "".join(process.stdout.readline() for _ in range(3))
        assert re.search(rf"ssh -L {port}:localhost:{port} \S+@\S+", said), said
        address = f"http://localhost:{port}/data/plugin/scalars/tags"
        found: Any = {}
        deadline = time.monotonic() + 120
        while not found and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(address, timeout=10) as answer:
                    found = json.load(answer)
            except OSError:
                time.sleep(0.5)
        assert "train/loss" in found["sft"]
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
    assert os.path.isdir(Run(chain.workspace, chain.newest_run).paths.boards)
