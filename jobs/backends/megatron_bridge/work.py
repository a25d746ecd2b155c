"""Training and conversion by Megatron-Bridge. Written from its source (0.6.2) and never run by us."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from jobs.backends.megatron_bridge import layout, render
from jobs.backends.megatron_bridge.settings import BridgeSettings
from jobs.core.spec import StageSpec
from jobs.training import finished, tokenizers, tokens
from jobs.training.examples import ExamplesError
from jobs.training.gguf import check_same_tokenizer, compare_directories
from jobs.training.interface import Result, Unfinished, WorkContext


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train or convert; called on every rank.

    Raises:
        BadSettings: before any training.
        Unfinished, ConversionFailed: afterwards.
    """
    if spec.kind == "convert":
        return _convert(spec, ctx)
    settings = BridgeSettings.read(spec.settings)
    settings = replace(settings, save_every=ctx.stop.save_period(settings.steps, settings.save_every))
    spec = replace(spec, settings={**spec.settings, "save_every": settings.save_every})
    newest = ctx.saves.newest_valid()
    end = ctx.stop.end()
    minutes = None if end is None else max(1, int((end - time.time() - spec.lead_seconds) / 60))
    values = render.of_stage(spec, ctx.world, minutes, newest[1] if newest else None)
    if spec.kind == "cpt":
        values["dataset"]["data_path"] = [str(_one_epoch(spec, settings, ctx))]
    _train(spec, values)
    work = Path(values["checkpoint"]["save"])
    found = layout.completeness(work)
    if found.problem is not None or found.step is None:
        raise Unfinished(f"Megatron-Bridge left no whole checkpoint: {found.problem}")
    done = found.step >= settings.steps
    if ctx.rank == 0:
        if done:
            _finish(work, spec.inputs["checkpoint"].output, ctx.output, found.step)
        else:
            target = ctx.saves.directory / f"checkpoint-{found.step}"
            shutil.rmtree(target, ignore_errors=True)
            shutil.copytree(work, target)
            ctx.saves.seal(found.step)
            ctx.saves.keep_last(settings.keep_saves)
    if not done:
        ctx.stop.should_stop()  # notes the reason for the verdict
    return Result("done" if done else "stopped", found.step)


def _one_epoch(spec: StageSpec, settings: BridgeSettings, ctx: WorkContext) -> Path:
    """Prefix of the ids of a corpus, of which Megatron takes each block at most once.

    Raises:
        DataError: the steps take more than one epoch, which Megatron shuffles as one: a block could come twice before
            another has come once.
    """
    tokenizer = tokenizers.load(spec.inputs["checkpoint"].output / "hf")
    scratch = spec.stage_paths.root / "megatron_bridge" / "data"
    prefix = tokens.corpus(spec.inputs["data"], settings.split, tokenizer, scratch, ctx)
    count = len(tokens.Blocks(prefix, settings.sequence_length, settings.seed, 1))
    taken = settings.steps * settings.batch_size
    if taken > count:
        raise ExamplesError(
            f"{prefix}.bin: {settings.steps} steps of {settings.batch_size} take {taken} sequences of {count}, and "
            f"Megatron-Bridge shuffles several epochs as one: lower steps to at most {count // settings.batch_size}, "
            "or take the back end nemo"
        )
    return prefix


def _train(spec: StageSpec, values: dict[str, Any]) -> None:
    from megatron.bridge.data.builders import GPTSFTDatasetConfig
    from megatron.bridge.data.sft_processing import PromptCompletionSFTPreprocessingConfig
    from megatron.bridge.training import config
    from megatron.bridge.training.finetune import finetune
    from megatron.bridge.training.gpt_step import forward_step
    from megatron.bridge.training.pretrain import pretrain

    model = _bridge(spec.inputs["checkpoint"].output).to_megatron_provider(load_weights=False)
    for name, value in values["model"].items():
        setattr(model, name, value)
    dataset = dict(values["dataset"])
    if spec.kind == "cpt":
        data = config.GPTDatasetConfig(**dataset)
    else:
        preprocessing = PromptCompletionSFTPreprocessingConfig(**dataset.pop("preprocessing"))
        data = GPTSFTDatasetConfig(**dataset, preprocessing=preprocessing)
    container = config.ConfigContainer(
        model=model,
        train=config.TrainingConfig(**values["train"]),
        validation=config.ValidationConfig(**values["validation"]),
        optimizer=config.OptimizerConfig(**values["optimizer"]),
        scheduler=config.SchedulerConfig(**values["scheduler"]),
        ddp=config.DistributedDataParallelConfig(**values["ddp"]),
        dataset=data,
        logger=config.LoggerConfig(**values["logger"]),
        tokenizer=config.TokenizerConfig(**values["tokenizer"]),
        checkpoint=config.CheckpointConfig(**values["checkpoint"]),
        rng=config.RNGConfig(**values["rng"]),
        mixed_precision=values["mixed_precision"],
    )
    (pretrain if spec.kind == "cpt" else finetune)(container, forward_step)


def _bridge(checkpoint: Path) -> Any:
    """What reads and writes checkpoints of a model, by the configuration in ``hf/``."""
    from megatron.bridge import AutoBridge

    from jobs.training.models import config_of

    return AutoBridge.from_hf_config(config_of(checkpoint / "hf"))


def _finish(work: Path, source: Path, output: Path, step: int) -> None:
    shutil.copytree(work / f"iter_{step:07d}", output / f"iter_{step:07d}")
    shutil.copyfile(work / layout.LATEST, output / layout.LATEST)
    tokenizers.carry_as_hf(source / "hf", output)


def _convert(spec: StageSpec, ctx: WorkContext) -> Result:
    """Import or export by ``AutoBridge``, on rank 0.

    What lies in the Hugging Face format goes to Megatron's and back, and must have the same logits then: a weight that
    one direction loses or mixes up shows there, one that both mix up alike does not.
    """
    if ctx.rank != 0:
        return Result("done")
    from megatron.bridge import AutoBridge

    given = spec.inputs["source"]
    if given.format == "hf":
        AutoBridge.import_ckpt(str(given.output), str(ctx.output))
        tokenizers.carry_as_hf(given.output, ctx.output)
        bridge, checkpoint, source = _bridge(ctx.output), ctx.output, given.output
        check_same_tokenizer(given.output, ctx.output / "hf")
    else:
        bridge = _bridge(given.output)
        bridge.export_ckpt(str(given.output), str(ctx.output), show_progress=False, strict=True)
        finished.finish(given.output / "hf", ctx.output)
        checkpoint, source = spec.stage_paths.root / "megatron_bridge" / "again", ctx.output
        shutil.rmtree(checkpoint, ignore_errors=True)
        AutoBridge.import_ckpt(str(ctx.output), str(checkpoint))
        check_same_tokenizer(given.output / "hf", ctx.output)
    back = spec.stage_paths.root / "megatron_bridge" / "back"
    shutil.rmtree(back, ignore_errors=True)
    bridge.export_ckpt(str(checkpoint), str(back), show_progress=False, strict=True)
    metrics = compare_directories(source, back)
    shutil.rmtree(spec.stage_paths.root / "megatron_bridge")
    return Result("done", step=1, metrics=metrics)
