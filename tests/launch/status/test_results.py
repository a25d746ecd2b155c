"""The table of improvements from sealed evaluations."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files
from jobs.core.seal import SealKind
from launch.base.errors import InputError
from launch.cli.main import main
from launch.plan.model import PlannedInput, PlannedStage
from launch.runs.rundir import Run
from launch.status import results
from tests.support.made_runs import make, print_of, sealed, stage, store_of


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def evaluation(name: str, compare_to: str | None = None) -> PlannedStage:
    inputs = {}
    if compare_to is not None:
        inputs["compare_to"] = PlannedInput(compare_to, "evaluation", "metrics", print_of(compare_to), True)
    made = stage(name, resumable=False, executor="local")
    return replace(made, kind="evaluate", produces_kind="evaluation", produces_format="metrics", inputs=inputs)


def number(value: float) -> dict[str, Any]:
    return {"value": value, "low": value - 0.5, "high": value + 0.5, "n": 200}


BEFORE = {"perplexity": {"perplexity": number(27.123456)}, "preferences": {"accuracy": number(0.37)}}
AFTER = {
    "perplexity": {
        "perplexity": {
            **number(15.5),
            "higher_is_better": False,
            "before": 27.123456,
            "change": number(-11.6),
            "gate": {"rule": "must fall", "tier": "critical", "verdict": "passed", "needs": None},
        }
    },
    "preferences": {
        "accuracy": {
            **number(0.36),
            "higher_is_better": True,
            "before": 0.37,
            "change": number(-0.01),
            "gate": {"rule": "may_fall 0.02", "tier": "advisory", "verdict": "undecided", "needs": 2400},
        },
        "margin": {**number(0.2), "low": None, "high": None, "n": 3},
    },
}
OLD_AFTER = {
    "perplexity": {
        "perplexity": {
            **number(15.5), "before": 27.1, "difference": number(-11.6), "gate": {"must": "fall", "passed": False}
        }
    }
}  # fmt: skip
"""As evaluations wrote it before schema 1."""


@pytest.fixture
def run(tmp_path: Path) -> Run:
    stages = (evaluation("baseline"), stage("dpo", executor="local"), evaluation("final", "baseline"))
    return make(tmp_path / "ws", *stages, profile={"executor": "local"})


def test_nothing_measured_prints_nothing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    results.print_results(run, run.plan(), as_json=False)
    assert capsys.readouterr().out == ""
    assert not run.paths.results.exists()


def test_table_and_file(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sealed(run, "baseline", SealKind.EVALUATION, metrics=BEFORE)
    sealed(run, "final", SealKind.EVALUATION, metrics=AFTER)
    results.print_results(run, run.plan(), as_json=False)
    lines = [line.split("  ") for line in capsys.readouterr().out.strip().splitlines()]
    text = "\n".join("|".join(filter(None, map(str.strip, line))) for line in lines)
    assert "baseline|perplexity|27.12|[26.62, 27.62]|200" in text
    assert "final against baseline|perplexity|27.12|15.5|[15, 16]|-11.6|[-12.1, -11.1]|200|must fall: passed" in text
    assert (
        "preferences accuracy|0.37|0.36|[-0.14, 0.86]|-0.01|[-0.51, +0.49]|200|may_fall 0.02: UNDECIDED, 2,400 examples would decide (advisory)"
        in text
    )
    assert "preferences margin|0.2|too few|3" in text
    kept = json.loads(run.paths.results.read_text())
    assert kept["run"] == run.id
    assert kept["results"][2]["verdict"] == "passed"
    assert kept["results"][2]["difference"]["value"] == -11.6


def test_a_chain_that_is_done_shows_its_table_in_status(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("baseline", BEFORE), ("final", AFTER)):
        sealed(run, name, SealKind.EVALUATION, metrics=value)
    sealed(run, "dpo")
    assert main(["status", "--workspace", str(run.workspace.root)]) == 0
    assert "must fall: passed" in capsys.readouterr().out


def test_json(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sealed(run, "baseline", SealKind.EVALUATION, metrics=BEFORE)
    results.print_results(run, run.plan(), as_json=True)
    assert [one["metric"] for one in json.loads(capsys.readouterr().out)["results"]] == ["perplexity", "accuracy"]


def test_what_an_earlier_version_measured_is_shown(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    sealed(run, "final", SealKind.EVALUATION)
    files.write_json(store_of(run, "final").output / "metrics.json", OLD_AFTER)
    results.print_results(run, run.plan(), as_json=False)
    assert "must fall: MISSED" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value", [{"schema": 1, "tasks": {"perplexity": 3}}, {"schema": 2, "tasks": {}}, [], {"perplexity": {}}]
)
def test_a_file_of_another_shape_is_named(run: Run, value: Any) -> None:
    sealed(run, "baseline", SealKind.EVALUATION)
    files.write_json(store_of(run, "baseline").output / "evaluation.json", value)
    with pytest.raises(InputError, match=r"output/evaluation\.json: cannot be read as the metrics"):
        results.collect(run.plan(), run.workspace)


def test_categories_stand_below_their_metric_where_they_are_few() -> None:
    number = results.Number(0.5, 0.25, 0.75, 16)
    few = {f"part-{n}": number for n in range(2)}
    many = {f"part-{n}": number for n in range(13)}
    told = [
        results.MetricResult("final", None, "bias", metric, number, by=by)
        for metric, by in (("clear", few), ("mixed", many))
    ]
    text = results.lines(told)
    assert [line.split()[0] for line in text if "part-" in line] == ["part-0", "part-1"]


def test_notes_stand_under_the_table_once_and_are_no_commands_to_the_terminal() -> None:
    number = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 16}
    task = {"metrics": {"win_rate": number, "win_flips": number}, "notes": ["judge q: \x1b[2Jnot <b>believed</b>"]}
    told = results.of_tasks("final", "before", {"style": task, "other": {"metrics": {"x": number}, "notes": "?"}})
    text = results.lines(told)
    assert text[-1] == "* final, style: judge q:  [2Jnot <b>believed</b>"
    assert sum("believed" in line for line in text) == 1
    from launch.report import page

    assert "not &lt;b&gt;believed" in page._changed(told, lambda text: text)
