"""Questions of lm-evaluation-harness by our forward passes and by its own engine for transformers, in one process.

``harness.py MODEL ROWS TASK [QUESTIONS]``: a Hugging Face directory, a file of rows of the task's data set (or of a
package that we can turn into these), the task's name. Both get the same requests, in turn, on one thread; CPU seconds.
What goes before the first request is measured as well: the import of the harness, and all that we do after it.
"""

from __future__ import annotations

import os

os.environ.update(HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1", OMP_WAIT_POLICY="passive", TQDM_DISABLE="1")

import argparse
import time
from pathlib import Path

from measure import Spread, report

PAIRS = int(os.environ.get("BENCHMARK_PAIRS", "3"))
RATIO = 1.5
OVERHEAD = 1.0
CLOSE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("task")
    parser.add_argument("questions", type=int, nargs="?", default=12)
    args = parser.parse_args()

    import datasets  # noqa: F401  # with torch and transformers what an evaluation has loaded anyway
    import torch

    from jobs.core.spec import Input
    from jobs.evaluate.engine import Engine
    from jobs.evaluate.harness import index
    from jobs.evaluate.kinds import Loaded
    from jobs.evaluate.kinds.harness import _requests
    from jobs.evaluate.settings import EvaluateSettings
    from jobs.training import tokenizers
    from jobs.training.models import load_model

    torch.set_num_threads(1)
    found = index.find(args.task)
    told = {"version": found.version, "files": found.files, "data_set": found.dataset, "measures": found.measures}
    keys = {"harness": args.task, "shots": 0, "chat": "false", "limit": args.questions, "rows": args.rows.name}
    task = EvaluateSettings.read({"tasks": {"own": {"benchmark": "rows", **told, **keys}}}).tasks["own"]
    loaded = Loaded(load_model(args.model).eval(), tokenizers.load(args.model))

    began = time.process_time()
    from lm_eval.models.huggingface import HFLM

    imported = time.process_time() - began
    engine = Engine(loaded.model, loaded.tokenizer)  # it tries the model on a few ids: once
    began = time.process_time()
    entry = Input("rows", str(_store(args.rows)), "download", "benchmark", "0" * 64)
    chosen = task.kind.choose(task, {"benchmark:rows": entry})
    task.kind.prepare(task, chosen, loaded)
    before = time.process_time() - began
    report(
        f"{args.task}: from the import of the harness to the first request, CPU (the import: {imported:.1f} s)",
        f"{before:.2f} s",
        f"{OVERHEAD:g} s",
        before <= OVERHEAD,
    )

    requests = _requests(task, chosen, engine, chat=False)
    theirs = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, batch_size=4, device="cpu")
    flat = [request for own in requests for request in own]
    parts = [part for own in requests for part in engine.parts(own)]
    ours_took, theirs_took, ours, other = [], [], [], []
    for _ in range(PAIRS):
        began = time.process_time()
        answered: dict[int, list[float]] = {}
        for group in engine.groups(parts):
            for number, result in zip(group, engine.answer([parts[number] for number in group]), strict=True):
                answered[number] = [value for value, _ in result]
        ours = [value for number in range(len(parts)) for value in answered[number]]
        ours_took.append(time.process_time() - began)
        began = time.process_time()
        other = [value for value, _ in theirs.loglikelihood(flat, disable_tqdm=True)]
        theirs_took.append(time.process_time() - began)
    far = max(abs(one - two) for one, two in zip(ours, other, strict=True))
    report(
        f"{args.task}: largest difference of {len(ours)} log-likelihoods", f"{far:.1e}", f"{CLOSE:.0e}", far <= CLOSE
    )
    ratio = Spread.of([two / one for one, two in zip(ours_took, theirs_took, strict=True)])
    took = f"{Spread.of(ours_took).median:.1f} s and {Spread.of(theirs_took).median:.1f} s"
    report(
        f"{args.task}: its own engine over ours, CPU, {len(requests)} questions ({took})",
        str(ratio),
        f"{RATIO:g}",
        ratio.median >= RATIO,
    )


def _store(rows: Path) -> Path:
    """A directory as a store entry, whose output has the rows."""
    import tempfile

    root = Path(tempfile.mkdtemp())
    (root / "output").symlink_to(rows.resolve().parent)
    return root


if __name__ == "__main__":
    main()
