"""How long the monitor waits for a step before it takes the work to hang, and what it does then."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import claim, files
from jobs.core.progress import ProgressWriter, Report
from jobs.core.spec import StageSpec, save
from jobs.lifecycle.start import Start, claim_of, event, own_saves_of
from jobs.worker import monitor
from jobs.worker.monitor import START_SECONDS, HangTimeout
from tests.file_faults.job import prepare, spec_of
from tests.support.stages import ROOT

FIRST = Start("100", 0, 0, "node1", ("node1",))


@pytest.mark.failure(43)
def test_patience_follows_the_steps_and_the_saves() -> None:
    patience = HangTimeout(None, save_seconds=100.0, began=0.0)
    assert patience.seconds == START_SECONDS
    for step in range(1, 6):
        patience.see(Report(60.0 * step, step, 10, "", {}))
    assert patience.seconds == 20 * 60 + 100, "twenty steps of a minute, and a save"
    patience.see(Report(60.0 * 5 + 1000, 6, 10, "", {}))
    assert patience.seconds == 3000 + 100, "a step that took long may do so again"
    slow_start = HangTimeout(None, save_seconds=0.0, began=0.0)
    slow_start.see(Report(3600.0, 1, 99, "", {}))
    assert slow_start.seconds == 3 * 3600, "the next step may take as long, for all that is known"
    for step in range(2, 8):
        slow_start.see(Report(3600.0 + step, step, 99, "", {}))
    assert slow_start.seconds == 600, (
        "steps of a second: an hour to load the model does not make a hang three hours long"
    )
    told = HangTimeout(5.0, save_seconds=0.0, began=0.0)
    told.see(Report(30.0, 1, 10, "", {}))
    assert told.seconds == 90, "slower than stall_after is not a hang"


def spec_at(directory: Path, **more: Any) -> StageSpec:
    spec = replace(spec_of(directory), **more)
    prepare(spec)
    spec.stage_paths.logs.mkdir()
    return spec


@pytest.mark.failure(43)
def test_a_rank_that_makes_no_step_leaves_its_stack_and_is_killed(tmp_path: Path) -> None:
    spec = spec_at(tmp_path, stall_seconds=0.1)
    assert claim.take(spec.store_paths, claim_of(spec, FIRST)) is None
    files.make_directory(own_saves_of(spec, FIRST))
    code = (
        "import sys\nfrom pathlib import Path\nfrom jobs.core import spec\nfrom jobs.lifecycle.start import Start\n"
        "from jobs.worker import monitor\n"
        "def hangs():\n    print(flush=True)\n    while True: pass\n"
        "given = spec.load(Path(sys.argv[1]))\nmonitor.start(given, Start('100', 0, 0, 'here'), 0)\nhangs()\n"
    )
    file = tmp_path / "spec.json"
    save(file, replace(spec, kind="corpus"))  # of a kind that starts no monitor of its own
    rank = subprocess.Popen([sys.executable, "-c", code, str(file)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert rank.stdout is not None
        rank.stdout.readline()
        began = time.time()
        watching = monitor._Monitor(spec, FIRST, began, watches=True)
        other = monitor._Monitor(spec, FIRST, began, watches=False)
        assert not watching.has_stalled(), "not before a first step"
        ProgressWriter(spec.stage_paths.progress).report(1, 6)
        end = time.monotonic() + 30
        while not watching.has_stalled():
            assert not other.has_stalled()
            assert time.monotonic() < end
            time.sleep(0.02)
        assert other.has_stalled(), "the monitors of the other nodes read what this one found"
        watching.end()
        assert rank.wait(30) == -signal.SIGKILL
    finally:
        rank.kill()
        rank.wait()
    assert "in hangs" in spec.stage_paths.stack("100", 0, 0).read_text()
    result = json.loads(spec.stage_paths.result.read_text())
    assert (result["outcome"], result["failure"], result["job"]) == ("failed", "hang", "100")
    assert "since step 1" in result["evidence"]


@pytest.mark.failure(43)
def test_a_step_ends_the_silence(tmp_path: Path) -> None:
    spec = spec_at(tmp_path, stall_seconds=0.2)
    watching = monitor._Monitor(spec, FIRST, time.time(), watches=True)
    writer = ProgressWriter(spec.stage_paths.progress)
    end, step = time.monotonic() + 0.6, 0
    while time.monotonic() < end:
        step += 1
        writer.report(step, 100)
        assert not watching.has_stalled()
        time.sleep(0.01)
    assert not spec.stage_paths.stall("100", 0).exists()


def test_the_longest_save_of_any_start_counts(tmp_path: Path) -> None:
    spec = spec_at(tmp_path)
    assert monitor.longest_save(spec) == 0.0
    for restart, seconds in enumerate((3.0, 9.5, 4.0)):
        event(spec.stage_paths, replace(FIRST, restart=restart), "save_took", seconds=seconds)
    assert monitor.longest_save(spec) == 9.5
