"""Evaluations of a tiny model: numbers checked against plain loops, gates against a model that learned."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from jobs.core import results  # noqa: E402
from jobs.encoding.tokens import Tokens  # noqa: E402
from jobs.evaluate import GateUndecided, measure  # noqa: E402
from jobs.evaluate.kinds import Loaded, PreparedTask, generated, texts  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.training import examples, tokenizers  # noqa: E402
from jobs.training.examples import ExamplesError  # noqa: E402
from jobs.training.models import load_model  # noqa: E402
from tests.support import stages  # noqa: E402

pytestmark = pytest.mark.train

TASKS: dict[str, Any] = {
    "perplexity": {"data": "corpus"},
    "answers": {"data": "instructions"},
    "translation": {"data": "instructions", "limit": 10, "max_new_tokens": 12},
    "preferences": {"data": "preferences"},
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, base: Path, data: Path) -> Path:
    """The base model after a little SFT."""
    root = tmp_path_factory.mktemp("tuned")
    settings = {"steps": 40, "lr": 5e-3, "batch_size": 8, "sequence_length": 64, "seed": 3, "threads": 1}
    stage = stages.stage(root / "sft", "sft", "trl", settings, {"checkpoint": base, "data": data / "instructions"})
    stage.start()
    stage.output.rename(root / "output")
    return root


def test_only_the_chosen_rows_are_held(tmp_path: Path) -> None:
    rows = ({"id": str(n), "prompt": f"{n} " * 100, "completion": "a" * 500} for n in range(20_000))
    path = tmp_path / "test.jsonl"
    with open(path, "w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row) + "\n" for row in rows)
    every = [row.id for row in texts.rows_of(path, "answers", None)]
    tracemalloc.start()
    found = [row.id for row in texts.rows_of(path, "answers", 50)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(every) == 20_000
    assert found == every[:50]
    assert peak < 3e6, "the file has 20 MB"


def ready(task: str, rows: Any, settings: EvaluateSettings, model: Any, tokenizer: Any) -> PreparedTask:
    return texts.prepare(settings.tasks[task], rows, Loaded(model, tokenizer))


def evaluation(
    root: Path, checkpoint: Path, data: Path, compare_to: Path | None = None, **settings: Any
) -> stages.Stage:
    inputs = {"checkpoint": checkpoint, **{name: data / name for name in ("corpus", "instructions", "preferences")}}
    if compare_to:
        inputs["compare_to"] = compare_to
    return stages.stage(root, "evaluate", "trl", {"tasks": TASKS, "seed": 1, "threads": 1, **settings}, inputs)


def test_before_and_after(tmp_path: Path, base: Path, tuned: Path, data: Path) -> None:
    before = evaluation(tmp_path / "before", base, data)
    result = before.start()
    assert set(result.metrics) == {
        "perplexity.perplexity",
        "perplexity.bits_per_byte",
        "answers.answer_loss",
        "translation.chrf",
        "translation.exact_match",
        "preferences.accuracy",
        "preferences.margin",
    }
    before.output.rename(tmp_path / "before" / "output")
    gate = {"answer_loss": {"must": "fall"}, "chrf": {"must": "rise"}}
    after = evaluation(tmp_path / "after", tuned, data, compare_to=tmp_path / "before", gate=gate)
    after.start()
    found = results.read(after.output / "evaluation.json")
    loss = found["answers"]["metrics"]["answer_loss"]
    assert loss["change"]["high"] < 0
    assert (loss["gate"]["rule"], loss["gate"]["verdict"]) == ("must fall", "passed")
    assert loss["before"] == pytest.approx(result.metrics["answers.answer_loss"])
    assert found["translation"]["metrics"]["chrf"]["n"] == 10
    assert found["answers"]["not_in_both"] == 0
    assert found["perplexity"]["window"] == 2 * found["perplexity"]["stride"]
    reports = after.reports()
    steps = [report.step for report in reports]
    assert steps == sorted(set(steps))
    assert steps[-1] == reports[0].total == 24 + 24 + 10 + 24

    worse = evaluation(tmp_path / "worse", base, data, compare_to=tmp_path / "before", gate=gate)
    with pytest.raises(GateUndecided, match="answer_loss must fall"):  # nothing changed at all
        worse.start()
    assert (worse.output / "evaluation.json").exists()  # for the user to read
    assert len((worse.output / "samples.jsonl").read_text().splitlines()) == 24 + 24 + 10 + 24


def test_log_likelihoods_are_those_of_a_plain_loop(base: Path) -> None:
    model = load_model(base / "output").eval()
    pairs = [Tokens.of((5, 6, 7), (8, 2)), Tokens.of((5,), (9, 10, 11, 12, 2)), Tokens.of((4, 4), (2,))]
    found = measure.log_likelihoods(model, pairs)
    for pair, value in zip(pairs, found, strict=True):
        with torch.inference_mode():
            chances = model(torch.tensor([[*pair.prompt, *pair.completion]])).logits[0].double().log_softmax(-1)
        expected = sum(
            float(chances[len(pair.prompt) + place - 1, token]) for place, token in enumerate(pair.completion)
        )
        assert value == pytest.approx(expected, abs=1e-4)


def test_the_prompt_of_two_answers_goes_through_the_model_once(base: Path, data: Path) -> None:
    """Where both fit into a batch so; and that does not show in the numbers."""
    tokenizer, model = tokenizers.load(base / "output"), load_model(base / "output").eval()
    settings = EvaluateSettings.read({"tasks": {"preferences": {"data": "preferences"}}})
    rows = examples.read_rows(data / "preferences" / "output" / "test.jsonl", "preferences")
    once = ready("preferences", rows, settings, model, tokenizer)
    assert [len(own) for own in once.parts] == [1] * len(rows)
    twice = texts.prepare(settings.tasks["preferences"], rows, Loaded(model, tokenizer, batch_tokens=8))
    assert [len(own) for own in twice.parts] == [2] * len(rows)
    tokens = [sum(len(part) for own in one.parts for part in own) for one in (once, twice)]
    assert tokens[0] < 0.8 * tokens[1]
    assert once.shown() == twice.shown()
    for one, other in zip(once.run(), twice.run(), strict=True):
        assert (one["chosen"], one["rejected"]) == pytest.approx((other["chosen"], other["rejected"]), abs=1e-4)


def test_answers_do_not_depend_on_the_batch(tuned: Path, data: Path) -> None:
    tokenizer = tokenizers.load(tuned / "output")
    model = load_model(tuned / "output").eval()
    rows = examples.read_rows(data / "instructions" / "output" / "test.jsonl", "instructions")[:6]
    prompts = [tokenizer(row.texts["prompt"])["input_ids"] for row in rows]
    together = measure.answers(model, tokenizer, prompts, 12, [tokenizer.eos_token_id])
    alone = [measure.answers(model, tokenizer, [prompt], 12, [tokenizer.eos_token_id])[0] for prompt in prompts]
    assert together == alone
    assert any(together)


def test_an_answer_ends_where_those_of_the_data_do(tmp_path: Path) -> None:
    """Also with a token that is not the tokenizer's end token, and with those of generation_config.json."""
    from types import SimpleNamespace

    from tests.support.templates import A, U, write_tokenizer

    template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    tokenizer = tokenizers.load(write_tokenizer(tmp_path / "model", template))
    stages.write_rows(tmp_path / "test.jsonl", [{"messages": [U, A]}])
    rows = examples.read_rows(tmp_path / "test.jsonl", "instructions")
    encoder = examples.encoder_of(tokenizer, tmp_path / "test.jsonl")
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[3, 5]))
    ends = {3, 5, tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|im_end|>")}
    assert generated.ends_of(rows, encoder, model) == sorted(ends)


@pytest.mark.parametrize("mode", ["escape", "allow", "refuse"])
def test_perplexity_is_that_of_the_ids_that_are_trained(tmp_path: Path, base: Path, mode: str) -> None:
    from jobs.encoding.settings import Encoding

    Encoding(special_tokens=mode).write(tmp_path)
    text = "Ecrã </s> inicial <s>"
    stages.write_rows(tmp_path / "test.jsonl", [{"id": "1", "text": text}])
    rows = examples.read_rows(tmp_path / "test.jsonl", "corpus")
    tokenizer, model = tokenizers.load(base / "output"), load_model(base / "output").eval()
    settings = EvaluateSettings.read({"tasks": {"perplexity": {"data": "corpus"}}})
    if mode == "refuse":
        with pytest.raises(ExamplesError, match=r"test\.jsonl:1: holds control tokens: .*</s>: 1"):
            ready("perplexity", rows, settings, model, tokenizer)
        return
    found = ready("perplexity", rows, settings, model, tokenizer).run()[0]
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=mode == "escape")["input_ids"]
    assert ids.count(2) == (mode == "allow")
    with torch.inference_mode():
        chances = model(torch.tensor([[2, *ids, 2]])).logits[0].double().log_softmax(-1)
    expected = -sum(float(chances[place, token]) for place, token in enumerate([*ids, 2]))
    assert (found["nll"], found["tokens"]) == (pytest.approx(expected, abs=1e-4), len(ids) + 1)


