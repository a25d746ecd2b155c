"""One AutoModel stage: NVIDIA's recipe with our saves, our stop and our reports inside its loop."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from nemo_automodel.components.checkpoint.config import SaveConsolidatedMode
from nemo_automodel.components.config.loader import ConfigNode, load_yaml_config
from nemo_automodel.components.datasets.utils import default_collater
from nemo_automodel.recipes.llm.train_ft import TrainFinetuneRecipeForNextTokenPrediction

# AutoModel's reader of configurations takes only modules that are loaded, as data is here.
from jobs.backends.automodel import adapters, data, layout, render
from jobs.backends.automodel.render import AutomodelPaths
from jobs.backends.automodel.settings import AutomodelSettings
from jobs.core import files
from jobs.core.spec import Input, StageSpec
from jobs.core.validation import LOSS, SPLIT
from jobs.encoding.tokens import IGNORED
from jobs.training import cpu, finished, measured, pairs, ranks, tokenizers, tokens, validation
from jobs.training.interface import Diverged, Result, Unfinished, WorkContext
from jobs.training.order import tell_order
from jobs.training.validation import Watch


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train ``spec``; called on every rank.

    Raises:
        BadSettings: a batch that does not divide, or a save made by another number of processes.
        DataError: a row that cannot be used.
        Diverged: the loss became infinite or not a number.
    """
    settings = AutomodelSettings.read(spec.settings)
    micro = settings.micro(ctx.world)  # refuse before anything is written
    cpu.use_threads(settings.threads)
    scratch = spec.stage_paths.root / "automodel"
    ranks.start(ctx.world, ctx.collective_seconds)
    source = spec.inputs["checkpoint"].output
    config = scratch / "config.yaml"
    adapters.check_targets(settings.lora_targets, source)

    validates = validation.rows_of(spec.inputs["data"], settings) is not None
    path, count = _data(spec, ctx, settings, scratch)
    settings = settings.counted(count)
    tell_order(ctx, settings, count)

    def prepare() -> bool:
        restore = _resume_point(ctx)
        place = AutomodelPaths(source, path, scratch, ctx.world, torch.cuda.is_available(), restore)
        shutil.rmtree(scratch / "checkpoints", ignore_errors=True)
        scratch.mkdir(parents=True, exist_ok=True)
        files.write_json(config, render.configuration(spec.kind, settings, place))
        return restore is None

    is_new = ranks.on_first(prepare)
    ctx.saves.validations = ranks.on_first(lambda: ctx.saves.validations)  # every process decides by them
    recipe = Watched(load_yaml_config(config), ctx, settings)
    if validates:
        recipe.__dict__["held_out"] = _held_out(spec, ctx, settings, scratch)
    began = time.monotonic()
    recipe.setup()
    if settings.lora_rank is not None and is_new:
        adapters.draw(recipe.model_parts[0], settings.seed)
    recipe.run_train_validation_loop()
    metrics = measured.metrics(
        spec,
        settings,
        recipe,
        time.monotonic() - began,
        micro,
        ctx.world,
        recompute="full" if settings.recompute else "none",
        tensor=settings.tensor_parallel,
        context=settings.context_parallel,
    )
    if recipe.stopped:
        return Result("stopped", recipe.done, metrics)
    if ctx.rank == 0:
        _finish(scratch / "checkpoints", source, ctx.output, settings)
    ranks.barrier()
    return Result("done", recipe.done, metrics | recipe.watch.metrics(recipe.done, recipe.chosen))


def _data(spec: StageSpec, ctx: WorkContext, settings: AutomodelSettings, scratch: Path) -> tuple[Path, int]:
    """The file of rows, or the prefix of the files of a corpus, and how many examples it has."""
    given = spec.inputs["data"]
    tokenizer = tokenizers.load(spec.inputs["checkpoint"].output)
    if spec.kind == "cpt":
        prefix = tokens.corpus(given, settings.split, tokenizer, scratch / "data", ctx)
        mixed = tokens.mix(prefix, settings.seed, scratch / "data", ctx)
        return prefix, len(tokens.Blocks(prefix, settings.sequence_length, settings.seed, 1, mixed))
    rows = _rows(given, settings.split, settings, tokenizer, scratch, ctx)
    return given.output / f"{settings.split}.jsonl", len(rows)


