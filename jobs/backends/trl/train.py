"""One training stage: examples, trainer, resume, loop, finished checkpoint.

Everything that decides the result is fixed before the loop starts: which example is trained when (see
``jobs.training.order``) is known for every step, so a resumed run only has to skip those it has seen.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
from transformers import PreTrainedTokenizerBase, Trainer, TrainingArguments

from jobs.backends.trl.arguments import arguments
from jobs.backends.trl.control import TrlStepControl, from_first_rank
from jobs.backends.trl.held_out import TrlValidation
from jobs.backends.trl.settings import TrainSettings
from jobs.backends.trl.trainers import Preferences, by_token, watched
from jobs.core.spec import StageSpec
from jobs.core.validation import SPLIT
from jobs.training import cpu, finished, measured, pairs, ranks, tokenizers, tokens, validation
from jobs.training.interface import Result, WorkContext
from jobs.training.models import load_model
from jobs.training.order import TrainingOrder, tell_order, training_order


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train ``spec``; called on every rank.

    Raises:
        BadSettings, DataError: before any training.
        Diverged: the loss became infinite or not a number.
    """
    settings = TrainSettings.read(spec.settings, spec.kind)
    micro, _ = settings.split_batch(ctx.world)  # refuse before the model is loaded
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    cpu.use_threads(settings.threads)
    if settings.shard == "full" and ctx.world == 1:
        ranks.start_alone()
    source = spec.inputs["checkpoint"].output
    tokenizer = tokenizers.load(source)
    held_out = validation.rows_of(spec.inputs["data"], settings)
    dataset, lengths = _dataset(spec, ctx, settings, tokenizer, settings.split)
    settings = settings.counted(len(dataset))
    where = f"{spec.inputs['data'].output / settings.split}.jsonl:1"
    order = training_order(len(dataset), settings.batch_size, settings.steps, settings.seed, lengths, where)
    tell_order(ctx, settings, len(dataset))

    config, given = arguments(spec.kind, settings, ctx.world, ctx.saves.directory)
    args = config(**given, ddp_timeout=int(ctx.collective_seconds))
    if args.device.type == "cpu":
        # With several processes accelerate says "cpu:0", and torch.load of the optimizer does not know that device.
        vars(args)["_setup_devices"] = torch.device("cpu")
    control = TrlStepControl(ctx, settings, args.device)
    trainer = _trainer(spec.kind, settings, args, dataset, order, tokenizer, control, source)

    if held_out is not None:
        rows, _ = _dataset(spec, ctx, settings, tokenizer, SPLIT)
        control.validate = TrlValidation(trainer, rows, micro, int(tokenizer.pad_token_id), ctx)

    began = time.monotonic()
    trainer.train(resume_from_checkpoint=_resume_point(ctx))
    step = trainer.state.global_step
    seconds, again = time.monotonic() - began, "full" if settings.recompute else "none"
    metrics = measured.metrics(spec, settings, control, seconds, micro, ctx.world, recompute=again)
    if control.stopped:
        return Result("stopped", step, metrics)
    metrics |= _choose(trainer, control, step)
    state = _whole_state(trainer) if settings.shard == "full" else None
    if ctx.rank == 0:
        _write(trainer, state, source, ctx.output, settings)
    ranks.barrier()
    return Result("done", step, metrics)


