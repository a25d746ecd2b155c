"""Validation of the trl back end beside the same loss written out in plain torch, and what follows from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import torch
from safetensors.torch import load_file
from torch.nn import functional

from jobs.core.settings import EarlyStopping
from jobs.core.validation import best_step, stop_step
from jobs.training import tokenizers
from jobs.training.models import load_model
from tests.support import stages
from tests.support.stages import Stage

pytestmark = pytest.mark.train

LENGTH, BETA, SFT_WEIGHT = 48, 0.3, 0.5
SETTINGS: dict[str, Any] = {
    "steps": 6, "lr": 3e-3, "batch_size": 4, "micro_batch_size": 2, "sequence_length": LENGTH, "seed": 3, "threads": 1,
    "validate_every": 3, "schedule": "constant",
}  # fmt: skip
MORE: dict[str, dict[str, Any]] = {"cpt": {}, "sft": {}, "dpo": {"beta": BETA, "sft_weight": SFT_WEIGHT}}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and data whose validation splits have 7 rows of unequal lengths."""
    root = tmp_path_factory.mktemp("given")
    stages.make_model(root / "base/output")
    stages.make_data(root)
    rows: dict[str, list[dict[str, str]]] = {name: [] for name in stages.DATA.values()}
    for at in range(7):
        chosen, rejected = " ".join(stages.BRAZILIAN[: 1 + at % 4]), " ".join(stages.ENGLISH[at % 3 : 3])
        prompt = f"Say {stages.ENGLISH[at]}\n"
        rows["corpus"].append({"id": str(at), "text": f"{prompt}{chosen} {at}"})
        rows["instructions"].append({"id": str(at), "prompt": prompt, "completion": chosen})
        rows["preferences"].append({"id": str(at), "prompt": prompt, "chosen": chosen, "rejected": rejected})
    for name, found in rows.items():
        stages.write_rows(root / name / "output/validation.jsonl", found)
    return root


def make(root: Path, kind: str, given: Path, **changes: Any) -> Stage:
    inputs = {"checkpoint": given / "base", "data": given / stages.DATA[kind]}
    settings = {**SETTINGS, **MORE[kind], **changes}
    return stages.stage(root, kind, "trl", settings, inputs, {"data": stages.DATA[kind]})


def validated(stage: Stage) -> dict[int, float]:
    return {one.step: one.metrics["validation_loss"] for one in stage.reports() if "validation_loss" in one.metrics}


def rows_of(kind: str, given: Path) -> list[dict[str, str]]:
    import json

    path = given / stages.DATA[kind] / "output/validation.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


