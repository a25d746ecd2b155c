"""Bring the dev cluster up and down, cut and restore the power of its nodes.

Everything lives in one private directory: configuration, state, logs, keys, sockets, and a record of each process.
``down`` kills what the records and the processes' own environment say, then removes the directory.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs.core import files
from launch.base.errors import InputError, OvernightError
from launch.slurm.devcluster import accounting, config, location, ports, services
from launch.slurm.devcluster.config import ClusterConfig
from launch.slurm.devcluster.daemons import Daemon, Process, Records, kill, last_lines, marked, wait_until

SayProgress = Callable[[str], None]

_SAFE_PATH = re.compile(r"[A-Za-z0-9_./+@-]+\Z")
_SOCKET_PATH_LIMIT = 107  # of sockaddr_un
# In sinfo's words. A star means that the node does not respond; a drained node is up: somebody wants it so.
_NOT_UP = ("down", "unk", "fail", "error")


class DevClusterFailed(OvernightError):
    """A daemon did not come up; the message has the end of its log."""

    exit_code = 4


@dataclass(frozen=True)
class Status:
    """What lives and what Slurm says of its nodes. ``nodes`` is empty when the controller does not answer."""

    config: ClusterConfig
    daemons: dict[str, bool]
    nodes: dict[str, str]

    @property
    def healthy(self) -> bool:
        return all(self.daemons.values()) and bool(self.nodes) and all(map(_is_up, self.nodes.values()))


class DevCluster:
    """The cluster of one directory, whether it runs or not."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory.resolve()
        self._records = Records(self.directory / "run")

    # -- what is there -------------------------------------------------------------------------------------------

    def config(self) -> ClusterConfig | None:
        """How this directory's cluster was configured; None when there is none."""
        try:
            return ClusterConfig.from_json(self._config_file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def status(self) -> Status:
        """What lives, by its processes and by Slurm.

        Raises:
            InputError: no cluster here.
        """
        settings = self._require_config()
        alive = {daemon.name: self._records.alive(daemon.name) for daemon in services.daemons(settings)}
        return Status(settings, alive, self._node_states(settings))

    # -- up and down ---------------------------------------------------------------------------------------------

    def up(
        self,
        *,
        nodes: int | None = None,
        with_accounting: bool | None = None,
        port: int | None = None,
        shape: Mapping[str, Any] | None = None,
        say: SayProgress = lambda _: None,
    ) -> ClusterConfig:
        """The cluster, with all nodes up: what does not run yet is started. Asking again for the same is free.

        Args:
            nodes: how many; default 4, or what the existing cluster has.
            with_accounting: slurmdbd and MariaDB too; default no, or what the existing cluster has.
            port: base of the port block; default a free one.
            shape: further fields of ``ClusterConfig`` for a new cluster: what its nodes declare, a site's partitions.
            say: called with a line of progress.

        Raises:
            InputError: the existing cluster is another one, or the directory cannot hold one.
            DevClusterFailed: a daemon did not come up. What was started is stopped; the logs stay.
        """
        self._check_directory()
        new = replace(self._new_config(4 if nodes is None else nodes, bool(with_accounting)), **(shape or {}))
        with self._lock():
            settings = self.config()
            if settings is not None:
                asked = {"nodes": nodes, "accounting": with_accounting, "port": port, **(shape or {})}
                self._refuse_change(settings, asked)
                self._write(settings)
                self._start_all(settings, say)
                return settings
            if self._holds_others():
                raise InputError(f"{self.directory} is not empty and holds no dev cluster", hint="choose another --dir")
            with ports.block(new.ports, config.BLOCK, port) as base:
                settings = replace(new, port=base)
                self._write(settings)
                self._start_all(settings, say)
            return settings

    def down(self) -> bool:
        """Kill everything and remove the directory; False when there was nothing.

        Also right after a crash: processes are found by their records and by the mark in their environment.

        Raises:
            InputError: the directory is not a dev cluster's.
            DevClusterFailed: a process cannot be killed (another user's cluster, say).
        """
        if not self.directory.exists():
            self._kill_all()
            return False
        with self._lock():
            existed = self.config() is not None
            if not existed and self._holds_others():
                raise InputError(f"{self.directory} holds no dev cluster: nothing removed")
            self._kill_all()
            shutil.rmtree(self.directory)
            return existed

    # -- parts ---------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Power cut: SIGKILL a node with all its jobs, or a daemon (``slurmctld``, ``slurmdbd``, ...)."""
        daemon = self._daemon(name)
        process = self._records[daemon.name]
        left = kill([process]) if process else []
        if left:
            raise DevClusterFailed(f"{name}: cannot kill processes {[one.pid for one in left]}")

    def start(self, name: str) -> None:
        """Start a node or a daemon again and wait until it works; does nothing when it lives.

        Raises:
            DevClusterFailed: it did not come up.
        """
        daemon = self._daemon(name)
        settings = self._require_config()
        with self._lock():
            self._records.start(daemon, services.environment(settings))
            if name not in settings.node_names or self._records.alive("slurmctld"):
                self._wait(settings, daemon)  # without a controller nobody knows how a node is

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _config_file(self) -> Path:
        return self.directory / "cluster.json"

    def _holds_others(self) -> bool:
        """Whether anything lies in the directory but a first configuration that a kill left half-written."""
        unfinished = f".{self._config_file.name}."
        return any(not path.name.startswith(unfinished) for path in self.directory.iterdir())

    def _require_config(self) -> ClusterConfig:
        settings = self.config()
        if settings is None:
            raise InputError(f"no dev cluster in {self.directory}", hint=self._command("up"))
        return settings

    def _command(self, action: str) -> str:
        by_default = self.directory == location.default_directory().resolve()
        return f"overnight cluster {action}" + ("" if by_default else f" --dir {self.directory}")

    def _refuse_change(self, settings: ClusterConfig, asked: Mapping[str, object]) -> None:
        for name, value in asked.items():
            has = getattr(settings, name)
            if value is not None and value != has:
                message = f"the dev cluster in {self.directory} has {name} {has}, not {value}"
                raise InputError(message, hint=self._command("down"))

    def _check_directory(self) -> None:
        text = str(self.directory)
        if not _SAFE_PATH.match(text):
            raise InputError(f"Slurm's configuration cannot hold this path: {text!r}", hint="choose another --dir")
        longest = len(text) + len("/mysql/socket")
        if longest > _SOCKET_PATH_LIMIT:
            raise InputError(f"path too long for a socket in it by {longest - _SOCKET_PATH_LIMIT} characters: {text}")

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One ``up``, ``down`` or ``start`` at a time. The lock is on the directory itself: no file stays behind."""
        while True:
            self.directory.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if self._is_still(handle):
                    yield
                    return
            finally:
                os.close(handle)

    def _is_still(self, handle: int) -> bool:
        """Whether the directory that was locked is the one of that name, not one that a ``down`` removed meanwhile."""
        try:
            return os.path.samestat(os.fstat(handle), os.stat(self.directory))
        except FileNotFoundError:
            return False

    def _new_config(self, nodes: int, with_accounting: bool) -> ClusterConfig:
        if not 1 <= nodes <= config.MAX_NODES:
            raise InputError(f"{nodes} nodes: must be 1 to {config.MAX_NODES}")
        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError as error:
            raise InputError(f"user id {os.getuid()} has no name: Slurm does not run jobs of nameless users") from error
        return ClusterConfig(
            directory=self.directory,
            port=0,
            nodes=nodes,
            accounting=with_accounting,
            user=user,
            host=socket.gethostname().partition(".")[0],
        )

    def _write(self, settings: ClusterConfig) -> None:
        # First: from here on `up` completes and `down` removes what a crash leaves.
        files.write_atomic(self._config_file, settings.to_json())
        # Readable for others (a root's cluster runs other users' jobs), except for what holds keys and data.
        private = {"mysql"}
        for name in ("etc", "etc/plugstack.conf.d", "run", "log", "state", "spool", "munge", "mysql", "dev"):
            path = self.directory / name
            path.mkdir(exist_ok=True)
            path.chmod(0o700 if name in private else 0o755)
        self.directory.chmod(0o755)
        for node in settings.node_names:
            (self.directory / "spool" / node).mkdir(exist_ok=True)
        for number in range(settings.gpus):
            # Slurm wants a device file behind each GPU and only looks at its type.
            device = self.directory / "dev" / f"gpu{number}"
            if not device.is_symlink():
                device.symlink_to("/dev/null")
        key = self.directory / "munge" / "key"
        key.touch(mode=0o600)
        if key.stat().st_size == 0:
            key.write_bytes(os.urandom(128))
        for name, text in config.rendered(settings).items():
            path = self.directory / "etc" / name
            path.write_text(text, encoding="utf-8")
            path.chmod(0o600 if name == "slurmdbd.conf" else 0o644)  # slurmdbd refuses any other mode

    def _daemon(self, name: str) -> Daemon:
        daemons = {daemon.name: daemon for daemon in services.daemons(self._require_config())}
        if name not in daemons:
            raise InputError(f"no {name!r} in this cluster; there are: {', '.join(daemons)}")
        return daemons[name]

    def _start_all(self, settings: ClusterConfig, say: SayProgress) -> None:
        fresh = not any(self._records.alive(name) for name in self._records.names())
        try:
            self._start_in_order(settings, say)
        except BaseException:
            if fresh:  # else something of the user's may run: leave it as it is
                self._kill_all()
            raise

    def _start_in_order(self, settings: ClusterConfig, say: SayProgress) -> None:
        daemons = {daemon.name: daemon for daemon in services.daemons(settings)}
        environment = services.environment(settings)
        for name, daemon in daemons.items():
            if name == "mariadbd":
                accounting.install_database(settings, environment)
            self._records.start(daemon, environment)
            # The nodes start together with the controller and find it as soon as it listens.
            if name not in settings.node_names and name != "slurmctld":
                self._wait(settings, daemon)
                say(f"{name} answers")
            if name == "mariadbd":
                accounting.create_database(settings, environment)
            if name == "slurmdbd":
                accounting.create_account(settings, environment)
                say(f"account {', '.join(settings.accounts or (config.ACCOUNT,))} is there")
        for name in ("slurmctld", *settings.node_names):
            self._wait(settings, daemons[name])
        say(f"slurmctld answers, {settings.nodes} nodes are up")

    def _wait(self, settings: ClusterConfig, daemon: Daemon, timeout: float = 60) -> None:
        """Wait until a daemon does its work; at once an error when it ends instead."""

        def settled() -> bool:
            return self._works(settings, daemon.name) or not self._records.alive(daemon.name)

        wait_until(settled, timeout)
        if not self._works(settings, daemon.name):
            raise self._failure(daemon, timeout)

    def _works(self, settings: ClusterConfig, name: str) -> bool:
        if name == "munged":
            return _accepts(settings.munge_socket)
        if name == "mariadbd":
            return accounting.database_answers(settings, services.environment(settings))
        if name == "slurmdbd":
            return accounting.answers(services.environment(settings))
        states = self._node_states(settings)
        return bool(states) if name == "slurmctld" else name in states and _is_up(states[name])

    def _node_states(self, settings: ClusterConfig) -> dict[str, str]:
        """Node -> state as sinfo prints it (``idle``, ``down*``); empty when the controller does not answer."""
        # Asked first, because sinfo waits a second or nine for a controller that does not listen.
        if not self._records.alive("slurmctld") or not _accepts(("127.0.0.1", settings.port)):
            return {}
        argv = ["sinfo", "--noheader", "--Node", "--all", "--format=%N %T"]
        try:
            done = subprocess.run(argv, env=services.environment(settings), capture_output=True, text=True, timeout=15)
        except subprocess.TimeoutExpired:
            return {}
        pairs = (line.split() for line in done.stdout.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2} if done.returncode == 0 else {}

    def _ours(self) -> list[Process]:
        """Living processes of this cluster, also those whose record was lost."""
        recorded = (self._records[name] for name in self._records.names())
        return [process for process in (*filter(None, recorded), *marked(str(self.directory))) if process.alive]

    def _kill_all(self) -> None:
        # Again until nothing is found: a process may have started another between our look and its end.
        for _ in range(3):
            kill(self._ours())
            if not self._ours():
                return
        raise DevClusterFailed(f"cannot kill processes {sorted(process.pid for process in self._ours())}")

    def _failure(self, daemon: Daemon, waited: float) -> DevClusterFailed:
        ended = not self._records.alive(daemon.name)
        parts = [f"{daemon.name} ended by itself" if ended else f"{daemon.name} did not come up within {waited:.0f} s"]
        for log in dict.fromkeys((daemon.log, daemon.output)):
            if text := last_lines(log):
                parts.append(f"end of {log}:\n" + "\n".join(f"  {line}" for line in text.splitlines()))
        hint = f"read the logs in {self.directory}/log, then: {self._command('down')}"
        if "unshare failed" in parts[-1]:
            hint = "nodes need namespaces: in a container allow them (--privileged), elsewhere try as root"
        return DevClusterFailed("\n".join(parts), hint=hint)


def _is_up(state: str) -> bool:
    return not state.endswith("*") and not state.startswith(_NOT_UP)


def _accepts(address: Path | tuple[str, int]) -> bool:
    """Whether somebody listens on a port or a Unix socket (whose file alone may be a dead daemon's)."""
    family = socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET
    with socket.socket(family) as probe:
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
    return True
