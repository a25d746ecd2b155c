"""What the trl back end computes, against plain torch: losses of SFT and DPO, batches, epochs, micro-batches, processes."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

from jobs.backends.trl import train  # noqa: E402
from jobs.backends.trl.settings import LOSSES, SMOOTHED  # noqa: E402
from jobs.training import tokenizers  # noqa: E402
from jobs.training.examples import ExamplesError  # noqa: E402
from jobs.training.models import load_model  # noqa: E402
from jobs.training.order import training_order  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402
from tests.support import stages  # noqa: E402
from tests.support.stages import Stage  # noqa: E402

pytestmark = pytest.mark.train

SETTINGS: dict[str, Any] = {
    "steps": 10, "lr": 1e-3, "batch_size": 8, "micro_batch_size": 2, "sequence_length": 64, "warmup_steps": 3, "seed": 3,
    "threads": 1, "weight_decay": 0.1, "max_grad_norm": 1.0,
}  # fmt: skip
WORDS = stages.ENGLISH + stages.EUROPEAN + stages.BRAZILIAN


@pytest.fixture(scope="module")
def uneven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Instructions and preferences whose answers are of very different lengths."""
    root = tmp_path_factory.mktemp("uneven")
    rows: dict[str, list[dict[str, str]]] = {"instructions": [], "preferences": []}
    for index in range(21):
        prompt = f"Translate: {stages.ENGLISH[index % 8]} {index}\n"
        chosen = " ".join(WORDS[(index * step) % len(WORDS)] for step in range(1, 2 + index % 5))
        rows["instructions"].append({"prompt": prompt, "completion": chosen})
        rows["preferences"].append({"prompt": prompt, "chosen": chosen, "rejected": WORDS[(index * 5) % len(WORDS)]})
    for name, found in rows.items():
        stages.write_rows(root / name / "output" / "train.jsonl", found)
    return root


def make(root: Path, kind: str, base: Path, data: Path, **changes: Any) -> Stage:
    settings = {name: value for name, value in {**SETTINGS, **changes}.items() if value is not None}
    return stages.stage(root, kind, "trl", settings, {"checkpoint": base, "data": data / stages.DATA[kind]})


def of_pair(name: str, won: Any, lost: Any, beta: float, smoothing: float, lengths: tuple[int, int]) -> Any:
    """The loss of a pair by what the model gains on each answer over the model before, each loss as its paper has it.
    IPO takes the mean over the ``lengths`` of the answers, as its authors do."""
    log_sigmoid, sigmoid = torch.nn.functional.logsigmoid, torch.sigmoid
    margin = beta * (won - lost)
    by_kl = [sigmoid(side) * (log_sigmoid(side) - math.log(share or 1)) for side, share in
             ((margin, 1 - smoothing), (-margin, smoothing))]  # fmt: skip
    clean, flipped = -log_sigmoid(margin), -log_sigmoid(-margin)
    return {
        "sigmoid": clean,
        "ipo": (won / lengths[0] - lost / lengths[1] - 1 / (2 * beta)) ** 2,
        "robust": ((1 - smoothing) * clean - smoothing * flipped) / (1 - 2 * smoothing),
        "hinge": torch.relu(1 - margin),
        "exo_pair": sum(by_kl),
        "nca_pair": -log_sigmoid(beta * won) - 0.5 * log_sigmoid(-beta * won) - 0.5 * log_sigmoid(-beta * lost),
        "apo_zero": 1 - sigmoid(beta * won) + sigmoid(beta * lost),
        "apo_down": sigmoid(beta * won) + 1 - sigmoid(margin),
        "sppo_hard": (won - 0.5 / beta) ** 2 + (lost + 0.5 / beta) ** 2,
    }[name]


