"""One training stage: examples, trainer, resume, loop, finished checkpoint.

Everything that decides the result is fixed before the loop starts: the examples of every step are listed (see
``jobs.training.order.training_order``) and fed in that order, so a resumed run only has to skip those it has seen.
"""

from __future__ import annotations

import time
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
from jobs.training import cpu, examples, measured, ranks, tokenizers
from jobs.training.examples import Row
from jobs.training.interface import Result, WorkContext
from jobs.training.models import load_model
from jobs.training.order import training_order
from jobs.training.tokens import encode_text, pack


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
    dataset = _dataset(spec, settings, tokenizer)
    model = load_model(source)

    config, arguments = _arguments(spec.kind, settings, ctx.world, ctx.saves.directory)
    args = config(**arguments)
    if args.device.type == "cpu":
        # With several processes accelerate says "cpu:0", and torch.load of the optimizer does not know that device.
        vars(args)["_setup_devices"] = torch.device("cpu")
    control = TrlStepControl(ctx, settings, args.device)
    trainer = _trainer(spec.kind, model, args, dataset, tokenizer, control, source)

    began = time.monotonic()
    trainer.train(resume_from_checkpoint=_resume_point(ctx))
    step = trainer.state.global_step
    metrics = measured.metrics(spec, settings, control, time.monotonic() - began, micro, ctx.world)
    if control.stopped:
        return Result("stopped", step, metrics)
    if ctx.rank == 0:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(ctx.output)
        tokenizers.carry_over(source, ctx.output)
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


def _dataset(spec: StageSpec, settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """The examples of all steps in the order of training."""
    given = spec.inputs["data"]
    path = given.output / f"{settings.split}.jsonl"
    formats = {"cpt": "corpus", "sft": "instructions", "dpo": "preferences"}
    rows = examples.read_rows(path, formats[spec.kind])
    if spec.kind == "cpt":
        return _blocks(rows, settings, tokenizer)
    return _pairs(rows, settings, tokenizer, path)


def _blocks(rows: list[Row], settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> Dataset:
    """Packed blocks. Documents are mixed before packing: a file is often sorted by source."""
    mixed = training_order(len(rows), len(rows), 1, settings.seed)
    documents = [encode_text(tokenizer, rows[index].texts["text"]) for index in mixed]
    blocks = pack(documents, settings.sequence_length)
    order = training_order(len(blocks), settings.batch_size, settings.steps, settings.seed)
    ids = [blocks[index] for index in order]
    return Dataset.from_dict({"input_ids": ids, "labels": ids})


def _pairs(rows: list[Row], settings: TrainSettings, tokenizer: PreTrainedTokenizerBase, path: Path) -> Dataset:
    """Prompts with one completion (``instructions``) or with two (``preferences``, left as text for TRL)."""
    answers = [name for name in rows[0].texts if name != "prompt"]
    kept = examples.fitting_pairs(rows, path, tokenizer, settings.sequence_length, settings.too_long)
    lengths = [max(map(len, pairs)) for _, pairs in kept]
    order = training_order(len(kept), settings.batch_size, settings.steps, settings.seed, lengths)
    chosen = [kept[index] for index in order]
    if len(answers) > 1:
        return Dataset.from_list([dict(row.texts) for row, _ in chosen])
    return Dataset.from_list(
        [
            {"input_ids": [*pair.prompt, *pair.completion], "labels": [-100] * len(pair.prompt) + list(pair.completion)}
            for _, (pair,) in chosen
        ]
    )


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
        "train_sampling_strategy": "sequential",  # the order is in the data set
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
    return DPOConfig, {**common, "max_length": None, "beta": settings.beta, **mixed}


def _trainer(
    kind: str,
    model: PreTrainedModel,
    args: TrainingArguments,
    dataset: Dataset,
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
        trainer: Trainer = _watched(Trainer, control)(**common)
    else:
        from trl import DPOTrainer, SFTTrainer

        if kind == "sft":
            trainer = _watched(SFTTrainer, control)(**common)
        else:
            trainer = _watched(DPOTrainer, control)(**common, ref_model=load_model(source))
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _watched(base: type[Trainer], control: TrlStepControl) -> type[Trainer]:
    """``base`` that tells ``control`` the loss of every micro batch: the logs of Trainer come after averaging."""

    class Watched(base):
        def training_step(self, model: Any, inputs: dict[str, Any], *rest: Any, **more: Any) -> torch.Tensor:
            tokens = int(inputs["input_ids"].numel())
            loss: torch.Tensor = super().training_step(model, inputs, *rest, **more)
            control.add(loss, tokens)
            return loss

        def create_model_card(self, *rest: Any, **more: Any) -> None:
            """None: TRL would write a README beside the saves."""

    return Watched
