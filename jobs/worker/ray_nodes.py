"""Whether all nodes of a job have joined its Ray cluster, asked beside the head before the work starts there.

Without this question the work would start on the nodes that are there, or give up with an error that names none.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from jobs.core import files
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.lifecycle.start import Start, write_failure

GAVE_UP = "overnight: gave up: "
"""How the script of a node says in its log that it will not try again."""

POLL_SECONDS = 0.5
_TAIL_BYTES = 4096


def main(spec: StageSpec, seconds: float) -> int:
    """Wait until the nodes of ``OVERNIGHT_NODES`` are in the cluster at ``RAY_ADDRESS``; 0 when they are.

    If not, the result says so for the verdict: which nodes, the log of each, and its last line.
    """
    start = Start.from_environment(spec.attempt)
    wanted = os.environ["OVERNIGHT_NODES"].split()
    logs = {node: spec.stage_paths.ray_log(start.job, start.restart, node) for node in wanted}
    began = time.monotonic()
    missing = wait(os.environ["RAY_ADDRESS"], logs, seconds)
    if not missing:
        print(f"overnight: {len(wanted)} of {len(wanted)} nodes are in the Ray cluster", file=sys.stderr, flush=True)
        return 0
    text = describe(missing, logs, time.monotonic() - began)
    print(f"overnight: {text}", file=sys.stderr, flush=True)
    write_failure(spec, start, FailureClass.COLLECTIVE_TIMEOUT, text)
    return 1


def wait(address: str, logs: dict[str, Path], seconds: float) -> list[str]:
    """Names of the nodes that are not in the cluster after ``seconds``, or sooner if one of them has given up."""
    end = time.monotonic() + seconds
    connected = False
    missing = list(logs)
    while True:
        connected = connected or _connect(address)
        if connected:
            missing = sorted(set(logs) - joined())
        if not missing or any(_gave_up(logs[node]) for node in missing) or time.monotonic() >= end:
            return missing
        time.sleep(POLL_SECONDS)


def _connect(address: str) -> bool:
    import ray

    try:
        # The head answers before the scheduler of its own node does; then Ray tries for a while and gives up.
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", ignore_reinit_error=True)
    except Exception as error:  # of half a dozen types that are not promised
        print(f"overnight: no connection to the Ray cluster yet: {error}", file=sys.stderr, flush=True)
        return False
    return True


def joined() -> set[str]:
    """Names of the nodes that are alive in the cluster."""
    import ray

    return {node.get("NodeName") or node["NodeManagerHostname"] for node in ray.nodes() if node["Alive"]}


def describe(missing: Iterable[str], logs: dict[str, Path], seconds: float) -> str:
    """One sentence, and a line for each node that did not come. Where one gave up, the rest may still be starting."""
    names: Sequence[str] = sorted(missing, key=lambda node: not _gave_up(logs[node]))
    gave_up = [node for node in names if _gave_up(logs[node])]
    text = f"{len(logs) - len(names)} of {len(logs)} nodes joined the Ray cluster within {seconds:.0f} s; "
    text += f"gave up: {', '.join(gave_up)}; " if gave_up else ""
    others = names[len(gave_up) :]
    text += f"{'not there yet' if gave_up else 'missing'}: {', '.join(others)}" if others else ""
    lines = [text.removesuffix("; ")]
    for node in names[:8]:
        log = logs[node]
        said = _last_line(log)
        lines.append(f"  {node}: {said or 'its script wrote nothing: it may not have started'} ({log})")
    return "\n".join(lines)


def _gave_up(log: Path) -> bool:
    return _last_line(log).startswith(GAVE_UP)


def _last_line(log: Path) -> str:
    """The last line of a log that is still written; empty where there is none yet."""
    return next((line.strip() for line in reversed(files.tail(log, _TAIL_BYTES)) if line.strip()), "")
