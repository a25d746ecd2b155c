"""The optional half of the dev cluster: MariaDB, slurmdbd, and the account that jobs are charged to."""

from __future__ import annotations
from launch.devcluster.config import ClusterConfig


def server_argv(settings: ClusterConfig) -> list[str]:
    return []
