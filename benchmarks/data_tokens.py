"""Tokenising to Megatron's .bin/.idx: ours beside the Megatron-LM way, bare encode_batch and datatrove.

    python benchmarks/data_tokens.py CORPUS.jsonl TOKENIZER_DIRECTORY WORK [SIDE ...]
    ROUNDS=3 PARTS=3 ...      # more than one round; each round takes another third of the corpus

Every side reads the same JSON lines on the same cores, one after the other, every other round backwards, and its ids
are compared with ours. Each measurement is kept in WORK/measured.jsonl, so that a call that was stopped goes on and
the table may be made piece by piece. Medians by the clock and of CPU time are shown: the clock of a machine with other
work on it says less. The CPU time of ours is that of the whole build. Needs megatron-core (and torch) for that side,
datatrove for its own; a side whose library is missing is left out, and says so. The memory is the largest sum of the
resident sets of all processes of a side.
"""

from __future__ import annotations

import filecmp
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SIDES = ("ours", "megatron", "encode_batch", "datatrove")
WORKERS = len(os.sched_getaffinity(0))


def lines(corpus: Path) -> Iterator[str]:
    with open(corpus, encoding="utf-8") as stream:
        yield from stream


def ours(corpus: Path, tokenizer: Path, work: Path) -> None:
    """Of a corpus build all that is done for tokens: the proof that tiktoken may stand in, the phase ``write`` (worker
    start, tokens, JSON lines, seals) and the joining of shards. The whole build also cleans and digests."""
    from data_prep.common.settings import SplitSettings
    from data_prep.corpus.build import CorpusRequest, build
    from data_prep.corpus.recipe import Recipe
    from jobs.core.spec import Source

    began: dict[str, float] = {}

    def report(phase: str):
        began.setdefault(phase, time.perf_counter())
        return lambda step, total: None

    recipe = Recipe.parse(
        {"quality": False, "exact_duplicates": False, "near_duplicates": None, "tokenizer": str(tokenizer)}
    )
    source = Source(str(corpus), "", corpus.stat().st_size)
    start = time.perf_counter()
    build(CorpusRequest(recipe, [[source]], split=SplitSettings(0, 0)), work / "out", work / "shards", report=report)
    whole = time.perf_counter() - start
    ends = dict(zip(began, [*list(began.values())[1:], start + whole], strict=True))
    seconds = sum(ends[phase] - began[phase] for phase in ("check tokenizer", "write", "join"))
    print(json.dumps({"seconds": seconds, "whole": whole, "prefix": str(work / "out/megatron/train_text_document")}))


_shared: dict = {}


def _start(path: str) -> None:
    from tokenizers import Tokenizer

    _shared["tokenizer"] = Tokenizer.from_file(path)


def _encode(line: str) -> list[int]:
    return _shared["tokenizer"].encode(json.loads(line)["text"], add_special_tokens=False).ids


def megatron(corpus: Path, tokenizer: Path, work: Path) -> None:
    """As tools/preprocess_data.py of Megatron-LM: a pool, one document at a time, one writer."""
    import torch
    from megatron.core.datasets.indexed_dataset import DType, IndexedDatasetBuilder

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    size, end = _vocabulary(tokenizer)
    start = time.perf_counter()
    prefix = work / "megatron"
    builder = IndexedDatasetBuilder(f"{prefix}.bin", dtype=DType.optimal_dtype(size))
    with multiprocessing.Pool(WORKERS, _start, (str(tokenizer / "tokenizer.json"),)) as pool:
        for ids in pool.imap(_encode, lines(corpus), 32):
            builder.add_document(torch.IntTensor([*ids, end]), [len(ids) + 1])
    builder.finalize(f"{prefix}.idx")
    print(json.dumps({"seconds": time.perf_counter() - start, "prefix": str(prefix)}))


def encode_batch(corpus: Path, tokenizer: Path, work: Path) -> None:
    """The library tokenizers alone: batches of 512 documents on its own threads, ids appended to a file."""
    import numpy as np
    from tokenizers import Tokenizer

    size, end = _vocabulary(tokenizer)
    kind = np.uint16 if size < 65500 else np.int32
    own = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    start = time.perf_counter()
    with open(work / "batch.bin", "wb") as stream:
        batch: list[str] = []

        def flush() -> None:
            for found in own.encode_batch(batch, add_special_tokens=False):
                stream.write(np.array([*found.ids, end], kind).tobytes())
            batch.clear()

        for line in lines(corpus):
            batch.append(json.loads(line)["text"])
            if len(batch) == 512:
                flush()
        flush()
    print(json.dumps({"seconds": time.perf_counter() - start, "prefix": str(work / "batch")}))


