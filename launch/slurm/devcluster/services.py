"""The command and the environment of each daemon of the dev cluster."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from launch.slurm.devcluster import accounting
from launch.slurm.devcluster.config import ClusterConfig
from launch.slurm.devcluster.daemons import DAEMON_PATH, MARKER, Daemon

# First process of a node's namespaces: gives the node its name and hosts file and reaps what is orphaned in it
# (slurmd as process 1 never reaps its slurmstepds). When slurmd ends, so does the node.
_NODE_INIT = """
hostname "$1" && mount --bind "$2" /etc/hosts || exit 1
slurmd -D -N "$1" -f "$3" & slurmd=$!
while kill -0 "$slurmd" 2>/dev/null; do wait "$slurmd"; done
"""

# From 24.11 on the controller looks up the names of nodes when a requeued job ends, and stands still for 10 s where
# nobody knows them.
_CONTROLLER_INIT = 'mount --bind "$1" /etc/hosts && exec slurmctld -D -f "$2"'


def environment(settings: ClusterConfig) -> dict[str, str]:
    """Environment of the daemons and of our own questions to them, whatever the user's shell has set.

    It holds the mark by which ``down`` finds them, and tells slurmdbd where the database listens.
    """
    return {
        "PATH": DAEMON_PATH,
        "LANG": "C.UTF-8",
        "HOME": pwd.getpwuid(os.getuid()).pw_dir,
        "SLURM_CONF": str(settings.slurm_conf),
        MARKER: str(settings.directory),
        "MYSQL_UNIX_PORT": str(settings.database_socket),
    }


def daemons(settings: ClusterConfig) -> list[Daemon]:
    """All daemons in the order in which they start."""
    return [
        _daemon(settings, "munged", _munged(settings.directory / "munge", settings.munge_socket)),
        *(_accounting(settings) if settings.accounting else []),
        _daemon(settings, "slurmctld", _controller(settings), log="slurmctld.log"),
        *(_daemon(settings, node, _node(settings, node), log=f"{node}.log") for node in settings.node_names),
    ]


def _daemon(settings: ClusterConfig, name: str, argv: list[str], log: str | None = None) -> Daemon:
    output = settings.logs / f"{name}.out"
    return Daemon(name=name, argv=argv, output=output, log=settings.logs / log if log else output)


def _munged(directory: Path, socket: Path) -> list[str]:
    return [
        "munged",
        "--foreground",
        "--force",  # a directory below a home that others may not enter is a warning, not an error
        f"--socket={socket}",
        f"--key-file={directory}/key",
        f"--pid-file={directory}/pid",
        f"--seed-file={directory}/seed",
        "--num-threads=4",
    ]


def _accounting(settings: ClusterConfig) -> list[Daemon]:
    return [
        _daemon(settings, "mariadbd", accounting.server_argv(settings)),
        _daemon(settings, "slurmdbd", ["slurmdbd", "-D"], log="slurmdbd.log"),
    ]


def _unshared(*argv: str) -> list[str]:
    # An ordinary user gets namespaces inside a user namespace of his own.
    as_user = [] if os.geteuid() == 0 else ["--user", "--map-current-user", "--keep-caps"]
    return ["unshare", *as_user, "--mount", *argv]


def _controller(settings: ClusterConfig) -> list[str]:
    return _unshared("bash", "-c", _CONTROLLER_INIT, "controller-init", str(settings.hosts), str(settings.slurm_conf))


def _node(settings: ClusterConfig, node: str) -> list[str]:
    init = ["bash", "-c", _NODE_INIT, "node-init", node, str(settings.hosts), str(settings.slurm_conf)]
    return _unshared("--uts", "--pid", "--fork", "--kill-child", "--mount-proc", *init)
