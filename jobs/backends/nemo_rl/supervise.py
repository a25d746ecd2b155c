"""One DPO stage: NeMo-RL runs as a child process, its checkpoints are sealed as they appear.

NeMo-RL resumes from the highest ``step_N`` in its directory without asking from which model it came, so the directory
lies in the store entry (whose name is the fingerprint of inputs and settings) and holds, at every start, exactly the
newest save that verifies. TERM saves nothing there; only its own clock does (``checkpoint_must_save_by``), which starts
after set-up: how long that takes is learned from the starts before.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

from jobs import examples, tokenizers
from jobs.backends import Result, Unfinished, WorkContext
from jobs.backends.nemo_rl import checkout, cluster, progress, render, start, steps
from jobs.backends.nemo_rl.render import Place
from jobs.backends.nemo_rl.settings import DpoSettings
from jobs.core import files
from jobs.core.spec import StageSpec
from jobs.core.symptoms import recognise
from jobs.core.verdict import FailureClass

SETUP_SECONDS = 180.0
"""Set-up assumed at the first start of a stage: imports, Ray workers, loading the model twice."""

POLL_SECONDS = 1.0


class DriverFailed(RuntimeError):
    """NeMo-RL ended with an error; ``failure`` is what its last lines show."""

    def __init__(self, text: str, failure: FailureClass) -> None:
        super().__init__(text)
        self.failure = failure


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Train ``spec``.

    Raises:
        BadSettings, DataError, MissingGpus: before any training.
        DriverFailed, Unfinished: afterwards.
    """
    settings = DpoSettings.read(spec.settings)
    found = checkout.find()
    data = spec.inputs["data"].output / f"{settings.split}.jsonl"
    rows = len(examples.read_rows(data, "preferences"))
    model = spec.inputs["checkpoint"].output
    shape = cluster.Shape.of_job()
    cluster.wait(shape, settings.ray_seconds)

    scratch = spec.stage_paths.root / "nemo_rl"
    work = ctx.saves.directory / "nemo_rl"
    resumed = _lay_out(ctx, work)
    place = Place(
        model, data, rows, work, scratch / "logs", shape.nodes, shape.gpus_per_node, _budget(spec, ctx, scratch)
    )
    config = scratch / "config.yaml"
    scratch.mkdir(parents=True, exist_ok=True)
    files.write_atomic(config, render.text(render.configuration(settings, place, found)))

    began = time.monotonic()
    child = _Child(spec, ctx, settings, scratch, work, resumed)
    child.run(list(start.command(settings, found, config)))
    metrics = {"seconds": time.monotonic() - began, **child.metrics}
    step = max(steps.complete(work), default=0)
    if step < resumed or step == 0:
        raise Unfinished(f"{work}: NeMo-RL ended without an error but left no complete checkpoint")
    if steps.total(work / f"step_{step}") < settings.steps:
        ctx.stop.should_stop()  # notes the reason for the verdict
        return Result("stopped", step, metrics)
    _finish(ctx, model, work / f"step_{step}")
    return Result("done", step, metrics)


def _lay_out(ctx: WorkContext, work: Path) -> int:
    """Make NeMo-RL's directory hold the newest sound save and nothing else; its step (0: none)."""
    shutil.rmtree(work, ignore_errors=True)
    newest = ctx.saves.newest_sound()
    ctx.saves.discard_newer_than(newest[0] if newest else 0)
    work.mkdir(parents=True)
    if newest is None:
        return 0
    step, directory = newest
    steps.link_tree(directory / "step", work / f"step_{step}")
    ctx.event("resumed", step=step, path=str(directory))
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
    (ctx.output / "hf").mkdir()
    tokenizers.carry_over(model, ctx.output / "hf")
    shutil.copyfile(model / "config.json", ctx.output / "hf" / "config.json")


class _Child:
    """NeMo-RL as a process: its output becomes progress, its checkpoints are sealed, its end is judged."""

    def __init__(
        self, spec: StageSpec, ctx: WorkContext, settings: DpoSettings, scratch: Path, work: Path, resumed: int
    ) -> None:
        self._spec = spec
        self._ctx = ctx
        self._settings = settings
        self._scratch = scratch
        self._work = work
        self._sealed = resumed
        self._reader = progress.Reader(resumed)
        self._tail: deque[str] = deque(maxlen=200)
        self._setup: float | None = None
        self._saving: float | None = None
        self._save_seconds = 0.0
        self.metrics: dict[str, Any] = {}

    def run(self, command: list[str]) -> None:
        """Start it and see it through.

        Raises:
            DriverFailed: it ended with an exit code other than 0.
        """
        began = time.monotonic()
        child = subprocess.Popen(
            command, env=cluster.environment(), cwd=self._scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", bufsize=1,
        )  # fmt: skip
        listener = threading.Thread(target=self._listen, args=(child, began), daemon=True)
        listener.start()
        asked = False
        try:
            while child.poll() is None:
                time.sleep(POLL_SECONDS)
                newer = self._seal()
                # It cannot be told to save. Asked to stop by hand, it is ended after its next save; the end of the
                # allocation it knows itself.
                asked = asked or self._spec.stage_paths.stop.exists()
                if asked and newer:
                    child.terminate()
                    child.wait(60)
                    break
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        listener.join(10)
        self._seal()
        if self._setup is not None:
            value = {"seconds": round(self._setup, 1), "save_seconds": round(self._save_seconds, 1)}
            files.write_json(self._scratch / "setup.json", value)
        if child.returncode != 0 and not asked:
            text = "".join(self._tail)
            failure, evidence = recognise(text)
            raise DriverFailed(f"NeMo-RL ended with exit code {child.returncode}: {evidence}", failure)

    def _listen(self, child: subprocess.Popen[str], began: float) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            self._tail.append(line)
            was_setting_up = self._reader.setting_up
            found = self._reader.feed(line)
            if was_setting_up and not self._reader.setting_up:
                self._setup = time.monotonic() - began
            if line.startswith("Saving checkpoint"):
                self._saving = time.monotonic()
            if found is not None:
                seconds = found.pop("step_seconds")
                self.metrics.setdefault("first_loss", found.get("loss"))
                self.metrics["last_loss"] = found.get("loss")
                self._ctx.progress.report(
                    self._reader.step, self._settings.steps, pairs_per_second=self._settings.batch_size / seconds,
                    **found,
                )  # fmt: skip

    def _seal(self) -> bool:
        """Seal what NeMo-RL has finished writing since the last look; whether there was anything."""
        newest = max(steps.complete(self._work), default=0)
        if newest <= self._sealed:
            return False
        if self._saving is not None:
            self._save_seconds = max(self._save_seconds, time.monotonic() - self._saving)
            self._saving = None
        directory = self._ctx.saves.directory / f"checkpoint-{newest}"
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        steps.link_tree(self._work / f"step_{newest}", directory / "step")
        self._ctx.saves.seal(newest)
        self._ctx.saves.keep_last(self._settings.keep_saves)
        self._sealed = newest
        return True
