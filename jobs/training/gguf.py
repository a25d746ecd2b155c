"""Conversion of checkpoints between formats; so far GGUF (quantised, one file) to a Hugging Face directory.

The weights are de-quantised by transformers. The tokenizer is not taken from there: transformers guesses its class and
its special tokens, and the directory that it saves gives other ids when it is loaded by another version. It is built
here from the facts in the GGUF file, and the result is refused unless the loader that training uses gives exactly the
ids of the plain tokenizer.json, read by the ``tokenizers`` library.
"""

from __future__ import annotations

import functools
import gc
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.core import files
from jobs.core.spec import StageSpec
from jobs.core.verdict import FailureClass
from jobs.training import cpu, finished, stretched, tokenizers
from jobs.training.interface import Result, WorkContext
from jobs.training.probe_texts import PROBE_TEXTS
from jobs.training.tokenizers import LoaderDisagrees

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer
    from transformers import PreTrainedModel

CONTROL_TOKEN, USER_TOKEN = 3, 4
"""``tokenizer.ggml.token_type`` of tokens that stand for themselves and are never split (llama.h, LLAMA_TOKEN_TYPE);
only the second are shown in texts."""

MAX_LOGIT_DIFFERENCE = 1e-3
"""Saved and de-quantised model hold the same fp32 numbers; kernels may only sum them in another order."""

PROMPT = "The capital of France is"


class ConversionFailed(RuntimeError):
    """The converted checkpoint does not behave as its source."""

    failure = FailureClass.CODE_ERROR


@dataclass(frozen=True)
class GgufTokenizer:
    """What a GGUF file says about its tokenizer (keys ``tokenizer.*`` of the GGUF specification)."""

    model: str
    pre: str
    tokens: list[str]
    types: list[int]
    merges: list[str]
    bos: int | None
    eos: int | None
    pad: int | None
    unknown: int | None
    add_bos: bool
    chat_template: str | None
    context_length: int


def run(spec: StageSpec, ctx: WorkContext) -> Result:
    """Convert the input ``source`` (format gguf) to the format hf, on rank 0.

    Raises:
        ConversionFailed: no or several GGUF files, a tokenizer of an unknown kind, or other logits after saving.
        LoaderDisagrees: the loader of training reads the written tokenizer differently.
    """
    if ctx.rank != 0:
        return Result("done", step=STEPS)
    found = sorted(spec.inputs["source"].output.rglob("*.gguf"))
    if len(found) != 1:
        raise ConversionFailed(f"{spec.inputs['source'].output}: {len(found)} GGUF files, one is needed")
    metrics = gguf_to_hf(found[0], ctx.output, lambda step, phase: ctx.progress.report(step, STEPS, phase))
    return Result("done", step=STEPS, metrics=metrics)


STEPS = 4


def gguf_to_hf(path: Path, output: Path, report: Any = lambda step, phase: None) -> dict[str, float]:
    """Write ``path`` as a Hugging Face directory with fp32 weights; see ``compare_logits`` for what is returned.

    Raises: see ``run``.
    """
    import transformers

    from jobs.training import models

    cpu.use_threads(None)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with _read_once():
        facts = read_gguf_tokenizer(path)
        write_tokenizer(facts, output)
        check_tokenizer(output)
        report(1, "tokenizer")

        loaded = load_model(path)
    report(2, "de-quantised")
    probes = probe_ids(output)
    expected = models.logits(loaded, probes)
    _save(loaded, facts, output)
    del loaded
    gc.collect()
    report(3, "saved")

    saved = models.logits(models.load_model(output), probes)
    found = compare_logits(expected, saved, f"{output} against {path}")
    report(4, "compared")
    return found


def load_model(path: Path) -> PreTrainedModel:
    """The model in a GGUF file with fp32 weights. transformers reads neither tensors nor keys about stretched rotary
    positions, so they are read here.

    Raises:
        ConversionFailed: its rotary positions are stretched in a way that is not known here.
    """
    import torch
    from gguf import GGUFReader
    from transformers import AutoConfig, AutoModelForCausalLM

    reader = GGUFReader(str(path))
    config = AutoConfig.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True)
    kind = next((one.contents() for key, one in reader.fields.items() if key.endswith(".rope.scaling.type")), "none")
    stretching = {one.name: one for one in reader.tensors if one.name.startswith("rope_f")}
    if kind != "none" or set(stretching) - {stretched.TENSOR}:
        raise ConversionFailed(f"{path}: rotary positions of type {kind} ({', '.join(stretching)}) cannot be read")
    if stretching:
        base = float(config.rope_parameters["rope_theta"])
        given = stretched.parameters([float(one) for one in stretching[stretched.TENSOR].data], base)
        if given is None or config.model_type != "llama":
            raise ConversionFailed(f"{path}: its rotary positions are not stretched as those of Llama 3.1 are")
        config.rope_parameters = given
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(path.parent), config=config, gguf_file=path.name, dtype=torch.float32, local_files_only=True
    )
    return model


