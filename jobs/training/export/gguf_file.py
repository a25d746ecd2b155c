"""A GGUF file of a model, for the families that ``jobs.training.gguf`` can read back: Llama, Qwen 2 and Qwen 3 with a
byte-level BPE.

What is written is read again by that reader. The tokenizer has to give the same ids, and the model the same logits as
one whose weights were rounded to the type of the file; how far rounding took it from its source is reported.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.training import gguf, models, stretched, tokenizers
from jobs.training.gguf import CONTROL_TOKEN, USER_TOKEN, ConversionFailed
from jobs.training.probe_texts import PROBE_TEXTS

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

PLAIN_TOKEN, UNUSED_TOKEN = 1, 5
"""``tokenizer.ggml.token_type`` of a token that merges make, and of a number that no token has."""

PRE_TOKENIZERS = ("gpt-2", "smollm", "llama-bpe", "qwen2")
"""What ``jobs.training.gguf`` can rebuild; which one a tokenizer is follows from how it cuts, and from its ids."""

CUT_TEXTS = (
    *PROBE_TEXTS, "a 1234567 b", "12 345", "it's IT'S we'Ll", "a\n\n  b \r\n\tc", "x_y!!\n?? --", "\u00bd\u00b2\uff13",
    "  two", "e\u0301 \u1100\u1161", "\u3000\u00a0z",
)  # fmt: skip
"""On which the ways to cut differ, whatever the merges are."""

FAMILIES = {"LlamaForCausalLM": "llama", "Qwen2ForCausalLM": "qwen2", "Qwen3ForCausalLM": "qwen3"}
"""Architecture -> its name in GGUF."""

QWEN3_HEAD = 128
"""transformers reads no other size of a head from the file."""

ROTARY = ("q_proj", "k_proj")


@dataclass(frozen=True)
class GgufFile:
    """A file, and the type of its matrices."""

    path: Path
    type: str


def write(directory: Path, model: PreTrainedModel, type_: str, name: str) -> GgufFile:
    """Write ``NAME-TYPE.gguf`` into a Hugging Face directory, whose loaded model this is.

    Raises:
        ConversionFailed: another architecture, other rotary positions or biases, or a tokenizer that cannot be read
            back.
    """
    import numpy as np
    from gguf import MODEL_ARCH, GGUFWriter, get_tensor_name_map

    config: Any = model.config
    _refuse(config, directory)
    path = directory / f"{name}-{type_}.gguf"
    family = FAMILIES[config.architectures[0]]
    writer = GGUFWriter(path, family)
    heads, own = config.num_attention_heads, config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    writer.add_name(name)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(heads)
    writer.add_head_count_kv(own)
    writer.add_key_length(width)
    writer.add_value_length(width)
    writer.add_rope_dimension_count(width)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(_base(config))
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(_file_type(type_))
    _tokenizer(writer, directory, config.vocab_size)
    names = get_tensor_name_map(MODEL_ARCH[family.upper()], config.num_hidden_layers)
    if _positions(config) == stretched.KIND:
        writer.add_tensor(stretched.TENSOR, np.array(stretched.factors(config), dtype=np.float32))
    for key, tensor in _tensors(model):
        short = names.get_name(key, try_suffixes=(".weight", ".bias"))
        if short is None:
            raise ConversionFailed(f"{directory}: GGUF has no place for the weight {key}")
        kind = _type_of(tensor, type_)
        if family == "llama":
            tensor = _beside_each_other(key, tensor, heads, own)
        data = _quantized(tensor, kind)
        writer.add_tensor(short, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return GgufFile(path, type_)


def check(
    made: GgufFile, model: PreTrainedModel, source: Sequence[torch.Tensor], probes: list[list[int]]
) -> dict[str, Any]:
    """Read the file back and compare; ``model`` is rounded to the file's type on the way. ``source``: logits of before.

    Raises:
        ConversionFailed: other ids, another template, or other logits than those of the rounded model.
    """
    import transformers

    path = made.path
    facts = gguf.read_gguf_tokenizer(path)
    written, loaded = gguf.build_tokenizer(facts), tokenizers.load(path.parent)
    for text in CUT_TEXTS:
        if list(loaded(text)["input_ids"]) != written.encode(text).ids:
            raise ConversionFailed(f"{path}: its tokenizer gives other ids for {text!r}")
    if facts.chat_template != loaded.chat_template:
        raise ConversionFailed(f"{path}: it has another chat template than {path.parent}")
    _round(model, made.type)
    expected = models.logits(model, probes)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    back = gguf.load_model(path)
    found = models.logits(back, probes)
    del back
    gc.collect()
    compared = gguf.compare_logits(expected, found, f"{path} against the model rounded to {made.type}")
    apart = max(float((one - other).abs().max()) for one, other in zip(source, found, strict=True))
    same = [one.argmax(-1) == other.argmax(-1) for one, other in zip(source, found, strict=True)]
    agreed = sum(int(one.sum()) for one in same) / sum(len(one) for one in same)
    return {
        "gguf": path.name,
        "gguf_logit_difference": compared["logit_difference"],
        "gguf_rounding": apart,
        "gguf_same_token": agreed,
    }


def told(name: str, metrics: dict[str, Any]) -> str:
    """What the card says of the file."""
    return (
        f"{name}: read back, it gives the logits of the weights rounded to its type; rounding moves them by up to "
        f"{metrics['gguf_rounding']:.3g}, and the most probable next token stays in {metrics['gguf_same_token']:.1%} "
        "of the places of a few fixed texts"
    )


def _refuse(config: Any, directory: Path) -> None:
    """Raises ConversionFailed: a model that the file could not say, or that the reader would read otherwise."""
    kind, wrong = (config.architectures or ["unknown"])[0], None
    if kind not in FAMILIES:
        wrong = f"the architecture is {kind}, and only {', '.join(FAMILIES)} can be"
    elif (positions := _positions(config)) not in ("default", stretched.KIND):
        wrong = f"its rotary positions are of type {positions}, and only plain ones and those of Llama 3.1 can be"
    elif positions == stretched.KIND and (
        kind != "LlamaForCausalLM" or stretched.parameters(stretched.factors(config), _base(config)) is None
    ):
        wrong = "its rotary positions are stretched in a way that cannot be"
    elif getattr(config, "attention_bias", False) or getattr(config, "mlp_bias", False):
        wrong = "its matrices have biases that this architecture mostly has not, and only those without can be"
    elif kind == "Qwen3ForCausalLM" and config.head_dim != QWEN3_HEAD:
        wrong = f"its heads have {config.head_dim} numbers, and of Qwen 3 only those with {QWEN3_HEAD} can be"
    elif getattr(config, "use_sliding_window", False):
        wrong = "it looks through a sliding window, and only models that see everything can be"
    if wrong is not None:
        raise ConversionFailed(f"{directory}: no GGUF file: {wrong} read back here: leave gguf out of to")


def _positions(config: Any) -> str:
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    return str(rope.get("rope_type", rope.get("type", "default")))


def _base(config: Any) -> float:
    rope = getattr(config, "rope_parameters", None) or {}
    return float(rope.get("rope_theta") or getattr(config, "rope_theta", None) or 10_000.0)


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight that is stored, once: tied ones are one."""
    tied = bool(model.config.tie_word_embeddings)
    for key, value in model.state_dict().items():
        if not (tied and key == "lm_head.weight"):
            yield key, value.detach().float().cpu()


