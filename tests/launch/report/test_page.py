"""The page of a run: what it says is what the files say, and what others wrote is only text in it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from jobs.core import claim, files
from jobs.core.claim import Claim
from jobs.core.seal import SealKind
from jobs.core.verdict import FailureClass, Outcome
from launch.cli.main import main
from launch.report import answers, charts, markdown, night, page, repeat, words
from launch.report.night import Doing
from launch.runs.journal import Event
from launch.runs.rundir import Run
from launch.status import report as reports
from launch.status.model import RunStatus, StageStatus, State
from launch.status.why import Why
from tests.launch.status.test_results import AFTER, BEFORE, evaluation
from tests.support.browser import browser, needs_browser
from tests.support.made_runs import make, said, sealed, stage, store_of, submitted

HOSTILE = (
    "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">\u202eabc\x1b[2J"
)


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def made(tmp_path: Path, *more: Any) -> Run:
    with_gpus = stage("dpo", steps=40)
    with_gpus = replace(with_gpus, resources=with_gpus.resources.changed(gpus_per_node=2, nodes=2))
    return make(tmp_path / "ws", evaluation("baseline"), with_gpus, evaluation("final", "baseline"), *more)


def began(run: Run, name: str, job: str, restart: int, at: float) -> None:
    assert claim.take(store_of(run, name), Claim("aaaaaa", 0, restart, job, f"node{restart}", at)) is None


def reported(run: Run, name: str, restart: int, *steps: tuple[float, int], **metrics: float) -> None:
    for at, step in steps:
        line = {"time": at, "step": step, "total": 40, "restart": restart, "metrics": {"loss": 4.0 / step, **metrics}}
        files.append_json_line(run.paths.stage(name).progress, line)


def a_night(tmp_path: Path) -> tuple[Run, float]:
    """Steps 1 to 20, a node lost; from step 10 again to the end; the moment it was made."""
    run = made(tmp_path)
    submitted(run, "dpo", "7")
    t = [entry["time"] for entry in run.journal.read()][-1]
    began(run, "dpo", "7", 0, t + 100)
    reported(run, "dpo", 0, *((t + 110 + n, n) for n in range(1, 21)))
    said(run, "dpo", "7", Outcome.RETRY, FailureClass.NODE_FAILURE, "lost", time=t + 140, nodes=("node0",))
    began(run, "dpo", "7", 1, t + 200)
    reported(run, "dpo", 1, *((t + 210 + n, n) for n in range(11, 41)))
    said(run, "dpo", "7", Outcome.DONE, FailureClass.NONE, restart=1, time=t + 260)
    files.append_json_line(run.paths.stage("dpo").events, {"time": t + 240, "event": "save_took", "seconds": 4.0})
    return run, t


def test_the_night_adds_up(tmp_path: Path) -> None:
    run, t = a_night(tmp_path)
    found = night.of_run(run, run.plan(), t + 1000)
    assert found is not None
    (dpo,) = found.stages
    spans = [(span.doing, round(span.start - t), round(span.end - t)) for span in dpo.spans]
    assert spans == [
        (Doing.QUEUED, 0, 100),
        (Doing.STARTING, 100, 111),
        (Doing.WORKING, 111, 130),
        (Doing.ENDING, 130, 140),
        (Doing.QUEUED, 140, 200),
        (Doing.STARTING, 200, 221),
        (Doing.AGAIN, 221, 230),  # steps 11 to 20
        (Doing.WORKING, 230, 250),
        (Doing.ENDING, 250, 260),
    ]
    assert dpo.gpus == 4
    spent = {name: round(seconds) for name, seconds in found.spent.items()}
    assert spent == {"working": 4 * 35, "starting": 4 * 32, "saving": 4 * 4, "made again": 4 * 9, "ending": 4 * 20}
    assert found.goodput == pytest.approx(35 / 100, abs=0.01)
    assert round(found.queued) == 160
    assert [one.ended for one in dpo.starts] == ["its node failed", ""]


def test_a_night_whose_clocks_disagree_has_no_time_twice(tmp_path: Path) -> None:
    run = made(tmp_path)
    t = next(run.journal.read())["time"]
    submitted(run, "dpo", "7")
    began(run, "dpo", "7", 0, t - 600)  # a node that is ten minutes slow
    reported(run, "dpo", 0, (t - 500, 1), (t - 400, 2))
    began(run, "dpo", "7", 1, t + 50)
    found = night.of_run(run, run.plan(), t + 60)
    assert found is not None
    spans = found.stages[0].spans
    assert all(one.end <= other.start for one, other in pairwise(spans))
    assert all(one.seconds > 0 for one in spans)


def test_what_works_works_until_now_and_the_page_says_that_it_is_not_over(tmp_path: Path) -> None:
    run = made(tmp_path)
    t = next(run.journal.read())["time"]
    submitted(run, "dpo", "7")
    began(run, "dpo", "7", 0, t + 10)
    reported(run, "dpo", 0, (t + 20, 1), (t + 30, 2))
    found = night.of_run(run, run.plan(), t + 90)
    assert found is not None
    last = found.stages[0].spans[-1]
    assert (last.doing, round(last.end - t)) == (Doing.WORKING, 90)
    states = [StageStatus("baseline", State.SEALED, ""), StageStatus("dpo", State.RUNNING, ""),
              StageStatus("final", State.NOT_SUBMITTED, "not submitted")]  # fmt: skip
    report = reports.make(run, run.plan(), run.profile(), RunStatus(tuple(states)))
    text = page.render(report, run.profile(), repeat.of_run(run, run.plan()))
    assert "Not over yet." in text
    assert "final: not submitted" not in text


def test_a_run_without_a_journal_has_no_night(tmp_path: Path) -> None:
    run = made(tmp_path)
    run.paths.journal.unlink()
    assert night.of_run(run, run.plan(), 0) is None


@pytest.mark.parametrize("cut", range(0, 1200, 97))
def test_every_beginning_of_a_journal_gives_a_page(tmp_path: Path, cut: int) -> None:
    run, _ = a_night(tmp_path)
    for path in (run.paths.journal, run.paths.stage("dpo").progress, run.paths.stage("dpo").events):
        path.write_bytes(path.read_bytes()[:cut])
    assert main(["report", run.id, "--workspace", str(run.workspace.root), "--html", "--json"]) in (0, 1, 4)
    assert "</html>" in run.paths.page.read_text()


def hostile_run(tmp_path: Path) -> Run:
    run, _ = a_night(tmp_path)
    for name, metrics, model in (("baseline", BEFORE, "old"), ("final", AFTER, "new")):
        sealed(run, name, SealKind.EVALUATION, metrics=metrics)
        lines = [
            {"task": "translation", "id": f"r{n}", "prompt": "0", "asked": HOSTILE, "reference": f"yes {n}",
             "hypothesis": HOSTILE if n % 2 else f"{model} {n}"}
            for n in range(5)
        ]  # fmt: skip
        text = "".join(json.dumps(one) + "\n" for one in lines) + '{"task": "translation", "hypothesis": "torn'
        (store_of(run, name).output / "samples.jsonl").write_text(text)
    sealed(run, "dpo", metrics=None)
    return run


def written(run: Run, *more: str) -> str:
    assert main(["report", run.id, "--workspace", str(run.workspace.root), "--html", *more]) in (0, 1, 4)
    return run.paths.page.read_text()


def test_numbers_on_the_page_are_those_of_the_evaluation(tmp_path: Path) -> None:
    run = hostile_run(tmp_path)
    text = written(run)
    shown = re.sub(r"<[^>]+>", " ", text)
    assert "A finished model." in shown
    assert re.search(r"Better\s*:\s*perplexity 27\.12", shown)
    assert "27.12" in text
    assert "[-12.1, -11.1]" in text
    assert "final: must fall: <b class=good>&#10003; passed" in text
    assert "final - baseline" in text
    assert "undecided" in shown
    assert "1 / 2 gates passed" in shown
    assert "too few" not in shown.split("What changed")[0]
    assert "its node failed" in shown
    assert "made again" in shown


def test_what_models_wrote_is_text(tmp_path: Path) -> None:
    text = written(hostile_run(tmp_path))
    assert text.count("<script>") == 1
    assert "<img" not in text
    assert "\u202e" not in text
    assert "[U+202E]" in text
    assert "\x1b" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"(?:src|href)\s*=\s*['\"]?(?:https?:)?//", text)


def test_korean_says_everything(tmp_path: Path) -> None:
    text = written(hostile_run(tmp_path), "--language", "ko")
    assert "모델이 완성되었습니다." in text
    assert "<html lang=ko>" in text
    assert all(words.KOREAN.values())


@needs_browser
@pytest.mark.parametrize("language", ["en", "ko"])
def test_in_a_browser(tmp_path: Path, language: str) -> None:
    run = hostile_run(tmp_path)
    written(run, "--language", language)
    with browser(tmp_path) as window:
        window.open(run.paths.page.as_uri())
        assert window.script("return document.title") == f"waits {run.id}"
        assert window.console() == []
        assert window.requests() == [run.paths.page.as_uri()]
        window.script("const s = document.querySelector('select.filter'); s.value = 'worse';"
                      "s.dispatchEvent(new Event('change'))")  # fmt: skip
        hidden = window.script("return [...document.querySelectorAll('.row')].map(one => one.hidden)")
        assert True in hidden
        before = window.script("return getComputedStyle(document.body).backgroundColor")
        window.script("document.getElementById('theme').focus()")
        window.press("\ue007")
        assert window.script("return getComputedStyle(document.body).backgroundColor") != before
        window.size(360, 740)
        assert window.script("return document.documentElement.scrollWidth <= window.innerWidth")


@needs_browser
def test_a_telephone_shows_all_of_it_without_sideways_scrolling(tmp_path: Path) -> None:
    """Also what is folded away, and what is longer than a line."""
    run = hostile_run(tmp_path)
    report = reports.of_run(run)
    long = replace(repeat.of_run(run, run.plan()), versions=(("base", "/a/" + "b" * 200),), difference="c" * 200)
    path = "/a/" + "d" * 200
    why = Why("sft", State.FAILED, "lost", "", "", "", path, (), "7", 0, (), None, None, 1, None, None, (), (), "")
    report = replace(report, reasons=(why,))
    (tmp_path / "page.html").write_text(page.render(report, run.profile(), long))
    with browser(tmp_path) as window:
        window.open((tmp_path / "page.html").as_uri())
        window.size(360, 740)
        window.script("for (const one of document.querySelectorAll('details')) one.open = true")
        assert window.script("return document.documentElement.scrollWidth <= window.innerWidth")


def test_every_value_has_its_interval(tmp_path: Path) -> None:
    text = written(hostile_run(tmp_path))
    assert "15.5<br><small>[15, 16]</small>" in text
    assert ">0.2</td>" in text  # of three examples: too few for one


def test_the_marks_of_a_chart_say_where_they_are() -> None:
    """No two lines of a grid have the same name, and a step that is no whole number has no mark."""
    points = [(step, 0.6931 + step * 1e-5) for step in range(1, 13)]
    text = charts.curve("x", "", [charts.Series("loss", *zip(*points, strict=True))])
    levels = re.findall(r"x='58' [^>]*>([^<]+)", text)
    assert len(set(levels)) == len(levels) == 5
    assert float(levels[0]) == pytest.approx(0.69311)
    steps = {label: float(at) for at, label in re.findall(r"<text x='([\d.]+)' y='236' [^>]*>([^<]+)", text)}
    (first, one), (last, twelve) = next(iter(steps.items())), list(steps.items())[-1]
    assert (first, last) == ("1", "12")
    for label, at in steps.items():
        assert at == pytest.approx(one + (twelve - one) * (int(label) - 1) / 11, abs=0.1)
    assert charts.curve("x", "", [charts.Series("loss", [1, 2], [2.0, 2.0])]).count("class=grid") == 1


def test_a_large_run_is_a_small_page(tmp_path: Path) -> None:
    """100,000 reports and 2,000 samples: below 1 MB."""
    run = hostile_run(tmp_path)
    t = next(run.journal.read())["time"]
    with open(run.paths.stage("dpo").progress, "w") as stream:
        for n in range(1, 100_001):
            metrics = {"loss": 4.0 / n + (n * 7919 % 13) / 100, "lr": 1e-5, "tokens_per_second": 1e4 + n % 97}
            stream.write(json.dumps({"time": t + n, "step": n, "total": 100_000, "metrics": metrics}) + "\n")
    for name in ("baseline", "final"):
        with open(store_of(run, name).output / "samples.jsonl", "w") as stream:
            for n in range(2000):
                sample = {"task": "translation", "id": f"r{n}", "asked": "q" * 300, "reference": "r" * 300,
                          "hypothesis": f"{name} {n} " + "h" * 300}  # fmt: skip
                stream.write(json.dumps(sample) + "\n")
    text = written(run)
    assert len(text.encode()) < 1_000_000
    assert "200 of 2,000" in text


def test_thinning_keeps_the_ends_of_every_bucket() -> None:
    points = [(float(n), 100.0 if n == 777 else float(n % 10)) for n in range(50_000)]
    found = charts.thinned(*zip(*points, strict=True))
    assert len(found) <= charts.MOST_POINTS
    assert (777.0, 100.0) in found
    assert found == sorted(found)


def test_worse_answers_come_first(tmp_path: Path) -> None:
    run, _ = a_night(tmp_path)
    for name, texts in (("baseline", ["abc", "xyz", "abc"]), ("final", ["xyz", "abc", "abc"])):
        sealed(run, name, SealKind.EVALUATION, metrics=BEFORE)
        lines = [{"task": "t", "id": f"r{n}", "reference": "abc", "hypothesis": text} for n, text in enumerate(texts)]
        (store_of(run, name).output / "samples.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    rows = answers.of_run(run.plan(), run.workspace)["t"]
    assert [(row.row, row.likeness) for row in rows] == [("r0", -1.0), ("r2", 0.0), ("r1", 1.0)]


def test_the_configuration_says_what_changed_since_the_run_before(tmp_path: Path) -> None:
    first = made(tmp_path)
    second = made(tmp_path)
    second.paths.pipeline.write_text(first.paths.pipeline.read_text().replace("./nowhere", "./elsewhere"))
    text = written(second)
    assert "+  base: ./elsewhere" in text
    assert f"{first.id}/pipeline.yaml" in text


def test_secrets_do_not_get_into_the_page(tmp_path: Path) -> None:
    run = made(tmp_path)
    from launch.runs import secret_files

    secret_files.write(run.paths, {"TOKEN": "hf_supersecret123"})
    run.paths.pipeline.write_text(run.paths.pipeline.read_text() + "# hf_supersecret123\n")
    assert "hf_supersecret123" not in written(run)


def test_a_journal_of_another_kind_is_passed_over(tmp_path: Path) -> None:
    run, t = a_night(tmp_path)
    run.journal.write(Event.SUBMITTED, stage="no_such_stage", job="9")
    assert night.of_run(run, run.plan(), t + 1000) is not None


def test_the_page_can_go_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made(tmp_path)
    where = tmp_path / "night.html"
    main(["report", run.id, "--workspace", str(run.workspace.root), "--html", str(where)])
    assert capsys.readouterr().out.strip() == f"page: {where}"
    assert page.render.__doc__
    assert where.exists()


def test_markdown_says_the_same_and_shows_what_others_wrote_as_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = hostile_run(tmp_path)
    main(["report", run.id, "--workspace", str(run.workspace.root), "--md"])
    text = capsys.readouterr().out
    assert "**A finished model.**" in text
    assert "| final | perplexity | 27.12 | 15.5 \\[15, 16\\] | \\-11.6 |" in text
    assert markdown.plain("a|b <script> `c`") == "a\\|b \\<script\\> \\`c\\`"
