"""One training stage: examples, trainer, resume, loop, finished checkpoint.

Everything that decides the result is fixed before the loop starts: which example is trained when (see
``jobs.training.order``) is known for every step, so a resumed run only has to skip those it has seen.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from datasets import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments

from jobs.backends.trl.control import TrlStepControl, from_first_rank
from jobs.backends.trl.settings import SCHEDULES, TrainSettings
from jobs.core.spec import StageSpec
from jobs.encoding.rows import IGNORED
from jobs.training import cpu, examples, finished, measured, ranks, tokenizers, tokens
from jobs.training.examples import Row
from jobs.training.interface import Result, WorkContext
from jobs.training.models import load_model
from jobs.training.order import TrainingOrder, tell_order, training_order


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train ``spec``; called on every rank.

    Raises:
        BadSettings, DataError: before any training.
        Diverged: the loss became infinite or not a number.
    """
    settings = TrainSettings.read(spec.settings)
    micro, _ = settings.split_batch(ctx.world)  # refuse before the model is loaded
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    cpu.use_threads(settings.threads)
    source = spec.inputs["checkpoint"].output
    tokenizer = tokenizers.load(source)
    dataset, lengths = _dataset(spec, ctx, settings, tokenizer)
    settings = settings.counted(len(dataset))
    where = f"{spec.inputs['data'].output / settings.split}.jsonl:1"
    order = training_order(len(dataset), settings.batch_size, settings.steps, settings.seed, lengths, where)
    tell_order(ctx, settings, len(dataset))
    model = load_model(source)

    config, arguments = _arguments(spec.kind, settings, ctx.world, ctx.saves.directory)
    args = config(**arguments)
    if args.device.type == "cpu":
        # With several processes accelerate says "cpu:0", and torch.load of the optimizer does not know that device.
        vars(args)["_setup_devices"] = torch.device("cpu")
    control = TrlStepControl(ctx, settings, args.device)
    trainer = _trainer(spec.kind, model, args, dataset, order, tokenizer, control, source)

    began = time.monotonic()
    trainer.train(resume_from_checkpoint=_resume_point(ctx))
    step = trainer.state.global_step
    metrics = measured.metrics(spec, settings, control, time.monotonic() - began, micro, ctx.world)
    if control.stopped:
        return Result("stopped", step, metrics)
    if ctx.rank == 0:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(ctx.output)
        finished.finish(source, ctx.output)
    ranks.barrier()
    return Result("done", step, metrics)


def _resume_point(ctx: WorkContext) -> str | None:
    """Directory of the save to go on from. Rank 0 decides: a save may become visible on other nodes later."""
    found: str | None = None
    if ctx.rank == 0:
        newest = ctx.saves.resume()
        found = str(newest[1]) if newest else None
    result: str | None = from_first_rank(found)
    return result