class Reference:
    """The same training, written out: one batch at a time, each row alone, in plain torch."""

    def __init__(
        self, base: Path, data: Path, kind: str, beta: float = 0.1, sft_weight: float = 0.0,
        loss: str = "sigmoid", label_smoothing: float = 0.0,
    ) -> None:  # fmt: skip
        self.tokenizer = tokenizers.load(base / "output")
        self.model, self.before = load_model(base / "output"), load_model(base / "output")
        lines = (data / stages.DATA[kind] / "output" / "train.jsonl").read_text().splitlines()
        self.rows = [json.loads(line) for line in lines]
        self.kind, self.beta, self.sft_weight = kind, beta, sft_weight
        self.loss_type, self.smoothing = loss, label_smoothing

    def log_probabilities(self, model: Any, prompt: str, answer: str) -> Any:
        """Of each id of the answer and of the end token."""
        first = len(self.tokenizer(prompt)["input_ids"])
        ids = torch.tensor([[*self.tokenizer(prompt + answer)["input_ids"], self.tokenizer.eos_token_id]])
        every = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        return every[torch.arange(first - 1, ids.shape[1] - 1), ids[0, first:]]

    def loss(self, rows: list[dict[str, str]]) -> Any:
        if self.kind == "sft":
            return -torch.cat([self.log_probabilities(self.model, r["prompt"], r["completion"]) for r in rows]).mean()
        losses, chosen = [], []
        for row in rows:
            won, lost = (
                self.log_probabilities(self.model, row["prompt"], row[name]) for name in ("chosen", "rejected")
            )
            with torch.no_grad():
                before = [
                    self.log_probabilities(self.before, row["prompt"], row[name]).sum()
                    for name in ("chosen", "rejected")
                ]
            gains, lengths = (won.sum() - before[0], lost.sum() - before[1]), (len(won), len(lost))
            losses.append(of_pair(self.loss_type, *gains, self.beta, self.smoothing, lengths))
            chosen.append(won)
        return torch.stack(losses).mean() - self.sft_weight * torch.cat(chosen).mean()

    def train(self, lengths: list[int]) -> list[float]:
        decayed, rest = [], []
        for _, parameter in self.model.named_parameters():
            (decayed if parameter.ndim > 1 else rest).append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": SETTINGS["weight_decay"]}, {"params": rest, "weight_decay": 0.0}],
            lr=SETTINGS["lr"],
        )
        steps, warm, batch = SETTINGS["steps"], SETTINGS["warmup_steps"], SETTINGS["batch_size"]
        order = training_order(len(self.rows), batch, steps, SETTINGS["seed"], lengths)
        found = []
        for step in range(steps):
            done = (step - warm) / (steps - warm)
            factor = step / warm if step < warm else 0.5 * (1 + math.cos(math.pi * done))
            for group in optimizer.param_groups:
                group["lr"] = SETTINGS["lr"] * factor
            loss = self.loss([self.rows[index] for index in order[step * batch : (step + 1) * batch]])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), SETTINGS["max_grad_norm"])
            optimizer.step()
            found.append(loss.item())
        return found

    def lengths(self) -> list[int]:
        answers = {"sft": ("completion",), "dpo": ("chosen", "rejected")}[self.kind]
        return [
            max(len(self.tokenizer(row["prompt"] + row[name])["input_ids"]) + 1 for name in answers)
            for row in self.rows
        ]


@pytest.mark.parametrize(("kind", "more"), [("sft", {}), ("dpo", {}), ("dpo", {"sft_weight": 0.7})])
def test_losses_are_those_of_plain_torch_whatever_the_micro_batch(
    kind: str, more: dict[str, float], tmp_path: Path, base: Path, uneven: Path
) -> None:
    reference = Reference(base, uneven, kind, **more)
    expected = reference.train(reference.lengths())
    for micro in (8, 1):  # two processes take 2
        stage = make(tmp_path / str(micro), kind, base, uneven, micro_batch_size=micro, **more)
        stage.start()
        assert list(stage.losses().values()) == pytest.approx(expected, rel=1e-6), micro


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "sigmoid"])
def test_each_loss_of_preferences_is_that_of_its_paper(name: str, tmp_path: Path, base: Path, uneven: Path) -> None:
    """Over all steps: before anything is learned most of them are a number that says little."""
    more = {"loss": name, "beta": 0.3, "label_smoothing": 0.1 if name in SMOOTHED else 0.0}
    reference = Reference(base, uneven, "dpo", **more)  # type: ignore[arg-type]
    expected = reference.train(reference.lengths())
    stage = make(tmp_path / "stage", "dpo", base, uneven, micro_batch_size=2, **more)
    stage.start()
    assert list(stage.losses().values()) == pytest.approx(expected, rel=1e-5)


