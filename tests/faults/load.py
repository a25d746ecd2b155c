"""What a job asks of the shared file system, counted from the code itself: ``python -m tests.faults.load``.

The nodes of a small job do their parts here one after the other, each by the code of a job, on a directory of this
machine. Every open, stat, listing, change of a name and flush is counted, and every byte that is digested. Counts of two
sizes give a straight line for each part; a third and a fourth size must lie on it, else something grows faster than the
job does. The line is then read off at sizes that nobody has here. Rates of this machine, or given ones, make seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

from jobs.core import files, hashing, seal, shares
from jobs.core.shares import Node
from jobs.core.spec import Input, StageSpec
from jobs.lifecycle import publish, steps
from jobs.lifecycle.start import Start, claim_of, event, output_of, own_saves_of
from jobs.training.deadline import StopRequest
from jobs.training.saves import Saves
from jobs.worker import gate, monitor, work
from tests.file_faults.job import prepare, spec_of

PROCESSES = 8
"""Of a node."""

ALWAYS = 3
"""Files of a save that are there once, whatever the size of the job."""

KINDS = ("open", "stat", "list", "name", "flush")
"""What is counted beside bytes; ``name``: a file or directory made, renamed, linked or removed."""

_AUDITED = {
    "open": "open", "os.listdir": "list", "os.scandir": "list", "os.mkdir": "name", "os.rename": "name",
    "os.remove": "name", "os.rmdir": "name", "os.link": "name",
}  # fmt: skip


class Counts:
    """What was asked of the file system below a directory while ``of`` was on, by part and place."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self.found: Counter[tuple[str, str, str]] = Counter()
        self._at: tuple[str, str] | None = None

    def add(self, kind: str, path: object, times: int = 1) -> None:
        is_ours = isinstance(path, int) or (
            isinstance(path, str | os.PathLike) and os.fspath(path).startswith(self.root)
        )
        if self._at is not None and is_ours:
            self.found[(*self._at, kind)] += times

    @contextlib.contextmanager
    def of(self, part: str, place: str) -> Iterator[None]:
        """``place``: "first" is the node (or the process) of rank 0, "other" each other one."""
        self._at = (part, place)
        try:
            yield
        finally:
            self._at = None


_current: list[Counts] = []


def _audit(event: str, given: tuple[Any, ...]) -> None:
    if _current and event in _AUDITED:
        _current[-1].add(_AUDITED[event], given[0])


