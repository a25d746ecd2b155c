"""Watching a run: one question for all, what the rows say, and a terminal that is left as it was."""

from __future__ import annotations

import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from jobs.core import files
from launch.cli.main import main
from launch.plan.estimates import Estimate
from launch.runs.rundir import Run
from launch.status.model import RunStatus, StageStatus, State
from launch.watch import feed, plain, screen
from launch.watch.feed import Feed, Seen
from tests.support.made_runs import make, sealed, stage

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def a_run(tmp_path: Path, executor: str = "local") -> Run:
    return make(tmp_path / "ws", stage("cpt"), stage("sft", "cpt"), profile={"executor": executor})


def reported(run: Run, name: str, *steps: int, begin: float = 1000.0) -> None:
    run.paths.stage(name).root.mkdir(parents=True, exist_ok=True)
    for step in steps:
        metrics = {"loss": 4.0 / step, "tokens_per_second": 41_234.0}
        line = {"time": begin + step, "step": step, "total": 100, "metrics": metrics}
        files.append_json_line(run.paths.stage(name).progress, line)


def status(**states: State) -> RunStatus:
    return RunStatus(tuple(StageStatus(name, state, f"is {state}") for name, state in states.items()))


def test_many_watchers_ask_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, "slurm")
    asked = []

    def look(*_: object) -> RunStatus:
        asked.append(1)
        time.sleep(0.3)
        return status(cpt=State.RUNNING, sft=State.WAITING)

    monkeypatch.setattr(feed.ask, "look", look)
    feeds = [Feed(run, run.plan(), run.profile()) for _ in range(8)]
    first = feeds[0].look(1000.0)
    threads = [threading.Thread(target=one.look, args=(1000.0 + second,)) for one in feeds for second in (1, 7, 14)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1
    assert feeds[3].look(1014.0).status == first.status
    threads = [threading.Thread(target=one.look, args=(1016.0,)) for one in feeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 2


@pytest.mark.parametrize("text", ["", "{", "[]", '{"time": 1}', '{"time": "x", "status": {"stages": [{}]}}', "\0"])
def test_a_damaged_answer_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    run = a_run(tmp_path, "slurm")
    (run.paths.root / "watch.json").write_text(text)
    monkeypatch.setattr(feed.ask, "look", lambda *_: status(cpt=State.RUNNING, sft=State.WAITING))
    assert Feed(run, run.plan(), run.profile()).look(2.0).status.stages[0].state is State.RUNNING


def test_one_who_died_while_asking_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path, "slurm")
    monkeypatch.setattr(feed.ask, "look", lambda *_: status(cpt=State.SEALED, sft=State.WAITING))
    lock = run.paths.root / "watch.lock"
    lock.write_text("1\n")
    os.utime(lock, (500, 500))
    assert Feed(run, run.plan(), run.profile()).look(1000.0).time == 1000.0
    assert not lock.exists()


def test_rows_say_what_was_reported(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    reported(run, "cpt", *range(1, 51))
    seen = Seen(status(cpt=State.RUNNING, sft=State.WAITING), 1050.0)
    found = screen.make(run, run.plan(), seen, screen.ReportCache(), {}, 1050.0)
    cpt = found.rows[0]
    assert (cpt.step, cpt.total, cpt.left) == (50, 100, pytest.approx(50.0))
    assert found.ends == pytest.approx(1100.0)
    assert found.is_least  # nobody knows how long the next one waits
    text = "\n".join(screen.lines(found, 80, 0))
    assert ">  cpt" in text
    assert "50/100" in text
    assert "41.2k" in text
    assert "▁" in text
    assert all(len(line) <= 80 for line in text.splitlines())
    assert "ends not before" in screen.heading(found, 1050.0)


def test_the_end_is_that_of_the_longest_way(tmp_path: Path) -> None:
    run = make(tmp_path / "ws", stage("a"), stage("b", "a"), stage("c", "a"), profile={"executor": "local"})

    class Known:
        seconds = (100.0, 100.0)

    estimates: dict[str, Estimate] = {"b": Known(), "a": Known()}  # type: ignore[dict-item]
    seen = Seen(status(a=State.WAITING, b=State.WAITING, c=State.WAITING), 0.0)
    assert screen.make(run, run.plan(), seen, screen.ReportCache(), estimates, 1000.0).ends == 1200.0
    failed = Seen(status(a=State.FAILED, b=State.SKIPPED, c=State.SKIPPED), 0.0)
    over = screen.make(run, run.plan(), failed, screen.ReportCache(), estimates, 1000.0)
    assert over.ends is None
    assert over.is_over


def test_sparklines() -> None:
    assert screen.spark([]) == ""
    assert screen.spark([1.0]) == "▁"
    assert screen.spark([float(n) for n in range(800)]) == "▁▂▃▄▅▆▇█"
    assert screen.spark([float("nan"), 2.0, 2.0], screen.PLAIN_BLOCKS) == "__"


def test_a_log_moves_no_cursor(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    logs = run.paths.stage("cpt").logs
    logs.mkdir(parents=True)
    (logs / "7_0.log").write_text("\x1b[2J\x1b]0;taken\x07red\n")
    assert screen.log_lines(run, "cpt", 5) == [" [2J ]0;taken red"]


def test_the_newest_line_of_a_log_is_seen_however_long_those_before_are(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    logs = run.paths.stage("cpt").logs
    logs.mkdir(parents=True)
    (logs / "7_0.log").write_text("first\n" + "x" * 190 + "\n\nlast\n")
    assert screen.log_lines(run, "cpt", 5, 80) == ["x" * 80, "x" * 80, "x" * 30, "", "last"]
    assert screen.log_lines(run, "cpt", 2, 80) == ["", "last"]


def test_reports_are_read_on_where_they_were_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path)
    path, known, parsed = run.paths.stage("cpt").progress, screen.ReportCache(), []
    parse = screen.Report.parse
    monkeypatch.setattr(screen.Report, "parse", lambda line: parsed.append(line) or parse(line))
    assert known.of(path) == []
    reported(run, "cpt", 1, 2, 3)
    assert [one.step for one in known.of(path)] == [1, 2, 3]
    with path.open("a") as stream:
        stream.write('{"time": 1004.0, "step": 4, "tot')  # its end is not written yet
    assert [one.step for one in known.of(path)] == [1, 2, 3]
    with path.open("a") as stream:
        stream.write('al": 100}\n')
    reported(run, "cpt", *range(5, 600))
    found = [one.step for one in known.of(path)]
    assert found == [*range(600 - len(found), 600)]
    assert 100 < len(found) <= screen.MOST_REPORTS
    parsed.clear()
    assert known.of(path)[-1].step == 599
    assert parsed == []
    path.write_text("")  # made again
    reported(run, "cpt", 1)
    assert [one.step for one in known.of(path)] == [1]


def test_plain_says_each_change_once(tmp_path: Path) -> None:
    run = a_run(tmp_path)
    states = iter([(State.WAITING, State.WAITING), (State.RUNNING, State.WAITING), (State.RUNNING, State.WAITING),
                   (State.SEALED, State.SEALED)])  # fmt: skip
    out = io.StringIO()

    def look() -> screen.Screen:
        first, second = next(states)
        seen = Seen(status(cpt=first, sft=second), 0.0)
        return screen.make(run, run.plan(), seen, screen.ReportCache(), {}, 0.0)

    assert plain.follow(look, 0.0, out).is_over
    said = [line.split("  ", 1)[1].split(",")[0] for line in out.getvalue().splitlines()]
    assert said == ["cpt: waiting", "sft: waiting", "cpt: running", "cpt: sealed", "sft: sealed"]


def test_in_a_pipe_it_is_plain_and_ends_with_the_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = a_run(tmp_path)
    sealed(run, "cpt")
    sealed(run, "sft")
    where = ["--workspace", str(run.workspace.root)]
    assert main(["watch", run.id, *where]) == 0
    assert "sft: sealed" in capsys.readouterr().out
    assert main(["watch", run.id, "--json", *where]) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["state"] == "sealed"


class Terminal:
    """``overnight watch`` on a terminal of 80 x 24."""

    def __init__(self, run: Run) -> None:
        self.main, side = pty.openpty()
        fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        command = [sys.executable, "-m", "launch.cli", "watch", run.id, "--workspace", str(run.workspace.root)]
        self.process = subprocess.Popen(
            command, stdin=side, stdout=side, stderr=side, cwd=ROOT, start_new_session=True,
            env={**os.environ, "TERM": "xterm-256color", "PYTHONUTF8": "1"},
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(side)
        self.out = b""

    def read(self, seconds: float) -> bytes:
        """What comes within so long; ends where the terminal is closed."""
        end, found = time.monotonic() + seconds, b""
        while (left := end - time.monotonic()) > 0 and select.select([self.main], [], [], left)[0]:
            try:
                found += os.read(self.main, 65536)
            except OSError:
                break
        self.out += found
        return found

    def wait_for(self, text: bytes, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while text not in self.out and time.monotonic() < end:
            self.read(0.2)
        assert text in self.out, self.out[-2000:]

    def ended(self) -> bytes:
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.3)
            time.sleep(0.05)  # a closed terminal is read at once
        self.read(0.3)
        assert self.process.poll() is not None
        return self.out


LEFT, SHOWN = b"\x1b[?1049l", b"\x1b[?25h"


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    pytest.importorskip("textual")
    run = a_run(tmp_path)
    reported(run, "cpt", *range(1, 40))
    found = Terminal(run)
    found.wait_for(b"cpt")
    found.wait_for(b"log of")
    return found


@pytest.mark.parametrize("how", ["q", "ctrl-c", "SIGTERM", "SIGHUP"])
def test_the_terminal_is_left_as_it_was(terminal: Terminal, how: str) -> None:
    if how == "q":
        os.write(terminal.main, b"q")
    elif how == "ctrl-c":
        os.write(terminal.main, b"\x03")
    else:
        terminal.process.send_signal(getattr(signal, how))
    out = terminal.ended()
    assert out.rindex(LEFT) > out.rindex(b"\x1b[?1049h")
    assert out.rindex(SHOWN) > out.rindex(b"\x1b[?25l")


def test_an_idle_screen_sends_little(terminal: Terminal) -> None:
    terminal.read(4)
    found = terminal.read(8)
    os.write(terminal.main, b"q")
    terminal.ended()
    assert len(found) / 8 < 1500


def test_cancelling_asks_for_the_name(terminal: Terminal) -> None:
    os.write(terminal.main, b"c")
    terminal.wait_for(b"to cancel it")
    os.write(terminal.main, b"nobody\r")
    terminal.wait_for(b"nothing is cancelled")
    os.write(terminal.main, b"q")
    terminal.ended()
