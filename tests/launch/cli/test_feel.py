"""What a person sees on a terminal and a program in a pipe: colours, width, what a command waits for, words for help."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from launch.base import paint, text, waiting
from launch.cli import main
from tests.support import commands
from tests.support.made_runs import make, stage
from tests.support.terminal import ROOT, on_terminal

ESCAPE = "\x1b["


@pytest.fixture
def place(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    make(tmp_path / "ws", stage("cpt", steps=60))
    return tmp_path, {"OVERNIGHT_WORKSPACE": str(tmp_path / "ws"), "XDG_STATE_HOME": str(tmp_path / "state")}


def test_colours_on_a_terminal_and_none_in_a_pipe(place: tuple[Path, dict[str, str]]) -> None:
    directory, own = place
    _, shown, _ = on_terminal(["-m", "launch.cli", "list"], directory, own)
    assert f"{ESCAPE}1m" in shown
    piped = commands.overnight("list", cwd=directory, environment={**os.environ, **own, "NO_COLOR": ""})
    assert ESCAPE not in piped.stdout
    forced = commands.overnight("list", cwd=directory, environment={**os.environ, **own, "FORCE_COLOR": "1"})
    assert ESCAPE in forced.stdout
    assert re.sub(r"\x1b\[[0-9;]*m", "", forced.stdout) == piped.stdout


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"NO_COLOR": "1", "FORCE_COLOR": "1"}, {"TERM": "dumb"}])
def test_who_wants_no_colours_gets_none(variables: dict[str, str], place: tuple[Path, dict[str, str]]) -> None:
    directory, own = place
    for command in (["list"], ["status", "none"]):  # an answer, and an error
        _, shown, _ = on_terminal(["-m", "launch.cli", *command], directory, {**own, **variables})
        assert not re.search(r"\x1b\[[0-9;]*m", shown)


def test_states_have_their_colours() -> None:
    lines = [
        "stage  state",
        "-----  -----",
        "sealed-1  failed: out of memory",
        "b  sealed",
        "c  waits for b",
        "",
        "no failed table",
        "next: overnight why",
    ]
    shown = [*paint.painted(lines)]
    assert shown[2] == f"sealed-1  {ESCAPE}31mfailed{ESCAPE}0m: out of memory"
    assert f"{ESCAPE}32msealed" in shown[3]
    assert f"{ESCAPE}33mwaits" in shown[4]
    assert shown[6] == lines[6]
    assert shown[7].startswith(f"{ESCAPE}1mnext{ESCAPE}0m: ")


HEADER = ("stage", "kind", "back end", "executor", "nodes x procs", "GPUs", "limit", "waits for", "state")
ROWS = [
    [
        "baseline",
        "instructions",
        "nemo_rl",
        "submitit",
        "2 x 8",
        "16",
        "1-04:00:00",
        "corpus, pairs, prefs",
        "missing input",
    ],
    ["a-very-long-name-of-a-stage-here", "x", "trl", "nemo_run", "1 x 1", "1", "4:00:00", "", "new"],
]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_a_table_fits_the_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = text.table(HEADER, ROWS, right=(5, 6))
    assert max(map(len, whole)) > 110
    monkeypatch.setattr(text, "columns", lambda: width)
    lines = text.table(HEADER, ROWS, right=(5, 6))
    assert max(map(len, lines)) <= width
    # Nothing is lost: each cell stands in its column, one part below the other.
    rule = next(line for line in lines if re.fullmatch(r"[- ]+", line))
    columns = [found.span() for found in re.finditer(r"-+", rule)]
    below = lines[lines.index(rule) + 1 :]
    first = ["".join(line[begin:end].strip() for line in below) for begin, end in columns[:-1]]
    assert first[0] == "baseline" + "a-very-long-name-of-a-stage-here"
    assert first[7] == "corpus,pairs,prefs"


def test_a_pipe_gets_whole_lines() -> None:
    assert text.columns() is None  # of pytest's own output
    assert len(text.table(HEADER, ROWS)) == 4


SLOW = """\
import sys, time
from launch.base import waiting
with waiting.shown("counting sheep", quiet="quiet" in sys.argv):
    with waiting.on("the last sheep"):
        end = time.monotonic() + 1.6
        while time.monotonic() < end:
            time.sleep(0.05)
    print("a line of the answer")