def _whole_state(trainer: Trainer) -> dict[str, Any]:
    """The weights of which every process has a part, for rank 0, tied ones once; called on every rank."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    found = get_model_state_dict(trainer.model, options=options)
    return {name: weight for name, weight in found.items() if name not in trainer.model.all_tied_weights_keys}


def _write(trainer: Trainer, state: dict[str, Any] | None, source: Path, output: Path, settings: TrainSettings) -> None:
    """The finished checkpoint; called on rank 0."""
    if settings.lora_rank is not None:
        from jobs.backends.trl import adapters

        if not adapters.write(trainer, source, output, settings):
            return
    else:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(output, state_dict=state)
    finished.finish(source, output)


def _choose(trainer: Trainer, control: TrlStepControl, step: int) -> dict[str, Any]:
    """Load the weights that the finished model is to have, where they are not those of ``step``; what the seal says of
    validations. Called on every rank; rank 0 chooses."""
    found = from_first_rank(control.watch.chosen(step) if trainer.args.process_index == 0 else None)
    if found is not None:
        trainer.state.best_model_checkpoint = str(found[1])
        trainer._load_best_model()
    return control.watch.metrics(step, found and found[0])


def _resume_point(ctx: WorkContext) -> str | None:
    """Directory of the save to go on from. Rank 0 decides: a save may become visible on other nodes later."""
    newest = ctx.saves.resume() if ctx.rank == 0 else None
    newest, ctx.saves.validations = from_first_rank((newest, ctx.saves.validations))
    return str(newest[1]) if newest else None


def _dataset(
    spec: StageSpec, ctx: WorkContext, settings: TrainSettings, tokenizer: PreTrainedTokenizerBase, split: str
) -> tuple[Any, Any]:
    """The examples of a split, each once, and their lengths where batches are to be of similar length."""
    given = spec.inputs["data"]
    if spec.kind == "cpt":
        is_held_out = split == SPLIT
        scratch = spec.stage_paths.root / ("tokens-validation" if is_held_out else "tokens")
        prefix = tokens.corpus(given, split, tokenizer, scratch, ctx)
        mixed = tokens.mix(prefix, settings.seed, scratch, ctx)
        length = settings.sequence_length
        return TokenBlocks(tokens.Blocks(prefix, length, settings.seed, mixed=mixed, rest=is_held_out)), None
    fit = pairs.Fit(settings.sequence_length, settings.too_long)
    kind = {"sft": "instructions", "dpo": "preferences"}[spec.kind]
    source, scratch = given.output / f"{split}.jsonl", spec.stage_paths.root / f"rows-{split}"
    return pairs.dataset(source, kind, given.fingerprint, tokenizer, fit, scratch, ctx)


class TokenBlocks(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """Blocks of a corpus as a model takes them; read from the mapped file one by one."""

    def __init__(self, blocks: tokens.Blocks) -> None:
        self._blocks = blocks

    def __len__(self) -> int:
        return len(self._blocks)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(self._blocks[number].astype("int64"))
        return {"input_ids": ids, "labels": ids}


def _trainer(
    kind: str,
    settings: TrainSettings,
    args: TrainingArguments,
    dataset: Any,
    order: TrainingOrder,
    tokenizer: PreTrainedTokenizerBase,
    control: TrlStepControl,
    source: Path,
) -> Trainer:
    """The trainer of a kind, with its steps watched by ``control``."""
    common: dict[str, Any] = {
        "args": args, "train_dataset": dataset, "processing_class": tokenizer, "callbacks": [control],
    }  # fmt: skip
    transformers.set_seed(settings.seed)  # before adapters are drawn
    if settings.lora_rank is not None:
        from jobs.backends.trl import adapters
    if settings.lora_rank is None:
        common["model"] = load_model(source, attn_implementation=settings.attention)
        if kind == "dpo":
            common["ref_model"] = load_model(source, attn_implementation=settings.attention)
    else:  # the reference of DPO is the model without its adapters
        common["model"] = adapters.load_base(source, settings)
        common["peft_config"] = adapters.configured(settings, common["model"])
    if kind == "cpt":
        base: type[Trainer] = Trainer
        common["data_collator"] = transformers.default_data_collator
        if "peft_config" in common:
            from peft import get_peft_model

            common["model"] = get_peft_model(common["model"], common.pop("peft_config"))
    elif kind == "sft":
        from trl import SFTTrainer

        base = SFTTrainer
    else:
        from trl import DPOTrainer

        base = by_token(DPOTrainer)
        common["data_collator"] = Preferences(int(tokenizer.pad_token_id))
    trainer: Trainer = watched(base, control, order, settings)(**common)
    if settings.lora_base == "nf4":
        adapters.in_fp32(trainer.model)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer
