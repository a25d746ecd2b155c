"""An evaluation holds several models at once: the plan counts each, and refuses what no GPU holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.profile import Profile, Resources
from launch.plan import evaluating
from launch.plan.model import Plan, PlannedInput, PlannedStage
from tests.support.llamas import LLAMA_1B
from tests.support.made_runs import stage

PARAMETERS = 1_235_814_400
BASE = PlannedInput("base", "download", "hf", "cd" * 32, is_job=False)
JUDGE = PlannedInput("judge:quality", "download", "hf", "ef" * 32, is_job=False)
SFT = PlannedInput("sft", "checkpoint", "hf", "ab" * 32, is_job=True)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path)
    for one in (BASE, JUDGE):
        output = found.entry(one.kind, one.fingerprint).output
        output.mkdir(parents=True)
        (output / "config.json").write_text(json.dumps(LLAMA_1B))
    return found


def profile(memory: str = "80G") -> Profile:
    partitions = {"gpu": {"gpu_model": "h100", "gpu_memory": memory}}
    return Profile.read({"name": "site", "executor": "slurm", "partitions": partitions})


def evaluation(inputs: dict[str, PlannedInput], **settings: Any) -> PlannedStage:
    resources = Resources(partition="gpu", gpus_per_node=1, processes_per_node=1, time="1:00:00")
    return replace(stage("final"), kind="evaluate", inputs=inputs, settings=settings, resources=resources)


def of(workspace: Workspace, site: Profile, inputs: dict[str, PlannedInput], **settings: Any) -> Any:
    plan = Plan("p", (replace(stage("sft", steps=1), inputs={"checkpoint": BASE}), evaluation(inputs, **settings)))
    return plan, evaluating.needs(plan, site, workspace)


def test_a_judge_of_this_device_is_a_second_model(workspace: Workspace) -> None:
    _, (alone,) = of(workspace, profile(), {"checkpoint": SFT})
    _, (judged,) = of(workspace, profile(), {"checkpoint": SFT, "judge:quality": JUDGE})
    assert dict(judged.models) == {"model": PARAMETERS * 4, "judge quality": PARAMETERS * 4}
    assert judged.total - alone.total == PARAMETERS * 4
    _, (halved,) = of(workspace, profile(), {"checkpoint": SFT, "judge:quality": JUDGE}, precision="bf16")
    assert sum(halved.models.values()) == PARAMETERS * 4
    _, (compared,) = of(workspace, profile(), {"checkpoint": SFT, "reference": BASE, "judge:quality": SFT})
    assert list(compared.models) == ["model", "reference", "judge quality"]
    _, (curve,) = of(workspace, profile(), {"checkpoint": SFT, "source": BASE}, curve={"every": 2})
    assert dict(curve.models) == {"model": PARAMETERS * 4}, "its weights are swapped"
    assert "judge quality 4.60 GiB" in evaluating.show([judged])
    json.dumps(judged.as_json())


def test_what_is_not_there_yet_is_said(workspace: Workspace) -> None:
    later = PlannedInput("judge:quality", "download", "hf", "99" * 32, is_job=False)
    _, (one,) = of(workspace, profile(), {"checkpoint": SFT, "judge:quality": later})
    assert one.unknown == ("judge quality",)
    assert "judge quality not known yet" in evaluating.show([one])
    assert of(workspace, profile(), {"rows": SFT})[1] == [], "a server has the model"
    served = of(workspace, profile("1G"), {"checkpoint": SFT}, command=["vllm", "{checkpoint}", "{port}"])
    assert served[1] == [], "a server of the stage divides the GPUs by itself"


def test_models_that_no_gpu_holds_together_are_refused(workspace: Workspace) -> None:
    inputs = {"checkpoint": SFT, "judge:quality": JUDGE}
    plan, found = of(workspace, profile("10G"), inputs)
    with pytest.raises(InputError) as caught:
        evaluating.refuse(found, plan)
    for text in ("stage 'final' needs about", "has 10.00 GiB", "engine: {precision: bf16}", "a server for the judge"):
        assert text in str(caught.value)
    for site, given, settings in (
        (profile("10G"), {"checkpoint": SFT}, {}),
        (profile("10G"), inputs, {"precision": "bf16"}),
        (profile("20G"), inputs, {}),
    ):
        plan, found = of(workspace, site, given, **settings)
        evaluating.refuse(found, plan)


def test_answers_at_once_are_counted(workspace: Workspace) -> None:
    plain = {"tasks": {"loss": {}}}
    answers = {"tasks": {"loss": {}, "sums": {"max_new_tokens": 256}}}
    sizes = [
        of(workspace, profile(), {"checkpoint": SFT}, **settings)[1][0].batch
        for settings in (plain, answers, {**answers, "batch_prompts": 256})
    ]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3


def test_the_rows_of_logits_are_those_of_the_engine() -> None:
    pytest.importorskip("torch")
    from jobs.evaluate import measure
    from jobs.evaluate.settings import EvaluateSettings

    assert measure.LOGIT_ROWS == evaluating.LOGIT_ROWS
    fields = EvaluateSettings.__dataclass_fields__
    own = (fields["batch_prompts"].default, fields["batch_tokens"].default)
    assert own == (evaluating.BATCH_PROMPTS, evaluating.BATCH_TOKENS)
