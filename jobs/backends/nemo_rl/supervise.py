"""One stage of SFT or DPO: NeMo-RL runs as a child process, its checkpoints are sealed as they appear.

NeMo-RL resumes from the highest ``step_N`` in its directory without asking from which model it came, so the directory
lies in the store entry (whose name is the fingerprint of inputs and settings) and holds, at every start, exactly the
newest save that verifies. TERM saves nothing there; only its own clock does (``checkpoint_must_save_by``), which starts
after set-up: how long that takes is learned from the starts before.
"""

from __future__ import annotations

import shutil
import threading
import time
from dataclasses import replace
from pathlib import Path

from jobs.backends.nemo_rl import checkout, cluster, order, render, settings, start, steps, texts, validate
from jobs.backends.nemo_rl.child import Child, DriverFailed
from jobs.backends.nemo_rl.progress import Expected
from jobs.backends.nemo_rl.render import NemoRlPaths
from jobs.core import files
from jobs.core.spec import StageSpec
from jobs.training import rope, tokenizers
from jobs.training.interface import Result, Unfinished, WorkContext
from jobs.training.order import tell_order
from jobs.training.settings import BadSettings

__all__ = ["DriverFailed", "run"]

SETUP_SECONDS = 180.0
"""Set-up assumed at the first start of a stage: imports, Ray workers, loading the model twice."""


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train ``spec``.

    Raises:
        BadSettings, DataError, MissingGpus: before any training.
        DriverFailed, Unfinished: afterwards.
    """
    given = settings.read(spec.kind, spec.settings)
    found = checkout.find()
    scratch = spec.stage_paths.root / "nemo_rl"
    scratch.mkdir(parents=True, exist_ok=True)
    source = spec.inputs["checkpoint"].output
    model = rope.readable_at(source, scratch / "model")
    data = texts.prepare(given, found.schema, spec.inputs["data"].output / f"{given.split}.jsonl", model, scratch)
    if data.other or data.skipped:
        ctx.event("rows", total=data.rows, with_other_ids=data.other, skipped=data.skipped)
    given = given.counted(data.rows)
    tell_order(ctx, given, data.rows)
    if found.schema.clock:  # one that has no clock is refused without save_every
        given = replace(given, save_every=ctx.stop.save_period(given.steps, given.save_every))
    data = order.write(data, given, found.schema, scratch)
    shape = cluster.ClusterShape.of_job()
    cluster.wait(shape, given.ray_seconds)

    work = ctx.saves.directory / "nemo_rl"
    resumed = _lay_out(ctx, work)
    place = NemoRlPaths(
        model,
        data.path,
        data.rows,
        work,
        scratch / "logs",
        shape.nodes,
        shape.gpus_per_node,
        _budget(spec, ctx, scratch),
        data.bos,
        data.eos,
    )
    config = scratch / "config.yaml"
    files.write_json(config, render.configuration(given, place, found))
    asked = _Asked(config, spec.kind)

    began = time.monotonic()
    expected = Expected(render.name_of(found.schema.data, spec.kind), str(data.path), data.rows)
    child = Child(spec, ctx, given, scratch, work, resumed, expected, found.schema.clock)
    child.run(list(start.command(given, found, config)))
    metrics = {"seconds": time.monotonic() - began, **child.metrics, "validated": asked.answer(ctx)}
    if data.other is not None:
        metrics["rows_with_other_ids"] = data.other
    step = max(steps.complete(work), default=0)
    if step < resumed or step == 0:
        raise Unfinished(f"{work}: NeMo-RL ended without an error but left no complete checkpoint")
    if steps.total(work / f"step_{step}") < given.steps:
        ctx.stop.should_stop()  # notes the reason for the verdict
        return Result("stopped", step, metrics)
    _finish(ctx, source, work / f"step_{step}")
    return Result("done", step, metrics)


class _Asked:
    """NeMo-RL's own parser, asked beside the run: on the login node it may not have been there to be asked."""

    def __init__(self, config: Path, kind: str) -> None:
        self._answer: validate.ParserAnswer | None = None
        self._thread = threading.Thread(target=self._ask, args=(config, kind), daemon=True)
        self._thread.start()

    def _ask(self, config: Path, kind: str) -> None:
        try:
            self._answer = validate.ask(config, kind)
        except (BadSettings, OSError) as error:
            self._answer = validate.ParserAnswer(False, str(error))

    def answer(self, ctx: WorkContext) -> bool:
        """Whether the configuration was read; says why not."""
        self._thread.join(60)
        found = self._answer or validate.ParserAnswer(False, "no answer yet")
        if not found.read:
            ctx.event("not_validated", reason=found.reason)
        return found.read


def _lay_out(ctx: WorkContext, work: Path) -> int:
    """Make NeMo-RL's directory hold the newest valid save and nothing else; its step (0: none)."""
    shutil.rmtree(work, ignore_errors=True)
    newest = ctx.saves.resume()
    work.mkdir(parents=True)
    if newest is None:
        return 0
    step, directory = newest
    steps.link_tree(directory / "step", work / f"step_{step}")
    return step


def _budget(spec: StageSpec, ctx: WorkContext, scratch: Path) -> float | None:
    """Seconds that NeMo-RL may train after its set-up, so that its last save fits; None where no end is known."""
    end = ctx.stop.end()
    if end is None:
        return None
    learned = files.read_json_or_none(scratch / "setup.json") or {}
    setup = float(learned.get("seconds", SETUP_SECONDS))
    save = 3 * float(learned.get("save_seconds", 0.0))  # three times the longest seen, as for every stop of ours
    left = end - time.time() - setup - max(spec.lead_seconds, save)
    ctx.event("budget", seconds=round(left), setup_seconds=round(setup), end=round(end))
    return max(1.0, left)


def _finish(ctx: WorkContext, model: Path, step: Path) -> None:
    """The finished checkpoint: weights by link, without the optimizer; the files of the model it started from."""
    for name in ("policy/weights", "policy/tokenizer"):
        if (step / name).is_dir():
            steps.link_tree(step / name, ctx.output / name)
    for name in ("config.yaml", "training_info.json"):
        shutil.copyfile(step / name, ctx.output / name)
    tokenizers.carry_as_hf(model, ctx.output)
