"""How long a trainer takes from its start to its first step on a large tokenised corpus, and what memory that needs.

    python benchmarks/cpt_start.py                        # 1 GB of tokens; 1, 2 and 8 processes
    python benchmarks/cpt_start.py --gb 10 --work /scratch/cpt-start
    python benchmarks/cpt_start.py --trainer              # also the whole trainer (``trl``, a model of a few weights)

Beside it stands a bare start: the same file mapped by numpy, blocks taken at random places. All processes of a
measurement begin at one moment, each with its modules imported. Memory is what is a process's own (``Anonymous`` in
/proc/self/smaps_rollup): pages of the mapped file are shared, and the kernel takes them back when it needs them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

VOCABULARY = 60_000
DOCUMENT = 800  # tokens, on average
LENGTH, BATCH, SEED = 4096, 8, 3
SECONDS, MEGABYTES = 2.0, 200.0
COUNTS = (1, 2, 8)


def main() -> int:
    """Make the file, measure, print a table; with ``--child`` be one of the processes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, default=1.0, help="size of the token file")
    parser.add_argument(
        "--work", type=Path, default=Path("/tmp/overnight-cpt-start"), help="removed at the end if made"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trainer", action="store_true")
    parser.add_argument("--child", nargs=2, metavar=("SIDE", "GO"))
    given = parser.parse_args()
    if given.child:
        child(given.child[0], Path(given.child[1]), given.work)
        return 0
    made = not given.work.exists()
    given.work.mkdir(parents=True, exist_ok=True)
    try:
        make(given.work / "train", given.gb)
        missed = table(given)
    finally:
        if made:
            subprocess.run(["rm", "-r", str(given.work)], check=True)
    return int(missed)


def table(given: argparse.Namespace) -> bool:
    """Print a line for each number of processes; whether a target was missed."""
    sides = ("bare", "ours", "trainer-bare", "trainer-ours") if given.trainer else ("bare", "ours")
    missed = False
    for count in COUNTS:
        found: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for number in range(given.rounds + 1):
            for side in sides if number % 2 else sides[::-1]:
                measured = together(side, count, given.work)  # nothing is there yet but the corpus
                if number:  # the first fills the cache
                    found[side].append(measured)
        middle = {
            side: {key: statistics.median(each[key] for each in values) for key in values[0]}
            for side, values in found.items()
        }
        for kind in ("", "trainer-")[: len(sides) // 2]:
            ours, bare = middle[f"{kind}ours"], middle[f"{kind}bare"]
            over, memory = ours["seconds"] - bare["seconds"], ours["megabytes"] - bare["megabytes"]
            ok = over <= SECONDS and memory <= MEGABYTES
            missed |= not ok
            print(
                f"{kind or 'data '}{count} process(es): start {ours['seconds']:.2f} s, bare {bare['seconds']:.2f} s, "
                f"over it {over:+.2f} s (at most {SECONDS:g}); memory of each {ours['megabytes']:.0f} MB, "
                f"over bare {memory:+.0f} MB (at most {MEGABYTES:g}): {'ok' if ok else 'MISSED'}",
                flush=True,
            )
    return missed


def together(side: str, count: int, work: Path) -> dict[str, float]:
    """The slowest and the largest of ``count`` processes that begin at one moment."""
    go = work / "go"
    go.unlink(missing_ok=True)
    for old in (work / "scratch", *work.glob("stage-*")):
        shutil.rmtree(old, ignore_errors=True)
    command = [sys.executable, __file__, "--work", str(work), "--child", side, str(go)]
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(20000 + os.getpid() % 20000), "WORLD_SIZE": str(count)}
    processes = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                **({**place, "RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}),
            },
        )
        for rank in range(count)
    ]
    for process in processes:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "ready":
            assert process.poll() is None, "a process has ended"
    go.touch()
    answers = [process.communicate()[0].splitlines()[-1] for process in processes]
    found = [json.loads(answer) for answer in answers]
    return {key: max(each[key] for each in found) for key in ("seconds", "megabytes")}