def _rows(
    given: Input, split: str, settings: AutomodelSettings, tokenizer: Any, scratch: Path, ctx: WorkContext
) -> Any:
    """The rows of a split, mapped into memory."""
    fit = pairs.Fit(settings.sequence_length, settings.too_long)
    source = given.output / f"{split}.jsonl"
    return pairs.dataset(source, "instructions", given.fingerprint, tokenizer, fit, scratch / split, ctx)[0]


def _held_out(spec: StageSpec, ctx: WorkContext, settings: AutomodelSettings, scratch: Path) -> data.InOrder:
    """The samples to validate on."""
    given = spec.inputs["data"]
    tokenizer = tokenizers.load(spec.inputs["checkpoint"].output)
    if spec.kind == "cpt":
        place = scratch / SPLIT
        prefix = tokens.corpus(given, SPLIT, tokenizer, place, ctx)
        mixed = tokens.mix(prefix, settings.seed, place, ctx)
        blocks = tokens.Blocks(prefix, settings.sequence_length, settings.seed, 1, mixed, rest=True)
        return data.InOrder(lambda index: data.block_of(blocks, index), range(len(blocks)))
    rows = _rows(given, SPLIT, settings, tokenizer, scratch, ctx)
    return data.of_rows(rows, tokenizer, range(len(rows)))


def _resume_point(ctx: WorkContext) -> Path | None:
    """Directory of the newest save that verifies, on rank 0.

    Raises:
        BadSettings: it was made by another number of processes: AutoModel keeps the place in the data for each.
    """
    newest = ctx.saves.resume()
    if newest is None:
        return None
    step, directory = newest
    layout.refuse_other_ranks(directory, step, ctx.world)
    return directory / "automodel"


def _finish(checkpoints: Path, source: Path, output: Path, settings: AutomodelSettings) -> None:
    """Move the model of the last checkpoint out; the tokenizer comes from the input as it was."""
    whole = layout.consolidated if settings.lora_rank is None else layout.adapters
    found = [path for entry in checkpoints.glob("epoch_*_step_*") if (path := whole(entry)) is not None]
    if len(found) != 1:
        raise Unfinished(f"{checkpoints}: {len(found)} finished models, one is needed")
    if settings.lora_rank is not None:
        adapters.write(found[0], source, output, settings.output == "adapter")
        return
    for entry in sorted(found[0].iterdir()):
        if not tokenizers.is_carried(entry.name):
            shutil.move(entry, output / entry.name)
    finished.finish(source, output)