@contextlib.contextmanager
def counting(root: Path) -> Iterator[Counts]:
    """Count from here on; calls that Python does not audit are wrapped."""
    found = Counts(root)
    real_digest = hashing.digest_files

    def wrapped(kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(path: Any, *given: Any, **named: Any) -> Any:
            found.add(kind, path)
            return function(path, *given, **named)

        return call

    def digest(directory: Path, names: list[str], *given: Any, **named: Any) -> Any:
        answer = real_digest(directory, names, *given, **named)
        found.add("bytes", directory, sum(entry.size for entry in answer))
        return answer

    if not _current:
        sys.addaudithook(_audit)
    _current.append(found)
    with contextlib.ExitStack() as stack:
        for name in ("stat", "lstat"):
            stack.enter_context(mock.patch.object(os, name, wrapped("stat", getattr(os, name))))
        stack.enter_context(mock.patch.object(os, "fsync", wrapped("flush", os.fsync)))
        stack.enter_context(mock.patch.object(hashing, "digest_files", digest))
        stack.enter_context(mock.patch.object(shares, "LARGE", 1))
        stack.enter_context(mock.patch.object(monitor, "_signal"))
        stack.enter_context(mock.patch.object(monitor, "_stacks", return_value="stack"))
        stack.enter_context(mock.patch.object(monitor.shutil, "which", return_value=None))
        stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
        yield found
    found.root = "\0"  # the hook stays as long as the process


@dataclass(frozen=True)
class Job:
    """A job of ``count`` nodes on a directory; ``size``: bytes of each file."""

    root: Path
    count: int
    size: int = 64

    @property
    def nodes(self) -> list[Node]:
        """The first one last: it collects what the others have left."""
        ranks = [range(PROCESSES * number, PROCESSES * (number + 1)) for number in range(self.count)]
        return [Node(number, self.count, ranks[number]) for number in reversed(range(self.count))]

    def write(self, directory: Path) -> None:
        """What the processes write into a save or an output."""
        directory.mkdir(parents=True, exist_ok=True)
        names = [f"__{rank}_0.distcp" for rank in range(PROCESSES * self.count)]
        for name in [*names, *(f"once-{number}.json" for number in range(ALWAYS))]:
            (directory / name).write_bytes(bytes(self.size))


def place(node: Node) -> str:
    """Under which word a node is counted."""
    return "first" if node.collects else "other"


def count(job: Job) -> Counts:
    """Play the parts of one job and count."""
    names = tuple(f"node{number}" for number in range(job.count))
    start = Start("100", 0, 0, names[0], names, "aaaaaa", spread=True)
    spec = replace(spec_of(job.root), kind="cpt")
    parent = Path(spec.store_dir).with_name("checkpoint-" + "e" * 16)
    job.write(parent / "output")
    facts: dict[str, Any] = {"format": "hf", "fingerprint": "e" * 64}
    seal.seal_directory(parent / "output", parent / "seal.json", kind=seal.SealKind.CHECKPOINT, **facts)
    given = Input("base", str(parent), "checkpoint", "hf", "e" * 64)
    spec = replace(spec, inputs={"checkpoint": given})
    prepare(spec)
    spec.stage_paths.logs.mkdir(exist_ok=True)
    with counting(job.root) as counts:
        with counts.of("prologue, with the gate's sizes", "first"):
            assert steps.prologue(spec, start) is steps.Entry.WORK
        for node in job.nodes:
            with counts.of("gate: content of the input", place(node)):
                gate.read_together(spec, start, node)
        _register(job, spec, start, counts)
        _step(spec, counts)
        _save(job, spec, start, counts)
        _resume(job, spec, start, counts)
        _hang(job, spec, start, counts)
        _finish(job, spec, start, counts)
    return counts


def _register(job: Job, spec: StageSpec, start: Start, counts: Counts) -> None:
    quiet = replace(spec, kind="corpus")  # of a kind that starts no process
    for node in job.nodes:
        with mock.patch.dict(os.environ, SLURMD_NODENAME=f"node{node.number}"):
            for rank in node.ranks:
                with counts.of("start of the monitors", place(node)):
                    monitor.start(quiet, start, rank)


def _step(spec: StageSpec, counts: Counts) -> None:
    for looks in (True, False):
        stop = StopRequest(spec.stage_paths, spec.stage_paths.deadline("7", 0), 60.0, looks)
        with counts.of("each step", "first" if looks else "other"):
            stop.should_stop()
            stop.save_due(1, 10, None)


def _saves(job: Job, spec: StageSpec, start: Start) -> list[Saves]:
    held = claim_of(spec, start)
    told = lambda name, **facts: event(spec.stage_paths, start, name, **facts)  # noqa: E731
    return [Saves(spec.store_paths, spec.fingerprint, held, told, node=node) for node in job.nodes]


def _save(job: Job, spec: StageSpec, start: Start, counts: Counts) -> None:
    """The third save is counted: the one before is read again then, and the first one removed."""
    team = _saves(job, spec, start)
    for step in (1, 2, 3):
        job.write(own_saves_of(spec, start) / f"checkpoint-{step}")
        # All parts of the save before any node reads the one before: the first one waits for them.
        for node, saves in zip(job.nodes, team, strict=True):
            with counts.of("a save: digest, seal, and the one before read again" if step == 3 else "", place(node)):
                saves.seal_beside(step, 2, lambda seconds: None, goes_on=False)


def _resume(job: Job, spec: StageSpec, start: Start, counts: Counts) -> None:
    for node, saves in zip(job.nodes, _saves(job, spec, start), strict=True):
        with counts.of("resume: content of the newest save", place(node)):
            saves.read_newest()
            if node.collects:
                assert saves.resume() is not None


def _hang(job: Job, spec: StageSpec, start: Start, counts: Counts) -> None:
    files.write_json(spec.stage_paths.stall("100", 0), {})
    for node in job.nodes:
        with mock.patch.dict(os.environ, SLURMD_NODENAME=f"node{node.number}"):
            watching = monitor._Monitor(spec, start, time.time(), watches=node.collects)
            with counts.of("each look of a monitor", place(node)):
                watching.has_stalled()
            with counts.of("a hang", place(node)):
                watching.end()


def _finish(job: Job, spec: StageSpec, start: Start, counts: Counts) -> None:
    output = output_of(spec, start)
    job.write(output)
    for node in job.nodes:
        with counts.of("output: digest and flush", place(node)):
            work._flush(spec, start, node, PROCESSES * job.count)
    result = {"outcome": "done", "step": spec.target_step, "writers": job.count, "job": "100", "restart": 0}
    files.write_json(spec.stage_paths.result, {**result, "attempt": spec.attempt})
    with counts.of("output: seal", "first"):
        publish.publish(spec, start, publish.result_of(spec))


Line = tuple[float, float]
"""What a count is at no node, and what each node adds."""


def lines(small: tuple[int, Counts], large: tuple[int, Counts]) -> dict[tuple[str, str, str], Line]:
    """The straight lines through two sizes; the counts of the other nodes are all together."""
    (few, first), (many, second) = small, large
    found = {}
    for key in first.found.keys() | second.found.keys():
        if key[0]:
            slope = (second.found[key] - first.found[key]) / (many - few)
            found[key] = (first.found[key] - slope * few, slope)
    return found


def at(line: Line, size: int) -> float:
    """What the line says of a job of so many nodes."""
    return line[0] + line[1] * size


def off(found: dict[tuple[str, str, str], Line], size: int, counts: Counts) -> list[str]:
    """Where a job of another size does not lie on the lines (a thousandth, or two calls, is allowed)."""
    wrong = []
    for key in sorted(found.keys() | {key for key in counts.found if key[0]}):
        told, seen = at(found.get(key, (0.0, 0.0)), size), counts.found[key]
        if abs(told - seen) > max(2.0, told / 1000):
            wrong.append(f"{' / '.join(key)} with {size} nodes: {seen}, by the line {told:.0f}")
    return wrong


@dataclass(frozen=True)
class Rates:
    """What one node does in a second, and what the file system does for all of them together."""

    opens: float
    stats: float
    flushes: float
    digest: float
    all_calls: float
    all_bytes: float


def measured(where: Path) -> Rates:
    """Of this machine: one thread for calls, all cores for digests."""
    path = where / "file"
    path.write_bytes(bytes(256 << 20))

    def rate(call: Callable[[], object], times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            call()
        return times / (time.perf_counter() - began)

    def opened() -> None:
        os.close(os.open(path, os.O_RDONLY))

    def flushed() -> None:
        (where / "small").write_text("x")
        files.flush(where / "small")

    began = time.perf_counter()
    hashing.digest_files(where, ["file"])
    digest = (256 << 20) / (time.perf_counter() - began)
    opens, stats = rate(opened, 20_000), rate(path.stat, 20_000)
    return Rates(opens, stats, rate(flushed, 50), digest, 0.0, 0.0)


def seconds(place_counts: dict[str, float], rates: Rates, nodes: int, total: dict[str, float]) -> float:
    """What a part takes: on the busiest node, or on the servers of the file system if that is longer."""
    calls = place_counts["open"] / rates.opens + place_counts["flush"] / rates.flushes
    calls += (place_counts["stat"] + place_counts["list"] + place_counts["name"]) / rates.stats
    node = calls + place_counts["bytes"] / rates.digest
    everything = sum(total[kind] for kind in KINDS)
    return max(node, everything / rates.all_calls, total["bytes"] / rates.all_bytes)


def table(found: dict[tuple[str, str, str], Line], rates: Rates, sizes: list[int], whole: float, unit: int) -> str:
    """A table in Markdown. ``whole``: bytes of a checkpoint at every size; ``unit``: those that were counted per file."""
    rows = [
        "| part | nodes | opens, all | stats, all | other, all | opens, first node | stats, first node | bytes, all "
        "| bytes, busiest node | seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for part in dict.fromkeys(key[0] for key in sorted(found)):
        for size in sizes:
            scale = whole / ((PROCESSES * size + ALWAYS) * unit)
            one = {kind: at(found.get((part, "first", kind), (0.0, 0.0)), size) for kind in (*KINDS, "bytes")}
            rest = {kind: at(found.get((part, "other", kind), (0.0, 0.0)), size) for kind in (*KINDS, "bytes")}
            one["bytes"], rest["bytes"] = one["bytes"] * scale, rest["bytes"] * scale
            total = {kind: one[kind] + rest[kind] for kind in one}
            busiest = {kind: max(one[kind], rest[kind] / max(1, size - 1)) for kind in one}
            other = sum(total[kind] for kind in ("list", "name", "flush"))
            cells = [part, f"{size:,}", f"{total['open']:,.0f}", f"{total['stat']:,.0f}", f"{other:,.0f}"]
            cells += [f"{one['open']:,.0f}", f"{one['stat']:,.0f}", f"{total['bytes'] / 1e12:.2f} TB"]
            cells += [f"{busiest['bytes'] / 1e9:.1f} GB", f"{seconds(busiest, rates, size, total):.2f}"]
            rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def main() -> int:
    """Count, hold the lines against two more sizes, and print the table; 1 where something grows faster."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--terabytes", type=float, default=10.0, help="of a checkpoint, a save and an output")
    parser.add_argument("--nodes", type=int, nargs="+", default=[8, 64, 1000])
    parser.add_argument("--calls", type=float, default=50_000, help="a second, by the servers, for all nodes")
    parser.add_argument("--digest", type=float, help="bytes a second of a node (measured here, if not given)")
    parser.add_argument("--bandwidth", type=float, default=500e9, help="bytes a second, by the servers, for all nodes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ond-") as name:
        here = {size: count(Job(Path(name, str(size)), size)) for size in (4, 8, 16, 32)}
        rates = replace(measured(Path(name)), all_calls=given.calls, all_bytes=given.bandwidth)
        rates = replace(rates, digest=given.digest or rates.digest)
    found = lines((4, here[4]), (8, here[8]))
    wrong = [text for size in (16, 32) for text in off(found, size, here[size])]
    print(table(found, rates, given.nodes, given.terabytes * 1e12, Job.size))
    print(
        f"\nA node here: {rates.opens:,.0f} opens, {rates.stats:,.0f} stats, {rates.flushes:,.0f} flushes a second, "
        f"{rates.digest / 1e9:.2f} GB/s digested. Servers, given: {rates.all_calls:,.0f} calls a second, "
        f"{rates.all_bytes / 1e9:,.0f} GB/s."
    )
    print(f"lines through 4 and 8 nodes, {len(found)} of them, hold for 16 and 32: {'no' if wrong else 'yes'}")
    for text in wrong:
        print(f"  {text}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
