"""One NeMo training stage: model, data, trainer, resume, loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from megatron.core.distributed import DistributedDataParallelConfig
from megatron.core.optimizer import OptimizerConfig
from nemo import lightning as nl
from nemo.collections import llm
from nemo.lightning.pytorch.strategies.utils import init_model_parallel

from jobs.backends.nemo import beside, compat, data, held_out, layout, lora, model, recipes
from jobs.backends.nemo.control import NemoStepControl, Schedule
from jobs.backends.nemo.recipes import Parallel
from jobs.backends.nemo.settings import NemoSettings
from jobs.core.spec import StageSpec
from jobs.core.validation import SPLIT
from jobs.training import cpu, measured, ranks, validation
from jobs.training.interface import Result, WorkContext
from jobs.training.order import tell_order


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train ``spec``; called on every rank.

    Raises:
        BadSettings, DataError, WrongVocabulary: before any training.
        Diverged: the loss became infinite or not a number.
    """
    settings = NemoSettings.read(spec.settings, spec.kind)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    rows_at = validation.rows_of(spec.inputs["data"], settings)
    ranks.start(ctx.world, ctx.collective_seconds)
    source = spec.inputs["checkpoint"].output
    network = model.from_checkpoint(source, settings)
    tokenizer = model.tokenizer(source, network)
    _, local = _shape(ctx.world)
    spread = recipes.parallel(settings, spec.kind, ctx.world, local, network)
    recipes.checked(settings, ctx.world, spread)
    if settings.fp8 != "none":
        compat.check_fp8()
    if settings.packed:
        model.check_packed(network)
    micro = settings.micro_of(spread.replicas(ctx.world))
    scratch = spec.stage_paths.root / "nemo"
    path, count = data.prepare(spec.kind, spec.inputs["data"], scratch / "data", settings, tokenizer, ctx)
    packed = data.packing(scratch / "data") if settings.packed else {}
    if packed:
        ctx.event("packed", **packed)
    settings = settings.counted(count)
    tell_order(ctx, settings, count)
    module = data.module(spec.kind, path, scratch / "data", settings, tokenizer, micro)

    trainer = _trainer(settings, spread, ctx.world)
    control = NemoStepControl(ctx, settings, source)
    if settings.lora_rank is not None:
        lora.connect(settings, network, trainer)
    if settings.save_beside:
        control.beside = beside.connect(trainer)
    trainer.callbacks.append(control)  # not an argument: NeMo writes the arguments into the checkpoint's description
    if rows_at is not None:
        rows = held_out.rows_of(
            spec.kind, spec.inputs["data"], rows_at, settings, tokenizer.tokenizer, scratch / SPLIT, ctx
        )
        control.validate = held_out.NemoValidation(trainer, rows, micro, ctx)
    resume = _resume(ctx, settings, source, trainer)

    began = time.monotonic()
    start = llm.pretrain if spec.kind == "cpt" else llm.finetune
    more: dict[str, Any] = {} if spec.kind == "cpt" else {"tokenizer": "data"}
    start(
        model=network,
        data=module,
        trainer=trainer,
        log=_logger(scratch),
        resume=resume,
        optim=_optimizer(settings),
        **more,
    )
    metrics = packed | measured.metrics(
        spec,
        settings,
        control,
        time.monotonic() - began,
        micro,
        ctx.world,
        recompute=settings.recompute,
        tensor=spread.tensor,
        pipeline=spread.pipeline,
        context=spread.context,
    )
    if control.trained is not None:
        metrics["trained_parameters"] = control.trained
    if control.stopped:
        return Result("stopped", control.step, metrics)
    if ctx.rank == 0:
        layout.check(ctx.output)
    return Result("done", control.step, metrics | control.metrics)