class Watched(TrainFinetuneRecipeForNextTokenPrediction):
    """The recipe, with every step reported and every save sealed. ``stopped``: left on request, after a save.

    ``done`` counts steps from 1, where AutoModel names them from 0. ``durations``: seconds of each step of this start,
    without its save; ``clock``: when the newest ended. ``chosen``: the step of which the finished model is, if that is
    not the last one.
    """

    def __init__(self, config: ConfigNode, ctx: WorkContext, settings: AutomodelSettings) -> None:
        super().__init__(config)
        # Past the recipe's own __setattr__, which would save whatever looks like a state.
        self.__dict__.update(
            ctx=ctx, settings=settings, stopped=False, done=0, losses=[], tokens=0, durations=[], clock=None,
            watch=Watch(ctx, settings), held_out=None, chosen=None,
        )  # fmt: skip

    def _run_train_optim_step(self, batches: Any, max_grad_norm: float | None = None) -> Any:
        began = self.clock or time.monotonic()  # the end of the step before: reading its data counts
        if self.settings.lora_dropout:  # drawn from the number of the step, so that a resumed run repeats it
            torch.manual_seed(hash((self.settings.seed, self.step_scheduler.step, self._get_dp_rank())))
        sample = super()._run_train_optim_step(batches, max_grad_norm)
        loss = float(sample.metrics["loss"])
        done = self.step_scheduler.step + 1
        validated = self.watch.validated(done, None if self.held_out is None else self.validate)
        due = self.ctx.stop.save_due(done, self.settings.steps, self.settings.save_every)
        asked = [self.ctx.stop.should_stop(), not math.isfinite(loss), due]
        stop, broken, due = ranks.any_of(asked, torch.device("cpu"))
        if broken:
            raise Diverged(f"the loss is {loss} at step {done}: lower lr, or look at the data of this step")
        now = time.monotonic()
        self.losses.append(loss)
        self.durations.append(now - began - validated)
        more = {LOSS: self.ctx.saves.validations[done]} if validated else {}
        self.__dict__.update(done=done, clock=now, tokens=self.tokens + int(sample.metrics["num_tokens_per_step"]))
        self.ctx.progress.report(
            done,
            self.settings.steps,
            loss=loss,
            lr=float(sample.metrics["lr"]),
            grad_norm=float(sample.metrics["grad_norm"]),
            tokens_per_second=float(sample.metrics["num_tokens_per_step"]) / max(self.durations[-1], 1e-9),
            **measured.memory(),
            **more,
        )
        # The recipe asks it at the end of this step whether to save.
        self.step_scheduler.ckpt_every_steps = done if self.watch.saves(done, due) else self.settings.steps
        ends = self.watch.ends(done)
        self.__dict__["stopped"] = stop and not ends
        if (stop or ends) and done < self.settings.steps:
            self.step_scheduler.sigterm_flag = True  # the recipe saves at the end of this step and leaves
        return sample

    def log_train_metrics(self, log_data: Any) -> None:
        """As it is, but that the recipe does not count the most memory anew for each step: the seal and the reports say
        that of the whole start, and the next plan refuses by it."""
        anew = torch.cuda.reset_peak_memory_stats
        vars(torch.cuda)["reset_peak_memory_stats"] = lambda: None
        try:
            super().log_train_metrics(log_data)
        finally:
            vars(torch.cuda)["reset_peak_memory_stats"] = anew

    def validate(self) -> float:
        """The mean over all learned tokens of the validation split, by the recipe's own pass over batches of ours."""
        found = self._run_validation_epoch(self._held_out_batches())
        for part in self.model_parts:
            part.train()
        return float(found.metrics["val_loss"])

    def _held_out_batches(self) -> Iterator[dict[str, Any]]:
        """Those of this process; a row that another one counts has no label."""
        replica, replicas = self._get_dp_rank(), self._get_dp_group_size()
        todo = list(validation.passes(len(self.held_out), replica, replicas, self.settings.micro(self.ctx.world)))
        told = validation.Told(self.ctx, len(todo))
        for number, (taken, counts) in enumerate(todo):
            told(number)
            rows = [self.held_out[index] for index in taken]
            yield default_collater(
                rows if counts else [{**row, "labels": [IGNORED] * len(row["labels"])} for row in rows]
            )

    def save_checkpoint(self, epoch: int, step: int, *args: Any, **more: Any) -> None:
        """Save, and seal what is no finished checkpoint. One that a stop asked for is consolidated, too: the model
        can be had from it even if nobody goes on."""
        config = self.checkpointer.config
        if self.watch.ends(step + 1):
            self._take_chosen(step + 1)
            config.save_consolidated = SaveConsolidatedMode.EVERY  # also at an early end
            super().save_checkpoint(epoch, step, *args, **more)
            return
        began = time.monotonic()
        usual = config.checkpoint_dir, config.save_consolidated
        target = self.ctx.saves.directory / f"checkpoint-{step + 1}"
        ranks.on_first(lambda: shutil.rmtree(target, ignore_errors=True))
        config.checkpoint_dir = str(target)
        if self.stopped:
            config.save_consolidated = SaveConsolidatedMode.EVERY
        try:
            super().save_checkpoint(epoch, step, *args, **more)
        finally:
            config.checkpoint_dir, config.save_consolidated = usual
        ranks.on_first(lambda: self._put_in_order(target, epoch, step))
        self.watch.seal_beside(step + 1, not self.stopped)
        self.ctx.stop.saved(time.monotonic() - began)
        self.__dict__["clock"] = time.monotonic()

    def _take_chosen(self, done: int) -> None:
        """Load the weights that the finished model is to have, where they are not those of ``done``."""
        found = ranks.on_first(lambda: self.watch.chosen(done))
        if found is not None:
            self.__dict__["chosen"] = found[0]
            self.checkpointer.load_model(self.model_parts, str(found[1] / "automodel" / "model"))

    def _put_in_order(self, target: Path, epoch: int, step: int) -> None:
        for entry in list(target.iterdir()):
            if entry.is_symlink() or entry.is_file():
                entry.unlink()  # LATEST and the like
        (target / f"epoch_{epoch}_step_{step}").rename(target / "automodel")
        files.write_json(target / layout.RANKS, {"ranks": self.ctx.world})