def datatrove(corpus: Path, tokenizer: Path, work: Path) -> None:
    """The tokenizer of datatrove tokenizer for Megatron. It reads a directory in tasks, so the corpus is cut in
    advance."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.tokens.megatron_tokenizer import MegatronDocumentTokenizer

    parts = work / "parts"
    parts.mkdir()
    for part in range(WORKERS):
        with open(parts / f"{part}.jsonl", "w", encoding="utf-8") as stream:
            stream.writelines(line for number, line in enumerate(lines(corpus)) if number // 256 % WORKERS == part)
    vocabulary = json.loads((tokenizer / "tokenizer.json").read_text())["model"]["vocab"]
    end = next(token for token, number in vocabulary.items() if number == _vocabulary(tokenizer)[1])
    start = time.perf_counter()
    LocalPipelineExecutor(
        [
            JsonlReader(str(parts)),
            MegatronDocumentTokenizer(
                str(work / "tokens"), tokenizer_name_or_path=str(tokenizer / "tokenizer.json"), eos_token=end
            ),
        ],
        tasks=WORKERS,
        workers=WORKERS,
        logging_dir=str(work / "logs"),
    ).run()
    print(json.dumps({"seconds": time.perf_counter() - start, "prefix": ""}))


def _vocabulary(tokenizer: Path) -> tuple[int, int]:
    from data_prep.tokens.encoder import Encoder

    own = Encoder(tokenizer, fast=False)
    return own.vocabulary, own.end_of_document(None)


def _watch(group: int, peak: list[int], spent: dict[int, float], stop: threading.Event) -> None:
    """Largest sum of resident sets of a process group, bytes, and the CPU seconds that each of its processes was last
    seen with: a fork server's children are nobody's that would report theirs."""
    page, tick = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
    while not stop.wait(0.2):
        total = 0
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
                    if int(fields[2]) == group:
                        total += int(fields[21]) * page
                        spent[int(entry)] = (int(fields[11]) + int(fields[12])) / tick
                except OSError:
                    continue
        peak[0] = max(peak[0], total)


@dataclass(frozen=True)
class Watched:
    """How a command and all its children went; ``peak``: the largest sum of their resident sets, in bytes."""

    returncode: int
    output: str
    errors: str
    seconds: float
    cpu: float
    peak: int


def watched(command: list[str]) -> Watched:
    """Run a command in a process group of its own; if we are stopped, so is the group."""
    began, before = time.perf_counter(), os.times()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "RAYON_NUM_THREADS": str(WORKERS), "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    peak, stop = [0], threading.Event()
    spent: dict[int, float] = {}
    watcher = threading.Thread(target=_watch, args=(process.pid, peak, spent, stop))
    watcher.start()
    try:
        output, errors = process.communicate()
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        stop.set()
        watcher.join()
    after = os.times()
    cpu = after.children_user - before.children_user + after.children_system - before.children_system
    cpu = max(cpu, sum(spent.values()))
    return Watched(process.returncode, output, errors, time.perf_counter() - began, cpu, peak[0])


def measure(side: str, corpus: Path, tokenizer: Path, work: Path) -> dict | None:
    """A side on a corpus; None if it cannot be run here."""
    shutil.rmtree(work / side, ignore_errors=True)
    (work / side).mkdir(parents=True)
    found = watched([sys.executable, __file__, "--side", side, str(corpus), str(tokenizer), str(work / side)])
    if found.returncode:
        print(f"{side:<14} left out: {found.errors.strip().splitlines()[-1][:150]}")
        return None
    return {**json.loads(found.output.strip().splitlines()[-1]), "peak": found.peak, "cpu": found.cpu}


def divided(corpus: Path, work: Path, parts: int) -> list[Path]:
    """The corpus in ``parts`` files of about the same size that together are all of it; one part is the corpus."""
    if parts == 1:
        return [corpus]
    found = [work / f"part-{number}-of-{parts}.jsonl" for number in range(1, parts + 1)]
    if not all(path.exists() for path in found):
        streams = [open(path, "w", encoding="utf-8") for path in found]  # noqa: SIM115 (closed below)
        for number, line in enumerate(lines(corpus)):
            streams[number // 256 % parts].write(line)
        for stream in streams:
            stream.close()
    return found


def known(results: Path) -> list[dict]:
    return [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []


def main() -> None:
    corpus, tokenizer, work = (Path(argument).resolve() for argument in sys.argv[1:4])
    work.mkdir(parents=True, exist_ok=True)
    parts = divided(corpus, work, int(os.environ.get("PARTS", "1")))
    results = work / "measured.jsonl"
    missing: set[str] = set()
    for number in range(int(os.environ.get("ROUNDS", "1"))):
        part = parts[number % len(parts)]
        for side in SIDES if number % 2 == 0 else SIDES[::-1]:
            done = any((entry["round"], entry["side"]) == (number + 1, side) for entry in known(results))
            if done or side in missing or (sys.argv[4:] and side not in sys.argv[4:]):
                continue
            found = measure(side, part, tokenizer, work / f"round-{number + 1}")
            if found is None:
                missing.add(side)
                continue
            found |= {"round": number + 1, "side": side, "size": text_bytes(part)}
            with open(results, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(found) + "\n")
            print(f"  round {number + 1} {side:<14} {found['seconds']:7.1f} s  {found['cpu']:7.1f} s CPU", flush=True)
    table(known(results), tokenizer, work)


def text_bytes(corpus: Path) -> int:
    return sum(len(json.loads(line)["text"].encode()) for line in lines(corpus))


def table(measured: list[dict], tokenizer: Path, work: Path) -> None:
    """Medians of each side's rounds; a factor is the median of the factors within a round."""
    rounds = {(entry["side"], entry["round"]): entry for entry in measured}
    print(f"{WORKERS} cores, {tokenizer}")
    for side in SIDES:
        runs = [entry for entry in measured if entry["side"] == side]
        if not runs:
            continue
        wall = statistics.median(entry["size"] / entry["seconds"] for entry in runs) / 1e6
        cpu = statistics.median(entry["size"] / entry["cpu"] for entry in runs) / 1e6
        both = [(entry, rounds["ours", entry["round"]]) for entry in runs if ("ours", entry["round"]) in rounds]
        factors = (
            "ours is "
            + ", ".join(
                f"{statistics.median(entry[what] / own[what] for entry, own in both):.1f} x by {name}"
                for what, name in (("seconds", "the clock"), ("cpu", "CPU"))
            )
            if both
            else ""
        )
        peak = max(entry["peak"] for entry in runs) / 1e6
        text = sum(entry["size"] for entry in runs) / 1e6
        whole = [entry["size"] / entry["whole"] / 1e6 for entry in runs if "whole" in entry]
        more = f" (the whole build {statistics.median(whole):.1f} MB/s)" if whole else ""
        same = {_same(work / f"round-{entry['round']}", side) for entry in runs} - {""}
        print(
            f"{side:<14} {len(runs)} rounds, {text:.0f} MB: {wall:5.1f} MB/s{more}, {cpu:5.2f} MB per CPU second; "
            f"{factors}; peak {peak:.0f} MB; {', '.join(sorted(same))}"
        )


