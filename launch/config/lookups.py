"""Names in a pipeline that stand for a stage: whether there is one, of the kind that is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from launch.base.text import suggest
from launch.config.document.positions import KeyPath, Problem

if TYPE_CHECKING:
    from launch.config.pipeline import Pipeline


def of_kinds(pipeline: Pipeline, kinds: tuple[str, ...]) -> list[str]:
    """The stages of these kinds."""
    return [name for name, stage in pipeline.stages.items() if stage.kind in kinds]


def reference(pipeline: Pipeline, path: KeyPath, name: str, kinds: tuple[str, ...], extra: str = "") -> list[Problem]:
    """What is wrong with ``name`` at ``path``: it has to be ``extra``, or a stage of one of ``kinds`` and not the one
    that it stands in."""
    own = path[1] if path[0] == "stages" else None
    options = [option for option in of_kinds(pipeline, kinds) if option != own]
    if extra:
        if name == extra:
            return []
        options.insert(0, extra)
    if name == own:
        return [Problem(path, f"{name!r} is this stage itself; {suggest('', options)}")]
    if name not in pipeline.stages:
        return [Problem(path, f"there is no stage {name!r}; {suggest(name, options)}")]
    kind = pipeline.stages[name].kind
    if kind not in kinds:
        return [Problem(path, f"{name!r} is of kind {kind}, needed is {' or '.join(kinds)}; {suggest('', options)}")]
    return []
