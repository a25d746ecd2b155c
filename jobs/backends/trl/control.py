"""What sits inside the training loop: progress, the decision to stop, sealed saves.

The order of the hooks within one optimizer step of ``transformers.Trainer`` is: ``training_step`` (per micro batch),
``on_step_end``, ``on_log``, then, if a save was asked for, the save and ``on_save``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from jobs.backends.trl.beside import TrlBeside, several_writers
from jobs.backends.trl.settings import TrainSettings
from jobs.core.validation import LOSS
from jobs.training import measured, ranks
from jobs.training.interface import Diverged, WorkContext
from jobs.training.validation import Watch

if TYPE_CHECKING:
    from transformers import TrainerControl, TrainerState, TrainingArguments


MORE_METRICS = {
    "grad_norm": "grad_norm",
    "rewards/margins": "reward_margin",
    "rewards/accuracies": "reward_accuracy",
}
"""Metrics that are reported where the trainer logs them, by their names there. The last two are of DPO."""


def from_first_rank(value: Any) -> Any:
    """``value`` of rank 0, on every rank."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


class TrlStepControl(TrainerCallback):
    """Reports every optimizer step and answers, at its end, whether to save and whether to leave.

    Losses are the mean over ranks of what ``training_step`` returned, in full precision: the numbers that are compared
    when a run was interrupted. ``stopped`` is True when the loop was left on request. ``durations``: seconds of each
    step of this start, without its save. ``validate`` takes the validation loss.
    """

    def __init__(self, ctx: WorkContext, settings: TrainSettings, device: torch.device) -> None:
        self.watch = Watch(ctx, settings)
        self.validate: Callable[[], float] | None = None
        self.beside = TrlBeside() if settings.save_beside else None
        self._ctx = ctx
        self._settings = settings
        self._device = device
        self._loss = torch.zeros((), dtype=torch.float64, device=device)
        self._tokens = 0
        self._clock = time.monotonic()
        self._save_began = 0.0
        self._rate = 0.0
        self.stopped = False
        self.losses: list[float] = []
        self.durations: list[float] = []
        self.tokens = 0

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Inside, saves of torch.distributed.checkpoint are written by several threads, or copied and written
        beside the training."""
        with several_writers():
            if self.beside is None:
                yield
                return
            self._ctx.saves.wait()  # the one before may not be written yet
            with self.beside.copied():
                yield

    def add(self, loss: torch.Tensor, tokens: int) -> None:
        """One micro batch of this rank: its share of the step's loss and the tokens that went through the model."""
        self._loss += loss.detach().double()
        self._tokens += tokens

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._clock = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        step = state.global_step
        if self.watch.due(step) and self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the step's own work is not part of the time of a validation
        validated = self.watch.validated(step, self.validate)
        due = self._ctx.stop.save_due(step, self._settings.steps, self._settings.save_every)
        loss, tokens, stop, due = self._agree(self._ctx.stop.should_stop(), due)
        if not math.isfinite(loss):
            raise Diverged(f"the loss is {loss} at step {step}: lower lr, or look at the data of this step")
        now = time.monotonic()
        self.durations.append(now - self._clock - validated)
        self._rate = tokens / max(self.durations[-1], 1e-9)
        self._clock = now
        self.losses.append(loss)
        self.tokens += tokens
        control.should_log = True
        ends = self.watch.ends(step)
        self.stopped = stop and not ends  # at an end the finished model is written next, so a stop is of no use
        control.should_save = self.stopped or self.watch.saves(step, due)
        control.should_training_stop = stop or ends

    def _agree(self, stop: bool, due: bool) -> tuple[float, int, bool, bool]:
        """Mean loss and sum of tokens over the ranks, and whether any of them was told to stop, or finds a save due.

        One small all-reduce a step: ranks that stopped at different steps would wait for each other for ever.
        """
        facts = torch.stack([self._loss, *map(self._loss.new_tensor, (float(self._tokens), float(stop), float(due)))])
        world = 1
        if dist.is_initialized():
            dist.all_reduce(facts)
            world = dist.get_world_size()
        self._loss = torch.zeros_like(self._loss)
        self._tokens = 0
        loss, tokens, stops, dues = facts.tolist()
        return loss / world, int(tokens), stops > 0, dues > 0

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        self._save_began = time.monotonic()
        if logs is None or "learning_rate" not in logs:
            return  # the summary at the end of training
        metrics = {"loss": self.losses[-1], "lr": logs["learning_rate"], "tokens_per_second": self._rate}
        metrics |= measured.memory()
        metrics |= {ours: logs[theirs] for theirs, ours in MORE_METRICS.items() if theirs in logs}
        if (found := self._ctx.saves.validations.get(state.global_step)) is not None:
            metrics[LOSS] = found
        self._ctx.progress.report(state.global_step, self._settings.steps, "", **metrics)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        ranks.barrier()
        self.watch.seal_beside(state.global_step, not self.stopped, self.beside.write if self.beside else None)
        self._ctx.stop.saved(time.monotonic() - self._save_began)
        self._clock = time.monotonic()
