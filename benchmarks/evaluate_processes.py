"""The same rows evaluated by one process and by two, each with one thread: how much more goes through.

``python -m benchmarks.evaluate_processes [MODEL DIRECTORY]``. Both sides are started as a stage starts them (two by
torchrun), in turn. Each process tells when it began to measure, when it had measured, and what CPU that took. On a
machine with other work the ratio by CPU is the one to read: the CPU of the one process over that of the busier of two.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "benchmarks")]

from measure import Spread, child, report  # noqa: E402

os.environ["TQDM_DISABLE"] = "1"

PAIRS = int(os.environ.get("BENCHMARK_PAIRS", "3"))
ROWS = int(os.environ.get("BENCHMARK_ROWS", "64"))
"""A multiple of 32, or one process has larger batches than two."""
RATIO = 0.9
CLOSE = 1e-4
TASKS: dict[str, Any] = {
    "answers": {"data": "rows"},
    "support": {"data": "rows", "max_new_tokens": 16, "measure": {"chrf": {}, "length": {}}},
}
SIZES = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8, "num_attention_heads": 8}
"""Of the model that is made where none is given: 27 million weights, without which a row takes no time."""


@dataclass(frozen=True)
class Side:
    """One evaluation. ``loading``: seconds until all its processes measure, ``measuring``: until all have measured, and
    ``whole``: to the end of the command; ``busiest``: CPU of the process that took most of it for its measuring;
    ``cpu``: that of all processes of the command."""

    loading: float
    measuring: float
    whole: float
    busiest: float
    cpu: float
    samples: list[dict[str, Any]]


def main() -> None:
    """Print the ratios."""
    given = sys.argv[1:]
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        _make(root, Path(given[0]) if given else None)
        _evaluate(root, 1)  # does not count: byte code, file caches
        rounds = [{world: _evaluate(root, world) for world in order} for order in _orders()]
    _same([side.samples for one in rounds for side in one.values()])
    show(rounds)


def show(rounds: Sequence[Mapping[int, Side]]) -> None:
    """Print what one and two processes took, and the ratios of each round."""
    for world in (1, 2):
        sides = [one[world] for one in rounds]
        print(f"{world} process{'es' if world > 1 else ''}, seconds: median (lowest to highest)")
        for what in ("loading", "measuring", "whole", "busiest", "cpu"):
            report(what, Spread.of([getattr(side, what) for side in sides]))
    for what, more in (("measuring", ""), ("busiest", " by CPU"), ("whole", " of the whole stage")):
        found = Spread.of([getattr(one[1], what) / getattr(one[2], what) / 2 for one in rounds])
        is_judged = what != "whole"  # it has what every process does for itself: imports and the model
        report(
            f"throughput{more}, 2 processes over 2 x 1",
            found,
            *((f"{RATIO:g}", found.median >= RATIO) if is_judged else ()),
        )


def _orders() -> Iterator[tuple[int, int]]:
    for number in range(PAIRS):
        yield (1, 2) if number % 2 == 0 else (2, 1)


def _make(root: Path, model: Path | None) -> None:
    """A base model and rows of many lengths."""
    from tests.support import stages

    if model is None:
        _make_model(root / "base/output")
    else:
        (root / "base").mkdir()
        (root / "base/output").symlink_to(model.resolve())
    rows = [
        {"id": str(n), "prompt": f"Count from {n}:", "completion": " ".join(map(str, range(n, n + 8 + 37 * n % 41)))}
        for n in range(ROWS)
    ]
    stages.write_rows(root / "rows/output/test.jsonl", rows)


def _make_model(output: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.support import stages

    stages.make_tokenizer(output)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=400, num_key_value_heads=8, max_position_embeddings=256, bos_token_id=1, eos_token_id=2,
        pad_token_id=2, tie_word_embeddings=True, **SIZES,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(output)


def _evaluate(root: Path, world: int) -> Side:
    from jobs.core.spec import save
    from jobs.training.interface import ProcessShape, in_process
    from tests.support import stages

    place = root / f"of-{world}"
    shutil.rmtree(place, ignore_errors=True)
    settings = {"tasks": TASKS, "seed": 1, "threads": 1, "resamples": 1000, "batch_prompts": 16}
    one = stages.stage(place, "evaluate", "trl", settings, {"checkpoint": root / "base", "rows": root / "rows"})
    path = one.spec.stage_paths.root / "spec.json"
    save(path, one.spec)
    command = in_process(one.spec, ProcessShape(processes=world), "torchrun").command
    launcher = [sys.executable, *command[1:-3]]  # without the boot of a sealed copy, which gates and seals, too
    own = [str(Path(__file__).resolve()), "--rank", str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_PORT": "0", "PYTHONPATH": str(ROOT)}
    began = time.time()
    cost = child([*launcher, *own], environment=environment)
    ranks = [json.loads((path.parent / f"rank-{rank}.json").read_text()) for rank in range(world)]
    starts, ends = (max(one[name] for one in ranks) for name in ("began", "ended"))
    lines = (one.output / "samples.jsonl").read_text(encoding="utf-8").splitlines()
    return Side(
        loading=starts - began,
        measuring=ends - min(one["began"] for one in ranks),
        whole=cost.wall,
        busiest=max(one["cpu"] for one in ranks),
        cpu=cost.cpu,
        samples=[json.loads(line) for line in lines],
    )


def _rank(path: Path) -> None:
    """One process of a stage, which notes when it measured."""
    from jobs.core.spec import load
    from jobs.evaluate.session import EvaluationSession
    from tests.support import stages

    plain = EvaluationSession.measure

    def measure(self: EvaluationSession, save: int | None = None) -> bool:
        began, cpu = time.time(), time.process_time()
        is_through = plain(self, save)
        told = {"began": began, "ended": time.time(), "cpu": time.process_time() - cpu}
        path.with_name(f"rank-{self.ctx.rank}.json").write_text(json.dumps(told))
        return is_through

    EvaluationSession.measure = measure  # type: ignore[method-assign]
    stages.run_spec(load(path), stages.StopAfter(step=None), [])


def _same(found: Sequence[Sequence[Mapping[str, Any]]]) -> None:
    """Raises AssertionError: two evaluations do not say the same of a row, but for the last digits of its numbers."""
    for other in found[1:]:
        assert len(found[0]) == len(other) == len(TASKS) * ROWS
        for one, two in zip(found[0], other, strict=True):
            assert one.keys() == two.keys()
            for name, value in one.items():
                is_near = isinstance(value, float) and math.isclose(value, two[name], rel_tol=CLOSE, abs_tol=CLOSE)
                assert is_near or value == two[name], f"row {one['id']}: {name} is {value!r} and {two[name]!r}"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        _rank(Path(sys.argv[2]))
    else:
        main()
