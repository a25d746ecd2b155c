"""Validation of the real NeMo, on the CPU, beside the loss of transformers over the exported model; and what follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from jobs.core.settings import EarlyStopping
from jobs.core.validation import best_step, stop_step
from tests.jobs.backends.nemo.test_parallel import TRAINING, Runs
from tests.support import stages

LENGTH = TRAINING["sequence_length"]
EARLY = {"patience": 1, "min_change": 100.0, "min_steps": 3}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, base: Path, nemo: Path) -> Runs:
    root = tmp_path_factory.mktemp("runs")
    stages.make_data(root / "data")
    rows: dict[str, list[dict[str, str]]] = {"corpus": [], "instructions": []}
    for at in range(5):
        answer = " ".join(stages.BRAZILIAN[: 1 + at % 3])
        rows["corpus"].append({"id": str(at), "text": f"{stages.ENGLISH[at]} {answer} {at}"})
        rows["instructions"].append({"id": str(at), "prompt": f"Say {stages.ENGLISH[at]}\n", "completion": answer})
    for name, found in rows.items():
        stages.write_rows(root / "data" / name / "output/validation.jsonl", found)
    made = Runs(root, root / "data", base)
    made.train("plain")
    made.train("cpt", validate_every=2)
    made.train("sft", "sft", validate_every=3)
    made.train("replicas", "sft", ranks=2, validate_every=2)
    made.train("pipeline", ranks=2, pipeline_parallel=2, validate_every=4)
    best = {"validate_every": 1, "early_stopping": EARLY, "select": "best", "keep_saves": 1, "steps": 8, "lr": 0.3}
    made.train("early", "sft", **best)
    made.train("early-cut", "sft", stop=1, **best)
    adapters = {**best, "lora_rank": 4, "lr": 5.0, "early_stopping": {**EARLY, "patience": 2}}
    made.train("adapters", "sft", **adapters)
    made.train("adapters-cut", "sft", stop=1, **adapters)
    for name in ("cpt", "sft", "replicas", "pipeline", "early", "early-cut", "adapters", "adapters-cut"):
        made.export(name)
    return made.run(nemo)


def validated(runs: Runs, name: str) -> dict[int, float]:
    runs.of(name)
    found = runs.stages[name].reports()
    return {one.step: one.metrics["validation_loss"] for one in found if "validation_loss" in one.metrics}


def written_out(runs: Runs, name: str) -> float:
    """The loss of the exported model over the whole split, by transformers."""
    import numpy
    import torch
    from torch.nn import functional

    from jobs.training import tokenizers
    from jobs.training.models import load_model

    output = runs.output(f"{name}-hf")
    model, tokenizer = load_model(output), tokenizers.load(output)
    kind = runs.stages[name].spec.kind
    given = runs.data / {"cpt": "corpus", "sft": "instructions"}[kind] / "output/validation.jsonl"
    rows = [json.loads(line) for line in given.read_text().splitlines()]
    if kind == "cpt":
        documents = [[*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id] for row in rows]
        order = numpy.arange(len(documents), dtype=numpy.uint32)
        numpy.random.Generator(numpy.random.PCG64(TRAINING["seed"])).shuffle(order)
        stream = [one for at in order for one in documents[at]]
        assert (len(stream) - 1) % LENGTH  # the rest counts, too
        pieces = [(stream[at : at + LENGTH + 1], 1) for at in range(0, len(stream) - 1, LENGTH)]
    else:
        pieces = []
        for row in rows:
            prompt, whole = (
                tokenizer(text)["input_ids"] for text in (row["prompt"], row["prompt"] + row["completion"])
            )
            pieces.append(([*whole, tokenizer.eos_token_id], len(prompt)))
    found = []
    for ids, start in pieces:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([ids[:-1]])).logits[0]
        found.append(functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")[start - 1 :].double())
    return float(torch.cat(found).mean())


@pytest.mark.parametrize(("name", "steps"), [("cpt", [2, 4]), ("sft", [3, 4]), ("replicas", [2, 4]), ("pipeline", [4])])
def test_the_loss_is_that_of_transformers(runs: Runs, name: str, steps: list[int]) -> None:
    """On one process and on two, as replicas and as stages of a pipeline."""
    found = validated(runs, name)
    assert list(found) == steps
    assert found[4] == pytest.approx(written_out(runs, name), rel=1e-6)
    (result,) = runs.of(name)
    assert result["metrics"]["validation_loss"] == found[4]
    assert result["metrics"]["best_step"] == best_step(found)


def test_training_is_the_same_to_the_last_bit(runs: Runs) -> None:
    assert runs.losses("cpt") == runs.losses("plain")


@pytest.mark.parametrize("kind", ["early", "adapters"])
def test_an_early_end_is_the_same_after_a_stop_and_the_best_save_is_taken(runs: Runs, kind: str) -> None:
    """Of whole weights, and of adapters, which are merged into the weights of the stage's input then."""
    whole, (stopped, again) = runs.of(kind)[0], runs.of(f"{kind}-cut")
    found = validated(runs, kind)
    wanted = stop_step(found, EarlyStopping(**runs.stages[kind].spec.settings["early_stopping"]))
    assert wanted == 3
    assert stopped["outcome"] == "stopped"
    for name, result in ((kind, whole), (f"{kind}-cut", again)):
        assert (result["outcome"], result["step"]) == ("done", wanted)
        assert result["metrics"]["stopped_early"]["step"] == wanted
        assert validated(runs, name) == found
        best = best_step(found)
        assert result["metrics"]["selected_step"] == best
        assert written_out(runs, name) == pytest.approx(found[best], rel=1e-6)


@pytest.mark.parametrize("kind", ["early", "adapters"])
def test_the_choice_is_one_of_an_earlier_step(runs: Runs, kind: str) -> None:
    """Else the test above would not see whether the save was read."""
    found: dict[int, Any] = validated(runs, kind)
    assert best_step(found) in (1, 2)
