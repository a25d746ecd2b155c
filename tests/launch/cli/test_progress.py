"""Tables, pace, and progress as lines in a log and as bars on a terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.core.progress import ProgressWriter, Report, recent
from launch.base.text import clock, count, duration, table
from launch.cli import progress as show
from launch.inputs import fetch
from launch.plan.model import Plan
from launch.status import progress as pace
from tests.support.made_runs import stage


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (93784, "1-02:03:04"), (-5, "0:00")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_clock_gives_the_date_of_another_day() -> None:
    now = time.mktime((2026, 7, 25, 12, 0, 0, 0, 0, -1))
    assert clock(now + 5, now) == "12:00:05"
    assert clock(now - 86400, now) == "2026-07-24 12:00"
    assert (count(1, "job"), count(2, "job")) == ("1 job", "2 jobs")


def test_table_leaves_out_columns_that_say_nothing() -> None:
    lines = table(("a", "empty", "n", "text"), [["x", "", "1", "long text"], ["yy", "", "10", "t"]], right=(2,))
    assert lines == ["a    n  text", "--  --  ----", "x    1  long text", "yy  10  t"]
    assert table(("a", "b"), []) == []


def reports(path: Path, *steps: tuple[float, int, str, int]) -> list[Report]:
    lines = [
        f'{{"time": {at}, "step": {step}, "total": 100, "phase": "{phase}", "restart": {restart}, "metrics": {{}}}}\n'
        for at, step, phase, restart in steps
    ]
    path.write_text("".join(lines) + '{"time": 9, "st', encoding="utf-8")
    return recent(path)


def test_pace_is_that_of_this_start_and_phase(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    assert recent(path) == []
    assert pace.seconds_left([]) is None
    found = reports(path, (0, 1, "load", 0), (1000, 50, "train", 0), (2000, 51, "train", 1), (2020, 61, "train", 1))
    assert pace.seconds_per_step(found) == 2.0
    assert pace.seconds_left(found) == 78.0
    assert pace.seconds_left(reports(path, (0, 1, "train", 0))) is None, "one step has no pace"
    counted_again = reports(path, (0, 90, "eval", 0), (100, 1, "eval", 0), (110, 2, "eval", 0))
    assert pace.seconds_per_step(counted_again) == 10.0


def test_only_the_end_of_a_long_file_is_read(tmp_path: Path) -> None:
    writer = ProgressWriter(tmp_path / "progress.jsonl")
    for step in range(400):
        writer.report(step, 400, "training", loss=1.0)
    found = recent(tmp_path / "progress.jsonl", window=2000)
    assert 10 < len(found) < 30
    assert found[-1].step == 399


def item() -> fetch.FetchItem:
    return fetch.FetchItem("base", fetch.SourceScheme.PACKAGE, "some-model==1.0", "gguf")


def test_fetch_in_a_log_is_a_line_an_activity(capsys: pytest.CaptureFixture[str]) -> None:
    with show.shown(quiet=False) as output:
        progress = show.fetching(output)
        for done in range(0, 100_000_000, 10_000_000):
            progress(item(), done, 100_000_000, "downloading")
        progress(item(), 5, None, "verifying")
    assert capsys.readouterr().err == "base: downloading\nbase: verifying: 0.0 MB\n"


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show.shown(quiet=True) as output:
        show.fetching(output)(item(), 1, None, "downloading")
        display = show.LocalDisplay(Plan("waits", (stage("cpt"),)), output)
        display.begin(stage("cpt"), reused=False)
        display.update(Report(1.0, 1, 3, "training", {"loss": 2.0}))
        display.note("hello")
        display.end(1.0)
    assert capsys.readouterr() == ("", "")


def test_a_run_in_a_log_is_a_line_at_begin_and_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = Plan("waits", (stage("cpt"), stage("sft", "cpt")))
    with show.shown(quiet=False) as output:
        display = show.LocalDisplay(plan, output)
        display.begin(plan.stages[0], reused=True)
        display.begin(plan.stages[1], reused=False)
        for step in range(1, 4):
            display.update(Report(float(step), step, 3, "training", {"loss": 2.5 / step}))
        display.end(65.0)
        assert capsys.readouterr().err.splitlines() == [
            "stage 1 of 2: cpt: sealed already, reused",
            "stage 2 of 2: sft: starting",
            "stage 2 of 2: sft: sealed after 1:05, training 3 of 3  loss 0.8333",
        ], "a line every ten seconds at most"
        monkeypatch.setattr(show, "LINE_SECONDS", 0.0)
        display.begin(plan.stages[1], reused=False)
        display.update(Report(10.0, 1, 3, "training", {"loss": 2.5}))
        display.update(Report(10.0, 1, 3, "training", {"loss": 2.5}))
        display.update(Report(20.0, 2, 3, "training", {"loss": 1.25}))
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "stage 3 of 2: sft: starting",
        "stage 3 of 2: sft: training 1 of 3  loss 2.5",
        "stage 3 of 2: sft: training 2 of 3  loss 1.25  0:10 left",
    ]


SCRIPT = """
import time
from jobs.core.progress import Report
from launch.cli import progress as show
from launch.inputs import fetch
from launch.plan.model import Plan
from tests.support.made_runs import stage
plan = Plan("waits", (stage("data"), stage("cpt", "data")))
with show.shown(quiet=False) as output:
    progress = show.fetching(output)
    progress(fetch.FetchItem("base", fetch.SourceScheme.PACKAGE, "m==1", "gguf"), 5_000_000, 10_000_000, "downloading")
with show.shown(quiet=False) as output:
    display = show.LocalDisplay(plan, output)
    display.begin(plan.stages[0], reused=True)
    display.begin(plan.stages[1], reused=False)
    display.update(Report(10.0, 1, 3, "training", {"loss": 2.5}))
    display.update(Report(20.0, 2, 3, "training", {"loss": 1.25}))
    time.sleep(0.6)
    display.note("a note")
    display.end(65.0)
"""


def test_bars_on_a_terminal() -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140"}
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.Popen(command, stderr=theirs, env=environment, cwd=Path(__file__).parents[3])
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # the other side is closed
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0
    text = shown.decode()
    for expected in (
        "base: downloading",
        "5.0 of 10.0 MB",
        "stage 1 of 2: data: sealed already, reused",
        "stage 2 of 2: cpt",
        "training 2 of 3  loss 1.25",
        "0:10 left",
        "a note",
        "sealed after 1:05",
    ):
        assert expected in text, expected


def test_rich_is_not_imported_where_there_is_no_terminal() -> None:
    code = SCRIPT + "import sys; sys.exit('rich' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], check=False, capture_output=True, text=True
    )
    assert (done.returncode, "sealed after 1:05" in done.stderr) == (0, True), done.stderr
