"""What ``overnight profile test`` runs on the nodes: do they find each other, and does the file system keep its word?

Standard library only. Every node leaves ``node-<number>.json`` in the probe's directory; nothing is concluded here.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jobs.core import files
from jobs.lifecycle import network

MEET_SECONDS = 300.0
"""How long the others may take: a container's image may have to be fetched first."""

TELL_SECONDS = 10.0
SEEN_SECONDS = 60.0
SWAP_SECONDS = 2.0
_BLOCK = 1 << 16
_SECRET, _LEFT_OVER, _KEPT = "OVERNIGHT_PROBE_TOKEN", "SLURM_OVERNIGHT_PROBE", "OVERNIGHT_PROBE_MARK"


def main(verb: str, *arguments: str) -> int:
    """``probe-host DIR`` on the batch host, ``probe-node DIR PROCESSES`` on every node, and what that starts."""
    if verb == "probe-rank":
        return rank(*arguments)
    if verb == "probe-node":
        return node(Path(arguments[0]), int(arguments[1]))
    print(json.dumps(describe(0)))
    return 0


def node(directory: Path, processes: int) -> int:
    """The work of one node; its first process."""
    number, nodes = int(os.environ.get("SLURM_NODEID", "0")), int(os.environ.get("SLURM_JOB_NUM_NODES", "1"))
    found = describe(number)
    place = (os.environ["OVERNIGHT_MASTER_ADDR"], int(os.environ["OVERNIGHT_MASTER_PORT"]))
    with _server(place[1]) if number == 0 else contextlib.nullcontext():
        began = time.monotonic()
        ranks = _start_ranks(place, number * processes, processes, nodes * processes)
        found["nodes"] = meet(place, "nodes", nodes, found["host"])
        found["meet_seconds"] = time.monotonic() - began
        found["ranks"] = [each for each in (_result_of(rank) for rank in ranks) if each is not None]
        found["seen_seconds"] = _seen(place, directory, number, nodes)
        found["swap"] = _swap(place, directory, number, nodes)
        meet(place, "end", nodes, None)
    files.write_atomic(directory / f"node-{number}.json", json.dumps(found))
    return 0 if len(found["ranks"]) == processes else 1