def test_two_processes_compute_the_losses_of_one(tmp_path: Path, base: Path, uneven: Path) -> None:
    two = [
        make(tmp_path / f"two-{kind}", kind, base, uneven, **more)
        for kind, more in (("sft", {}), ("dpo", {"sft_weight": 0.7}))
    ]
    stages.start_ranks(2, *((stage, None) for stage in two))
    for stage in two:
        one = make(tmp_path / f"one-{stage.spec.kind}", stage.spec.kind, base, uneven, **dict(stage.spec.settings))
        one.start()
        assert list(stage.losses().values()) == pytest.approx(list(one.losses().values()), rel=1e-6)


def seen(monkeypatch: pytest.MonkeyPatch, stage: Stage) -> list[tuple[int, ...]]:
    """The rows of every pass of a stage, as ids (of preferences the first half: the chosen answers)."""
    passes: list[list[tuple[int, ...]]] = []
    watched = train.watched

    def recording(base: Any, *rest: Any) -> Any:
        class Recording(watched(base, *rest)):  # type: ignore[misc]
            def training_step(self, model: Any, inputs: dict[str, Any], *more: Any, **others: Any) -> Any:
                ids = inputs["input_ids"]
                half = len(ids) // 2 if "completion_mask" in inputs else len(ids)
                mask = inputs.get("attention_mask", torch.ones_like(ids))
                passes.append([tuple(row[keep.bool()].tolist()) for row, keep in zip(ids[:half], mask, strict=False)])
                return super().training_step(model, inputs, *more, **others)

        return Recording

    monkeypatch.setattr(train, "watched", recording)
    stage.start()
    return [row for rows in passes for row in rows]


@pytest.mark.parametrize("kind", ["cpt", "sft", "dpo"])
def test_an_epoch_takes_every_row_once_and_a_batch_none_twice(
    kind: str, tmp_path: Path, base: Path, data: Path, uneven: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = {"steps": None, "epochs": 2, "sequence_length": 32 if kind == "cpt" else 64, "warmup_steps": 1}
    stage = make(tmp_path / "stage", kind, base, data if kind == "cpt" else uneven, **changes)
    rows = seen(monkeypatch, stage)
    (told,) = [event for event in stage.events if event["event"] == "order"]
    count = told["examples"]
    assert len(set(rows)) == count  # the rows differ from each other
    assert Counter(rows[:count]) == Counter(rows[count : 2 * count]) == Counter(set(rows))
    assert all(len(set(rows[at : at + 8])) == 8 for at in range(0, len(rows), 8))
    assert told["steps"] == math.ceil(2 * count / 8) == len(stage.reports())
    assert told["in_unfinished_epoch"] == len(rows) - 2 * count == told["steps"] * 8 - 2 * count
    assert stage.reports()[-1].total == told["steps"]


def test_resumes_inside_the_second_epoch(tmp_path: Path, base: Path, uneven: Path) -> None:
    changes = {"steps": None, "epochs": 2, "warmup_steps": 1}
    whole = make(tmp_path / "whole", "sft", base, uneven, **changes)
    whole.start()
    parts = make(tmp_path / "parts", "sft", base, uneven, **changes)
    assert parts.start(stop_after=4).step == 4
    assert parts.start().outcome == "done"
    assert parts.losses() == whole.losses()


def test_steps_and_epochs_are_checked(tmp_path: Path, base: Path, uneven: Path) -> None:
    for changes, kind, text in (
        ({"epochs": 1}, BadSettings, "steps 10 and epochs 1 say the same thing twice"),
        ({"steps": None}, BadSettings, "'steps' is missing"),
        ({"steps": None, "epochs": 0}, BadSettings, "epochs must be above 0"),
        (
            {"steps": None, "epochs": 1, "warmup_steps": 9},
            BadSettings,
            r"warmup_steps 9 is more than steps 3 \(epochs 1 of",
        ),
        ({"batch_size": 22}, ExamplesError, r"train\.jsonl:1: 21 examples to train on, batch_size is 22"),
    ):
        with pytest.raises(kind, match=text):
            make(tmp_path / "bad", "sft", base, uneven, **changes).start()