def _dataset(
    spec: StageSpec, ctx: WorkContext, settings: TrainSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[Any, list[int] | None]:
    """The examples, each once, and their lengths where batches are to be of similar length."""
    given = spec.inputs["data"]
    if spec.kind == "cpt":
        scratch = spec.stage_paths.root / "tokens"
        prefix = tokens.corpus(given, settings.split, tokenizer, scratch, ctx)
        mixed = tokens.mix(prefix, settings.seed, scratch, ctx)
        return TokenBlocks(tokens.Blocks(prefix, settings.sequence_length, settings.seed, mixed=mixed)), None
    path = given.output / f"{settings.split}.jsonl"
    formats = {"sft": "instructions", "dpo": "preferences"}
    return _pairs(examples.read_rows(path, formats[spec.kind]), settings, tokenizer, path)


class TokenBlocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks of a corpus as a model takes them; read from the mapped file one by one."""

    def __init__(self, blocks: tokens.Blocks) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self._blocks[number].astype("int64"))
        return {"input_ids": ids, "labels": ids}


def _pairs(
    rows: list[Row], settings: TrainSettings, tokenizer: PreTrainedTokenizerBase, path: Path
) -> tuple[Dataset, list[int]]:
    """Ids and labels of each row, of preferences those of both answers (for ``Preferences``); and lengths."""
    kept = examples.fitting_pairs(rows, path, tokenizer, settings.sequence_length, settings.too_long)
    found = []
    for _, sequences in kept:
        names = ("",) if len(sequences) == 1 else ("chosen_", "rejected_")
        row: dict[str, list[int]] = {}
        for name, one in zip(names, sequences, strict=True):
            row |= {f"{name}input_ids": list(one.ids), f"{name}labels": one.labels}
        found.append(row)
    return Dataset.from_list(found), [max(map(len, sequences)) for _, sequences in kept]


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


def _arguments(
    kind: str, settings: TrainSettings, world: int, saves: Path
) -> tuple[type[TrainingArguments], dict[str, Any]]:
    """Configuration class and arguments of the trainer of a kind."""
    micro, accumulate = settings.split_batch(world)
    common: dict[str, Any] = {
        "output_dir": str(saves),
        "max_steps": settings.steps,
        "learning_rate": settings.lr,
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": accumulate,
        "warmup_steps": settings.warmup_steps,
        "lr_scheduler_type": SCHEDULES[settings.schedule],
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_grad_norm,
        "seed": settings.seed,
        "data_seed": settings.seed,
        "bf16": settings.precision == "bf16",
        "optim": "adamw_torch_fused",
        "gradient_checkpointing": False,
        "dataloader_drop_last": True,
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide what StepControl must see
        "save_strategy": "no",  # StepControl decides
        "report_to": "none",
        "disable_tqdm": True,
        "ddp_find_unused_parameters": False,
    }
    if not torch.cuda.is_available():
        common |= {"use_cpu": True, "dataloader_pin_memory": False}
        if world > 1:
            common["ddp_backend"] = "gloo"
    if kind == "cpt":
        return TrainingArguments, common
    from trl import DPOConfig, SFTConfig

    if kind == "sft":
        return SFTConfig, {**common, "max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
    mixed: dict[str, Any] = {}
    if settings.sft_weight:
        mixed = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, settings.sft_weight]}
    return DPOConfig, {**common, "remove_unused_columns": False, "max_length": None, "beta": settings.beta, **mixed}


def _trainer(
    kind: str,
    model: PreTrainedModel,
    args: TrainingArguments,
    dataset: Any,
    order: TrainingOrder,
    tokenizer: PreTrainedTokenizerBase,
    control: TrlStepControl,
    source: Path,
) -> Trainer:
    """The trainer of a kind, with its steps watched by ``control``."""
    common: dict[str, Any] = {
        "model": model, "args": args, "train_dataset": dataset, "processing_class": tokenizer, "callbacks": [control],
    }  # fmt: skip
    if kind == "cpt":
        common["data_collator"] = transformers.default_data_collator
        trainer: Trainer = _watched(Trainer, control, order)(**common)
    else:
        from trl import DPOTrainer, SFTTrainer

        if kind == "sft":
            trainer = _watched(SFTTrainer, control, order)(**common)
        else:
            common["data_collator"] = Preferences(int(tokenizer.pad_token_id))
            watched = _by_token(_watched(DPOTrainer, control, order))
            trainer = watched(**common, ref_model=load_model(source))
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _watched(base: type[Trainer], control: TrlStepControl, order: TrainingOrder) -> type[Trainer]:
    """``base`` that takes examples in ``order`` and tells ``control`` the loss of every micro batch: the logs of
    Trainer come after averaging."""

    class Watched(base):
        def _get_train_sampler(self, *rest: Any, **more: Any) -> TrainingOrder:
            return order

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


def _by_token(base: type[Trainer]) -> type[Trainer]:
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
            given = self.loss_weights
            if "sft" in self.loss_types:
                weight = given[self.loss_types.index("sft")] * chosen_tokens(inputs) * self._token_share
                self.loss_weights = [
                    weight if name == "sft" else other for name, other in zip(self.loss_types, given, strict=True)
                ]
            try:
                loss: torch.Tensor = super().training_step(model, inputs, *rest, **more)
            finally:
                self.loss_weights = given
            return loss

    return ByToken


def chosen_tokens(inputs: dict[str, Any]) -> int:
    """Learned tokens of the chosen answers of a pass: the first half of its rows."""
    mask = inputs["completion_mask"]
    return int(mask[: len(mask) // 2, 1:].sum())
