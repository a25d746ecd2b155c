"""GGUF to a Hugging Face directory, against the model that the GGUF file was made from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
gguf = pytest.importorskip("gguf")
pytest.importorskip("transformers")

from jobs.training import gguf as convert  # noqa: E402
from jobs.training import interface, models, tokenizers  # noqa: E402
from jobs.training.gguf import ConversionFailed  # noqa: E402
from jobs.training.probe_texts import PROBE_TEXTS  # noqa: E402
from jobs.training.tokenizers import LoaderDisagrees  # noqa: E402
from tests.support import stages  # noqa: E402

pytestmark = pytest.mark.train

NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""Names of weights in transformers and in GGUF."""


def write_gguf(source: Path, path: Path, **changes: Any) -> None:
    """The model and tokenizer of a Hugging Face directory as a GGUF file, in fp32."""
    from safetensors.torch import load_file

    config = json.loads((source / "config.json").read_text())
    tokenizer = json.loads((source / "tokenizer.json").read_text())
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(256)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    vocabulary += [f"<unused{index}>" for index in range(config["vocab_size"] - len(vocabulary))]
    writer.add_tokenizer_model(changes.get("model", "gpt2"))
    writer.add_tokenizer_pre(changes.get("pre", "gpt-2"))
    writer.add_token_list(vocabulary)
    writer.add_token_types([3 if index < 3 else 1 for index in range(len(vocabulary))])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["model"]["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(changes.get("add_bos", False))
    writer.add_chat_template("{{ messages }}")
    for name, tensor in load_file(source / "model.safetensors").items():
        parts = name.removesuffix(".weight").removeprefix("model.layers.").split(".", 1)
        short = f"blk.{parts[0]}.{NAMES[parts[1]]}" if parts[0].isdigit() else NAMES[name.removesuffix(".weight")]
        count = heads.get(short.rsplit(".", 1)[-1])
        if count:  # llama.cpp keeps the two halves of a rotary pair beside each other
            rows, columns = tensor.shape
            tensor = tensor.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)
        writer.add_tensor(f"{short}.weight", tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "source" / "output").mkdir(parents=True)
    return tmp_path / "source"


def test_gives_the_model_that_the_file_was_made_from(tmp_path: Path, base: Path, source: Path) -> None:
    from jobs.backends import convert as back_end
    from jobs.training.models import load_model

    write_gguf(base / "output", source / "output" / "model.gguf")
    stage = stages.stage(tmp_path / "hf", "convert", "convert", {"from": "gguf", "to": "hf"}, {"source": source})
    result = stage.start()
    assert result.metrics["logit_difference"] < 1e-5
    assert [report.step for report in stage.reports()] == [1, 2, 3, 4]

    ids = torch.tensor([[1, 50, 60, 70, 80]])
    with torch.inference_mode():
        wanted, found = (load_model(path).eval()(ids).logits for path in (base / "output", stage.output))
    assert torch.allclose(wanted, found, atol=1e-5)
    before, after = tokenizers.load(base / "output"), tokenizers.load(stage.output)
    assert all(before(text)["input_ids"] == after(text)["input_ids"] for text in PROBE_TEXTS)
    sealed = interface.behaviour(back_end, stage.output)
    assert sealed is not None
    assert sealed["special_ids"] == {"bos": 1, "eos": 2, "pad": 2}
    assert interface.behaviour(back_end, source / "output") is None
    assert json.loads((stage.output / "generation_config.json").read_text())["eos_token_id"] == 2


def test_weights_that_were_mixed_up_on_the_way_are_found(tmp_path: Path, base: Path) -> None:
    from safetensors.torch import load_file, save_file

    back = shutil.copytree(base / "output", tmp_path / "back")
    probes = convert.probe_ids(back)
    expected = models.logits(models.load_model(back), probes)
    assert convert.compare_logits(expected, expected, "itself")["logit_difference"] == 0.0
    weights = load_file(back / "model.safetensors")
    one, other = (f"model.layers.{layer}.self_attn.k_proj.weight" for layer in (0, 1))
    weights[one], weights[other] = weights[other], weights[one]
    save_file(weights, back / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ConversionFailed, match="back against itself: logits differ by"):
        convert.compare_logits(expected, models.logits(models.load_model(back), probes), "back against itself")


def test_digits_are_cut_apart_for_smollm(tmp_path: Path, base: Path, source: Path) -> None:
    path = source / "output" / "model.gguf"
    write_gguf(base / "output", path, pre="smollm")
    tokenizer = convert.build_tokenizer(convert.read_gguf_tokenizer(path))
    assert [tokenizer.decode([token]) for token in tokenizer.encode("a 123").ids][-3:] == ["1", "2", "3"]


def test_refuses_what_it_cannot_convert(tmp_path: Path, base: Path, source: Path) -> None:
    path = source / "output" / "model.gguf"
    for changes, text in (
        (
            {"pre": "tekken"},
            "pre-tokenizer 'tekken' is not known; known: default, gpt-2, llama-bpe, llama-v3, llama3, qwen2, smollm",
        ),
        ({"model": "llama"}, "only byte-level BPE"),
    ):
        write_gguf(base / "output", path, **changes)
        with pytest.raises(ConversionFailed, match=text):
            convert.gguf_to_hf(path, tmp_path)
    stage = stages.stage(tmp_path / "two", "convert", "convert", {}, {"source": source})
    (source / "output" / "second.gguf").touch()
    with pytest.raises(ConversionFailed, match="2 GGUF files, one is needed"):
        stage.start()


def test_refuses_a_directory_that_the_loader_reads_differently(tmp_path: Path) -> None:
    stages.make_tokenizer(tmp_path)
    convert.check_tokenizer(tmp_path)
    stages.make_tokenizer(tmp_path, tokenizer_class="LlamaTokenizerFast")
    with pytest.raises(LoaderDisagrees, match=r"gives other ids than tokenizer\.json for 'The capital"):
        convert.check_tokenizer(tmp_path)


def test_reads_the_file_once(tmp_path: Path, base: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers reads it again for each of its questions."""
    read: list[str] = []

    class Counted(gguf.GGUFReader):
        def __init__(self, path: str) -> None:
            read.append(path)
            super().__init__(path)

    path = source / "output" / "model.gguf"
    write_gguf(base / "output", path)
    monkeypatch.setattr(gguf, "GGUFReader", Counted)
    (tmp_path / "hf").mkdir()
    convert.gguf_to_hf(path, tmp_path / "hf")
    assert read == [str(path)]
    assert gguf.GGUFReader is Counted
