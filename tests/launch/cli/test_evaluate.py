"""One evaluation outside of a pipeline, by the real command: a model against another, and stored answers."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.support import commands, stages
from tests.support.scripted_server import ScriptedServer

ROOT = Path(__file__).parents[3]
GENERATED = "  support: {data: data/instructions/output/test.jsonl, measure: {chrf: {}, f1: {}}, max_new_tokens: 4}\n"
TASKS = f"tasks:\n  answers: {{data: data/instructions/output}}\n{GENERATED}threads: 1\n"
JUDGED = """\
judges: {j: {model: {server: 'http://x/v1', name: m}, calibrate_on: ., rubric: .}}
tasks: {style: {judge: j, data: .}}
gate: {win_rate: {at_least: 0.5}}
"""


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
        ("tasks: {style: {judge: j, data: .}}\n", "there is no judge 'j'"),
        (JUDGED.replace("calibrate_on: ., ", ""), "the judge j is not validated"),
        (JUDGED.replace("calibrate_on: .", "calibrate_on: nowhere"), "there is no nowhere"),
        (JUDGED.replace("{server: 'http://x/v1', name: m}", "{checkpoint: gone}"), "there is no gone"),
        (JUDGED.replace("{server: 'http://x/v1', name: m}", "{base: 'hf:a/b'}"), "write checkpoint: PATH of a model"),
        (JUDGED.replace("{judge: j,", "{judge: j, against: compare_to,"), "add --against CHECKPOINT to the command"),
        (JUDGED.replace("{judge: j,", "{judge: j, answers: other,"), "is for compare_to of a pipeline: remove it"),
        (JUDGED.replace("rubric: .", "price: {input: 1, output: 1}"), "is for the plan of a pipeline"),
        (JUDGED, "cannot be read"),
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


def test_a_server_is_measured_and_only_asked_for_answers(tmp_path: Path) -> None:
    rows = [{"id": f"{n}", "prompt": f"page {n}", "completion": f"PAGE {n}"} for n in range(12)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in rows))
    measured = "tasks: {support: {data: rows.jsonl, measure: {exact: {}, length: {}}, max_new_tokens: 8}}\n"
    (tmp_path / "tasks.yaml").write_text(measured + "gate: {exact_match: {at_least: 0.5}}\n")
    (tmp_path / "likelihood.yaml").write_text("tasks: {answers: {data: rows.jsonl}}\n")
    server = ScriptedServer()
    try:
        code, out, error = overnight(tmp_path, server.url, "--model", "m", "--tasks", "tasks.yaml", "--json")
        assert code == 0, error
        found = json.loads(out)["tasks"]["support"]
        assert (found["engine"], found["model"]) == ("server", "m")
        assert found["metrics"]["exact_match"]["value"] == 1.0
        assert found["metrics"]["exact_match"]["gate"]["verdict"] == "passed"
        assert len(server.asked) == 12
        assert {(one["model"], one["max_tokens"]) for one in server.asked} == {("m", 8)}
        for arguments, said in (
            (("--tasks", "likelihood.yaml"), "needs the probabilities of the model: m only has answers"),
            (("--tasks", "tasks.yaml", "--against", "gone"), "task support: --against measures a checkpoint"),
        ):
            code, _, error = overnight(tmp_path, server.url, "--model", "m", "--output", "other", *arguments)
            assert (code, said in error) == (2, True), error
    finally:
        server.close()


def judged(directory: Path, model: str, more: str = "") -> None:
    """24 rows, 24 pairs of which the right answer is the shorter one half of the time, and a file of tasks with a judge."""
    rows = [{"id": f"{n}", "prompt": f"Say {n}", "completion": "right"} for n in range(24)]
    pairs = [{"id": f"{n}", "prompt": f"Say {n}", "chosen": "right", "rejected": "wr" * (n % 4 + 1)} for n in range(24)]
    for name, lines in (("rows", rows), ("pairs", pairs)):
        (directory / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    text = f"judges: {{j: {{model: {model}, calibrate_on: pairs.jsonl}}}}\n"
    (directory / "tasks.yaml").write_text(f"{text}tasks: {{style: {{judge: j, data: rows.jsonl{more}}}}}\nthreads: 1\n")


def is_first(question: str) -> bool:
    """Whether the answer that is shown first is the right one."""
    return bool(re.search(r"Answer A:\n=== \w+ ===\nright\n", question))


def test_stored_answers_are_judged_and_what_was_said_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    server = ScriptedServer()
    server.script = lambda prompt, times: (200, "A" if is_first(prompt) else "B")
    judged(tmp_path, f"{{server: '{server.url}', name: m}}")
    text = (tmp_path / "tasks.yaml").read_text()
    (tmp_path / "tasks.yaml").write_text(f"{text}gate: {{win_rate: {{at_least: 0.5}}}}\n")
    answers = [{"id": f"{n}", "answer": "wrong" if n % 4 else "right"} for n in range(24)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    try:
        code, out, error = overnight(tmp_path, "--answers", "mine.jsonl", "--tasks", "tasks.yaml", "--json")
        assert code == 1, error
        found = json.loads(out)["tasks"]["style"]["metrics"]
        assert (found["win_rate"]["value"], found["win_rate"]["gate"]["verdict"]) == (0.125, "missed")
        assert (found["judge_accuracy"]["value"], found["judge_accuracy"]["n"]) == (1.0, 24)
        asked = len(server.asked)
        assert asked == 2 * (18 + 24), "equal answers are a tie of which nobody is asked"
        overnight(tmp_path, "--answers", "mine.jsonl", "--tasks", "tasks.yaml", "--json")
        assert len(server.asked) == asked
    finally:
        server.close()


@pytest.mark.train
def test_stored_answers_are_held_against_those_of_a_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    stages.make_model(tmp_path / "one")
    server = ScriptedServer()
    server.script = lambda prompt, times: (200, "A" if is_first(prompt) else "B")
    judged(tmp_path, f"{{server: '{server.url}', name: m}}", ", max_new_tokens: 3")
    answers = [{"id": f"{n}", "answer": "right"} for n in range(24)]
    (tmp_path / "mine.jsonl").write_text("".join(json.dumps(one) + "\n" for one in answers))
    given = ("--answers", "mine.jsonl", "--tasks", "tasks.yaml", "--against", "one")
    try:
        code, out, error = overnight(tmp_path, *given, "--json")
        assert code == 0, error
    finally:
        server.close()
    assert json.loads(out)["tasks"]["style"]["metrics"]["win_rate"]["value"] == 1.0
    samples = [json.loads(one) for one in (tmp_path / "evaluation/now/output/samples.jsonl").read_text().splitlines()]
    assert {one["hypothesis"] for one in samples if "other" in one} == {"right"}
    assert "right" not in {one["other"] for one in samples if "other" in one}, "they were held against themselves"
    text = (tmp_path / "tasks.yaml").read_text().replace("data: rows.jsonl", "data: rows.jsonl, against: references")
    (tmp_path / "tasks.yaml").write_text(text)
    code, _, error = overnight(tmp_path, *given)
    assert (code, "task style: --against measures a checkpoint" in error) == (2, True)


@pytest.mark.train
def test_a_model_of_this_machine_judges_two_others(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for number, name in enumerate(("one", "other", "judge")):
        stages.make_model(tmp_path / name, seed=number)
    config = tmp_path / "judge/config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 256', '"max_position_embeddings": 2048'))
    judged(tmp_path, "{checkpoint: judge}", ", max_new_tokens: 3")
    code, out, error = overnight(tmp_path, "one", "--tasks", "tasks.yaml", "--against", "other", "--json")
    assert code == 0, error
    found = json.loads(out)["tasks"]["style"]
    assert found["metrics"]["win_rate"]["n"] == found["metrics"]["judge_accuracy"]["n"] == 24
    assert any("is of the family of the model (llama)" in one for one in found["notes"])
    samples = [json.loads(one) for one in (tmp_path / "evaluation/now/output/samples.jsonl").read_text().splitlines()]
    before = [json.loads(o) for o in (tmp_path / "evaluation/before/output/samples.jsonl").read_text().splitlines()]
    theirs = {one["id"]: one["hypothesis"] for one in before}
    assert {one["id"]: one["other"] for one in samples if "other" in one} == theirs
    assert list((tmp_path / "evaluation/cache/judgements").glob("*/*.jsonl"))
