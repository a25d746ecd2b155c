"""The optional half of the dev cluster: MariaDB, slurmdbd, and the account that jobs are charged to."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from launch.base.errors import OvernightError
from launch.slurm.devcluster.config import ACCOUNT, CLUSTER_NAME, DATABASE, ClusterConfig

# Nothing here must survive a power cut of the machine, so nothing is synced to disk ("only for tests", says MariaDB):
# installing it alone makes 800 such calls, each slow where others use the disk.
_NO_SYNC = ("--debug-no-sync", "--innodb-flush-log-at-trx-commit=0", "--innodb-log-file-size=16M")


def _data(settings: ClusterConfig) -> Path:
    return settings.directory / "mysql" / "data"


def _server_options(data: Path) -> list[str]:
    # MariaDB refuses to run as root unless told to.
    as_root = ["--user=root"] if os.geteuid() == 0 else []
    return ["--no-defaults", *as_root, f"--datadir={data}", *_NO_SYNC]


def server_argv(settings: ClusterConfig) -> list[str]:
    """Command of the database server. It listens on no port: only on a socket in a directory of mode 0700."""
    return [
        "mariadbd",
        *_server_options(_data(settings)),
        f"--socket={settings.database_socket}",
        "--skip-networking",
        "--skip-log-bin",
        "--performance-schema=OFF",
        "--innodb-buffer-pool-size=64M",
        # slurmdbd complains about any smaller value.
        "--innodb-lock-wait-timeout=900",
        "--max-connections=32",
    ]


def install_database(settings: ClusterConfig, environment: Mapping[str, str]) -> None:
    """Create the server's own tables, once per cluster.

    Raises:
        OvernightError: the installer failed; the message has its output.
    """
    data = _data(settings)
    if data.exists():
        return
    partial = data.with_name("data.partial")  # renamed when complete, so that an interrupted `up` starts it over
    shutil.rmtree(partial, ignore_errors=True)
    options = ["--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve"]
    _run(["mariadb-install-db", *_server_options(partial), *options], environment)
    partial.rename(data)


def create_database(settings: ClusterConfig, environment: Mapping[str, str]) -> None:
    """An empty database for slurmdbd.

    It would create one itself, but with MariaDB's newer client libraries (seen with 11.8.9) its connection is unusable
    after the first attempt that finds none.

    Raises:
        OvernightError: the server refused; the message has its answer.
    """
    _run(_query(settings, f"create database if not exists {DATABASE}"), environment)


def database_answers(settings: ClusterConfig, environment: Mapping[str, str]) -> bool:
    """Whether the database server answers a question: one that recovers from a crash listens before it can."""
    if not settings.database_socket.exists():
        return False
    return (
        subprocess.run(_query(settings, "select 1"), env=dict(environment), capture_output=True, timeout=30).returncode
        == 0
    )


def _query(settings: ClusterConfig, statement: str) -> list[str]:
    return ["mariadb", "--no-defaults", f"--socket={settings.database_socket}", "--user=root", f"--execute={statement}"]


def answers(environment: Mapping[str, str]) -> bool:
    """Whether slurmdbd answers a question about its (perhaps empty) list of clusters."""
    done = subprocess.run(["sacctmgr", "-n", "show", "cluster"], env=dict(environment), capture_output=True, timeout=30)
    return done.returncode == 0


def create_account(settings: ClusterConfig, environment: Mapping[str, str]) -> None:
    """The cluster, its accounts with this user in them, and QOS to choose from. Nothing happens where they exist.

    Raises:
        OvernightError: sacctmgr failed; the message has its output.
    """
    accounts = settings.accounts or (ACCOUNT,)
    qos = ("normal", "high", "low") if not settings.accounts else ("normal", *settings.qos)

    def exists() -> bool:
        argv = ["sacctmgr", "-n", "-P", "show", "user", settings.user, "format=defaultaccount"]
        return _run(argv, environment).strip() == accounts[0]

    if exists():
        return
    # One process for all lines. The user comes last, so that it also proves that nothing before it was cut short.
    lines = [
        f"add cluster {CLUSTER_NAME}",
        *(f"add qos {name} priority={100 if name == 'high' else 0}" for name in qos if name != "normal"),
    ]
    for account in reversed(accounts):
        lines += [
            f"add account {account} Description={account} Organization={CLUSTER_NAME}",
            f"modify account {account} set qos={','.join(qos)}",
            f"add user {settings.user} account={account} defaultaccount={account}",
        ]
    lines.append("quit")
    said = _run(["sacctmgr", "-i", "-Q"], environment, "\n".join(lines) + "\n")
    if not exists():  # a refused line is not in sacctmgr's exit code
        raise OvernightError(f"sacctmgr did not create account {accounts[0]}:\n{said.strip()}")


def _run(argv: list[str], environment: Mapping[str, str], stdin: str = "") -> str:
    done = subprocess.run(
        argv,
        env=dict(environment),
        input=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=120,
    )
    if done.returncode != 0:
        raise OvernightError(f"{argv[0]} failed with exit code {done.returncode}:\n{done.stdout.strip()}")
    return done.stdout