"""


def test_what_is_waited_for_is_said_after_half_a_second_and_taken_away(tmp_path: Path) -> None:
    code, shown, _ = on_terminal(["-c", SLOW], tmp_path, {})
    assert code == 0
    assert "the last sheep (1 s)" in shown
    # What is left on the screen is the answer alone.
    last = shown.split("\r\x1b[K")[-1]
    assert last.strip() == "a line of the answer"
    assert "sheep" not in on_terminal(["-c", SLOW.replace("1.6", "0.3")], tmp_path, {})[1]
    assert "sheep" not in on_terminal(["-c", SLOW, "quiet"], tmp_path, {})[1]
    piped = subprocess.run(
        [sys.executable, "-c", SLOW],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert (piped.stdout, piped.stderr) == ("a line of the answer\n", "")


SLOW_SQUEUE = "#!/bin/sh\nsleep 3\n"


def test_status_says_that_it_waits_for_squeue_and_ctrl_c_ends_it_within_a_second(
    place: tuple[Path, dict[str, str]],
) -> None:
    directory, own = place
    (directory / "bin").mkdir()
    (directory / "bin/squeue").write_text(SLOW_SQUEUE)
    (directory / "bin/squeue").chmod(0o755)
    path = {**own, "PATH": f"{directory}/bin:{os.environ['PATH']}"}
    code, shown, took = on_terminal(
        ["-m", "launch.cli", "status"], directory, path, until=lambda seen: b"waiting for squeue" in seen
    )
    assert code == main.INTERRUPTED, shown
    assert "waiting for squeue" in shown
    assert took < 1.0


def test_a_process_that_is_forked_meanwhile_has_no_timer(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom launch.base import waiting\n"
        "with waiting.shown('x', quiet=False):\n"
        "    pid = os.fork()\n"
        "    if pid == 0: os._exit(int(any(signal.getitimer(signal.ITIMER_REAL))))\n"
        "    print('child', os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
    )
    assert "child 0" in on_terminal(["-c", code], tmp_path, {})[1]


def test_nothing_is_shown_while_the_user_is_asked(tmp_path: Path) -> None:
    code = (
        "import time\nfrom launch.base import waiting\n"
        "with waiting.shown('sheep', quiet=False):\n"
        "    with waiting.paused():\n"
        "        print('agreed? ', end='', flush=True); time.sleep(1.2)\n"
        "    print('yes')\n"
    )
    shown = on_terminal(["-c", code], tmp_path, {})[1]
    assert "sheep" not in shown
    assert waiting.AFTER_SECONDS < 1.2


def test_times_are_of_the_users_zone_for_people_and_utc_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    epoch = 1_800_000_000.0
    shown = {}
    for zone in ("UTC", "Asia/Seoul"):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        shown[zone] = text.clock(epoch), text.utc(epoch)
    monkeypatch.undo()
    time.tzset()
    assert shown == {
        "UTC": ("2027-01-15 08:00", "2027-01-15T08:00:00Z"),
        "Asia/Seoul": ("2027-01-15 17:00", "2027-01-15T08:00:00Z"),
    }


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",)])
def test_help_in_every_way(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in main.COMMANDS)


def test_help_of_a_command_and_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["help", "submit"]) == 0
    assert "--cluster PROFILE" in capsys.readouterr().out
    for arguments in (["version"], ["-V"], ["--version"]):
        assert main.main(arguments) == 0
        assert re.fullmatch(r"overnight [\d.]+\S*\n", capsys.readouterr().out)
    assert main.main(["help", "sumbit"]) == 2
    assert "submit" in capsys.readouterr().err
