"""Evaluation scores by the logits that the model itself gives, and its greedy answers are greedy, whatever the model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from jobs.encoding.tokens import Tokens  # noqa: E402
from jobs.evaluate import measure  # noqa: E402
from jobs.evaluate.choices import Scorer  # noqa: E402
from jobs.evaluate.kinds import Loaded, texts  # noqa: E402
from jobs.evaluate.parts import ScoredPrompt  # noqa: E402
from jobs.evaluate.settings import EvaluateSettings  # noqa: E402
from jobs.training import tokenizers  # noqa: E402
from jobs.training.examples import Row  # noqa: E402
from tests.support import stages  # noqa: E402

pytestmark = pytest.mark.train

SIZES: dict[str, Any] = {
    "vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 128, "pad_token_id": 2, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
MODELS: dict[str, dict[str, Any]] = {
    "llama": {}, "qwen2": {}, "qwen3": {}, "mistral": {"sliding_window": 4}, "gemma": {}, "phi3": {}, "olmo2": {},
    "gemma2": {"final_logit_softcapping": 3.0, "attn_logit_softcapping": 5.0, "sliding_window": 8},
    "granite": {"logits_scaling": 7.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5},
    "cohere": {"logit_scale": 0.25}, "cohere2": {"logit_scale": 0.25},
    "mixtral": {"num_local_experts": 2, "num_experts_per_tok": 1},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
}  # fmt: skip


def model_of(kind: str, seed: int = 0) -> Any:
    """A tiny model with weights large enough that a cap or a scale changes the logits."""
    torch.manual_seed(seed)
    names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id") if kind == "gpt2" else tuple(SIZES)
    config = transformers.AutoConfig.for_model(kind, **{name: SIZES[name] for name in names}, **MODELS[kind])
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=0.3)
    return model


@pytest.mark.parametrize("kind", MODELS)
def test_scores_are_those_of_the_models_own_logits(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LOGIT_ROWS", 3)  # several parts
    model = model_of(kind)
    pairs = [Tokens.of((5, 6, 7), (8, 9, 2)), Tokens.of((5,), (9, 10, 11, 12, 2)), Tokens.of((4, 4), (2,))]
    found = measure.log_likelihoods(model, pairs)
    for pair, value in zip(pairs, found, strict=True):
        with torch.inference_mode():
            chances = model(torch.tensor([[*pair.prompt, *pair.completion]])).logits[0].double().log_softmax(-1)
        first = len(pair.prompt) - 1
        expected = sum(float(chances[first + place, token]) for place, token in enumerate(pair.completion))
        assert value == pytest.approx(expected, rel=1e-5)
    with torch.inference_mode():  # nothing of it is left behind
        again = model(torch.tensor([[5, 6, 7]])).logits
    assert torch.equal(again, model(torch.tensor([[5, 6, 7]])).logits)


@pytest.mark.parametrize("kind", MODELS)
def test_choices_of_a_prompt_are_scored_as_each_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "LOGIT_ROWS", 3)
    model = model_of(kind)
    questions = [
        ScoredPrompt((5, 6, 7), ((8, 9, 2), (9, 10), (3,))),
        ScoredPrompt((4, 4, 11, 12, 13, 14), ((2, 5, 6, 7), (8,), (9, 9, 9))),  # longer than some of them look back
        ScoredPrompt((20,), ((21,), (22,))),
    ]
    found = Scorer(model)(questions)
    for question, own in zip(questions, found, strict=True):
        for choice, (value, is_best) in zip(question.choices, own, strict=True):
            with torch.inference_mode():
                chances = model(torch.tensor([[*question.prompt, *choice]])).logits[0].double().log_softmax(-1)
            places = range(len(question.prompt) - 1, len(question.prompt) + len(choice) - 1)
            expected = sum(float(chances[place, token]) for place, token in zip(places, choice, strict=True))
            assert value == pytest.approx(expected, rel=1e-5)
            assert is_best == all(
                int(chances[place].argmax()) == token for place, token in zip(places, choice, strict=True)
            )


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    root = tmp_path_factory.mktemp("tokenizer")
    stages.make_tokenizer(root)
    return tokenizers.load(root)


def greedy(model: Any, prompt: list[int], most: int) -> list[int]:
    """Step by step, the likeliest id each time; never stops."""
    ids = list(prompt)
    with torch.inference_mode():
        for _ in range(most):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_greedy_is_greedy_and_ends_at_every_end_id(tokenizer: Any) -> None:
    model = model_of("llama", seed=1)
    prompts = [[5, 6, 7], [40, 41], [90]]
    plain = [greedy(model, prompt, 9) for prompt in prompts]
    expected = [tokenizer.decode(row, skip_special_tokens=True).strip() for row in plain]
    ends = [int(tokenizer.eos_token_id)]
    assert [one.text for one in measure.answers(model, tokenizer, prompts, 9, ends)] == expected  # no end id came up
    config = model.generation_config
    config.repetition_penalty, config.no_repeat_ngram_size, config.max_length = 5.0, 1, 7
    config.do_sample, config.temperature, config.suppress_tokens = True, 2.0, [plain[0][0]]
    before = copy.deepcopy(config)
    assert [one.text for one in measure.answers(model, tokenizer, prompts, 9, ends)] == expected
    assert model.generation_config == before
    ends = [2, plain[0][1]]
    (first, *_) = measure.answers(model, tokenizer, prompts, 9, ends)
    assert (first.ids, first.end, first.finish) == ((plain[0][0],), plain[0][1], "stop")
    assert first.text == tokenizer.decode(plain[0][:1], skip_special_tokens=True).strip()


def test_the_beginning_token_is_not_scored(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, processors

    stages.make_tokenizer(tmp_path)
    plain = tokenizers.load(tmp_path)
    raw = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    raw.save(str(tmp_path / "tokenizer.json"))
    beginning = tokenizers.load(tmp_path)
    model = model_of("llama")
    row = Row("x:1", "a", {"text": "Guardar página"})
    settings = EvaluateSettings.read({"tasks": {"perplexity": {"data": "corpus"}}})
    (alone,), (with_bos,) = (
        texts.prepare(settings.tasks["perplexity"], [row], Loaded(model, each)).run() for each in (plain, beginning)
    )
    ids = plain("Guardar página")["input_ids"]
    assert alone["tokens"] == with_bos["tokens"] == len(ids) + 1
    for sample, prompt in ((alone, [2]), (with_bos, [2, 1])):
        with torch.inference_mode():
            chances = model(torch.tensor([[*prompt, *ids, 2]])).logits[0].log_softmax(-1)
        wanted = sum(float(chances[len(prompt) - 1 + at, token]) for at, token in enumerate([*ids, 2]))
        assert sample["nll"] == pytest.approx(-wanted, rel=1e-5)
