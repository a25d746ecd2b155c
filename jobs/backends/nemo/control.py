"""What sits inside NeMo's training loop: progress, the decision to stop, sealed saves, the finished checkpoint.

In NeMo one Lightning batch is one global batch, so ``on_train_batch_end`` is the boundary of an optimizer step.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.callbacks import Callback
from nemo.lightning.io.pl import TrainerContext
from nemo.lightning.pytorch.optim.base import LRSchedulerModule

from jobs.backends.nemo import layout, lora
from jobs.backends.nemo.settings import NemoSettings
from jobs.core.validation import LOSS
from jobs.training import measured, ranks, tokenizers
from jobs.training.interface import Diverged, WorkContext
from jobs.training.schedule import learning_rate_factor
from jobs.training.validation import Watch

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

    from jobs.backends.nemo.beside import NemoBeside


class Schedule(LRSchedulerModule):
    """The learning rate of ``learning_rate_factor`` on Megatron's optimizer."""

    def __init__(self, settings: NemoSettings) -> None:
        super().__init__()
        self._settings = settings

    def scheduler(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """What Lightning's ``configure_optimizers`` returns; the factor is applied after every step."""
        settings = self._settings
        following = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, settings))
        schedule = {"scheduler": following, "interval": "step", "frequency": 1}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


class NemoStepControl(Callback):
    """Reports every optimizer step and decides at its end whether to save, to leave, or that all is done.

    ``stopped`` is True when the loop was left on request, after a save. ``source`` is the checkpoint that the stage
    started from: its tokenizer files go along with the finished one. ``durations``: seconds of each step of this start,
    without its save. ``trained``: parameters that this process trains, where it trains adapters. ``validate`` takes the
    validation loss, ``beside`` writes saves while the training goes on, ``metrics`` is what the seal says of
    validations.
    """

    def __init__(self, ctx: WorkContext, settings: NemoSettings, source: Path) -> None:
        self.watch = Watch(ctx, settings)
        self.validate: Callable[[], float] | None = None
        self.beside: NemoBeside | None = None
        self.metrics: dict[str, Any] = {}
        self._unsealed: int | None = None
        self._ctx = ctx
        self._settings = settings
        self._source = source
        self._clock = 0.0
        self._step_tokens = settings.batch_size * settings.sequence_length
        self.stopped = False
        self.step = 0
        self.losses: list[float] = []
        self.durations: list[float] = []
        self.tokens = 0
        self.trained: int | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.step = trainer.global_step
        self._clock = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step = self.step = trainer.global_step
        # With pipeline stages the loss is known on the first rank and the last stage; rank 0 is what counts.
        loss = float(trainer.callback_metrics.get("reduced_train_loss", math.nan))
        broken = self._ctx.rank == 0 and not math.isfinite(loss)
        device = trainer.strategy.root_device
        validated = self.watch.validated(step, self.validate)
        due = self._ctx.stop.save_due(step, self._settings.steps, self._settings.save_every)
        writes = self.beside is not None and self.beside.is_writing
        stop, broken, due, writes = ranks.any_of([self._ctx.stop.should_stop(), broken, due, writes], device)
        if broken:
            raise Diverged(f"the loss is {loss} at step {step}: lower lr, or look at the data of this step")
        self._report(trainer, step, loss, validated)
        if not writes:
            self._complete()
        ends = self.watch.ends(step)
        if self.watch.saves(step, due) or (stop and not ends):
            self._save(trainer, step, goes_on=not stop)
        if ends:
            self._finish(trainer, step)
            trainer.should_stop = True
            return
        if stop:
            self.stopped = trainer.should_stop = True
        self._clock = time.monotonic()

    def _report(self, trainer: Trainer, step: int, loss: float, validated: float) -> None:
        now = time.monotonic()
        self.durations.append(now - self._clock - validated)
        rate = self._step_tokens / max(self.durations[-1], 1e-9)
        self._clock = now
        self.losses.append(loss)
        self.tokens += self._step_tokens
        metrics: dict[str, Any] = {"loss": loss, "tokens_per_second": rate, **measured.memory()}
        norm = trainer.callback_metrics.get("grad_norm")
        if norm is not None:
            metrics["grad_norm"] = float(norm)
        optimizers = trainer.optimizers
        if optimizers:
            metrics["lr"] = float(optimizers[0].param_groups[0]["lr"])
        if (found := self._ctx.saves.validations.get(step)) is not None:
            metrics[LOSS] = found
        self._ctx.progress.report(step, self._settings.steps, **metrics)

    def _save(self, trainer: Trainer, step: int, goes_on: bool) -> None:
        """Write, seal and thin out ``saves/checkpoint-<step>``: weights, optimizer, schedule, place in the data."""
        began = time.monotonic()
        self._complete()
        directory = self._ctx.saves.directory / f"checkpoint-{step}"
        ranks.on_first(lambda: shutil.rmtree(directory, ignore_errors=True))
        trainer.save_checkpoint(directory)
        self._unsealed = step
        if self.beside is None or not goes_on:
            self._complete(goes_on)
        self._ctx.stop.saved(time.monotonic() - began)

    def _complete(self, goes_on: bool = True) -> None:
        """Have the save that is written sealed, once all have written; nothing to do where there is none."""
        if self._unsealed is None:
            return
        if self.beside is not None:
            self.beside.finish()
        ranks.barrier()
        self.watch.seal_beside(self._unsealed, goes_on)
        self._unsealed = None

    def _finish(self, trainer: Trainer, step: int) -> None:
        """Write the finished checkpoint: weights, NeMo's description of the model, tokenizer."""
        output = self._ctx.output
        self._complete()
        chosen = ranks.on_first(lambda: self.watch.chosen(step))
        if chosen is not None:
            strategy, adapters = trainer.strategy, self._settings.lora_rank is not None
            weights = strategy.megatron_parallel.sharded_state_dict()
            if adapters:  # a save has nothing else
                weights = {name: part for name, part in weights.items() if ".adapter." in name}
            found = strategy.checkpoint_io.load_checkpoint(chosen[1], sharded_state_dict={"state_dict": weights})
            strategy.load_model_state_dict(found, strict=not adapters)
        self.metrics = self.watch.metrics(step, chosen and chosen[0])
        if self._settings.lora_rank is not None:
            self.trained = lora.trained(trainer.strategy.megatron_parallel)
            lora.finish(trainer)
        trainer.save_checkpoint(output, weights_only=True)
        if self.beside is not None:
            self.beside.finish()
        if self._ctx.rank == 0:
            TrainerContext.from_trainer(trainer).io_dump(output / layout.CONTEXT, yaml_attrs=["model"])
            tokenizers.carry_as_hf(layout.tokenizer_directory(self._source), output)
        ranks.barrier()
