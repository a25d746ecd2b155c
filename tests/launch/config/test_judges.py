"""Judges of a pipeline: what is refused before the night, with its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from launch.base.errors import InputError
from launch.config import references
from launch.config.pipeline_file import PipelineFile, read_pipeline

PIPELINE = """\
name: judged
model: {base: ./base}
secrets: [JUDGE_KEY]
judges:
  quality:
    model: {server: "http://gpu7:8000/v1", name: qwen, key: JUDGE_KEY}
    calibrate_on: prefs
    price: {input: 1, output: 2}
stages:
  rows: {kind: instructions, from: ./rows.jsonl}
  prefs: {kind: preferences, from: ./prefs.jsonl}
  before: {kind: evaluate, checkpoint: base, tasks: {style: {measure: {exact: {}}}, loss: {task: answers}}}
  final:
    kind: evaluate
    checkpoint: base
    compare_to: before
    tasks: {style: {judge: quality}}
    gate: {win_rate: {at_least: 0.5}}
"""


@pytest.fixture(autouse=True)
def _back_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(references, "backends", lambda: ["toy", "trl"])


def load(directory: Path, text: str = PIPELINE) -> PipelineFile:
    (directory / "p.yaml").write_text(text)
    return read_pipeline(directory / "p.yaml")


def test_a_judge_is_read(tmp_path: Path) -> None:
    pipeline = load(tmp_path).pipeline
    assert pipeline.parents("final") == {"compare_to": "before", "data:style": "rows", "known:style": "prefs"}
    assert pipeline.stages["final"].settings()["tasks"]["style"] == {
        "task": "judge", "judge": "quality", "split": "test", "max_new_tokens": 64,
    }  # fmt: skip
    ours = PIPELINE.replace('{server: "http://gpu7:8000/v1", name: qwen, key: JUDGE_KEY}', "{checkpoint: best}")
    ours = ours.replace("    price: {input: 1, output: 2}\n", "")
    ours += "  best: {kind: sft, checkpoint: base, data: rows, steps: 1, lr: 0.1}\n"
    assert load(tmp_path, ours).pipeline.parents("final")["judge:style"] == "best"
    assert load(tmp_path, ours).pipeline.order()[-1] == "final"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("judge: quality", "judge: qualty", "final.tasks.style.judge: there is no judge 'qualty'; nearest: quality"),
        ("{judge: quality}", "{judge: 3}", "final.tasks.style.judge"),
        ("name: qwen, ", "", "judges.quality.model: the server needs name: NAME"),
        ('server: "http://gpu7:8000/v1", ', "", "write {server: URL, name: NAME}, {checkpoint: STAGE} or {base: MODEL}"),
        ("http://gpu7", "gpu7", "write http://HOST:PORT/v1"),
        ("key: JUDGE_KEY}", "key: OTHER}", "judges.quality.model.key: OTHER is not listed in secrets of the pipeline"),
        ("calibrate_on: prefs", "calibrate_on: rows", "judges.quality.calibrate_on: 'rows' is of kind instructions"),
        ("    calibrate_on: prefs\n", "", "the judge quality is not validated: write calibrate_on"),
        ("calibrate_on: prefs", "calibrate_on: prefs\n    form: pair", "judges.quality.form"),
        ("{judge: quality}", "{judge: quality, judged_by: {}}", "judged_by: unknown key"),
        ("{judge: quality}", "{judge: quality, answers: loss}", "answers: before has no answers of a task 'loss'"),
        ("style: {measure", "other: {measure", "before has no answers of a task 'style'; there are: other (answers: NAME)"),
        ("{judge: quality}", "{judge: quality, against: me}", "against"),
        ("    compare_to: before\n", "", ""),
        (
            "    compare_to: before\n    tasks: {style: {judge: quality}}",
            "    tasks: {style: {judge: quality, against: compare_to}}",
            "against: the stage has no compare_to",
        ),
        ("at_least: 0.5", "must: rise}, win_flips: {at_most: 1", "win_rate is compared with before already"),
        ("gate: {win_rate: {at", "gate: {score: {at", "a judge of the form pairwise measures no score"),
        ("calibrate_on: prefs", "calibrate_on: prefs\n    form: score", "a judge of the form score measures no win_rate"),
        ("kind: evaluate\n    checkpoint: base\n    compare", "kind: curve\n    checkpoints: base\n    compare", ""),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in PIPELINE
    text = PIPELINE.replace(old, new, 1)
    if not message and "curve" not in new:
        load(tmp_path, text)
        return
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
    assert "p.yaml:" in str(caught.value)


CURVE = """\
  sft: {kind: sft, checkpoint: base, data: rows, steps: 4, lr: 0.1, save_every: 2}
  curve: {kind: curve, checkpoints: sft, tasks: {style: {judge: quality, against: references}}}
  best: {kind: choose, from: curve, by: {win_rate: higher}, subject_to: {judge_accuracy: {at_least: 0.6}}}
"""


def test_a_curve_has_judges_and_what_chooses_from_it_reads_what_they_read(tmp_path: Path) -> None:
    local = PIPELINE.replace('{server: "http://gpu7:8000/v1", name: qwen, key: JUDGE_KEY}', "{checkpoint: other}")
    local = local.replace("    price: {input: 1, output: 2}\n", "")
    other = "  other: {kind: sft, checkpoint: base, data: rows, steps: 1, lr: 0.1}\n"
    pipeline = load(tmp_path, local + CURVE + other).pipeline
    read = {"checkpoint": "sft", "data:style": "rows", "known:style": "prefs", "judge:style": "other"}
    assert pipeline.parents("curve") == read
    assert pipeline.parents("best") == {**read, "curve": "curve"}
    assert pipeline.order()[-1] == "best"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (", against: references", "", ""),
        ("sft, tasks: {style: {judge: quality, against: references}", "sft, compare_to: before, tasks: {style: {judge: "
         "quality}", "style of before has answers to the test split, and this task asks the validation split"),
        ("sft, tasks: {style: {judge: quality, against: references}", "sft, compare_to: before, tasks: {style: {judge: "
         "quality, split: test}", "best.by.win_rate: is held against before on the validation split"),
        ("by: {win_rate: higher}", "by: {score: higher}", "best.by.score"),
        ("judge_accuracy: {at_least: 0.6}", "score: {at_least: 3}", "form pairwise measures no score"),
        ("judge: quality", "judge: qualty", "curve.tasks.style.judge: there is no judge 'qualty'"),
        ("    calibrate_on: prefs\n", "", "best.by.win_rate: the judge quality is not validated"),
    ],
)  # fmt: skip
def test_what_a_curve_and_a_choice_cannot_have_judged(tmp_path: Path, old: str, new: str, message: str) -> None:
    whole = PIPELINE.replace("    gate: {win_rate: {at_least: 0.5}}\n", "") + CURVE
    assert old in whole
    text = "".join(whole.rsplit(old, 1)[:1]) + new + whole.rsplit(old, 1)[1]
    if not message:
        load(tmp_path, text)
        return
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    assert message in str(caught.value)
