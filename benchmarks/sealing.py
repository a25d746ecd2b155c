"""How fast eight nodes seal and read a save together, and how long a training stands for it.

Eight processes take the places of eight nodes, each with its share of the files. The bound is what is slower: reading
(``cat``) or digesting (SHA-256 on all cores, of what is in memory); the sides are measured in turn. Then a process
makes steps (a busy loop of Python, which needs the interpreter's lock all the time) and has a save sealed beside them:
how long it stands, and what slower steps cost meanwhile, against an interval of ten minutes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gate import digest_rate, forget, seconds
from measure import PAIRS, Spread, report

from jobs.core import seal, shares
from jobs.core.hashing import Depth
from jobs.core.paths import StorePaths
from jobs.core.shares import Node
from jobs.training.saves import Saves

NODES = 8
SHARE = 0.9
INTERVAL = 600.0
STALL = 0.01
FACTS = {"kind": seal.SealKind.SAVE, "format": "trainer", "fingerprint": "0" * 64}


def node(number: int) -> Node:
    return Node(number, NODES, range(number, number + 1))


def write(directory: Path, size: int) -> None:
    """A file of each node, flushed."""
    directory.mkdir(parents=True)
    block = os.urandom(1 << 20)
    for number in range(NODES):
        with open(directory / f"__{number}_0.distcp", "wb") as stream:
            for _ in range(size // NODES >> 20):
                stream.write(block)
            stream.flush()
            os.fsync(stream.fileno())


def seal_part(number: int, directory: Path, desk: Path) -> None:
    threads = max(1, len(os.sched_getaffinity(0)) * 2 // NODES)
    found = shares.digest_written(directory, node(number), Depth.FULL, threads)
    shares.answer(desk, "part", node(number), shares.as_answer(found))


def read_share(number: int, directory: Path, path: Path) -> None:
    shares.check_share(directory, seal.load(path), node(number))


def all_nodes(work: Callable[..., None], *given: Path) -> None:
    """Each node in a process of its own, forked: what they take to start is not measured elsewhere."""
    team = [multiprocessing.get_context("fork").Process(target=work, args=(number, *given)) for number in range(NODES)]
    for one in team:
        one.start()
    for one in team:
        one.join()
        assert one.exitcode == 0


def rates(root: Path, gib: float, pairs: int) -> None:
    directory, desk, path = root / "save", root / "desk", root / "seal.json"
    write(directory, int(gib * (1 << 30)))
    size = sum(entry.stat().st_size for entry in directory.iterdir()) / (1 << 30)

    def sealing() -> None:
        all_nodes(seal_part, directory, desk)
        known = shares.digests_of(shares.answers(desk, "part", NODES, 60.0))
        seal.seal_directory(directory, path, known=known, **FACTS)

    def cat() -> None:
        with open(os.devnull, "wb") as nowhere:
            subprocess.run(["cat", *directory.iterdir()], stdout=nowhere, check=True)

    def cold(call: Callable[[], None]) -> Callable[[], float]:
        def forgetting() -> float:
            forget(directory)
            return seconds(call)

        return forgetting

    sealing()
    sides: dict[str, Callable[[], float]] = {
        "cat, cold": cold(cat),
        "gate of 8 nodes, cold": cold(lambda: all_nodes(read_share, directory, path)),
        "seal of 8 nodes, from memory": lambda: seconds(sealing),
        "sha256 in memory, all cores": lambda: size / digest_rate("sha256"),
    }
    values: dict[str, list[float]] = {label: [] for label in sides}
    for number in range(pairs):
        for label in list(sides)[:: 1 if number % 2 == 0 else -1]:
            values[label].append(sides[label]())
            print(f"{label}: {values[label][-1]:.2f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    found = {label: Spread.of(one) for label, one in values.items()}
    print(f"{size:.1f} GiB in {NODES} files, {len(os.sched_getaffinity(0))} cores, load {os.getloadavg()[0]:.1f}")
    for label, value in found.items():
        report(label, value)
        report("  GiB/s", f"{size / value.median:.2f}")
    digest, disk = found["sha256 in memory, all cores"].median, found["cat, cold"].median
    for label, bound in (("gate of 8 nodes, cold", max(digest, disk)), ("seal of 8 nodes, from memory", digest)):
        share = bound / found[label].median
        report(f"{label}: share of the machine's rate", f"{share:.2f}", f"{SHARE}", share >= SHARE)


def steps(until: Callable[[], bool]) -> list[float]:
    """Seconds of steps of a busy loop, as a trainer's main thread makes them."""
    took = []
    while not until():
        began = time.perf_counter()
        total = 0
        for value in range(200_000):
            total += value * value
        took.append(time.perf_counter() - began)
    return took


def stall(root: Path, gib: float) -> None:
    saves = Saves(StorePaths(root / "store"), "0" * 64, None, lambda name, **facts: None)
    lost, stood, sealed = [], [], []
    for step in range(1, 4):
        write(saves.directory / f"checkpoint-{step}", int(gib * (1 << 30)))
        end = time.monotonic() + 5.0
        alone = Spread.of(steps(lambda end=end: time.monotonic() > end)).median
        done: list[float] = []
        stood.append(seconds(lambda step=step, done=done: saves.seal_beside(step, 2, done.append)))
        beside = steps(lambda done=done: bool(done))
        saves.wait()
        sealed.append(done[0])
        lost.append(sum(beside) - len(beside) * alone)
    report("a seal beside the training", f"{Spread.of(sealed)} s")
    report("the training stands for it", f"{max(stood):.4f} s")
    share = (max(stood) + max(0.0, Spread.of(lost).median)) / INTERVAL
    report("and loses by slower steps", f"{Spread.of(lost)} s")
    report("together, of ten minutes", f"{100 * share:.2f} %", f"{100 * STALL:.0f} %", share <= STALL)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=2.0, help="size of the save")
    parser.add_argument("--where", type=Path, default=None, help="directory on the file system in question")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="onb-", dir=given.where) as name:
        rates(Path(name), given.gib, given.pairs)
        stall(Path(name), given.gib)


if __name__ == "__main__":
    main()
