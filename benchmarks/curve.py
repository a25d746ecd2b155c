"""What a curve costs over the forward passes that it makes: python -m benchmarks.curve [MODEL DIRECTORY] [SAVES].

Saves of a training are imitated by copies of one model; the forward passes alone are those of one evaluation of it,
made ready once.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from jobs.core import seal
from jobs.evaluate import curve, session
from jobs.training import finished
from tests.support import stages

ROWS = 24


def main(model: Path | None, saves: int) -> dict[str, Any]:
    """Seconds of ``saves`` evaluations of one model, of a curve over as many, and their ratio."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        if model is None:
            stages.make_model(root / "base/output")
        else:
            (root / "base").mkdir()
            (root / "base/output").symlink_to(model.resolve())
        stages.make_data(root / "data")
        rows = [
            {"id": str(n), "prompt": f"Count to {n}: ", "completion": " ".join(map(str, range(n % 30 + 10)))}
            for n in range(ROWS)
        ]
        stages.write_rows(root / "rows/output/test.jsonl", rows)
        trained = _trained(root, saves)
        settings = {"tasks": {"answers": {"data": "rows"}}, "seed": 1}
        given = {"checkpoint": root / "base", "rows": root / "rows"}
        one = stages.stage(root / "one", "evaluate", "trl", settings, given)
        forward = _forward(one, saves)
        inputs = {"checkpoint": trained, "source": root / "base", "rows": root / "rows"}
        whole = stages.stage(
            root / "curve", "evaluate", "trl", {**settings, "curve": {"every": 1, "backend": "trl"}}, inputs
        )
        began = time.perf_counter()
        whole.start()
        seconds = time.perf_counter() - began
        points = json.loads((whole.output / "evaluation.json").read_text())["curve"]["points"]
        return {"points": len(points), "forward": forward, "curve": seconds, "ratio": seconds / forward}


def _trained(root: Path, saves: int) -> Path:
    """The entry of a training with so many saves, each of the model that it began with."""
    made = stages.stage(root / "trained", "sft", "trl", {"keep_every": 1}, {})
    store, source = made.spec.store_paths, root / "base/output"
    weights = [*source.glob("*.safetensors"), *source.glob("*.index.json"), source / finished.CONFIG]
    for target in [store.save(step) for step in range(1, saves)] + [store.output]:
        target.mkdir(parents=True)
        for path in weights:
            (target / path.name).hardlink_to(path.resolve()) if target.parent == store.saves else None
    finished.tokenizers.carry_over(source, store.output)
    for path in weights:
        (store.output / path.name).write_bytes(path.read_bytes())
    for step in range(1, saves):
        seal.seal_directory(
            store.save(step),
            store.save_seal(step),
            kind=seal.SealKind.SAVE,
            format="trainer",
            fingerprint="",
            step=step,
        )
    seal.seal_directory(
        store.output, store.seal, kind=seal.SealKind.CHECKPOINT, format="hf", fingerprint="", step=saves
    )
    return store.root


def _forward(one: stages.Stage, times: int) -> float:
    """Seconds of the passes alone, of so many evaluations and the one of the model that training began with."""
    settings = curve.settings_of(one.spec)
    loaded = session.load(one.spec.inputs["checkpoint"].output, one.spec, settings)
    (task,) = session.prepared(settings, session.chosen_rows(one.spec, settings), loaded)
    began = time.perf_counter()
    for _ in range(times + 1):
        task.run()
    return time.perf_counter() - began


if __name__ == "__main__":
    given = Path(sys.argv[1]) if len(sys.argv) > 1 and sys.argv[1] != "-" else None
    print(json.dumps(main(given, int(sys.argv[2]) if len(sys.argv) > 2 else 4)))
