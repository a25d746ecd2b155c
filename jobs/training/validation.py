"""Validation while a stage trains: when it is due, what follows from it, and which rows each process takes."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from jobs.core import validation
from jobs.core.spec import Input
from jobs.core.validation import SPLIT
from jobs.training.interface import Diverged, WorkContext
from jobs.training.settings import BadSettings, TrainingSettings

_REPORT_SECONDS = 10.0


def rows_of(given: Input, settings: TrainingSettings) -> Path | None:
    """The rows to validate on; None where the stage does not, or its data are not made yet.

    Raises:
        BadSettings: the data have none.
    """
    path = given.output / f"{SPLIT}.jsonl"
    if settings.validate_every is None or not given.output.is_dir():
        return None
    if not path.is_file() or not path.stat().st_size:
        raise BadSettings(
            f"validate_every {settings.validate_every}: {path} has no rows: give stage {given.stage!r} a share "
            "(split: {validation: 0.05}), or leave validate_every out"
        )
    return path


class Watch:
    """What one start makes of the validations: those of the save that it goes on from, which ``ctx.saves`` holds, and
    its own. Every process that decides by it needs the same ones."""

    def __init__(self, ctx: WorkContext, settings: TrainingSettings) -> None:
        self._ctx = ctx
        self._settings = settings

    def due(self, step: int) -> bool:
        """Whether to validate after ``step``."""
        every = self._settings.validate_every
        return every is not None and (step % every == 0 or step >= self._settings.steps)

    def validated(self, step: int, validate: Callable[[], float] | None) -> float:
        """Validate after ``step``, where that is due; the seconds that it took.

        Raises:
            Diverged: the loss is not a number.
        """
        if validate is None or not self.due(step):
            return 0.0
        began = time.monotonic()
        self.add(step, validate())
        return time.monotonic() - began

    def add(self, step: int, loss: float) -> None:
        """Keep the loss of a validation.

        Raises:
            Diverged: it is not a number.
        """
        if not math.isfinite(loss):
            raise Diverged(f"the validation loss is {loss} at step {step}: lower lr, or look at the validation split")
        self._ctx.saves.validations[step] = loss

    @property
    def best(self) -> int | None:
        """The step of which the finished model is to be, as far as validations decide it; None: of the last one."""
        return validation.best_step(self._ctx.saves.validations) if self._settings.select == "best" else None

    def ends(self, step: int) -> bool:
        """Whether training ends with ``step``, by its steps or early."""
        return step >= self._settings.steps or self._stops_early(step)

    def saves(self, step: int, due: bool) -> bool:
        """Whether to save after ``step``: where it is ``due``, or the finished model may be the one of it. Not at an
        early end: the finished model is written next, and a start that has to repeat steps ends at the same one."""
        if self.ends(step):
            return due and step >= self._settings.steps
        return due or self.best == step

    def _stops_early(self, step: int) -> bool:
        wanted = self._settings.early_stopping
        return wanted is not None and validation.stop_step(self._ctx.saves.validations, wanted) == step

    def tidy(self) -> None:
        """Remove saves that are not needed any more."""
        self._ctx.saves.keep_last(self._settings.keep_saves, self.best)

    def seal_beside(self, step: int, goes_on: bool, write: Callable[[], None] | None = None) -> None:
        """``Saves.seal_beside``, which keeps what is still needed."""
        saves, stop = self._ctx.saves, self._ctx.stop
        saves.seal_beside(step, self._settings.keep_saves, stop.sealed, goes_on, self.best, write)

    def chosen(self, step: int) -> tuple[int, Path] | None:
        """The save of which the finished model is to be; None: that of ``step``, where training has ended.

        A save that does not verify is passed over for the next best one, with an event.

        Raises:
            Exception: what went wrong with the save that was being sealed.
        """
        if self._settings.select != "best":
            return None
        losses = self._ctx.saves.validations
        for other in sorted(losses, key=lambda each: (losses[each], each)):
            if other == step:
                return None
            self._ctx.saves.wait()  # it may be the one that is being sealed
            if (path := self._ctx.saves.verified(other)) is not None:
                return other, path
        return None

    def metrics(self, step: int, chosen: int | None = None) -> dict[str, Any]:
        """For the seal of a stage that ended with ``step`` and took the model of ``chosen`` (None: of ``step``)."""
        losses = self._ctx.saves.validations
        best = validation.best_step(losses)
        if best is None:
            return {}
        found: dict[str, Any] = {
            validation.LOSS: losses[max(losses)],
            "best_validation_loss": losses[best],
            "best_step": best,
        }
        if self._settings.select == "best":
            found[validation.SELECTED] = step if chosen is None else chosen
        wanted = self._settings.early_stopping
        if wanted is not None and step < self._settings.steps and self._stops_early(step):
            reason = (
                f"{wanted.patience} validations in a row were not {wanted.min_change:g} better than the best before"
            )
            found[validation.EARLY] = {"step": step, "of": self._settings.steps, "best_step": best, "reason": reason}
        return found


def passes(count: int, rank: int, world: int, micro: int) -> Iterator[tuple[list[int], bool]]:
    """The passes of one process over ``count`` rows: which rows, and whether they count.

    Every process makes as many, each of as many rows as that of the others, since a forward pass may hold collectives;
    at the end some take a row that another one counts.
    """
    whole = count // (world * micro)
    for number in range(whole):
        first = (number * world + rank) * micro
        yield list(range(first, first + micro)), True
    for first in range(whole * world * micro, count, world):
        yield [min(first + rank, count - 1)], first + rank < count


class Told:
    """Says in the progress of a stage how far a validation is, where it takes long: silence is taken for a hang."""

    def __init__(self, ctx: WorkContext, total: int) -> None:
        self._ctx, self._total, self._said = ctx, total, time.monotonic()

    def __call__(self, done: int) -> None:
        if time.monotonic() - self._said > _REPORT_SECONDS:
            self._said = time.monotonic()
            self._ctx.progress.report(done, self._total, SPLIT)
