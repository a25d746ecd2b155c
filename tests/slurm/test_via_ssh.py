"""--via through a real sshd of this machine, with a real Slurm behind it: the commands of a laptop, on a login node.

The login node is this machine again, with a home of its own; sshd is started by the test on a port of 127.0.0.1, with
its own host key and authorized_keys. The user's ssh configuration is that of a wrapper of ssh on PATH.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.cli.via_ssh import protocol
from tests.support import commands
from tests.support.chains import REPOSITORY, SHORT, Chain, checked, ended
from tests.support.slurm import Slurm

pytestmark = pytest.mark.slurm

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
LIMIT = 120.0
"""Seconds for anything that is waited for."""


@dataclass
class Login:
    """A login node: sshd, and the home of a user there. Of this machine only ``laptop`` is seen."""

    directory: Path
    process: subprocess.Popen[bytes]
    program: str

    @property
    def via(self) -> str:
        return f"login:{self.program}"

    @property
    def home(self) -> Path:
        return self.directory / "home"

    @property
    def log(self) -> str:
        return (self.directory / "sshd.log").read_text()

    @property
    def accepted(self) -> int:
        """Connections that were let in."""
        return self.log.count("Accepted publickey")

    @property
    def staging(self) -> Path:
        return self.home / ".cache" / "overnight" / "via"

    def environment(self) -> dict[str, str]:
        """Of the laptop: no Slurm, no workspace, and an ssh that knows ``login``."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "OVERNIGHT", "XDG_"))
        }
        laptop = self.directory / "laptop"
        return {
            **kept,
            "HOME": str(laptop),
            "XDG_RUNTIME_DIR": str(self.directory / "run"),
            "PATH": f"{self.directory / 'bin'}:{kept['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def start(self, *arguments: str | Path, cwd: Path | None = None) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "launch.cli", *map(str, arguments)],
            cwd=cwd or self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def overnight(self, *arguments: str | Path, code: int | None = 0) -> subprocess.CompletedProcess[str]:
        done = commands.overnight(*map(str, arguments), cwd=self.directory, environment=self.environment())
        return checked(done, code)

    def cut(self) -> None:
        """Pull the cable: every connection's processes of sshd end at once; sshd itself listens on."""
        for pid in _children(self.process.pid):
            _kill(pid)


def _children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in found.stdout.split()]


def _kill(pid: int) -> None:
    """A session's processes of sshd from the top, but not what they have started: that outlives a lost connection."""
    below = [child for child in _children(pid) if b"sshd" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(pid, signal.SIGKILL)
    for child in below:
        _kill(child)


def _key(path: Path) -> None:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)


def _listening(directory: Path, setting: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], int]:
    """sshd on a port that was free a moment ago; another one if somebody was quicker."""
    for _ in range(10):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        config = directory / "sshd_config"
        lines = {**setting, "Port": str(port), "ListenAddress": "127.0.0.1"}
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        process = subprocess.Popen([SSHD, "-D", "-f", config, "-E", directory / "sshd.log"])
        end = time.monotonic() + LIMIT
        while process.poll() is None and time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return process, port
            time.sleep(0.05)
        process.kill()
        process.wait()
    raise AssertionError((directory / "sshd.log").read_text())