def _resume(ctx: WorkContext, settings: NemoSettings, source: Path, trainer: nl.Trainer) -> nl.AutoResume | None:
    """From ``source`` where there is no save; else None, and the trainer has the path of the newest: an explicit one,
    where NeMo would take the newest directory."""
    save, ctx.saves.validations = ranks.on_first(lambda: (ctx.saves.resume(), ctx.saves.validations))
    if save is None:
        return nl.AutoResume(restore_config=nl.RestoreConfig(path=str(source), load_artifacts=False))
    trainer.ckpt_path = str(save[1]) if settings.lora_rank is None else lora.save_of(save[1], source)
    return None


def _trainer(settings: NemoSettings, spread: Parallel, world: int) -> nl.Trainer:
    gpu = torch.cuda.is_available()
    mixed = settings.precision == "bf16"
    # Replicas add their gradients up while the backward pass goes on. Not of adapters: theirs are small.
    overlap = spread.replicas(world) > 1 and settings.lora_rank is None
    strategy = nl.MegatronStrategy(
        tensor_model_parallel_size=spread.tensor,
        pipeline_model_parallel_size=spread.pipeline,
        context_parallel_size=spread.context,
        sequence_parallel=settings.sequence_parallel,
        pipeline_dtype=torch.bfloat16 if mixed else torch.float32,
        process_group_backend="nccl" if gpu else "gloo",
        ckpt_async_save=False,  # a save is sealed when it returns
        ckpt_torch_dist_multiproc=cpu.writers(),
        ddp=DistributedDataParallelConfig(check_for_nan_in_grad=True, overlap_grad_reduce=overlap),
    )
    if world > 1:
        _make_groups(strategy)
    # Said outright: in a job of Slurm Lightning would take SLURM_NTASKS for the world and requeue by itself.
    environment = TorchElasticEnvironment() if world > 1 else LightningEnvironment()
    nodes, local = _shape(world)
    return nl.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=local,
        num_nodes=nodes,
        max_steps=settings.steps,
        limit_val_batches=0,  # StepControl validates
        num_sanity_val_steps=0,
        val_check_interval=None,
        log_every_n_steps=1,
        enable_checkpointing=False,  # StepControl saves
        enable_progress_bar=False,
        use_distributed_sampler=False,
        logger=False,
        plugins=[
            nl.MegatronMixedPrecision(precision="bf16-mixed" if mixed else "32", **recipes.FP8[settings.fp8]),
            environment,
        ],
        strategy=strategy,
    )


def _make_groups(strategy: nl.MegatronStrategy) -> None:
    """Have Megatron's groups made: NeMo does it only where it joins the processes itself, and here they are joined.

    On the object, as a class of our own would stand in the checkpoint's description.
    """
    join = strategy.setup_distributed

    def setup_distributed() -> None:
        join()
        init_model_parallel(strategy.model)
        if strategy.data_sampler:
            strategy.data_sampler.setup(strategy.cluster_environment.global_rank())

    strategy.setup_distributed = setup_distributed


def _shape(world: int) -> tuple[int, int]:
    """(nodes, processes on this node) from torchrun's variables."""
    import os

    local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    return world // local, local


def _optimizer(settings: NemoSettings) -> nl.MegatronOptimizerModule:
    """Adam over Megatron's buffers.

    Raises:
        BadSettings: a distributed optimizer that could not be saved.
    """
    distributed = compat.distributed_optimizer(settings.distributed_optimizer)
    config = OptimizerConfig(
        optimizer="adam",
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        clip_grad=settings.max_grad_norm,
        bf16=settings.precision == "bf16",
        use_distributed_optimizer=distributed,
    )
    return nl.MegatronOptimizerModule(config=config, lr_scheduler=Schedule(settings))


def _logger(scratch: Path) -> nl.NeMoLogger:
    return nl.NeMoLogger(
        log_dir=str(scratch),
        name="log",
        use_datetime_version=False,
        version="",
        ckpt=None,
        update_logger_directory=False,
        log_global_rank_0_only=True,
    )
