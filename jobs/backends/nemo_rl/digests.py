"""The digests of a large save, made by all nodes: NeMo-RL's own processes write it, and one of ours runs on the first.

Each node of the Ray cluster flushes what its processes have written and digests a share of the files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from jobs.core import hashing, seal, shares, strict
from jobs.core.hashing import Depth, FileDigest

_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from jobs.__main__ import main; sys.exit(main(sys.argv[1:]))"


def by_all_nodes(directory: Path, depth: Depth) -> dict[str, FileDigest]:
    """By name, of all files below ``directory``; empty where one node is all there is, or reads it soon enough.

    Raises:
        Exception: Ray, or a node, did not do it.
    """
    address = os.environ.get("RAY_ADDRESS")
    if not address or sum(entry.size for entry in _entries(directory)) < shares.LARGE:
        return {}
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    try:
        nodes = sorted(node["NodeID"] for node in ray.nodes() if node["Alive"])
        # A function that every worker has: ours are not in their path.
        ask = ray.remote(num_cpus=0, max_retries=0)(subprocess.check_output)
        command = [sys.executable, "-P", "-c", _BOOT, str(Path(shares.__file__).parents[2]), "share", str(directory)]
        answers = [
            ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
                [*command, str(number), str(len(nodes)), depth.value], text=True
            )
            for number, node in enumerate(nodes)
        ]
        return shares.digests_of(map(strict.parse, ray.get(answers)))
    finally:
        ray.shutdown()


def of_share(directory: Path, number: int, count: int, depth: Depth) -> list[dict[str, Any]]:
    """Those of the share of one node, as it answers; what its processes wrote is on disk then."""
    os.sync()
    mine = shares.Node(number, count).share(_entries(directory))
    return shares.as_answer(hashing.digest_files(directory, [entry.path for entry in mine], depth))


def _entries(directory: Path) -> list[FileDigest]:
    return [FileDigest(name, (directory / name).stat().st_size, "") for name in seal.list_files(directory)]


def main(directory: str, number: str, count: str, depth: str) -> int:
    """``of_share``, printed."""
    print(json.dumps(of_share(Path(directory), int(number), int(count), Depth(depth))))
    return 0
