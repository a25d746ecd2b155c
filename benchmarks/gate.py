"""How fast a checkpoint passes the file gate and is sealed, against ``cat`` of the same files to ``/dev/null``.

Cold: before each measurement the page cache is dropped (root; without it the files' pages are, by ``posix_fadvise``),
as for a stage that reads on another node what its parent wrote. The bound is what is slower: reading (``cat``) or
digesting (SHA-256, on all cores, of what is in memory). Warm: from the page cache.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from measure import PAIRS, Spread, report

from jobs.core import hashing, seal

FACTS = {"kind": seal.SealKind.CHECKPOINT, "format": "hf", "fingerprint": "0" * 64}
HASHES = ("sha256", "sha512", "blake2b", "blake2s", "sha3_256")
"""Those for which nobody can make two files of one digest (not so MD5 and SHA-1)."""
PIECE = 64 << 20
CORES = len(os.sched_getaffinity(0))
SHARE = 0.8
LIGHT_SECONDS = 2.0


def write(directory: Path, files: int, file_bytes: int) -> None:
    """Files of random bytes, as the shards of a checkpoint."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    block = os.urandom(1 << 20)
    for number in range(files):
        with open(directory / f"model-{number}.safetensors", "wb") as stream:
            for _ in range(file_bytes >> 20):
                stream.write(block)
            os.fsync(stream.fileno())


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def forget(directory: Path) -> str:
    """Take the files out of the page cache; in words, how."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return "the page cache dropped"
    except OSError:
        for path in directory.iterdir():
            with open(path, "rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return "the files' pages dropped (no right to drop the whole cache)"


def digest_rate(name: str) -> float:
    """GiB/s of a hash on all cores, of pieces that lie in memory, by buffers as large as the seal's."""
    pieces = [os.urandom(1 << 20)] * (PIECE >> 20)

    def one(_: int) -> None:
        hasher = hashlib.new(name)
        for piece in pieces:
            hasher.update(piece)

    with ThreadPoolExecutor(max_workers=CORES) as pool:
        took = seconds(lambda: list(pool.map(one, range(2 * CORES))))
    return 2 * CORES * PIECE / (1 << 30) / took


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=1.0, help="size of the checkpoint")
    parser.add_argument("--files", type=int, default=4, help="1: one core would digest it, were it not for the blocks")
    parser.add_argument("--where", type=Path, default=None, help="directory on the file system in question")
    parser.add_argument("--pairs", type=int, default=PAIRS)
    given = parser.parse_args()
    file_bytes = int(given.gib * (1 << 30)) // given.files >> 20 << 20
    gib = given.files * file_bytes / (1 << 30)
    with tempfile.TemporaryDirectory(prefix="onb-", dir=given.where) as name:
        directory, sealed, light = Path(name, "output"), Path(name, "seal.json"), Path(name, "light.json")

        def cat() -> float:
            with open(os.devnull, "wb") as nowhere:
                return seconds(lambda: subprocess.run(["cat", *directory.iterdir()], stdout=nowhere, check=True))

        def cold(call: Callable[[], float]) -> Callable[[], float]:
            def forgetting() -> float:
                forget(directory)
                return call()

            return forgetting

        def full() -> float:
            return seconds(lambda: seal.seal_directory(directory, sealed, **FACTS))

        def gate() -> float:
            return seconds(lambda: seal.verify(directory, sealed))

        def light_seal() -> float:
            return seconds(lambda: seal.seal_directory(directory, light, depth=hashing.Depth.LIGHT, **FACTS))

        def light_gate() -> float:
            return seconds(lambda: seal.verify(directory, light))

        def digest() -> float:
            return gib / digest_rate(hashlib.new(hashing.WHOLE).name)

        write(directory, given.files, file_bytes)
        full()
        light_seal()
        sides = {"cat, cold": cold(cat), "file gate, cold": cold(gate), "seal, cold": cold(full)}
        sides |= {"sha256 in memory, all cores": digest, "cat, warm": cat, "file gate, warm": gate}
        sides |= {"light gate, cold": cold(light_gate), "light seal, cold": cold(light_seal)}
        # No call that does not count: nine out of ten cold ones would warm nothing, and take minutes.
        values: dict[str, list[float]] = {label: [] for label in sides}
        for number in range(given.pairs):
            for label in list(sides)[:: 1 if number % 2 == 0 else -1]:
                values[label].append(sides[label]())
                print(f"{label}: {values[label][-1]:.2f} s, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
        found = {label: Spread.of(one) for label, one in values.items()}
        how = forget(directory)
    rates = {name: digest_rate(name) for name in HASHES}
    print(
        f"{gib:.1f} GiB in {given.files} files, {CORES} cores, load {os.getloadavg()[0]:.1f}; {how} before what is cold"
    )
    print("seconds: median (lowest to highest)")
    for label, value in found.items():
        report(label, value)
        report("  GiB/s", f"{gib / value.median:.2f}")
    report("GiB/s of the hashes in memory, all cores", ", ".join(f"{n} {r:.2f}" for n, r in rates.items()))
    fastest = max(rates, key=lambda name: rates[name])
    report("fastest kept hash", fastest, hashing.WHOLE, fastest == hashing.WHOLE)
    bound = max(found["cat, cold"].median, found["sha256 in memory, all cores"].median)
    for label in ("file gate, cold", "seal, cold"):
        share = bound / found[label].median
        report(f"{label}: share of the slower of cat and sha256", f"{share:.2f}", f"{SHARE}", share >= SHARE)
    for label in ("light gate, cold", "light seal, cold"):
        value = found[label].median
        report(label, f"{value:.3f} s", f"{LIGHT_SECONDS} s", value <= LIGHT_SECONDS)


if __name__ == "__main__":
    main()
