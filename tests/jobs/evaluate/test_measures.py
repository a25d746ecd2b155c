"""Measures of generated answers against the libraries that define them, and against plain loops."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("scipy")
sacrebleu = pytest.importorskip("sacrebleu")

from jobs.core import measures as keys  # noqa: E402
from jobs.core import results  # noqa: E402
from jobs.evaluate import compare  # noqa: E402
from jobs.evaluate.kinds import generated  # noqa: E402
from jobs.evaluate.measures import FORMULAS, AnswerMeasures, words_of  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.training import interface  # noqa: E402
from jobs.training.settings import BadSettings  # noqa: E402
from tests.support import stages  # noqa: E402

PAIRS = [
    ("Guardar página", "Salvar página"),
    ("Apagar o utilizador do sistema", "Apagar o utilizador do sistema"),
    ("x", "Novo ficheiro"),
    ("", "Novo"),
    ("Não há atualizações disponíveis.", "Não existem atualizações disponíveis hoje."),
    ("파일을 저장하지 못했습니다", "파일을 저장할 수 없습니다"),
] * 2


def samples(pairs: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"task": "support", "id": str(n), "hypothesis": one, "reference": other, "answer_tokens": n, "finish": "stop"}
        for n, (one, other) in enumerate(pairs)
    ]


def settings(measure: dict[str, Any], **more: Any) -> EvaluateSettings:
    return EvaluateSettings.read({"tasks": {"support": {"data": "d", "measure": measure}}, "seed": 1, **more})


def measured(measure: dict[str, Any], pairs: list[tuple[str, str]], old: Any = None, **more: Any) -> dict[str, Any]:
    wanted = settings(measure, **more)
    before = None if old is None else {"support": samples(old)}
    tasks = compare.as_json(compare.evaluate({"support": samples(pairs)}, before, wanted), {}, wanted)
    return tasks["support"]["metrics"]


def test_every_measure_has_a_formula_of_its_metrics() -> None:
    assert {*FORMULAS, "code"} == set(keys.MEASURES)
    for name in FORMULAS:
        given = {"regex": {"pattern": "a"}, "contains": {"any": ["a"]}}.get(name, {})
        found = AnswerMeasures.of({name: given}).metrics()
        assert {metric: (one.higher_is_better, one.share is not None) for metric, one in found.items()} == {
            metric: (fact.higher_is_better, fact.share) for metric, fact in keys.metrics_of({name: given}).items()
        }


@pytest.mark.parametrize(
    ("name", "given", "reference"),
    [
        ("chrf", {}, sacrebleu.metrics.CHRF()),
        ("bleu", {}, sacrebleu.metrics.BLEU()),
        ("bleu", {"tokenize": "char"}, sacrebleu.metrics.BLEU(tokenize="char")),
        ("ter", {}, sacrebleu.metrics.TER()),
    ],
)
def test_values_are_those_of_sacrebleu(name: str, given: dict[str, Any], reference: Any) -> None:
    hypotheses, wanted = (list(texts) for texts in zip(*PAIRS, strict=True))
    found = measured({"exact": {}, name: given, "f1": {}}, PAIRS)[name]  # between others: its columns are its own
    assert found["value"] == pytest.approx(reference.corpus_score(hypotheses, [wanted]).score, abs=1e-9)
    assert found["low"] < found["value"] < found["high"]
    drawn = random.Random(5).choices(range(len(PAIRS)), k=len(PAIRS))
    again = [PAIRS[index] for index in drawn]
    one = AnswerMeasures.of({name: given})
    sums = np.array([one.statistics(sample) for sample in samples(again)]).sum(axis=0)
    expected = reference.corpus_score([pair[0] for pair in again], [[pair[1] for pair in again]]).score
    assert float(one.metrics()[name].of(sums)) == pytest.approx(expected, abs=1e-9), "of a resample, too"


def test_rouge_is_that_of_rouge_score_and_knows_other_scripts() -> None:
    scorer = pytest.importorskip("rouge_score.rouge_scorer")
    pairs = [("The cat sat on the mats", "the cats sat on a mat"), ("one two", "two one three"), ("", "x")] * 2
    for stem in (False, True):
        reference = scorer.RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem)
        expected = [reference.score(wanted, one) for one, wanted in pairs]
        found = measured({"rouge": {"stem": stem}}, pairs)
        for name in ("rouge1", "rouge2", "rougeL"):
            mean = sum(one[name].fmeasure for one in expected) / len(pairs)
            assert found[name]["value"] == pytest.approx(mean, abs=1e-12)
    assert measured({"rouge": {}}, [("파일을 저장", "파일을 열기")] * 5)["rouge1"]["value"] == pytest.approx(0.5)


def test_f1_is_of_words_without_articles_and_punctuation() -> None:
    assert words_of("The  Cat, a dog—and «an» egg!") == ["cat", "dogand", "egg"]
    assert measured({"f1": {}}, [("a red cat", "The cat.")] * 5)["f1"]["value"] == pytest.approx(2 / 3)
    assert measured({"f1": {}}, [("the", "a")] * 5)["f1"]["value"] == 1


@pytest.mark.parametrize(
    ("measure", "answer", "wanted", "holds"),
    [
        ({"exact": {}}, "Sim", "Sim", True),
        ({"exact": {}}, "sim", "Sim", False),
        ({"numeric": {}}, "First 3, so 1,200.", "#### 1200", True),
        ({"numeric": {"take": "first"}}, "3 and 4", "3", True),
        ({"numeric": {}}, "none", "3", False),
        ({"numeric": {"language": "es"}}, "son 1.200,5", "1200,5", True),
        ({"numeric": {"language": "ko"}}, "답은 1만 2천입니다", "12,000", True),
        ({"numeric": {"tolerance": 0.1}}, "0.4", "0.3", True),
        ({"numeric": {"tolerance": 0.1}}, "0.41", "0.3", False),
        ({"contains": {"any": ["refund", "money back"]}}, "A REFUND", "-", True),
        ({"contains": {"any": ["Refund"], "case": True}}, "a refund", "-", False),
        ({"contains": {"all": ["a", "b"], "none": ["c"]}}, "ab", "-", True),
        ({"contains": {"all": ["a", "b"], "none": ["c"]}}, "abc", "-", False),
        ({"contains": {"any": ["pa\u0301gina"]}}, "A página", "-", True),
        ({"regex": {"pattern": r"\d{3}"}}, "id 123", "-", True),
        ({"regex": {"pattern": r"\d{3}", "whole": True}}, "id 123", "-", False),
        ({"json": {}}, '{"a": 1}', "-", True),
        ({"json": {}}, '{"a": NaN}', "-", False),
        ({"json": {}}, "[" * 100_000, "-", False),
        ({"json": {"schema": {"type": "object", "required": ["a"]}}}, '{"b": 1}', "-", False),
        ({"json": {"schema": {"type": "object", "required": ["a"]}}}, '{"a": 1}', "-", True),
    ],
)
def test_a_share_of_answers(measure: dict[str, Any], answer: str, wanted: str, holds: bool) -> None:
    [found] = measured(measure, [(answer, wanted)] * 5).values()
    assert (found["value"], found["method"]) == (float(holds), "Wilson")


def test_fewer_answers_that_were_cut_are_better_ones() -> None:
    old, new = samples([("a", "a")] * 6), samples([("a", "a")] * 6)
    for sample in old[:2]:
        sample["finish"] = "length"
    wanted = settings({"length": {}}, gate={"cut": {"may_rise": 0.5}, "support.length": {"at_most": 100}})
    found = compare.evaluate({"support": new}, {"support": old}, wanted)
    entry = compare.as_json(found, {}, wanted)["support"]["metrics"]
    assert (entry["cut"]["change"]["better"], entry["cut"]["change"]["worse"]) == (2, 0)
    assert entry["length"]["value"] == 2.5


def test_refuses_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    for measure, text in (
        ({"rogue": {}}, "unknown measure 'rogue'; known: chrf"),
        ({"bleu": {"tokenise": "char"}}, "bleu has an unknown key 'tokenise'"),
        ({"bleu": {"tokenize": "x"}}, "tokenize of bleu must be one of 13a"),
        ({"contains": {}}, "write {any:"),
        ({"regex": {"pattern": "("}}, "not a regular expression"),
        ({"json": {"schema": {"type": "nothing"}}}, "schema of the measure json"),
        ({"code": "f"}, "write module:function, not 'f'"),
        ({"code": {"functions": ["a:chrf"]}}, "two metrics are called chrf"),
        ({"code": "no_such_module:f"}, "is it in the work tree that code: names"),
        ({"code": "json:nothing"}, "has no attribute 'nothing'"),
    ):
        with pytest.raises(BadSettings, match=text):
            generated.check(settings(measure).tasks["support"].keys)
    monkeypatch.setattr(interface, "versions", lambda *packages: {} if "rouge-score" in packages else {"scipy": "1"})
    with pytest.raises(interface.Missing, match="the measure rouge needs rouge-score"):
        generated.check(settings({"rouge": {}}).tasks["support"].keys)


@pytest.mark.train
def test_a_model_answers_and_is_measured(
    tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = pytest.importorskip("torch")
    from jobs.training import tokenizers
    from jobs.training.models import load_model

    (tmp_path / "own_measures.py").write_text("def long_row(answer, reference, row):\n    return len(row['prompt'])\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    stages.make_model(tmp_path / "other" / "output", seed=7)
    measure = {"chrf": {}, "length": {}, "kl": {}, "code": "own_measures:long_row"}
    tasks = {"support": {"data": "rows", "measure": measure, "max_new_tokens": 6, "limit": 8}}
    given = {"checkpoint": base, "rows": data / "instructions", "reference": tmp_path / "other"}
    one = stages.stage(tmp_path / "one", "evaluate", "trl", {"tasks": tasks, "seed": 1, "threads": 1}, given)
    one.start()
    found = results.read(one.output / "evaluation.json")["support"]["metrics"]
    lines = [json.loads(line) for line in (one.output / "samples.jsonl").read_text().splitlines()]
    assert found["long_row"]["value"] == pytest.approx(sum(line["values"]["long_row"] for line in lines) / 8)
    assert found["cut"]["value"] == sum(line["finish"] == "length" for line in lines) / 8
    assert {line["answer_tokens"] for line in lines if line["finish"] == "length"} <= {6}

    model, reference = (load_model(path / "output").eval() for path in (base, tmp_path / "other"))
    tokenizer = tokenizers.load(base / "output")
    prompts = {row["id"]: row["prompt"] for row in map(json.loads, (data / "instructions/output/test.jsonl").open())}
    for line in lines:
        start = list(tokenizer(prompts[line["id"]])["input_ids"])
        with torch.inference_mode():
            made = model.generate(torch.tensor([start]), do_sample=False, max_new_tokens=6)[0].tolist()
            p, q = (one(torch.tensor([made])).logits[0].double().log_softmax(-1) for one in (model, reference))
        places = range(len(start) - 1, len(made) - 1)
        expected = sum(float((p[at].exp() * (p[at] - q[at])).sum()) for at in places)
        assert line["kl"] == [pytest.approx(expected, rel=1e-4), len(places)]

    same = {**given, "reference": base}
    two = stages.stage(tmp_path / "two", "evaluate", "trl", {"tasks": tasks, "seed": 1, "threads": 1}, same)
    two.start()
    assert results.read(two.output / "evaluation.json")["support"]["metrics"]["kl"]["value"] == 0
    alone = {"checkpoint": base, "rows": data / "instructions"}
    three = stages.stage(tmp_path / "three", "evaluate", "trl", {"tasks": tasks, "seed": 1, "threads": 1}, alone)
    with pytest.raises(BadSettings, match="needs a model to compare with"):
        three.start()


@pytest.mark.train
def test_a_function_that_fails_is_named_with_its_row(
    tmp_path: Path, base: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    text = "def bad(answer, reference, row):\n    return {'1': 1, '2': float('nan')}[row['id']]\n"
    (tmp_path / "failing_measures.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    tasks = {"support": {"data": "rows", "measure": {"code": "failing_measures:bad"}, "max_new_tokens": 2, "limit": 3}}
    given = {"checkpoint": base, "rows": data / "instructions"}
    one = stages.stage(tmp_path / "one", "evaluate", "trl", {"tasks": tasks, "threads": 1}, given)
    with pytest.raises(BadSettings, match=r"measure code: bad (fails|says nan).*test\.jsonl:\d+"):
        one.start()
