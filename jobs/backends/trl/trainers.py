"""The trainers of transformers and TRL, taught our order of examples, our masks, and what a loss is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from datasets import Dataset
from torch.distributed.fsdp import MixedPrecisionPolicy
from transformers import Trainer

from jobs.backends.trl.control import TrlStepControl
from jobs.backends.trl.settings import TrainSettings
from jobs.encoding.tokens import IGNORED
from jobs.training.order import TrainingOrder
from jobs.training.schedule import learning_rate_factor


@dataclass
class Preferences:
    """Batches of preferences as TRL's loss takes them: the chosen answers, then the rejected ones, with our masks."""

    pad: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        found = [(row[f"{name}_input_ids"], row[f"{name}_labels"]) for name in ("chosen", "rejected") for row in rows]
        longest = max(len(ids) for ids, _ in found)
        made: dict[str, list[list[int]]] = {"input_ids": [], "attention_mask": [], "completion_mask": []}
        for ids, labels in found:
            rest = longest - len(ids)
            made["input_ids"].append(ids + [self.pad] * rest)
            made["attention_mask"].append([1] * len(ids) + [0] * rest)
            made["completion_mask"].append([int(label != IGNORED) for label in labels] + [0] * rest)
        return {name: torch.tensor(values) for name, values in made.items()}


def watched(
    base: type[Trainer], control: TrlStepControl, order: TrainingOrder, settings: TrainSettings
) -> type[Trainer]:
    """``base`` that takes examples in ``order`` and tells ``control`` the loss of every micro batch: the logs of
    Trainer come after averaging."""

    class Watched(base):
        lr_scheduler: Any

        def create_accelerator_and_postprocess(self) -> None:
            """As it is, with gradients summed in fp32 and the loss not rounded to bf16, as without sharding; accelerate
            itself shards on GPUs only, although torch does it over gloo, too."""
            if settings.shard == "full" and settings.precision == "bf16":
                policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
                self.args.fsdp_plugin_args["mixed_precision_policy"] = policy
            super().create_accelerator_and_postprocess()
            state = self.accelerator.state
            if settings.shard == "full" and state.distributed_type == DistributedType.MULTI_CPU:
                state.distributed_type = DistributedType.FSDP
                state.fsdp_plugin = FullyShardedDataParallelPlugin(**self.args.fsdp_plugin_args)
                self.is_fsdp_enabled = True

        def _get_train_sampler(self, *rest: Any, **more: Any) -> TrainingOrder:
            return order

        def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
            if self.lr_scheduler is None:
                self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                    optimizer or self.optimizer, lambda step: learning_rate_factor(step, settings)
                )
                self._created_lr_scheduler = True
            return self.lr_scheduler

        def _save_optimizer_and_scheduler(self, *rest: Any, **more: Any) -> None:
            with control.saving():
                super()._save_optimizer_and_scheduler(*rest, **more)

        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> torch.Tensor:
            tokens = int(inputs["input_ids"].numel())
            loss: torch.Tensor = super().training_step(model, inputs, *rest, **more)
            control.add(loss, tokens)
            return loss

        def _prepare_dataset(self, dataset: Dataset, *rest: Any, **more: Any) -> Dataset:
            return dataset  # rows are ids already

        def create_model_card(self, *rest: Any, **more: Any) -> None:
            """None: TRL would write a README beside the saves."""

    return Watched


def by_token(base: type[Trainer]) -> type[Trainer]:
    """A DPO trainer whose part of SFT is the mean over all chosen tokens of a step, as the loss of SFT is.

    TRL takes the mean of each pass, in which a token of a short answer counts for more the smaller the pass is: the
    result would depend on micro_batch_size and on the number of processes. Its weight is set for each pass, so that the
    mean over passes and processes, which the trainer takes, comes to the mean over tokens.
    """

    class ByToken(base):
        loss_weights: list[float]

        def get_batch_samples(self, *rest: Any, **more: Any) -> Any:
            found = super().get_batch_samples(*rest, **more)
            total = torch.tensor(sum(map(chosen_tokens, found[0])), dtype=torch.float64, device=self.args.device)
            if self.args.world_size > 1:
                torch.distributed.all_reduce(total)
            self._token_share = len(found[0]) * self.args.world_size / max(1.0, float(total))
            return found

        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> torch.Tensor:
            with self.weighted(inputs, self._token_share):
                loss: torch.Tensor = super().training_step(model, inputs, *rest, **more)
            return loss

        @contextmanager
        def weighted(self, inputs: dict[str, Any], share: float) -> Iterator[None]:
            """A pass over ``inputs`` in which a chosen token weighs ``share``."""
            given = self.loss_weights
            tokens = chosen_tokens(inputs) * share
            self.loss_weights = [
                weight * tokens if name == "sft" else weight
                for name, weight in zip(self.loss_types, given, strict=True)
            ]
            try:
                yield
            finally:
                self.loss_weights = given

    return ByToken


def chosen_tokens(inputs: dict[str, Any]) -> int:
    """Learned tokens of the chosen answers of a pass: the first half of its rows."""
    mask = inputs["completion_mask"]
    return int(mask[: len(mask) // 2, 1:].sum())