def describe(number: int) -> dict[str, Any]:
    """What there is on this node, as the work sees it."""
    interfaces = {name: network.of_interface(name) for _, name in socket.if_nameindex()}
    return {
        "number": number,
        "host": os.environ.get("SLURMD_NODENAME") or socket.gethostname(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "all_cpus": os.cpu_count(),
        "mounts": os.readlink("/proc/self/ns/mnt"),
        "devices": _visible_devices(),
        "gpus": _gpus(),
        "interfaces": {name: address for name, address in interfaces.items() if address},
        "environment": [name for name in (_SECRET, _LEFT_OVER, _KEPT) if name in os.environ],
    }


def _visible_devices() -> int | None:
    """GPUs that Slurm has given to the step, as CUDA and ROCm are told; None: nothing is said."""
    for name in ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"):
        if name in os.environ:
            text = os.environ[name]
            return 0 if text in ("", "NoDevFiles") else len(text.split(","))
    return None


def _gpus() -> list[dict[str, Any]]:
    """Name and memory (MiB) of each GPU that the driver shows; empty without nvidia-smi."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (line.rpartition(",") for line in said.splitlines() if "," in line)
    return [{"name": name.strip(), "mib": int(mib)} for name, _, mib in rows if mib.strip().isdigit()]


# -- meeting: who names a place waits there until all have come, and hears what each has said


def meet(place: tuple[str, int], name: str, count: int, said: Any) -> list[Any]:
    """Wait until ``count`` callers are at ``name``; what all of them said.

    Raises:
        OSError: they did not come in time, or the first node cannot be reached.
    """
    end = time.monotonic() + MEET_SECONDS
    tell_at = time.monotonic() + TELL_SECONDS
    while True:
        try:
            with socket.create_connection(place, timeout=10) as connection:
                connection.settimeout(max(1.0, end - time.monotonic()))
                connection.sendall(json.dumps([name, count, said]).encode() + b"\n")
                with connection.makefile("rb") as stream:
                    return list(json.loads(stream.readline()))
        except (ConnectionError, TimeoutError, ValueError, socket.gaierror) as error:  # it may not listen yet
            if time.monotonic() >= end:
                raise
            if time.monotonic() >= tell_at:  # the job may be killed before the end of our patience
                here = socket.gethostname()
                print(f"overnight: {here} does not reach {place[0]}:{place[1]}: {error}", file=sys.stderr)
                tell_at = end
            time.sleep(0.1)


@contextlib.contextmanager
def _server(port: int) -> Iterator[None]:
    """Where all meet, on the first node."""
    listener = socket.create_server(("", port), backlog=1024)
    waiting: dict[str, list[tuple[socket.socket, Any]]] = {}
    lock = threading.Lock()

    def serve(connection: socket.socket) -> None:
        connection.settimeout(MEET_SECONDS)
        with contextlib.suppress(OSError, ValueError):
            name, count, said = json.loads(connection.makefile("rb").readline())
            with lock:
                there = waiting.setdefault(name, [])
                there.append((connection, said))
                if len(there) < count:
                    return
                del waiting[name]
            answer = json.dumps([each for _, each in there]).encode() + b"\n"
            for other, _ in there:
                with contextlib.suppress(OSError):
                    other.sendall(answer)
                    other.close()

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed at the end
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        listener.close()


def _start_ranks(place: tuple[str, int], first: int, count: int, world: int) -> list[subprocess.Popen[str]]:
    """The processes of this node, as a launcher starts them."""
    command = [sys.executable, sys.argv[0], "probe-rank", *map(str, place)]
    return [
        subprocess.Popen(
            [*command, str(first + number), str(world)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "RANK": str(first + number), "LOCAL_RANK": str(number), "WORLD_SIZE": str(world)},
        )
        for number in range(count)
    ]


def rank(host: str, port: str, number: str, world: str) -> int:
    """One process: meet all others, and say who they were."""
    others = meet((host, int(port)), "ranks", int(world), int(number))
    print(json.dumps({"rank": int(number), "world": len(set(others))}))
    return 0


def _result_of(process: subprocess.Popen[str]) -> dict[str, Any] | None:
    try:
        said, _ = process.communicate(timeout=MEET_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return None
    return dict(json.loads(said)) if process.returncode == 0 else None


# -- the file system


def _seen(place: tuple[str, int], directory: Path, number: int, nodes: int) -> float | None:
    """Seconds until this node saw what the others wrote; None: not all of it within ``SEEN_SECONDS``.

    Each is looked for before it is written: a client that remembers what is not there is the usual reason for a delay.
    """
    others = [directory / f"seen-{other}" for other in range(nodes) if other != number]
    for path in others:
        path.exists()
    meet(place, "write", nodes, None)
    began = time.monotonic()
    files.write_atomic(directory / f"seen-{number}", f"{number}\n")
    while time.monotonic() - began < SEEN_SECONDS:
        if all(_text(path) == f"{path.name.rpartition('-')[2]}\n" for path in others):
            return time.monotonic() - began
        time.sleep(0.01)
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _swap(place: tuple[str, int], directory: Path, number: int, nodes: int) -> dict[str, int]:
    """The first node replaces a file again and again while all read it.

    Returns:
        ``replaced``, ``reads``, and of these ``missing`` (no file), ``torn`` (parts of two), ``errors`` (others).
    """
    path = directory / "swap"
    counts = dict.fromkeys(("replaced", "reads", "missing", "torn", "errors"), 0)
    if number == 0:
        _replace(path, 0)
    meet(place, "swap", nodes, None)
    end = time.monotonic() + SWAP_SECONDS
    if number == 0:
        writer = threading.Thread(target=_replace_until, args=(path, end, counts), daemon=True)
        writer.start()
    while time.monotonic() < end:
        counts["reads"] += 1
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            counts["missing"] += 1
        except OSError:
            counts["errors"] += 1
        else:
            counts["torn"] += len(content) != _BLOCK or content.count(content[:1]) != _BLOCK
        time.sleep(0.001)
    if number == 0:
        writer.join()
    return counts


def _replace_until(path: Path, end: float, counts: dict[str, int]) -> None:
    while time.monotonic() < end:
        counts["replaced"] += 1
        _replace(path, counts["replaced"])


def _replace(path: Path, number: int) -> None:
    temporary = path.with_name(".swap")
    temporary.write_bytes(bytes([number % 256]) * _BLOCK)
    os.replace(temporary, path)
