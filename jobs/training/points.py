"""The models of a training that a curve is drawn of: where it began, its saves that stay, and the finished one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jobs.core import seal, validation
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.training import interface
from jobs.training.interface import BackEnd

Load = Callable[[str], BackEnd]
"""The back end of a name: the one that trained makes models of its saves."""


class SavesMissing(RuntimeError):
    """Saves that the curve is to measure are not there."""

    failure = FailureClass.MISSING_INPUT


@dataclass(frozen=True)
class Point:
    """A model of the training: ``save`` is a directory that the trainer wrote, ``model`` a finished one."""

    step: int
    save: Path | None = None
    model: Path | None = None
    content: str = ""
    """Content id of its seal."""


def points(spec: StageSpec) -> list[Point]:
    """The models, the earliest first: the one that training began with (step 0), its saves, and the finished one.

    Raises:
        SavesMissing: naming the steps.
        SealBroken: a seal cannot be read.
    """
    trained, every = spec.inputs["checkpoint"], spec.settings["curve"]["every"]
    made = seal.load(trained.paths.seal)
    last = int(made.metrics.get(validation.SELECTED) or made.step or 0)
    found = [Point(0, model=spec.inputs["source"].output)]
    there = set(trained.paths.sealed_steps())
    wanted = [step for step in range(every, (made.step or 0) + 1, every) if step != last]
    if missing := [str(step) for step in wanted if step not in there]:
        raise SavesMissing(
            f"stage {trained.stage!r}: its saves of step {', '.join(missing)} are not in {trained.paths.saves}: "
            "they were removed; move its entry aside to train it again"
        )
    for step in wanted:
        content = seal.load(trained.paths.save_seal(step)).content
        found.append(Point(step, save=trained.paths.save(step), content=content))
    found.append(Point(last, model=trained.output, content=made.content))
    return sorted(found, key=lambda point: point.step)


def model_of(spec: StageSpec, point: Point, target: Path, load: Load) -> Path:
    """The finished model of a point; one that must be made of a save is made in ``target``, by its back end.

    Raises:
        SealBroken: the save does not match its seal.
    """
    if point.model is not None:
        return point.model
    assert point.save is not None
    seal.verify(point.save, point.save / "seal.json")
    backend = load(spec.settings["curve"]["backend"])
    shutil.rmtree(target, ignore_errors=True)
    interface.of_save(backend, point.save, spec.inputs["source"].output, target)
    return target