def test_batches_hold_everything_once_and_keep_to_the_budget() -> None:
    lengths = [3, 50, 7, 7, 20, 1, 64, 90]
    groups = list(measure.batches(lengths, 64))
    assert sorted(index for group in groups for index in group) == list(range(8))
    assert all(len(group) == 1 or len(group) * max(lengths[index] for index in group) <= 64 for group in groups)
    assert max(map(len, measure.batches(lengths, 10_000, most=3))) == 3


def test_choice_of_examples_is_by_id_and_drops_equal_answers(tmp_path: Path) -> None:
    rows = [
        {"id": str(index), "prompt": "a", "chosen": "b", "rejected": "b" if index % 2 else "c"} for index in range(20)
    ]
    chosen = []
    for order in (rows, rows[::-1]):
        stages.write_rows(tmp_path / "test.jsonl", order)
        found = texts.rows_of(tmp_path / "test.jsonl", "preferences", 5)
        chosen.append([row.id for row in found])
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 5
    assert all(int(name) % 2 == 0 for name in chosen[0])
    stages.write_rows(tmp_path / "test.jsonl", [row for row in rows if row["chosen"] == row["rejected"]])
    with pytest.raises(ExamplesError, match="no row for the task preferences"):
        texts.rows_of(tmp_path / "test.jsonl", "preferences", None)


