"""The loss on the validation split, by the model as it stands between two steps; it changes nothing of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch.nn import functional

from jobs.backends.trl.control import from_first_rank
from jobs.backends.trl.trainers import Preferences, chosen_tokens
from jobs.encoding.tokens import IGNORED
from jobs.training.interface import WorkContext
from jobs.training.validation import Told, passes

if TYPE_CHECKING:
    from transformers import Trainer


class TrlValidation:
    """Called on every process; returns the mean over all learned tokens of ``rows``, of preferences the mean over the
    pairs of the loss that is trained (the part of ``sft_weight`` over the chosen tokens)."""

    def __init__(
        self, trainer: Trainer, rows: Sequence[dict[str, Any]], micro: int, pad: int, ctx: WorkContext
    ) -> None:
        self._trainer, self._rows, self._ctx = trainer, rows, ctx
        self._passes = list(passes(len(rows), ctx.rank, ctx.world, micro))
        self._pad, self._pairs = pad, Preferences(pad)
        self._is_pairs = "chosen_labels" in rows[0]
        self._chosen = sum(chosen_tokens(self._pairs([row])) for row in rows) if self._is_pairs else 0

    def __call__(self) -> float:
        model, device = self._trainer.model, self._trainer.args.device
        trained = model.training
        model.eval()
        told, total = Told(self._ctx, len(self._passes)), torch.zeros(2, dtype=torch.float64, device=device)
        with torch.no_grad(), self._trainer.compute_loss_context_manager():
            for number, (taken, counts) in enumerate(self._passes):
                rows = [self._rows[index] for index in taken]
                found = self._of_pairs(rows) if self._is_pairs else self._of_tokens(rows)
                if counts:
                    total += found
                told(number)
        model.train(trained)
        if dist.is_initialized():
            dist.all_reduce(total)
        loss, weight = from_first_rank(total.tolist())
        return float(loss / weight) if weight else float("nan")

    def _of_tokens(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        """Sum of the losses, and how many there are."""
        device = self._trainer.args.device
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), self._pad)
        labels, mask = torch.full_like(ids, IGNORED), torch.zeros_like(ids)
        for at, row in enumerate(rows):
            size = len(row["input_ids"])
            ids[at, :size], labels[at, :size] = torch.as_tensor(row["input_ids"]), torch.as_tensor(row["labels"])
            mask[at, :size] = 1
        model = self._trainer.model
        logits = model(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).logits[:, :-1]
        wanted = labels[:, 1:].to(device)
        losses = functional.cross_entropy(
            logits.flatten(0, 1).float(), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return torch.stack([losses.double().sum(), (wanted != IGNORED).sum().double()])

    def _of_pairs(self, rows: list[dict[str, Any]]) -> torch.Tensor:
        """Sum of the losses of pairs, and how many there are."""
        trainer, inputs = self._trainer, self._trainer._prepare_inputs(self._pairs(rows))
        with trainer.weighted(inputs, len(self._rows) / max(1, self._chosen) / len(rows)):
            loss = trainer.compute_loss(trainer.model, inputs)
        trainer._metrics["eval"].clear()
        return torch.stack(
            [loss.double() * len(rows), torch.tensor(len(rows), dtype=torch.float64, device=loss.device)]
        )
