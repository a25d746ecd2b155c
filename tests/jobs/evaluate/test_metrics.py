"""The formulas and their intervals; no model needed."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("scipy")

from jobs.evaluate import compare  # noqa: E402
from jobs.evaluate.gates import GateFailed, GateUndecided  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402


def samples(task: str, **columns: list[Any]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [
        {"task": task, "id": str(index), **{name: values[index] for name, values in columns.items()}}
        for index in range(count)
    ]


def settings(task: str, **more: Any) -> EvaluateSettings:
    return EvaluateSettings.read({"tasks": {task: {"data": "d"}}, "seed": 1, **more})


def evaluated(now: Any, wanted: EvaluateSettings, old: Any = None) -> dict[str, Any]:
    """Task -> metric -> what stands in evaluation.json."""
    tasks = compare.as_json(compare.evaluate(now, old, wanted), {}, wanted)
    return {task: found["metrics"] for task, found in tasks.items()}


def test_perplexity_is_of_the_corpus_not_of_its_documents() -> None:
    found = evaluated({"perplexity": samples("perplexity", nll=[2.0, 30.0], tokens=[2, 10])}, settings("perplexity"))
    entry = found["perplexity"]["perplexity"]
    assert entry["value"] == pytest.approx(math.exp(32 / 12))
    assert (entry["low"], entry["high"], entry["n"]) == (None, None, 2)  # two documents say nothing about others
    assert "bits_per_byte" not in found["perplexity"]  # samples of an earlier version do not say their bytes


def test_bits_per_byte_do_not_depend_on_the_tokenizer() -> None:
    made = {"nll": [2.0, 30.0, 4.0], "bytes": [4, 40, 6]}
    found = [
        evaluated({"perplexity": samples("perplexity", tokens=tokens, **made)}, settings("perplexity"))["perplexity"]
        for tokens in ([2, 10, 2], [3, 15, 4])
    ]
    assert found[0]["bits_per_byte"] == found[1]["bits_per_byte"]
    assert found[0]["bits_per_byte"]["value"] == pytest.approx(36 / math.log(2) / 50)
    assert found[0]["perplexity"] != found[1]["perplexity"]


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    generator = np.random.default_rng(6)
    before = generator.normal(0, 10, 100)
    after = before + generator.normal(1, 1, 100)
    old, new = ({"preferences": samples("preferences", margin=list(values))} for values in (before, after))
    one = evaluated(new, settings("preferences"), old)["preferences"]["margin"]
    assert one["change"]["low"] > 0
    assert one["change"]["high"] - one["change"]["low"] < (one["high"] - one["low"]) / 4


def test_same_seed_same_interval() -> None:
    given = {"preferences": samples("preferences", margin=[value * 0.37 - 5 for value in range(40)])}
    found = [evaluated(given, settings("preferences", seed=seed)) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_a_share_says_how_many_examples_changed() -> None:
    old = {"preferences": samples("preferences", margin=[1.0, -1.0, -1.0, 1.0, 1.0, -1.0])}
    new = {"preferences": samples("preferences", margin=[-1.0, 1.0, 1.0, 1.0, 1.0, -1.0])}
    found = evaluated(new, settings("preferences"), old)["preferences"]
    change = found["accuracy"]["change"]
    assert (change["better"], change["worse"], change["same"]) == (2, 1, 3)
    assert "better" not in found["margin"]["change"]


def test_examples_that_were_shown_otherwise_are_not_compared() -> None:
    shown = [f"{number:016x}" for number in range(6)]
    old = {"answers": samples("answers", nll=[1.0] * 6, tokens=[4] * 6, prompt=shown)}
    new = {"answers": samples("answers", nll=[2.0] * 6, tokens=[4] * 6, prompt=[*shown[:5], "f" * 16])}
    with pytest.raises(BadSettings, match=r"example '5' of answers has other tokens here than in compare_to"):
        compare.evaluate(new, old, settings("answers"))
    for sample in old["answers"]:
        del sample["prompt"]  # as an earlier version wrote it
    compare.evaluate(new, old, settings("answers"))
    old["answers"][3]["tokens"] = 5
    with pytest.raises(
        BadSettings, match=r"example '3' of answers has other tokens here than in compare_to \(4 and 5\)"
    ):
        compare.evaluate(new, old, settings("answers"))


def test_examples_of_one_evaluation_alone_are_counted() -> None:
    wanted = settings("preferences")
    old = {"preferences": samples("preferences", margin=[1.0] * 9)}
    new = {"preferences": samples("preferences", margin=[1.0] * 7)}
    found = compare.evaluate(new, old, wanted)
    assert compare.as_json(found, {}, wanted)["preferences"]["not_in_both"] == 2
    assert found.tasks["preferences"]["margin"].change.estimate.n == 7  # type: ignore[union-attr]


def test_gate_names_what_it_missed() -> None:
    wanted = settings("preferences", gate={"margin": {"must": "rise"}, "preferences.accuracy": {"must": "rise"}})
    old = {"preferences": samples("preferences", margin=[-1.0 - 0.1 * (n % 3) for n in range(20)] + [1.0] * 20)}
    same = {"preferences": samples("preferences", margin=[-0.5] * 20 + [1.5] * 20)}
    found = compare.evaluate(same, old, wanted)
    with pytest.raises(
        GateUndecided,
        match=r"accuracy must rise: 0\.5000 -> 0\.5000, difference \+0\.0000, 95 % interval .* over 40 examples: "
        r"undecided, more examples would not help \(all numbers: evaluation\.json\)$",
    ) as stopped:
        compare.apply_gates(found, wanted, Path("evaluation.json"))
    assert "margin" not in str(stopped.value)
    assert stopped.value.failure.value == "gate_undecided"
    compare.apply_gates(found, replace(wanted, undecided="go"), Path("evaluation.json"))

    worse = {"preferences": samples("preferences", margin=[-5.0] * 40)}
    with pytest.raises(GateFailed, match=r"accuracy must rise: 0\.5000 -> 0\.0000, .*: missed") as failed:
        compare.apply_gates(compare.evaluate(worse, old, wanted), wanted, Path("evaluation.json"))
    assert failed.value.failure.value == "quality_gate"
    compare.apply_gates(compare.evaluate(worse, old, wanted), replace(wanted, missed="go"), Path("evaluation.json"))

    better = {"preferences": samples("preferences", margin=[1.5] * 40)}
    compare.apply_gates(compare.evaluate(better, old, wanted), wanted, Path("evaluation.json"))
    gate = evaluated(better, wanted, old)["preferences"]["accuracy"]["gate"]
    assert (gate["rule"], gate["tier"], gate["verdict"]) == ("must rise", "critical", "passed")


def test_an_advisory_gate_stops_nothing() -> None:
    wanted = settings("preferences", gate={"accuracy": {"at_least": 0.9, "tier": "advisory"}})
    found = compare.evaluate({"preferences": samples("preferences", margin=[-1.0] * 40)}, None, wanted)
    assert found.judged["accuracy"].verdict == "missed"
    compare.apply_gates(found, wanted, Path("evaluation.json"))


def test_gate_that_cannot_be_judged_is_refused_at_the_start() -> None:
    wanted = settings("preferences", gate={"chrf": {"must": "rise"}})
    with pytest.raises(BadSettings, match="no task of this evaluation measures it"):
        compare.check_gate(wanted, {"preferences": []})
    twice = EvaluateSettings.read(
        {"tasks": {name: {"task": "preferences", "data": "d"} for name in "ba"}, "gate": {"margin": {"at_least": 0}}}
    )
    with pytest.raises(BadSettings, match=r"several tasks measure it: write b\.margin or a\.margin"):
        compare.check_gate(twice, None)
    rising = settings("preferences", gate={"margin": {"must": "rise"}})
    with pytest.raises(BadSettings, match="needs compare_to"):
        compare.check_gate(rising, None)
    with pytest.raises(BadSettings, match="did not run the task 'preferences'"):
        compare.check_gate(rising, {"answers": []})
    compare.check_gate(settings("preferences", gate={"accuracy": {"at_least": 0.5}}), None)
    new, old = ({"preferences": [{**samples("preferences", margin=[1.0])[0], "id": name}]} for name in ("a", "b"))
    with pytest.raises(BadSettings, match="have no example of preferences in common"):
        compare.evaluate(new, old, rising)


def test_refuses_settings() -> None:
    for given, text in (
        ({"tasks": {}}, "must name at least one task"),
        ({"tasks": {"perplexty": {"data": "d"}}}, "did you mean 'perplexity'"),
        ({"tasks": {"answers": {"data": "d", "limit": 0}}}, "limit of task 'answers' must be at least 1, not 0"),
        ({"tasks": {"answers": {"data": "d", "limits": 3}}}, "did you mean 'limit'"),
        ({"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": "fall"}}, "must be one of {must: rise}"),
        ({"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": {"must": "go"}}}, "must be {must: rise} or"),
        ({"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": {"may_rise": "x"}}}, "a percentage like 3%"),
        ({"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": {"may_rise": -1}}}, "must be 0 or more"),
        ({"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": {"at_most": "1"}}}, "must be a number"),
        (
            {"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": {"at_most": 1, "must": "fall"}}},
            "must be one of",
        ),
        ({"tasks": {"answers": {"data": "d"}}, "missed": "on"}, "missed must be one of stop, go"),
        ({"tasks": {"answers": {"data": "d"}}, "batch_tokens": 0}, "batch_tokens must be at least 1"),
    ):
        with pytest.raises(BadSettings, match=text):
            EvaluateSettings.read(given)


def test_what_intervals_need_is_asked_before_the_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.training import interface

    monkeypatch.setattr(interface, "versions", lambda *packages: {})
    with pytest.raises(interface.Missing, match=r"an evaluation needs scipy, .*: pip install scipy"):
        settings("answers")