@pytest.fixture(scope="module")
def login(slurm: Slurm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    missing = [name for name in (SSHD, "ssh", "ssh-keygen", "rsync", "ps") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (apt-get install openssh-server rsync procps)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where sshd locks itself in while it knows nobody yet
    directory = tmp_path_factory.mktemp("via")
    for name in ("home", "laptop", "bin", "run"):
        (directory / name).mkdir(mode=0o700)
    for name in ("host_key", "user_key"):
        _key(directory / name)
    shutil.copyfile(directory / "user_key.pub", directory / "authorized_keys")
    process, port = _listening(
        directory,
        {
            "HostKey": f"{directory}/host_key",
            "AuthorizedKeysFile": f"{directory}/authorized_keys",
            "PidFile": "none",
            "StrictModes": "no",
            "UsePAM": "no",
            "PasswordAuthentication": "no",
            "KbdInteractiveAuthentication": "no",
            "PermitRootLogin": "yes",
            "LogLevel": "INFO",
            "SetEnv": f"HOME={directory}/home",
        },
    )
    known = (directory / "host_key.pub").read_text().split()[:2]
    (directory / "known_hosts").write_text(f"[127.0.0.1]:{port} {' '.join(known)}\n")
    (directory / "ssh_config").write_text(
        f"Host login\n  HostName 127.0.0.1\n  Port {port}\n  User {getpass.getuser()}\n  IdentityFile {directory}/user_key\n"
        f"  IdentitiesOnly yes\n  UserKnownHostsFile {directory}/known_hosts\n  StrictHostKeyChecking yes\n"
        "  LocalForward 127.0.0.1:1 127.0.0.1:1\n  RemoteCommand false\n"
    )
    real = shutil.which("ssh")
    wrapper = directory / "bin" / "ssh"
    wrapper.write_text(f'#!/bin/sh\nexec {real} -F {directory}/ssh_config "$@"\n')
    wrapper.chmod(0o755)
    program = directory / "home" / "overnight"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P -m launch.cli "$@"\n')
    program.chmod(0o755)
    exports = {
        "OVERNIGHT_DEVCLUSTER": slurm.directory,
        "PYTHONPATH": REPOSITORY, "PYTHONDONTWRITEBYTECODE": "1",
    }  # fmt: skip
    lines = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in exports.items())
    # As at many sites: a login script that prints, and sets what a job needs. PATH of a test may shadow commands.
    path = f'export PATH="$HOME/bin:{os.environ["PATH"]}"\nexport OVERNIGHT_WORKSPACE="$(cat "$HOME/workspace")"\n'
    (directory / "home" / ".bash_profile").write_text(f"echo Welcome; echo 'quota: 1%'\n{lines}{path}")
    found = Login(directory, process, str(program))
    reached = subprocess.run([wrapper, "-o", "RemoteCommand=none", "login", "exit"], capture_output=True, text=True)
    if reached.returncode != 0:
        process.kill()
        pytest.skip(f"sshd lets nobody in here: {reached.stderr.strip()[-200:]}")
    try:
        yield found
    finally:
        found.overnight("via", "close", found.via, code=None)
        for pid in _children(process.pid):
            os.kill(pid, signal.SIGKILL)
        process.kill()
        process.wait()


@pytest.fixture
def chain(slurm: Slurm, login: Login, tmp_path: Path) -> Chain:
    """Two stages whose inputs lie on the cluster; the pipeline and the profile on the laptop."""
    made = Chain(slurm, tmp_path / "chain", stages=SHORT)
    shutil.rmtree(login.home / "bin", ignore_errors=True)
    # What the chain asks the cluster for, it asks in the workspace of the other side: the same directory.
    (login.home / "workspace").write_text(str(made.workspace.root))
    value = yaml.safe_load(made.pipeline.read_text())
    value["model"]["base"] = str(made.directory / "tiny")
    value["stages"]["corpus"]["from"] = str(made.directory / "raw")
    laptop = tmp_path / "laptop"
    (laptop / "code" / "pkg").mkdir(parents=True)
    (laptop / "code" / "pkg" / "mine.py").write_text("VALUE = 1\n")
    (laptop / "code" / ".git").mkdir()
    (laptop / "code" / ".git" / "secret").write_text("x")
    (laptop / "code" / ".venv").mkdir()
    (laptop / "code" / ".venv" / "pyvenv.cfg").write_text("")
    value["code"] = "./code"
    made.pipeline = laptop / "night's; touch HACKED $(touch HACKED).yaml"
    made.pipeline.write_text(yaml.safe_dump(value, sort_keys=False))
    shutil.copyfile(made.profile, laptop / "mine.yaml")
    made.profile = laptop / "mine.yaml"
    return made


def on(login: Login, chain: Chain, name: str, *arguments: str) -> list[str]:
    given = [str(chain.pipeline), "--cluster", str(chain.profile)] if name in ("submit", "plan", "fetch") else []
    return [name, *given, *arguments, "--via", login.via]


def submit(login: Login, chain: Chain) -> str:
    said = login.overnight(*on(login, chain, "submit", "--json"))
    return str(json.loads(said.stdout)["run"])


def wait_until(what: Any, why: str) -> None:
    end = time.monotonic() + LIMIT
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.1)


def no_trace(*directories: Path) -> None:
    """No name of a file or an argument was run by a shell."""
    assert not [path for directory in directories for path in directory.rglob("HACKED")]
    assert not Path("HACKED").exists()


