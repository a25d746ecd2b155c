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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from jobs.core import files
from launch.devcluster import accounting, config, ports
from launch.devcluster.config import ClusterConfig
from launch.devcluster.daemons import (
    DAEMON_PATH,
    MARKER,
    Daemon,
    Records,
    kill,
    last_lines,
    marked,
    wait_until,
)
from launch.errors import InputError, OvernightError

Say = Callable[[str], None]

_SAFE_PATH = re.compile(r"[A-Za-z0-9_./+@-]+\Z")
_SOCKET_PATH_LIMIT = 107  # of sockaddr_un
_UP_STATES = frozenset({"idle", "mixed", "allocated", "completing"})

# First process of a node's namespaces: gives the node its name and hosts file and reaps what is orphaned in it
# (slurmd as process 1 never reaps its slurmstepds). When slurmd ends, so does the node.
_NODE_INIT = """
hostname "$1" && mount --bind "$2" /etc/hosts || exit 1
slurmd -D -N "$1" -f "$3" & slurmd=$!
while kill -0 "$slurmd" 2>/dev/null; do wait "$slurmd"; done
"""


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
        return all(self.daemons.values()) and set(self.nodes.values()) <= _UP_STATES and bool(self.nodes)


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
        """Ask the processes and Slurm.

        Raises:
            InputError: no cluster here.
        """
        settings = self._require_config()
        alive = {daemon.name: self._records.alive(daemon.name) for daemon in self._daemons(settings)}
        return Status(settings, alive, self._node_states(settings) if alive["slurmctld"] else {})

    def client_environment(self) -> dict[str, str]:
        """Environment in which Slurm's commands talk to this cluster."""
        return {
            "PATH": DAEMON_PATH,
            "LANG": "C.UTF-8",
            "HOME": pwd.getpwuid(os.getuid()).pw_dir,
            "SLURM_CONF": str(self.directory / "etc" / "slurm.conf"),
        }

    # -- up and down ---------------------------------------------------------------------------------------------

    def up(
        self,
        *,
        nodes: int | None = None,
        with_accounting: bool | None = None,
        port: int | None = None,
        say: Say = lambda _: None,
    ) -> ClusterConfig:
        """Start what does not run yet and wait until all nodes are up. Asking again for the same is free.

        Args:
            nodes: how many; default 4, or what the existing cluster has.
            with_accounting: slurmdbd and MariaDB too; default no, or what the existing cluster has.
            port: base of the port block; default a free one.
            say: called with a line of progress.

        Raises:
            InputError: the existing cluster is another one, or the directory cannot hold one.
            DevClusterFailed: a daemon did not come up. What was started is stopped; the logs stay.
        """
        self._check_directory()
        self.directory.mkdir(parents=True, exist_ok=True)
        with self._lock():
            settings = self.config()
            if settings is not None:
                _refuse_change(settings, nodes, with_accounting, port)
                self._write(settings)
                self._start_all(settings, say)
                return settings
            if any(self.directory.iterdir()):
                raise InputError(f"{self.directory} is not empty and holds no dev cluster", hint="choose another --dir")
            settings = self._new_config(4 if nodes is None else nodes, bool(with_accounting))
            with ports.block(settings.ports, config.BLOCK, port) as base:
                settings = replace(settings, port=base)
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
            if self.config() is None and any(self.directory.iterdir()):
                raise InputError(f"{self.directory} holds no dev cluster: nothing removed")
            self._kill_all()
            shutil.rmtree(self.directory)
        return True

    # -- parts ---------------------------------------------------------------------------------------------------

    def kill(self, name: str) -> None:
        """Power cut: SIGKILL a node with all its jobs, or a daemon (``slurmctld``, ``slurmdbd``, ...)."""
        daemon = self._daemon(name)
        process = self._records[daemon.name]
        left = kill([process]) if process else []
        if left:
            raise DevClusterFailed(f"{name}: processes survived SIGKILL: {[one.pid for one in left]}")

    def start(self, name: str) -> None:
        """Start a node or a daemon again; does nothing when it lives."""
        daemon = self._daemon(name)
        with self._lock():
            self._records.start(daemon, self._environment())

    # -- inside --------------------------------------------------------------------------------------------------

    @property
    def _config_file(self) -> Path:
        return self.directory / "cluster.json"

    def _require_config(self) -> ClusterConfig:
        settings = self.config()
        if settings is None:
            raise InputError(f"no dev cluster in {self.directory}", hint="overnight cluster up")
        return settings

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
            handle = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX)
                if os.fstat(handle).st_nlink == 0:  # removed by a `down` that we waited for
                    self.directory.mkdir(parents=True, exist_ok=True)
                    continue
                yield
                return
            finally:
                os.close(handle)

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

    def _environment(self) -> dict[str, str]:
        database = self.directory / "mysql" / "socket"
        return {**self.client_environment(), MARKER: str(self.directory), "MYSQL_UNIX_PORT": str(database)}

    def _daemons(self, settings: ClusterConfig) -> list[Daemon]:
        """All daemons in the order of their starts."""
        munge = self.directory / "munge"
        daemons = [
            self._service(
                "munged",
                ["munged", "--foreground", "--force", f"--socket={settings.munge_socket}", f"--key-file={munge}/key"]
                + [f"--pid-file={munge}/pid", f"--seed-file={munge}/seed", "--num-threads=4"],
            )
        ]
        if settings.accounting:
            daemons += [
                self._service("mariadbd", accounting.server_argv(settings)),
                self._service("slurmdbd", ["slurmdbd", "-D"], log=settings.logs / "slurmdbd.log"),
            ]
        slurmctld = ["slurmctld", "-D", "-f", str(settings.slurm_conf)]
        daemons.append(self._service("slurmctld", slurmctld, log=settings.logs / "slurmctld.log"))
        # An ordinary user gets the node's namespaces inside a user namespace of his own.
        as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
        for node in settings.node_names:
            argv = ["unshare", *as_user, "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
            argv += ["bash", "-c", _NODE_INIT, "node-init", node, str(settings.hosts), str(settings.slurm_conf)]
            daemons.append(self._service(node, argv, log=settings.logs / f"{node}.log"))
        return daemons

    def _service(self, name: str, argv: list[str], log: Path | None = None) -> Daemon:
        output = self.directory / "log" / f"{name}.out"
        return Daemon(name=name, argv=argv, output=output, log=log or output)

    def _daemon(self, name: str) -> Daemon:
        daemons = {daemon.name: daemon for daemon in self._daemons(self._require_config())}
        if name not in daemons:
            raise InputError(f"no {name!r} in this cluster; there are: {', '.join(daemons)}")
        return daemons[name]

    def _start_all(self, settings: ClusterConfig, say: Say) -> None:
        daemons = {daemon.name: daemon for daemon in self._daemons(settings)}
        try:
            self._start_in_order(settings, daemons, say)
        except BaseException:
            self._kill_all()
            raise

    def _start_in_order(self, settings: ClusterConfig, daemons: dict[str, Daemon], say: Say) -> None:
        def start(name: str) -> None:
            self._records.start(daemons[name], self._environment())

        def wait(name: str, what: str, condition: Callable[[], bool], timeout: float) -> None:
            def settled() -> bool:
                return condition() or not self._records.alive(name)

            wait_until(settled, timeout)
            if not condition():
                raise self._failure(daemons[name], timeout)
            say(what)

        start("munged")
        wait("munged", "munged answers", lambda: _accepts(settings.munge_socket), 10)
        if settings.accounting:
            accounting.install_database(settings, self.client_environment())
            start("mariadbd")
            wait("mariadbd", "mariadbd answers", lambda: _accepts(settings.database_socket), 30)
            start("slurmdbd")
            wait("slurmdbd", "slurmdbd answers", lambda: accounting.answers(self.client_environment()), 60)
            accounting.create_account(settings, self.client_environment())
            say(f"account {config.ACCOUNT} is there")
        start("slurmctld")
        for node in settings.node_names:
            start(node)
        wait("slurmctld", "slurmctld answers", lambda: bool(self._node_states(settings)), 30)
        self._wait_for_nodes(settings, daemons)
        say(f"{settings.nodes} nodes are up")

    def _wait_for_nodes(self, settings: ClusterConfig, daemons: dict[str, Daemon]) -> None:
        timeout = 60

        def down() -> list[str]:
            states = self._node_states(settings)
            return [name for name in settings.node_names if states.get(name) not in _UP_STATES]

        def settled() -> bool:
            absent = down()
            return not absent or not all(self._records.alive(name) for name in absent)

        wait_until(settled, timeout)
        absent = down()
        if absent:
            raise self._failure(daemons[absent[0]], timeout)

    def _node_states(self, settings: ClusterConfig) -> dict[str, str]:
        """Node -> state as sinfo prints it (``idle``, ``down*``); empty when the controller does not answer."""
        argv = ["sinfo", "--noheader", "--Node", "--partition=batch", "--format=%N %T"]
        try:
            done = subprocess.run(argv, env=self.client_environment(), capture_output=True, text=True, timeout=15)
        except subprocess.TimeoutExpired:
            return {}
        pairs = (line.split() for line in done.stdout.splitlines())
        return {pair[0]: pair[1] for pair in pairs if len(pair) == 2} if done.returncode == 0 else {}

    def _kill_all(self) -> None:
        recorded = (self._records[name] for name in self._records.names())
        left = kill([*filter(None, recorded), *marked(str(self.directory))])
        if left:
            raise DevClusterFailed(f"processes survived SIGKILL: {[process.pid for process in left]}")

    def _failure(self, daemon: Daemon, waited: float) -> DevClusterFailed:
        ended = "" if self._records.alive(daemon.name) else ": it ended by itself"
        parts = [f"{daemon.name} did not come up within {waited:.0f} s{ended}"]
        for log in dict.fromkeys((daemon.log, daemon.output)):
            if text := last_lines(log):
                parts.append(f"end of {log}:\n" + "\n".join(f"  {line}" for line in text.splitlines()))
        return DevClusterFailed("\n".join(parts), hint=f"the logs stay in {self.directory}/log; overnight cluster down")


def _accepts(path: Path) -> bool:
    """Whether somebody listens on a Unix socket (its file alone may be a dead daemon's)."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _refuse_change(settings: ClusterConfig, nodes: int | None, with_accounting: bool | None, port: int | None) -> None:
    asked = {"nodes": nodes, "accounting": with_accounting, "port": port}
    for name, value in asked.items():
        has = getattr(settings, name)
        if value is not None and value != has:
            raise InputError(
                f"the dev cluster in {settings.directory} has {name} {has}, not {value}", hint="overnight cluster down"
            )