@torch.no_grad()
def losses(model: Any, ids: list[int], start: int) -> torch.Tensor:
    """Of the tokens from ``start`` on, each given all before it."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    found = functional.cross_entropy(logits, torch.tensor(ids[1:]), reduction="none")
    return found[start - 1 :].double()


def written_out(kind: str, given: Path, output: Path) -> float:
    """The loss of the finished model over the whole split, by the texts as they are."""
    model, before, tokenizer = load_model(output), load_model(given / "base/output"), tokenizers.load(output)
    model.eval(), before.eval()

    def ids(prompt: str, answer: str) -> tuple[list[int], int]:
        whole = tokenizer(prompt + answer)["input_ids"]
        start = len(tokenizer(prompt)["input_ids"])
        assert tokenizer(prompt)["input_ids"] == whole[:start]
        return [*whole, tokenizer.eos_token_id], start

    rows = rows_of(kind, given)
    if kind == "cpt":
        import numpy

        documents = [[*tokenizer(row["text"])["input_ids"], tokenizer.eos_token_id] for row in rows]
        order = numpy.arange(len(documents), dtype=numpy.uint32)
        numpy.random.Generator(numpy.random.PCG64(SETTINGS["seed"])).shuffle(order)
        stream = [one for at in order for one in documents[at]]
        assert len(stream) % LENGTH not in (0, 1)  # the rest counts, too
        found = [losses(model, stream[at : at + LENGTH], 1) for at in range(0, len(stream), LENGTH)]
        return float(torch.cat(found).mean())
    if kind == "sft":
        return float(torch.cat([losses(model, *ids(row["prompt"], row["completion"])) for row in rows]).mean())
    margins, chosen = [], []
    for row in rows:
        gains = []
        for name in ("chosen", "rejected"):
            pair = ids(row["prompt"], row[name])
            gains.append(losses(before, *pair).sum() - losses(model, *pair).sum())
        chosen.append(losses(model, *ids(row["prompt"], row["chosen"])))
        margins.append(-functional.logsigmoid(BETA * (gains[0] - gains[1])))
    return float(torch.stack(margins).mean() + SFT_WEIGHT * torch.cat(chosen).mean())


def test_the_loss_is_that_of_plain_torch(given: Path, tmp_path: Path) -> None:
    """On one process and on two, also with shards; training is the same to the last bit as without validation."""
    one = {kind: make(tmp_path / kind, kind, given) for kind in stages.DATA}
    two = {kind: make(tmp_path / f"two-{kind}", kind, given, micro_batch_size=1) for kind in stages.DATA}
    shards = make(tmp_path / "shards", "sft", given, shard="full")
    stages.start_ranks(2, *((stage, None) for stage in two.values()), (shards, None))
    for kind, stage in one.items():
        result = stage.start()
        wanted = written_out(kind, given, stage.output)
        found = validated(stage)
        assert list(found) == [3, 6]
        assert found[6] == pytest.approx(wanted, rel=1e-6), kind
        assert result.metrics["validation_loss"] == found[6]
        assert result.metrics["best_step"] == best_step(found)
        assert validated(two[kind])[6] == pytest.approx(written_out(kind, given, two[kind].output), rel=1e-6), kind
        assert validated(two[kind])[3] == pytest.approx(found[3], rel=1e-5)
        without = make(tmp_path / f"without-{kind}", kind, given, validate_every=None)
        without.start()
        assert without.losses() == stage.losses()
        assert (without.output / "model.safetensors").read_bytes() == (stage.output / "model.safetensors").read_bytes()
    assert validated(shards)[6] == pytest.approx(written_out("sft", given, shards.output), rel=1e-6)


EARLY = {"patience": 2, "min_change": 0.05, "min_steps": 4}


@pytest.mark.parametrize("more", [{}, {"lora_rank": 4, "lr": 0.3}], ids=["whole", "adapters"])
def test_a_run_that_is_stopped_at_every_save_ends_at_the_same_step_with_the_same_model(
    given: Path, tmp_path: Path, more: dict[str, Any]
) -> None:
    changes = {
        "steps": 24,
        "validate_every": 1,
        "early_stopping": EARLY,
        "select": "best",
        "keep_saves": 1,
        "lr": 2e-2,
    } | more
    whole = make(tmp_path / "whole", "sft", given, **changes)
    result = whole.start()
    wanted = stop_step(validated(whole), EarlyStopping(**EARLY))
    assert wanted is not None
    assert 4 <= wanted < 24
    assert result.step == result.metrics["stopped_early"]["step"] == wanted
    best = best_step(validated(whole))
    assert result.metrics["selected_step"] == best < wanted
    weights = load_file(whole.output / "model.safetensors")

    parts = make(tmp_path / "parts", "sft", given, **changes)
    starts = 1
    while (again := parts.start(stop_after=1)).outcome == "stopped":
        starts += 1
        newest = max(parts.spec.store_paths.save_steps())
        assert set(parts.spec.store_paths.save_steps()) == {newest, best_step(validated(parts))}
    assert starts == wanted == again.step
    names = ("stopped_early", "selected_step", "best_step", "validation_loss", "best_validation_loss")
    assert {name: again.metrics[name] for name in names} == {name: result.metrics[name] for name in names}
    assert validated(parts) == validated(whole)
    found = load_file(parts.output / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())

    until = make(
        tmp_path / "until", "sft", given, **{**changes, "steps": best, "select": "last", "early_stopping": None}
    )
    until.start()
    found = load_file(until.output / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())


def test_the_best_of_shards_is_taken_on_two_processes(given: Path, tmp_path: Path) -> None:
    changes = {"steps": 8, "validate_every": 1, "select": "best", "keep_saves": 1, "lr": 2e-2, "micro_batch_size": 1}
    shards, whole = (make(tmp_path / name, "sft", given, shard=name, **changes) for name in ("full", "none"))
    stages.start_ranks(2, (shards, 7), (whole, None))
    stages.start_ranks(2, (shards, None))
    best = best_step(validated(shards))
    assert best == best_step(validated(whole))
    assert best not in (None, 7, 8)
    for stage in (shards, whole):
        assert written_out("sft", given, stage.output) == pytest.approx(validated(stage)[best], rel=1e-6)
    assert math.isfinite(validated(shards)[8])