def test_a_chain_over_one_connection(login: Login, chain: Chain, tmp_path: Path) -> None:
    login.overnight("via", "close", login.via)
    before = login.accepted
    login.overnight(*on(login, chain, "fetch"))
    run = submit(login, chain)
    followed = login.overnight("logs", run, "cpt", "-f", "--via", login.via)
    assert "step" in followed.stdout
    said = login.overnight("status", run, "--json", "--via", login.via)
    assert {stage["state"] for stage in json.loads(said.stdout)["stages"]} == {"sealed"}
    assert said.stdout.lstrip().startswith("{"), "what the login script prints is not part of the answer"
    assert "Welcome" in said.stderr
    assert run in login.overnight("list", "--via", login.via).stdout
    assert "needs nothing" in login.overnight("why", run, "--via", login.via).stdout
    reported = json.loads(login.overnight("report", run, "--json", "--via", login.via).stdout)
    assert reported["finished"], "the morning's answer, from the laptop"
    assert login.accepted == before + 1, "one connection, one question for a code"
    chain.assert_done_once(run)
    code = chain.workspace.run(run).user_code.resolve()
    assert sorted(str(path.relative_to(code)) for path in code.rglob("*") if path.is_file()) == ["pkg/mine.py"]
    assert not login.overnight("status", "zzzzz", "--via", login.via, code=2).stdout
    no_trace(login.directory, chain.pipeline.parent, tmp_path)


@pytest.mark.full
def test_a_second_submission_sends_only_what_changed(login: Login, chain: Chain) -> None:
    big = chain.pipeline.parent / "code" / "big.py"
    big.write_bytes(os.urandom(300_000))
    login.overnight(*on(login, chain, "plan"))
    there = set(os.listdir(login.staging))
    login.overnight(*on(login, chain, "plan"))
    assert set(os.listdir(login.staging)) == there, "the same is not sent again"
    (chain.pipeline.parent / "code" / "pkg" / "mine.py").write_text("VALUE = 2\n")
    login.overnight(*on(login, chain, "plan"))
    (new,) = set(os.listdir(login.staging)) - there
    copies = [path for path in login.staging.rglob("big.py") if path.read_bytes() == big.read_bytes()]
    assert len(copies) == 2
    assert os.path.samefile(*copies), "a file that did not change is the one that was there"
    assert re.fullmatch("[0-9a-f]{64}", new)


def slow_sbatch(login: Login) -> Path:
    """On the login node sbatch takes until the file ``go`` is there; the file that says it has begun."""
    (login.home / "bin").mkdir(exist_ok=True)
    began = login.home / "bin" / "began"
    real = shutil.which("sbatch")
    (login.home / "bin" / "sbatch").write_text(
        f'#!/bin/bash\nshopt -s nullglob\necho x >> {began}\nuntil [ -e {began.with_name("go")} ]; do sleep 0.1; done\nexec {real} "$@"\n'
    )
    (login.home / "bin" / "sbatch").chmod(0o755)
    return began


@pytest.mark.full
@pytest.mark.parametrize("how", ["overnight is killed", "the cable is pulled"])
def test_a_connection_lost_in_the_middle_of_submit(login: Login, chain: Chain, how: str) -> None:
    """The other side goes on; the command repeated adopts what the first one queued. Nothing is there twice."""
    login.overnight(*on(login, chain, "fetch"))
    began = slow_sbatch(login)
    process = login.start(*on(login, chain, "submit"))
    wait_until(began.exists, "sbatch has been started")
    if how == "overnight is killed":
        process.kill()
        process.wait()
    else:
        login.cut()
        lost = ended(process, 4)
        assert "the connection to login was lost during submit" in lost.stderr
        assert "submits nothing twice" in lost.stderr
    again = login.start(*on(login, chain, "submit", "--json"))
    began.with_name("go").touch()
    said = json.loads(ended(again).stdout)
    wait_until(lambda: all(chain.has_plan(run) for run in chain.runs()), "the first submission comes to its end")
    chain.wait()
    chain.assert_done_once(said["run"])


@pytest.mark.full
def test_ctrl_c_is_passed_on(login: Login, chain: Chain) -> None:
    """Between two submissions, with what was submitted in the journal, and the other side's own words."""
    login.overnight(*on(login, chain, "fetch"))
    began = slow_sbatch(login)
    process = login.start(*on(login, chain, "submit"))
    wait_until(began.exists, "sbatch has been started")
    process.send_signal(signal.SIGINT)
    # The word must be over there before sbatch ends: a command of the same connection comes after it.
    login.overnight("list", "--via", login.via)
    time.sleep(1)
    began.with_name("go").touch()
    stopped = ended(process, 130)
    assert "submitted so far: 1 of 2 stages, nothing is lost" in stopped.stdout
    run = re.search(r"overnight resume (\w+)", stopped.stdout)
    assert run is not None
    resumed = login.overnight("resume", run[1], "--json", "--via", login.via)
    assert [stage["action"] for stage in json.loads(resumed.stdout)["stages"]] in (
        ["adopted", "submitted"],
        ["reused", "submitted"],
    )
    chain.wait()
    chain.assert_done_once(run[1])