def anonymous() -> float:
    """Megabytes that are this process's own."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return next(int(line.split()[1]) / 1000 for line in text.splitlines() if line.startswith("Anonymous:"))


def child(side: str, go: Path, work: Path) -> None:
    """Import, wait for the sign, start, print what it took."""
    from jobs.training import order, tokens

    begin = trainer(side, work) if side.startswith("trainer") else None
    print("ready", flush=True)
    while not go.exists():
        time.sleep(0.002)
    before, began = anonymous(), time.perf_counter()
    if begin is not None:
        begin()
    elif side == "ours":
        prefix = tokens.tokens_prefix(work, "train")
        ctx: Any = SimpleNamespace(rank=int(os.environ.get("RANK", "0")), world=int(os.environ.get("WORLD_SIZE", "1")))
        blocks = tokens.Blocks(prefix, LENGTH, SEED, mixed=tokens.mix(prefix, SEED, work / "scratch", ctx))
        indices = order.training_order(len(blocks), BATCH, 1000, SEED)
        np.stack([blocks[index] for index in indices[:BATCH]]).astype(np.int64)
    else:
        first_batch(work)
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "megabytes": anonymous() - before}))


def bare(work: Path) -> Any:
    """The file as one long row of tokens."""
    return np.memmap(work / "train.bin", np.uint16, mode="r")


def first_batch(work: Path) -> None:
    mapped = bare(work)
    starts = np.random.default_rng(SEED).integers(0, len(mapped) - LENGTH, BATCH)
    np.stack([mapped[start : start + LENGTH] for start in starts]).astype(np.int64)


def trainer(side: str, work: Path) -> Any:
    """A function that trains one step with the ``trl`` back end, on our data set or on the bare file."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    import trl  # noqa: F401  (imported by a stage, too)

    from jobs.backends.trl import train
    from jobs.core.progress import ProgressWriter
    from jobs.core.spec import Input, StageSpec
    from jobs.training.deadline import StopRequest
    from jobs.training.interface import WorkContext
    from jobs.training.saves import Saves

    rank, world = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    root = work / f"stage-{side}-{world}"
    model = work / "model"
    if not model.exists():
        _model(work / f"model-{os.getpid()}", transformers)
        try:
            (work / f"model-{os.getpid()}").rename(model)
        except OSError:  # another process was first
            pass
    (root / "output").mkdir(parents=True, exist_ok=True)
    _entry(work / "data", work)
    _entry(work / "base", model)
    settings = {"steps": 1, "lr": 1e-3, "batch_size": BATCH, "micro_batch_size": 1, "sequence_length": 64, "threads": 1}
    inputs = {
        "checkpoint": Input("base", str(work / "base"), "checkpoint", "hf", "0" * 64),
        "data": Input("data", str(work / "data"), "dataset", "tokens", "0" * 64),
    }
    made = {"kind": "checkpoint", "format": "hf"}
    spec = StageSpec(
        "r", "p", "cpt", "cpt", "trl", "a", "0" * 64, str(root / "stage"), str(root / "store"), made, settings, inputs
    )
    spec.stage_paths.root.mkdir(parents=True, exist_ok=True)
    ctx = WorkContext(
        root / "output",
        ProgressWriter(spec.stage_paths.progress, enabled=rank == 0),
        StopRequest(spec.stage_paths, spec.stage_paths.deadline("7", 0), 0.0),
        Saves(spec.store_paths, spec.fingerprint, None, lambda *_, **__: None),
        lambda *_, **__: None,
        rank=rank,
        world=world,
    )
    if side == "trainer-bare":

        class Plain(torch.utils.data.Dataset):  # type: ignore[type-arg]
            def __init__(self) -> None:
                self.mapped = bare(work)

            def __len__(self) -> int:
                return len(self.mapped) // 64

            def __getitem__(self, number: int) -> dict[str, Any]:
                ids = torch.from_numpy(self.mapped[number * 64 : number * 64 + 64].astype("int64"))
                return {"input_ids": ids, "labels": ids}

        train._dataset = lambda *_: (Plain(), None)  # type: ignore[assignment]
    return lambda: train.run(spec, ctx)


def _entry(root: Path, output: Path) -> None:
    """An entry of the store; other processes make the same."""
    root.mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (root / "output").symlink_to(output)


def _model(directory: Path, transformers: Any) -> None:
    from tokenizers import Tokenizer, models

    vocabulary = {f"w{number}": number for number in range(VOCABULARY - 1)} | {"</s>": VOCABULARY - 1}
    directory.mkdir()
    Tokenizer(models.WordLevel(vocabulary, unk_token="w0")).save(str(directory / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>", "unk_token": "w0"}
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    shape = transformers.LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    transformers.LlamaForCausalLM(shape).save_pretrained(directory)


def make(prefix: Path, gigabytes: float) -> None:
    """Random tokens in documents of very different lengths."""
    from data_prep.tokens import indexed

    if indexed.is_prefix(prefix):
        return
    rng = np.random.default_rng(SEED)
    tokens = int(gigabytes * 1e9) // 2
    lengths = np.clip(rng.geometric(1 / DOCUMENT, 2 * tokens // DOCUMENT), 1, 100_000).astype(np.int32)
    lengths = lengths[: int(np.searchsorted(np.cumsum(lengths, dtype=np.int64), tokens))]
    left = int(lengths.sum(dtype=np.int64))
    with open(f"{prefix}.bin", "wb") as stream:
        while left > 0:
            part = rng.integers(0, VOCABULARY - 1, min(left, 50_000_000), dtype=np.uint16)
            stream.write(part.tobytes())
            left -= len(part)
    indexed._write_index(indexed.paths(prefix)[1], np.dtype("<u2"), [lengths])
    print(f"{gigabytes:g} GB: {int(lengths.sum(dtype=np.int64)):,} tokens in {len(lengths):,} documents", flush=True)


if __name__ == "__main__":
    sys.exit(main())
