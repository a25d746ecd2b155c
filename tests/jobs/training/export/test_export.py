"""An export read back: shards, card and GGUF file against the model that they were made from."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from jobs.backends import convert  # noqa: E402
from jobs.core import results  # noqa: E402
from jobs.core.spec import Input  # noqa: E402
from jobs.training import gguf, interface, models, tokenizers  # noqa: E402
from jobs.training.export import card, gguf_file, shards, smoke  # noqa: E402
from jobs.training.gguf import ConversionFailed  # noqa: E402
from jobs.training.probe_texts import PROBE_TEXTS  # noqa: E402
from tests.support import stages, tokenizer_shapes  # noqa: E402
from tests.support.stages import Stage  # noqa: E402

pytestmark = pytest.mark.train

HOSTILE = "a|b <script>alert(1)</script> [x](javascript:1)\u202e `c`\n# head"
LINEAGE = [
    {"stage": "sft", "kind": "sft", "backend": "trl", "data": "pairs", "packages": [],
     "settings": {"steps": 40, "lr": 1e-5, "beta": 0.1}},
]  # fmt: skip
METRICS = {
    "held": {
        "metrics": {
            "loss": {
                "value": 1.9375, "low": 1.875, "high": 2.0, "n": 120, "higher_is_better": False, "before": 2.5,
                "change": {"value": -0.5625, "low": -0.75, "high": -0.375, "n": 120},
                "gate": {"rule": "must fall", "tier": "critical", "verdict": "passed"},
            }
        }
    },
    HOSTILE: {"metrics": {"share": {"value": 0.5, "low": None, "high": None, "n": 3}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store entry with a model, a template, a licence and settings of generation."""
    root = tmp_path_factory.mktemp("source")
    stages.make_model(root / "output")
    config = json.loads((root / "output/tokenizer_config.json").read_text())
    template = "{% for one in messages %}{{ one['content'] }}{% endfor %}"
    (root / "output/tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    (root / "output/LICENSE").write_text("Do as you like.\n")
    return root


def export(root: Path, source: Path, name: str = "mine", lineage: Any = LINEAGE, **wanted: Any) -> Stage:
    how = {"gguf": None, "vllm": False, "max_shard_bytes": 60_000, **wanted}
    settings = {"export": how, "name": name, "base": "hf:org/base@main", "lineage": lineage}
    for where in ("final", "pairs", "base"):
        (root / where / "output").mkdir(parents=True)
    results.write(root / "final/output", METRICS)
    stages.write_rows(root / "pairs/output/train.jsonl", [{"id": str(n)} for n in range(7)])
    (root / "base/output/README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# Base\n")
    given = {"checkpoint": source, "evaluation:final": root / "final", "data:pairs": root / "pairs"}
    made = stages.stage(root / "export", "convert", "convert", settings, {**given, "base": root / "base"})
    named = {"checkpoint": "sft", "evaluation:final": "final", "data:pairs": "pairs", "base": "base"}
    inputs = {role: replace(one, stage=named[role]) for role, one in made.spec.inputs.items()}
    return Stage(replace(made.spec, inputs=inputs))


def logits(directory: Path, **how: Any) -> torch.Tensor:
    """By transformers alone, as somebody who downloads it would."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(str(directory), dtype=torch.float32, **how).eval()
    with torch.inference_mode():
        return model(torch.tensor([[1, 50, 60, 70, 80]])).logits


def test_the_directory_gives_the_same_logits_to_the_bit(tmp_path: Path, source: Path) -> None:
    stage = export(tmp_path, source)
    result = stage.start()
    output = stage.output
    assert result.metrics["shards"] == len(list(output.glob("model-*-of-*.safetensors"))) > 2
    # The matrix of the tokens alone is larger than a file may be.
    assert sum(path.stat().st_size > 62_000 for path in output.glob("model-*.safetensors")) == 1
    assert torch.equal(logits(output), logits(source / "output"))
    assert result.metrics["logit_difference"] == 0.0
    before, after = tokenizers.load(source / "output"), tokenizers.load(output)
    assert all(before(text)["input_ids"] == after(text)["input_ids"] for text in PROBE_TEXTS)
    chat = [{"role": "user", "content": "Olá"}]
    assert before.apply_chat_template(chat, tokenize=False) == after.apply_chat_template(chat, tokenize=False) == "Olá"
    assert (output / "generation_config.json").read_bytes() == (source / "output/generation_config.json").read_bytes()
    assert (output / "LICENSE").read_text() == "Do as you like.\n"
    assert interface.completeness(convert, output).problem is None  # type: ignore[arg-type]
    (output / sorted(path.name for path in output.glob("model-*"))[1]).unlink()
    assert interface.completeness(convert, output).problem is not None  # type: ignore[arg-type]


def test_one_file_where_it_fits_and_the_start_after_a_kill(tmp_path: Path, source: Path) -> None:
    stage = export(tmp_path, source, max_shard_bytes=1 << 30)
    stage.start()
    first = {path.name: path.read_bytes() for path in stage.output.iterdir()}
    assert sorted(first)[-3:] == ["model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    # A start that was killed left half of it; the next one has a directory of its own and makes the same bytes.
    (stage.output / "model.safetensors").write_bytes(b"cut")
    stage.start()
    assert {path.name: path.read_bytes() for path in stage.output.iterdir()} == first


def cells(line: str) -> list[str]:
    return [one.strip() for one in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_the_card_has_the_numbers_of_the_evaluation_and_nothing_of_this_machine(tmp_path: Path, source: Path) -> None:
    from huggingface_hub import ModelCard

    stage = export(tmp_path, source, name="mine")
    stage.start()
    text = (stage.output / "README.md").read_text()
    rows = {tuple(cells(line)[:3]): cells(line) for line in text.splitlines() if line.startswith("| final")}
    assert rows["final", "held", "loss"] == [
        "final", "held", "loss", "1.938", "\\[1.875, 2\\]".replace(", ", ", "), "2.5", "\\-0.5625",
        "\\[\\-0.75, \\-0.375\\]", "120", "must fall: passed",
    ]  # fmt: skip
    loaded = ModelCard.load(stage.output / "README.md").data
    assert (loaded.license, loaded.base_model, loaded.model_name) == ("apache-2.0", "org/base", "mine")
    values = {one.metric_name: one.metric_value for one in loaded.eval_results}
    assert values["held loss"] == METRICS["held"]["metrics"]["loss"]["value"]  # type: ignore[index]
    assert "| sft | supervised fine\\-tuning | trl | pairs | steps 40, lr 1e\\-05, beta 0.1 |" in text
    assert "| pairs | hf | its authors' own files | 7 |" in text
    assert "apache\\-2.0; its terms hold" in text
    assert str(tmp_path) not in text
    assert "another seed may differ" in text


def test_hostile_texts_are_texts(tmp_path: Path, source: Path) -> None:
    lineage = [{**LINEAGE[0], "backend": HOSTILE, "packages": [HOSTILE]}]
    stage = export(tmp_path, source, lineage=lineage)
    (tmp_path / "base/output/README.md").write_text("---\nlicense: 'mit\\n---\\n# x <script>'\n---\n")
    stage.start()
    _, head, body = (stage.output / "README.md").read_text().split("---\n", 2)
    assert "<script>" not in body
    assert "](javascript" not in body
    assert "\u202e" not in body + head
    assert "\n# head" not in body
    assert "[U+202E" in body
    found = yaml.safe_load(head)
    assert "license" not in found
    assert {one["metrics"][0]["type"] for one in found["model-index"][0]["results"]} == {"loss", "share"}
    assert "licence of the base is not known" in body
    (row,) = [line for line in body.splitlines() if line.startswith("| final") and "share" in line]
    assert len(cells(row)) == len(card.HEADER)


@pytest.mark.parametrize(("type_", "apart"), [("f32", 1e-5), ("f16", 1e-2), ("bf16", 0.1), ("q8_0", 0.1)])
def test_a_gguf_file_is_read_back(tmp_path: Path, source: Path, type_: str, apart: float) -> None:
    stage = export(tmp_path, source, gguf=type_)
    result = stage.start()
    path = stage.output / f"mine-{type_}.gguf"
    assert result.metrics["gguf"] == path.name
    assert result.metrics["gguf_logit_difference"] < 1e-4
    # By transformers, and by our own conversion into a directory.
    found = logits(stage.output, gguf_file=path.name)
    assert float((found - logits(source / "output")).abs().max()) < apart
    (tmp_path / "alone").mkdir()
    shutil.copyfile(path, tmp_path / "alone" / path.name)
    back = tmp_path / "back"
    back.mkdir()
    gguf.gguf_to_hf(tmp_path / "alone" / path.name, back)
    assert torch.allclose(logits(back), found, atol=1e-5)
    assert "read back, it gives the logits" in (stage.output / "README.md").read_text()


def of_family(directory: Path, family: str, **more: Any) -> Path:
    """A random model with a tokenizer of its family; ``more``: of its configuration."""
    import transformers

    (tokenizer_shapes.llama3 if family == "llama3" else tokenizer_shapes.qwen)(directory)
    torch.manual_seed(1)
    sizes: dict[str, Any] = {
        "vocab_size": 400, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": None, "eos_token_id": 1,
        "tie_word_embeddings": family != "qwen2",
    }  # fmt: skip
    rope = {"rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, **more}
    made = {
        "llama3": lambda: transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **rope)),
        "qwen2": lambda: transformers.Qwen2ForCausalLM(transformers.Qwen2Config(**sizes, **rope)),
        "qwen3": lambda: transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**sizes, **rope, head_dim=128)),
    }[family]()
    for name, value in made.named_parameters():
        if value.ndim == 1:  # norms begin as ones and biases as zeros, which any place would fit
            torch.nn.init.normal_(value, mean=0.0 if "bias" in name else 1.0, std=0.3)
    made.save_pretrained(directory)
    return directory


@pytest.mark.parametrize(
    ("family", "pre"), [("llama3", "llama-bpe"), ("qwen2", "qwen2"), ("qwen3", "qwen2")]
)  # fmt: skip
def test_llama_3_and_qwen_are_read_back(tmp_path: Path, family: str, pre: str) -> None:
    """By transformers the logits of the model, by our conversion its ids, and what is written says how text is cut."""
    directory = of_family(tmp_path / "model", family)
    model = models.load_model(directory)
    probes = gguf.probe_ids(directory)
    source = models.logits(model, probes)
    made = gguf_file.write(directory, model, "f32", "x")
    found = gguf_file.check(made, model, source, probes)
    assert found["gguf_rounding"] < 1e-4
    facts = gguf.read_gguf_tokenizer(made.path)
    assert (facts.pre, facts.add_bos) == (pre, family == "llama3")
    back = tmp_path / "back"
    (tmp_path / "alone").mkdir()
    back.mkdir()
    shutil.copyfile(made.path, tmp_path / "alone/x.gguf")
    gguf.gguf_to_hf(tmp_path / "alone/x.gguf", back)
    before, after = tokenizers.load(directory), tokenizers.load(back)
    for text in (*gguf_file.CUT_TEXTS, "<think>1</think><|im_end|>", "<|eot_id|> Hi there"):
        assert list(before(text)["input_ids"]) == list(after(text)["input_ids"]), text
    assert [token.special for token in before.added_tokens_decoder.values()] == [
        token.special for token in after.added_tokens_decoder.values()
    ]
    assert float((logits(back) - logits(directory)).abs().max()) < 1e-4


STRETCHED = {
    "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def test_stretched_positions_are_read_back(tmp_path: Path) -> None:
    """As of Llama 3.1, but stretched so early that a few tokens show it."""
    directory = of_family(tmp_path / "model", "llama3", head_dim=64, rope_parameters=STRETCHED)
    model = models.load_model(directory)
    probes = gguf.probe_ids(directory)
    made = gguf_file.write(directory, model, "f32", "x")
    assert gguf_file.check(made, model, models.logits(model, probes), probes)["gguf_rounding"] < 1e-4
    (tmp_path / "back").mkdir()
    (tmp_path / "alone").mkdir()
    shutil.move(made.path, tmp_path / "alone/x.gguf")
    gguf.gguf_to_hf(tmp_path / "alone/x.gguf", tmp_path / "back")
    ids = torch.tensor([[5 + n % 300 for n in range(200)]])

    def far(path: Path) -> torch.Tensor:
        with torch.inference_mode():
            return models.load_model(path)(ids).logits

    assert float((far(tmp_path / "back") - far(directory)).abs().max()) < 1e-5
    config = json.loads((tmp_path / "back/config.json").read_text())
    assert config["rope_parameters"] == STRETCHED
    plain = {**config, "rope_parameters": {"rope_type": "default", "rope_theta": 500_000.0}, "rope_scaling": None}
    (tmp_path / "back/config.json").write_text(json.dumps(plain))
    assert float((far(tmp_path / "back") - far(directory)).abs().max()) > 1e-3  # it is what these tokens show


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("rope_freqs.weight", [1.0, 2.0, 1.0, 2.0, 1.0, 2.0, 1.0, 2.0], "not stretched as those of Llama 3.1"),
        ("rope_factors_long.weight", [1.0] * 8, "cannot be read"),
        ("llama.rope.scaling.type", "yarn", "of type yarn"),
    ],
)
def test_other_positions_of_a_file_are_not_read_as_plain_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: Any, said: str
) -> None:
    import numpy as np
    from gguf import GGUFWriter

    directory = of_family(tmp_path / "model", "llama3")
    header = GGUFWriter.write_header_to_file

    def add(writer: GGUFWriter) -> None:
        if isinstance(change, str):
            writer.add_string(name, change)
        else:
            writer.add_tensor(name, np.array(change, dtype=np.float32))
        header(writer)

    monkeypatch.setattr(GGUFWriter, "write_header_to_file", add)
    made = gguf_file.write(directory, models.load_model(directory), "f32", "x")
    with pytest.raises(ConversionFailed, match=said):
        gguf.load_model(made.path)


def test_how_digits_are_cut_is_not_guessed(tmp_path: Path) -> None:
    """No merge of digits is in the vocabulary, so that ids alone could not tell; the pattern does."""
    directory = of_family(tmp_path / "model", "qwen2")
    raw = json.loads((directory / "tokenizer.json").read_text())
    pattern = raw["pre_tokenizer"]["pretokenizers"][0]["pattern"]
    pattern["Regex"] = pattern["Regex"].replace(r"\p{N}|", r"\p{N}{1,2}|")
    (directory / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ConversionFailed, match="cuts texts in none of these ways: gpt-2, smollm, llama-bpe, qwen2"):
        gguf_file.write(directory, models.load_model(directory), "f16", "x")


def test_a_gguf_file_that_is_wrong_is_refused(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_beside_each_other", lambda key, tensor, heads, own: tensor)
    with pytest.raises(ConversionFailed, match=r"against the model rounded to f16: logits differ by"):
        export(tmp_path, source, gguf="f16").start()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"architectures": ["MistralForCausalLM"]}, "the architecture is MistralForCausalLM"),
        ({"attention_bias": True}, "have biases"),
        ({"architectures": ["Qwen2ForCausalLM"], "use_sliding_window": True}, "sliding window"),
        ({"architectures": ["Qwen3ForCausalLM"], "head_dim": 16}, "its heads have 16 numbers"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, "of type linear"),
        ({"architectures": ["Qwen2ForCausalLM"], "rope_parameters": STRETCHED}, "stretched in a way that cannot be"),
    ],
)
def test_what_a_gguf_file_cannot_say_is_refused(
    tmp_path: Path, source: Path, change: dict[str, Any], said: str
) -> None:
    model = models.load_model(source / "output")
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.raises(ConversionFailed, match=f"{said}.*leave gguf out of to"):
        gguf_file.write(source / "output", model, "f16", "x")


def test_another_tokenizer_is_refused(tmp_path: Path, source: Path) -> None:
    other = shutil.copytree(source / "output", tmp_path / "other")
    raw = json.loads((other / "tokenizer.json").read_text())
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "."}, "behavior": "Isolated", "invert": False}, raw["pre_tokenizer"]]}  # fmt: skip
    (other / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ConversionFailed, match="cuts texts in none of these ways: gpt-2, smollm, llama-bpe, qwen2"):
        gguf_file.write(other, models.load_model(other), "f16", "x")


def test_weights_are_copied_whatever_their_type(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    given = {
        f"w{n}": torch.randn(8, 8).to(kind) for n, kind in enumerate((torch.bfloat16, torch.float16, torch.float32))
    }
    given["q"] = torch.randint(0, 100, (64,), dtype=torch.uint8)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    save_file({name: given[name] for name in ("w0", "q")}, tmp_path / "a/model-00001-of-00002.safetensors")
    save_file({name: given[name] for name in ("w1", "w2")}, tmp_path / "a/model-00002-of-00002.safetensors")
    names = shards.write_shards(tmp_path / "a", tmp_path / "b", 200)
    found: dict[str, Any] = {}
    for name in names:
        found |= load_file(tmp_path / "b" / name)
    assert found.keys() == given.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in given.items())


FAKE_VLLM = """
import json
from pathlib import Path
class SamplingParams:
    def __init__(self, **how): assert how["temperature"] == 0.0
class LLM:
    def __init__(self, model, **how): pass
    def generate(self, prompts, how):
        class Out: pass
        made = []
        for ids in json.loads(Path(__file__).with_name("answers.json").read_text()):
            one = Out(); one.token_ids = ids
            whole = Out(); whole.outputs = [one]
            made.append(whole)
        return made
"""


def test_vllm_is_held_against_transformers_where_it_is(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models.load_model(source / "output")
    assert "not tried, it is not installed" in smoke.answers(source / "output", model)
    monkeypatch.setattr(smoke, "versions", lambda *names: {"vllm": "1"})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "vllm.py").write_text(FAKE_VLLM)
    right = [
        model.generate(torch.tensor([ids]), max_new_tokens=smoke.TOKENS, do_sample=False, eos_token_id=None)[
            0, len(ids) :
        ]
        for ids in gguf.probe_ids(source / "output")
    ]
    answers = [one.tolist() for one in right]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    assert "are those of transformers" in smoke.answers(source / "output", model)
    answers[0][3] += 1
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    with pytest.raises(ConversionFailed, match=f"other tokens than transformers for 1 of {len(answers)} texts"):
        smoke.answers(source / "output", model)
    (tmp_path / "vllm.py").write_text("raise RuntimeError('no device')")
    with pytest.raises(ConversionFailed, match=r"(?s)vLLM cannot run .*no device"):
        smoke.answers(source / "output", model)


def test_an_input_of_the_spec_is_enough(tmp_path: Path, source: Path) -> None:
    """Without evaluations, data or base: the card says what there is not."""
    stage = export(tmp_path, source, lineage=[])
    only: dict[str, Input] = {"checkpoint": stage.spec.inputs["checkpoint"]}
    alone = Stage(replace(stage.spec, inputs=only))
    alone.start()
    text = (alone.output / "README.md").read_text()
    assert "Nothing was measured." in text
    assert "No data: nothing was trained." in text
