"""One evaluation outside of a pipeline, by the real command: a model against another, and stored answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support import commands, stages

ROOT = Path(__file__).parents[3]
GENERATED = "  support: {data: data/instructions/output/test.jsonl, measure: {chrf: {}, f1: {}}, max_new_tokens: 4}\n"
TASKS = f"tasks:\n  answers: {{data: data/instructions/output}}\n{GENERATED}threads: 1\n"


def overnight(directory: Path, *arguments: str) -> tuple[int, str, str]:
    done = commands.overnight("evaluate", *arguments, cwd=directory, environment={"PYTHONPATH": str(ROOT)}, timeout=300)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tasks: {}\n", "tasks.yaml"),
        ("tasks: {answers: {}}\n", "which rows? write data: PATH, a file of instructions"),
        ("tasks: {answers: {data: nowhere}}\n", "there is no nowhere"),
        ("tasks: {answers: {data: ., limt: 3}}\n", "nearest: limit"),
        ("tasks: {anwers: {data: .}}\n", "nearest: answers"),
        ("tasks: {answers: {data: .}}\ngate: {chrf: {at_least: 1}}\n", "no task measures 'chrf'"),
        ("tasks: {answers: {data: .}}\ngates: {}\n", "nearest: gate"),
    ],
)
def test_a_file_of_tasks_that_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "tasks.yaml").write_text(text)
    code, _, error = overnight(tmp_path, "x", "--tasks", "tasks.yaml")
    assert code == 2
    assert said in error


def test_what_does_not_go_together(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text("tasks: {translation: {data: .}}\n")
    for arguments, said in (
        ((), "name a checkpoint or a server, or --answers FILE"),
        (("x", "--answers", "y"), "name a checkpoint or a server, or --answers FILE"),
        (("http://localhost:1/v1",), "a server needs --model NAME"),
    ):
        code, _, error = overnight(tmp_path, *arguments, "--tasks", "tasks.yaml")
        assert (code, said in error) == (2, True), error


@pytest.mark.train
def test_a_model_against_another_and_its_answers_scored_again(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    stages.make_model(tmp_path / "one")
    stages.make_model(tmp_path / "other", seed=4)
    stages.make_data(tmp_path / "data")
    (tmp_path / "tasks.yaml").write_text(TASKS + "gate: {answer_loss: {at_most: 0.1}}\n")
    code, out, error = overnight(tmp_path, "one", "--tasks", "tasks.yaml", "--against", "other", "--json")
    assert code == 1, error
    found = json.loads(out)
    loss = found["tasks"]["answers"]["metrics"]["answer_loss"]
    assert loss["gate"]["verdict"] == "missed"
    assert loss["before"] != loss["value"]
    assert "answer_loss at_most 0.1" in found["gates"]

    (tmp_path / "generated.yaml").write_text(f"tasks:\n{GENERATED}")
    samples = "evaluation/now/output/samples.jsonl"
    code, out, error = overnight(
        tmp_path, "--answers", samples, "--tasks", "generated.yaml", "--output", "scored", "--json"
    )
    assert code == 0, error
    again, first = (one["tasks"]["support"] for one in (json.loads(out), found))
    assert again["engine"] == "stored"
    for name in ("chrf", "f1"):
        assert again["metrics"][name]["value"] == first["metrics"][name]["value"]

    (tmp_path / "mine.jsonl").write_text('{"id": "0", "answer": "Guardar página"}\n{"id": "1"}\n')
    code, _, error = overnight(tmp_path, "--answers", "mine.jsonl", "--tasks", "generated.yaml", "--output", "mine")
    assert (code, "mine.jsonl:2: answer must be a text" in error) == (2, True)
    (tmp_path / "mine.jsonl").write_text('{"id": "x", "answer": "Guardar página"}\n')
    code, _, error = overnight(tmp_path, "--answers", "mine.jsonl", "--tasks", "generated.yaml", "--output", "mine")
    assert (code, "no id of it is that of a row" in error) == (2, True)