@pytest.mark.full
def test_cancel_and_a_follower_that_goes_away(login: Login, chain: Chain) -> None:
    value = yaml.safe_load(chain.pipeline.read_text())
    value["stages"]["cpt"]["steps"] = 100_000
    chain.pipeline.write_text(yaml.safe_dump(value, sort_keys=False))
    login.overnight(*on(login, chain, "fetch"))
    run = submit(login, chain)
    follower = login.start("logs", run, "cpt", "-f", "--via", login.via)
    assert follower.stdout is not None
    assert follower.stdout.readline(), follower.communicate()
    assert _remote("logs"), "the check below must be able to fail"
    follower.kill()
    follower.communicate()
    wait_until(lambda: not _remote("logs"), "no process of Overnight stays alive on the login node")
    cancelled = login.overnight("cancel", run, "--json", "--via", login.via)
    assert json.loads(cancelled.stdout)["left"] == []
    chain.wait()


def _remote(name: str) -> list[int]:
    """Other sides that are alive: their commands are told on standard input, so all look alike."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
        except OSError:
            continue
        if b"\0via\0serve\0" in line:
            found.append(int(entry.name))
    return found


def test_refusals_of_the_way_there(login: Login, chain: Chain, tmp_path: Path) -> None:
    absent = login.overnight("list", "--via", "login:/nowhere/overnight", code=2)
    assert "there is no /nowhere/overnight on login" in absent.stderr
    assert "pip install" in absent.stderr
    old = login.home / "old"
    old.write_text("#!/bin/sh\necho \"overnight: there is no command 'via'\" >&2\nexit 2\n")
    old.chmod(0o755)
    assert "as new as this one" in login.overnight("list", "--via", f"login:{old}", code=2).stderr
    config = login.directory / "ssh_config"
    kept = config.read_text()
    login.overnight("via", "close", "login")
    try:
        config.write_text(kept.replace("user_key", "host_key"))
        refused = login.overnight("list", "--json", "--via", login.via, code=3)
        assert "does not let you in" in refused.stderr
        config.write_text(re.sub(r"Port \d+", "Port 1", kept))
        silent = login.overnight("list", "--via", login.via, code=4)
        assert "cannot be reached, nothing was done" in silent.stderr
    finally:
        config.write_text(kept)
    run_dir = login.directory / "run" / "overnight"
    run_dir.chmod(0o755)
    try:
        assert "is not yours alone" in login.overnight("list", "--via", login.via, code=2).stderr
    finally:
        run_dir.chmod(0o700)


@pytest.mark.parametrize(
    "host",
    ["-oProxyCommand=touch HACKED", "a b", "x;touch HACKED", "login:$(touch HACKED)", "login:a b", "login:x'y", ""],
)
def test_hostile_hosts_are_refused(login: Login, host: str) -> None:
    assert "--via" in login.overnight("list", f"--via={host}", code=2).stderr
    no_trace(login.directory)


def test_hostile_words_arrive_as_they_are(login: Login, chain: Chain) -> None:
    (chain.workspace.runs / "aaaaa").mkdir(parents=True)
    for word in ("$(touch HACKED)'; touch HACKED; '`touch HACKED`", "-x", "a\\b'c\"d", "é\n\x1b[2J"):
        said = login.overnight("status", "--json", "--via", login.via, "--", word, code=2)
        message = json.loads(said.stderr.splitlines()[-1])["message"]
        assert message.startswith(f"there is no run {word!r}")
    no_trace(login.directory, login.home)


def test_what_lies_on_the_laptop_is_named_before_anything_is_sent(login: Login, chain: Chain) -> None:
    value = yaml.safe_load(chain.pipeline.read_text())
    value["stages"]["corpus"]["from"] = "./raw"
    chain.pipeline.write_text(yaml.safe_dump(value, sort_keys=False))
    before = login.log
    refused = login.overnight(*on(login, chain, "submit"), code=2)
    assert "stages.corpus.from: './raw' is a path of this machine" in refused.stderr
    assert f"{chain.pipeline}:" in refused.stderr
    assert "rsync -a ./raw login:" in refused.stderr
    assert login.log == before


def test_only_commands_that_make_sense_there(login: Login) -> None:
    assert "--via" in login.overnight("run", "x.yaml", "--via", login.via, code=2).stderr
    assert "run" not in protocol.COMMANDS
    assert "cluster" not in protocol.COMMANDS
