"""The formulas and their intervals; no model needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")

from jobs.evaluate import compare, metrics  # noqa: E402
from jobs.evaluate.compare import GateFailed  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402

TEXTS = (
    ("Guardar página", "Salvar página"),
    ("Apagar o utilizador", "Apagar o utilizador"),
    ("x", "Novo ficheiro"),
    ("", "Novo"),
    ("Não há atualizações disponíveis.", "Não existem atualizações."),
)


def chrf_of(*pairs: tuple[str, str]) -> float:
    return float(metrics.chrf(np.array([metrics.chrf_statistics(*pair) for pair in pairs]).sum(axis=0)))


def test_chrf_is_that_of_sacrebleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    reference = sacrebleu.metrics.CHRF()
    for hypothesis, wanted in TEXTS:
        expected = reference.sentence_score(hypothesis, [wanted]).score
        assert chrf_of((hypothesis, wanted)) == pytest.approx(expected, abs=1e-9), hypothesis
    hypotheses, wanted_all = (list(texts) for texts in zip(*TEXTS, strict=True))
    assert chrf_of(*TEXTS) == pytest.approx(reference.corpus_score(hypotheses, [wanted_all]).score, abs=1e-9)


def test_chrf_bounds() -> None:
    assert chrf_of(("Ecrã inicial", "Ecrã inicial")) == pytest.approx(100)
    assert chrf_of(("xyz", "abc")) == 0


def samples(task: str, **columns: list[Any]) -> list[dict[str, Any]]:
    count = len(next(iter(columns.values())))
    return [
        {"task": task, "id": str(index), **{name: values[index] for name, values in columns.items()}}
        for index in range(count)
    ]


def settings(task: str, **more: Any) -> EvaluateSettings:
    return EvaluateSettings.read({"tasks": {task: {"data": "d"}}, "seed": 1, **more})


def test_perplexity_is_of_the_corpus_not_of_its_documents() -> None:
    found = compare.summary(
        {"perplexity": samples("perplexity", nll=[2.0, 30.0], tokens=[2, 10])}, {}, settings("perplexity")
    )
    entry = found["perplexity"]["perplexity"]
    assert entry["value"] == pytest.approx(math.exp(32 / 12))
    assert entry["low"] <= entry["value"] <= entry["high"]
    assert entry["n"] == 2


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    inside = 0
    for trial in range(200):
        values = np.stack([generator.normal(0.3, 1, 80), np.ones(80)], axis=1)
        found = metrics.estimate(lambda sums: sums[..., 0] / sums[..., 1], values, metrics.resample(80, 400, trial))
        inside += found.low <= 0.3 <= found.high
    assert 0.88 <= inside / 200 <= 0.99


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    generator = np.random.default_rng(6)
    before = generator.normal(0, 10, 100)
    after = before + generator.normal(1, 1, 100)
    old, new = ({"preferences": samples("preferences", margin=list(values))} for values in (before, after))
    change = compare.changes(new, old, settings("preferences"))["preferences"]["margin"]
    assert change.difference.low > 0
    whole = compare.summary(old, {}, settings("preferences"))["preferences"]["margin"]
    assert change.difference.high - change.difference.low < (whole["high"] - whole["low"]) / 4


def test_same_seed_same_interval() -> None:
    found = [
        compare.summary(
            {"preferences": samples("preferences", margin=[value * 0.37 - 5 for value in range(40)])},
            {},
            settings("preferences", seed=seed),
        )
        for seed in (1, 1, 2)
    ]
    assert found[0] == found[1] != found[2]


def test_gate_names_what_it_missed() -> None:
    wanted = settings("preferences", gate={"margin": {"must": "rise"}, "preferences.accuracy": {"must": "rise"}})
    old = {"preferences": samples("preferences", margin=[-1.0] * 20 + [1.0] * 20)}
    new = {"preferences": samples("preferences", margin=[-0.5] * 20 + [1.5] * 20)}
    changed = compare.changes(new, old, wanted)
    with pytest.raises(
        GateFailed, match=r"accuracy must rise: 0\.5000 -> 0\.5000, difference \+0\.0000, 95 % interval"
    ) as failed:
        compare.apply_gate(changed, wanted, Path("metrics.json"))
    assert "margin" not in str(failed.value)
    assert failed.value.failure.value == "quality_gate"
    better = {"preferences": samples("preferences", margin=[1.5] * 40)}
    compare.apply_gate(compare.changes(better, old, wanted), wanted, Path("metrics.json"))
    gate = compare.summary(better, compare.changes(better, old, wanted), wanted)["preferences"]["accuracy"]["gate"]
    assert gate == {"must": "rise", "passed": True}


def test_gate_that_cannot_be_judged_is_refused_at_the_start() -> None:
    wanted = settings("preferences", gate={"chrf": {"must": "rise"}})
    with pytest.raises(BadSettings, match="no task of this evaluation measures it"):
        compare.check_gate(wanted, {"preferences": []})
    with pytest.raises(BadSettings, match="needs compare_to"):
        compare.check_gate(wanted, None)
    with pytest.raises(BadSettings, match="did not run the task 'preferences'"):
        compare.check_gate(settings("preferences", gate={"margin": {"must": "rise"}}), {"answers": []})


def test_refuses_settings() -> None:
    for given, text in (
        ({"tasks": {}}, "must name at least one task"),
        ({"tasks": {"perplexty": {"data": "d"}}}, "did you mean 'perplexity'"),
        ({"tasks": {"answers": {"data": "d", "limit": 0}}}, "limit of task 'answers' must be at least 1, not 0"),
        ({"tasks": {"answers": {"data": "d", "limits": 3}}}, "did you mean 'limit'"),
        ({"tasks": {"answers": {"data": "d"}}, "gate": {"answer_loss": "fall"}}, "must be {must: rise}"),
        ({"tasks": {"answers": {"data": "d"}}, "batch_tokens": 0}, "batch_tokens must be at least 1"),
    ):
        with pytest.raises(BadSettings, match=text):
            EvaluateSettings.read(given)
