"""NeMo-RL as a process: its output becomes progress, its checkpoints are sealed, its end is judged."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jobs.backends.nemo_rl import cluster, digests, progress, steps
from jobs.backends.nemo_rl.progress import Expected
from jobs.backends.nemo_rl.settings import RlSettings
from jobs.core import files
from jobs.core.hashing import FileDigest
from jobs.core.spec import StageSpec
from jobs.core.symptoms import recognise, with_advice
from jobs.core.verdict import FailureClass
from jobs.training.interface import WorkContext

POLL_SECONDS = 1.0


class DriverFailed(RuntimeError):
    """NeMo-RL ended with an error, or does something else than it was told; ``failure`` is what its lines show."""

    def __init__(self, text: str, failure: FailureClass) -> None:
        super().__init__(text)
        self.failure = failure


@dataclass
class Child:
    """One start of NeMo-RL; ``run`` sees it through. ``resumed``: the step it goes on from; ``clock``: whether it knows
    itself when the allocation ends."""

    spec: StageSpec
    ctx: WorkContext
    settings: RlSettings
    scratch: Path
    work: Path
    resumed: int
    expected: Expected
    clock: bool
    metrics: dict[str, Any] = field(default_factory=dict)
    _tail: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    _replaced: str | None = None
    _setup: float | None = None
    _saving: float | None = None
    _save_seconds: float = 0.0

    def __post_init__(self) -> None:
        self._sealed = self.resumed
        self._reader = progress.StepReader(self.resumed)

    def run(self, command: list[str]) -> None:
        """Start it and see it through.

        Raises:
            DriverFailed: it ended with an exit code other than 0, or trains on another data set.
        """
        began = time.monotonic()
        child = subprocess.Popen(
            command,
            env=cluster.environment(),
            cwd=self.scratch,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            bufsize=1,
        )
        listener = threading.Thread(target=self._listen, args=(child, began), daemon=True)
        listener.start()
        asked = False
        try:
            while child.poll() is None and self._replaced is None:
                time.sleep(POLL_SECONDS)
                newer = self._seal()
                asked = asked or self._is_asked()
                if asked and newer:
                    child.terminate()
                    with contextlib.suppress(subprocess.TimeoutExpired):  # Ray may be slow to leave; the save is sealed
                        child.wait(60)
                    break
        finally:
            if child.poll() is None:
                child.kill()
            child.wait()
        listener.join(10)
        if self._replaced is not None:  # whatever its exit code is: such a run ends with 0
            self.ctx.saves.discard_newer_than(self.resumed)
            raise DriverFailed(with_advice(FailureClass.WRONG_DATA, self._replaced), FailureClass.WRONG_DATA)
        self._seal()
        if self._setup is not None:
            value = {"seconds": round(self._setup, 3), "save_seconds": round(self._save_seconds, 3)}
            files.write_json(self.scratch / "setup.json", value)
        if child.returncode != 0 and not asked:
            failure, evidence = recognise("".join(self._tail))
            raise DriverFailed(f"NeMo-RL ended with exit code {child.returncode}: {evidence}", failure)

    def _is_asked(self) -> bool:
        """Whether it is to be ended after its next save: it cannot be told to save. Asked to stop by hand; the end of
        the allocation it knows itself, where its version can be told."""
        by_hand = self.spec.stage_paths.stop.exists() or self.ctx.stop.end() == 0
        return by_hand or (not self.clock and self.ctx.stop.should_stop())

    def _listen(self, child: subprocess.Popen[str], began: float) -> None:
        assert child.stdout is not None
        for line in child.stdout:
            sys.stdout.write(line)
            sys.stdout.flush()
            self._tail.append(line)
            self._replaced = self._replaced or self.expected.replaced(line)
            was_setting_up = self._reader.setting_up
            found = self._reader.feed(line)
            if was_setting_up and not self._reader.setting_up:
                self._setup = time.monotonic() - began
            if line.startswith("Saving checkpoint"):
                self._saving = time.monotonic()
            if found is not None:
                self._report(found)

    def _report(self, found: dict[str, Any]) -> None:
        seconds = found.pop("step_seconds")
        self.metrics.setdefault("first_loss", found.get("loss"))
        self.metrics["last_loss"] = found.get("loss")
        if seconds > 0:  # it prints two decimals
            unit = "pairs_per_second" if self.settings.KIND == "dpo" else "examples_per_second"
            found[unit] = self.settings.batch_size / seconds
        self.ctx.progress.report(self._reader.step, self.settings.steps, **found)

    def _seal(self) -> bool:
        """Seal what NeMo-RL has finished writing since the last look; whether there was anything."""
        if self._replaced is not None:
            return False
        newest = self._link_newest()
        if newest is None:
            return False
        if self._saving is not None:
            self._save_seconds = max(self._save_seconds, time.monotonic() - self._saving)
            self._saving = None
        self.ctx.saves.seal(newest, self._digests(newest))
        self.ctx.saves.keep_last(self.settings.keep_saves)
        self._sealed = newest
        return True

    def _digests(self, step: int) -> dict[str, FileDigest]:
        try:
            return digests.by_all_nodes(self.ctx.saves.directory / f"checkpoint-{step}", self.ctx.saves.depth)
        except Exception as error:  # of Ray's, which are many; this node can do it by itself
            self.ctx.event("digested_alone", step=step, reason=str(error)[:300])
            return {}

    def _link_newest(self) -> int | None:
        """Link the newest checkpoint into a save of its own, if it is none yet; its step.

        NeMo-RL removes old checkpoints as soon as a newer one has its name, never the newest. So what was linked is
        whole where it still is the newest afterwards; else the newer one is taken.
        """
        while True:
            newest = self._newest()
            if newest <= self._sealed:
                return None
            directory = self.ctx.saves.directory / f"checkpoint-{newest}"
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            try:
                steps.link_tree(self.work / f"step_{newest}", directory / "step")
            except (OSError, shutil.Error):
                if self._newest() == newest:
                    raise
            if self._newest() == newest:
                return newest
            shutil.rmtree(directory)

    def _newest(self) -> int:
        return max(steps.complete(self.work), default=0)
