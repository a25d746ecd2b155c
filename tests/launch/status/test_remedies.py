"""Lines that ``why`` proposes after a lost skill: each of them, written into the pipeline, plans."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs import backends
from jobs.core import results
from jobs.core.paths import Workspace
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Profile
from launch.plan import builder
from launch.plan.model import BackEndFacts, Facts, FetchedFacts, Plan
from launch.status import remedies

TRAINING = {"backend": "trl", "steps": 200, "batch_size": 8}
STAGES: dict[str, dict[str, Any]] = {
    "corpus": {"kind": "corpus", "from": "./texts"},
    "pairs": {"kind": "instructions", "from": "./pairs.jsonl"},
    "baseline": {"kind": "evaluate", "checkpoint": "base", "tasks": {"perplexity": {"limit": 50}, "answers": {}}},
    "cpt": {"kind": "cpt", "checkpoint": "base", "data": "corpus", **TRAINING, "lr": 4e-5},
    "sft": {"kind": "sft", "checkpoint": "cpt", "data": "pairs", **TRAINING, "steps": 90, "lr": 5e-6},
    "final": {
        "kind": "evaluate", "checkpoint": "sft", "compare_to": "baseline", "tasks": {"perplexity": {"limit": 50}, "answers": {}},
        "gate": {"perplexity": {"may_rise": 0.5}, "answer_loss": {"must": "fall"}},
    },
}  # fmt: skip


def planned(directory: Path, stages: dict[str, Any]) -> Plan:
    path = directory / "c.yaml"
    path.write_text(json.dumps({"name": "c", "model": {"base": "./base"}, "stages": stages}))
    pipeline = read_pipeline(path).pipeline
    able = {
        name: BackEndFacts({}, "python3", backends.load(name).CAPABILITIES) for name in builder.back_ends_of(pipeline)
    }
    base = FetchedFacts("base", "./base", "hf", "ab" * 32, present=True)
    return builder.build(
        pipeline, Profile.read({"name": "site", "executor": "slurm"}), Facts(able, {}, {"base": base}, "python3")
    )


def measured(directory: Path, plan: Plan, **verdicts: str) -> tuple[str, ...]:
    """What is proposed once ``final`` has left these verdicts."""
    workspace, stage = Workspace(directory / "ws"), plan.stage("final")
    rules = {"perplexity": "may_rise 0.5", "answer_loss": "must fall"}
    tasks: dict[str, Any] = {}
    for task, metric in (("perplexity", "perplexity"), ("answers", "answer_loss")):
        gate = {"rule": rules[metric], "tier": "critical", "verdict": verdicts.get(metric, "passed")}
        tasks[task] = {"metrics": {metric: {"value": 9.0, "low": 8.0, "high": 10.0, "n": 50, "gate": gate}}}
    store = stage.store(workspace)
    output = store.partial.with_name(f"{store.partial.name}-11.0")
    output.mkdir(parents=True, exist_ok=True)
    results.write(output, tasks)
    return remedies.of_stage(plan, stage, workspace)


def groups(lines: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """Heading -> the stages that are written under it."""
    found: dict[str, list[str]] = {}
    heading = ""
    for line in lines:
        if line.startswith("  "):
            found[heading].append(line)
        else:
            heading = line
            found[heading] = []
    read = {heading: yaml.safe_load("\n".join(written)) for heading, written in found.items()}
    for more in read.values():  # PyYAML takes 2e-05 for text; our reader does not
        for keys in more.values():
            keys |= {"lr": float(keys["lr"])} if "lr" in keys else {}
    return read


def merged(stages: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    return {**stages, **{name: {**stages.get(name, {}), **keys} for name, keys in more.items()}}


def test_each_proposal_plans(tmp_path: Path) -> None:
    plan = planned(tmp_path, STAGES)
    found = groups(measured(tmp_path, plan, perplexity="missed"))
    assert [heading.partition(",")[0].partition(":")[0] for heading in found] == [
        "a lower learning rate", "general text among the new", "fewer steps", "instructions behind it", "adapters",
    ]  # fmt: skip
    slower, replay, fewer, again, adapters = found.values()
    assert slower == {"cpt": {"lr": 2e-5}}, "that of sft is at the lower end already"
    assert replay["corpus"]["prepare"]["replay"][0]["share"] == 0.1
    assert fewer["cpt-curve"]["tasks"]["perplexity"]["limit"] == 50
    assert fewer["cpt-best"]["subject_to"] == {"perplexity.perplexity": {"may_rise": 0.5}}
    assert fewer["sft"] == {"checkpoint": "cpt-best"}
    assert again["final"] == {"checkpoint": "again"}
    assert adapters.keys() == {"sft", "cpt"}
    for more in found.values():
        changed = planned(tmp_path, merged(STAGES, more))
        assert changed.stage("final").fingerprint != plan.stage("final").fingerprint


@pytest.mark.parametrize("verdicts", [{}, {"perplexity": "undecided"}, {"answer_loss": "missed"}])
def test_nothing_is_proposed_where_no_skill_was_lost(tmp_path: Path, verdicts: dict[str, str]) -> None:
    assert measured(tmp_path, planned(tmp_path, STAGES), **verdicts) == ()


def test_a_damaged_result_proposes_nothing(tmp_path: Path) -> None:
    plan = planned(tmp_path, STAGES)
    assert measured(tmp_path, plan, perplexity="missed")
    next((tmp_path / "ws").rglob(results.FILE)).write_text('{"schema": 1, "tasks": 7}')
    assert remedies.of_stage(plan, plan.stage("final"), Workspace(tmp_path / "ws")) == ()


def test_trainings_before_the_one_compared_with_are_left_alone(tmp_path: Path) -> None:
    between = {**STAGES, "baseline": {**STAGES["baseline"], "checkpoint": "cpt"}}
    found = groups(measured(tmp_path, planned(tmp_path, between), perplexity="missed"))
    assert all("cpt" not in more for more in found.values())
