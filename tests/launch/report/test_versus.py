"""Runs compared with each other, by the numbers of their samples."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from jobs.core import files
from jobs.core.seal import SealKind
from launch.cli.main import main
from launch.plan.model import PlannedStage
from launch.runs.rundir import Run
from launch.status import report as reports
from launch.status.model import RunStatus, StageStatus, State
from tests.launch.status.test_results import evaluation
from tests.support.made_runs import make, sealed, stage, store_of


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


TASKS = {"answers": {"data": "pairs"}, "preferences": {"data": "prefs"}}


def measured(name: str, seed: str, **more: Any) -> PlannedStage:
    found = evaluation(name)
    return replace(found, fingerprint=(seed * 64)[:64], settings={"tasks": TASKS, **more})


def samples(rng: random.Random, gain: float, rows: int = 80, prompt: str = "p") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for n in range(rows):
        nll = 10 + (n % 7) - gain + rng.gauss(0, 1)
        found.append({"task": "answers", "id": f"a{n}", "prompt": prompt, "nll": nll, "tokens": 5})
        margin = rng.gauss(0, 1)
        found.append({"task": "preferences", "id": f"p{n}", "prompt": "q", "chosen": margin, "rejected": 0.0,
                      "margin": margin})  # fmt: skip
    return found


def write(run: Run, found: list[dict[str, Any]]) -> None:
    sealed(run, "final", SealKind.EVALUATION)
    text = "".join(json.dumps(one) + "\n" for one in found)
    (store_of(run, "final").output / "samples.jsonl").write_text(text)


def two(tmp_path: Path, **changed: Any) -> tuple[Run, Run, list[dict[str, Any]], list[dict[str, Any]]]:
    rng = random.Random(3)
    runs = [make(tmp_path / "ws", measured("final", letter)) for letter in "ab"]
    old, new = samples(rng, 0.0), samples(rng, 1.5, **changed)
    for run, found in zip(runs, (old, new), strict=True):
        write(run, found)
    return runs[0], runs[1], old, new


def compared(tmp_path: Path, capsys: pytest.CaptureFixture[str], *runs: str) -> Any:
    assert main(["compare", *runs, "--workspace", str(tmp_path / "ws"), "--json"]) == 0
    return json.loads(capsys.readouterr().out)["compared"][0]


def test_changes_are_those_of_a_paired_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, old, new = two(tmp_path)
    found = {one["metric"]: one for one in compared(tmp_path, capsys, first.id, second.id)["changes"]}
    pairs = [(a["nll"] / 5, b["nll"] / 5) for a, b in zip(old, new, strict=True) if a["task"] == "answers"]
    change = [b - a for a, b in pairs]
    reference = stats.ttest_1samp(change, 0)
    low, high = reference.confidence_interval(0.95)
    loss = found["answer_loss"]
    assert loss["now"] - loss["before"] == pytest.approx(sum(change) / len(change), abs=1e-9)
    assert loss["low"] == pytest.approx(low, abs=0.02)
    assert loss["high"] == pytest.approx(high, abs=0.02)
    assert loss["verdict"] == "better"
    margins = [b["margin"] - a["margin"] for a, b in zip(old, new, strict=True) if a["task"] == "preferences"]
    by_chance = stats.ttest_1samp(margins, 0).pvalue
    assert found["margin"]["verdict"] == ""
    assert found["margin"]["corrected"] >= by_chance * 0.8  # Holm only raises it
    flipped = [(a["margin"] > 0) - (b["margin"] > 0) for a, b in zip(old, new, strict=True) if "margin" in a]
    assert found["accuracy"]["moved"] == [flipped.count(-1), flipped.count(1), flipped.count(0)]


def test_other_tokens_are_not_compared_and_the_rest_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, _, _ = two(tmp_path, prompt="other")
    found = compared(tmp_path, capsys, first.id, second.id)
    assert "has other tokens here" in found["refused"]["final.answers"]
    assert {one["task"] for one in found["changes"]} == {"preferences"}


def test_one_entry_of_the_store_is_one_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make(tmp_path / "ws", measured("final", "a")) for _ in range(2)]
    write(runs[0], samples(random.Random(1), 0))
    found = compared(tmp_path, capsys, runs[0].id, runs[1].id)
    assert found["same"] == ["final"]
    assert found["changes"] == []


def test_files_come_first_and_what_is_not_sealed_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make(tmp_path / "ws", measured("final", letter)) for letter in "ab"]
    runs[1].paths.pipeline.write_text(runs[0].paths.pipeline.read_text().replace("./nowhere", "./elsewhere"))
    assert main(["compare", runs[0].id, runs[1].id, "--workspace", str(tmp_path / "ws")]) == 0
    text = capsys.readouterr().out
    assert "+  base: ./elsewhere" in text
    assert "final: not comparable: it is not sealed in both runs" in text
    assert text.index("elsewhere") < text.index("not comparable")


def test_a_run_named_twice_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make(tmp_path / "ws", measured("final", "a"))
    assert main(["compare", run.id, run.id, "--workspace", str(tmp_path / "ws")]) == 2
    assert "is named twice" in capsys.readouterr().err


def test_an_interpreter_that_cannot_compare_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make(tmp_path / "ws", replace(measured("final", letter), python="/nowhere/python")) for letter in "ab"]
    for run in runs:
        write(run, samples(random.Random(1), 0))
    assert main(["compare", runs[0].id, runs[1].id, "--workspace", str(tmp_path / "ws")]) == 2
    assert "/nowhere/python" in capsys.readouterr().err


def test_the_page_holds_files_numbers_curves_and_only_text_of_others(tmp_path: Path) -> None:
    first, second, _, _ = two(tmp_path)
    second.paths.pipeline.write_text(first.paths.pipeline.read_text() + "# <script>alert(1)</script>\n")
    where = tmp_path / "versus.html"
    assert main(["compare", first.id, second.id, "--workspace", str(tmp_path / "ws"), "--html", str(where)]) == 0
    text = where.read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "<b class=good>better</b>" in text
    assert "default-src 'none'" in text


def test_the_page_in_korean_has_the_same_numbers(tmp_path: Path) -> None:
    first, second, _, _ = two(tmp_path)
    third = make(tmp_path / "ws", measured("final", "c"))
    pages = []
    for language in ("en", "ko"):
        where = tmp_path / f"{language}.html"
        given = [first.id, second.id, third.id, "--workspace", str(tmp_path / "ws"), "--html", str(where)]
        assert main(["compare", *given, "--language", language]) == 0
        pages.append(where.read_text().partition("</style>")[2])
    english, korean = pages
    assert f"<h2>{first.id}와(과) 비교한 {second.id}</h2>" in korean
    assert "<b class=good>나아짐</b>" in korean
    assert "final: 비교할 수 없음: " in korean

    def numbers(page: str) -> list[str]:
        return re.findall(r"[-+]?\d+\.\d+", page)

    assert sorted(numbers(korean)) == sorted(numbers(english))
    heads = re.findall(r"<th[^>]*>([^<]+)", english)
    assert heads
    assert not set(heads) & set(re.findall(r"<th[^>]*>([^<]+)", korean))


def test_curves_are_drawn_over_tokens(tmp_path: Path) -> None:
    from launch.report import versus_page
    from launch.report.words import speaker

    runs = []
    for batch in (8, 16):
        run = make(tmp_path / f"ws{batch}", stage("cpt", batch_size=batch, sequence_length=10))
        run.paths.stage("cpt").root.mkdir(parents=True)
        for step in (1, 2, 3):
            line = {"time": float(step), "step": step, "total": 3, "metrics": {"loss": 4.0 / step}}
            files.append_json_line(run.paths.stage("cpt").progress, line)
        states = RunStatus((StageStatus("cpt", State.RUNNING, ""),))
        runs.append(reports.make(run, run.plan(), run.profile(), states))
    text = versus_page._curves(runs, speaker("en"))
    assert ">80<" in text  # the first step of one
    assert ">480<" in text  # the last of the other