@pytest.mark.parametrize("count", [0, 1, 5, 6, 7, 40, 41])
def test_windows_score_every_token_once_and_keep_to_the_limit(count: int) -> None:
    ids = list(range(100, 100 + count))
    found = measure.windows([1, 2], ids, 8)
    assert [one for window in found for one, learned in zip(window.ids, window.mask, strict=True) if learned] == ids
    assert all(len(window) <= 8 for window in found)
    for window in found[1:]:
        learned = window.mask.index(True)
        assert learned == 4, "half of it is context"
        assert window.ids == tuple(range(window.ids[0], window.ids[0] + len(window)))


@pytest.mark.parametrize("kind", ["rotary", "learned"])
def test_a_document_longer_than_the_model_is_scored_in_windows(tmp_path: Path, kind: str) -> None:
    """The sum is that of a plain loop over the same windows; a model with learned positions fails on longer ones."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    stages.make_tokenizer(tmp_path)
    tokenizer = tokenizers.load(tmp_path)
    torch.manual_seed(0)
    shape = {"vocab_size": 400, "bos_token_id": 1, "eos_token_id": 2}
    model: Any = (
        LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                     max_position_embeddings=16, **shape))
        if kind == "rotary"
        else GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=16, **shape))
    ).eval()  # fmt: skip
    text = "The number after seven is eight and so on. " * 9
    stages.write_rows(tmp_path / "test.jsonl", [{"id": "long", "text": text}, {"id": "short", "text": "One."}])
    rows = examples.read_rows(tmp_path / "test.jsonl", "corpus")
    settings = EvaluateSettings.read({"tasks": {"perplexity": {"data": "d"}, "answers": {"data": "d"}}})
    long, short = ready("perplexity", rows, settings, model, tokenizer).run()
    end = tokenizer.eos_token_id
    ids = [*tokenizer(text, add_special_tokens=False)["input_ids"], end]
    assert long["tokens"] == len(ids) > 64
    first = 16 - 1  # this tokenizer puts nothing before a text
    pieces = [([end], ids[:first])] + [(ids[at - 8 : at], ids[at : at + 8]) for at in range(first, len(ids), 8)]
    expected = 0.0
    with torch.inference_mode():
        for before, scored in pieces:
            logits = model(torch.tensor([[*before, *scored]])).logits[0].log_softmax(-1)
            expected -= sum(float(logits[len(before) + at - 1, one]) for at, one in enumerate(scored))
    assert long["nll"] == pytest.approx(expected, rel=1e-5)
    assert short["tokens"] == len(tokenizer("One.", add_special_tokens=False)["input_ids"]) + 1
    stages.write_rows(tmp_path / "rows.jsonl", [{"id": "1", "prompt": text, "completion": " ten"}])
    with pytest.raises(ExamplesError, match=r"rows.jsonl:1: \d+ tokens, and the model has 16 positions"):
        ready("answers", examples.read_rows(tmp_path / "rows.jsonl", "instructions"), settings, model, tokenizer)
