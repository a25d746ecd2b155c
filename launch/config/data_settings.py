"""The settings ``prepare`` of data stages, checked by ``data_prep`` before anything is planned; paths made absolute.

Only commands may ask ``data_prep``, so this is not part of ``launch.config.pipeline``. Nothing heavy is imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from launch.config.kinds import DATA_KINDS
from launch.config.pipeline_file import PipelineFile
from launch.config.stages import DataStage, PathSource

if TYPE_CHECKING:
    from launch.config.schema.kinds import JsonSchema, WordsOfKeys


def checked(pipeline: PipelineFile) -> PipelineFile:
    """``pipeline`` with the paths in every ``prepare`` resolved. Raises InputError: ``data_prep`` rejects a setting."""
    changed = {}
    for name, stage in pipeline.pipeline.stages.items():
        if not isinstance(stage, DataStage) or stage.prepare is None:
            continue
        from data_prep import paths
        from data_prep.common.errors import SettingsError

        place = ("stages", name, "prepare")
        if not isinstance(pipeline.pipeline.source_of(name), PathSource):
            raise pipeline.error(place, "prepare is for files of your own")
        resolved = paths.resolved(stage.prepare, lambda path: str(pipeline.resolve(path)), base=True)
        try:
            paths.check(stage.kind, resolved)
        except SettingsError as error:
            raise pipeline.error(place, error.message) from error
        changed[name] = stage.changed(prepare=resolved)
    if not changed:
        return pipeline
    stages = {**pipeline.pipeline.stages, **changed}
    return replace(pipeline, pipeline=pipeline.pipeline.changed(stages=stages))


def named_paths(prepare: Mapping[str, Any]) -> list[str]:
    """Every path in the settings ``prepare``, as written."""
    from data_prep import paths

    found: list[str] = []

    def see(path: str) -> str:
        found.append(path)
        return path

    paths.resolved(prepare, see, base=True)
    return found


def json_schemas(words: WordsOfKeys) -> dict[str, JsonSchema]:
    """Kind of data stage -> what its ``prepare`` may be, as JSON Schema; a key that is null counts as not written."""
    from data_prep.corpus.recipe import Recipe
    from data_prep.rows.recipe import RowRecipe, others
    from launch.config.schema.kinds import of_dataclass

    found = {}
    for kind in DATA_KINDS:
        whole = (
            of_dataclass(Recipe, words, "prepare")
            if kind == "corpus"
            else of_dataclass(RowRecipe, words, "prepare", others(kind))
        )
        keys = whole["properties"]
        if kind == "corpus":
            keys["quality"]["anyOf"].insert(0, {"type": "boolean"})
        whole.pop("required", None)
        for key in keys.values():
            if "anyOf" not in key and "null" not in key["type"]:
                key["type"] = [key["type"], "null"]
                key |= {"enum": [*key["enum"], None]} if "enum" in key else {}
        found[kind] = whole
    return found
