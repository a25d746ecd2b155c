"""Validation of AutoModel on the CPU, beside the loss of the finished model written out in plain torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.core.settings import EarlyStopping
from jobs.core.validation import best_step, stop_step
from tests.support import environments, stages
from tests.support.environments import Starts

TRAINING: dict[str, Any] = {
    "steps": 4, "lr": 1e-3, "batch_size": 4, "sequence_length": 64, "micro_batch_size": 2, "seed": 3, "validate_every": 3,
}  # fmt: skip


BEST: dict[str, Any] = {
    "steps": 8, "lr": 0.1, "validate_every": 1, "early_stopping": {"patience": 2, "min_change": 100.0, "min_steps": 3},
    "select": "best", "keep_saves": 1,
}  # fmt: skip
EARLY = ("early", "early-cut", "early-two")


@pytest.mark.nvidia
def test_the_loss_is_that_of_plain_torch(tmp_path: Path, base: Path) -> None:
    """On one process and on two; training is the same to the last bit without it, and a resumed run goes on in it."""
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file
    from torch.nn import functional

    from jobs.training import tokenizers
    from jobs.training.models import load_model

    venv = environments.installed("automodel", "nemo_automodel")
    python = environments.on_cpu(venv, tmp_path / "venv") / "bin/python"
    stages.make_data(tmp_path)
    rows = [
        {"id": str(at), "prompt": f"Say {stages.ENGLISH[at]}\n", "completion": " ".join(stages.BRAZILIAN[: 1 + at % 3])}
        for at in range(5)
    ]
    stages.write_rows(tmp_path / "instructions/output/validation.jsonl", rows)
    inputs = {"checkpoint": base, "data": tmp_path / "instructions"}
    made = {
        name: stages.stage(tmp_path / name, "sft", "automodel", {**TRAINING, **more}, inputs)
        for name, more in {"one": {}, "two": {}, "cut": {}, "plain": {"validate_every": None}}.items()
    }
    for name in EARLY:
        made[name] = stages.stage(tmp_path / name, "sft", "automodel", {**TRAINING, **BEST}, inputs)
    for name, decay in (("decays", 0.5), ("stays", 0.0)):
        settings = {**TRAINING, "steps": 1, "validate_every": None, "weight_decay": decay}
        made[name] = stages.stage(tmp_path / name, "sft", "automodel", settings, inputs)
    starts = Starts(tmp_path)
    for name, ranks, stop in (
        ("one", 1, 0), ("two", 2, 0), ("cut", 1, 3), ("cut", 1, 0), ("plain", 1, 0),
        ("early", 1, 0), ("early-cut", 1, 2), ("early-cut", 1, 0), ("early-two", 2, 1), ("early-two", 2, 0),
        ("decays", 1, 0), ("stays", 1, 0),
    ):  # fmt: skip
        starts.add(made[name], ranks=ranks, stop_after=stop)
    results = starts.run(python, STARTS_IMPORT="nemo_automodel.recipes.llm.train_ft")

    def validated(name: str) -> dict[int, float]:
        found = made[name].reports()
        return {one.step: one.metrics["validation_loss"] for one in found if "validation_loss" in one.metrics}

    def written_out(name: str) -> float:
        output = made[name].output
        model, tokenizer = load_model(output), tokenizers.load(output)
        found = []
        for row in rows:
            prompt, whole = (
                tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["completion"])
            )
            ids = torch.tensor([*whole, tokenizer.eos_token_id])
            with torch.no_grad():
                logits = model(input_ids=ids[None, :-1]).logits[0]
            found.append(functional.cross_entropy(logits, ids[1:], reduction="none")[len(prompt) - 1 :].double())
        return float(torch.cat(found).mean())

    for name in ("one", "two"):
        assert list(validated(name)) == [3, 4]
        assert validated(name)[4] == pytest.approx(written_out(name), rel=1e-6), name
    assert made["plain"].losses() == made["one"].losses()
    assert validated("cut") == validated("one")
    assert results[3]["metrics"]["validation_loss"] == validated("one")[4]
    assert results[3]["metrics"]["best_validation_loss"] == min(validated("one").values())
    save = made["cut"].spec.store_paths.save(3)
    assert json.loads((save / "validations.json").read_text()) == [[3, validated("one")[3]]]

    # the same end however often it was stopped, and the model of the best validation
    assert [results[at]["outcome"] for at in (6, 8)] == ["stopped", "stopped"]
    for name, result in zip(EARLY, (results[5], results[7], results[9]), strict=True):
        losses = validated(name)
        wanted, best = stop_step(losses, EarlyStopping(**BEST["early_stopping"])), best_step(losses)
        assert (result["outcome"], result["step"], wanted) == ("done", 3, 3)
        assert result["metrics"]["stopped_early"]["step"] == 3
        assert result["metrics"]["selected_step"] == best
        assert best in (1, 2)  # else nobody sees whether the save was read
        assert written_out(name) == pytest.approx(losses[best], rel=1e-6)
    assert validated("early-cut") == validated("early")

    # as in transformers norms do not decay: after one step they are those without decay, and all others are not
    decayed, stayed = (load_file(next(made[name].output.glob("*.safetensors"))) for name in ("decays", "stays"))
    equal = {name for name, weight in decayed.items() if torch.equal(weight, stayed[name])}
    assert equal == {name for name in decayed if "norm" in name}
