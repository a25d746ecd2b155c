"""Processes: the right one is killed with all it started, and no other."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from launch.slurm.devcluster.daemons import MARKER, Daemon, Process, Records, kill, last_lines, marked, wait_until

FAMILY = "import subprocess, sys, time; subprocess.Popen(['sleep', '300']); print('ready', flush=True); time.sleep(300)"


def daemon(tmp_path: Path, *argv: str) -> Daemon:
    return Daemon("one", argv, output=tmp_path / "out", log=tmp_path / "log")


def test_a_later_process_of_the_same_number_is_another() -> None:
    me = Process.of(os.getpid())
    assert me is not None
    assert me.alive
    assert not replace(me, started=me.started - 1).alive


def test_zombies_are_dead() -> None:
    child = subprocess.Popen(["true"])
    assert wait_until(lambda: Process.of(child.pid) is None, 5)
    child.wait()


HEADLESS = """
import ctypes, platform, socket, sys, threading, time
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
threading.Thread(target=time.sleep, args=(300,)).start()
print("ready", flush=True)
ctypes.CDLL(None).syscall({"x86_64": 60, "aarch64": 93}[platform.machine()], 0)  # exit(2) ends one thread only
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "aarch64"), reason="the number of exit(2) is not known here")
def test_a_server_whose_first_thread_has_ended_lives_until_its_last(tmp_path: Path) -> None:
    address = str(tmp_path / "socket")
    child = subprocess.Popen([sys.executable, "-c", HEADLESS, address], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        stat = Path(f"/proc/{child.pid}/stat")
        assert wait_until(lambda: stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z", 60)
        process = Process.of(child.pid)
        assert process is not None
        assert process.alive
        assert kill([process]) == []
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(address)
    finally:
        child.kill()
        child.communicate()


def test_start_record_kill(tmp_path: Path) -> None:
    records = Records(tmp_path)
    assert not records.alive("one")
    records.start(daemon(tmp_path, sys.executable, "-c", FAMILY), {"PATH": os.environ["PATH"], MARKER: "start"})
    assert wait_until(lambda: last_lines(tmp_path / "out") == "ready", 10)
    first = records["one"]
    assert first is not None
    records.start(daemon(tmp_path, "false"), {})
    assert records["one"] == first, "a living daemon is not started again"
    family = marked("start")
    assert len(family) == 2
    assert os.getsid(first.pid) != os.getsid(0), "Ctrl-C in our terminal must not reach it"
    assert kill([first]) == []
    assert not any(process.alive for process in family)
    assert not records.alive("one")
    assert records.names() == ["one"]


def test_mark_finds_orphans_and_only_whole_values(tmp_path: Path) -> None:
    command = f"{sys.executable} -c 'import time; time.sleep(300)' & exit"
    subprocess.run(["sh", "-c", command], env={MARKER: "/a/b", "PATH": os.environ["PATH"]}, check=True)
    assert wait_until(lambda: bool(marked("/a/b")), 10)  # its environment is empty for a moment while it starts
    (orphan,) = marked("/a/b")
    assert marked("/a") == []
    assert kill([orphan]) == []
    assert marked("/a/b") == []


def test_a_damaged_record_is_no_process(tmp_path: Path) -> None:
    (tmp_path / "one.json").write_text('{"pid": 1, "sta', encoding="utf-8")
    assert Records(tmp_path)["one"] is None


def test_last_lines_of_a_long_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"line {number}\n" for number in range(100_000)), encoding="utf-8")
    assert last_lines(log, 2) == "line 99998\nline 99999"
    assert last_lines(tmp_path / "none") == ""