@contextmanager
def _read_once() -> Iterator[None]:
    """Within it a GGUF file is read once, and a table of tensor names made once.

    transformers reads the file again for the configuration and for the weights, some seconds each time, and makes the
    table again for every module of the model. It looks both functions up when it needs them.
    """
    import gguf

    own = {name: getattr(gguf, name) for name in ("GGUFReader", "get_tensor_name_map")}
    for name, function in own.items():
        setattr(gguf, name, functools.cache(function))
    try:
        yield
    finally:
        for name, function in own.items():
            setattr(gguf, name, function)


def compare_logits(expected: list[torch.Tensor], found: list[torch.Tensor], where: str) -> dict[str, float]:
    """Largest difference between the logits of source and target, and what was allowed; both go into the seal.

    Shapes (tokens, vocabulary) per probe; a vocabulary padded for parallelism may be longer in ``found``.

    Raises:
        ConversionFailed: they differ by more than ``MAX_LOGIT_DIFFERENCE``, relative to the largest logit above 1.
    """
    worst, height = 0.0, 1.0
    for left, right in zip(expected, found, strict=True):
        width = min(left.shape[-1], right.shape[-1])
        left, right = left[..., :width], right[..., :width]
        worst = max(worst, float((left - right).abs().max()))
        height = max(height, float(left.abs().max()))
    tolerance = MAX_LOGIT_DIFFERENCE * height
    if not worst <= tolerance:  # also when it is not a number
        raise ConversionFailed(f"{where}: logits differ by {worst:.3g}, allowed are {tolerance:.3g}")
    return {"logit_difference": worst, "logit_tolerance": tolerance}


def compare_weights(expected: Mapping[str, str], found: Mapping[str, str], where: str) -> None:
    """Nothing, where every tensor of ``expected`` (name -> digest) is in ``found``, the same to the bit.

    Raises:
        ConversionFailed: naming the first that are not.
    """
    other = [name for name, digest in expected.items() if found.get(name) != digest]
    if other:
        named = ", ".join(other[:3]) + (", ..." if len(other) > 3 else "")
        raise ConversionFailed(f"{where}: {len(other)} of {len(expected)} weights differ: {named}")


def check_same_tokenizer(source: Path, output: Path) -> None:
    """Both directories must give the same ids, special tokens and chat template.

    Raises:
        ConversionFailed: naming what differs.
    """
    found = tokenizers.behaviour(output)
    for name, value in tokenizers.behaviour(source).items():
        if found[name] != value:
            raise ConversionFailed(f"{output}: the tokenizer has another {name} than that of {source}")


def read_gguf_tokenizer(path: Path) -> GgufTokenizer:
    """The tokenizer's facts in a GGUF file.

    Raises:
        ConversionFailed: no byte-level BPE tokenizer in it.
    """
    from gguf import GGUFReader

    fields = GGUFReader(str(path)).fields

    def value(name: str, default: Any = None) -> Any:
        return fields[name].contents() if name in fields else default

    model = value("tokenizer.ggml.model")
    if model != "gpt2":
        raise ConversionFailed(f"{path}: tokenizer model {model!r}; only byte-level BPE ('gpt2') can be converted")
    prefix = "tokenizer.ggml."
    return GgufTokenizer(
        model=model,
        pre=value(prefix + "pre", "default"),
        tokens=value(prefix + "tokens"),
        types=value(prefix + "token_type"),
        merges=value(prefix + "merges"),
        bos=value(prefix + "bos_token_id"),
        eos=value(prefix + "eos_token_id"),
        pad=value(prefix + "padding_token_id"),
        unknown=value(prefix + "unknown_token_id"),
        add_bos=value(prefix + "add_bos_token", False),
        chat_template=value("tokenizer.chat_template"),
        context_length=value(f"{value('general.architecture')}.context_length"),
    )


