"""Tasks of lm-evaluation-harness: the same prompts, answers and scores as by its own engine for transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("lm_eval", reason="lm_eval is not installed: make .venv/.dev")
os.environ["HF_HUB_OFFLINE"] = os.environ["HF_DATASETS_OFFLINE"] = "1"

import yaml

from jobs.core import results
from jobs.core.spec import Input
from jobs.evaluate import compare, measure
from jobs.evaluate.choices import Scorer
from jobs.evaluate.harness import index
from jobs.evaluate.kinds import Loaded, PreparedTask
from jobs.evaluate.kinds.harness import HarnessDisagrees
from jobs.evaluate.parts import ScoredPrompt
from jobs.evaluate.settings import EvaluateSettings
from jobs.training import tokenizers
from jobs.training.examples import ExamplesError
from jobs.training.models import load_model
from jobs.training.settings import BadSettings
from tests.support import benchmark_rows, stages
from tests.support.benchmark_rows import BENCHMARKS

pytestmark = pytest.mark.train

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


@pytest.fixture(scope="module")
def model(base: Path) -> Any:
    found = load_model(base / "output").eval()
    found.config.max_position_embeddings = 2048  # prompts are long, and its positions are computed
    return found


@pytest.fixture
def tokenizer(base: Path) -> Any:
    return tokenizers.load(base / "output")


def settings_of(name: str, **keys: Any) -> EvaluateSettings:
    found = index.find(name)
    told = {"version": found.version, "files": found.files, "data_set": found.dataset, "measures": found.measures}
    return EvaluateSettings.read({"tasks": {"own": {"benchmark": "rows", "harness": name, **told, **keys}}})


def ready(place: Path, settings: EvaluateSettings, loaded: Loaded) -> PreparedTask:
    task = settings.tasks["own"]
    entry = Input("rows", str(place.parent), "download", "benchmark", "0" * 64)
    return task.kind.prepare(task, task.kind.choose(task, {"benchmark:rows": entry}), loaded)


def placed(root: Path, name: str) -> Path:
    return benchmark_rows.write(root / "output", name)


def theirs(
    root: Path, place: Path, name: str, model: Any, tokenizer: Any, chat: bool, shots: int
) -> list[dict[str, Any]]:
    """Its samples and results by its own loader, prompts and engine: a YAML file for each part, told by its path."""
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    paths = []
    files = index.find(name).files
    for part, splits in BENCHMARKS[name].items():
        known = {task: file for task, file in files.items() if len(files) == 1 or task.endswith(part)}
        ((task, file),) = known.items()
        config = {
            "include": str(index.directory() / file),
            "task": task,
            "dataset_path": "json",
            "dataset_name": None,
            **({} if shots or "dev" in splits or "train" in splits else {"fewshot_split": next(iter(splits))}),
            "dataset_kwargs": {"data_files": {split: str(place / part / f"{split}.jsonl") for split in splits}},
        }
        paths.append(root / f"{task}.yaml")
        paths[-1].write_text(yaml.safe_dump(config), encoding="utf-8")
    engine = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, device="cpu")
    found = simple_evaluate(
        model=engine,
        tasks=[str(path) for path in paths],
        num_fewshot=shots,
        task_manager=TaskManager(include_defaults=False),
        bootstrap_iters=0,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        log_samples=True,
        verbosity="ERROR",
        gen_kwargs="max_gen_toks=12" if "generate" in str(configs_of(paths)) else None,
    )
    assert found is not None
    return [found]


def configs_of(paths: list[Path]) -> list[Any]:
    return [index.load(Path(yaml.safe_load(path.read_text())["include"])).get("output_type") for path in paths]


@pytest.mark.parametrize(
    ("name", "chat", "shots"),
    [
        ("mmlu", False, 2),
        ("mmlu", True, 1),
        ("gsm8k", False, 1),
        ("gsm8k", True, 1),
        ("hellaswag", False, 0),
        ("arc_easy", False, 0),
        ("arc_easy", True, 0),
        ("truthfulqa_mc1", False, 0),
        ("truthfulqa_mc2", False, 0),
        ("mgsm_direct_es", False, 2),
        ("kmmlu_accounting", False, 1),
        ("bbq", False, 0),
    ],
)
def test_answers_are_those_of_its_own_engine(
    tmp_path: Path, name: str, chat: bool, shots: int, model: Any, tokenizer: Any
) -> None:
    tokenizer.chat_template = TEMPLATE
    place = placed(tmp_path, name)
    settings = settings_of(name, shots=shots, chat=str(chat).lower(), max_new_tokens=12, by="subject")
    task = ready(place, settings, Loaded(model, tokenizer))
    samples = task.run()
    (reference,) = theirs(tmp_path, place, name, model, tokenizer, chat, shots)
    expected = [one for own in reference["samples"].values() for one in own]
    kept = {one["filter"] for one in expected}
    assert len(samples) == len(expected) / len(kept) == sum(
        len(rows) for splits in BENCHMARKS[name].values() for split, rows in splits.items()
        if split == ("validation" if "validation" in splits else "test")
    )  # fmt: skip
    if "answer" in samples[0]:
        assert sorted(one["answer"] for one in samples) == sorted(
            one["resps"][0][0] for one in expected if one["filter"] == min(kept)
        )
    else:
        mine = sorted(tuple(one["log_likelihoods"]) for one in samples)
        right = sorted(tuple(float(answer[0][0]) for answer in one["resps"]) for one in expected)
        for own, other in zip(mine, right, strict=True):
            assert own == pytest.approx(other, abs=1e-4)
    found = compare.as_json(compare.evaluate({"own": samples}, None, settings), {"own": task.how}, settings)["own"]
    for metric in settings.tasks["own"].metrics:
        plain, _, filtered = metric.partition("/")
        values = [own[f"{plain},{filtered or 'none'}"] for own in reference["results"].values()]
        # Shares are equal; a mean of probabilities differs as its log-likelihoods do.
        near = 1e-4 if name == "truthfulqa_mc2" else 1e-9
        assert found["metrics"][metric]["value"] == pytest.approx(sum(values) / len(values), abs=near)
        assert found["reported"][metric] == pytest.approx(found["metrics"][metric]["value"], abs=1e-9)
    if name == "mmlu":
        assert set(found["metrics"]["acc"]["by"]["subject"]) == {"anatomy", "astronomy"}
    if name == "bbq":
        (other,) = reference["results"].values()
        assert found["reported"]["amb_bias_score"] == pytest.approx(other["amb_bias_score,none"])


def test_a_smaller_limit_takes_the_first_of_a_larger_one_with_the_same_prompts(
    tmp_path: Path, model: Any, tokenizer: Any
) -> None:
    place = placed(tmp_path, "gsm8k")

    def prompts(limit: int | None) -> dict[str, str]:
        settings = settings_of("gsm8k", shots=2, limit=limit, chat="false", max_new_tokens=2)
        return {one["id"]: one["prompt"] for one in ready(place, settings, Loaded(model, tokenizer)).run()}

    every, some = prompts(None), prompts(2)
    assert list(some.items()) == list(every.items())[:2]
    assert len(set(every.values())) == len(every) == 5


def test_choices_of_a_prompt_share_one_forward_pass(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(base / "output").eval()
    questions = [ScoredPrompt((5, 6, 7, 8), ((9, 10), (11, 12, 13), (4,))), ScoredPrompt((3, 4), ((5, 5), (6,)))]
    alone = [[Scorer(model)([one])[0][0] for one in question.alone()] for question in questions]
    score = Scorer(model)
    seen = []
    inner = measure.logits
    monkeypatch.setattr(measure, "logits", lambda *given, **more: seen.append(given[1].shape) or inner(*given, **more))
    together = score(questions)
    assert seen == [torch_size(2, 7)]
    for own, other in zip(together, alone, strict=True):
        assert [value for value, _ in own] == pytest.approx([value for value, _ in other], abs=1e-5)
        assert [first for _, first in own] == [first for _, first in other]

    monkeypatch.setattr(Scorer, "_apart", lambda *given: {})  # a model that takes no mask
    blind = Scorer(model)
    assert blind(questions) == [[pytest.approx(one, abs=1e-5) for one in own] for own in alone]


def torch_size(*sides: int) -> Any:
    import torch

    return torch.Size(sides)


def test_rows_that_are_too_long_are_counted_and_not_cut(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    place = placed(tmp_path, "arc_easy")
    path = place / "ARC-Easy" / "test.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[0]["question"] = "page " * 9000
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    settings = settings_of("arc_easy", chat="false")
    task = ready(place, settings, Loaded(model, tokenizer))
    samples = task.run()
    (wrong,) = [one for one in samples if "problem" in one]
    assert "too long" in wrong["problem"]
    found = compare.as_json(compare.evaluate({"own": samples}, None, settings), {}, settings)["own"]
    assert (found["problems"], found["metrics"]["acc"]["n"]) == (1, 7)


def test_another_way_to_put_scores_together_is_found_out(
    tmp_path: Path, model: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.api.task import ConfigurableTask

    def other(items: list[float]) -> float:
        return sum(items) / (len(items) + 1) + 0.1

    monkeypatch.setattr(ConfigurableTask, "aggregation", lambda task: {"acc": other, "acc_norm": other})
    task = ready(placed(tmp_path, "arc_easy"), settings_of("arc_easy", chat="false"), Loaded(model, tokenizer))
    with pytest.raises(HarnessDisagrees, match="this version of lm_eval puts them together otherwise"):
        task.run()


def test_templates_on_one_side_only_are_refused(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    place = placed(tmp_path, "arc_easy")
    tokenizer.chat_template = TEMPLATE
    before = {"own": {"template": None}}
    with pytest.raises(BadSettings, match=r"the checkpoint has a chat template, .* made with none: write chat: false"):
        ready(place, settings_of("arc_easy"), Loaded(model, tokenizer, earlier=before))
    plain = ready(place, settings_of("arc_easy", chat="false"), Loaded(model, tokenizer, earlier=before))
    both = ready(place, settings_of("arc_easy"), Loaded(model, tokenizer, earlier={"own": {"template": "x"}}))
    assert plain.how["template"] is None
    assert both.how["template"]
    tokenizer.chat_template = None
    with pytest.raises(BadSettings, match="chat: true, and the checkpoint has no chat template"):
        ready(place, settings_of("arc_easy", chat="true"), Loaded(model, tokenizer))


def test_a_split_that_is_missing_is_named(tmp_path: Path, model: Any, tokenizer: Any) -> None:
    place = placed(tmp_path, "arc_easy")
    with pytest.raises(ExamplesError, match="shots: 2 needs the split 'train', here is only test: write shots: 0"):
        ready(place, settings_of("arc_easy", shots=2), Loaded(model, tokenizer))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("mmluu", "has no task 'mmluu'; nearest: mmlu"),
        ("squadv2", "is a program of its own in the harness"),
        ("humaneval", "runs the code that the model writes"),
        ("glue", "share no metric that is a mean over rows; name one of them: cola"),
        ("truthfulqa", "name one of them: truthfulqa_gen, truthfulqa_mc1"),
    ],
)
def test_tasks_that_cannot_be_run(name: str, text: str) -> None:
    with pytest.raises(index.HarnessError, match=text):
        index.find(name)


def test_groups_and_tags_are_all_their_tasks() -> None:
    found = index.find("mmlu")
    assert (len(found.files), found.dataset, found.measures) == (57, "cais/mmlu", {"acc": True})
    assert len(index.find("kmmlu").files) == 45
    assert len(index.find("mgsm_direct").files) == 11


def test_a_stage_measures_and_compares(tmp_path: Path, base: Path) -> None:
    placed(tmp_path / "rows", "mmlu")
    told = settings_of("mmlu", shots=0, chat="false", by="subject").tasks["own"].keys
    task = {"harness": "mmlu", "benchmark": "rows", "shots": 0, "chat": "false", "by": "subject", "limit": 12}
    task |= {name: getattr(told, name) for name in ("version", "files", "data_set", "measures")}
    given = {"tasks": {"mmlu": {"task": "harness", **task}}, "threads": 1}
    inputs = {"checkpoint": base, "benchmark:rows": tmp_path / "rows"}
    before = stages.stage(tmp_path / "before", "evaluate", "trl", given, inputs)
    before.start()
    before.output.rename(tmp_path / "before" / "output")
    gate = {"mmlu.acc": {"may_fall": 0.5, "tier": "advisory"}}
    after = stages.stage(
        tmp_path / "after", "evaluate", "trl", {**given, "gate": gate}, {**inputs, "compare_to": tmp_path / "before"}
    )
    after.start()
    found = results.read(after.output / "evaluation.json")["mmlu"]
    assert found["metrics"]["acc"]["change"]["value"] == 0
    assert found["metrics"]["acc"]["gate"]["verdict"] == "passed"
    assert found["harness"]["task"] == "mmlu"
