"""SFT and DPO of the trl back end beside the same training written out in plain torch: 20 steps, equal losses."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("trl")

import peft
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional

from jobs.backends.trl import adapters
from jobs.backends.trl.settings import TrainSettings
from jobs.encoding.settings import Encoding
from jobs.training import tokenizers
from jobs.training.models import load_model
from jobs.training.order import training_order
from tests.support import stages
from tests.support.learned import learned

pytestmark = pytest.mark.train

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
STEPS, WARMUP, BETA, CLIP = 20, 2, 0.3, 1.0
SETTINGS: dict[str, Any] = {
    "steps": STEPS, "lr": 1e-3, "batch_size": 4, "sequence_length": 256, "warmup_steps": WARMUP, "seed": 3, "threads": 1,
    "schedule": "linear", "weight_decay": 0.1, "max_grad_norm": CLIP,
}  # fmt: skip
KINDS = {"sft": "instructions", "dpo": "preferences"}


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a chat template, conversations of one to three turns, and preferences."""
    root = tmp_path_factory.mktemp("given")
    stages.make_model(root / "base/output")
    (root / "base/output/chat_template.jinja").write_text(TEMPLATE)
    texts = list(zip(stages.ENGLISH, stages.EUROPEAN, stages.BRAZILIAN, strict=True))
    rows: dict[str, list[dict[str, Any]]] = {"instructions": [], "preferences": []}
    for at in range(18):
        turns = [turn("system", "Translate.")] if at % 2 else []
        for english, european, _ in (texts[(at + number) % 8] for number in range(1 + at % 3)):
            turns += [turn("user", f"{english} {at}"), turn("assistant", european)]
        if at % 5 == 4:
            turns[1 if turns[0]["role"] == "user" else 2]["weight"] = 0
        rows["instructions"].append({"id": str(at), "messages": turns})
        english, european, brazilian = texts[at % 8]
        pair = {"chosen": [turn("assistant", european)], "rejected": [turn("assistant", brazilian)]}
        rows["preferences"].append({"id": str(at), "prompt": [*turns, turn("user", english)], **pair})
    rows["instructions"] = [
        row
        for row in rows["instructions"]
        if any(one.get("weight", 1) for one in row["messages"] if one["role"] == "assistant")
    ]
    for name, found in rows.items():
        output = root / name / "output"
        output.mkdir(parents=True)
        Encoding().write(output)
        (output / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return root


def in_order(kind: str, given: Path) -> list[dict[str, Any]]:
    """The rows of all steps, as the back end feeds them."""
    path = given / KINDS[kind] / "output/train.jsonl"
    tokenizer = tokenizers.load(given / "base/output")
    rows, lengths = learned(path, KINDS[kind], tokenizer, TrainSettings.read(SETTINGS))
    order = training_order(len(rows), SETTINGS["batch_size"], STEPS, SETTINGS["seed"], lengths)
    return [rows[index] for index in order]


def log_probabilities(model: Any, ids: Sequence[int], labels: Sequence[int]) -> torch.Tensor:
    """Those of the labels of one sequence, each given what stands before it."""
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
    wanted = torch.tensor(labels[1:])
    kept = wanted != -100
    return -functional.cross_entropy(logits[kept], wanted[kept], reduction="none")


def sft_loss(model: Any, reference: Any, batch: list[dict[str, Any]], weight: float) -> torch.Tensor:
    found = torch.cat([log_probabilities(model, row["input_ids"], row["labels"]) for row in batch])
    return -found.mean()


def dpo_loss(model: Any, reference: Any, batch: list[dict[str, Any]], weight: float) -> torch.Tensor:
    """``weight``: that of the chosen answers' own loss, the mean over all their tokens in the batch."""
    losses, chosen = [], []
    for row in batch:
        gains = []
        for name in ("chosen", "rejected"):
            ids, labels = row[f"{name}_input_ids"], row[f"{name}_labels"]
            with torch.no_grad():
                before = log_probabilities(reference, ids, labels).sum()
            found = log_probabilities(model, ids, labels)
            gains.append(found.sum() - before)
            if name == "chosen":
                chosen.append(found)
        losses.append(-functional.logsigmoid(BETA * (gains[0] - gains[1])))
    return torch.stack(losses).mean() - weight * torch.cat(chosen).mean()


class Magnitude(torch.nn.Parameter):
    """The sizes of a DoRA layer's rows, which decay although they are a vector."""


class Adapted(torch.nn.Module):
    """A frozen linear layer and its adapter, by the formulas of LoRA (section 4.1) and DoRA (equation 5, the norm being
    a constant of the backward pass: section 4.3)."""

    def __init__(self, frozen: torch.nn.Linear, inner: torch.Tensor, scale: float, dora: bool) -> None:
        super().__init__()
        self.frozen, self.scale, self.dora = frozen.requires_grad_(False), scale, dora
        self.inner = torch.nn.Parameter(inner.clone())
        self.outer = torch.nn.Parameter(torch.zeros(frozen.out_features, len(inner)))
        if dora:
            self.size = Magnitude(frozen.weight.norm(dim=1))

    def weight(self) -> torch.Tensor:
        found = self.frozen.weight + self.scale * self.outer @ self.inner
        return self.size[:, None] * found / found.norm(dim=1, keepdim=True).detach() if self.dora else found

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return functional.linear(given, self.weight())


ADAPTERS: dict[str, dict[str, Any]] = {
    "sft": {"lora_rank": 4, "lora_alpha": 8, "lora_rslora": True, "lora_dora": True},
    "dpo": {"lora_rank": 4, "lora_alpha": 8, "lora_targets": ["q_proj", "v_proj", "down_proj"], "beta": BETA},
}
ADAPTERS["dpo and the chosen answers' own loss"] = {**ADAPTERS["dpo"], "sft_weight": 0.7}


def written_out_adapters(name: str, given: Path) -> tuple[list[float], Any]:
    """The losses of plain torch, and the model; the numbers that adapters begin with are drawn as ``peft`` does."""
    settings = TrainSettings.read({**SETTINGS, **ADAPTERS[name]})
    model, reference = (load_model(given / "base/output") for _ in range(2))
    transformers.set_seed(SETTINGS["seed"])
    drawn = peft.get_peft_model(load_model(given / "base/output"), adapters.configured(settings, model))
    first = {name.split(".lora_A")[0].removeprefix("base_model.model."): weight
             for name, weight in drawn.named_parameters() if ".lora_A" in name}  # fmt: skip
    scale = 8 / (4**0.5 if settings.lora_rslora else 4)
    model.requires_grad_(False)
    for place, inner in first.items():
        made = Adapted(model.get_submodule(place), inner.detach(), scale, settings.lora_dora)
        model.set_submodule(place, made)
    assert len(first) == 2 * len(settings.lora_targets or "seven  ")
    return trained(name[:3], model, reference, given, settings.sft_weight), model


def written_out(kind: str, given: Path, weight: float) -> list[float]:
    """The losses of plain torch: AdamW, linear schedule, clipped gradients; norms do not decay."""
    torch.manual_seed(0)
    model, reference = (load_model(given / "base/output") for _ in range(2))
    return trained(kind, model, reference, given, weight)


def trained(kind: str, model: Any, reference: Any, given: Path, weight: float) -> list[float]:
    """The losses of ``model``'s trainable weights."""
    learns = [weight for weight in model.parameters() if weight.requires_grad]
    decays = [weight for weight in learns if weight.ndim > 1 or isinstance(weight, Magnitude)]
    others = [weight for weight in learns if not any(weight is other for other in decays)]
    groups = [{"params": decays, "weight_decay": SETTINGS["weight_decay"]}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=SETTINGS["lr"])
    rows, losses = in_order(kind, given), []
    for step in range(STEPS):
        share = step / WARMUP if step < WARMUP else (STEPS - step) / (STEPS - WARMUP)
        for group in optimizer.param_groups:
            group["lr"] = SETTINGS["lr"] * share
        size = SETTINGS["batch_size"]
        batch = rows[step * size : (step + 1) * size]
        loss = {"sft": sft_loss, "dpo": dpo_loss}[kind](model, reference, batch, weight)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(("kind", "weight"), [("sft", 0.0), ("dpo", 0.0), ("dpo", 0.7)])
def test_losses_are_those_of_plain_torch(kind: str, weight: float, given: Path, tmp_path: Path) -> None:
    wanted = written_out(kind, given, weight)
    assert wanted[-1] < wanted[0]
    more = {"beta": BETA, "sft_weight": weight} if kind == "dpo" else {}
    inputs = {"checkpoint": given / "base", "data": given / KINDS[kind]}
    for micro in (4, 1):
        stage = stages.stage(
            tmp_path / f"micro{micro}", kind, "trl", {**SETTINGS, **more, "micro_batch_size": micro}, inputs
        )
        stage.start()
        assert list(stage.losses().values()) == pytest.approx(wanted, rel=1e-6), micro
    two = stages.stage(tmp_path / "two", kind, "trl", {**SETTINGS, **more, "micro_batch_size": 1}, inputs)
    stages.start_ranks(2, (two, None))
    assert list(two.losses().values()) == pytest.approx(wanted, rel=1e-6)


def test_adapters_learn_what_plain_torch_does(given: Path, tmp_path: Path) -> None:
    """LoRA and DoRA with rank-stabilised scale; the reference of DPO is the model without them. The finished model has
    them added to its weights."""
    starts = []
    for name, more in ADAPTERS.items():
        kind = name[:3]
        inputs = {"checkpoint": given / "base", "data": given / KINDS[kind]}
        settings = {**SETTINGS, **more, "micro_batch_size": 1}
        places = [tmp_path / f"{len(starts)}-{world}" for world in (1, 2)]
        starts.append([stages.stage(place, kind, "trl", settings, inputs) for place in places])
    stages.start_ranks(2, *((two, None) for _, two in starts))
    for case, (one, two) in zip(ADAPTERS, starts, strict=True):
        one.start()
        wanted, model = written_out_adapters(case, given)
        assert wanted[-1] < 0.99 * wanted[0]
        for made in (one, two):
            assert list(made.losses().values()) == pytest.approx(wanted, rel=1e-6), (case, made.spec.stage)
            found = load_file(made.output / "model.safetensors")
            for name, part in model.named_modules():
                if isinstance(part, Adapted):
                    torch.testing.assert_close(found[f"{name}.weight"], part.weight().detach(), rtol=1e-5, atol=1e-6)