def ours_of(work: Path) -> Path:
    return work / "ours/out/megatron/train_text_document"


def _same(work: Path, side: str) -> str:
    """Whether a side wrote the bytes that ours wrote in the same round; of datatrove, a file a task, the same ids."""
    names = {"megatron": ("megatron", (".bin", ".idx")), "encode_batch": ("batch", (".bin",))}
    if not Path(f"{ours_of(work)}.bin").exists():
        return ""
    if side == "datatrove":
        return f"ids {'the same as ours' if _same_ids(work) else 'DIFFER from ours'}"
    if side not in names:
        return ""
    name, ends = names[side]
    equal = all(filecmp.cmp(f"{ours_of(work)}{end}", work / side / f"{name}{end}", shallow=False) for end in ends)
    return f"{' and '.join(ends)} {'the same bytes as ours' if equal else 'DIFFER from ours'}"


def _same_ids(work: Path) -> bool:
    import numpy as np

    from data_prep.tokens.indexed import Indexed

    own = Indexed(ours_of(work))
    found = [Indexed(path.with_suffix("")) for path in sorted((work / "datatrove/tokens").glob("*.idx"))]
    for part, theirs in enumerate(found):
        numbers = [number for number in range(len(own)) if number // 256 % WORKERS == part]
        if len(numbers) != len(theirs):
            return False
        if not all(np.array_equal(own[number], ids) for number, ids in zip(numbers, theirs, strict=True)):
            return False
    return len(found) == WORKERS


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        {"ours": ours, "megatron": megatron, "encode_batch": encode_batch, "datatrove": datatrove}[sys.argv[2]](
            *map(Path, sys.argv[3:6])
        )
    elif len(sys.argv) < 4:
        print((__doc__ or "").strip())
    else:
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # timeout: the side's processes end, too
        main()
