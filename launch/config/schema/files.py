"""The schemas that ``overnight schema`` prints: of a pipeline, a profile, and what evaluations leave."""

from __future__ import annotations

from collections.abc import Mapping

from jobs.core import results
from launch.config.document.layers import EXTENDS, NOT_FROM_PIPELINE
from launch.config.pipeline import Pipeline
from launch.config.profile import Profile
from launch.config.references import backends
from launch.config.schema import tasks
from launch.config.schema.kinds import JsonSchema, of_model, told
from launch.config.schema.pipeline_words import PIPELINE_WORDS
from launch.config.schema.profile_words import PROFILE_WORDS, SECTION_WORDS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def of_pipeline(prepare: Mapping[str, JsonSchema]) -> JsonSchema:
    """Of a pipeline file. ``prepare``: kind of data stage -> schema of its ``prepare``, which ``data_prep`` knows."""
    words = pipeline_word
    found = of_model(Pipeline, words)
    stage = found["properties"]["stages"]["additionalProperties"]
    for case in stage["allOf"]:
        keys = case["then"]["properties"]
        kind = case["if"]["properties"]["kind"]["const"]
        if "tasks" in keys:
            keys["tasks"] = told({"$ref": "#/$defs/tasks"}, words("stages.NAME.tasks"))
        if kind in prepare:
            keys["prepare"] = told({"anyOf": [{"type": "null"}, prepare[kind]]}, words("stages.NAME.prepare"))
    cluster = of_profile_keys()
    for name in NOT_FROM_PIPELINE:
        del cluster["properties"][name]
    found["properties"]["cluster"] = told(cluster, words("cluster"))
    known = {"properties": {"backend": {"enum": backends()}}}
    own = {"required": ["code"]}  # a module of the user's may be a back end
    return {
        "$schema": DIALECT,
        "title": "Pipeline of overnight",
        **found,
        "if": {"not": own},
        "then": {"properties": {"stages": {"additionalProperties": known}}},
        "$defs": {"tasks": tasks.of_tasks(words), **tasks.definitions(words)},
    }


def of_profile_keys() -> JsonSchema:
    """The keys of a profile, of which none is required: another layer may say it."""
    found = of_model(Profile, profile_word)
    found["properties"][EXTENDS] = told(_TEXTS, profile_word(EXTENDS))
    return {key: value for key, value in found.items() if key != "required"}


def of_profile() -> JsonSchema:
    """Of a profile file."""
    needed = {"anyOf": [{"required": ["executor"]}, {"required": [EXTENDS]}]}
    return {"$schema": DIALECT, "title": "Cluster profile of overnight", **of_profile_keys(), **needed}


def pipeline_word(path: str) -> str:
    """What a key of a pipeline is for."""
    resource = path.replace("stages.NAME.", "resources.NAME.")
    return PIPELINE_WORDS.get(path, "") or profile_word(resource)


def profile_word(path: str) -> str:
    """What a key of a profile is for."""
    return PROFILE_WORDS.get(path, "") or SECTION_WORDS.get(path, "")


_NUMBER = {"type": ["number", "null"]}
_COUNTED = {
    "value": {"type": "number", "description": "the metric over the examples"},
    "low": {**_NUMBER, "description": "lower end of the 95 % interval; null: too few examples"},
    "high": {**_NUMBER, "description": "upper end of the 95 % interval"},
    "n": {"type": "integer", "description": "examples"},
}


def of_results() -> JsonSchema:
    """Of ``evaluation.json``, which an evaluation leaves: ``jobs.core.results``."""
    of_value = {"type": "object", "required": ["value", "n"], "properties": _COUNTED}
    gate = {
        "type": "object",
        "required": ["rule", "tier", "verdict"],
        "properties": {
            "rule": {"type": "string", "description": "what the metric had to show"},
            "tier": told({"enum": ["critical", "advisory"]}, "whether it stops the chain"),
            "verdict": told({"enum": ["passed", "missed", "undecided"]}, "judged on the interval of the change"),
            "needs": {"type": ["integer", "null"], "description": "examples that would decide it"},
        },
    }
    metric = {
        "type": "object",
        "required": ["value", "n"],
        "properties": {
            **_COUNTED,
            "higher_is_better": told({"type": "boolean"}, "which way is an improvement"),
            "before": told(dict(_NUMBER), "the earlier evaluation, over the examples that both measured"),
            "change": told(of_value, "the paired change with its 95 % interval"),
            "by": {"type": "object", "description": "tag of the examples -> its values -> the metric over those"},
            "gate": told(gate, "where the pipeline has a gate on the metric"),
        },
    }
    task = {
        "type": "object",
        "required": ["metrics"],
        "properties": {"metrics": told({"type": "object", "additionalProperties": metric}, "by their names")},
    }
    curve = {
        "type": "object",
        "required": ["points"],
        "properties": {
            "points": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["step", "tasks"],
                    "properties": {
                        "step": told({"type": "integer"}, "step of the save that was measured"),
                        "tasks": told({"type": "object", "additionalProperties": task}, "as above, of this save"),
                    },
                },
            }
        },
    }
    return {
        "$schema": DIALECT,
        "title": "Results of an evaluation of overnight (evaluation.json)",
        "type": "object",
        "required": ["schema", "tasks"],
        "properties": {
            "schema": told({"const": results.SCHEMA}, "number of this form"),
            "tasks": told({"type": "object", "additionalProperties": task}, "by their names in the pipeline"),
            "curve": told(curve, "of kind: curve: a point a save"),
        },
    }