def build_tokenizer(facts: GgufTokenizer) -> Tokenizer:
    """A byte-level BPE tokenizer, by the ``tokenizers`` library alone.

    How text is cut before merging: see ``cuts``. Tokens of the user are no special ones.

    Raises:
        ConversionFailed: a pre-tokenizer that is not known here.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    if facts.pre not in CUTS:
        raise ConversionFailed(f"pre-tokenizer {facts.pre!r} is not known; known: {', '.join(sorted(CUTS))}")
    merges = [(left, right) for left, _, right in (merge.partition(" ") for merge in facts.merges)]
    vocabulary = {token: index for index, token in enumerate(facts.tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=CUTS[facts.pre] == "llama-bpe"))
    if CUTS[facts.pre] == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = cuts(facts.pre)
    tokenizer.decoder = decoders.ByteLevel()
    kinds = [*zip(facts.tokens, facts.types, strict=True)]
    for own, is_special in ((CONTROL_TOKEN, True), (USER_TOKEN, False)):
        added = [AddedToken(token, special=is_special, normalized=False) for token, kind in kinds if kind == own]
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)(added)
    if facts.add_bos and facts.bos is not None:
        bos = facts.tokens[facts.bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, facts.bos)]
        )
    return tokenizer


CUTS = {
    "default": "gpt-2", "gpt-2": "gpt-2", "smollm": "smollm", "llama-bpe": "llama-bpe", "llama3": "llama-bpe",
    "llama-v3": "llama-bpe", "qwen2": "qwen2",
}  # fmt: skip
"""``tokenizer.ggml.pre`` -> which of the ways of ``cuts`` it is."""

_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Contractions, words with what stands before them, digits, marks with line ends, spaces."""


def cuts(pre: str) -> PreTokenizer:
    """How text is cut before merging, as llama.cpp does it (``llama_vocab``, pre-tokenizer types).

    ``smollm`` cuts digits apart and then applies the pattern of GPT-2; ``llama-bpe`` (Llama 3) keeps up to three digits
    together, and takes a word that is in the vocabulary as it is; ``qwen2`` keeps none, and composes letters first
    (NFC), which the models were trained with and llama.cpp leaves out.
    """
    from tokenizers import Regex, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if CUTS[pre] == "gpt-2":
        return byte_level
    if CUTS[pre] == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    pattern = Regex(_WORDS % ("{1,3}" if CUTS[pre] == "llama-bpe" else ""))
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(pattern, behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
        ]
    )


def write_tokenizer(facts: GgufTokenizer, output: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json.

    The class is the generic ``PreTrainedTokenizerFast``, which takes tokenizer.json as it is, in transformers 4 and 5.
    """
    build_tokenizer(facts).save(str(output / "tokenizer.json"))
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": facts.context_length,
        "clean_up_tokenization_spaces": False,
    }
    for name, index in (("bos", facts.bos), ("eos", facts.eos), ("pad", facts.pad), ("unk", facts.unknown)):
        if index is not None:
            config[f"{name}_token"] = facts.tokens[index]
    if facts.chat_template:
        config["chat_template"] = facts.chat_template
    files.write_json(output / "tokenizer_config.json", config)


def check_tokenizer(checkpoint: Path) -> None:
    """Compare the loader of training with the plain file, on the probe texts and on special tokens within text.

    Raises:
        LoaderDisagrees: with the text and both lists of ids.
    """
    from tokenizers import Tokenizer

    raw = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    loaded = tokenizers.load(checkpoint)
    special = "".join(token for token in (loaded.bos_token, "user\nOlá", loaded.eos_token, "\n") if token)
    tokenizers.check_against_file(checkpoint, (*PROBE_TEXTS, special))
    for text in (*PROBE_TEXTS, special):
        if raw.decode(raw.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) != text:
            raise LoaderDisagrees(f"{checkpoint}: {text!r} is not the same after encoding and decoding")


def probe_ids(checkpoint: Path) -> list[list[int]]:
    """Ids of the fixed prompts on which source and target of a conversion are compared."""
    tokenizer = tokenizers.load(checkpoint)
    return [list(tokenizer(text)["input_ids"]) for text in (PROMPT, *PROBE_TEXTS)]


def _save(loaded: PreTrainedModel, facts: GgufTokenizer, output: Path) -> None:
    """Save through a fresh model of the same class: the loaded one believes to be quantised and refuses."""
    import torch

    config = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "gguf_file"):
        config.pop(name, None)
    config |= {"bos_token_id": facts.bos, "eos_token_id": facts.eos, "pad_token_id": facts.pad}
    with torch.device("meta"):  # no random weights: all come from the other model
        fresh = type(loaded)(type(loaded.config)(**config))
    fresh.load_state_dict(loaded.state_dict(), assign=True)
    fresh.tie_weights()
    fresh.generation_config.bos_token_id = facts.bos
    fresh.generation_config.eos_token_id = facts.eos
    fresh.generation_config.pad_token_id = facts.pad
    fresh.save_pretrained(output)
    finished.add_old_names(output)
