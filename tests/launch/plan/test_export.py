"""What an export reads and is told, and pipelines whose export is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from launch.base.errors import InputError
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Profile
from launch.plan import export
from launch.plan.builder import build
from launch.plan.model import Facts, FetchedFacts, Plan
from tests.launch.plan.test_builder import declared

STAGES: dict[str, Any] = {
    "corpus": {"kind": "corpus", "from": "raw/"},
    "pairs": {"kind": "instructions", "from": "./sft.jsonl"},
    "cpt": {"kind": "cpt", "checkpoint": "base", "data": "corpus", "steps": 4, "lr": 1e-5},
    "sft": {"kind": "sft", "checkpoint": "cpt", "data": "pairs", "steps": 4, "lr": 1e-5, "options": {"lora_rank": 8}},
    "baseline": {"kind": "evaluate", "checkpoint": "base", "tasks": ["answers"]},
    "final": {"kind": "evaluate", "checkpoint": "sft", "tasks": ["answers"], "compare_to": "baseline"},
    "out": {"kind": "export", "checkpoint": "sft", "to": ["hf", {"gguf": {"type": "q8_0"}}], "max_shard_size": "1G"},
}


def written(directory: Path, **out: Any) -> Path:
    stages = {**STAGES, "out": {**STAGES["out"], **out}}
    path = directory / "p.yaml"
    path.write_text(json.dumps({"name": "p", "model": {"base": "hf:org/tiny"}, "stages": stages}, indent=1))
    return path


def planned(path: Path) -> Plan:
    able = {name: declared(name) for name in ("trl", "convert", "data")}
    fetched = {"base": FetchedFacts("base", "hf:org/tiny", "hf", "cd" * 32, True)}
    profile = Profile.read({"name": "here", "executor": "local"})
    return build(read_pipeline(path).pipeline, profile, Facts(able, {}, fetched, "python3"))


def test_it_reads_its_model_its_evaluations_its_data_and_the_base(tmp_path: Path) -> None:
    stage = planned(written(tmp_path)).stage("out")
    assert (stage.kind, stage.backend, stage.produces_kind, stage.produces_format) == (
        "convert", "convert", "checkpoint", "hf",
    )  # fmt: skip
    assert {role: one.stage for role, one in stage.inputs.items()} == {
        "checkpoint": "sft", "evaluation:final": "final", "data:corpus": "corpus", "data:pairs": "pairs", "base": "base",
    }  # fmt: skip
    assert stage.settings["export"] == {"gguf": "q8_0", "vllm": False, "max_shard_bytes": 1 << 30}
    assert [one["stage"] for one in stage.settings["lineage"]] == ["cpt", "sft"]
    assert stage.settings["lineage"][1]["settings"]["lora_rank"] == 8
    assert str(tmp_path) not in json.dumps(stage.settings)


def test_what_it_makes_is_part_of_its_fingerprint(tmp_path: Path) -> None:
    first = planned(written(tmp_path)).stage("out").fingerprint
    assert planned(written(tmp_path)).stage("out").fingerprint == first
    for change in ({"to": ["hf"]}, {"max_shard_size": "2G"}, {"evaluations": []}):
        assert planned(written(tmp_path, **change)).stage("out").fingerprint != first


def test_it_shows_the_evaluations_that_it_names(tmp_path: Path) -> None:
    path = written(tmp_path, evaluations=["baseline"])
    assert [role for role in planned(path).stage("out").inputs if role.startswith("eval")] == ["evaluation:baseline"]
    assert export.lineage(read_pipeline(path).pipeline, "base") == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"to": ["hf", "ggfu"]}, "got 'ggfu'; nearest: gguf"),
        ({"to": ["gguf"]}, "write hf, too"),
        ({"to": "hf"}, "expected a list such as"),
        ({"to": ["hf", "hf"]}, "hf is listed twice"),
        ({"to": ["hf", {"vllm": {}}]}, "vllm takes no keys"),
        ({"to": ["hf", {"gguf": {"typ": "f16"}}]}, "unknown key; nearest: type"),
        ({"to": ["hf", {"gguf": {"type": "q8"}}]}, "nearest: q8_0"),
        ({"to": ["hf", {"gguf": 3}]}, "expected a mapping"),
        ({"to": [{"hf": None, "gguf": None}]}, "got a mapping"),
        ({"max_shard_size": "5GB"}, "is not an amount of memory"),
        ({"checkpoint": "pairs"}, "'pairs' is of kind instructions"),
        ({"checkpoint": "out"}, "is this stage itself"),
        ({"evaluations": ["sft"]}, "'sft' is of kind sft, needed is evaluate"),
        ({"backend": "trl"}, "unknown key"),
    ],
)
def test_an_export_that_is_none_is_refused_with_its_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    path = written(tmp_path, **change)
    with pytest.raises(InputError, match=said) as caught:
        read_pipeline(path)
    assert str(caught.value).startswith(f"{path}:")