def _beside_each_other(key: str, tensor: torch.Tensor, heads: int, own: int) -> torch.Tensor:
    """Rows of queries and keys as llama.cpp has them: the two numbers of a rotary pair beside each other."""
    if not any(f".{name}." in key for name in ROTARY):
        return tensor
    count = heads if ".q_proj." in key else own
    rows, columns = tensor.shape
    return tensor.reshape(count, 2, rows // count // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _type_of(tensor: torch.Tensor, type_: str) -> Any:
    """Of a tensor: norms stay whole numbers of 32 bits, and so do matrices that no whole blocks fit."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    wanted = GGMLQuantizationType[type_.upper()]
    if tensor.ndim < 2:
        return GGMLQuantizationType.F32
    block, _ = GGML_QUANT_SIZES[wanted]
    return wanted if tensor.shape[-1] % block == 0 else GGMLQuantizationType.F32


def _quantized(tensor: torch.Tensor, kind: Any) -> Any:
    from gguf import quants

    return quants.quantize(tensor.contiguous().numpy(), kind)


def _round(model: PreTrainedModel, type_: str) -> None:
    """Give a model the weights that a file of this type holds."""
    import torch
    from gguf import quants

    state = model.state_dict()
    with torch.no_grad():
        for key, value in _tensors(model):
            kind = _type_of(value, type_)
            state[key].copy_(torch.from_numpy(quants.dequantize(_quantized(value, kind), kind)).reshape(value.shape))
    model.tie_weights()


def _file_type(type_: str) -> int:
    from gguf import LlamaFileType

    names = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    return int(LlamaFileType[names[type_]])


def _tokenizer(writer: Any, directory: Path, size: int) -> None:
    """The tokenizer's facts. Raises ConversionFailed: no byte-level BPE, or one whose cuts are not known."""
    loaded = tokenizers.load(directory)
    path = directory / "tokenizer.json"
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    model = raw.get("model", {})
    if (
        model.get("type") != "BPE"
        or (raw.get("decoder") or {}).get("type") != "ByteLevel"
        or model.get("byte_fallback")
    ):
        raise ConversionFailed(
            f"{directory}: no GGUF file: its tokenizer is not a byte-level BPE: leave gguf out of to"
        )
    added = {one["id"]: one for one in raw.get("added_tokens", ())}
    by_id = {index: token for token, index in model["vocab"].items()} | {
        at: one["content"] for at, one in added.items()
    }
    tokens = [by_id.get(index, f"[unused{index}]") for index in range(size)]
    types = [_kind(added.get(index), index in by_id) for index in range(size)]
    merges = [one if isinstance(one, str) else " ".join(one) for one in model["merges"]]
    ids = {name: getattr(loaded, f"{name}_token_id") for name in ("bos", "eos", "pad", "unk")}
    facts = gguf.GgufTokenizer(
        "gpt2", "", tokens, types, merges, ids["bos"], ids["eos"], ids["pad"], ids["unk"], _begins(loaded, ids["bos"]),
        loaded.chat_template, 0,
    )  # fmt: skip
    writer.add_tokenizer_model(facts.model)
    writer.add_tokenizer_pre(_cuts(facts, loaded, directory))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    for name, index in ids.items():
        if index is not None:
            getattr(writer, f"add_{name}_token_id")(index)
    writer.add_add_bos_token(facts.add_bos)
    if facts.chat_template is not None:
        writer.add_chat_template(facts.chat_template)


def _kind(added: Mapping[str, Any] | None, is_known: bool) -> int:
    """Type of a token; ``added``: what tokenizer.json says of it beside the vocabulary."""
    if added is not None:
        return CONTROL_TOKEN if added["special"] else USER_TOKEN
    return PLAIN_TOKEN if is_known else UNUSED_TOKEN


def _begins(loaded: Any, bos: int | None) -> bool:
    """Whether the tokenizer puts its beginning token before a text."""
    return bos is not None and list(loaded("a")["input_ids"])[:1] == [bos]


def _pieces(cutter: Any) -> list[list[str]]:
    return [[piece for piece, _ in cutter.pre_tokenize_str(text)] for text in CUT_TEXTS]


def _cuts(facts: gguf.GgufTokenizer, loaded: Any, directory: Path) -> str:
    """The name of how text is cut before merging: the one by which texts have the same pieces, and the same ids."""
    from dataclasses import replace

    from tokenizers import Tokenizer

    own = Tokenizer.from_file(str(directory / "tokenizer.json")).pre_tokenizer
    wanted = [list(loaded(text)["input_ids"]) for text in CUT_TEXTS]
    for name in PRE_TOKENIZERS:
        if own is None or _pieces(own) != _pieces(gguf.cuts(name)):
            continue
        built = gguf.build_tokenizer(replace(facts, pre=name))
        if [built.encode(text).ids for text in CUT_TEXTS] == wanted:
            return name
    known = ", ".join(PRE_TOKENIZERS)
    raise ConversionFailed(f"{directory}: no GGUF file: its tokenizer cuts texts in none of these ways: {known}")
