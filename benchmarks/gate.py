"""How fast a checkpoint of 1 GiB passes the file gate and is sealed, against ``cat`` of the same files to /dev/null.

Read from the page cache, as by a stage that follows upon the one that wrote: this measures the digest, not the disk.
The seal of files just written also waits for the disk (fsync), which is reported by itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from measure import Spread, alternate, report

from jobs.core import seal

FILES = 4
FILE_BYTES = 1 << 28
FACTS = {"kind": seal.SealKind.CHECKPOINT, "format": "hf", "fingerprint": "0" * 64}


def write(directory: Path) -> None:
    """Files of random bytes, as the shards of a checkpoint."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    block = os.urandom(1 << 20)
    for number in range(FILES):
        with open(directory / f"model-{number}.safetensors", "wb") as stream:
            for _ in range(FILE_BYTES >> 20):
                stream.write(block)


def seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="onb-") as name:
        directory, sealed, one = Path(name, "output"), Path(name, "seal.json"), Path(name, "one")
        write(directory)
        seal.seal_directory(directory, sealed, **FACTS)
        one.mkdir()
        os.link(directory / "model-0.safetensors", one / "model-0.safetensors")
        seal.seal_directory(one, Path(name, "one.json"), **FACTS)

        def just_written() -> float:
            write(directory)
            return seconds(lambda: seal.seal_directory(directory, sealed, **FACTS))

        def cat() -> float:
            with open(os.devnull, "wb") as nowhere:
                return seconds(lambda: subprocess.run(["cat", *directory.iterdir()], stdout=nowhere, check=True))

        def on_disk() -> float:
            return seconds(lambda: seal.seal_directory(directory, sealed, **FACTS))

        def gate() -> float:
            return seconds(lambda: seal.verify(directory, sealed))

        def gate_of_one() -> float:
            return seconds(lambda: seal.verify(one, Path(name, "one.json")))

        found = alternate({"cat": cat, "file gate": gate, "gate of one file": gate_of_one, "seal, on disk": on_disk})
        fresh = Spread.of([just_written() for _ in range(3)])
    gib = FILES * FILE_BYTES / (1 << 30)
    sizes = {"gate of one file": FILE_BYTES / (1 << 30)}
    print(f"{gib:.0f} GiB in {FILES} files on {os.cpu_count()} cores, seconds: median (lowest to highest)")
    for label, values in found.items():
        value = Spread.of(values)
        report(label, value)
        report("  GiB/s", f"{sizes.get(label, gib) / value.median:.2f}")
    report("seal of files just written (with the fsync)", fresh)
    ratio = Spread.of(found["file gate"]).median / Spread.of(found["cat"]).median
    report("file gate / cat", f"{ratio:.1f}")


if __name__ == "__main__":
    main()
