"""What a plan says of judges: their inputs, what changes the fingerprint, how many questions they get."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from jobs.core.paths import Workspace
from jobs.core.seal import SealKind, seal_directory
from launch.base.errors import InputError
from launch.config import references
from launch.config.pipeline_file import read_pipeline
from launch.config.profile import Profile
from launch.plan import builder, gather, judging
from launch.plan.model import Facts, FetchedFacts, Plan
from tests.launch.config.test_judges import PIPELINE
from tests.launch.plan.test_builder import declared


@pytest.fixture(autouse=True)
def _back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "backends", lambda: ["toy", "trl"])


def planned(directory: Path, text: str, form: str = "hf", rubrics: dict[str, str] | None = None) -> tuple[Any, Plan]:
    (directory / "p.yaml").write_text(text)
    file = read_pipeline(directory / "p.yaml")
    names = builder.back_ends_of(file.pipeline)
    facts = {name: declared(name) for name in names}
    fetched = {name: FetchedFacts(name, "x", form, f"{number:02x}" * 32, present=True)
               for number, name in enumerate(gather.fetch_items(file), 1)}  # fmt: skip
    profile = Profile.read({"name": "site", "executor": "slurm"})
    return file, builder.build(file.pipeline, profile, Facts(facts, {}, fetched, "python3", rubrics=rubrics or {}))


SERVER = 'model: {server: "http://gpu7:8000/v1", name: qwen, key: JUDGE_KEY}'
LOCAL = PIPELINE.replace("    price: {input: 1, output: 2}\n", "")


def test_a_judge_of_the_chain_is_an_input(tmp_path: Path) -> None:
    _, plan = planned(tmp_path, PIPELINE)
    final = plan.find("final")
    assert set(final.inputs) == {"rows", "prefs", "compare_to", "checkpoint"}
    told = final.settings["tasks"]["style"]["judged_by"]
    assert (told["server"], told["model"], told["key"], told["form"]) == (
        "http://gpu7:8000/v1",
        "qwen",
        "JUDGE_KEY",
        "pairwise",
    )
    assert "same_base" not in told
    assert "price" not in told

    _, plan = planned(tmp_path, LOCAL.replace(SERVER, "model: {checkpoint: base}"))
    final = plan.find("final")
    assert final.inputs["judge:quality"] == final.inputs["checkpoint"]
    assert final.settings["tasks"]["style"]["judged_by"]["same_base"] is True

    _, plan = planned(tmp_path, LOCAL.replace(SERVER, 'model: {base: "pypi:other==1"}'), form="gguf")
    final = plan.find("final")
    assert final.inputs["judge:quality"].stage == "judge-quality-hf", "another model is fetched and converted"
    assert plan.find("judge-quality-hf").inputs["source"].stage == "judge:quality"


def test_what_decides_a_verdict_is_in_the_fingerprint(tmp_path: Path) -> None:
    def of(text: str, **more: Any) -> str:
        return planned(tmp_path, text, **more)[1].find("final").fingerprint

    usual = of(PIPELINE)
    others = [
        of(PIPELINE, rubrics={"quality": "Be strict."}),
        of(PIPELINE, rubrics={"quality": "Be kind."}),
        of(PIPELINE.replace("name: qwen", "name: other")),
        of(PIPELINE.replace("calibrate_on: prefs", "calibrate_on: prefs\n    calibrate_limit: 30")),
        of(PIPELINE.replace("{judge: quality}", "{judge: quality, against: references}")),
        of(LOCAL.replace(SERVER, "model: {checkpoint: base}")),
        of(LOCAL.replace(SERVER, 'model: {base: "pypi:other==1"}')),
    ]
    assert len({usual, *others}) == 1 + len(others)
    assert of(PIPELINE.replace("input: 1", "input: 9")) == usual, "a price changes no result"


def test_a_rubric_is_read_where_the_chain_is_planned(tmp_path: Path) -> None:
    text = PIPELINE.replace("calibrate_on: prefs", "calibrate_on: prefs\n    rubric: ./rubric.md")
    (tmp_path / "p.yaml").write_text(text)
    for content in (None, b"", b"\xff\xfe\xff"):
        if content is not None:
            (tmp_path / "rubric.md").write_bytes(content)
        with pytest.raises(InputError, match=r"judges.quality.rubric|rubric.md"):
            gather._rubrics(read_pipeline(tmp_path / "p.yaml"))
    (tmp_path / "rubric.md").write_text("Be fair.")
    assert gather._rubrics(read_pipeline(tmp_path / "p.yaml")) == {"quality": "Be fair."}


def seal(workspace: Workspace, plan: Plan, name: str, rows: int) -> None:
    store = plan.find(name).store(workspace)
    store.output.mkdir(parents=True)
    (store.output / "test.jsonl").write_text("{}\n")
    seal_directory(store.output, store.seal, kind=SealKind.DATASET, format="x", fingerprint=plan.find(name).fingerprint,
                   metrics={"test": rows})  # fmt: skip


def test_questions_and_their_cost_are_told_before(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    file, plan = planned(tmp_path, PIPELINE)
    (one,) = judging.costs(plan, file.pipeline, workspace)
    assert (one.stage, one.task, one.judge, one.questions) == ("final", "style", "quality", None)
    assert "known once its data is made" in judging.show([one])
    seal(workspace, plan, "rows", 150)
    seal(workspace, plan, "prefs", 1000)
    (one,) = judging.costs(plan, file.pipeline, workspace)
    assert one.questions == 2 * 150 + 2 * 200
    assert one.cost == pytest.approx(700 * ((120 + 200 + 2 * 64) * 1 + 16 * 2) / 1e6)
    assert "700" in judging.show([one])
    assert "assumed: 200 tokens a prompt" in judging.show([one])
    score = PIPELINE.replace("calibrate_on: prefs", "form: score").replace(
        "    gate: {win_rate: {at_least: 0.5}}\n", ""
    )
    file, plan = planned(tmp_path, score)
    seal(workspace, plan, "rows", 150) if not plan.find("rows").store(workspace).seal.exists() else None
    assert judging.costs(plan, file.pipeline, workspace)[0].questions == 150


def test_a_curve_asks_of_every_model_and_a_choice_of_one(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "ws")
    more = (
        "  sft: {kind: sft, checkpoint: base, data: rows, steps: 9, lr: 0.1, save_every: 2}\n"
        "  curve: {kind: curve, checkpoints: sft, tasks: {style: {judge: quality, against: references}}}\n"
        "  best: {kind: choose, from: curve, by: {win_rate: higher}}\n"
    )
    file, plan = planned(tmp_path, PIPELINE + more)
    assert set(plan.stage("best").inputs) == {"checkpoint", "source", "curve", "rows", "prefs"}
    seal(workspace, plan, "prefs", 30)
    store = plan.stage("rows").store(workspace)
    store.output.mkdir(parents=True)
    (store.output / "test.jsonl").write_text("{}\n")
    seal_directory(store.output, store.seal, kind=SealKind.DATASET, format="x", metrics={"test": 10, "validation": 7},
                   fingerprint=plan.stage("rows").fingerprint)  # fmt: skip
    questions = {one.stage: one.questions for one in judging.costs(plan, file.pipeline, workspace)}
    # Steps 0, 2, 4, 6, 8 and 9; what is asked of known pairs is asked once. The choice is measured on the test split.
    assert (questions["curve"], questions["best"]) == (6 * 2 * 7 + 60, 2 * 10 + 60)
